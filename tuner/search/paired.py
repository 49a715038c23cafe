"""Gains from blocks: two configurations measured side by side, and what may be claimed of them.

Both are measured once in every block, so what a block has in common (the hour, its arrivals, a
neighbour) cancels in the ratio of their rates. The logarithms of these ratios are judged:

* Student's t, two-sided. With few blocks nothing else holds: resampling three of them by the
  percentile bootstrap claims a gain between equals in one comparison of eight, not of forty.
* From BOOTSTRAP_FROM blocks on also the studentised bootstrap (Efron 1979; Hall 1988), which
  follows the skew of the data; the wider end of both counts.
* A rate is known as finely as its ladder's steps: it may lie anywhere between the load that held
  and the next that was not shown to. No interval is narrower than these errors make it (see
  `coarseness`), however well a few blocks happen to agree.

Where several candidates are held against the default, the best of them is picked afterwards; each
interval then gets its part of the allowed error (Bonferroni), so that all hold together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tuner.measure.binomial import chi_square_below, student_tail

CONFIDENCE = 0.95
"""With which all intervals of one comparison hold together."""

BOOTSTRAP_FROM = 10
"""Fewer blocks have too few resamples for the tails of a studentised mean."""

FEWEST = 3
"""Blocks without which no interval is stated: two leave Student's t one degree of freedom."""

VAGUE = 4.0
"""An interval on both sides of zero whose ends lie further apart, as a factor, says nothing."""

RESAMPLES = 10_000

_SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class Gain:
    """Relative difference of two sustainable rates in per cent, with a 95 % interval.

    `low` and `high` are None where what was measured is too little to tell (see `stated`).
    """

    percent: float
    low: float | None
    high: float | None

    @property
    def proven(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low is not None and self.low > 0

    @property
    def refuted(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high is not None and self.high < 0

    def describe(self) -> str:
        """Words such as `+12.3 % (95 % interval +10.1 to +14.6 %)`."""
        if self.low is None or self.high is None:
            return f"{self.percent:+.1f} % (not confirmed)"
        interval = f"{100 * CONFIDENCE:g} % interval {self.low:+.1f} to {self.high:+.1f} %"
        return f"{self.percent:+.1f} % ({interval})"


Steps = tuple[Sequence[float], Sequence[float]]
"""The steps (see `coarseness`) of our rates and of theirs, one for each; empty: not known."""


def paired_gain(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    comparisons: int = 1,
    steps: Steps = ((), ()),
) -> Gain | None:
    """The gain of `ours` over `theirs`, rates of the same blocks in the same order.

    The geometric mean of the ratios. `comparisons` is how many such intervals must hold together
    at CONFIDENCE. None where there is no pair, or one of them carried no load at all.
    """
    pairs = list(zip(ours, theirs, strict=True))
    if not pairs or any(our <= 0 or their <= 0 for our, their in pairs):
        return None
    logs = np.array([math.log(our / their) for our, their in pairs])
    centre = float(logs.mean())
    if len(logs) < FEWEST:
        return Gain(percent_of(centre), None, None)
    confidence = 1 - (1 - CONFIDENCE) / comparisons
    low, high = _student(logs, confidence)
    if len(logs) >= BOOTSTRAP_FROM:
        resampled = _studentised_bootstrap(logs, confidence)
        low, high = min(low, resampled[0]), max(high, resampled[1])
    least = normal_quantile(confidence) * math.hypot(
        coarseness(ours, steps[0]), coarseness(theirs, steps[1])
    )
    return stated(centre, min(low, centre - least), max(high, centre + least))


def coarseness(rates: Sequence[float], steps: Sequence[float], count: int | None = None) -> float:
    """The standard error of a mean log rate that comes of the steps between the loads tried.

    `steps` are the log distances from each rate to the next load that was not shown to hold. A
    value that may lie anywhere in a step d has the standard deviation d / sqrt(12) (JCGM 100:2008,
    F.2.2.1). Rates that vary by more than a step fall on it here and there, so that a mean of
    `count` (all of them, if not given) averages it out; within one step the same error is in all.
    """
    if not steps:
        return 0.0
    variance = sum(step**2 for step in steps) / len(steps) / 12
    if math.log(max(rates) / min(rates)) > max(steps):
        variance /= count or len(rates)
    return math.sqrt(variance)


def normal_quantile(confidence: float) -> float:
    """The two-sided point z with P(|Z| <= z) = confidence of the normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def stated(centre: float, low: float, high: float) -> Gain:
    """A gain of a log ratio and its interval, which is left out where it would say nothing.

    `-7 % [-99, +7115]` is no finding: nobody learns from it whether more or less is carried.
    """
    if low < 0 < high and high - low > math.log(VAGUE):
        return Gain(percent_of(centre), None, None)
    return Gain(percent_of(centre), percent_of(low), percent_of(high))


def detectable_percent(
    rates: Sequence[float], blocks: int, *, comparisons: int = 1, steps: Sequence[float] = ()
) -> float | None:
    """The smallest gain that `blocks` blocks would prove in about four of five runs, in per cent.

    (t(1 - a/2) + t(0.8)) * s * sqrt(2 / k), s being the standard deviation of log rates between
    starts of one configuration, from `rates`, k the number of blocks and a the error allowed to
    each of `comparisons`; for many blocks the well-known 2.8 * s * sqrt(2 / k). No less than the
    `steps` of these rates let anyone tell. None where fewer than two rates say nothing of s, or
    fewer than two blocks prove nothing.
    """
    spread = spread_of(rates)
    if spread is None or blocks < 2:
        return None
    allowed = (1 - CONFIDENCE) / comparisons
    points = student_quantile(1 - allowed, blocks - 1) + student_quantile(0.6, blocks - 1)
    coarse = told_apart(allowed) * math.sqrt(2) * coarseness(rates, steps, blocks)
    return percent_of(max(points * spread * math.sqrt(2 / blocks), coarse))


def told_apart(allowed: float) -> float:
    """How many standard errors of its steps a gain must have to be told in four of five runs."""
    return normal_quantile(1 - allowed) + normal_quantile(0.6)


def spread_of(rates: Sequence[float]) -> float | None:
    """Standard deviation of the log rates of equal starts; None with fewer than two."""
    if len(rates) < 2 or min(rates) <= 0:
        return None
    return float(np.std(np.log(rates), ddof=1))


def spread_at_worst(count: int) -> float:
    """By which factor the true spread may exceed that of `count` values, with 95 % confidence.

    sqrt((n - 1) / chi2(0.05, n - 1)): 15.9 for two values, 4.4 for three, 1.6 for ten.
    """
    degrees = count - 1
    lower = _crossing(
        lambda value: chi_square_below(value, degrees) > 1 - CONFIDENCE,
        0.0,
        float(degrees),  # the lower 5 % of a chi-square lie below its mean
    )
    return math.sqrt(degrees / lower)


def student_quantile(confidence: float, degrees: int) -> float:
    """The two-sided point t with P(|T| <= t) = confidence, by bisection."""

    def beyond(value: float) -> bool:
        return student_tail(value, degrees) <= 1 - confidence

    low, high = 0.0, 1.0
    while not beyond(high):
        low, high = high, 2 * high
    return _crossing(beyond, low, high)


def _crossing(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """The value from which on `beyond` holds, by bisection, to nine digits."""
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if beyond(middle):
            high = middle
        else:
            low = middle
    return high


def _student(logs: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    half = student_quantile(confidence, len(logs) - 1) * error
    return float(logs.mean()) - half, float(logs.mean()) + half


def _studentised_bootstrap(logs: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Interval from the resampled distribution of (mean* - mean) / standard error*."""
    count = len(logs)
    drawn = logs[np.random.default_rng(_SEED).integers(count, size=(RESAMPLES, count))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
    # A resample of one block alone, or of equal ones, has no error to divide by.
    usable = errors > 1e-12
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(count)
    if not usable.any():
        return mean, mean
    ratios = (drawn[usable].mean(axis=1) - mean) / errors[usable]
    outside = (1 - confidence) / 2
    below, above = np.quantile(ratios, [outside, 1 - outside])
    return mean - float(above) * error, mean - float(below) * error


def percent_of(log_ratio: float) -> float:
    """Per cent of a log ratio."""
    return (math.exp(log_ratio) - 1) * 100
