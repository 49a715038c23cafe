"""Whether a server is warm, steady, or saturated.

* Warm-up is detected, not assumed: MSER-5 (White, "An effective truncation heuristic for bias
  reduction in simulation output", Simulation 69, 1997) finds where the cold requests end.
* Steadiness is a trend test with a margin by Student's t over twenty slices, on outstanding
  requests in an open loop and on latency in a closed one.
* Saturation shows in the same trend: offered more than it can carry, a server lets the number of
  outstanding requests grow by the difference, second after second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_MS, NS_PER_S
from tuner.measure.binomial import student_tail
from tuner.records import Samples

SLICES = 20
SIGNIFICANCE = 0.01
"""A trend at least as strong as the one seen has at most this probability without a cause."""

_MSER_BATCH = 5
_WARM_SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through the means of equal slices: `slope` is per slice."""

    slope: float
    mean: float
    probability: float

    @property
    def significant(self) -> bool:
        """The slope is unlikely to be noise."""
        return self.probability <= SIGNIFICANCE

    @property
    def change(self) -> float:
        """Change from first to last slice, relative to the mean."""
        return self.slope * (SLICES - 1) / self.mean if self.mean else 0.0


def trend(means: NDArray[np.float64]) -> Trend:
    """Fit slice means by least squares; the t test has two degrees of freedom less than slices."""
    x = np.arange(len(means)) - (len(means) - 1) / 2
    spread = float(x @ x)
    slope = float(x @ means) / spread
    rest = means - means.mean() - slope * x
    degrees = len(means) - 2
    error = float(np.sqrt((rest @ rest) / degrees / spread))
    probability = student_tail(slope / error, degrees) if error else float(slope == 0)
    return Trend(slope, float(means.mean()), probability)


def mser5(values: NDArray[np.float64]) -> int:
    """Count the leading values to drop so that the mean of the rest is known best.

    Minimises the standard error of the remaining mean over means of five values. A cut beyond the
    first half says that the series is too short to tell, and is the caller's to refuse.
    """
    batches = len(values) // _MSER_BATCH
    if batches < 2:
        return 0
    means = values[: batches * _MSER_BATCH].reshape(batches, _MSER_BATCH).mean(axis=1)
    # Centred, so that the difference of the two sums below keeps its digits.
    backwards = (means - means.mean())[::-1]
    kept = np.arange(1, batches + 1)
    squares = np.cumsum(backwards**2) - np.cumsum(backwards) ** 2 / kept
    error = (squares / kept.astype(np.float64) ** 2)[::-1]
    # The last few batches may agree by chance: White leaves them out.
    candidates = error[: max(1, batches - _MSER_BATCH)]
    return int(np.argmin(candidates)) * _MSER_BATCH


def outstanding(samples: Samples, edges_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean number of requests between intended and done, in each interval between `edges_ns`."""

    def elapsed(instants_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        # Sum over all instants before an edge of the time from there to the edge.
        relative = np.sort(instants_ns - samples.started_ns).astype(np.float64)
        sums = np.concatenate(([0.0], np.cumsum(relative)))
        edges = (edges_ns - samples.started_ns).astype(np.float64)
        before = np.searchsorted(relative, edges)
        return np.asarray(before * edges - sums[before])

    area = elapsed(samples.intended_ns) - elapsed(samples.done_ns)
    return np.asarray(np.diff(area) / np.diff(edges_ns))


def outstanding_growth_rps(samples: Samples, start_ns: int, end_ns: int) -> float:
    """Return by how many requests the outstanding ones grow every second between two times.

    Negative where they shrink, 0 where the trend is within its noise: a queue wanders.
    """
    edges = np.linspace(start_ns, end_ns, SLICES + 1).astype(np.int64)
    if len(samples) < SLICES or edges[0] == edges[1]:
        return 0.0
    line = trend(outstanding(samples, edges))
    return line.slope * SLICES * NS_PER_S / (end_ns - start_ns) if line.significant else 0.0


def latency_growth_ms(samples: Samples, start_ns: int, end_ns: int) -> float:
    """Return by how many milliseconds latency grows every second between two intended times.

    Negative where it falls, 0 where the trend is within its noise. Only answers have a latency.
    """
    inside = (samples.intended_ns >= start_ns) & (samples.intended_ns < end_ns)
    latency = samples.latency_ns[inside & (samples.status == 0)].astype(np.float64)
    length = len(latency) // SLICES
    if length < 1 or end_ns <= start_ns:
        return 0.0
    line = trend(latency[len(latency) - length * SLICES :].reshape(SLICES, length).mean(axis=1))
    if not line.significant:
        return 0.0
    return line.slope * SLICES / NS_PER_MS * NS_PER_S / (end_ns - start_ns)


def littles_law_gap(samples: Samples, start_ns: int, end_ns: int) -> float:
    """Relative gap between X * R and N from start to end; near 0 in a steady state.

    X is the rate of arrivals, R their mean latency, N the mean number outstanding, which a closed
    loop sets itself. Below 0, a closed loop has kept fewer outstanding than it promised; in an
    open loop a gap either way says that the window cuts through a backlog. 0 with no request.
    """
    inside = (samples.intended_ns >= start_ns) & (samples.intended_ns < end_ns)
    total_ns = float(samples.latency_ns[inside].sum())
    if samples.concurrency is None:
        edges = np.array([start_ns, end_ns], dtype=np.int64)
        number = float(outstanding(samples, edges)[0])
    else:
        number = float(samples.concurrency)
    return total_ns / (end_ns - start_ns) / number - 1 if number and total_ns else 0.0


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Whether a server is warm. `cold_s` is the load time until it was, `reason` why it is not."""

    steady: bool
    cold_s: float
    reason: str = ""


def warmed_up(chunks: Sequence[Samples], *, tolerance: float = 0.1) -> WarmUp:
    """Judge closed-loop load, given in consecutive chunks of one concurrency.

    Warm means: MSER-5 cuts within the first half of the answers, at least 100 remain, and their
    latency does not change by more than `tolerance` from first to last (in a closed loop, by
    Little's law, that holds throughput steady too). Not warm yet: add a chunk and ask again.
    """
    answered = [chunk.status == 0 for chunk in chunks]
    latency = np.concatenate(
        [np.zeros(0)]
        + [
            chunk.latency_ns[ok].astype(np.float64)
            for chunk, ok in zip(chunks, answered, strict=True)
        ]
    )
    if len(latency) < _WARM_SAMPLES:
        return WarmUp(False, 0.0, f"only {len(latency)} answers, {_WARM_SAMPLES} are needed")
    cut = mser5(latency)
    cold_s = _load_time_s(chunks, answered, cut)
    kept = latency[cut:]
    if cut > len(latency) // 2 or len(kept) < _WARM_SAMPLES:
        return WarmUp(False, cold_s, "latency still settles in the second half of the answers")
    length = len(kept) // SLICES
    line = trend(kept[len(kept) - length * SLICES :].reshape(SLICES, length).mean(axis=1))
    if line.significant and abs(line.change) > tolerance:
        return WarmUp(False, cold_s, f"latency still changes by {line.change:+.0%}")
    return WarmUp(True, cold_s)


def _load_time_s(
    chunks: Sequence[Samples], answered: Sequence[NDArray[np.bool_]], cut: int
) -> float:
    """Seconds of load, pauses between chunks left out, before answer number `cut`."""
    seconds = 0.0
    for chunk, ok in zip(chunks, answered, strict=True):
        times = chunk.intended_ns[ok]
        if cut < len(times):
            return seconds + float(times[cut] - chunk.started_ns) / NS_PER_S
        cut -= len(times)
        seconds += (chunk.ended_ns - chunk.started_ns) / NS_PER_S
    return seconds
