"""Fitting a service model to what was measured.

    calibration = fit(curves_of(records, cpus=2), largest_batch=128)
    calibration.service        the best fit
    calibration.plausible      others that explain the measurements about as well

Nothing measures S(rows, concurrent batches) directly, so the model is fitted through the
simulator: its parameters are those at which simulated latencies, throughputs, batch sizes and run
times are closest to the measured ones, on a logarithmic scale and robustly, since a percentile
near saturation says little. Prior knowledge completes what no measurement decides: a batch takes
about a + b rows, batches beside each other slow each other down. The minimum is found by
Levenberg and Marquardt's method on finite differences; the curvature there (Laplace's
approximation) says how far each parameter may be off, from which `plausible` models are drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.curves import Curve, CurvePoint, Traits
from tuner.simulate.express import Extent
from tuner.simulate.least_squares import Minimum, least_squares, squares
from tuner.simulate.loads import MOST_REQUESTS, REQUESTS, extent, shown
from tuner.simulate.policy import Policy
from tuner.simulate.residuals import residuals
from tuner.simulate.scheduler import MOST_BESIDE
from tuner.simulate.service import ServiceModel
from tuner.simulate.shape import ROOM, Shape, sizes_to
from tuner.simulate.sustain import Workload

Floats = NDArray[np.float64]

LARGEST_FITTED = 256
"""Batches are modelled up to so many rows; no default of 1000 is ever filled by such loads."""

PATHS = (0, 1000)
"""Added to the seed: draws of arrivals of which a thorough fit takes what they show on average. On
a single one parameters follow its luck."""

POINTS_A_CURVE = 4
STEP = 0.04
"""Of the finite differences, on a logarithmic scale: above the simulation's own roughness."""

ROUNDS_FIRST, ROUNDS, ROUNDS_AGAIN = 3, 5, 3
STALE = 0.25
"""Derivatives are kept while no parameter has moved further, as a log ratio."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted model, and others that explain the measurements about as well.

    `misfit` is the root mean square of residuals in units of what is expected of a good fit:
    about 1 where the model explains the measurements.
    """

    shape: Shape
    service: ServiceModel
    drawn: tuple[Floats, ...] = field(repr=False)
    misfit: float
    parameters: tuple[float, ...]
    slopes: dict["_Told", "_Slope"] = field(default_factory=dict, repr=False)

    @property
    def plausible(self) -> tuple[ServiceModel, ...]:
        """Other models that explain the measurements about as well."""
        return tuple(self.shape.service(at) for at in self.drawn)

    def member(self, number: int, traits: Traits) -> ServiceModel:
        """The best fit (0), or one of the drawn (1, 2 ...), on a server with these traits."""
        at = np.array(self.parameters) if number == 0 else self.drawn[number - 1]
        return self.shape.service(at, traits)


@dataclass(frozen=True, slots=True)
class _Told:
    """One measured load, and what it was measured on."""

    policy: Policy
    traits: Traits
    point: CurvePoint


@dataclass(frozen=True, slots=True)
class _Slope:
    """Derivatives of one point's residuals by the parameters, and where they were taken."""

    at: Floats
    rows: Floats


def fit(
    curves: Sequence[Curve],
    *,
    largest_batch: int,
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),),
    cv: float = 1.0,
    traits: Traits = (),
    start: Calibration | None = None,
    in_turn: bool = False,
    most_cores: float = math.inf,
    thorough: bool = False,
    draws: int = 6,
    seed: int = 0,
) -> Calibration | None:
    """Fit a service model; None where nothing was measured.

    `largest_batch` is the largest number of rows that a batch of interest may hold, `rows` the
    rows of a request with their weights, `cv` the variation of the gaps between requests that were
    measured (see `Workload.drawn`), `start` an earlier fit with the same `largest_batch`.
    `in_turn` says that batches take turns (see `service`) where a curve's traits do not say, and
    `most_cores` how many can at most run undisturbed: a server's processors, where it has no GPU.
    A `thorough` fit simulates every load for as long as it was measured, on several draws of
    arrivals; it takes three times as long, which a search that fits after every start does
    without.
    """
    points = [
        _Told(curve.policy, curve.traits, point) for curve in curves for point in _telling(curve)
    ]
    if not points:
        return None
    shape = Shape(sizes_to(largest_batch), traits, in_turn, most_cores)
    paths, most = (PATHS, MOST_REQUESTS) if thorough else (PATHS[:1], REQUESTS)
    workloads = tuple(Workload.drawn(most, cv=cv, seed=seed + path, rows=rows) for path in paths)
    problem = _Problem(shape, points, workloads)
    if start is not None:
        problem.slopes.update(start.slopes)
        found = least_squares(problem, np.array(start.parameters), rounds=ROUNDS_AGAIN)
    else:
        found = _afresh(problem)
    found = _other_side(problem, found, curves)
    return Calibration(
        shape=shape,
        service=shape.service(found.at),
        drawn=tuple(found.draws(draws, seed)),
        misfit=found.misfit,
        parameters=tuple(found.at),
        slopes=problem.slopes,
    )


def _afresh(problem: "_Problem") -> Minimum:
    """The best fit from nothing.

    Cores and contention explain much of each other, and only one pair explains the rest: which,
    one draw of arrivals tells.
    """
    rough = replace(problem, workloads=problem.workloads[:1])
    families = TURNS if problem.shape.in_turn else FAMILIES
    tried = [least_squares(rough, begin, rounds=ROUNDS_FIRST) for begin in _begin(rough, families)]
    nearest = min(tried, key=lambda result: result.cost)
    if len(problem.workloads) > 1:  # derivatives by one draw are not those by all
        problem.slopes.clear()
    return least_squares(problem, nearest.at, rounds=ROUNDS)


@dataclass(slots=True)
class _Problem:
    """What is minimised: the residuals of all points at a vector of parameters."""

    shape: Shape
    points: Sequence[_Told]
    workloads: tuple[Workload, ...]
    slopes: dict[_Told, _Slope] = field(default_factory=dict)

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the parameters."""
        return self.shape.prior

    def pull(self, parameters: Floats) -> tuple[float, Floats]:
        """See `Shape.pull`."""
        return self.shape.pull(parameters)

    def residuals(self, parameters: Floats) -> list[Floats]:
        """The residuals of each point."""
        found = {told.traits for told in self.points}
        services = {traits: self.shape.service(parameters, traits) for traits in found}
        return [self._at(told, services[told.traits]) for told in self.points]

    def jacobian(self, parameters: Floats, left: Sequence[Floats]) -> Floats:
        """Derivatives, taken anew only of points where the parameters have moved far since."""
        old = [
            at
            for at, told in enumerate(self.points)
            if told not in self.slopes
            or float(np.abs(self.slopes[told].at - parameters).max()) > STALE
        ]
        rows = {at: np.zeros((len(left[at]), len(parameters))) for at in old}
        used = {at: self._used(self.points[at], parameters) for at in old}
        for index in range(len(parameters)):
            moved = parameters.copy()
            moved[index] += STEP
            services: dict[Traits, ServiceModel] = {}
            for at in old:
                told = self.points[at]
                if not self.shape.touches(index, told.traits, *used[at]):
                    continue
                if told.traits not in services:
                    services[told.traits] = self.shape.service(moved, told.traits)
                there = self._at(told, services[told.traits])
                rows[at][:, index] = (there - left[at]) / STEP
        for at in old:
            self.slopes[self.points[at]] = _Slope(parameters, rows[at])
        return np.concatenate([self.slopes[told].rows for told in self.points])

    def _used(self, told: _Told, parameters: Floats) -> tuple[Extent, float]:
        """How much of the model a load makes use of, and the cores that its batches share."""
        service = self.shape.service(parameters, told.traits)
        most = Extent(
            1,
            self.shape.sizes[-1],
            told.policy.threads if told.policy.batching else MOST_BESIDE,
        )
        return extent(told.policy, told.point, service, self.workloads) or most, service.cores

    def _at(self, told: _Told, service: ServiceModel) -> Floats:
        return residuals(told.point, shown(told.policy, told.point, service, self.workloads))


def _telling(curve: Curve) -> list[CurvePoint]:
    """The points of a curve that say most: the lowest loads, those at its limit, the peak."""
    closed = [point for point in curve.points if point.concurrency is not None]
    rated = sorted(
        (point for point in curve.points if point.offered_rps),
        key=lambda point: point.offered_rps or 0.0,
    )
    limit = curve.sustainable_rps or 0.0
    nearest = sorted(rated, key=lambda point: abs((point.offered_rps or 0.0) - limit))
    chosen = [*rated[:1], *rated[-1:], *nearest]
    unique = [point for at, point in enumerate(chosen) if point not in chosen[:at]]
    return [*closed[:1], *unique[: POINTS_A_CURVE - len(closed[:1])]]


SPREAD_OUT = ((-0.8, -1.4), (0.8, 1.4))
"""Speed and cores of a flag's value from which a fit starts again: an operator spread over all
cores, or no longer. In between lies a hill, and a fit that went downhill may have missed it."""

NEW = 3
"""Configurations with a value of a flag up to which its effect is looked for on both sides."""


def _other_side(problem: _Problem, found: Minimum, curves: Sequence[Curve]) -> Minimum:
    """The better minimum, where one lies on the other side for a value of a flag newly tried."""
    shape = problem.shape
    for number, trait in enumerate(shape.traits):
        if not 0 < sum(trait in curve.traits for curve in curves) <= NEW:
            continue
        at = 2 + len(shape.sizes) + len(ROOM) + 2 * number
        for step in SPREAD_OUT:
            begin = found.at.copy()
            begin[at : at + 2] += step
            slopes = dict(problem.slopes)
            tried = least_squares(problem, begin, rounds=ROUNDS_AGAIN)
            if tried.cost < found.cost:
                found = tried
            else:
                problem.slopes = slopes
    return found


FAMILIES = ((0.4, 1.0), (1.0, 1.05), (1.0, 2.0), (1.0, 4.0))
"""Contention and cores from which a fit starts: batches overlap, share one core, or have some."""

TURNS = ((1.0, 1.0), (0.8, 1.3))
"""The same where batches take turns: for all of their time, or for some of it."""


def _begin(problem: _Problem, families: Sequence[tuple[float, float]]) -> list[Floats]:
    """The best start of each family, by how much of a batch is paid by row."""
    fastest = min(
        (value for told in problem.points for _, value in told.point.percentiles_ms[:1]),
        default=10.0,
    )
    mean, _ = problem.shape.prior
    contention = 2 + len(problem.shape.sizes)
    begins = []
    for family in families:
        candidates = []
        for by_row in (0.01, 0.04, 0.12, 0.35, 0.8):
            candidate = mean.copy()
            candidate[0] = math.log(fastest * 0.8 * (1 - by_row))
            candidate[1] = math.log(fastest * 0.8 * by_row)
            candidate[contention : contention + 2] = np.log(family)
            candidates.append(candidate)
        begins.append(min(candidates, key=lambda at: squares(problem.residuals(at))))
    return begins
