"""What a run leaves at its end: table, file, object and page agree."""

import shutil
from pathlib import Path

import pytest

from tuner.batching import BatchingParameters
from tuner.commands.closing import print_closing
from tuner.commands.plan_replica import ground
from tuner.commands.publish import (
    identity_of,
    measured_device,
    publish_recommendation,
    report_run,
    scenario_of,
)
from tuner.errors import UsageError
from tuner.report.page import render_page
from tuner.store import RunDirectory

EXAMPLE = Path(__file__).parents[2] / "results" / "example"


def cut_short(folder, count):
    """The example, as if it had ended after `count` trials."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("plots", "report.html"))
    lines = (folder / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "trials.jsonl").write_bytes(b"".join(lines[:count]))
    run = RunDirectory(folder)
    server = identity_of(run.environment())
    found = publish_recommendation(run, scenario_of(run), run.trials(), server)
    return run, found


def test_with_batching_off_alone_nothing_is_recommended_anywhere(tmp_path, capsys):
    run, found = cut_short(tmp_path / "run", 1)
    assert [trial.role for trial in run.trials()] == ["off"]
    assert (found["config_id"], found["recommended"]) == (None, None)
    assert found["off"]["sustainable_rps"] > 0
    assert (found["parameters"], found["flags"]) == ({}, {})
    assert "deployment" not in found
    print_closing(run)
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if line.split()[:1] == ["recommended"]]
    assert row.split()[1:3] == ["nothing", "yet"]
    assert "Undecided: nothing is confirmed yet. Batching off is all that was measured" in said
    assert "best left OFF" not in said
    BatchingParameters.from_file(run.path / "batching_parameters.txt")
    page = render_page(report_run(run), ())
    assert "No recommendation yet." in page
    assert "Batching off is recommended" not in page
    assert "enable_batching=true" not in page
    with pytest.raises(UsageError, match="nothing is recommended yet"):
        ground(run, {})


def test_with_the_default_beside_it_the_best_so_far_is_recommended(tmp_path, capsys):
    run, found = cut_short(tmp_path / "run", 2)
    assert found["recommended"] == found["default"]
    print_closing(run)
    said = capsys.readouterr().out
    assert "nothing yet" not in said
    page = render_page(report_run(run), ())
    assert "No recommendation yet." not in page


@pytest.mark.parametrize(
    ("said", "gpus", "device"),
    [
        ("auto", [], "cpu"),
        ("auto", ["NVIDIA L4"], "gpu"),
        ("gpu", [], "gpu"),
        ("cpu", ["x"], "cpu"),
    ],
)
def test_whether_a_runs_server_had_a_gpu_is_its_own_to_say(said, gpus, device):
    """Not this machine's, on which a report or a plan is made."""
    scenario = scenario_of(RunDirectory(EXAMPLE))
    scenario = scenario.model_copy(
        update={"search": scenario.search.model_copy(update={"device": said})}
    )
    assert measured_device(scenario, {"server": {"gpus": gpus}}) == device
