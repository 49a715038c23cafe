"""The short cut takes the same way: latencies equal those of the scheduler's full model."""

import itertools

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
@pytest.mark.parametrize("rate", [60.0, 500.0, 2500.0])
def test_latencies_and_batches_are_those_of_the_full_model(workload, rate):
    for policy in [*POLICIES, OFF]:
        full = workload.at(rate, policy, SERVICE)
        seen = brief(workload, rate, policy, SERVICE)
        np.testing.assert_allclose(seen.latency_ns, full.latency_ns, rtol=1e-9, atol=1.0)
        assert seen.throughput_rps == pytest.approx(full.throughput_rps, rel=1e-9)
        assert seen.rows_per_batch == pytest.approx(full.rows_per_batch)
        assert seen.percentiles_ms((0.5, 0.99)) == pytest.approx(
            [full.percentile_ms(0.5), full.percentile_ms(0.99)]
        )


def test_the_highest_rates_are_those_of_the_full_model():
    slo = Slo((("p99", 25.0),))
    found = [highest_rps(SINGLE, policy, SERVICE, slo, 0.01) for policy in POLICIES]
    expected = [sustainable_rps(policy, SERVICE, slo, SINGLE) for policy in POLICIES]
    np.testing.assert_allclose(found, expected, rtol=0.021)


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
