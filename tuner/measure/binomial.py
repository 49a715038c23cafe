"""Exact tails of the binomial, of Student's t, and of the chi-square.

The first two come from the regularised incomplete beta function. Counts may be fractional here:
an effective sample size is rarely a whole number, and the beta form of the binomial tail extends
to it (Korn & Graubard, "Confidence intervals for proportions with small expected number of
positive counts estimated from survey data", 1998).
"""

import math

_TINY = 1e-300
_PRECISION = 1e-13


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Evaluate DLMF 8.17.22 by the modified Lentz method; converges for x < (a + 1)/(a + b + 2).

    Needs O(sqrt(max(a, b))) steps.
    """
    c = 1.0
    d = 1.0 / (1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 200 + 20 * math.isqrt(int(max(a, b)) + 1)):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            c = 1.0 + term / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            fraction *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            return fraction
    raise ArithmeticError(f"incomplete beta function did not converge for {a=}, {b=}, {x=}")


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for a, b > 0 and x in [0, 1].

    Right to 1e-11 for a, b of hundreds and to 1e-8 for a million, where the logarithms cancel.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    front = math.exp(log_front)
    if x < (a + 1) / (a + b + 2):
        return min(1.0, front * _continued_fraction(a, b, x) / a)
    return max(0.0, 1.0 - front * _continued_fraction(b, a, 1 - x) / b)


def at_most(k: float, n: float, share: float) -> float:
    """Probability of at most `k` events in `n` independent trials, each of probability `share`."""
    if k >= n:
        return 1.0
    return incomplete_beta(n - k, k + 1, 1 - share) if k >= 0 else 0.0


def at_least(k: float, n: float, share: float) -> float:
    """Probability of at least `k` events in `n` independent trials of probability `share`."""
    if k <= 0:
        return 1.0
    return incomplete_beta(k, n - k + 1, share) if k <= n else 0.0


def student_tail(t: float, degrees: int) -> float:
    """Two-sided probability of |T| > |t| for Student's t (Abramowitz & Stegun 26.7.1)."""
    if degrees <= 0:
        return 1.0
    return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def chi_square_below(x: float, degrees: int) -> float:
    """Probability that a chi-square variable is at most `x` (DLMF 8.7.1, all terms positive)."""
    if x <= 0:
        return 0.0
    a, half = degrees / 2, x / 2
    term = total = math.exp(a * math.log(half) - half - math.lgamma(a + 1))
    n = 1
    while term > _PRECISION * total:
        term *= half / (a + n)
        total += term
        n += 1
    return min(1.0, total)
