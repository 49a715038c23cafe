from dataclasses import replace

import pytest
from literal_runs import BEST, DEFAULT, gain_run, level, trial

from tuner.batching import BatchingParameters
from tuner.records import Config, HostEvidence, Overload, ServerEvidence
from tuner.report.curves import contender_curves
from tuner.report.limits import limits
from tuner.report.outlook import steps, weights
from tuner.report.overload import overload_remarks, overload_rows
from tuner.report.points import page_data
from tuner.report.trust import trust
from tuner.report.why import remarks, why
from tuner.search.foresee import Foreseen, Step, foresee
from tuner.search.importance import Importances, importances
from tuner.search.space import UNBOUNDED_QUEUE, Space
from tuner.simulate.policy import Policy
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo

SPACE = Space(
    {
        "max_batch_size": (4, 8, 16, 32),
        "batch_timeout_micros": (0, 2000),
        "num_batch_threads": (1, 2),
        "allowed_batch_sizes": ("any",),
    }
)


def config(size, timeout=0, threads=1):
    return Config(
        BatchingParameters(
            max_batch_size=size,
            batch_timeout_micros=timeout,
            max_enqueued_batches=UNBOUNDED_QUEUE,
            num_batch_threads=threads,
        )
    )


def rated(number, at, rate):
    return trial(number, "sampler", at, [level(rate, 30.0)], reference=0)


def grid(rate_of):
    points = [(s, t, n) for s in (4, 8, 16, 32) for t in (0, 2000) for n in (1, 2)]
    return [rated(i, config(*point), rate_of(*point)) for i, point in enumerate(points)]


def test_the_parameter_that_decides_weighs_most():
    found = importances(grid(lambda size, timeout, threads: 10.0 * size + threads), SPACE)
    assert found.configurations == 16
    assert found.parameters[0].name == "max_batch_size"
    assert found.parameters[0].share > 0.7
    assert sum(item.share for item in found.parameters) == pytest.approx(1)
    assert all(item.low <= item.share <= item.high for item in found.parameters)
    assert {item.name for item in found.parameters} == set(SPACE.choices) - {"allowed_batch_sizes"}


def test_a_handful_of_trials_weighs_nothing():
    few = importances(grid(lambda size, *_: float(size))[:9], SPACE)
    assert few == Importances(9)
    said = weights(replace(gain_run(), importance=few))
    assert said.parameters == ()
    assert "9 configurations" in said.caveat


def test_few_trials_are_called_a_hint():
    found = importances(grid(lambda size, *_: 10.0 * size), SPACE)
    assert "a hint" in weights(replace(gain_run(), importance=found)).caveat


SERVICE = ServiceModel((1, 2, 4, 8, 16, 32), (2.1, 2.2, 2.4, 2.8, 3.6, 5.2))
"""A batch takes 2 ms and 0.1 ms a row: larger ones carry more."""

SLO = Slo((("p99", 60.0),))


def simulated(number, at):
    """A trial as the model itself would measure it."""
    policy = Policy.of(at, cpus=1)
    workload = Workload.poisson(3000, seed=5)
    rate = sustainable_rps(policy, SERVICE, SLO, workload)
    levels = []
    for share in (0.5, 0.8, 1.0, 1.1):
        outcome = workload.at(share * rate, policy, SERVICE)
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        found = level(
            share * rate, 1.0, feasible=share <= 1,
            throughput=outcome.throughput_rps,
            percentiles={name: outcome.percentile_ms(part) for name, part in shares.items()},
            rows=outcome.rows_per_batch,
        )  # fmt: skip
        server = ServerEvidence(200, outcome.rows_per_batch, 0.0, None)
        levels.append(replace(found, measurement=replace(found.measurement, server=server)))
    return trial(number, "sampler", at, levels, reference=2), rate


def test_unmeasured_steps_are_predicted_with_their_sign():
    """Larger batches carry more here: half the size must cost, twice the size must gain."""
    pairs = [simulated(0, config(8)), simulated(1, config(8, 2000))]
    trials, rates = zip(*pairs, strict=True)
    found = foresee(trials, config(8), rates[0], space=SPACE, slo=SLO, cpus=1, rows=((1, 1.0),))
    assert found.trusted
    steps_by = {(step.name, step.theirs): step for step in found.steps}
    assert steps_by["max_batch_size", 4].percent < -20
    assert steps_by["max_batch_size", 16].percent > 20
    assert ("batch_timeout_micros", 2000) not in steps_by  # measured
    for step in found.steps:
        assert step.low <= step.percent <= step.high


def test_a_value_of_which_the_model_is_wrong_is_not_foretold():
    """What was measured with two threads carries much less than their batches let one expect."""
    pairs = [simulated(0, config(8)), simulated(1, config(8, 2000))]
    trials, rates = zip(*pairs, strict=True)
    poor = rated(2, config(16, 2000, threads=2), 0.5 * rates[0])
    asked = {"space": SPACE, "slo": SLO, "cpus": 1, "rows": ((1, 1.0),)}
    found = foresee([*trials, poor], config(8), rates[0], **asked)
    assert found.trusted
    steps_by = {(step.name, step.theirs): step for step in found.steps}
    doubted = steps_by["num_batch_threads", 2]
    assert doubted.off_percent > 20
    assert not doubted.trusted
    assert steps_by["max_batch_size", 4].trusted
    said = steps(replace(gain_run(), foreseen=replace(found, steps=(doubted,))))
    assert "num_batch_threads 2 instead of 1: not foretold, for the model lies +" in said.lines[0]


def test_a_model_that_is_far_off_predicts_nothing():
    measured, rate = simulated(0, config(8))
    found = foresee(
        [measured], config(8), 3 * rate, space=SPACE, slo=SLO, cpus=1, rows=((1, 1.0),)
    )
    assert not found.trusted
    assert found.steps == ()
    said = steps(replace(gain_run(), foreseen=found))
    assert said.lines == ()
    assert "too far to predict" in said.lead


def test_batching_off_has_no_steps():
    assert foresee(
        [], Config(None), 5.0, space=SPACE, slo=SLO, cpus=1, rows=((1, 1.0),)
    ) is None  # fmt: skip


def test_predictions_say_what_they_are():
    step = Step("max_batch_size", 32, 16, -12.0, -20.0, -4.0)
    none = Step("num_batch_threads", 1, 2, 0.2, -0.4, 0.6)
    wide = Step("batch_timeout_micros", 2000, 0, 3.0, -25.0, 44.0)
    said = steps(replace(gain_run(), foreseen=Foreseen(BEST, 4.0, 1.1, (step, none, wide))))
    assert said.lead.startswith("Not measured: predicted")
    assert "+4.0" in said.lead
    assert "max_batch_size 16 instead of 32 it would carry −12" in said.lines[0]  # noqa: RUF001
    assert said.lines[1].endswith("it would carry as much")
    assert "it may carry less or more: −25" in said.lines[2]  # noqa: RUF001


def over(finding, share=1.2, shed=0.14, recovery=0.4, goodput=520.0):
    return Overload(share, 600.0, goodput, shed, 0.01, 48.0, recovery, finding)


def test_overload_tests_are_told_with_their_queue():
    bounded = Config(replace(BEST.batching, max_enqueued_batches=7))
    test = trial(5, "overload", bounded, overload=(over("sheds"), over("stalls", 1.5, 0.0, None)))
    run = replace(gain_run(), trials=(*gain_run().trials, test))
    first, second = overload_rows(run)
    assert "a queue of 7 batches" in first.label
    assert first.load == "120 % of its sustainable rate"
    assert (first.shed, first.recovery) == ("14\u00a0%", "0.4 s")
    assert (second.finding, second.recovery) == ("stalls", "not seen")
    assert first.goodput == "520 (104\u00a0%)"  # of the 500/s that 600/s are 120 % of
    assert not first.deployed


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (over("carries"), ("carries", "good")),
        (over("sheds"), ("sheds", "good")),
        (over("slows"), ("slows", "neutral")),
        (over("sheds", goodput=300.0), ("sheds, many too late", "neutral")),
        (over("slows", goodput=200.0), ("collapses", "bad")),
        (over("sheds", goodput=0.0), ("collapses", "bad")),
        (over("collapses", goodput=0.0), ("collapses", "bad")),
        (over("stalls"), ("stalls", "bad")),
    ],
)
def test_shedding_without_answers_in_time_is_not_called_good(found, said):
    test = trial(5, "overload", BEST, overload=(found,))
    (row,) = overload_rows(replace(gain_run(), trials=(test,)))
    assert (row.finding, row.tone) == said


def test_what_became_of_the_queue_is_told():
    searched = rated(4, config(16), 300.0)

    def tried(number, bound, kept):
        at = Config(replace(searched.config.batching, max_enqueued_batches=bound))
        found = replace(over("sheds"), goodput_rps=kept * 500.0)
        return trial(number, "overload", at, overload=(found,))

    def told(*tests):
        run = gain_run()
        return list(overload_remarks(replace(run, trials=(*run.trials, searched, *tests))))

    first, second = tried(5, 7, 0.2), tried(6, 3, 0.9)
    assert told() == told(second) == []
    (said,) = told(first, second)
    assert said.startswith("Max 16, timeout 0 µs, 1 thread: a queue of 7 batches was too long")
    assert "is shortened to 3, with which enough is answered in time" in said
    (said,) = told(first)
    assert "with a queue of 7 batches less than 80 % of the sustainable rate is answered" in said


def curve_with(measurement_change, at=BEST, **trial_changes):
    run = gain_run()
    *rest, best = run.trials
    missed = best.levels[2]
    changed = replace(missed, measurement=replace(missed.measurement, **measurement_change))
    levels = (*best.levels[:2], changed, *best.levels[3:])
    run = replace(run, trials=(*rest, replace(best, levels=levels, **trial_changes)))
    return run, next(c for c in contender_curves(run) if c.look == "recommended")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"host": HostEvidence(1.97, 0.1, 0.0)}, "compute is the limit: the server uses 1.97 of"),
        ({"host": HostEvidence(0.5, 0.97, 0.0)}, "the limit may be the client's"),
        ({"errors": {"UNAVAILABLE": 40}}, "the queue (max_enqueued_batches, 10) is full"),
        ({"errors": {"DEADLINE_EXCEEDED": 40}}, "40 of 2,000 requests fail with DEADLINE_EXCEED"),
        ({"server": ServerEvidence(9, 24.0, 0.25, 4.0)}, "25\u00a0% of the rows that ran are pad"),
        ({"server": ServerEvidence(9, 4.0, 0.0, 1.5), "mean_ms": 8.0}, "the timeout takes 2 ms"),
        ({"host": HostEvidence(0.4, 0.1, 0.0)}, "nothing that was counted is full"),
    ],
)
def test_what_gives_way_first_is_named(change, said):
    run, curve = curve_with(change)
    assert said in " ".join(limits(replace(run, environment={"cpus": 2}), curve))


def test_a_server_that_was_as_busy_before_is_said_to_be():
    run, _ = curve_with(
        {"host": HostEvidence(1.97, 0.1, 0.0), "server": ServerEvidence(9, 40.0, 0.0, 4.0)}
    )
    *rest, best = run.trials
    least = best.levels[0]
    busy = replace(least, measurement=replace(least.measurement, host=HostEvidence(1.9, 0.1, 0.0)))
    best = replace(best, levels=(busy, *best.levels[1:]))
    run = replace(run, trials=(*rest, best), environment={"cpus": 2})
    curve = next(c for c in contender_curves(run) if c.look == "recommended")
    assert (
        "compute is the limit: the server uses 1.97 of its 2 cores, as it does at 210/s already; "
        "what grew with the load is the batches, from 9.0 to 40.0 rows"
    ) in " ".join(limits(run, curve))


def test_the_cap_on_grpc_threads_is_named():
    capped = replace(BEST, flags=(("grpc_max_threads", "8"),))
    run, curve = curve_with({"mean_ms": 13.0})
    curve = replace(curve, points=tuple(
        replace(point, trial=replace(point.trial, config=capped)) for point in curve.points
    ))  # fmt: skip
    assert "grpc_max_threads is the limit" in " ".join(limits(run, curve))


def test_batches_that_fragment_over_threads_are_called_so():
    one = Config(replace(BEST.batching, num_batch_threads=1))
    alone = trial(7, "sampler", one, [level(500, 40.0, rows=31.0)], reference=0)
    run = replace(gain_run(), trials=(*gain_run().trials, alone))
    found = next(item for item in why(run) if item.name == "recommended")
    assert any(
        "fragment over threads: at about 500/s a batch held 24.0 rows with 2 threads, and 31.0 "
        "with 1" in text for text in found.sentences
    )  # fmt: skip


def test_how_far_equal_starts_lie_apart_qualifies_every_step():
    again = trial(8, "reference", DEFAULT, [level(220, 45.0)], reference=0)
    run = replace(gain_run(), trials=(*gain_run().trials, again))
    assert any("up to 10\u00a0% apart" in text for text in remarks(run))


def test_the_noise_floor_comes_from_the_a_a_test():
    again = trial(8, "reference", DEFAULT, [level(220, 45.0)], reference=0)
    run = replace(gain_run(), trials=(*gain_run().trials, again))
    facts = {fact.name: fact for fact in trust(run).facts}
    assert facts["Noise floor"].value == "7.0\u00a0% (A/A test)"  # exp(ln(1.1) / sqrt 2) - 1
    assert "200, 220" in facts["Noise floor"].meaning


def test_without_a_repetition_the_noise_is_not_known():
    facts = {fact.name: fact.value for fact in trust(gain_run()).facts}
    assert facts["Noise floor"] == "not measured"


def test_the_smallest_gain_follows_from_the_finals_pairs():
    """Ratios 1.1, 1.2 and 1.3 by hand: logs 0.0953, 0.1823, 0.2624, sd 0.0836 / sqrt 3 = 0.0482;
    t(0.95, 2) + t(0.6, 2) = 4.303 + 1.061: exp(0.2587) - 1 = 30 %. At worst the scatter is
    sqrt(2 / 0.1026) = 4.415 times that: exp(1.1421) - 1 = 213 %."""
    found = smallest_gain([110.0, 120.0, 130.0])
    assert found == "about 30\u00a0%, at worst 213\u00a0%"
    assert smallest_gain([110.0, 130.0]) == "not known"


def smallest_gain(winner):
    final = [
        {"arm": "winner", "config_id": BEST.id, "rates_rps": winner},
        {"arm": "default", "config_id": DEFAULT.id, "rates_rps": [100.0] * len(winner)},
    ]
    run = gain_run()
    run = replace(run, recommendation={**run.recommendation, "final": final})
    facts = {fact.name: fact.value for fact in trust(run).facts}
    return facts["Smallest gain told from noise"]


def test_time_is_split_as_far_as_the_server_tells():
    run = gain_run()
    *rest, best = run.trials
    shown = best.levels[1]
    server = replace(shown.measurement.server, run_ms=6.0)
    told = replace(shown, measurement=replace(shown.measurement, server=server))
    levels = (best.levels[0], told, *best.levels[2:])
    run = replace(run, trials=(*rest, replace(best, levels=levels)))
    bars = {}
    for item in page_data(run)["waits"]:
        bars.setdefault(item["label"], []).append((item["part"], item["ms"]))
    told_bar = next(parts for label, parts in bars.items() if "recommended" in label)
    assert told_bar == [
        ("queueing", 4.5), ("running the model", 6.0), ("serving and network", 1.5)
    ]  # fmt: skip
    silent = next(parts for label, parts in bars.items() if "default" in label)
    assert [part for part, _ in silent] == ["queueing", "compute and the rest"]
