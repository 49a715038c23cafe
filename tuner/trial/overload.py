"""The overload test: more than the sustainable rate for a while, then less, in one run each."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tuner.clock import NS_PER_S
from tuner.errors import disk
from tuner.load.generator import OpenLoop
from tuner.measure.overload import judge_overload
from tuner.records import Overload, TrialRecord
from tuner.trial.levels import Levels

LIMITS = 30.0
"""An overload lasts so many latency limits at least: at 120 % an endless queue is five long."""

AFTERWARDS = 0.8
"""Share of the sustainable rate that follows, under which a server can recover."""

ENDLESS = 4
"""So many outstanding limits end a test: a queue that long has no end."""


def overload_test(levels: Levels, record: TrialRecord, shares: tuple[float, ...]) -> TrialRecord:
    """Offer each of `shares` of the task's rate, and complete the record with what came of it."""
    found = tuple(_overloaded(levels, share) for share in shares)
    return replace(record, outcome="ok", levels=tuple(levels.done), overload=found)


def _overloaded(levels: Levels, share: float) -> Overload:
    rate_rps = levels.task.overload_rps
    assert rate_rps is not None
    settings, slo = levels.bench.scenario.measure, levels.bench.slo
    seconds = min(max(settings.window_s, LIMITS * slo.loosest_ms / 1000), settings.max_window_s)
    levels.bench.notify(f"{share * 100:.0f} % of the sustainable rate")
    offsets = levels.folder / f"overload-{share * 100:.0f}.offsets"
    above = levels.schedule(share * rate_rps, seconds, levels.seed)
    below = levels.schedule(AFTERWARDS * rate_rps, seconds, levels.seed + 1)
    _write(offsets, above, below)
    samples = levels.answered(
        OpenLoop(
            rate_rps=None,
            duration_s=2 * seconds,
            seed=levels.seed,
            arrivals="trace",
            trace=offsets,
            give_up_outstanding=ENDLESS * levels.bench.scenario.load.outstanding_limit,
        )
    )
    end_ns = samples.started_ns + round(seconds * NS_PER_S)
    return judge_overload(samples, share=share, end_ns=end_ns, slo=slo)


def _write(path: Path, first: OpenLoop, then: OpenLoop) -> None:
    """Write the arrivals of two loads, one after the other, as a trace."""
    later_ns = then.offsets_ns() + round(first.duration_s * NS_PER_S)
    offsets_ns = np.concatenate([first.offsets_ns(), later_ns])
    with disk(path):
        path.write_text("".join(f"{ns / NS_PER_S:.9f}\n" for ns in offsets_ns), encoding="ascii")
