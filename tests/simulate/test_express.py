"""The short cut takes the same way: latencies equal those of the scheduler's full model."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tuner.simulate.express import brief, fits, highest_rps
from tuner.simulate.policy import Policy
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo

SERVICE = ServiceModel(
    sizes=(1, 8, 64),
    run_ms=(1.5, 2.5, 12.0),
    contention=0.6,
    cores=1.4,
    crowding=0.05,
    request_ms=0.02,
    front_ms=0.03,
    delay_ms=0.4,
    spread=0.15,
)
IN_TURN = replace(SERVICE, in_turn=True)
SINGLE = Workload.poisson(800, seed=1)
MIXED = Workload.poisson(800, seed=2, rows=((1, 1.0), (3, 1.0), (4, 0.5)))
POLICIES = [
    Policy(threads=threads, largest_batch=size, timeout_ns=timeout, allowed=allowed)
    for threads, size, timeout, allowed in itertools.product(
        (1, 2, 8), (4, 16, 64), (0, 700_000, 5_000_000), ((), (4, 16, 64))
    )
]
OFF = Policy(threads=1, largest_batch=1, batching=False)


@pytest.mark.parametrize("workload", [SINGLE, MIXED], ids=["single", "mixed"])
@pytest.mark.parametrize("service", [SERVICE, IN_TURN], ids=["sharing", "in turn"])
@pytest.mark.parametrize("rate", [60.0, 500.0, 2500.0])
def test_latencies_and_batches_are_those_of_the_full_model(workload, service, rate):
    for policy in [*POLICIES, OFF]:
        full = workload.at(rate, policy, service)
        seen = brief(workload, rate, policy, service)
        np.testing.assert_allclose(seen.latency_ns, full.latency_ns, rtol=1e-9, atol=1.0)
        assert seen.throughput_rps == pytest.approx(full.throughput_rps, rel=1e-9)
        assert seen.rows_per_batch == pytest.approx(full.rows_per_batch)
        assert seen.percentiles_ms((0.5, 0.99)) == pytest.approx(
            [full.percentile_ms(0.5), full.percentile_ms(0.99)]
        )


def test_requests_of_the_warm_up_are_not_counted():
    whole = brief(SINGLE, 500.0, POLICIES[0], SERVICE)
    counted = brief(SINGLE, 500.0, POLICIES[0], SERVICE, before=300)
    np.testing.assert_array_equal(counted.latency_ns, whole.latency_ns[300:])
    assert counted.throughput_rps == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize("service", [SERVICE, IN_TURN], ids=["sharing", "in turn"])
def test_the_highest_rates_are_those_of_the_full_model(service):
    slo = Slo((("p99", 25.0),))
    found = [highest_rps(SINGLE, policy, service, slo, 0.01) for policy in POLICIES]
    expected = [sustainable_rps(policy, service, slo, SINGLE) for policy in POLICIES]
    np.testing.assert_allclose(found, expected, rtol=0.021)


@pytest.mark.parametrize("wrong", [0.01, 0.7, 0.99, 1.03, 2.0, 100.0])
def test_a_guess_leads_to_a_rate_that_keeps_the_slo_as_well(wrong):
    slo = Slo((("p99", 25.0),))
    ratios = []
    for policy in POLICIES:
        found = highest_rps(SINGLE, policy, SERVICE, slo, 0.01)
        guessed = highest_rps(SINGLE, policy, SERVICE, slo, 0.01, guess_rps=wrong * found)
        assert brief(SINGLE, guessed, policy, SERVICE).percentiles_ms((0.99,))[0] <= 25
        ratios.append(guessed / found)
    # One more request can change which batches form, so p99 is not monotone near saturation.
    assert np.median(ratios) == pytest.approx(1, abs=0.02)
    assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("rate", [60.0, 2500.0])
def test_what_lies_outside_the_extent_changes_no_latency(rate):
    for policy in [*POLICIES, OFF]:
        seen = brief(SINGLE, rate, policy, SERVICE)
        fewest, most, beside = seen.extent
        sizes = np.array([1, 2, 4, 8, 16, 32, 64])
        times = SERVICE.run_of(sizes)
        times[(sizes < fewest) | (sizes > most)] *= 3
        unused = replace(SERVICE, sizes=tuple(sizes), run_ms=tuple(times))
        if beside == 1:
            unused = replace(unused, contention=0.9, cores=1.0, crowding=0.3)
        # Between two sizes a time is drawn straight, so that the ends must be sizes as well.
        ends = tuple(int(size) for size in sorted({*sizes, fewest, most}))
        known = {int(size): time for size, time in zip(sizes, times, strict=True)}
        within = SERVICE.run_of(np.array(ends))
        run_ms = tuple(
            float(time if fewest <= size <= most else known[size])
            for size, time in zip(ends, within, strict=True)
        )
        again = brief(SINGLE, rate, policy, replace(unused, sizes=ends, run_ms=run_ms))
        np.testing.assert_allclose(again.latency_ns, seen.latency_ns, rtol=1e-9, atol=1.0)


def test_a_limit_below_the_service_time_is_met_at_no_rate():
    slo = Slo((("p99", 1.0),))
    assert highest_rps(SINGLE, POLICIES[0], SERVICE, slo, 0.01) == 0


@pytest.mark.parametrize(
    "policy",
    [
        Policy(threads=1, largest_batch=8, splitting=True),
        Policy(threads=1, largest_batch=8, most_queued=10),
        Policy(threads=1, largest_batch=8, in_flight=100),
        Policy(threads=1, largest_batch=2),
    ],
    ids=["splitting", "bounded", "capped", "too large a request"],
)
def test_what_it_cannot_follow_is_left_to_the_full_model(policy):
    assert not fits(policy, MIXED)
