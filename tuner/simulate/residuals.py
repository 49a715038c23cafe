"""How far a model lies from what was measured, in units of what a good model is off by."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FURTHEST = 3.0
"""Log ratios are cut here: a server that is saturated only in the model is wrong enough."""

# How well the model itself can be expected to match, besides the measurement's own noise.
RATE_ERROR, MEDIAN_ERROR, TAIL_ERROR, BATCH_ERROR = 0.05, 0.07, 0.12, 0.08


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
