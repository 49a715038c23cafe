import json
import shutil
from dataclasses import replace

import grpc
import numpy as np
import pytest
from running import scenario, tuner

from tuner.errors import LoadError
from tuner.load.client import PREDICT, engine_factory
from tuner.load.generator import Generator, OpenLoop
from tuner.load.null_server import ANSWER, null_server
from tuner.load.pool import RequestPool
from tuner.server.cpus import place
from tuner.wiring import calibration as calibrations
from tuner.wiring.calibration import Calibration

KEYS = {"engine", "requests_per_s", "cpu_us_per_request", "latency_floor_ms", "lag_p99_ms",
        "machine_lag_p99_ms", "null_server", "machine"}  # fmt: skip


def calibration(engine="http2", rate=1000.0, **machine):
    described = calibrations.machine(place("auto", "auto")) | machine
    return Calibration(engine, rate, 10.0, 0.1, 0.2, 0.1, "nghttpd", described)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tuner" / "calibrations.json"


def test_calibrations_are_kept_by_engine_and_machine(cache):
    placement = place("auto", "auto")
    assert calibrations.known("http2", placement) is None
    assert calibrations.keep(calibration(rate=5.0)) == cache
    calibrations.keep(calibration(engine="grpcio", rate=1.0))
    calibrations.keep(calibration(rate=9.0, kernel="another"))
    assert calibrations.known("http2", placement).requests_per_s == 5.0
    assert calibrations.known("grpcio", placement).usable_rps == 0.5
    calibrations.keep(calibration(rate=7.0))
    assert calibrations.known("http2", placement).requests_per_s == 7.0


def test_several_processes_are_another_generator(cache):
    placement = place("auto", "auto")
    calibrations.keep(calibration(rate=5.0))
    calibrations.keep(calibration(rate=9.0, processes=2))
    assert calibrations.known("http2", placement).requests_per_s == 5.0
    assert calibrations.known("http2", placement, 2).requests_per_s == 9.0
    assert calibrations.known("http2", placement, 3) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {"b": 1}}'])
def test_a_damaged_cache_is_none(cache, text):
    cache.parent.mkdir()
    cache.write_text(text)
    assert calibrations.known("http2", place("auto", "auto")) is None
    calibrations.keep(calibration())
    assert calibrations.known("http2", place("auto", "auto")) == calibration()


@pytest.mark.parametrize(("lag_ms", "kept"), [(0.3, True), (113.0, False)])
def test_what_a_busy_machine_showed_is_not_kept(cache, monkeypatch, lag_ms, kept):
    measured = replace(calibration(), machine_lag_p99_ms=lag_ms)
    monkeypatch.setattr(calibrations, "calibrate", lambda *_, **__: measured)
    said = []
    found = calibrations.calibrated("http2", place("auto", "auto"), said.append)
    assert found == measured
    assert (calibrations.known("http2", place("auto", "auto")) == measured) is kept
    assert kept or "wakes 113 ms late" in said[-1]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["http2", "grpcio"])
def test_the_contract_for_scripts(engine, cache):
    done = tuner("calibrate", "--json", "--engine", engine, "--seconds", 0.3)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == KEYS
    assert found["engine"] == engine
    assert found["requests_per_s"] > 500
    assert 0 < found["cpu_us_per_request"] < 2000
    assert 0 < found["latency_floor_ms"] < 50
    assert 0 < found["machine_lag_p99_ms"] < 100
    assert found["lag_p99_ms"] > 0
    assert (
        calibrations.known(engine, place("auto", "auto")).requests_per_s
        == (found["requests_per_s"])
    )


@pytest.mark.alone
@pytest.mark.slow
def test_a_generator_of_two_processes_is_measured_as_such(cache):
    done = tuner("calibrate", "--json", "--seconds", 0.3, "--processes", 2, "--cpus", "all")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["processes"] == 2
    placement = place("auto", "all")
    kept = calibrations.known("http2", placement, 2)
    assert kept.requests_per_s == found["requests_per_s"]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("engine", ["http2", "grpcio"])
def test_null_servers_answer_both_engines(engine, own):
    if not own and shutil.which("nghttpd") is None:
        pytest.skip("nghttpd (Debian: nghttp2) is not installed")
    with null_server(own=own) as server:
        assert (server.name == "tuner") == own
        driver = engine_factory(engine)(server.address, deadline_s=5.0)
        picks = np.zeros(1, np.int32)
        columns = driver.closed_loop([b"x" * 600_000], picks, concurrency=8, duration_s=0.2)
        assert not columns.status.any()
        assert driver.last_answer == ANSWER
        driver.close()
        # A client with ordinary windows, and answers that overrun them.
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_unary(PREDICT)
            pending = [call.future(b"y") for _ in range(2_000)]
            assert {done.result() for done in pending} == {ANSWER}


@pytest.mark.alone
@pytest.mark.slow
def test_a_load_above_half_of_the_ceiling_is_refused(tmp_path):
    pool = tmp_path / "pool"
    RequestPool((b"x",), (1,), (1.0,), (b"",)).save(pool)
    with null_server(own=True) as server, Generator(server.address, pool, usable_rps=100) as made:
        assert len(made.open_loop(OpenLoop(99, 0.2, seed=1)))
        words = r"101 requests/s is above half .* 200/s: it would measure itself\n.*calibrate"
        with pytest.raises(LoadError, match=words):
            made.open_loop(OpenLoop(101, 0.2, seed=1))
        assert len(made.open_loop(OpenLoop(99, 0.2, seed=1)))


@pytest.mark.alone
@pytest.mark.slow
def test_a_run_stops_where_its_generator_would_be_measured(tmp_path, dense_model, cache):
    calibrations.keep(calibration(rate=20.0))
    done = tuner("tune", scenario(tmp_path, dense_model), "--out", tmp_path / "results")
    assert done.returncode == 1
    assert "above half of what this generator can send on this machine, 20/s" in done.stderr
    assert "tuner calibrate" in done.stderr
