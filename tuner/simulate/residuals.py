"""How far a model lies from what was measured, in units of what a good model is off by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.curves import CurvePoint

Floats = NDArray[np.float64]

FURTHEST = 3.0
"""Log ratios are cut here: a server that is saturated only in the model is wrong enough."""

# How well the model itself can be expected to match, besides the measurement's own noise.
RATE_ERROR, MEDIAN_ERROR, TAIL_ERROR, BATCH_ERROR = 0.05, 0.07, 0.12, 0.08


@dataclass(frozen=True, slots=True)
class Shown:
    """What a model makes of a load: latencies by the point's shares; None: it says nothing."""

    throughput_rps: float
    percentiles_ms: Sequence[float]
    rows_per_batch: float | None
    run_ms: float | None


def residuals(point: CurvePoint, shown: Shown) -> Floats:
    """How far what a model shows of a load lies from what was measured, softened.

    Latencies count where the server kept up; where it did not, or a closed loop drove it, the
    throughput does. Batch sizes and run times count where they were measured.
    """
    errors: list[float] = []
    if point.saturated or point.concurrency is not None:
        errors.append(off(shown.throughput_rps, point.throughput_rps, RATE_ERROR))
    else:
        for (share, value_ms), model_ms in zip(
            point.percentiles_ms, shown.percentiles_ms, strict=True
        ):
            error = MEDIAN_ERROR if share <= 0.5 else TAIL_ERROR
            noise = quantile_noise(share, point.independent)
            distance = off(model_ms, value_ms, math.hypot(error, noise))
            # Percentiles of one load move together: together they count about as two.
            errors.append(distance * min(1.0, math.sqrt(2 / len(point.percentiles_ms))))
    if point.rows_per_batch is not None and shown.rows_per_batch is not None:
        errors.append(off(shown.rows_per_batch, point.rows_per_batch, BATCH_ERROR))
    if point.run_ms and shown.run_ms is not None:
        errors.append(off(shown.run_ms, point.run_ms, BATCH_ERROR))
    return softened(np.array(errors))


def off(model: float, measured: float, error: float) -> float:
    """The log ratio of two figures over the error expected; 0 where one of them says nothing."""
    if not (model > 0 and measured > 0):
        return 0.0
    ratio = math.log(model / measured) if math.isfinite(model) else FURTHEST
    return max(-FURTHEST, min(FURTHEST, ratio)) / error


def softened(errors: Floats) -> Floats:
    """Residuals whose squares are the pseudo-Huber loss: far ones count by their distance."""
    return np.asarray(np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1)))


def quantile_noise(share: float, independent: float) -> float:
    """Relative standard error of a sample quantile, where the tail is exponential."""
    upper = 1 - share
    return math.sqrt(share * upper / independent) / (upper * math.log(1 / upper))
