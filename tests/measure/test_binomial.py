import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.measure.binomial import at_least, at_most, incomplete_beta, student_tail


def exact_at_most(k, n, share):
    share = Fraction(share)
    return float(sum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1)))


@settings(deadline=None)
@given(n=st.integers(1, 60), k=st.integers(0, 60), share=st.sampled_from([0.001, 0.01, 0.05, 0.5]))
def test_tails_equal_the_sum_of_their_terms(n, k, share):
    k = min(k, n)
    below = exact_at_most(k, n, share)
    assert at_most(k, n, share) == pytest.approx(below, abs=1e-11)
    above = 1 - (exact_at_most(k - 1, n, share) if k else 0.0)
    assert at_least(k, n, share) == pytest.approx(above, abs=1e-11)


@settings(deadline=None)
@given(a=st.floats(0.1, 1e6), b=st.floats(0.1, 1e6), x=st.floats(0.0, 1.0, exclude_min=True))
def test_incomplete_beta_is_symmetric(a, b, x):
    # 1 - x is rounded, which near x = 0 or 1 moves a steep function by more than its precision.
    y = 1 - x
    assert incomplete_beta(a, b, 1 - y) == pytest.approx(1 - incomplete_beta(b, a, y), abs=1e-7)


def test_fractional_counts_lie_between_their_neighbours():
    assert at_most(2, 500, 0.01) < at_most(2.5, 500.5, 0.01) < at_most(3, 500, 0.01)


@pytest.mark.parametrize(("k", "expected"), [(-1, 0.0), (10, 1.0), (11, 1.0)])
def test_at_most_beyond_the_counts(k, expected):
    assert at_most(k, 10, 0.3) == expected


@pytest.mark.parametrize(("k", "expected"), [(-1, 1.0), (0, 1.0), (11, 0.0)])
def test_at_least_beyond_the_counts(k, expected):
    assert at_least(k, 10, 0.3) == expected


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (5, 2.5706), (18, 2.1009), (120, 1.9799)]
)
def test_student_tail_matches_the_printed_table(degrees, quantile):
    assert student_tail(quantile, degrees) == pytest.approx(0.05, rel=1e-3)
    assert student_tail(-quantile, degrees) == student_tail(quantile, degrees)
