import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tuner.measure.percentiles import (
    nearest_rank,
    samples_for,
    supported_percentiles_ms,
    value_at,
)

latencies = arrays(np.int64, st.integers(1, 2000), elements=st.integers(0, 10**12))


@pytest.mark.parametrize(
    ("name", "samples"),
    [("p50", 20), ("p90", 100), ("p95", 200), ("p99", 1_000), ("p999", 10_000)],
)
def test_a_percentile_needs_ten_samples_beyond_it(name, samples):
    assert samples_for(name) == samples
    enough = np.arange(samples, dtype=np.int64)
    assert name in supported_percentiles_ms(enough, 0)
    assert name not in supported_percentiles_ms(enough[:-1], 0)


def test_nearest_rank():
    # 1,000 values: p99 is the 990th, exceeded by ten.
    assert nearest_rank(0.99, 1_000) == 990
    assert nearest_rank(0.999, 10_000) == 9_990
    assert nearest_rank(0.5, 3) == 2
    assert nearest_rank(0.001, 3) == 1


def test_percentiles_are_values_that_were_measured():
    answered = np.arange(1_000, 0, -1, dtype=np.int64) * 1_000_000
    assert supported_percentiles_ms(answered, 0) == {
        "p50": 500.0,
        "p90": 900.0,
        "p95": 950.0,
        "p99": 990.0,
    }


def test_failures_rank_above_every_answer():
    answered = np.full(940, 5_000_000, dtype=np.int64)
    # 60 of 1,000 failed: p90 is an answer, p95 and p99 are not.
    assert supported_percentiles_ms(answered, 60) == {
        "p50": 5.0,
        "p90": 5.0,
        "p95": None,
        "p99": None,
    }


def test_all_failed():
    assert supported_percentiles_ms(np.zeros(0, np.int64), 100) == {"p50": None, "p90": None}


@settings(deadline=None)
@given(answered=latencies, failed=st.integers(0, 200), more=st.integers(1, 200))
def test_percentiles_rise_and_failures_never_lower_one(answered, failed, more):
    def heights(failures):
        percentiles = supported_percentiles_ms(answered, failures)
        return {n: np.inf if ms is None else ms for n, ms in percentiles.items()}

    before, after = heights(failed), heights(failed + more)
    assert list(before.values()) == sorted(before.values())
    assert all(after[name] >= value for name, value in before.items())


def test_value_at_ends():
    values = np.array([3, 1, 2], dtype=np.int64) * 1_000_000
    assert (value_at(0.0, values), value_at(0.5, values), value_at(1.0, values)) == (1, 2, 3)
    assert value_at(0.5, values[:0]) == 0
