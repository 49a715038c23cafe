"""What the simulator misses, learnt from its errors: a small Gaussian process.

The errors are log ratios of measured to predicted rate. Configurations that are alike err alike;
how far likeness reaches, and how large errors are, is chosen by marginal likelihood from a small
grid (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.3
"""Standard deviation of an error that all configurations share."""

AMPLITUDES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
REACHES = (0.7, 1.4)
NOISES = (0.02, 0.05, 0.1, 0.2)
LIKELY_AMPLITUDE, LIKELY_NOISE = 0.12, 0.04
"""Medians of the prior on how large errors are, and how far measurements of one rate spread."""

ALONE = 0.5
"""Share of an error's variance that depends on one parameter at a time, summed over them."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A fitted process: `mean` and `deviation` at new features, and how well it explains.

    `evidence` is the log marginal likelihood. `left_out` are the errors of predicting each
    measurement from all the others.
    """

    features: Floats
    weights: Floats
    inverse: Floats
    amplitude: float
    reach: float
    noise: float
    evidence: float
    left_out: Floats

    def at(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the error at so many new configurations.

        The deviation includes what is each configuration's own, and no neighbour tells.
        """
        likeness = _likeness(features, self.features, self.reach)
        cross = self.amplitude**2 * likeness + LEVEL**2
        mean = cross @ self.weights
        explained = np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        variance = np.maximum(self.amplitude**2 + LEVEL**2 - explained, 0.0)
        return mean, np.sqrt(variance + self.noise**2)


def learn(
    features: Floats, errors: Floats, *, likely_amplitude: float = LIKELY_AMPLITUDE
) -> Correction:
    """Fit the process to the errors of n measured configurations, features (n, d)."""
    fits = []
    for reach in REACHES:
        likeness = _likeness(features, features, reach)
        fits += [
            _fit(features, errors, likeness, amplitude, reach, noise)
            for amplitude, noise in itertools.product(AMPLITUDES, NOISES)
        ]
    return max(
        fits, key=lambda correction: correction.evidence + _prior(correction, likely_amplitude)
    )


def _prior(correction: Correction, likely_amplitude: float) -> float:
    far = math.log(correction.amplitude / likely_amplitude) / 1.0
    spread = math.log(correction.noise / LIKELY_NOISE) / 0.7
    return -0.5 * (far**2 + spread**2)


def _fit(
    features: Floats,
    errors: Floats,
    likeness: Floats,
    amplitude: float,
    reach: float,
    noise: float,
) -> Correction:
    count = len(errors)
    covariance = amplitude**2 * likeness + LEVEL**2 + noise**2 * np.eye(count)
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    weights = inverse @ errors
    _, log_determinant = np.linalg.slogdet(covariance)
    evidence = -0.5 * (errors @ weights + log_determinant + count * math.log(2 * math.pi))
    left_out = weights / np.diag(inverse)
    return Correction(
        features, weights, inverse, amplitude, reach, noise, float(evidence), left_out
    )


def _likeness(one: Floats, other: Floats, reach: float) -> Floats:
    """1 for equal configurations: alike in all, and, for its share, alike in each parameter."""
    apart = ((one[:, None, :] - other[None, :, :]) / reach) ** 2
    together = np.exp(-0.5 * apart.sum(axis=2))
    alone = np.exp(-0.5 * apart).mean(axis=2) if apart.shape[2] else together
    return np.asarray((1 - ALONE) * together + ALONE * alone)


def features_of(
    points: Sequence[dict[str, str | bool | int | float]],
    choices: dict[str, tuple[str | bool | int | float, ...]],
) -> Floats:
    """Points as rows of numbers, in which a distance of 1 is about what likeness reaches.

    Sizes and times count by their ratio, threads twice as much; of words and of switches each
    value has an axis of its own.
    """
    columns: list[list[float]] = []
    for name, values in choices.items():
        numeric = all(isinstance(value, int | float) for value in values) and not all(
            isinstance(value, bool) for value in values
        )
        if numeric:
            columns.append([_position(name, float(point[name])) for point in points])
        elif len(values) > 1:
            columns.extend([float(point[name] == value) for point in points] for value in values)
    return np.array(columns, np.float64).T.reshape(len(points), -1)


def _position(name: str, value: float) -> float:
    if name == "batch_timeout_micros":
        return math.log2(1 + value / 1000) / 1.5
    if name == "num_batch_threads":
        return math.log2(max(value, 0.5)) * 1.2
    if name == "max_batch_size":
        return math.log2(max(value, 0.5)) / 1.5
    return math.copysign(math.log2(1 + abs(value)), value)
