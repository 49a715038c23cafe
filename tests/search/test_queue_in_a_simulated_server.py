"""The bound of the queue against the simulated batch scheduler, from first test to last."""

from dataclasses import replace

import numpy as np
import pytest
from trials import batched, level, trial

from tuner.clock import NS_PER_S
from tuner.load.arrivals import poisson
from tuner.measure.overload import judge_overload
from tuner.records import OK, Samples, Status
from tuner.search.queue_bound import CARRIED, best, deployable, next_bound, passes, queue_of
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import simulate
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo

SLO = Slo((("p99", 60.0),), max_error_rate=0.001)
SIZES = (1, 8, 16, 32, 64)
DENSE = ServiceModel(SIZES, tuple(5 + 0.6 * size for size in SIZES), spread=0.1)
"""About the quickstart's network on one core."""


def offered(config, rate_rps, seconds, seed=1):
    arrivals_ns = poisson(rate_rps, seconds, seed)
    return arrivals_ns, simulate(Policy.of(config, cpus=1), DENSE, arrivals_ns, seed=seed)


def overload_test(number, config, rate_rps, shares, seconds=4.0):
    """Each share of the rate for a while, and nothing after it."""
    found = []
    for share in shares:
        intended, outcome = offered(config, share * rate_rps, seconds)
        refused = ~np.isfinite(outcome.latency_ns)
        done = intended + np.where(refused, 0, outcome.latency_ns).astype(np.int64)
        samples = Samples(
            intended_ns=intended,
            sent_ns=intended,
            done_ns=done,
            status=refused.astype(np.uint16),
            rows=np.ones(len(intended), np.int32),
            statuses=(Status(OK), Status("UNAVAILABLE", "the queue is full")),
            started_ns=0,
            ended_ns=round(seconds * NS_PER_S),
            cpu_s=0.0,
        )
        end_ns = round(seconds * NS_PER_S)
        found.append(judge_overload(samples, share=share, end_ns=end_ns, slo=SLO))
    return replace(trial(number, "overload", config, None), overload=tuple(found))


@pytest.mark.parametrize("size", [8, 16, 32])
def test_a_queue_that_drains_in_time_sheds_where_a_longer_one_answers_too_late(size):
    config = batched(size)
    rate_rps = sustainable_rps(
        Policy.of(config, cpus=1), DENSE, SLO, Workload.poisson(20_000, seed=1)
    )
    _, outcome = offered(config, rate_rps, 5.0)
    peak_rps = 1000 * size / float(DENSE.run_of(np.array([size]))[0])
    held = level(rate_rps)
    held = replace(
        held,
        measurement=replace(
            held.measurement, rows_rps=peak_rps, max_ms=float(outcome.latency_ns.max()) / 1e6
        ),
    )
    searched = replace(trial(0, "sampler", config, rate_rps), levels=(held,))
    untried = deployable(searched, SLO)
    long = overload_test(1, untried, rate_rps, (1.2, 1.5))
    assert {found.finding for found in long.overload} <= {"collapses", "stalls"}
    assert all(found.shed_share > 0 for found in long.overload), "it turns away, and yet"
    records = [searched]
    while (tried := next_bound(searched, SLO, records)) is not None:
        records.append(overload_test(len(records), tried, rate_rps, (CARRIED, 1.2, 1.5)))
    *_, last = records
    assert len(records) <= 1 + (2 if size == 8 else 1), (
        "one start is enough where batches are long"
    )
    assert best(records[1:], SLO) is last
    assert passes(last, SLO)
    assert 1 <= queue_of(last.config) < queue_of(untried)
    assert all(found.kept_share > 0.9 for found in last.overload if found.share > 1)
