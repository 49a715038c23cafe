"""The scheduler's rules, each seen in a handful of requests whose instants can be worked out."""

import time

import numpy as np
import pytest

from tuner.batching import BatchingParameters
from tuner.records import Config
from tuner.simulate.kernel import ANSWERED, QUEUE_FULL, THREADS_EXHAUSTED, TOO_LARGE
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import GiveUp, simulate, simulate_closed
from tuner.simulate.service import ServiceModel

FLAT = ServiceModel(sizes=(1, 64), run_ms=(10.0, 10.0), contention=0.0)
PER_ROW = ServiceModel(sizes=(1, 64), run_ms=(1.0, 64.0), contention=0.0)


def at_ms(*instants):
    return np.array(instants, np.float64) * 1e6


def latencies(outcome):
    return [round(float(value) / 1e6, 3) for value in outcome.latency_ns]


def test_a_busy_thread_lets_the_open_batch_fill():
    outcome = simulate(Policy(threads=1, largest_batch=8), FLAT, at_ms(0, 1, 2, 3, 9))
    assert list(outcome.batch_rows) == [1, 4]
    assert latencies(outcome) == [10, 19, 18, 17, 11]


def test_a_full_batch_closes_and_the_next_one_opens():
    outcome = simulate(Policy(threads=1, largest_batch=2), FLAT, at_ms(0, 1, 2, 3, 4, 5))
    assert list(outcome.batch_rows) == [1, 2, 2, 1]
    assert latencies(outcome)[-1] == 35


def test_an_idle_thread_waits_for_the_timeout_and_finds_its_end_by_polling():
    policy = Policy(threads=1, largest_batch=8, timeout_ns=5_000_000)
    waits = [
        simulate(policy, FLAT, at_ms(0.3), seed=seed).latency_ns[0] / 1e6 - 10
        for seed in range(400)
    ]
    assert min(waits) >= 5
    assert max(waits) <= 6
    assert np.mean(waits) == pytest.approx(5.5, abs=0.06)  # as seen on a running server


def test_more_idle_threads_find_it_sooner():
    policy = Policy(threads=2, largest_batch=8, timeout_ns=5_000_000)
    waits = [
        simulate(policy, FLAT, at_ms(0.3), seed=seed).latency_ns[0] / 1e6 - 10
        for seed in range(400)
    ]
    assert np.mean(waits) == pytest.approx(5 + 1 / 3, abs=0.06)


def test_a_batch_that_fills_does_not_wait_for_its_timeout():
    policy = Policy(threads=1, largest_batch=2, timeout_ns=50_000_000)
    assert latencies(simulate(policy, FLAT, at_ms(0, 3))) == [13, 10]


def test_a_thread_that_ends_takes_an_expired_batch_at_once():
    policy = Policy(threads=1, largest_batch=2, timeout_ns=5_000_000)
    outcome = simulate(policy, FLAT, at_ms(0, 0.5, 2))
    assert latencies(outcome) == [10.5, 10, 18.5]


def test_the_age_of_a_batch_counts_from_its_first_task():
    policy = Policy(threads=1, largest_batch=8, timeout_ns=5_000_000)
    outcome = simulate(policy, FLAT, at_ms(0, 4.9))
    assert list(outcome.batch_rows) == [2]
    assert 15 <= latencies(outcome)[0] <= 16


def test_a_lost_wake_up_costs_up_to_a_poll():
    """The second task finds its queue notified already, and no thread looks until its poll."""
    policy = Policy(threads=2, largest_batch=8)
    waits = np.array(
        [
            simulate(policy, FLAT, at_ms(0.3, 0.301), seed=seed).latency_ns[1] / 1e6 - 10
            for seed in range(300)
        ]
    )
    assert waits.max() == pytest.approx(1, abs=0.05)
    assert waits.mean() == pytest.approx(0.5, abs=0.06)
    alone = simulate(policy, FLAT, at_ms(0.3, 2.5))  # by then a poll has taken the mark back
    assert latencies(alone) == [10, 10]


def test_the_queue_is_bounded_in_batches():
    policy = Policy(threads=1, largest_batch=2, most_queued=1)
    outcome = simulate(policy, FLAT, at_ms(0, 1, 2, 3, 4))
    assert list(outcome.status) == [ANSWERED, ANSWERED, ANSWERED, QUEUE_FULL, QUEUE_FULL]
    assert np.isinf(outcome.latency_ns[-1])


def test_a_request_that_does_not_fit_leaves_the_batch_under_full():
    policy = Policy(threads=1, largest_batch=8)
    outcome = simulate(policy, FLAT, at_ms(0, 1, 2), rows=np.array([1, 5, 4]))
    assert list(outcome.batch_rows) == [1, 5, 4]


def test_splitting_fills_batches_and_answers_when_all_parts_are_done():
    policy = Policy(threads=1, largest_batch=4, splitting=True, largest_request=16)
    outcome = simulate(policy, FLAT, at_ms(0, 1, 2), rows=np.array([1, 3, 6]))
    assert list(outcome.batch_rows) == [1, 4, 4, 1]
    assert latencies(outcome) == [10, 19, 38]


def test_splitting_turns_away_what_exceeds_the_capacity():
    policy = Policy(threads=1, largest_batch=4, splitting=True, largest_request=64, most_queued=2)
    outcome = simulate(policy, FLAT, at_ms(0, 1, 2), rows=np.array([1, 9, 8]))
    assert list(outcome.status) == [ANSWERED, QUEUE_FULL, ANSWERED]


def test_a_request_larger_than_the_batch_is_refused():
    outcome = simulate(
        Policy(threads=1, largest_batch=4, largest_request=4), FLAT, at_ms(0), rows=np.array([5])
    )
    assert list(outcome.status) == [TOO_LARGE]


def test_padding_is_paid():
    policy = Policy(threads=1, largest_batch=32, allowed=(8, 32))
    outcome = simulate(policy, PER_ROW, at_ms(0))
    assert list(outcome.batch_executed) == [8]
    assert latencies(outcome) == [8]


def test_signatures_take_turns_and_never_share_a_batch():
    policy = Policy(threads=1, largest_batch=8)
    outcome = simulate(policy, FLAT, at_ms(0, 1, 2, 3, 4), queue=np.array([0, 0, 1, 0, 1]))
    assert list(outcome.batch_rows) == [1, 2, 2]  # listed by opening
    assert latencies(outcome) == [10, 29, 18, 27, 16]


def test_the_thread_cap_rejects_at_once_and_is_free_again_after_an_answer():
    policy = Policy(threads=1, largest_batch=8, in_flight=2)
    outcome = simulate(policy, FLAT, at_ms(0, 1, 2, 12))
    assert list(outcome.status) == [ANSWERED, ANSWERED, THREADS_EXHAUSTED, ANSWERED]


def test_batches_beside_each_other_slow_each_other_down():
    shared = ServiceModel(sizes=(1, 64), run_ms=(10.0, 10.0), contention=1.0)
    outcome = simulate(Policy(threads=2, largest_batch=1), shared, at_ms(0, 4))
    assert latencies(outcome)[0] == pytest.approx(16, abs=0.01)
    assert latencies(outcome)[1] == pytest.approx(16, abs=0.01)


@pytest.mark.parametrize(("share", "second_ms"), [(1.0, 16), (0.5, 11), (0.2, 10)])
def test_batches_that_take_turns_wait_for_what_the_one_before_does_alone(share, second_ms):
    turns = ServiceModel(sizes=(1, 64), run_ms=(10.0, 10.0), contention=share, in_turn=True)
    outcome = simulate(Policy(threads=2, largest_batch=1), turns, at_ms(0, 4))
    assert latencies(outcome)[0] == pytest.approx(10, abs=0.01)
    assert latencies(outcome)[1] == pytest.approx(second_ms, abs=0.01)


def test_front_and_delay_lie_outside_the_scheduler():
    service = ServiceModel(sizes=(1, 64), run_ms=(10.0, 10.0), front_ms=2.0, delay_ms=0.5)
    outcome = simulate(Policy(threads=4, largest_batch=1), service, at_ms(0, 0, 0, 20))
    # Contention is 1 by default: the first three share one processor.
    assert latencies(outcome)[3] > 12.5
    free = ServiceModel(
        sizes=(1, 64), run_ms=(10.0, 10.0), contention=0.0, front_ms=2.0, delay_ms=0.5
    )
    outcome = simulate(Policy(threads=4, largest_batch=1), free, at_ms(0, 20))
    assert latencies(outcome) == [12.5, 12.5]


def test_a_closed_loop_with_one_thread_batches_half_its_concurrency():
    service = ServiceModel(sizes=(1, 64), run_ms=(5.0, 20.0))
    outcome = simulate_closed(
        Policy(threads=1, largest_batch=64), service, concurrency=16, requests=4000
    )
    assert outcome.rows_per_batch == pytest.approx(8, rel=0.05)
    assert outcome.answered == 4000


def test_giving_up_leaves_the_rest_unfinished_and_over_the_limit():
    overload = np.arange(5000) * 1e6
    outcome = simulate(
        Policy(threads=1, largest_batch=1), FLAT, overload, give_up=GiveUp(limit_ms=60, most=50)
    )
    assert outcome.answered < 100
    assert outcome.share_over(60) > 0.9


def test_equal_seeds_give_equal_outcomes():
    service = ServiceModel(sizes=(1, 64), run_ms=(2.0, 9.0), spread=0.3)
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1e6, 2000))
    policy = Policy(threads=3, largest_batch=16, timeout_ns=1_000_000)
    one, other = (simulate(policy, service, arrivals, seed=4) for _ in "ab")
    assert np.array_equal(one.latency_ns, other.latency_ns)
    assert not np.array_equal(
        one.latency_ns, simulate(policy, service, arrivals, seed=5).latency_ns
    )


def test_every_request_ends_and_no_batch_exceeds_its_size():
    rng = np.random.default_rng(7)
    for _ in range(40):
        policy = Policy(
            threads=int(rng.integers(1, 5)),
            largest_batch=int(rng.integers(4, 33)),
            timeout_ns=int(rng.integers(0, 4)) * 1_000_000,
            splitting=bool(rng.integers(2)),
            largest_request=64,
        )
        rows = rng.integers(1, 5, 500)
        arrivals = np.cumsum(rng.exponential(1e6, 500))
        outcome = simulate(policy, PER_ROW, arrivals, rows=rows, queue=rng.integers(0, 3, 500))
        assert outcome.answered == 500
        assert outcome.batch_rows.max() <= policy.largest_batch
        assert outcome.batch_rows.sum() == rows.sum()


def test_a_policy_is_read_from_a_configuration():
    batching = BatchingParameters(max_batch_size=32, batch_timeout_micros=500)
    policy = Policy.of(Config(batching, (("grpc_max_threads", "64"),)), cpus=4)
    assert policy == Policy(
        threads=4,
        largest_batch=32,
        timeout_ns=500_000,
        most_queued=10,
        largest_request=32,
        in_flight=63,
    )
    assert not Policy.of(Config(None), cpus=2).batching


@pytest.mark.slow
def test_a_million_requests_take_about_a_second():
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1e6, 1_000_000))
    policy = Policy(threads=2, largest_batch=32, timeout_ns=1_000_000)
    service = ServiceModel(sizes=(1, 64), run_ms=(5.0, 30.0), spread=0.1)
    simulate(policy, service, arrivals[:1000])
    started = time.process_time()
    simulate(policy, service, arrivals)
    assert time.process_time() - started < 2.0
