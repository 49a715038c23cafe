"""An open-loop load as a value: what is asked of a generator, and the schedule drawn from it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_S
from tuner.load import arrivals as schedules
from tuner.load import traces


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """A load whose arrivals ignore the answers.

    `rate_rps` is None for a trace that is replayed as recorded, `trace_speed` times as fast, and
    for a `profile`, which says itself how the rate changes over `duration_s`. `burst_cv` is the
    coefficient of variation of the gaps between bursts. Where more than `give_up_outstanding`
    requests are unanswered, the run ends early and `Samples.ended_ns` says when.
    """

    rate_rps: float | None
    duration_s: float
    seed: int
    arrivals: Literal["poisson", "constant", "bursts", "trace", "profile"] = "poisson"
    trace: Path | None = None
    give_up_outstanding: int | None = None
    burst_cv: float | None = None
    trace_speed: float = 1.0
    profile: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.arrivals == "trace") != (self.trace is not None):
            raise ValueError("arrivals='trace' and a trace file belong together")
        if (self.arrivals == "bursts") != (self.burst_cv is not None):
            raise ValueError("arrivals='bursts' and a burst_cv belong together")
        if (self.arrivals == "profile") != bool(self.profile):
            raise ValueError("arrivals='profile' and a profile belong together")
        if self.rate_rps is None and self.trace is None and not self.profile:
            raise ValueError(f"{self.arrivals} arrivals need a rate")

    @property
    def highest_rps(self) -> float:
        """The highest rate that is asked for; 0 where only a trace knows."""
        return max((rate for _, rate in self.profile), default=self.rate_rps or 0.0)

    def offsets_ns(self) -> schedules.Offsets:
        """Draw the schedule; the same for equal values. Raises InputError on a bad trace."""
        if self.trace is not None:
            return schedules.trace(
                self.trace, self.duration_s, self.rate_rps, speed=self.trace_speed
            )
        if self.profile:
            offsets = schedules.varying(self.profile, self.seed)
            return offsets[offsets < self.duration_s * NS_PER_S]
        assert self.rate_rps is not None
        if self.arrivals == "constant":
            return schedules.constant(self.rate_rps, self.duration_s)
        if self.burst_cv is not None:
            return schedules.bursts(self.rate_rps, self.duration_s, self.burst_cv, self.seed)
        return schedules.poisson(self.rate_rps, self.duration_s, self.seed)

    def pieces(self, piece_s: float) -> Iterator[tuple[float, schedules.Offsets]]:
        """Draw the schedule in pieces, however long: the end of each in seconds, its offsets.

        No more than a piece is ever in memory. A trace and bursts are those of `offsets_ns` or
        have its statistics; Poisson arrivals differ, as every piece has a seed of its own: being
        without memory, they are as good. Raises InputError on a bad trace.
        """
        ends_s = [
            min((number + 1) * piece_s, self.duration_s)
            for number in range(math.ceil(self.duration_s / piece_s - 1e-9))
        ]
        if self.trace is not None:
            chunks = traces.replay(self.trace, self.rate_rps, self.trace_speed)
            yield from _cut(chunks, ends_s)
        elif self.burst_cv is not None:
            assert self.rate_rps is not None
            yield from _cut(
                schedules.endless_bursts(self.rate_rps, self.burst_cv, self.seed), ends_s
            )
        else:
            for number, (start_s, end_s) in enumerate(pairwise([0.0, *ends_s])):
                yield end_s, self._piece(number, start_s, end_s)

    def _piece(self, number: int, start_s: float, end_s: float) -> schedules.Offsets:
        """Arrivals between two times, which do not depend on those before."""
        if self.arrivals == "constant":
            assert self.rate_rps is not None
            # The n-th arrival is due at n / rate; in floating point a little less may be whole.
            first = math.ceil(start_s * self.rate_rps - 1e-6)
            stop = math.ceil(end_s * self.rate_rps - 1e-6)
            return (np.arange(first, stop) * (NS_PER_S / self.rate_rps)).astype(np.int64)
        profile = self.profile or ((0.0, self.rate_rps or 0.0), (end_s, self.rate_rps or 0.0))
        part = schedules.between(profile, start_s, end_s)
        if not any(rate for _, rate in part):
            return np.empty(0, np.int64)
        return schedules.varying(part, [self.seed, number]) + round(start_s * NS_PER_S)


def _cut(
    chunks: Iterable[NDArray[np.float64]], ends_s: Sequence[float]
) -> Iterator[tuple[float, schedules.Offsets]]:
    """Cut arrivals that come in chunks of seconds into pieces by their ends."""
    left, stream = np.empty(0), iter(chunks)
    for end_s in ends_s:
        while not len(left) or left[-1] < end_s:
            more = next(stream, None)
            if more is None:
                break
            left = np.concatenate([left, more])
        stop = int(np.searchsorted(left, end_s))
        yield end_s, (left[:stop] * NS_PER_S).astype(np.int64)
        left = left[stop:]
