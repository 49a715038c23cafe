"""From the samples of one load level to its Measurement: facts only, no judgement.

The window holds the requests *intended* from the end of warm-up to the end of the schedule. Those
intended before it are kept in the samples, not counted. The drain that follows belongs to
throughput's time, since its answers are counted: throughput = answers / (window + drain).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_MS, NS_PER_S
from tuner.errors import LoadError
from tuner.measure.autocorrelation import effective_samples
from tuner.measure.histogram import LatencyHistogram
from tuner.measure.percentiles import supported_percentiles_ms, value_at
from tuner.measure.steady import latency_growth_ms, littles_law_gap, outstanding_growth_rps
from tuner.records import HostEvidence, Measurement, Samples, ServerEvidence, Status
from tuner.slo import Slo, limit_name

ERROR_KINDS = 20
"""Kinds of error that a record keeps apart; the rarest are counted together."""

OTHER_ERRORS = "OTHER: rarer errors"

_TEXT_LENGTH = 160
_FAILED = np.iinfo(np.int64).max
_VOLATILE = re.compile(
    r"0x[0-9a-f]+|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b"
    r"|\d+(?:[.:]\d+)*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The requests intended in [start_ns, end_ns), as masks over `samples`."""

    samples: Samples
    start_ns: int
    end_ns: int
    inside: NDArray[np.bool_]
    answered: NDArray[np.bool_]

    @property
    def answered_ns(self) -> NDArray[np.int64]:
        """Latencies of the answered requests, in order of arrival."""
        return self.samples.latency_ns[self.answered]

    @property
    def latency_ns(self) -> NDArray[np.int64]:
        """Latencies of all requests, in order of arrival; the failed are above every limit."""
        return np.where(self.answered, self.samples.latency_ns, _FAILED)[self.inside]

    @property
    def length_s(self) -> float:
        """Seconds from its start to its end."""
        return (self.end_ns - self.start_ns) / NS_PER_S

    @property
    def requests(self) -> int:
        """Requests intended in the window."""
        return int(np.count_nonzero(self.inside))


def window(samples: Samples, *, warmup_s: float) -> Window:
    """Cut the window: from `warmup_s` seconds after the start to the end of the schedule.

    Raises LoadError where nothing of the schedule is left, or where time runs backwards.
    """
    start_ns = samples.started_ns + round(warmup_s * NS_PER_S)
    if start_ns >= samples.ended_ns:
        run_s = (samples.ended_ns - samples.started_ns) / NS_PER_S
        raise LoadError(
            f"warm-up of {warmup_s:g} s leaves no window in a run of {run_s:g} s",
            hint="lengthen the window or shorten the warm-up",
        )
    inside = (samples.intended_ns >= start_ns) & (samples.intended_ns < samples.ended_ns)
    if np.any(samples.done_ns[inside] < samples.intended_ns[inside]):
        raise LoadError(
            "a request was done before it was to be sent",
            hint="the load generator's clock is not this machine's monotonic clock",
        )
    return Window(samples, start_ns, samples.ended_ns, inside, inside & (samples.status == 0))


def window_histogram(*cuts: Window) -> LatencyHistogram:
    """Record the latencies of windows in one histogram, failures counted beside them."""
    answered_ns = np.concatenate([cut.answered_ns for cut in cuts])
    return LatencyHistogram.of(answered_ns, sum(cut.requests for cut in cuts) - len(answered_ns))


def measure(
    samples: Samples,
    *,
    warmup_s: float,
    slo: Slo,
    host: HostEvidence,
    seed: int | None,
    server: ServerEvidence | None = None,
) -> Measurement:
    """Measure one load level. Raises LoadError where its samples have no window."""
    cut = window(samples, warmup_s=warmup_s)
    return pooled([cut], slo=slo, host=host, seed=seed, server=server)


def pooled(
    cuts: Sequence[Window],
    *,
    slo: Slo,
    host: HostEvidence,
    seed: int | None,
    server: ServerEvidence | None = None,
) -> Measurement:
    """Measure one load level from windows that were driven one after the other, at least one.

    Counts and times add up, percentiles are those of all requests together; whether the server
    is steady is a question to the last window.
    """
    last = cuts[-1]
    window_s = sum(cut.length_s for cut in cuts)
    drain_s = sum(_drain_s(cut) for cut in cuts)
    seconds = window_s + drain_s
    answered_ns = np.concatenate([cut.answered_ns for cut in cuts])
    latency_ns = np.concatenate([cut.latency_ns for cut in cuts])
    lateness_ns = np.concatenate([cut.samples.lateness_ns[cut.inside] for cut in cuts])
    requests, answered = len(latency_ns), len(answered_ns)
    concurrency = last.samples.concurrency
    over = {
        name: int(np.count_nonzero(latency_ns > limit_ms * NS_PER_MS))
        for name, limit_ms in slo.limits_ms
    }
    useful = int(np.count_nonzero(answered_ns <= slo.loosest_ms * NS_PER_MS))
    return Measurement(
        loop="open" if concurrency is None else "closed",
        offered_rps=requests / window_s if concurrency is None else None,
        concurrency=concurrency,
        window_s=window_s,
        drain_s=drain_s,
        warmup_s=sum((cut.start_ns - cut.samples.started_ns) / NS_PER_S for cut in cuts),
        requests=requests,
        answered=answered,
        throughput_rps=answered / seconds,
        goodput_rps=useful / seconds,
        rows_rps=float(sum(cut.samples.rows[cut.answered].sum() for cut in cuts)) / seconds,
        mean_ms=float(answered_ns.mean()) / NS_PER_MS if answered else None,
        max_ms=float(answered_ns.max()) / NS_PER_MS if answered else None,
        percentiles_ms=supported_percentiles_ms(answered_ns, requests - answered),
        over_limit={limit_name(name): count for name, count in over.items()},
        errors=_errors(cuts),
        lateness_p50_ms=value_at(0.5, lateness_ns),
        lateness_p99_ms=value_at(0.99, lateness_ns),
        lateness_max_ms=value_at(1.0, lateness_ns),
        achieved_share=_achieved_share(cuts, requests),
        outstanding_slope_rps=outstanding_growth_rps(last.samples, last.start_ns, last.end_ns),
        # The highest percentile promised has the fewest events, so it needs the most samples.
        effective_samples=effective_samples(latency_ns, over[slo.limits_ms[-1][0]]),
        host=host,
        server=server,
        seed=seed,
        latency_slope_ms=latency_growth_ms(last.samples, last.start_ns, last.end_ns),
        littles_gap=max(
            (littles_law_gap(cut.samples, cut.start_ns, cut.end_ns) for cut in cuts), key=abs
        ),
        looks=len(cuts),
    )


def _drain_s(cut: Window) -> float:
    """Seconds from the end of the window to the last answer of one of its requests."""
    done = cut.samples.done_ns[cut.answered]
    return max(0, int(done.max()) - cut.end_ns) / NS_PER_S if len(done) else 0.0


def _achieved_share(cuts: Sequence[Window], requests: int) -> float:
    """Share of the requests that were sent before their window's end; 1 where there are none."""
    sent = sum(int(np.count_nonzero(cut.samples.sent_ns[cut.inside] < cut.end_ns)) for cut in cuts)
    return sent / requests if requests else 1.0


def error_kind(status: Status) -> str:
    """Name a failure by code and text, such as `UNAVAILABLE: queue full; currently N batches`.

    Numbers, addresses and ids become `N`: they would make a kind of every failure.
    """
    line = status.text.strip().partition("\n")[0]
    text = _VOLATILE.sub("N", line)
    if len(text) > _TEXT_LENGTH:
        text = text[: _TEXT_LENGTH - 1] + "…"
    return f"{status.code}: {text}" if text else status.code


def _errors(cuts: Sequence[Window]) -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for cut in cuts:
        statuses = cut.samples.statuses
        numbers = np.bincount(cut.samples.status[cut.inside], minlength=len(statuses))
        for status, number in list(zip(statuses, numbers.tolist(), strict=True))[1:]:
            kinds[error_kind(status)] += number
    return ranked_errors(kinds)


def ranked_errors(kinds: Counter[str]) -> dict[str, int]:
    """Kinds of failure, most frequent first, at most ERROR_KINDS and the rest together."""
    ranked = [(kind, number) for kind, number in kinds.most_common() if number]
    rest = sum(number for _, number in ranked[ERROR_KINDS:])
    return dict(ranked[:ERROR_KINDS]) | ({OTHER_ERRORS: rest} if rest else {})
