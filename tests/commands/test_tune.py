"""The main job on the real embedded server: to its end, and through every way of ending early."""

import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from commands.running import left_behind, scenario, started, tuner

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


def test_a_run_to_its_end_leaves_everything(tmp_path, dense_model):
    out = tmp_path / "results"
    done = tuner("tune", scenario(tmp_path, dense_model, blocks=1), "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    run = only_run(out)
    printed = json.loads(done.stdout)
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

    rebuilt = tuner("report", run.path)
    assert rebuilt.returncode == 0
    assert str(run.path / "report.html") in rebuilt.stdout

    other = tuner("recommend", run.path, "--p90", "1s", "--json")
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout)["slo"]["p90_ms"] == 1000

    resumed = tuner("tune", "--resume", run.path, "--trials", 3)
    assert resumed.returncode == 0, resumed.stderr
    assert len(run.trials()) == len(roles)


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

    asked.write_text(asked.read_text().replace("max_window_s = 2.0", "max_window_s = 10.0"))
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
    process = started("tune", scenario(tmp_path, dense_model), "--out", out)
    run = wait_for_trials(out, 1, process)
    time.sleep(2)  # into the second trial: a server and a generator are running
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    before = [record.number for record in run.trials()]
    done = tuner("tune", "--resume", run.path)
    assert done.returncode == 0, done.stderr
    after = run.trials()
    assert [record.number for record in after][: len(before)] == before
    assert {"off", "default", "guide"} <= {record.role for record in after}


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
    time.sleep(3)
    children = psutil.Process(process.pid).children(recursive=True)
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
        done = tuner("tune", scenario(tmp_path, dense_model), "--out", out)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        run = only_run(out)
        before = run.trials()
        subprocess.run(["mount", "-o", "remount,size=64m", str(out)], check=True)
        resumed = tuner("tune", "--resume", run.path)
        assert resumed.returncode == 0, resumed.stderr
        assert run.trials()[: len(before)] == before
        assert len({record.config.id for record in run.trials()}) == 3
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_a_run_under_other_conditions_is_not_continued(tmp_path, dense_model):
    out = tmp_path / "results"
    done = tuner("tune", scenario(tmp_path, dense_model), "--out", out, "--trials", 1)
    assert done.returncode == 0, done.stderr
    run = only_run(out)
    environment = run.environment()
    environment["cpu_model"] = "another"
    run.write("environment.json", json.dumps(environment))
    refused = tuner("tune", "--resume", run.path)
    assert refused.returncode == 2
    assert "cpu_model: was 'another'" in refused.stderr
