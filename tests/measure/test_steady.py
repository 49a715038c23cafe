import numpy as np
import pytest
from queueing import START_NS, columns, mm1

from tuner.clock import NS_PER_S
from tuner.measure.steady import (
    latency_growth_ms,
    littles_law_gap,
    mser5,
    outstanding,
    outstanding_growth_rps,
    trend,
    warmed_up,
)


def closed_loop(latencies_ms, concurrency=1):
    """A closed loop of one: each request is sent when the one before is done."""
    latencies = np.asarray(latencies_ms, dtype=float)
    sent = np.concatenate(([0.0], np.cumsum(latencies)[:-1])) / 1e3
    return columns(sent, latencies, seconds=latencies.sum() / 1e3, concurrency=concurrency)


def noisy(level_ms, count, seed):
    return np.random.default_rng(seed).normal(level_ms, level_ms / 10, count)


def between(samples, from_s, to_s):
    return samples.started_ns + from_s * NS_PER_S, samples.started_ns + to_s * NS_PER_S


def test_trend_of_a_straight_line():
    line = trend(np.arange(20) * 0.5)
    assert (line.slope, line.mean) == pytest.approx((0.5, 4.75))
    assert line.significant
    assert line.change == pytest.approx(2.0)


def test_a_flat_line_has_no_trend():
    assert not trend(np.full(20, 3.0)).significant


def test_noise_has_a_trend_as_seldom_as_stated():
    rng = np.random.default_rng(7)
    found = sum(trend(rng.normal(size=20)).significant for _ in range(2_000))
    assert found <= 35  # 1 % of 2,000 is 20; 35 is beyond the 99.9th percentile of chance


@pytest.mark.parametrize("cold", [40, 100, 300])
def test_mser5_cuts_the_cold_requests(cold):
    values = np.concatenate([noisy(50, cold, 1), noisy(10, 1_000, 2)])
    assert cold - 5 <= mser5(values) <= cold + 25


def test_mser5_cuts_a_decay_where_it_ends():
    values = noisy(10, 2_000, 3) + 100 * np.exp(-np.arange(2_000) / 50)
    assert 100 <= mser5(values) <= 500


def test_mser5_keeps_nearly_all_of_a_steady_series():
    assert np.median([mser5(noisy(10, 1_000, seed)) for seed in range(30)]) <= 100


@pytest.mark.parametrize("count", [0, 4, 9])
def test_mser5_needs_two_batches(count):
    assert mser5(np.ones(count)) == 0


def test_outstanding_counts_request_seconds():
    # One request from 0 to 2 s, one from 1 to 2 s: 1, then 2, then none outstanding.
    samples = columns([0.0, 1.0], [2_000, 1_000], seconds=3)
    edges = START_NS + np.arange(4) * NS_PER_S
    assert outstanding(samples, edges) == pytest.approx([1.0, 2.0, 0.0])


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_mm1_holds_its_textbook_queue_and_littles_law(load):
    samples = mm1(100 * load, 100, 3_000, seed=11)
    start, end = between(samples, 100, 2_900)
    number = outstanding(samples, np.array([start, end]))[0]
    assert number == pytest.approx(load / (1 - load), rel=0.1)
    assert abs(littles_law_gap(samples, start, end)) < 0.01


def test_littles_law_shows_an_idle_closed_loop():
    # Two were to be outstanding, but one at a time was sent.
    samples = closed_loop(np.full(1_000, 10.0), concurrency=2)
    assert littles_law_gap(samples, *between(samples, 0, 10)) == pytest.approx(-0.5, abs=0.01)


def test_littles_law_without_requests():
    samples = columns([], [], seconds=2)
    assert littles_law_gap(samples, *between(samples, 0, 2)) == 0


def test_a_stable_queue_seldom_seems_to_grow():
    runs = [mm1(50, 100, 30, seed=seed) for seed in range(100)]
    grown = sum(outstanding_growth_rps(run, *between(run, 5, 30)) != 0 for run in runs)
    assert grown <= 6


def test_an_overloaded_server_falls_behind_by_the_excess():
    runs = [mm1(130, 100, 30, seed=seed) for seed in range(20)]
    growth = [outstanding_growth_rps(run, *between(run, 5, 30)) for run in runs]
    assert min(growth) > 0
    assert np.mean(growth) == pytest.approx(30, rel=0.15)


def test_growth_of_nothing():
    samples = columns([], [], seconds=2)
    assert outstanding_growth_rps(samples, *between(samples, 0, 2)) == 0


def test_a_steady_server_is_warm_at_once():
    found = warmed_up([closed_loop(noisy(10, 500, 1)), closed_loop(noisy(10, 500, 2))])
    assert found.steady
    assert found.cold_s < 3


def test_cold_requests_are_found_and_timed():
    # 50 requests of 100 ms are 5 s of cold load.
    cold = np.concatenate([noisy(100, 50, 1), noisy(10, 450, 2)])
    found = warmed_up([closed_loop(cold), closed_loop(noisy(10, 500, 3))])
    assert found.steady
    assert found.cold_s == pytest.approx(5, abs=0.5)


def test_one_terrible_first_request_does_not_spoil_the_rest():
    found = warmed_up([closed_loop(np.concatenate([[8_000.0], noisy(10, 500, 4)]))])
    assert found.steady
    assert found.cold_s == pytest.approx(8, abs=1)


def test_a_server_that_has_just_become_fast_is_not_yet_warm():
    found = warmed_up([closed_loop(noisy(100, 600, 1)), closed_loop(noisy(10, 200, 2))])
    assert not found.steady
    assert "second half" in found.reason


def test_a_server_that_slows_down_is_not_steady():
    drifting = np.linspace(10, 14, 1_000) * np.random.default_rng(1).normal(1, 0.05, 1_000)
    found = warmed_up([closed_loop(drifting)])
    assert not found.steady


def test_a_small_drift_is_within_tolerance():
    drifting = np.linspace(10, 10.5, 1_000) * np.random.default_rng(1).normal(1, 0.02, 1_000)
    assert warmed_up([closed_loop(drifting)], tolerance=0.1).steady
    assert not warmed_up([closed_loop(drifting)], tolerance=0.02).steady


def test_too_few_answers_say_nothing():
    assert "only 0 answers" in warmed_up([]).reason
    found = warmed_up([closed_loop(noisy(10, 99, 1))])
    assert (found.steady, found.reason) == (False, "only 99 answers, 100 are needed")


def test_latency_of_an_overloaded_server_grows_by_the_excess():
    # At 130/s a server of 100/s falls 0.3 s behind every second.
    growth = [
        latency_growth_ms(run, *between(run, 5, 30))
        for run in (mm1(130, 100, 30, seed=seed) for seed in range(20))
    ]
    assert min(growth) > 0
    assert np.mean(growth) == pytest.approx(300, rel=0.15)


def test_latency_of_nothing_does_not_grow():
    samples = columns([], [], seconds=2)
    assert latency_growth_ms(samples, *between(samples, 0, 2)) == 0
