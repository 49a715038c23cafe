"""`tuner bench` as a user runs it, on a server that runs already."""

import json
import signal
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from commands.models import saved_model
from commands.running import FAST, refused, started, tuner

from tuner.clock import NS_PER_S
from tuner.commands.bench import default_window_s, load_of, mean_rps, seconds
from tuner.errors import UsageError
from tuner.load.client import PREDICT
from tuner.load.open_loop import OpenLoop
from tuner.load.traces import look_through
from tuner.measure.histogram import read_log
from tuner.scenario import parse
from tuner.trial.long_load import PIECE_S


@pytest.fixture
def serving():
    handler = grpc.method_handlers_generic_handler(
        PREDICT.split("/")[1],
        {"Predict": grpc.unary_unary_rpc_method_handler(lambda request, _: request)},
    )
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def scenario(serving, tmp_path):
    """Write a scenario whose server runs already, with further lines of its load."""
    saved_model(tmp_path / "model" / "1")

    def write(*load):
        text = FAST.format(model="model", trials=1, blocks=0, limit_ms=400)
        flags = text[text.index("[server.flags]") : text.index("[load]")]
        running = f'[server]\nlauncher = "running"\naddress = "{serving}"\n'
        text = text.replace(flags, running).replace("[load]", "\n".join(["[load]", *load]))
        path = tmp_path / "fast.toml"
        path.write_text(text)
        return path

    return write


def run_of(folder: Path):
    (run,) = (folder / "results").iterdir()
    lines = (run / "trials" / "0000" / "windows.jsonl").read_text().splitlines()
    (record,) = map(json.loads, (run / "trials.jsonl").read_text().splitlines())
    return run, [json.loads(line) for line in lines], record


def scheduled(path: Path) -> OpenLoop:
    return load_of(parse(path.read_text(), path), None, None, None)


@pytest.mark.alone
@pytest.mark.slow
def test_a_step_is_seen_window_by_window(scenario, tmp_path):
    path = scenario('arrivals = "profile"', "profile = [[0, 100], [2, 100], [2, 300], [4, 300]]")
    done = tuner("bench", path, "--window", "1s", "--out", tmp_path / "results", "--json")
    assert done.returncode == 0, done.stderr
    run, windows, record = run_of(tmp_path)
    assert json.loads(done.stdout) == record
    offered = [window["measurement"]["offered_rps"] for window in windows]
    assert offered == pytest.approx([100, 100, 300, 300], rel=0.4)
    assert [window["from_s"] for window in windows] == [0, 1, 2, 3]
    (level,) = record["levels"]
    whole = level["measurement"]
    assert whole["requests"] == sum(window["measurement"]["requests"] for window in windows)
    assert record["outcome"] == "ok"
    assert record["config"]["as_it_runs"] is True
    due_s = np.concatenate([piece for _, piece in scheduled(path).pieces(PIECE_S)]) / NS_PER_S
    for window in windows:  # what makes it honest is in every window
        found = window["measurement"]
        assert found["lateness_p99_ms"] <= found["lateness_max_ms"]
        assert found["host"]["generator_cpu"] > 0
        # Nothing is sent after its window but what was due less than its lateness before the end.
        end_s = window["from_s"] + 1
        late = (due_s >= end_s - found["lateness_max_ms"] / 1000) & (due_s < end_s)
        assert found["achieved_share"] * found["requests"] >= found["requests"] - late.sum() - 1e-6
    assert read_log(run / level["histogram"]).count == whole["requests"]
    assert (run / "plots" / "timeline.png").exists()
    assert "The load over time" in (run / "report.html").read_text()
    assert list((run / "trials" / "0000").glob("samples*")) == []


@pytest.mark.alone
@pytest.mark.slow
def test_a_trace_is_replayed_as_fast_as_asked(scenario, tmp_path):
    times = "".join(f"{1764000000 + number / 50}\n" for number in range(200))
    (tmp_path / "trace.txt").write_text(times)
    path = scenario('arrivals = "trace"', 'trace = "trace.txt"', "trace_speed = 2.0")
    done = tuner("bench", path, "--keep-samples", "--out", tmp_path / "results", "--json")
    assert done.returncode == 0, done.stderr
    run, windows, record = run_of(tmp_path)
    whole = record["levels"][0]["measurement"]
    assert whole["requests"] == 200
    assert whole["window_s"] == pytest.approx(2.0, abs=0.05)
    assert len(windows) == 3  # the last is cut short
    assert "samples will take 0.00 GB" in done.stderr
    assert (run / "trials" / "0000" / "samples.0").stat().st_size == 200 * 30


@pytest.mark.alone
@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(scenario, tmp_path):
    process = started(
        "bench", scenario(), "--rate", 200, "--duration", "8h", "--window", "1s",
        "--out", tmp_path / "results",
    )  # fmt: skip
    family = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob("results/*/trials/*/samples*")):
        time.sleep(0.1)
    time.sleep(2.5)
    children = family.children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopping: what was measured is kept" in err
    assert not any(child.is_running() for child in children)
    run, windows, record = run_of(tmp_path)
    assert len(windows) >= 3
    (note,) = record["notes"]
    assert note["code"] == "interrupted"
    assert record["levels"][0]["measurement"]["requests"] > 300
    assert f"report: {run / 'report.html'}" in out


@pytest.mark.alone
@pytest.mark.slow
def test_memory_does_not_grow_with_the_run(scenario, tmp_path):
    """Of each process alone: what it holds in its last quarter is what it held before."""
    process = started(
        "bench", scenario(), "--rate", 600, "--duration", "14s", "--window", "1s",
        "--out", tmp_path / "results",
    )  # fmt: skip
    family = psutil.Process(process.pid)
    sizes = []
    while process.poll() is None:
        if any(tmp_path.glob("results/*/trials/*/windows.jsonl")):
            sizes.append([member.memory_info().rss for member in members(family)])
        if any(tmp_path.glob("results/*/trials.jsonl")):
            break
        time.sleep(0.2)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    while_driving = [found for found in sizes if len(found) == 2]
    assert len(while_driving) > 20
    quarter = len(while_driving) // 4
    for own in zip(*while_driving, strict=True):
        assert max(own[-quarter:]) - max(own[quarter : 2 * quarter]) < 4 << 20
        assert max(own) < 300 << 20


def members(family):
    try:
        return [family, *family.children()]
    except psutil.NoSuchProcess:
        return []


def asked(*load):
    text = 'name = "s"\n[model]\npath = "m"\n[slo]\np99_ms = 50\n[load]\n' + "\n".join(load)
    return parse(text, Path("/s.toml"))


PROFILE = ('arrivals = "profile"', "profile = [[0, 100], [60, 500], [60, 0], [120, 0]]")


def test_a_load_lasts_as_long_as_asked_or_as_what_it_follows(tmp_path):
    assert load_of(asked(), 100.0, None, None).duration_s == 60.0
    assert load_of(asked(), 100.0, 5.0, None).duration_s == 5.0
    assert load_of(asked(*PROFILE), None, None, None).duration_s == 120.0
    (tmp_path / "t").write_text("1\n2\n3\n")
    trace = look_through(tmp_path / "t")
    follow = asked('arrivals = "trace"', f'trace = "{tmp_path / "t"}"', "trace_speed = 4")
    assert load_of(follow, None, None, trace).duration_s == 1.0
    assert load_of(follow, 10.0, None, trace).duration_s == 60.0


def test_the_mean_rate_of_a_load(tmp_path):
    assert mean_rps(load_of(asked(), 100.0, None, None), None) == 100.0
    assert mean_rps(load_of(asked(*PROFILE), None, None, None), None) == 150.0
    (tmp_path / "t").write_text("1\n2\n3\n")
    trace = look_through(tmp_path / "t")
    follow = asked('arrivals = "trace"', f'trace = "{tmp_path / "t"}"', "trace_speed = 4")
    assert mean_rps(load_of(follow, None, None, trace), trace) == 4.0


@pytest.mark.parametrize(
    ("load", "rate", "length_s", "said"),
    [
        ((), None, None, "say which load: --rate RPS"),
        (PROFILE, 100.0, None, "--rate: the scenario's load.profile says the rate itself"),
        (PROFILE, None, 121.0, "--duration: the scenario's load.profile ends at 120 s"),
    ],
)
def test_loads_that_are_none(load, rate, length_s, said):
    with pytest.raises(UsageError, match=said):
        load_of(asked(*load), rate, length_s, None)


@pytest.mark.parametrize("text", ["soon", "8", "0s", "h", ""])
def test_spans_that_are_none(text):
    with pytest.raises(UsageError, match=r"--duration: .* is no span of time"):
        seconds("--duration", text)


@pytest.mark.parametrize(("length_s", "window_s"), [(5, 1.0), (100, 5.0), (28_800, 10.0)])
def test_windows_are_short_where_the_run_is(length_s, window_s):
    assert default_window_s(length_s) == window_s


def test_a_profile_is_for_bench_alone(scenario, tmp_path):
    path = scenario('arrivals = "profile"', "profile = [[0, 100], [60, 500]]")
    for command in (["measure"], ["check"], ["compare", "default", "off"]):
        said = refused(command[0], path, *command[1:], "--out", tmp_path / "results")
        assert "load.arrivals" in said or "server.launcher" in said
