"""The contract of every launcher: what it makes of a server, whatever that does.

The fake server fails in ways that a working one does not show. Every test checks what is left.
"""

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
from containers import EMBEDDED_IMAGE, FAKE, FAKE_IMAGE, scenario_lines

from tuner.batching import BatchingParameters
from tuner.errors import BatchingError, CandidateError, HostError, ModelError
from tuner.load.generator import Generator
from tuner.load.payload import MixPart, build_pool
from tuner.measure.prometheus import evidence
from tuner.model import inspect
from tuner.records import Config
from tuner.scenario import parse
from tuner.server.containers.launcher import open_docker
from tuner.server.ports import free_ports
from tuner.server.process import ProcessLauncher, binary, embedded

BATCHED = Config(BatchingParameters(max_batch_size=8, num_batch_threads=1))
PATIENCE_S = 30.0
KINDS = ["process", pytest.param("docker", marks=pytest.mark.docker)]


def scenario(model="/usr/share", server=""):
    text = f'name = "s"\n[model]\npath = "{model}"\n[slo]\np99_ms = 50\n[server]\n{server}\n'
    return parse(text, Path("/s.toml"))


def launcher_of(kind, how, *, start_timeout_s=PATIENCE_S, cpus=None, server=()):
    timeout = f"start_timeout_s = {start_timeout_s}"
    if kind == "process":
        return ProcessLauncher(
            scenario(server=timeout), "binary", (sys.executable, str(FAKE), how), cpus
        )
    lines = scenario_lines(FAKE_IMAGE, timeout, f'env = {{ HOW = "{how}" }}', *server)
    return open_docker(scenario(server=lines), cpus, lambda _text: None)


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return request.param


@pytest.fixture
def fake(kind):
    return lambda how, **settings: launcher_of(kind, how, **settings)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE
    ]
    assert left == []
    if "docker_engine" in request.fixturenames:
        engine = request.getfixturevalue("docker_engine")
        mine = {"label": f"tuner.owner.pid={os.getpid()}"}
        assert engine.client.containers.list(all=True, filters=mine) == []


def refused(launcher, folder, error, config=BATCHED):
    with pytest.raises(error) as caught, launcher.launch(config, folder):
        pytest.fail("the server was taken for ready")
    return caught.value


def logged(folder, pattern):
    return re.search(pattern, (folder / "server.log").read_text())[1]


def closed(address):
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def test_a_server_is_started_with_its_files_and_stopped(fake, tmp_path):
    folder = tmp_path / "trials" / "0000"
    with fake("serves").launch(BATCHED, folder) as server:
        server.check()
        flags = dict(server.endpoint.flags)
        assert psutil.pid_exists(server.endpoint.pid)
        assert server.endpoint.address.startswith("127.0.0.1:")
        assert not closed(server.endpoint.address)
        assert server.endpoint.start_s > 0
        batching = Path(flags["batching_parameters_file"])
        assert BatchingParameters.from_file(batching) == BATCHED.batching
    assert not psutil.pid_exists(server.endpoint.pid)
    assert closed(server.endpoint.address)


def test_a_server_is_stopped_where_its_user_fails(fake, tmp_path):
    with pytest.raises(ZeroDivisionError), fake("serves").launch(BATCHED, tmp_path) as server:
        _ = 1 / 0
    assert not psutil.pid_exists(server.endpoint.pid)


def test_a_server_runs_on_its_processors(fake, tmp_path):
    cpu = max(os.sched_getaffinity(0))
    with fake("serves", cpus=frozenset({cpu})).launch(BATCHED, tmp_path):
        assert logged(tmp_path, r"processors (\[.*\])") == f"[{cpu}]"


def test_every_start_has_a_port_of_its_own(fake, tmp_path):
    launcher = fake("serves")
    with (
        launcher.launch(BATCHED, tmp_path / "a") as one,
        launcher.launch(BATCHED, tmp_path / "b") as other,
    ):
        assert one.endpoint.address != other.endpoint.address


def test_a_server_that_refuses_is_quoted(fake, tmp_path):
    error = refused(fake("refuses"), tmp_path, CandidateError)
    assert "exited before it was ready (exit code 255)" in error.message
    assert "INVALID_ARGUMENT: Invalid protobuf file: 'x'" in error.message
    assert str(tmp_path / "server.log") in error.hint
    assert "Failed to start server" in error.log_tail


@pytest.mark.parametrize(
    ("config", "cause"),
    [(BATCHED, "the batching parameters (max 8, 1 thread)"), (Config(None), "batching is off")],
)
def test_a_crash_without_a_word_gets_its_likely_cause(fake, tmp_path, config, cause):
    error = refused(fake("segfaults"), tmp_path, CandidateError, config)
    assert "killed by SIGSEGV; likely cause: " in error.message
    assert cause in error.message


def test_a_server_that_never_gets_ready_is_given_up(fake, tmp_path):
    error = refused(fake("hangs", start_timeout_s=1.0), tmp_path, CandidateError)
    assert "not ready within 1 s" in error.message
    assert "server.start_timeout_s" in error.hint


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("loses-its-port", HostError, "port was taken"),
        ("loses-its-http-port", HostError, "exports no metrics: .*Couldn't bind to port"),
        ("misses-its-model", ModelError, "finds no model: .*Could not find base path /m"),
        ("knows-not-a-flag", HostError, "does not know a flag: .*--grpc_z=1"),
    ],
)
def test_what_is_not_the_configurations_fault_is_told_apart(fake, tmp_path, how, error, message):
    caught = refused(fake(how), tmp_path, error)
    assert re.search(message, caught.message)
    assert caught.hint


def test_a_start_whose_port_is_taken_meanwhile_has_another(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        choices = [(taken, *free_ports(1)), free_ports(2)]
        monkeypatch.setattr("tuner.server.process.free_ports", lambda _count: choices.pop(0))
        with launcher_of("process", "serves").launch(BATCHED, tmp_path) as server:
            assert server.endpoint.address != f"127.0.0.1:{taken}"
    assert choices == []


def tell_to_die(server):
    host, _, port = server.endpoint.address.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"!")
        connection.recv(1)


def death(server):
    """The error that a check raises once the server has died."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            server.check()
        except CandidateError as error:
            return error
        time.sleep(0.05)
    raise AssertionError("its death went unnoticed")


def test_a_death_while_it_serves_is_noticed(fake, tmp_path):
    with fake("dies-later").launch(BATCHED, tmp_path) as server:
        tell_to_die(server)
        error = death(server)
    assert "died while it served (killed by SIGABRT)" in error.message
    assert "std::bad_alloc" in error.log_tail


def test_a_ready_server_has_its_metrics_page(fake, tmp_path):
    with fake("serves").launch(BATCHED, tmp_path) as server:
        assert server.scrape() == "# /monitoring/prometheus/metrics\n"
    assert server.scrape() is None


def test_a_file_the_server_would_punish_starts_no_server(fake, tmp_path):
    config = Config(replace(BATCHED.batching, max_batch_size=0))
    error = refused(fake("serves"), tmp_path, BatchingError, config)
    assert "max_batch_size = 0" in error.message
    assert not (tmp_path / "server.log").exists()


def test_a_server_tells_its_version(fake):
    assert fake("serves").identify().version == "TensorFlow ModelServer: 2.19.0"


@pytest.mark.slow
def test_a_server_that_ignores_sigterm_is_killed(fake, tmp_path):
    with fake("ignores-sigterm").launch(BATCHED, tmp_path) as server:
        pid = server.endpoint.pid
    assert not psutil.pid_exists(pid)


SERVING = ["embedded", "binary", pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture(params=SERVING)
def serving(request, dense_model, tmp_path):
    """Every launcher with a server that serves: the embedded one, in three dresses."""
    cpus = frozenset({max(os.sched_getaffinity(0))})
    if request.param == "embedded":
        return embedded(scenario(dense_model), cpus)
    if request.param == "binary":
        script = tmp_path / "tensorflow_model_server"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m tuner.server.embedded "$@"\n')
        script.chmod(0o755)
        lines = f'launcher = "binary"\nbinary = "{script}"'
        return binary(scenario(dense_model, lines), cpus)
    request.getfixturevalue("docker_engine")
    return open_docker(
        scenario(dense_model, scenario_lines(EMBEDDED_IMAGE)), cpus, lambda _text: None
    )


@pytest.mark.slow
def test_a_served_model_answers_batched_and_counts_it(serving, dense_model, tmp_path):
    info = inspect(dense_model)
    part = MixPart(
        model=dense_model.name,
        signature=info.signature("serving_default"),
        version=None,
        version_label=None,
        weight=1.0,
        rows={1: 1.0},
        inputs=None,
        dims={},
    )
    pool = tmp_path / "requests.pool"
    build_pool([part], seed=1).save(pool)
    with serving.launch(BATCHED, tmp_path / "trial") as server:
        before = server.scrape()
        with Generator(server.endpoint.address, pool) as generator:
            statuses = generator.exercise([1, 8])
        server.check()
        counted = evidence(before, server.scrape())
    assert [status.code for status in statuses] == ["OK", "OK"]
    assert counted.batches == 2
    assert counted.rows_per_batch == 4.5
    assert (
        "Wrapping session to perform batch processing"
        in (tmp_path / "trial" / "server.log").read_text()
    )


@pytest.mark.slow
def test_a_model_that_is_not_there_is_named(tmp_path):
    asked = scenario(model=tmp_path / "m", server=f"start_timeout_s = {2 * PATIENCE_S}")
    error = refused(embedded(asked, None), tmp_path / "run", ModelError, Config(None))
    assert str(tmp_path / "m") in error.message


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


def test_what_a_process_started_goes_with_it(tmp_path):
    with launcher_of("process", "has-a-child").launch(BATCHED, tmp_path):
        child = int(logged(tmp_path, r"child (\d+)"))
        assert psutil.pid_exists(child)
    assert gone(child)


def test_a_process_dies_with_the_tuner(tmp_path):
    """`kill -9` of the tuner leaves it no time to stop anything."""
    script = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[str(FAKE.parent), str(FAKE.parents[1])]!r}
        from pathlib import Path
        from test_launchers import BATCHED, launcher_of
        launcher = launcher_of("process", "ignores-sigterm")
        with launcher.launch(BATCHED, Path({str(tmp_path)!r})) as server:
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


def test_a_binary_that_does_not_run_is_a_hosts_fault():
    missing = replace(launcher_of("process", "serves"), command=("/nowhere/server",))
    with pytest.raises(HostError, match="/nowhere/server: does not tell its version"):
        missing.identify()


def test_a_binary_that_is_not_there_is_a_hosts_fault():
    asked = scenario(server='launcher = "binary"\nbinary = "no-such-server"')
    with pytest.raises(HostError, match=r"(?s)'no-such-server' on the PATH.*embedded"):
        binary(asked, None)
