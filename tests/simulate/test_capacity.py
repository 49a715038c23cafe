"""Capacity, held against queueing theory where it has formulas."""

import math
from dataclasses import replace

import pytest

from tuner.simulate.balancer import Demand, arrivals_at_one
from tuner.simulate.capacity import (
    Replica,
    carried_rps,
    load_on,
    replicas_between,
    replicas_for,
)
from tuner.simulate.policy import Policy
from tuner.simulate.service import ServiceModel
from tuner.slo import Slo

ONE_BY_ONE = Policy(threads=1, largest_batch=1)
TEN_MS = ServiceModel((1,), (10.0,))
SERVER = Replica(ONE_BY_ONE, TEN_MS, Slo((("p99", 60.0),)))


def test_more_load_takes_replicas_in_proportion_up_to_a_million_a_second():
    few = replicas_for(SERVER, Demand(1_000))
    many = replicas_for(SERVER, Demand(1_000_000))
    assert many == pytest.approx(1000 * few, rel=0.1)
    assert few > 1_000 / 100  # one carries less than its hundred a second within the SLO


def test_the_number_found_holds_and_two_fewer_do_not():
    demand = Demand(2_000)
    number = replicas_for(SERVER, demand)
    assert load_on(SERVER, demand, number).holds
    assert not load_on(SERVER, demand, number - 2).holds


def test_more_replicas_are_never_asked_for_less_load():
    numbers = [replicas_for(SERVER, Demand(rate, cv=2.0)) for rate in range(20, 4000, 130)]
    assert numbers == sorted(numbers)


def test_taking_turns_carries_more_than_drawing_at_random():
    random = carried_rps(SERVER, Demand(1.0), 50)
    turns = carried_rps(SERVER, Demand(1.0, balancer="round-robin"), 50)
    assert turns > 1.1 * random


def test_bursts_cost_replicas_where_there_are_few():
    calm, bursty = (carried_rps(SERVER, Demand(1.0, cv=cv), 1) for cv in (1.0, 2.0))
    assert bursty < 0.9 * calm


def test_a_bounded_queue_sheds_what_does_not_fit_and_takes_more_replicas():
    bounded = replace(SERVER, policy=Policy(threads=1, largest_batch=1, most_queued=1))
    number = replicas_for(bounded, Demand(1_000))
    load = load_on(bounded, Demand(1_000), number)
    assert load.holds
    assert load.shed_share <= 0.001
    # One is served and one waits: M/D/1/2 turns away 1 - 1 / (a + exp(-a)), by its chain.
    meets = load_on(bounded, Demand(1_000), 20)
    assert meets.shed_share == pytest.approx(1 - 1 / (0.5 + math.exp(-0.5)), rel=0.07)


def test_a_promise_that_no_load_keeps_has_no_number():
    hopeless = replace(SERVER, slo=Slo((("p99", 5.0),)))
    assert replicas_for(hopeless, Demand(100)) is None


def test_other_models_give_an_interval_and_the_same_seed_the_same_one():
    models = [replace(SERVER, service=ServiceModel((1,), (ms,))) for ms in (9.0, 10.0, 11.0)]
    needed = replicas_for(SERVER, Demand(1_000))
    low, high = replicas_between(models, Demand(1_000), needed)
    assert low < needed < high
    assert replicas_between(models, Demand(1_000), needed) == (low, high)


@pytest.mark.parametrize("balancer", ["random", "round-robin", "least-outstanding"])
def test_no_balancer_makes_a_replica_carry_more_than_was_proven(balancer):
    proven = replace(SERVER, proven_rps=40.0)
    assert carried_rps(proven, Demand(1.0, balancer=balancer), 30) == 40.0


def test_requests_of_many_rows_count_by_their_mean():
    policy, service = Policy(threads=1, largest_batch=8), ServiceModel((1, 8), (10.0, 80.0))
    single = Replica(policy, service, SERVER.slo)
    mixed = replace(single, rows=((1, 0.5), (3, 0.5)))
    utilised = [load_on(replica, Demand(200), 10).utilisation for replica in (single, mixed)]
    assert utilised[1] == pytest.approx(2 * utilised[0])


def test_the_share_of_one_is_the_same_for_the_same_seed():
    first, again = (arrivals_at_one(Demand(1.0, cv=2.0), 7, seed=3) for _ in range(2))
    assert (first.arrivals == again.arrivals).all()
