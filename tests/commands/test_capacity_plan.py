"""Plans from the committed example run."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tuner.cli import main
from tuner.commands.plan import Ask, plan
from tuner.commands.plan_replica import ground, model_of_others, starts_of
from tuner.errors import UsageError
from tuner.simulate.capacity import load_on, replicas_for
from tuner.simulate.curves import curve_of
from tuner.simulate.refine import refine, seen
from tuner.simulate.sustain import Workload
from tuner.simulate.trace import Interval, Trace
from tuner.store import RunDirectory, read_json

EXAMPLE = Path(__file__).parents[2] / "results" / "example"
RUN = RunDirectory(EXAMPLE)
DAY = Trace(tuple(Interval(900.0 * at, 900.0, 1000.0 * rate) for at, rate in enumerate((2, 9, 5))))


def run_plan(*arguments):
    return CliRunner().invoke(main, ["plan", str(EXAMPLE), *arguments])


@pytest.fixture(scope="module")
def planned():
    return plan(RUN, Ask(20_000, spare=2, cost_per_hour=0.5, cv=1.0))


@pytest.fixture(scope="module")
def traced():
    return plan(RUN, Ask(trace=DAY))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_loads_left_out_are_predicted_from_the_others():
    """Every load that tells its p99 from a hundred independent requests or more, one at a time."""
    base = ground(RUN, {})
    curves = [curve_of(trial, cpus=base.cpus) for trial in starts_of(RUN, base.config)]
    judges = [Workload.poisson(6000, seed=seed) for seed in (50, 51, 52)]
    off = []
    for start, curve in enumerate(curves):
        for point in curve.points:
            if not point.offered_rps or point.independent < 100:
                continue
            points = tuple(other for other in curve.points if other != point)
            kept = [*curves[:start], replace(curve, points=points), *curves[start + 1 :]]
            fitted = refine(model_of_others(RUN, base.config), kept, draws=0)
            found = seen(curve.policy, point, fitted.service_of(start), judges)
            off.append(abs(found.percentile_ms(0.99) / dict(point.percentiles_ms)[0.99] - 1))
    assert len(off) >= 6
    assert sorted(off)[len(off) // 2] < 0.15
    assert sum(each <= 0.2 for each in off) >= 0.7 * len(off)


@pytest.mark.slow
def test_a_plan_agrees_with_what_one_replica_was_measured_to_carry(planned):
    one = planned["one_replica"]
    assert one["simulated_rps"] == pytest.approx(one["measured_rps"], rel=0.1)
    low, high = planned["needed_between"]
    assert low <= planned["needed"] <= high
    assert low < high
    assert planned["needed"] == pytest.approx(20_000 / one["measured_rps"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["random", "round-robin", "least-outstanding"])
def test_no_plan_counts_on_more_than_a_replica_was_proven_to_carry(balancer):
    base = ground(RUN, {})
    for rate in (900.0, 20_000.0, 1_000_000.0):
        demand = Ask(rate, balancer=balancer).demand()
        load = load_on(base.replica, demand, replicas_for(base.replica, demand))
        assert load.rate_rps <= base.measured_rps
        assert load.holds
    found = plan(RUN, Ask(rate, balancer=balancer))  # whose tables span few numbers of replicas
    assert found["at_peak"]["rate_rps"] == load.rate_rps
    assert found["at_peak"]["holds"]
    assert found["one_replica"]["measured_rps"] == base.measured_rps


@pytest.mark.slow
def test_programs_find_every_key_whatever_was_asked(planned, traced):
    assert set(planned) == set(traced)
    assert set(planned) >= {
        "schema_version",
        "slo",
        "parameters",
        "flags",
        "planned_rps",
        "replicas",
        "needed",
        "needed_between",
        "one_replica",
        "at_peak",
        "one_lost",
        "cost_per_hour",
        "promises",
        "trace",
        "notes",
    }
    assert planned["trace"] is None
    assert traced["cost_per_hour"] is None
    json.dumps(planned, allow_nan=False)


@pytest.mark.slow
def test_spare_replicas_and_cost_are_counted(planned):
    assert planned["replicas"] == planned["needed"] + 2
    assert planned["cost_per_hour"] == planned["replicas"] * 0.5
    assert planned["at_peak"]["holds"]
    assert planned["one_lost"]["holds"]
    assert planned["one_lost"]["rate_rps"] > planned["at_peak"]["rate_rps"]


@pytest.mark.slow
def test_the_table_grows_with_the_rate_and_the_notes_name_the_server(planned):
    [promise] = planned["promises"]
    replicas = [row["replicas"] for row in promise["table"]]
    assert replicas == sorted(replicas)
    assert any("embedded server" in note for note in planned["notes"])


@pytest.mark.slow
def test_a_load_below_all_that_were_measured_is_called_the_model_s_alone():
    low = plan(RUN, Ask(2_000, spare=6, cv=1.0))
    assert any("below the lowest load measured" in note for note in low["notes"])
    bursty = plan(RUN, Ask(1_000_000, cv=3.0))
    assert any("Poisson" in note for note in bursty["notes"])


@pytest.mark.slow
def test_a_trace_is_followed_and_its_saving_counted(planned):
    found = plan(RUN, Ask(trace=DAY, cv=1.0, peak_factor=1.5, cost_per_hour=2.0))
    replicas = [row["replicas"] for row in found["trace"]["intervals"]]
    assert found["planned_rps"] == 9000 * 1.5
    assert max(replicas) == found["replicas"] == replicas[1]
    follow, steady = found["trace"]["follow"], found["trace"]["steady"]
    assert follow["replica_hours"] == pytest.approx(sum(replicas) / 4)
    assert steady["cost"] == pytest.approx(2.0 * max(replicas) * 0.75)
    assert found["trace"]["saving"] == pytest.approx(1 - follow["cost"] / steady["cost"])


@pytest.mark.slow
def test_a_trace_of_arrivals_brings_its_burstiness_unless_told(traced):
    bursty = replace(DAY, cv=1.7)
    assert Ask(trace=bursty).demand().cv == 1.7
    assert Ask(trace=bursty, cv=1.0).demand().cv == 1.0
    assert Ask(trace=DAY).demand().cv == traced["cv"] == 2.0


def test_a_load_of_which_nobody_says_more_is_as_bursty_as_it_was_measured():
    asked = Ask(100)
    assert [asked.demand(cv).cv for cv in (0.0, 1.0, 2.5)] == [2.0, 2.0, 2.5]
    assert replace(asked, cv=1.0).demand(2.5).cv == 1.0


@pytest.mark.slow
def test_a_run_on_bursts_is_planned_with_them(tmp_path):
    """The same figures, had bursts made them, are those of a faster server."""
    folder = tmp_path / "run"
    shutil.copytree(EXAMPLE, folder)
    scenario = folder / "scenario.toml"
    text = scenario.read_text().replace(
        'arrivals = "poisson"', 'arrivals = "bursts"\nburst_cv = 2.0'
    )
    scenario.write_text(text)
    calm, bursty = (plan(RunDirectory(path), Ask(2_000, cv=2.0)) for path in (EXAMPLE, folder))
    assert any("Poisson" in note for note in calm["notes"])
    assert not any("model's alone" in note and "cv" in note for note in bursty["notes"])
    behind = [found["one_replica"]["behind_balancer_rps"] for found in (calm, bursty)]
    assert behind[1] > 1.05 * behind[0]


@pytest.mark.slow
def test_the_command_prints_tables_or_the_same_json_twice():
    arguments = ("--rate", "1000000", "--cv", "2", "--balancer", "round-robin")
    printed = run_plan(*arguments)
    assert printed.exit_code == 0, printed.output
    assert "as planned" in printed.output
    first, again = (json.loads(run_plan(*arguments, "--json").output) for _ in range(2))
    assert first == again
    sustained = read_json(EXAMPLE / "recommendation.json")["recommended"]["sustainable_rps"]
    assert first["replicas"] == pytest.approx(1e6 / sustained, rel=0.2)


@pytest.mark.slow
def test_several_promises_are_written_as_tables_and_plots(tmp_path):
    day = tmp_path / "day.csv"
    day.write_text("time,rate_rps\n00:00,3000\n01:00,9000\n", encoding="utf-8")
    out = tmp_path / "plan"
    limits = ("--p95", "50ms", "--p95", "60ms", "--p95", "1ms")
    printed = run_plan("--trace", str(day), *limits, "--cv", "1", "--out", str(out))
    assert printed.exit_code == 0, printed.output
    assert "p95 <= 1 ms" in printed.output
    names = {path.name for path in out.iterdir()}
    assert names == {
        "plan.json",
        "replicas.csv",
        "trace.csv",
        "replicas.svg",
        "replicas.png",
        "trace.svg",
        "trace.png",
    }
    with (out / "replicas.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["promise"] for row in rows}) == 2
    strict, loose = (
        [int(row["replicas"]) for row in rows if row["promise"].startswith(f"p95 <= {limit} ms")]
        for limit in (50, 60)
    )
    assert all(more >= fewer for more, fewer in zip(strict, loose, strict=True))
    assert (out / "replicas.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "trace.svg").read_text(encoding="utf-8")
    kept = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    assert [bool(promise["table"]) for promise in kept["promises"]] == [True, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", "0"), "0.0 is not in the range x>0"),
        ((), "needs --rate or --trace"),
        (("--rate", "10", "--trace", "day.csv"), "needs --rate or --trace"),
        (("--rate", "10", "--p99", "fast"), "expected a time in milliseconds, got 'fast'"),
        (("--rate", "10", "--p99", "-5"), "must be a number of milliseconds above 0"),
        (
            ("--rate", "10", *("--p99", "9", "--p99", "8", "--p50", "1", "--p50", "2")),
            "--p99 and --p50 are both",
        ),
        (("--rate", "10", *(("--p99", "9") * 7)), "--p99 is given 7 times"),
        (("--trace", "none.csv"), "none.csv: cannot be read"),
        (("--rate", "1000", "--p95", "1"), "no configuration keeps this promise"),
    ],
)
def test_bad_input_is_named_with_a_remedy_and_exit_code_2(arguments, message):
    printed = run_plan(*arguments)
    assert printed.exit_code == 2, printed.output
    assert message in printed.output
    assert "Traceback" not in printed.output


def test_a_promise_below_every_latency_names_the_lowest_that_was_measured():
    lowest = min(
        level.measurement.percentiles_ms.get("p99") or math.inf
        for trial in RUN.trials()
        for level in trial.levels
        if level.verdict.valid and level.measurement.loop == "open"
    )
    with pytest.raises(UsageError, match="no configuration keeps") as raised:
        plan(RUN, Ask(1000, ({"p99": 1.0},)))
    assert f"the lowest p99 measured is {lowest:.1f} ms" in raised.value.hint


def test_what_is_no_run_is_said(tmp_path):
    printed = CliRunner().invoke(main, ["plan", str(tmp_path), "--rate", "10"])
    assert printed.exit_code == 2
    assert "not a run directory" in printed.output


@pytest.mark.slow
def test_a_mix_is_planned_as_one_queue_and_says_so(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(EXAMPLE, run)
    # A start of what is planned and one other: a model is fitted to them in a moment.
    config_id = read_json(EXAMPLE / "recommendation.json")["config_id"]
    trials = RUN.trials()
    own = next(at for at, trial in enumerate(trials) if trial.config.id == config_id)
    other = next(at for at, trial in enumerate(trials) if trial.role == "default")
    lines = (run / "trials.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "trials.jsonl").write_text(lines[other] + lines[own], encoding="utf-8")
    path = run / "scenario.toml"
    text = path.read_text(encoding="utf-8").replace("[model]", "[[models]]")
    path.write_text(f'{text}\n[[models]]\npath = "../other"\n', encoding="utf-8")
    notes = plan(RunDirectory(run), Ask(500))["notes"]
    assert any("waits in 2 queues" in note for note in notes)
