"""`tuner doctor` as a user runs it."""

import json

import pytest
from commands.models import saved_model
from commands.running import invoked, refused, scenario, tuner


def test_what_is_red_ends_with_1_and_starts_no_server(tmp_path):
    done = invoked("doctor", scenario(tmp_path, tmp_path / "nowhere"))
    assert done.exit_code == 1
    assert f"red  model: {tmp_path}/nowhere: no such directory" in done.stdout
    assert "-> name the directory that holds the version directories" in done.stdout
    assert "the server was not started, for what is red above" in done.stdout
    assert "1 red" in done.stdout.splitlines()[-1]


def test_findings_for_programs(tmp_path):
    saved_model(tmp_path / "m" / "1", first=1)
    done = invoked("doctor", scenario(tmp_path, tmp_path / "m"), "--json")
    assert done.exit_code == 1
    printed = json.loads(done.stdout)
    assert printed["light"] == "red"
    by_check = {finding["check"]: finding for finding in printed["findings"]}
    assert by_check["scenario"]["light"] == "green"
    assert by_check["not-batchable"]["light"] == "red"
    assert by_check["not-batchable"]["remedy"]
    assert "inputs['x'] tensor_info" in by_check["model"]["detail"]


def test_a_scenario_that_cannot_be_read_is_bad_input(tmp_path):
    assert "no such scenario" in refused("doctor", tmp_path / "nowhere.toml")


@pytest.mark.alone
@pytest.mark.slow
def test_a_machine_that_is_ready(tmp_path, dense_model):
    done = tuner("doctor", scenario(tmp_path, dense_model))
    assert done.returncode == 0, done.stdout
    assert " red " not in done.stdout
    for check in ("server", "request", "metrics", "generator"):
        assert f"green  {check}: " in done.stdout
