"""Levenberg and Marquardt's method with prior knowledge, on derivatives that the problem takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENOUGH = 0.01
"""A round that improves the fit by less is the last."""


class Problem(Protocol):
    """What is minimised: squared residuals, and distances from the prior."""

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the parameters."""

    def pull(self, parameters: Floats) -> tuple[float, Floats]:
        """Minus twice the log of the prior, and each parameter's weight in it by its distance."""

    def residuals(self, parameters: Floats) -> list[Floats]:
        """The residuals of each point."""

    def jacobian(self, parameters: Floats, left: Sequence[Floats]) -> Floats:
        """Derivatives of all residuals, which are `left` there, by the parameters."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where a fit ended: parameters, what is minimised there, slopes, residuals.

    `held` is how firmly the prior holds each parameter there, as a precision.
    """

    at: Floats
    cost: float
    jacobian: Floats
    left: Floats
    held: Floats

    @property
    def misfit(self) -> float:
        """The root mean square of the residuals."""
        return math.sqrt(float(np.mean(self.left**2))) if len(self.left) else 0.0

    def draws(self, count: int, seed: int) -> list[Floats]:
        """Parameters by Laplace's approximation of the posterior, wider where the fit is poor."""
        information = self.jacobian.T @ self.jacobian / max(1.0, self.misfit**2)
        upper = np.linalg.cholesky(information + np.diag(self.held)).T
        normals = np.random.default_rng((seed, 4)).standard_normal((count, len(self.at)))
        return [self.at + np.linalg.solve(upper, normal) for normal in normals]


def gaussian(prior: tuple[Floats, Floats], parameters: Floats) -> tuple[float, Floats]:
    """The pull of a prior that is normal in every parameter."""
    mean, width = prior
    return float(np.sum(((parameters - mean) / width) ** 2)), np.ones(len(parameters))


def squares(parts: Sequence[Floats]) -> float:
    """Sum of the squares of all residuals."""
    return sum(float(part @ part) for part in parts)


def least_squares(problem: Problem, begin: Floats, *, rounds: int) -> Minimum:
    """Go downhill from `begin` for so many rounds at most."""
    mean, width = problem.prior

    def cost_of(parts: Sequence[Floats], at: Floats) -> float:
        return squares(parts) + problem.pull(at)[0]

    at, parts = begin, problem.residuals(begin)
    cost, damping = cost_of(parts, at), 0.3
    jacobian = problem.jacobian(at, parts)
    for number in range(rounds):
        if number:
            jacobian = problem.jacobian(at, parts)
        gain = 0.0
        curvature = jacobian.T @ jacobian
        held = problem.pull(at)[1] / width**2
        slope = jacobian.T @ np.concatenate(parts) + (at - mean) * held
        for _ in range(4):
            normal = curvature + np.diag((1 + damping) * held + damping * np.diag(curvature))
            tried = at - np.clip(np.linalg.solve(normal, slope), -1.0, 1.0)
            found = problem.residuals(tried)
            if (new := cost_of(found, tried)) < cost:
                gain = (cost - new) / cost
                at, parts, cost, damping = tried, found, new, damping / 4
                break
            damping *= 4
        if gain < ENOUGH:
            break
    held = problem.pull(at)[1] / width**2
    return Minimum(at, cost, jacobian, np.concatenate(parts), held)
