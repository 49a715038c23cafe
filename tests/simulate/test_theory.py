"""The simulator against queueing theory, where theory has a closed form."""

import numpy as np
import pytest

from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import simulate
from tuner.simulate.service import ServiceModel

SERVICE = ServiceModel(sizes=(1,), run_ms=(1.0,))
ALONE = Policy(threads=1, largest_batch=1)


def poisson_ns(rate_rps, count, seed=1):
    return np.cumsum(np.random.default_rng(seed).exponential(1e9 / rate_rps, count))


def mean_ms(outcome):
    return float(outcome.latency_ns.mean()) / 1e6


def bulk_wait(rate, service, size):
    """Mean wait of M/D[b]/1 whose server takes up to `size` of those that wait, by its chain.

    The embedded chain of the number left behind at ends of service, solved numerically; the mean
    number in the system in each cycle then follows by integrating arrivals over it (Bailey 1954;
    Little's law gives the wait). A server that finds nobody waits for one and takes that one.
    """
    most = 400
    arrivals = np.exp(
        np.arange(most) * np.log(rate * service)
        - rate * service
        - np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, most)))))
    )
    step = np.zeros((most, most))
    for left in range(most):
        begin = max(left - size, 0)
        step[left, begin:] = arrivals[: most - begin]
        step[left, -1] += 1 - step[left].sum()
    share = np.full(most, 1.0 / most)
    for _ in range(4000):
        share = share @ step
    # A cycle: an idle time if nobody was left, then one service.
    waiting = np.maximum(np.arange(most) - size, 0)  # those not taken, who wait a whole service
    area = share @ (waiting * service) + rate * service**2 / 2
    taken = share @ np.minimum(np.maximum(np.arange(most), 1), size)
    return area / taken  # person-seconds of waiting over persons, by cycle


def test_exponential_times_make_an_mm1_queue():
    count, load = 400_000, 0.7
    noise = np.random.default_rng(3).exponential(1.0, count)
    outcome = simulate(ALONE, SERVICE, poisson_ns(load * 1000, count), noise=noise)
    # The time in an M/M/1 system is exponential of mean 1 / (mu - lambda).
    assert mean_ms(outcome) == pytest.approx(1 / (1 - load), rel=0.03)
    assert outcome.percentile_ms(0.99) == pytest.approx(np.log(100) / (1 - load), rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_constant_times_make_an_md1_queue(load):
    outcome = simulate(ALONE, SERVICE, poisson_ns(load * 1000, 400_000))
    assert mean_ms(outcome) == pytest.approx(1 + load / (2 * (1 - load)), rel=0.02)


def test_varying_times_wait_as_pollaczek_and_khinchine_say():
    load, spread = 0.7, 1.5
    noisy = ServiceModel(sizes=(1,), run_ms=(1.0,), spread=spread)
    count = 400_000
    width = np.sqrt(np.log1p(spread**2))
    noise = np.exp(width * np.random.default_rng(5).standard_normal(count) - width**2 / 2)
    outcome = simulate(ALONE, noisy, poisson_ns(load * 1000, count), noise=noise)
    wait = load * (1 + spread**2) / (2 * (1 - load))
    assert mean_ms(outcome) == pytest.approx(1 + wait, rel=0.06)


@pytest.mark.parametrize(("size", "load"), [(4, 0.5), (4, 0.8), (16, 0.7)])
def test_batches_of_constant_time_make_an_mdb1_queue(size, load):
    policy = Policy(threads=1, largest_batch=size)
    rate = load * size  # per ms
    flat = ServiceModel(sizes=(1, size), run_ms=(1.0, 1.0))
    outcome = simulate(policy, flat, poisson_ns(rate * 1000, 600_000))
    assert mean_ms(outcome) - 1 == pytest.approx(bulk_wait(rate, 1.0, size), rel=0.03)


def test_batching_off_on_one_processor_is_processor_sharing():
    load = 0.8
    off = Policy(threads=1, largest_batch=1, batching=False)
    outcome = simulate(off, SERVICE, poisson_ns(load * 1000, 400_000))
    # The mean of M/G/1 processor sharing does not depend on the service times' distribution.
    assert mean_ms(outcome) == pytest.approx(1 / (1 - load), rel=0.05)


def test_batching_off_where_batches_take_turns_is_one_queue():
    load = 0.8
    off = Policy(threads=1, largest_batch=1, batching=False)
    turns = ServiceModel(sizes=(1,), run_ms=(1.0,), in_turn=True)
    outcome = simulate(off, turns, poisson_ns(load * 1000, 400_000))
    # In order and of constant time: M/D/1, which is shorter than processor sharing.
    assert mean_ms(outcome) == pytest.approx(1 + load / (2 * (1 - load)), rel=0.02)


def test_littles_law_holds():
    service = ServiceModel(sizes=(1, 32), run_ms=(5.0, 12.0), contention=0.7, delay_ms=0.4)
    outcome = simulate(
        Policy(threads=2, largest_batch=32, timeout_ns=2_000_000), service, poisson_ns(900, 50_000)
    )
    span_ns = outcome.ended_ns - outcome.arrives_ns[0]
    instants = np.linspace(outcome.arrives_ns[0], outcome.ended_ns, 20_001)
    inside = np.searchsorted(outcome.arrives_ns, instants) - np.searchsorted(
        np.sort(outcome.arrives_ns + outcome.latency_ns), instants
    )
    expected = len(outcome) / span_ns * outcome.latency_ns.mean()
    assert inside.mean() == pytest.approx(expected, rel=0.01)
