"""What one replica meets behind a balancer, held against renewal and queueing theory."""

import numpy as np
import pytest

from tuner.simulate.balancer import FLEET, Demand, arrivals_at_one
from tuner.simulate.fleet import simulate_fleet
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import GiveUp, simulate
from tuner.simulate.service import ServiceModel

ONE_BY_ONE = Policy(threads=1, largest_batch=1)
TEN_MS = ServiceModel((1,), (10.0,))
BATCHES = Policy(threads=2, largest_batch=8, timeout_ns=3_000_000)
SLOPED = ServiceModel((1, 8), (10.0, 24.0), contention=0.5, spread=0.1, delay_ms=0.4)


def waits_ms(outcome, work_ms=10.0):
    return float(outcome.latency_ns.mean()) / 1e6 - work_ms


def poisson_ns(rate_rps, count, seed=1):
    return np.cumsum(np.random.default_rng(seed).exponential(1e9 / rate_rps, count))


def erlang_c_wait(servers, load, work):
    """Mean wait of M/M/c at a load of each server, by Erlang's delay formula."""
    offered, blocked = servers * load, 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    waits = blocked / (1 - load * (1 - blocked))
    return waits * work / (servers * (1 - load))


def shortest_queue_wait(load, most=40):
    """Mean wait, in services, of two queues whose arrivals join the shorter: its chain, solved.

    The state is how many are at each; what would exceed `most` is turned away, next to never.
    """
    states = [(one, other) for one in range(most) for other in range(most)]
    rates = np.zeros((len(states), len(states)))
    for at, (one, other) in enumerate(states):
        shorter = [one <= other, other <= one]
        for longer, joins in enumerate(shorter):
            there = (one + 1 - longer, other + longer)
            if joins and max(there) < most:
                rates[at, there[0] * most + there[1]] += 2 * load / sum(shorter)
        if one:
            rates[at, at - most] += 1
        if other:
            rates[at, at - 1] += 1
    rates -= np.diag(rates.sum(axis=1))
    rates[:, 0] = 1.0  # shares add up to one, in place of one balance
    shares = np.linalg.solve(rates.T, np.eye(len(states))[0])
    inside = float(shares @ [one + other for one, other in states])
    return inside / (2 * load) - 1  # Little's law


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_a_random_share_of_many_waits_as_in_an_m_d_1_queue(load):
    """However bursty the whole is, a thousandth of it drawn at random is Poisson."""
    workload = arrivals_at_one(Demand(1.0, cv=3.0), 1000)
    outcome = workload.at(100 * load, ONE_BY_ONE, TEN_MS)
    expected = load / (1 - load) / 2 * 10  # Pollaczek-Khinchine
    assert waits_ms(outcome) == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize(("balancer", "expected"), [("random", 1.0), ("round-robin", 0.1)])
def test_gaps_at_one_of_a_hundred_vary_as_renewal_theory_says(balancer, expected):
    """Drawn at random cv^2 = 1 + (cv^2 - 1) / N, in turn cv^2 / N."""
    gaps = np.diff(arrivals_at_one(Demand(1.0, balancer=balancer), 100).arrivals)
    assert gaps.std() / gaps.mean() == pytest.approx(expected, rel=0.05)


def test_a_fleet_of_one_with_exponential_times_is_an_m_m_1_queue():
    count, load = 200_000, 0.7
    noise = np.random.default_rng(3).exponential(1.0, (1, count))
    outcome = simulate_fleet(ONE_BY_ONE, TEN_MS, poisson_ns(100 * load, count), 1, noise=noise)
    assert outcome.latency_ns.mean() / 1e6 == pytest.approx(10 / (1 - load), rel=0.04)


@pytest.mark.parametrize("members", [2, 4, 16])
def test_minding_the_outstanding_waits_more_than_one_queue_and_less_than_apart(members):
    """Joining the shortest queue lies between M/M/c, which never errs, and M/M/1 each."""
    count, load = 100_000, 0.7
    noise = np.random.default_rng(3).exponential(1.0, (members, count))
    arrivals = poisson_ns(100 * load * members, count)
    outcome = simulate_fleet(ONE_BY_ONE, TEN_MS, arrivals, members, noise=noise)
    apart = 10 * load / (1 - load)
    assert erlang_c_wait(members, load, 10.0) < waits_ms(outcome) < 0.6 * apart


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_two_behind_the_shortest_queue_wait_as_their_markov_chain_says(load):
    count = 400_000
    noise = np.random.default_rng(5).exponential(1.0, (2, count))
    outcome = simulate_fleet(ONE_BY_ONE, TEN_MS, poisson_ns(200 * load, count), 2, noise=noise)
    assert waits_ms(outcome) == pytest.approx(10 * shortest_queue_wait(load), rel=0.04)


def test_a_fleet_of_one_is_one_server_batches_and_all():
    arrivals = poisson_ns(200, 5000)
    alone = simulate(BATCHES, SLOPED, arrivals)
    fleet = simulate_fleet(BATCHES, SLOPED, arrivals, 1)
    assert np.array_equal(np.sort(alone.batch_rows), np.sort(fleet.batch_rows))
    assert fleet.latency_ns == pytest.approx(alone.latency_ns)


def test_every_request_of_a_fleet_is_answered_once_and_load_is_even():
    arrivals = poisson_ns(1500, 20_000)
    outcome = simulate_fleet(BATCHES, SLOPED, arrivals, 8)
    assert outcome.answered == 20_000
    assert outcome.batch_rows.sum() == 20_000


def test_batching_off_shares_too():
    off = Policy(threads=1, largest_batch=1, batching=False)
    outcome = simulate_fleet(off, TEN_MS, poisson_ns(200, 5000), 4)
    assert outcome.answered == 5000
    assert outcome.percentile_ms(0.5) < 20


def test_a_hopeless_fleet_is_given_up_early():
    outcome = simulate_fleet(
        ONE_BY_ONE, TEN_MS, poisson_ns(1000, 20_000), 4, give_up=GiveUp(50.0, 100)
    )
    assert outcome.answered < 10_000


def test_many_replicas_stand_for_by_a_few_with_their_share():
    few = arrivals_at_one(Demand(1.0, balancer="least-outstanding"), FLEET)
    many = arrivals_at_one(Demand(1.0, balancer="least-outstanding"), 400)
    waits = [waits_ms(each.at(80.0, ONE_BY_ONE, TEN_MS)) for each in (few, many)]
    assert waits[1] == pytest.approx(waits[0], rel=0.25)


def test_minding_the_outstanding_is_the_best_of_the_three():
    waits = {
        balancer: waits_ms(
            arrivals_at_one(Demand(1.0, balancer=balancer), 16).at(80.0, ONE_BY_ONE, TEN_MS)
        )
        for balancer in ("random", "round-robin", "least-outstanding")
    }
    assert waits["least-outstanding"] < waits["random"]
    assert waits["round-robin"] < waits["random"]
