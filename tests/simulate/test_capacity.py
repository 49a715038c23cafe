"""Capacity, held against queueing theory where it has formulas."""

from dataclasses import replace

import numpy as np
import pytest

from tuner.simulate.capacity import (
    Demand,
    Replica,
    arrivals_at_one,
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


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_a_random_share_of_many_waits_as_in_an_m_d_1_queue(load):
    """However bursty the whole is, a thousandth of it drawn at random is Poisson."""
    workload = arrivals_at_one(Demand(1.0, cv=3.0), 1000)
    outcome = workload.at(100 * load, ONE_BY_ONE, TEN_MS)
    waits_ms = outcome.latency_ns.mean() / 1e6 - 10
    assert waits_ms == pytest.approx(load / (1 - load) / 2 * 10, rel=0.12)  # Pollaczek-Khinchine


@pytest.mark.parametrize(("balancer", "expected"), [("random", 1.0), ("round-robin", 0.1)])
def test_gaps_at_one_of_a_hundred_vary_as_renewal_theory_says(balancer, expected):
    """Drawn at random cv^2 = 1 + (cv^2 - 1) / N, in turn cv^2 / N."""
    gaps = np.diff(arrivals_at_one(Demand(1.0, balancer=balancer), 100).arrivals)
    assert gaps.std() / gaps.mean() == pytest.approx(expected, rel=0.05)


def test_more_load_takes_replicas_in_proportion_up_to_a_million_a_second():
    few = replicas_for(SERVER, Demand(1_000))
    many = replicas_for(SERVER, Demand(1_000_000))
    assert many == pytest.approx(1000 * few, rel=0.1)
    assert few > 1_000 / 100  # one carries less than its hundred a second within the SLO


def test_the_number_found_holds_and_one_fewer_does_not():
    demand = Demand(2_000)
    number = replicas_for(SERVER, demand)
    assert load_on(SERVER, demand, number).holds
    assert not load_on(SERVER, demand, number - 2).holds


def test_taking_turns_carries_more_than_drawing_at_random():
    random = carried_rps(SERVER, Demand(1.0), 50)
    turns = carried_rps(SERVER, Demand(1.0, balancer="round-robin"), 50)
    assert turns > 1.1 * random


def test_bursts_cost_replicas_where_there_are_few():
    calm, bursty = (carried_rps(SERVER, Demand(1.0, cv=cv), 1) for cv in (1.0, 2.0))
    assert bursty < 0.9 * calm


def test_a_bounded_queue_sheds_what_does_not_fit_and_takes_more_replicas():
    bounded = Replica(
        Policy(threads=1, largest_batch=1, most_queued=1), TEN_MS, Slo((("p99", 60.0),))
    )
    number = replicas_for(bounded, Demand(1_000))
    load = load_on(bounded, Demand(1_000), number)
    assert load.shed_share <= 0.001
    assert load_on(bounded, Demand(1_000), 8).shed_share > 0.1


def test_a_promise_that_no_load_keeps_has_no_number():
    hopeless = Replica(ONE_BY_ONE, TEN_MS, Slo((("p99", 5.0),)))
    assert replicas_for(hopeless, Demand(100)) is None


def test_other_models_give_an_interval_and_the_same_seed_the_same_one():
    models = [replace(SERVER, service=ServiceModel((1,), (ms,))) for ms in (10.0, 9.0, 11.0)]
    low, high = replicas_between(models, Demand(1_000))
    assert low < replicas_for(SERVER, Demand(1_000)) < high
    assert replicas_between(models, Demand(1_000)) == (low, high)


def test_what_was_measured_caps_what_is_simulated():
    full = carried_rps(SERVER, Demand(1.0), 10)
    assert carried_rps(replace(SERVER, trust=0.8), Demand(1.0), 10) == pytest.approx(0.8 * full)
