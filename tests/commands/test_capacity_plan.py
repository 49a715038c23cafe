"""Plans from the committed example run."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tuner.cli import main
from tuner.commands.plan import Ask, plan
from tuner.errors import UsageError
from tuner.store import RunDirectory, read_json

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "results" / "example"


@pytest.fixture(scope="module")
def planned():
    return plan(RunDirectory(EXAMPLE), Ask(20_000, {}, spare=2, cost_per_hour=0.5))


def test_a_plan_agrees_with_what_one_replica_was_measured_to_carry(planned):
    one = planned["one_replica"]
    assert one["simulated_rps"] == pytest.approx(one["measured_rps"], rel=0.15)
    low, high = planned["needed_between"]
    assert low <= planned["needed"] <= high
    assert planned["needed"] == pytest.approx(20_000 / one["measured_rps"], rel=0.1)


def test_spare_replicas_and_cost_are_counted(planned):
    assert planned["replicas"] == planned["needed"] + 2
    assert planned["cost_per_hour"] == planned["replicas"] * 0.5
    assert planned["at_peak"]["holds"]
    assert planned["one_lost"]["holds"]
    assert planned["one_lost"]["rate_rps"] > planned["at_peak"]["rate_rps"]


def test_the_table_grows_with_the_rate_and_the_notes_name_the_server(planned):
    replicas = [row["replicas"] for row in planned["table"]]
    assert replicas == sorted(replicas)
    assert any("embedded server" in note for note in planned["notes"])


def test_a_promise_that_nothing_kept_cannot_be_planned():
    with pytest.raises(UsageError, match="no configuration keeps this promise"):
        plan(RunDirectory(EXAMPLE), Ask(1000, {"p95": 1.0}))


def test_the_command_prints_a_table_or_json_and_the_same_one_twice(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(EXAMPLE, run)
    arguments = ["plan", str(run), "--rate", "1000000", "--cv", "2", "--balancer", "round-robin"]
    printed = CliRunner().invoke(main, arguments)
    assert printed.exit_code == 0, printed.output
    assert "as planned" in printed.output
    first = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert first == plan(RunDirectory(run), Ask(1e6, {}, cv=2.0, balancer="round-robin"))
    sustained = read_json(run / "recommendation.json")["recommended"]["sustainable_rps"]
    assert first["replicas"] == pytest.approx(1e6 / sustained, rel=0.2)


def test_a_mix_is_planned_as_one_queue_and_says_so(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(EXAMPLE, run)
    path = run / "scenario.toml"
    text = path.read_text(encoding="utf-8").replace("[model]", "[[models]]")
    path.write_text(f'{text}\n[[models]]\npath = "../other"\n', encoding="utf-8")
    notes = plan(RunDirectory(run), Ask(500, {}))["notes"]
    assert any("waits in 2 queues" in note for note in notes)
