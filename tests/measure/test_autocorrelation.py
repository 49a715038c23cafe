import numpy as np
import pytest

from tuner.measure.autocorrelation import effective_samples


def independent(count, seed):
    return np.random.default_rng(seed).integers(1, 10**9, count)


def test_independent_requests_are_worth_more_than_half_of_their_number():
    worth = [effective_samples(independent(6_000, seed), 60) / 6_000 for seed in range(50)]
    assert max(worth) <= 1
    assert np.mean(worth) > 0.5


@pytest.mark.parametrize("size", [4, 16])
def test_requests_that_share_a_batch_count_about_once_a_batch(size):
    # Every batch of `size` requests has one latency, so n requests are n / size facts.
    worth = [
        effective_samples(np.repeat(independent(9_600 // size, seed), size), 96) / (9_600 / size)
        for seed in range(50)
    ]
    assert 0.5 < np.mean(worth) < 1


def test_one_long_stall_is_one_event():
    latency = independent(9_000, 1)
    latency[4_000:4_300] += 10**10
    assert effective_samples(latency, 300) < 120


def test_with_no_request_over_the_limit_the_slowest_tell():
    latency = np.repeat(independent(600, 3), 16)
    assert effective_samples(latency, 0) < 9_600 / 6


def test_failures_are_slow_requests():
    latency = np.full(3_000, 10**6)
    latency[1_000:1_100] = np.iinfo(np.int64).max
    assert effective_samples(latency, 100) < 100


@pytest.mark.parametrize("count", [0, 1, 59])
def test_too_few_to_tell(count):
    assert effective_samples(independent(count, 1), 0) == count


def test_equal_latencies_show_no_correlation():
    assert effective_samples(np.full(600, 10**6), 0) == 600
    assert effective_samples(np.full(600, 10**6), 600) == 600
