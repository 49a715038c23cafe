"""The sustainable rate that the model predicts: the highest load at which the SLO holds."""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import NS_PER_S, GiveUp, Outcome, padded, simulate
from tuner.simulate.service import ServiceModel
from tuner.slo import PERCENTILES, Slo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Rows = tuple[tuple[int, float], ...]
"""The rows that a request may have, with their weights."""

ONE_ROW: Rows = ((1, 1.0),)

LOWEST_SHARE = 0.004
"""Rates below this share of what the server could do at all count as none."""

CLIMB = 1.12
"""Step from a rate that was guessed towards one that brackets the answer."""

MOST_AT_ONCE = 256
"""Batches at once up to which batching off is looked at for its capacity."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests without their rate: when they come, in units of the mean gap, and their rows.

    The same arrivals are stretched to every rate, so that rates and configurations differ by
    what they are, not by luck.
    """

    arrivals: Floats
    rows: Ints | None = None
    seed: int = 0
    mean_rows: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean_rows", 1.0 if self.rows is None else self.rows.mean())

    @classmethod
    def drawn(
        cls, count: int, *, cv: float = 1.0, seed: int = 0, rows: Rows = ONE_ROW
    ) -> "Workload":
        """Arrivals whose gaps have the coefficient of variation `cv`, as the generator sends them.

        Gamma gaps of shape 1 / cv^2: 1 is Poisson, 0 evenly spaced, more comes in bursts. Their
        mean is exactly 1, so that a rate is what it is called.
        """
        rng = np.random.default_rng((seed, 3))
        gaps = rng.standard_gamma(1 / cv**2, count) if cv > 0 else np.ones(count)
        arrivals = np.cumsum(gaps)
        arrivals *= count / arrivals[-1]
        return cls(arrivals, drawn_rows(rows, count, rng), seed)

    @classmethod
    def poisson(cls, count: int, *, seed: int = 0, rows: Rows = ONE_ROW) -> "Workload":
        """Arrivals of many independent users."""
        return cls.drawn(count, seed=seed, rows=rows)

    def first(self, count: int) -> "Workload":
        """The first so many requests, again with a mean gap of exactly 1."""
        return self if count >= len(self.arrivals) else _first(self, count)

    def at(
        self,
        rate_rps: float,
        policy: Policy,
        service: ServiceModel,
        *,
        give_up: GiveUp | None = None,
        count: int | None = None,
    ) -> Outcome:
        """Simulate this workload at a rate; `count` takes only so many requests."""
        rows = None if self.rows is None else self.rows[:count]
        arrivals = self.arrivals[:count] * (NS_PER_S / rate_rps)
        return self._run(policy, service, arrivals, rows, give_up)

    def _run(
        self,
        policy: Policy,
        service: ServiceModel,
        arrivals_ns: Floats,
        rows: Ints | None,
        give_up: GiveUp | None,
    ) -> Outcome:
        """Let the requests arrive at the one server that there is."""
        return simulate(policy, service, arrivals_ns, rows=rows, seed=self.seed, give_up=give_up)


@lru_cache(maxsize=1024)
def _first(workload: Workload, count: int) -> Workload:
    arrivals = workload.arrivals[:count] * (count / workload.arrivals[count - 1])
    rows = None if workload.rows is None else workload.rows[:count]
    return Workload(arrivals, rows, workload.seed)


def drawn_rows(rows: Rows, count: int, rng: np.random.Generator) -> Ints:
    """Rows of so many requests."""
    if len(rows) == 1:
        return np.full(count, rows[0][0], np.int64)
    weights = np.array([weight for _, weight in rows])
    sizes = np.array([size for size, _ in rows], np.int64)
    return rng.choice(sizes, count, p=weights / weights.sum())


def capacity_rps(policy: Policy, service: ServiceModel, *, mean_rows: float = 1.0) -> float:
    """Requests a second that no load can exceed: full batches on all threads, nobody waiting."""
    front = 1e3 / service.front_ms if service.front_ms > 0 else math.inf
    if not policy.batching:
        alone_ms = float(service.run_of(np.array([round(mean_rows)]))[0])
        rates = service.abreast(MOST_AT_ONCE) / (alone_ms + service.request_ms) * 1e3
        return min(front, float(rates.max()))
    rows = np.arange(1, min(policy.largest_batch, 4096) + 1)
    alone = service.run_of(padded(rows, policy.allowed)) + service.request_ms * rows / mean_rows
    threads = float(service.abreast(min(policy.threads, 512)).max())
    return min(front, float((rows / alone).max()) * 1e3 / mean_rows * threads)


def holds(
    policy: Policy, service: ServiceModel, slo: Slo, workload: Workload, rate_rps: float
) -> bool:
    """Whether every latency limit is kept at this rate."""
    name, limit_ms = slo.limits_ms[-1]
    most = math.floor((1 - PERCENTILES[name]) * len(workload.arrivals) + 1e-9)
    outcome = workload.at(rate_rps, policy, service, give_up=GiveUp(limit_ms, most))
    return all(
        outcome.share_over(limit) <= 1 - PERCENTILES[name] + 1e-9 for name, limit in slo.limits_ms
    )


def sustainable_rps(
    policy: Policy,
    service: ServiceModel,
    slo: Slo,
    workload: Workload,
    *,
    resolution: float = 0.01,
    guess_rps: float | None = None,
) -> float:
    """The highest rate at which the SLO holds, within `resolution`; 0 where it holds at none.

    Found by bisection from the capacity downwards; a good guess saves half of it.
    """
    most = capacity_rps(policy, service, mean_rows=workload.mean_rows) * 1.02
    least = most * LOWEST_SHARE
    low, high = least, most
    if guess_rps is not None and least < guess_rps < most:
        low, high = _around(policy, service, slo, workload, (least, guess_rps, most))
    while high > low * (1 + resolution):
        middle = math.sqrt(low * high) if high > 4 * low else (low + high) / 2
        if holds(policy, service, slo, workload, middle):
            low = middle
        else:
            high = middle
    return low if low > least else 0.0


def _around(
    policy: Policy,
    service: ServiceModel,
    slo: Slo,
    workload: Workload,
    bounds: tuple[float, float, float],
) -> tuple[float, float]:
    """Widen from a guess, in growing steps, to a rate that holds and one that does not."""
    least, guess, most = bounds
    step = CLIMB
    rate = guess
    held = holds(policy, service, slo, workload, rate)
    while True:
        further = min(most, rate * step) if held else max(least, rate / step)
        if further in {least, most}:
            return (rate, most) if held else (least, rate)
        if holds(policy, service, slo, workload, further) != held:
            return (rate, further) if held else (further, rate)
        rate, step = further, step * step
