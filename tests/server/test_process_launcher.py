"""Starting and stopping a server process, whatever it does. Every test checks what is left."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tuner.batching import BatchingParameters
from tuner.errors import BatchingError, CandidateError, HostError, ModelError
from tuner.records import Config
from tuner.scenario import parse
from tuner.server.process import ProcessLauncher, binary, embedded

FAKE = Path(__file__).with_name("fake_server.py")
BATCHED = Config(BatchingParameters(max_batch_size=8, num_batch_threads=1))
PATIENCE_S = 30.0


def scenario(model="/m", server=""):
    text = f'name = "s"\n[model]\npath = "{model}"\n[slo]\np99_ms = 50\n[server]\n{server}\n'
    return parse(text, Path("/s.toml"))


def fake(how, *, start_timeout_s=PATIENCE_S, cpus=None):
    asked = scenario(server=f"start_timeout_s = {start_timeout_s}")
    return ProcessLauncher(asked, "binary", (sys.executable, str(FAKE), how), cpus)


def gone(pid):
    """Wait until a process has ended and been collected; say whether it has."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True  # it has ended; its new parent has yet to collect it
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE
    ]
    assert left == []


def refused(launcher, folder, error, config=BATCHED):
    with pytest.raises(error) as caught, launcher.launch(config, folder):
        pytest.fail("the server was taken for ready")
    return caught.value


def logged(folder, pattern):
    return re.search(pattern, (folder / "server.log").read_text())[1]


def test_a_server_is_started_with_its_files_and_stopped(tmp_path):
    folder = tmp_path / "trials" / "0000"
    with fake("serves").launch(BATCHED, folder) as server:
        server.check()
        flags = dict(server.endpoint.flags)
        assert psutil.pid_exists(server.endpoint.pid)
        assert server.endpoint.address == f"127.0.0.1:{flags['port']}"
        assert server.endpoint.start_s > 0
        batching = Path(flags["batching_parameters_file"])
        assert BatchingParameters.from_file(batching) == BATCHED.batching
    assert not psutil.pid_exists(server.endpoint.pid)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(flags["port"]))) != 0


def test_a_server_is_stopped_where_its_user_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), fake("serves").launch(BATCHED, tmp_path) as server:
        _ = 1 / 0
    assert not psutil.pid_exists(server.endpoint.pid)


def test_a_server_runs_on_its_processors(tmp_path):
    cpu = min(os.sched_getaffinity(0))
    with fake("serves", cpus=frozenset({cpu})).launch(BATCHED, tmp_path):
        assert logged(tmp_path, r"processors (\[.*\])") == f"[{cpu}]"


def test_every_start_has_a_port_of_its_own(tmp_path):
    with (
        fake("serves").launch(BATCHED, tmp_path / "a") as one,
        fake("serves").launch(BATCHED, tmp_path / "b") as other,
    ):
        assert one.endpoint.address != other.endpoint.address


def test_a_server_that_refuses_is_quoted(tmp_path):
    error = refused(fake("refuses"), tmp_path, CandidateError)
    assert "exited before it was ready (exit code 255)" in error.message
    assert "INVALID_ARGUMENT: Invalid protobuf file: 'x'" in error.message
    assert str(tmp_path / "server.log") in error.hint
    assert "Failed to start server" in error.log_tail


@pytest.mark.parametrize(
    ("config", "cause"),
    [(BATCHED, "the batching parameters (max 8, 1 thread)"), (Config(None), "batching is off")],
)
def test_a_crash_without_a_word_gets_its_likely_cause(tmp_path, config, cause):
    error = refused(fake("segfaults"), tmp_path, CandidateError, config)
    assert "killed by SIGSEGV; likely cause: " in error.message
    assert cause in error.message


def test_a_server_that_never_gets_ready_is_given_up(tmp_path):
    error = refused(fake("hangs", start_timeout_s=1.0), tmp_path, CandidateError)
    assert "not ready within 1 s" in error.message
    assert "server.start_timeout_s" in error.hint


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("loses-its-port", HostError, "port was taken"),
        ("loses-its-http-port", HostError, "exports no metrics: .*Couldn't bind to port"),
        ("misses-its-model", ModelError, "finds no model: .*Could not find base path /m"),
        ("knows-not-a-flag", HostError, "does not know a flag: .*--grpc_z=1"),
    ],
)
def test_what_is_not_the_configurations_fault_is_told_apart(tmp_path, how, kind, message):
    error = refused(fake(how), tmp_path, kind)
    assert re.search(message, error.message)
    assert error.hint


def test_a_death_while_it_serves_is_noticed(tmp_path):
    with fake("dies-later").launch(BATCHED, tmp_path) as server:
        port = int(server.endpoint.address.partition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"!")
        server.process.wait(PATIENCE_S)
        with pytest.raises(
            CandidateError, match=r"died while it served \(killed by SIGABRT\)"
        ) as e:
            server.check()
    assert "std::bad_alloc" in e.value.log_tail


def test_a_ready_server_has_its_metrics_page(tmp_path):
    with fake("serves").launch(BATCHED, tmp_path) as server:
        assert server.scrape() == "# /monitoring/prometheus/metrics\n"
    assert server.scrape() is None


@pytest.mark.slow
def test_a_server_that_ignores_sigterm_is_killed(tmp_path):
    with fake("ignores-sigterm").launch(BATCHED, tmp_path) as server:
        pid = server.endpoint.pid
    assert not psutil.pid_exists(pid)


def test_what_a_server_started_goes_with_it(tmp_path):
    with fake("has-a-child").launch(BATCHED, tmp_path):
        child = int(logged(tmp_path, r"child (\d+)"))
        assert psutil.pid_exists(child)
    assert gone(child)


def test_a_server_dies_with_the_tuner(tmp_path):
    """`kill -9` of the tuner leaves it no time to stop anything."""
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(FAKE.parent)!r})
        from pathlib import Path
        from test_process_launcher import BATCHED, fake
        with fake("ignores-sigterm").launch(BATCHED, Path({str(tmp_path)!r})) as server:
            print(server.endpoint.pid, flush=True)
            input()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as tuner:
        pid = int(tuner.stdout.readline())
        assert psutil.pid_exists(pid)
        tuner.send_signal(signal.SIGKILL)
        tuner.wait()
        assert gone(pid)


def test_a_file_the_server_would_punish_starts_no_server(tmp_path):
    config = Config(replace(BATCHED.batching, max_batch_size=0))
    error = refused(fake("serves"), tmp_path, BatchingError, config)
    assert "max_batch_size = 0" in error.message
    assert not (tmp_path / "server.log").exists()


def test_a_binary_tells_its_version():
    launcher = fake("serves")
    assert launcher.identify().version == "TensorFlow ModelServer: 2.19.0"
    assert launcher.identify().launcher == "binary"
    missing = replace(launcher, command=("/nowhere/server",))
    with pytest.raises(HostError, match="/nowhere/server: does not tell its version"):
        missing.identify()


def test_a_binary_that_is_not_there_is_a_hosts_fault():
    asked = scenario(server='launcher = "binary"\nbinary = "no-such-server"')
    with pytest.raises(HostError, match=r"(?s)'no-such-server' on the PATH.*embedded"):
        binary(asked, None)


@pytest.mark.slow
def test_the_embedded_server_is_started_and_stopped(dense_model, tmp_path):
    asked = scenario(model=dense_model)
    with embedded(asked, None).launch(BATCHED, tmp_path) as server:
        server.check()
        assert psutil.pid_exists(server.endpoint.pid)
        assert server.scrape() is not None
    assert not psutil.pid_exists(server.endpoint.pid)


@pytest.mark.slow
def test_the_embedded_server_names_a_model_that_is_not_there(tmp_path):
    asked = scenario(model=tmp_path / "m", server=f"start_timeout_s = {2 * PATIENCE_S}")
    error = refused(embedded(asked, None), tmp_path / "run", ModelError, Config(None))
    assert str(tmp_path / "m") in error.message
