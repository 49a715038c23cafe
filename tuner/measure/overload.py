"""What a server does with more load than it can carry: shed it, or stall; and how it recovers."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_MS, NS_PER_S
from tuner.measure.percentiles import value_at
from tuner.records import Overload, OverloadFinding, Samples
from tuner.slo import PERCENTILES, Slo

SETTLING = 1 / 3
"""Share of the overload that fills the queue and is not judged."""

STALLED = 3.0
"""Answers that come so many limits late are worth no more than none: the queue is too long."""

FEWEST = 20
"""Requests that must follow within the limits before a server counts as recovered."""


def judge_overload(samples: Samples, *, share: float, end_ns: int, slo: Slo) -> Overload:
    """Judge a run that offered `share` of the sustainable rate until `end_ns`, and less after.

    *Carries*: the latency limits hold even so. *Sheds*: what is turned away is turned away at
    once, and what is accepted is answered within a few limits, however long it goes on. *Slows*:
    all is answered within a few limits. *Collapses*: that too, but less than half of the
    sustainable rate within the limits themselves. *Stalls*: answers come later and later. A run
    that was given up before `end_ns` had no end to its queue.
    """
    name, _ = slo.limits_ms[-1]
    loosest_ns = slo.loosest_ms * NS_PER_MS
    cut_short = samples.ended_ns < end_ns
    end_ns = min(end_ns, samples.ended_ns)
    start_ns = samples.started_ns + round((end_ns - samples.started_ns) * SETTLING)
    inside = (samples.intended_ns >= start_ns) & (samples.intended_ns < end_ns)
    late = samples.latency_ns > loosest_ns
    failed = samples.status != 0
    number = max(1, int(np.count_nonzero(inside)))
    seconds = max(end_ns - start_ns, 1) / NS_PER_S
    answered_ns = samples.latency_ns[inside & ~failed]
    tail_ms = value_at(PERCENTILES[name], answered_ns) if len(answered_ns) else None
    shed = int(np.count_nonzero(inside & failed & ~late))
    missed = int(np.count_nonzero(inside & (failed | late)))
    finding: OverloadFinding = "stalls"
    if not cut_short and missed <= (1 - PERCENTILES[name]) * number:
        finding = "carries"
    elif not cut_short and tail_ms is not None and tail_ms <= STALLED * slo.loosest_ms:
        finding = "sheds" if shed else "slows"
    found = Overload(
        share=share,
        offered_rps=number / seconds,
        goodput_rps=(number - missed) / seconds,
        shed_share=shed / number,
        late_share=int(np.count_nonzero(inside & late)) / number,
        answered_tail_ms=tail_ms,
        recovery_s=None if cut_short else _recovery_s(samples, failed | late, end_ns, name),
        finding=finding,
        requests=number,
    )
    return replace(found, finding=found.judged)


def _recovery_s(
    samples: Samples, missed: NDArray[np.bool_], end_ns: int, name: str
) -> float | None:
    """Seconds from the overload's end to a request from which on the limit held; None: none.

    It is one that was itself in time: the last of the overload's late ones may be so few of all
    that followed that a percentile overlooks them.
    """
    after = samples.intended_ns >= end_ns
    times, wrong = samples.intended_ns[after], missed[after]
    left = np.arange(len(wrong), 0, -1)
    share = np.cumsum(wrong[::-1])[::-1] / left
    good = np.flatnonzero((share <= 1 - PERCENTILES[name]) & (left >= FEWEST) & ~wrong)
    if not len(good):
        return None
    first = int(good[0])
    return 0.0 if first == 0 else float(times[first] - end_ns) / NS_PER_S
