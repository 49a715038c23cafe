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

from tuner.simulate.curves import Curve, CurvePoint
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import Outcome, simulate_closed
from tuner.simulate.service import NS_PER_MS, ServiceModel
from tuner.simulate.sustain import Workload

Floats = NDArray[np.float64]

REQUESTS = 800
"""Simulated for every measured load: about what a window holds."""

POINTS_A_CURVE = 4
STEP = 0.04
"""Of the finite differences, on a logarithmic scale: above the simulation's own roughness."""

ENOUGH = 0.01
"""A round that improves the fit by less is the last."""

ROUNDS_FIRST, ROUNDS, ROUNDS_AGAIN = 3, 5, 3
STALE = 0.25
"""Derivatives are kept while no parameter has moved further, as a log ratio."""

FURTHEST = 3.0
"""Log ratios are cut here: a server that is saturated only in the model is wrong enough."""

# How well the model itself can be expected to match, besides the measurement's own noise.
RATE_ERROR, MEDIAN_ERROR, TAIL_ERROR, BATCH_ERROR = 0.05, 0.07, 0.12, 0.08

ROOM = (
    ("contention", math.log(0.8), 0.6),
    ("cores", math.log(1.3), 0.9),
    ("crowding", math.log(0.04), 1.0),
    ("delay_ms", math.log(0.4), 1.0),
    ("front_ms", math.log(0.03), 1.0),
    ("spread", math.log(0.1), 0.7),
)
"""Parameters beside the run times: log of the prior median, and its standard deviation."""

OFF_THE_LINE = 0.15
"""How far, as a log ratio, the time of a batch size may lie from a + b rows; prior."""

OFF_ALONE = 0.3
"""The same for a single row, which many libraries run by a path of its own."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted model, and others that explain the measurements about as well.

    `misfit` is the root mean square of residuals in units of what is expected of a good fit:
    about 1 where the model explains the measurements.
    """

    service: ServiceModel
    plausible: tuple[ServiceModel, ...]
    misfit: float
    parameters: tuple[float, ...]
    slopes: dict[tuple[Policy, CurvePoint], "_Slope"] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Slope:
    """Derivatives of one point's residuals by the parameters, and where they were taken."""

    at: Floats
    rows: Floats


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the parameter vector means: log a, log b, a deviation a size, and ROOM."""

    sizes: tuple[int, ...]

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation."""
        offs = [OFF_ALONE, *[OFF_THE_LINE] * (len(self.sizes) - 1)]
        mean = [0.0, 0.0, *[0.0] * len(offs), *[centre for _, centre, _ in ROOM]]
        width = [6.0, 6.0, *offs, *[deviation for _, _, deviation in ROOM]]
        return np.array(mean), np.array(width)

    def service(self, parameters: Floats) -> ServiceModel:
        logs = np.clip(parameters, -16.0, 16.0)
        sizes = np.array(self.sizes, np.float64)
        line = np.exp(logs[0]) + np.exp(logs[1]) * sizes
        run = line * np.exp(logs[2 : 2 + len(sizes)])
        rest = {
            name: float(np.exp(value))
            for (name, _, _), value in zip(ROOM, logs[2 + len(sizes) :], strict=True)
        }
        return ServiceModel(self.sizes, tuple(float(value) for value in run), **rest)


def fit(
    curves: Sequence[Curve],
    *,
    largest_batch: int,
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),),
    start: Calibration | None = None,
    draws: int = 6,
    seed: int = 0,
) -> Calibration | None:
    """Fit a service model; None where nothing was measured.

    `largest_batch` is the largest number of rows that a batch of interest may hold, `rows` the
    rows of a request with their weights, `start` an earlier fit with the same `largest_batch`.
    """
    points = [(curve.policy, point) for curve in curves for point in _telling(curve)]
    if not points:
        return None
    shape = _Shape(_sizes(largest_batch))
    problem = _Problem(shape, points, Workload.poisson(REQUESTS, seed=seed, rows=rows))
    if start is not None:
        problem.slopes.update(start.slopes)
        found = _least_squares(problem, np.array(start.parameters), rounds=ROUNDS_AGAIN)
    else:
        # Cores and contention explain much of each other, and only one pair explains the rest.
        tried = [_least_squares(problem, begin, rounds=ROUNDS_FIRST) for begin in _begin(problem)]
        nearest = min(tried, key=lambda result: result.cost)
        found = _least_squares(problem, nearest.at, rounds=ROUNDS)
    best, jacobian, left = found.at, found.jacobian, found.left
    misfit = math.sqrt(float(np.mean(left**2)))
    return Calibration(
        service=shape.service(best),
        plausible=_draw(shape, best, jacobian, misfit, draws, seed),
        misfit=misfit,
        parameters=tuple(best),
        slopes=problem.slopes,
    )


@dataclass(slots=True)
class _Problem:
    """What is minimised: the residuals of all points at a vector of parameters."""

    shape: _Shape
    points: Sequence[tuple[Policy, CurvePoint]]
    workload: Workload
    slopes: dict[tuple[Policy, CurvePoint], _Slope] = field(default_factory=dict)

    def residuals(self, parameters: Floats) -> list[Floats]:
        """The residuals of each point."""
        service = self.shape.service(parameters)
        return [_residuals(policy, point, service, self.workload) for policy, point in self.points]

    def jacobian(self, parameters: Floats, left: Sequence[Floats]) -> Floats:
        """Derivatives, taken anew only of points where the parameters have moved far since."""
        old = [
            at
            for at, pair in enumerate(self.points)
            if pair not in self.slopes
            or float(np.abs(self.slopes[pair].at - parameters).max()) > STALE
        ]
        rows = {at: np.empty((len(left[at]), len(parameters))) for at in old}
        for index in range(len(parameters)):
            moved = parameters.copy()
            moved[index] += STEP
            service = self.shape.service(moved)
            for at in old:
                there = _residuals(*self.points[at], service, self.workload)
                rows[at][:, index] = (there - left[at]) / STEP
        for at in old:
            self.slopes[self.points[at]] = _Slope(parameters, rows[at])
        return np.concatenate([self.slopes[pair].rows for pair in self.points])


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


def _residuals(
    policy: Policy, point: CurvePoint, service: ServiceModel, workload: Workload
) -> Floats:
    outcome = predicted(policy, point, service, workload)
    errors: list[float] = []
    if point.saturated or point.concurrency is not None:
        errors.append(_off(outcome.throughput_rps, point.throughput_rps, RATE_ERROR))
    else:
        for share, value_ms in point.percentiles_ms:
            error = MEDIAN_ERROR if share <= 0.5 else TAIL_ERROR
            noise = _quantile_noise(share, point.independent)
            off = _off(outcome.percentile_ms(share), value_ms, math.hypot(error, noise))
            # Percentiles of one load move together: together they count about as two.
            errors.append(off * min(1.0, math.sqrt(2 / len(point.percentiles_ms))))
    if point.rows_per_batch is not None and outcome.rows_per_batch is not None:
        errors.append(_off(outcome.rows_per_batch, point.rows_per_batch, BATCH_ERROR))
    if point.run_ms:
        errors.append(_off(_run_ms(outcome, service), point.run_ms, BATCH_ERROR))
    return _softened(np.array(errors))


def _off(model: float, measured: float, error: float) -> float:
    if not (model > 0 and measured > 0):
        return 0.0
    ratio = math.log(model / measured) if math.isfinite(model) else FURTHEST
    return max(-FURTHEST, min(FURTHEST, ratio)) / error


def _softened(errors: Floats) -> Floats:
    """Residuals whose squares are the pseudo-Huber loss: far ones count by their distance."""
    return np.asarray(np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1)))


def _quantile_noise(share: float, independent: float) -> float:
    """Relative standard error of a sample quantile, where the tail is exponential."""
    upper = 1 - share
    return math.sqrt(share * upper / independent) / (upper * math.log(1 / upper))


def _run_ms(outcome: Outcome, service: ServiceModel) -> float:
    """Mean over requests of the time that their batch ran."""
    done = np.isfinite(outcome.latency_ns)
    inside = outcome.latency_ns[done] - outcome.waited_ns[done]
    # With a busy front the wait before it is part of latency, and not of the run.
    return float(np.mean(inside)) / NS_PER_MS - service.delay_ms - service.front_ms


FAMILIES = ((0.4, 1.0), (1.0, 1.05), (1.0, 4.0))
"""Contention and cores from which a fit starts: batches that overlap, take turns, or are free."""


def _begin(problem: _Problem) -> list[Floats]:
    """The best start of each family, by how much of a batch is paid by row."""
    fastest = min(
        (value for _, point in problem.points for _, value in point.percentiles_ms[:1]),
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
        begins.append(min(candidates, key=lambda at: _squares(problem.residuals(at))))
    return begins


def _squares(parts: Sequence[Floats]) -> float:
    return sum(float(part @ part) for part in parts)


@dataclass(frozen=True, slots=True)
class _Minimum:
    """Where a fit ended: parameters, what is minimised there, its slopes and residuals."""

    at: Floats
    cost: float
    jacobian: Floats
    left: Floats


def _least_squares(problem: _Problem, begin: Floats, *, rounds: int) -> _Minimum:
    """Levenberg and Marquardt's method."""
    mean, width = problem.shape.prior

    def cost_of(parts: Sequence[Floats], at: Floats) -> float:
        return _squares(parts) + float(np.sum(((at - mean) / width) ** 2))

    at, parts = begin, problem.residuals(begin)
    cost, damping = cost_of(parts, at), 0.3
    jacobian = problem.jacobian(at, parts)
    for number in range(rounds):
        if number:
            jacobian = problem.jacobian(at, parts)
        gain = 0.0
        curvature = jacobian.T @ jacobian
        slope = jacobian.T @ np.concatenate(parts) + (at - mean) / width**2
        for _ in range(4):
            normal = curvature + np.diag((1 + damping) / width**2 + damping * np.diag(curvature))
            tried = at - np.clip(np.linalg.solve(normal, slope), -1.0, 1.0)
            found = problem.residuals(tried)
            if (new := cost_of(found, tried)) < cost:
                gain = (cost - new) / cost
                at, parts, cost, damping = tried, found, new, damping / 4
                break
            damping *= 4
        if gain < ENOUGH:
            break
    return _Minimum(at, cost, jacobian, np.concatenate(parts))


def _draw(
    shape: _Shape, best: Floats, jacobian: Floats, misfit: float, draws: int, seed: int
) -> tuple[ServiceModel, ...]:
    """Models from Laplace's approximation of the posterior, wider where the fit is poor."""
    _, width = shape.prior
    precision = jacobian.T @ jacobian / max(1.0, misfit**2) + np.diag(1 / width**2)
    upper = np.linalg.cholesky(precision).T
    normals = np.random.default_rng((seed, 4)).standard_normal((draws, len(best)))
    return tuple(shape.service(best + np.linalg.solve(upper, normal)) for normal in normals)
