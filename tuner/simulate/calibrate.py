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
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.curves import Curve, CurvePoint, Traits
from tuner.simulate.express import Extent, brief, fits
from tuner.simulate.least_squares import Minimum, least_squares, squares
from tuner.simulate.policy import Policy
from tuner.simulate.residuals import Shown, residuals
from tuner.simulate.scheduler import MOST_BESIDE, Outcome, simulate_closed
from tuner.simulate.service import NS_PER_MS, ServiceModel
from tuner.simulate.sustain import Workload

Floats = NDArray[np.float64]

LARGEST_FITTED = 256
"""Batches are modelled up to so many rows; no default of 1000 is ever filled by such loads."""

REQUESTS = 800
"""Simulated for every measured load: about what a window holds."""

POINTS_A_CURVE = 4
STEP = 0.04
"""Of the finite differences, on a logarithmic scale: above the simulation's own roughness."""

ROUNDS_FIRST, ROUNDS, ROUNDS_AGAIN = 3, 5, 3
STALE = 0.25
"""Derivatives are kept while no parameter has moved further, as a log ratio."""

ROOM = (
    ("contention", math.log(0.8), 0.6),
    ("cores", math.log(1.3), 0.9),
    ("crowding", math.log(0.04), 1.0),
    ("delay_ms", math.log(0.4), 1.0),
    ("front_ms", math.log(0.03), 1.0),
    ("spread", math.log(0.1), 0.7),
)
"""Parameters beside the run times: log of the prior median, and its standard deviation."""

JUMP = 0.08
"""How far, as a log ratio, times may leave a + b rows at each power of two; prior."""

SUDDEN = 2.0
"""The prior of a jump falls off as (1 + (jump / JUMP)^2 / SUDDEN)^-SUDDEN/2: most are small, and
the few that are not, such as a kernel that changes at one size, cost little more the larger."""

TRAIT_SPEED, TRAIT_CORES = 0.6, 0.8
"""How far, as log ratios, a flag's value may change times, and the cores that batches share: one
that spreads an operator over all cores makes a lone batch fast, and leaves others none."""

OFF_ALONE = 0.3
"""Like JUMP for a single row, which many libraries run by a path of its own."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted model, and others that explain the measurements about as well.

    `misfit` is the root mean square of residuals in units of what is expected of a good fit:
    about 1 where the model explains the measurements.
    """

    shape: "_Shape"
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


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the parameter vector means: log a, log b, a jump a size, ROOM, and two a trait."""

    sizes: tuple[int, ...]
    traits: Traits = ()

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation."""
        offs = [OFF_ALONE, *[JUMP] * (len(self.sizes) - 1)]
        effects = [TRAIT_SPEED, TRAIT_CORES] * len(self.traits)
        centres = [centre for _, centre, _ in ROOM]
        mean = [0.0, 0.0, *[0.0] * len(offs), *centres, *[0.0] * len(effects)]
        width = [6.0, 6.0, *offs, *[deviation for _, _, deviation in ROOM], *effects]
        return np.array(mean), np.array(width)

    def pull(self, parameters: Floats) -> tuple[float, Floats]:
        """Minus twice the log of the prior, and each parameter's weight in it by its distance."""
        mean, width = self.prior
        squares = ((parameters - mean) / width) ** 2
        weights = np.ones(len(parameters))
        jumps = slice(3, 2 + len(self.sizes))
        weights[jumps] = 1 / (1 + squares[jumps] / SUDDEN)
        costs = squares.copy()
        costs[jumps] = SUDDEN * np.log1p(squares[jumps] / SUDDEN)
        return float(costs.sum()), weights

    def service(self, parameters: Floats, traits: Traits = ()) -> ServiceModel:
        """The service model of a server with these traits."""
        logs = np.clip(parameters, -16.0, 16.0)
        jumps = logs[2 : 2 + len(self.sizes)]
        off = np.concatenate([jumps[:1], np.cumsum(jumps[1:])])
        # A jump comes with the first row above a size, so that each has a point on either side.
        sizes = [1]
        deviations = [off[0]]
        for below, size, deviation in zip(self.sizes, self.sizes[1:], off[1:], strict=False):
            if below + 1 < size:
                sizes.append(below + 1)
                deviations.append(deviation)
            sizes.append(size)
            deviations.append(deviation)
        line = np.exp(logs[0]) + np.exp(logs[1]) * np.array(sizes, np.float64)
        speed, cores = self._effects(logs, traits)
        run = line * np.exp(np.array(deviations) + speed)
        at = 2 + len(self.sizes)
        rest = {
            name: float(np.exp(value))
            for (name, _, _), value in zip(ROOM, logs[at : at + len(ROOM)], strict=True)
        }
        cores = rest["cores"] * math.exp(cores)
        if cores < 1:  # a lone batch takes more than there is: beside others they take turns
            alone = rest["contention"]
            rest["contention"] = max(alone, 1 - (1 - alone) * cores)
        rest["cores"] = max(1.0, cores)
        return ServiceModel(tuple(sizes), tuple(float(value) for value in run), **rest)

    def touches(self, index: int, traits: Traits, extent: Extent, cores: float) -> bool:
        """Whether a parameter can change anything of a load that used so much of the model."""
        at = index - 2
        if at < 0:
            return True
        if at < len(self.sizes):
            if at == 0:
                return extent.fewest_rows <= 1
            return extent.most_rows > self.sizes[at - 1]
        at -= len(self.sizes)
        if at < len(ROOM):
            undisturbed = {"contention": cores, "cores": cores, "crowding": 1.0}.get(ROOM[at][0])
            return undisturbed is None or extent.most_beside > undisturbed
        return self.traits[(at - len(ROOM)) // 2] in traits

    def _effects(self, logs: Floats, traits: Traits) -> tuple[float, float]:
        begin = 2 + len(self.sizes) + len(ROOM)
        at = [begin + 2 * i for i, trait in enumerate(self.traits) if trait in traits]
        return float(sum(logs[i] for i in at)), float(sum(logs[i + 1] for i in at))


def fit(
    curves: Sequence[Curve],
    *,
    largest_batch: int,
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),),
    traits: Traits = (),
    start: Calibration | None = None,
    draws: int = 6,
    seed: int = 0,
) -> Calibration | None:
    """Fit a service model; None where nothing was measured.

    `largest_batch` is the largest number of rows that a batch of interest may hold, `rows` the
    rows of a request with their weights, `start` an earlier fit with the same `largest_batch`.
    """
    points = [
        _Told(curve.policy, curve.traits, point) for curve in curves for point in _telling(curve)
    ]
    if not points:
        return None
    shape = _Shape(_sizes(largest_batch), traits)
    problem = _Problem(shape, points, Workload.poisson(REQUESTS, seed=seed, rows=rows))
    if start is not None:
        problem.slopes.update(start.slopes)
        found = least_squares(problem, np.array(start.parameters), rounds=ROUNDS_AGAIN)
    else:
        # Cores and contention explain much of each other, and only one pair explains the rest.
        tried = [least_squares(problem, begin, rounds=ROUNDS_FIRST) for begin in _begin(problem)]
        nearest = min(tried, key=lambda result: result.cost)
        found = least_squares(problem, nearest.at, rounds=ROUNDS)
    found = _other_side(problem, found, curves)
    return Calibration(
        shape=shape,
        service=shape.service(found.at),
        drawn=tuple(found.draws(draws, seed)),
        misfit=found.misfit,
        parameters=tuple(found.at),
        slopes=problem.slopes,
    )


@dataclass(slots=True)
class _Problem:
    """What is minimised: the residuals of all points at a vector of parameters."""

    shape: _Shape
    points: Sequence[_Told]
    workload: Workload
    slopes: dict[_Told, _Slope] = field(default_factory=dict)

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the parameters."""
        return self.shape.prior

    def pull(self, parameters: Floats) -> tuple[float, Floats]:
        """See `_Shape.pull`."""
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
        policy, point = told.policy, told.point
        if point.offered_rps is not None and _is_brief(policy, point, self.workload):
            return brief(self.workload, point.offered_rps, policy, service).extent, service.cores
        beside = policy.threads if policy.batching else MOST_BESIDE
        return Extent(1, self.shape.sizes[-1], beside), service.cores

    def _at(self, told: _Told, service: ServiceModel) -> Floats:
        return residuals(told.point, _shown(told.policy, told.point, service, self.workload))


def _sizes(largest: int) -> tuple[int, ...]:
    sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest]
    return (*sizes, largest)


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


def predicted(
    policy: Policy, point: CurvePoint, service: ServiceModel, workload: Workload
) -> Outcome:
    """What the model makes of a load that was measured."""
    if point.concurrency is not None:
        requests = max(len(workload.arrivals) // 2, 8 * point.concurrency)
        return simulate_closed(
            policy, service, concurrency=point.concurrency, requests=requests, seed=workload.seed
        )
    assert point.offered_rps is not None
    return workload.at(point.offered_rps, policy, service)


def _shown(policy: Policy, point: CurvePoint, service: ServiceModel, workload: Workload) -> Shown:
    """What the model makes of a load, by the brief simulation where that one can be used."""
    shares = [share for share, _ in point.percentiles_ms]
    if point.offered_rps is not None and _is_brief(policy, point, workload):
        seen = brief(workload, point.offered_rps, policy, service)
        return Shown(
            seen.throughput_rps, seen.percentiles_ms(shares), seen.rows_per_batch, seen.run_ms
        )
    outcome = predicted(policy, point, service, workload)
    return Shown(
        outcome.throughput_rps,
        [outcome.percentile_ms(share) for share in shares],
        outcome.rows_per_batch,
        _run_ms(outcome, service),
    )


def _is_brief(policy: Policy, point: CurvePoint, workload: Workload) -> bool:
    return point.concurrency is None and fits(policy, workload)


def _run_ms(outcome: Outcome, service: ServiceModel) -> float:
    """Mean over requests of the time that their batch ran."""
    done = np.isfinite(outcome.latency_ns)
    inside = outcome.latency_ns[done] - outcome.waited_ns[done]
    # With a busy front the wait before it is part of latency, and not of the run.
    return float(np.mean(inside)) / NS_PER_MS - service.delay_ms - service.front_ms


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
"""Contention and cores from which a fit starts: batches overlap, take turns, or some are free."""


def _begin(problem: _Problem) -> list[Floats]:
    """The best start of each family, by how much of a batch is paid by row."""
    fastest = min(
        (value for told in problem.points for _, value in told.point.percentiles_ms[:1]),
        default=10.0,
    )
    mean, _ = problem.shape.prior
    contention = 2 + len(problem.shape.sizes)
    begins = []
    for family in FAMILIES:
        candidates = []
        for by_row in (0.01, 0.04, 0.12, 0.35, 0.8):
            candidate = mean.copy()
            candidate[0] = math.log(fastest * 0.8 * (1 - by_row))
            candidate[1] = math.log(fastest * 0.8 * by_row)
            candidate[contention : contention + 2] = np.log(family)
            candidates.append(candidate)
        begins.append(min(candidates, key=lambda at: squares(problem.residuals(at))))
    return begins
