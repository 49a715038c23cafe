"""One configuration's replica, fitted closely to what its own starts showed.

    replica = refine(calibration.service, starts)
    replica.service          of a start like the median of those that were measured
    replica.service_of(1)    of the second start

A plan concerns one configuration, and a model that explains all of a run is a few per cent off
each. Here the run times near the batch sizes that this one attains, their spread, and what is
lost beside other batches are moved once more, away from the model of all only as far as these
measurements ask. Starts of one configuration differ in speed, by the machine more than by the
server: every start has a factor of its own, and what is planned with is their middle.

Each load is simulated for as long as it was measured, warm-up included, since a server near its
end shows more the longer one looks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.curves import Curve, CurvePoint
from tuner.simulate.least_squares import gaussian, least_squares
from tuner.simulate.policy import UNBOUNDED, Policy
from tuner.simulate.residuals import Shown, residuals
from tuner.simulate.scheduler import Outcome, simulate_closed
from tuner.simulate.service import NS_PER_MS, ServiceModel
from tuner.simulate.sustain import Workload

Floats = NDArray[np.float64]

MOST_REQUESTS, FEWEST_REQUESTS = 6000, 600
"""Simulated for every load, whatever was measured."""

PATHS = (0, 1)
"""Seeds: every load is simulated on so many draws of arrivals, pooled."""

STEP = 0.03
ROUNDS = 4

SPEED, KNOT, START = 0.3, 0.12, 0.1
"""How far all times, one batch size's, and one start's may lie off, as log ratios; prior."""

BESIDE = (("spread", 0.7), ("delay_ms", 0.5), ("front_ms", 0.5))
PARALLEL = (("contention", 0.3), ("cores", 0.3), ("crowding", 0.5))
"""Log ratios by which other parameters may move; the second only where batches run abreast."""


@dataclass(frozen=True, slots=True)
class Refined:
    """A replica as its starts showed it. `speeds` are factors of each start's times.

    `plausible` are models that explain the measurements about as well; `misfit` is as in
    `Calibration`.
    """

    service: ServiceModel
    speeds: tuple[float, ...]
    plausible: tuple[ServiceModel, ...]
    misfit: float

    def service_of(self, start: int) -> ServiceModel:
        """The service model of one of the starts."""
        return slowed(self.service, self.speeds[start])


def slowed(service: ServiceModel, factor: float) -> ServiceModel:
    """The same server with all times of its batches longer by a factor."""
    return replace(
        service,
        run_ms=tuple(value * factor for value in service.run_ms),
        request_ms=service.request_ms * factor,
    )


def alike(policy: Policy) -> Policy:
    """What two configurations have in common that differ in the bound of their queue alone."""
    return replace(policy, most_queued=UNBOUNDED)


def refine(
    service: ServiceModel,
    starts: Sequence[Curve],
    *,
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),),
    cv: float = 1.0,
    draws: int = 6,
    seed: int = 0,
) -> Refined:
    """Fit one configuration's starts, beginning with the model of all configurations.

    `rows` and `cv` are as in `calibrate.fit`.
    """
    problem = _Problem(service, starts, rows, cv)
    mean, _ = problem.prior
    found = least_squares(problem, mean, rounds=ROUNDS)
    return Refined(
        service=problem.service(found.at),
        speeds=tuple(float(value) for value in np.exp(found.at[problem.shared :])),
        plausible=tuple(problem.service(at) for at in found.draws(draws, seed)),
        misfit=found.misfit,
    )


@dataclass(slots=True)
class _Problem:
    """The residuals of all loads of all starts at a vector of log ratios.

    In order: all times, those of every batch size, BESIDE, PARALLEL where it applies, and the
    times of each start.
    """

    base: ServiceModel
    starts: Sequence[Curve]
    rows: tuple[tuple[int, float], ...]
    cv: float
    others: tuple[tuple[str, float], ...] = field(init=False)
    workloads: tuple[Workload, ...] = field(init=False)

    def __post_init__(self) -> None:
        policy = self.starts[0].policy
        abreast = not policy.batching or policy.threads > 1
        self.others = (*BESIDE, *(PARALLEL if abreast else ()))
        self.workloads = tuple(
            Workload.drawn(MOST_REQUESTS, cv=self.cv, seed=seed, rows=self.rows) for seed in PATHS
        )

    @property
    def shared(self) -> int:
        """How many parameters all starts share."""
        return 1 + len(self.base.sizes) + len(self.others)

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the parameters."""
        knots = [KNOT] * len(self.base.sizes)
        others = [deviation for _, deviation in self.others]
        width = np.array([SPEED, *knots, *others, *[START] * len(self.starts)])
        return np.zeros(len(width)), width

    def pull(self, parameters: Floats) -> tuple[float, Floats]:
        """Normal in every parameter."""
        return gaussian(self.prior, parameters)

    def service(self, at: Floats, start: int | None = None) -> ServiceModel:
        """The model of one start, or of their middle."""
        count = len(self.base.sizes)
        all_times = at[0] + (0.0 if start is None else at[self.shared + start])
        factors = np.exp(at[1 : 1 + count] + all_times)
        moved = {
            name: getattr(self.base, name) * math.exp(value)
            for (name, _), value in zip(self.others, at[1 + count :], strict=False)
        }
        run_ms = tuple(float(value) for value in np.array(self.base.run_ms) * factors)
        return replace(self.base, run_ms=run_ms, **moved)

    def residuals(self, parameters: Floats) -> list[Floats]:
        """The residuals of each start."""
        return [self._of_start(number, parameters) for number in range(len(self.starts))]

    def jacobian(self, parameters: Floats, left: Sequence[Floats]) -> Floats:
        """Derivatives by finite differences; a start's own factor moves that start alone."""
        slopes = np.zeros((sum(len(part) for part in left), len(parameters)))
        ends = np.cumsum([len(part) for part in left])
        for index in range(len(parameters)):
            moved = parameters.copy()
            moved[index] += STEP
            own = index - self.shared
            for number in range(len(self.starts)) if own < 0 else (own,):
                span = slice(ends[number] - len(left[number]), ends[number])
                there = self._of_start(number, moved)
                slopes[span, index] = (there - left[number]) / STEP
        return slopes

    def _of_start(self, number: int, parameters: Floats) -> Floats:
        curve = self.starts[number]
        service = self.service(parameters, number)
        parts = [
            residuals(point, _shown(curve.policy, point, service, self.workloads))
            for point in curve.points
        ]
        return np.concatenate([*parts, np.empty(0)])


@dataclass(frozen=True, slots=True)
class Seen:
    """What a simulated load showed after its warm-up, all draws of arrivals together."""

    latency_ns: Floats
    inside_ns: Floats
    throughput_rps: float
    rows_per_batch: float | None

    def percentile_ms(self, share: float) -> float:
        """Nearest-rank percentile of latency."""
        rank = max(1, math.ceil(share * len(self.latency_ns) - 1e-9)) - 1
        return float(np.partition(self.latency_ns, rank)[rank]) / NS_PER_MS


def seen(
    policy: Policy, point: CurvePoint, service: ServiceModel, workloads: Sequence[Workload]
) -> Seen:
    """Simulate a load as it was measured."""
    if point.concurrency is not None:
        count = max(FEWEST_REQUESTS, min(point.requests or 0, 2000), 8 * point.concurrency)
        outcomes = [
            simulate_closed(
                policy, service, concurrency=point.concurrency, requests=count, seed=work.seed
            )
            for work in workloads[:1]
        ]
        return _pooled(outcomes, 0)
    assert point.offered_rps is not None
    before, counted = point.before, point.requests or FEWEST_REQUESTS
    shrunk = min(1.0, MOST_REQUESTS / (before + counted))
    count = max(FEWEST_REQUESTS, round((before + counted) * shrunk))
    drop = round(count * before / (before + counted))
    return _pooled(
        [work.at(point.offered_rps, policy, service, count=count) for work in workloads], drop
    )


def _pooled(outcomes: Sequence[Outcome], drop: int) -> Seen:
    latency = np.concatenate([outcome.latency_ns[drop:] for outcome in outcomes])
    waited = np.concatenate([outcome.waited_ns[drop:] for outcome in outcomes])
    answered = np.isfinite(latency)
    batches = np.concatenate([outcome.batch_rows for outcome in outcomes])
    return Seen(
        latency_ns=latency,
        inside_ns=(latency - waited)[answered],
        throughput_rps=float(np.mean([outcome.throughput_rps for outcome in outcomes])),
        rows_per_batch=float(batches.mean()) if len(batches) else None,
    )


def _shown(
    policy: Policy, point: CurvePoint, service: ServiceModel, workloads: Sequence[Workload]
) -> Shown:
    found = seen(policy, point, service, workloads)
    run_ms = None
    if len(found.inside_ns):
        run_ms = float(found.inside_ns.mean()) / NS_PER_MS - service.delay_ms - service.front_ms
    shares = [share for share, _ in point.percentiles_ms]
    percentiles_ms = [found.percentile_ms(share) for share in shares]
    return Shown(found.throughput_rps, percentiles_ms, found.rows_per_batch, run_ms)
