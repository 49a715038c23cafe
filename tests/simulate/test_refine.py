"""A replica fitted to its own starts: what is known of the truth is found again."""

from dataclasses import replace

import numpy as np
import pytest

from tuner.simulate.curves import Curve, CurvePoint
from tuner.simulate.policy import UNBOUNDED, Policy
from tuner.simulate.refine import alike, refine, seen, slowed
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload

TRUTH = ServiceModel((1, 8, 16, 32, 64), (4.2, 12.0, 16.0, 24.0, 40.0), spread=0.1, delay_ms=0.4)
GUESS = replace(TRUTH, run_ms=tuple(value * 1.2 for value in TRUTH.run_ms), spread=0.2)
POLICY = Policy(threads=1, largest_batch=64)
SPEEDS = (0.93, 1.0, 1.08)
LOADS = (700.0, 1000.0, 1200.0)


def point(service, rate_rps, seed, policy=POLICY, count=4000, cv=1.0):
    outcome = Workload.drawn(count, cv=cv, seed=seed).at(rate_rps, policy, service)
    return CurvePoint(
        throughput_rps=outcome.throughput_rps,
        offered_rps=rate_rps,
        percentiles_ms=tuple((q, outcome.percentile_ms(q)) for q in (0.5, 0.95, 0.99)),
        independent=300.0,
        rows_per_batch=outcome.rows_per_batch,
        requests=count,
    )


def starts(loads=LOADS, cv=1.0):
    return [
        Curve(
            POLICY,
            tuple(
                point(slowed(TRUTH, speed), rate, 100 * at + number, cv=cv)
                for number, rate in enumerate(loads)
            ),
        )
        for at, speed in enumerate(SPEEDS)
    ]


@pytest.fixture(scope="module")
def refined():
    return refine(GUESS, starts())


def test_the_middle_start_and_each_start_s_speed_are_found(refined):
    assert refined.misfit < 1
    rows = np.array([8, 16, 24])
    assert refined.service.run_of(rows) == pytest.approx(TRUTH.run_of(rows), rel=0.06)
    ratio = refined.speeds[2] / refined.speeds[0]
    assert ratio == pytest.approx(SPEEDS[2] / SPEEDS[0], rel=0.05)


def test_a_load_between_those_that_were_fitted_is_predicted(refined):
    judges = [Workload.poisson(6000, seed=seed) for seed in (7, 8)]
    for start, speed in enumerate(SPEEDS):
        asked = point(slowed(TRUTH, speed), 1100.0, 50 + start)
        found = seen(POLICY, asked, refined.service_of(start), judges)
        assert found.percentile_ms(0.99) == pytest.approx(
            dict(asked.percentiles_ms)[0.99], rel=0.1
        )


def test_other_models_that_explain_as_much_lie_on_both_sides(refined):
    middle = refined.service.run_of(np.array([16]))[0]
    drawn = [float(service.run_of(np.array([16]))[0]) for service in refined.plausible]
    assert min(drawn) < middle < max(drawn)
    assert max(drawn) / min(drawn) < 1.5


def test_what_bursts_cost_is_not_laid_on_the_server():
    """Taken for that of Poisson arrivals, the latency of bursts makes the server look slower."""
    measured = starts((500.0, 700.0, 900.0), cv=2.0)
    judges = [Workload.drawn(6000, cv=2.0, seed=seed) for seed in (7, 8)]
    asked = point(TRUTH, 800.0, 50, cv=2.0)

    def p99_ms(service):
        return seen(POLICY, asked, service, judges).percentile_ms(0.99)

    told, untold = (refine(GUESS, measured, cv=cv, draws=0) for cv in (2.0, 1.0))
    assert p99_ms(told.service_of(1)) == pytest.approx(p99_ms(TRUTH), rel=0.15)
    assert p99_ms(untold.service_of(1)) > 1.15 * p99_ms(TRUTH)


def test_the_same_data_give_the_same_model(refined):
    assert refine(GUESS, starts()).service == refined.service


def test_what_was_not_measured_stays_where_the_others_put_it():
    kept = refine(GUESS, [Curve(POLICY, ())])
    assert kept.service.run_ms == pytest.approx(GUESS.run_ms)


def test_queue_bounds_alone_make_no_other_configuration():
    assert alike(replace(POLICY, most_queued=3)) == alike(POLICY)
    assert alike(replace(POLICY, most_queued=3)).most_queued == UNBOUNDED
    assert alike(replace(POLICY, threads=2)) != alike(POLICY)


def test_a_warm_up_is_simulated_and_not_counted():
    overload = replace(point(TRUTH, 1400.0, 1), requests=1000, before=0)
    warmed = replace(overload, before=3000)
    judge = [Workload.poisson(6000, seed=9)]
    cold, hot = (seen(POLICY, each, slowed(TRUTH, 1.2), judge) for each in (overload, warmed))
    assert hot.percentile_ms(0.5) > 1.5 * cold.percentile_ms(0.5)
