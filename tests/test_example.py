"""The committed example run: still readable, still reportable, and free of its machine's paths."""

import json
import shutil
from pathlib import Path

import pytest

from tuner.batching import BatchingParameters
from tuner.commands.publish import publish_report, report_run
from tuner.commands.recommend import recommend
from tuner.deploy import snippets
from tuner.store import RunDirectory

EXAMPLE = Path(__file__).parents[1] / "results" / "example"


def test_the_example_is_a_whole_run_of_the_quickstart():
    run = report_run(RunDirectory(EXAMPLE))
    assert run.name == "quickstart"
    assert {"off", "default", "guide", "sampler"} <= {trial.role for trial in run.trials}
    assert run.recommendation["config_id"]
    BatchingParameters.from_file(EXAMPLE / "batching_parameters.txt")


def test_the_example_says_how_to_deploy_it():
    run = report_run(RunDirectory(EXAMPLE))
    docker, compose, kubernetes = snippets(run.recommendation)
    assert 'source="$PWD"/../../models/dense-2048x4,' in docker.text
    for snippet in (docker, compose, kubernetes):
        assert "--batching_parameters_file=/config/batching_parameters.txt" in snippet.text
        assert "--tensorflow_intra_op_parallelism=1" in snippet.text


def test_the_example_is_judged_anew_from_its_histograms():
    strict, _ = recommend(RunDirectory(EXAMPLE), {"p95": 1.0}, None)
    loose, _ = recommend(RunDirectory(EXAMPLE), {"p50": 1000.0}, None)
    assert not strict["recommended"]["sustainable_rps"]
    assert loose["recommended"]["sustainable_rps"] > 0


@pytest.mark.slow
def test_the_examples_report_can_be_rebuilt(tmp_path):
    copy = tmp_path / "example"
    shutil.copytree(EXAMPLE, copy)
    for path in publish_report(RunDirectory(copy)):
        assert path.stat().st_size > 0


def test_the_example_names_no_path_of_a_machine():
    for path in EXAMPLE.rglob("*"):
        if path.suffix in {".json", ".jsonl", ".txt", ".toml", ".html", ".csv"}:
            text = path.read_text(encoding="utf-8")
            assert not any(root in text for root in ("/root/", "/home/", "/tmp/")), path
    environment = json.loads((EXAMPLE / "environment.json").read_text())
    assert environment["scenario_folder"] == "../../scenarios"
