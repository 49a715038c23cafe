"""The main job on the real embedded server: to its end, and through every way of ending early."""

import json
import os
import shutil
import signal
import subprocess
import time
from typing import NamedTuple

import psutil
import pytest
from commands.running import invoked, left_behind, refused, scenario, started, tuner

from tuner.batching import BatchingParameters
from tuner.store import RunDirectory

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(400)]


def only_run(out):
    (run,) = (path for path in out.iterdir() if path.is_dir())
    return RunDirectory(run)


def wait_for_trials(out, count, process, timeout_s=150):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if out.is_dir() and any(out.iterdir()) and len(only_run(out).trials()) >= count:
            return only_run(out)
        time.sleep(0.1)
    raise AssertionError("no trial was finished in time")


def wait_for_load(process, timeout_s=60):
    """Wait until a trial is in flight: a server and a generator are running. Returns all."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        children = psutil.Process(process.pid).children(recursive=True)
        said = " ".join(" ".join(arguments_of(child)) for child in children)
        if "tuner.server.embedded" in said and "tuner.load.worker" in said:
            return children
        time.sleep(0.05)
    raise AssertionError("no trial was begun in time")


def arguments_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Finished(NamedTuple):
    """A run to its end and what it printed, for several tests: none may change it."""

    run: RunDirectory
    printed: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory, dense_model):
    folder = tmp_path_factory.mktemp("finished")
    out = folder / "results"
    done = tuner("tune", scenario(folder, dense_model, blocks=1), "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return Finished(only_run(out), done.stdout)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, which a test may change, with the scenario where it was."""
    folder = tmp_path / "copied"
    shutil.copytree(finished.run.path.parents[1], folder)
    return only_run(folder / "results")


def test_a_run_to_its_end_leaves_everything(finished):
    run = finished.run
    printed = json.loads(finished.printed)
    assert printed == json.loads((run.path / "recommendation.json").read_text())
    assert printed["server"]["launcher"] == "embedded"
    assert printed["verdict"] in {"gain", "tie", "none", "undecided"}
    roles = [record.role for record in run.trials()]
    assert roles[:2] == ["off", "default"]
    assert "guide" in roles  # what another program disturbed may have come twice before it
    assert all(record.levels for record in run.trials())
    BatchingParameters.from_file(run.path / "batching_parameters.txt")
    for name in ("scenario.toml", "environment.json", "pareto.csv", "study.db", "report.html"):
        assert (run.path / name).stat().st_size > 0, name
    assert "<html" in (run.path / "report.html").read_text()
    level = run.trials()[1].levels[-1]
    assert (run.path / level.histogram).is_file()


def test_a_finished_run_is_reported_and_judged_again(copied):
    (copied.path / "report.html").unlink()
    rebuilt = invoked("report", copied.path)
    assert rebuilt.exit_code == 0
    assert str(copied.path / "report.html") in rebuilt.stdout
    assert "<html" in (copied.path / "report.html").read_text()

    other = invoked("recommend", copied.path, "--p90", "1s", "--json")
    assert other.exit_code == 0, other.stderr
    assert json.loads(other.stdout)["slo"]["p90_ms"] == 1000


def test_a_finished_run_that_is_resumed_measures_nothing(finished, copied):
    resumed = tuner("tune", "--resume", copied.path, "--trials", 3)
    assert resumed.returncode == 0, resumed.stderr
    assert copied.trials() == finished.run.trials()


def test_files_are_compared_and_checked(tmp_path, dense_model):
    asked, out = scenario(tmp_path, dense_model), tmp_path / "results"
    file = tmp_path / "batching_parameters.txt"
    file.write_text("max_batch_size { value: 16 }\nnum_batch_threads { value: 1 }\n")
    done = tuner("compare", asked, "off", file, "--blocks", 2, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["against"] == "off"
    assert [len(item["rates_rps"]) for item in found["entrants"]] == [2, 2]
    assert found["entrants"][1]["words"].startswith(f"{file} against off: ")
    assert [record.block for record in only_run(out).trials()] == [0, 0, 1, 1]

    asked.write_text(asked.read_text().replace("max_window_s = 1.0", "max_window_s = 10.0"))
    kept = tuner("check", asked, "--params", file, "--rate", 200, "--out", tmp_path / "kept")
    if "other programs" not in kept.stdout:  # this machine may be busy with other things
        assert kept.returncode == 0, kept.stdout
        assert kept.stdout.startswith("kept: the SLO holds at 200.0 requests/s in 1 start")
    missed = tuner("check", asked, "--params", file, "--rate", 4000, "--out", tmp_path / "missed")
    assert missed.returncode == 1
    assert missed.stdout.startswith("NOT KEPT: the SLO ")
    assert " at 4,000.0 requests/s: " in missed.stdout


def test_kill_9_loses_only_the_trial_in_flight(tmp_path, dense_model):
    out = tmp_path / "results"
    process = started("tune", scenario(tmp_path, dense_model, trials=2), "--out", out)
    run = wait_for_trials(out, 1, process)
    children = wait_for_load(process)  # of the second trial
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    before = [record.number for record in run.trials()]
    done = tuner("tune", "--resume", run.path)
    assert done.returncode == 0, done.stderr
    after = run.trials()
    assert [record.number for record in after][: len(before)] == before
    assert {"off", "default"} <= {record.role for record in after}


def test_ctrl_c_once_saves_and_twice_leaves_at_once(tmp_path, dense_model):
    out = tmp_path / "results"
    process = started("tune", scenario(tmp_path, dense_model), "--out", out)
    run = wait_for_trials(out, 1, process)
    family = psutil.Process(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"tuner tune --resume {run.path}" in said
    assert "Traceback" not in said
    assert not left_behind(family)
    assert (run.path / "report.html").is_file()

    process = started("tune", "--resume", run.path)
    children = wait_for_load(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert len(run.trials()) >= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(tmp_path, dense_model):
    out = tmp_path / "results"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(out)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        done = tuner("tune", scenario(tmp_path, dense_model, trials=2), "--out", out)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        run = only_run(out)
        before = run.trials()
        subprocess.run(["mount", "-o", "remount,size=64m", str(out)], check=True)
        resumed = tuner("tune", "--resume", run.path)
        assert resumed.returncode == 0, resumed.stderr
        assert run.trials()[: len(before)] == before
        assert len({record.config.id for record in run.trials()}) == 2
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_a_run_under_other_conditions_is_not_continued(copied):
    environment = copied.environment()
    environment["cpu_model"] = "another"
    copied.write("environment.json", json.dumps(environment))
    assert "cpu_model: was 'another'" in refused("tune", "--resume", copied.path)
