"""Fitting: models whose truth is known are found again, on configurations that were held out."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuner.simulate.calibrate import fit
from tuner.simulate.curves import Curve, CurvePoint, curves_of
from tuner.simulate.loads import predicted
from tuner.simulate.policy import INTER_OP, Policy, most_cores
from tuner.simulate.service import ServiceModel
from tuner.simulate.shape import Shape
from tuner.simulate.sustain import Workload, capacity_rps, sustainable_rps
from tuner.slo import Slo
from tuner.store import RunDirectory

P99_60 = Slo((("p99", 60.0),))
EXAMPLE = Path(__file__).parents[2] / "results" / "example"

CPU = ServiceModel(
    sizes=(1, 2, 8, 16, 32, 64),
    run_ms=(6.4, 8.9, 9.9, 13.6, 18.1, 28.6),  # seen on a running server
    contention=1.0,
    delay_ms=0.5,
    spread=0.1,
)
TURNS = replace(CPU, in_turn=True)
GPU = ServiceModel(
    sizes=(1, 8, 32, 128),
    run_ms=(4.0, 4.2, 5.5, 14.0),
    contention=0.45,
    delay_ms=1.0,
    spread=0.08,
)


def batching(size, timeout_ms, threads):
    return Policy(threads=threads, largest_batch=size, timeout_ns=int(timeout_ms * 1e6))


def measured(policy, truth, seed, *, shares=(0.3, 0.6, 0.8, 1.3)):
    """A curve as a server of that truth would have shown it, at shares of its capacity."""
    points = []
    for at, share in enumerate(shares):
        workload = Workload.poisson(1500, seed=1000 * seed + at + 1)
        rate = share * capacity_rps(policy, truth)
        outcome = workload.at(rate, policy, truth)
        points.append(
            CurvePoint(
                throughput_rps=outcome.throughput_rps,
                offered_rps=rate,
                percentiles_ms=tuple((q, outcome.percentile_ms(q)) for q in (0.5, 0.99)),
            )
        )
    return Curve(policy, tuple(points))


TRAINED = [
    Policy(threads=1, largest_batch=1, batching=False),
    batching(1000, 0, 2),
    batching(32, 0, 1),
    batching(128, 0, 2),
    batching(32, 2, 1),
]
HELD_OUT = [batching(16, 2, 1), batching(64, 5, 1), batching(16, 0, 2), batching(64, 1, 3)]


@pytest.mark.parametrize("truth", [CPU, TURNS, GPU], ids=["cpu", "turns", "gpu"])
def test_five_configurations_predict_others(truth):
    curves = [measured(p, truth, seed) for seed, p in enumerate(TRAINED)]
    found = fit(curves, largest_batch=128, in_turn=truth.in_turn)
    assert found.misfit < 1.5
    judge = Workload.poisson(4000, seed=99)
    rates, tails = [], []
    for policy in HELD_OUT:
        rate = 0.8 * sustainable_rps(policy, truth, P99_60, judge)
        expected, seen = (judge.at(rate, policy, model) for model in (truth, found.service))
        tails.append(np.log(seen.percentile_ms(0.99) / expected.percentile_ms(0.99)))
        rates.append(
            np.log(
                sustainable_rps(policy, found.service, P99_60, judge)
                / sustainable_rps(policy, truth, P99_60, judge)
            )
        )
    # Run times between the sizes that were measured are known to about 15 % only.
    assert np.mean(np.abs(rates)) < 0.20
    assert np.median(np.abs(tails)) < 0.25


def test_a_server_whose_own_flags_say_takes_turns_or_not():
    """Where the flag is searched, each curve is explained by what its own server did."""
    one, many = ((INTER_OP, "1"),), ((INTER_OP, "2"),)
    assert Shape((1, 8)).turns(one)
    assert not Shape((1, 8), in_turn=True).turns(many)
    assert Shape((1, 8), in_turn=True).turns(())
    tried = [TRAINED[0], batching(16, 0, 4), batching(32, 2, 3), batching(128, 0, 4)]
    curves = [
        replace(measured(p, truth, seed), traits=traits)
        for truth, traits in ((TURNS, one), (CPU, many))
        for seed, p in enumerate(tried)
    ]
    apart = fit(curves, largest_batch=128)
    alike = fit([replace(curve, traits=()) for curve in curves], largest_batch=128)
    assert apart.misfit < 0.9 * alike.misfit


def test_batches_share_no_more_processors_than_there_are():
    """One batch thread tells nothing of two: that they have one processor does."""
    trained = [TRAINED[0], batching(1000, 0, 1), batching(32, 0, 1), batching(64, 2, 1)]
    curves = [measured(p, TURNS, seed) for seed, p in enumerate(trained)]
    judge = Workload.poisson(4000, seed=99)
    two = batching(64, 0, 2)
    truth = sustainable_rps(two, TURNS, P99_60, judge)
    off = []
    for most in (1.0, math.inf):
        found = fit(curves, largest_batch=128, in_turn=True, most_cores=most)
        assert found.service.cores <= most
        off.append(abs(math.log(sustainable_rps(two, found.service, P99_60, judge) / truth)))
    assert off[0] < 0.1
    assert off[0] <= off[1]


def test_what_a_gpu_can_run_at_once_is_not_known():
    assert (most_cores("cpu", 4), most_cores("gpu", 4)) == (4, math.inf)


CLIFF = ServiceModel(
    sizes=(1, 64, 65, 256), run_ms=(3.0, 9.0, 16.0, 40.0), contention=0.9, delay_ms=0.5, spread=0.1
)
"""A kernel that changes above 64 rows: one row more takes 1.8 times as long."""


def test_a_jump_at_one_size_is_found_where_it_is():
    tried = [batching(size, timeout, 1) for size, timeout in ((32, 2), (64, 0), (128, 5))]
    curves = [measured(p, CLIFF, seed) for seed, p in enumerate([*TRAINED, *tried])]
    found = fit(curves, largest_batch=128)
    at = {size: float(found.service.run_of(np.array([size]))[0]) for size in (32, 64, 65, 128)}
    assert at[65] / at[64] == pytest.approx(16.0 / 9.0, rel=0.2)
    assert at[64] == pytest.approx(9.0, rel=0.15)
    assert found.misfit < 1.5


def test_two_free_cores_are_found_from_one_thread_and_eight():
    """What lies between is what a search asks next, so it must not be mistaken."""
    truth = replace(CPU, sizes=(1, 64), run_ms=(10.0, 560.0), cores=1.9)
    tried = [TRAINED[0], *(batching(*p) for p in ((1000, 0, 8), (32, 0, 1), (256, 0, 8)))]
    curves = [measured(p, truth, seed) for seed, p in enumerate([*tried, batching(32, 2, 1)])]
    slowness = fit(curves, largest_batch=256).service.slowness(4)
    assert slowness[2] == pytest.approx(1.05, abs=0.15)
    assert slowness[4] == pytest.approx(2.1, rel=0.2)


def test_without_a_jump_none_is_seen():
    smooth = replace(CLIFF, sizes=(1, 256), run_ms=(3.0, 27.0))
    tried = [batching(size, timeout, 1) for size, timeout in ((32, 2), (64, 0), (128, 5))]
    curves = [measured(p, smooth, seed) for seed, p in enumerate([*TRAINED, *tried])]
    run = fit(curves, largest_batch=128).service.run_of(np.array([64, 65]))
    assert run[1] / run[0] < 1.1


def test_derivatives_that_are_not_taken_are_nothing(monkeypatch):
    """A load says nothing of sizes that its batches never reach, nor of cores it never shares."""
    curves = [measured(p, CPU, seed) for seed, p in enumerate(TRAINED)]
    taken = fit(curves, largest_batch=128)
    monkeypatch.setattr(Shape, "touches", lambda *_: True)
    every = fit(curves, largest_batch=128)
    assert taken.parameters == every.parameters


def test_plausible_models_spread_where_nothing_was_measured():
    small = [batching(4, 0, 1), batching(4, 2, 1)]
    found = fit([measured(p, CPU, seed) for seed, p in enumerate(small)], largest_batch=128)
    at = {size: i for i, size in enumerate(found.service.sizes)}
    spread = {
        size: np.std([np.log(model.run_ms[at[size]]) for model in found.plausible])
        for size in (4, 128)
    }
    assert spread[128] > 2 * spread[4]


def test_a_second_fit_starts_from_the_first():
    curves = [measured(p, CPU, seed) for seed, p in enumerate(TRAINED)]
    first = fit(curves, largest_batch=128)
    second = fit(curves, largest_batch=128, start=first)
    assert second.misfit <= first.misfit * 1.1


def test_nothing_measured_gives_no_model():
    assert fit([], largest_batch=32) is None


def test_the_example_run_explains_itself():
    """Trained on all trials of the search but one, for each of the batched ones in turn."""
    records = [record for record in RunDirectory(EXAMPLE).trials() if record.block is None]
    curves = curves_of(records, cpus=1)
    assert len(curves) == len(records)
    workload = Workload.poisson(2000, seed=5)
    errors = []
    for held_out in curves[3:]:
        found = fit([c for c in curves if c is not held_out], largest_batch=64)
        for point in held_out.points:
            outcome = predicted(held_out.policy, point, found.service, workload)
            errors.append(abs(np.log(outcome.throughput_rps / point.throughput_rps)))
    assert np.median(errors) < 0.10


@pytest.mark.parametrize("policy", [*TRAINED, *HELD_OUT])
def test_the_sustainable_rate_is_where_the_slo_ceases_to_hold(policy):
    workload = Workload.poisson(3000, seed=2)
    rate = sustainable_rps(policy, CPU, P99_60, workload)
    assert workload.at(rate, policy, CPU).percentile_ms(0.99) <= 60
    assert workload.at(rate * 1.12, policy, CPU).percentile_ms(0.99) > 60
    # One more request can change which batches form, so p99 is not quite monotone in the rate.
    for wrong in (0.4, 0.98, 3.0):
        guessed = sustainable_rps(policy, CPU, P99_60, workload, guess_rps=rate * wrong)
        assert guessed == pytest.approx(rate, rel=0.10)


def test_a_limit_below_the_service_time_is_met_at_no_rate():
    policy = batching(32, 0, 1)
    assert sustainable_rps(policy, CPU, Slo((("p99", 6.0),)), Workload.poisson(2000)) == 0.0


def test_the_capacity_is_full_batches_on_all_threads():
    assert capacity_rps(batching(32, 0, 1), CPU) == pytest.approx(32 / 18.1e-3)
    # Contention 1: threads take turns, and a second one adds nothing.
    assert capacity_rps(batching(32, 0, 2), CPU) == pytest.approx(32 / 18.1e-3)
    assert capacity_rps(Policy(1, 1, batching=False), CPU) == pytest.approx(1 / 6.4e-3)


def test_what_a_flag_does_to_every_batch_is_learnt_and_doubtful_where_it_was_not_tried():
    traits = (("wide", "1"), ("wide", "2"), ("wide", "4"))
    slow = {"1": 1.0, "2": 0.6}
    curves = []
    for seed, (policy, value) in enumerate(itertools.product(TRAINED[1:], "12")):
        times = tuple(slow[value] * time for time in CPU.run_ms)
        curve = measured(policy, replace(CPU, run_ms=times), seed)
        curves.append(replace(curve, traits=(("wide", value),)))
    found = fit(curves, largest_batch=128, traits=traits)

    def log_rate(number, value):
        service = found.member(number, (("wide", value),))
        return np.log(sustainable_rps(HELD_OUT[0], service, P99_60, Workload.poisson(2000)))

    expected = [
        np.log(sustainable_rps(HELD_OUT[0], truth, P99_60, Workload.poisson(2000)))
        for truth in (CPU, replace(CPU, run_ms=tuple(0.6 * time for time in CPU.run_ms)))
    ]
    assert log_rate(0, "1") == pytest.approx(expected[0], abs=0.15)
    assert log_rate(0, "2") == pytest.approx(expected[1], abs=0.15)
    spread = {
        value: np.std([log_rate(number, value) for number in range(1, 1 + len(found.drawn))])
        for value in ("1", "4")
    }
    assert spread["4"] > 2 * spread["1"]


def test_a_flag_that_spreads_an_operator_over_all_cores_is_told_from_one_that_does_little():
    """Seen beside three others only, a batch that is fast alone looks like one that is not."""
    narrow = replace(CPU, cores=2.7)
    wide = replace(CPU, run_ms=tuple(0.45 * time for time in CPU.run_ms))  # they take turns
    traits = (("wide", "1"), ("wide", "4"))
    tried = [(TRAINED[0], "1", narrow), (batching(1000, 0, 4), "1", narrow)]
    tried += [(batching(*p), "1", narrow) for p in ((32, 0, 1), (256, 0, 4), (32, 2, 1))]
    tried += [(batching(128, 10, 4), "1", narrow)]
    tried += [(batching(16, timeout, 4), "4", wide) for timeout in (0, 20)]
    curves = [
        replace(measured(policy, truth, seed), traits=(("wide", value),))
        for seed, (policy, value, truth) in enumerate(tried)
    ]
    found = fit(curves[:5], largest_batch=128, traits=traits)
    for count in range(6, len(curves) + 1):  # as a search does, one after the other
        found = fit(curves[:count], largest_batch=128, traits=traits, start=found)
    alone = found.member(0, (("wide", "4"),))
    judge = Workload.poisson(4000, seed=99)
    for policy in (batching(32, 0, 1), batching(64, 5, 1)):
        expected = sustainable_rps(policy, wide, P99_60, judge)
        assert sustainable_rps(policy, alone, P99_60, judge) == pytest.approx(expected, rel=0.25)
    assert alone.slowness(4)[4] > 3
