"""An engine on another host: reached over a real ssh, which is all that this host is let through.

The engine is this machine's, but nothing of the path is shorter for it: its socket and its ports
come through tunnels, and it is given copies of all files.
"""

import gc
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from containers import EMBEDDED_IMAGE, FAKE_IMAGE, scenario_lines
from remote_engine import SshDaemon, why_not
from server.test_keeper import WIDE, keeper_of
from server.test_launchers import (
    BATCHED,
    closed,
    nothing_is_left_behind,  # noqa: F401 - an autouse fixture
    refused,
    scenario,
)

from tuner.errors import CandidateError, HostError, ScenarioError
from tuner.load.payload import MixPart, build_pool
from tuner.load.probe import ask
from tuner.model import inspect
from tuner.server.containers.engine import connect
from tuner.server.containers.launcher import open_docker
from tuner.server.containers.ssh import Remote
from tuner.server.cpus import place

pytestmark = [
    pytest.mark.docker,
    # The docker package leaves a socket that could not connect to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("an sshd that lets us in needs root")
    if reason := why_not():
        pytest.skip(reason)
    daemon = SshDaemon(tmp_path_factory.mktemp("sshd"))
    yield daemon
    daemon.close()


@pytest.fixture
def remote(sshd, docker_engine, monkeypatch):
    """The engine by its ssh address, which is that of DOCKER_HOST; in it, the tests' images."""
    socket = docker_engine.where.removeprefix("unix://")
    monkeypatch.setenv("PATH", f"{sshd.folder}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", sshd.where(socket))
    yield docker_engine
    gc.collect()


def opened(model="/usr/share/doc/bash", image=FAKE_IMAGE, *lines, told=None):
    asked = scenario(model, scenario_lines(image, *lines))
    return open_docker(asked, None, (told if told is not None else []).append)


@pytest.fixture
def launcher(remote):
    launcher = opened("/usr/share/doc/bash", FAKE_IMAGE, 'env = { HOW = "serves" }')
    yield launcher
    launcher.close()


def ssh_processes():
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and process.name() == "ssh"
    ]


def volumes(engine):
    return {volume.id for volume in engine.client.volumes.list()}


def test_the_engine_is_reached_through_a_tunnel_that_ends_with_it(remote):
    engine = connect()
    assert not engine.local
    assert engine.version == remote.version
    assert len(ssh_processes()) == 1
    engine.close()
    assert ssh_processes() == []


def test_a_servers_ports_come_through_ssh_from_its_loopback(launcher, tmp_path):
    with launcher.launch(BATCHED, tmp_path / "trials" / "0000") as server:
        server.check()
        server.container.reload()
        published = server.container.attrs["NetworkSettings"]["Ports"]
        bindings = [item for items in published.values() for item in items]
        assert {item["HostIp"] for item in bindings} == {"127.0.0.1"}
        assert server.endpoint.address.startswith("127.0.0.1:")
        own = server.endpoint.address.partition(":")[2]
        assert own not in {item["HostPort"] for item in bindings}
        assert server.endpoint.pid is None
        assert server.scrape() == "# /monitoring/prometheus/metrics\n"
        assert len(ssh_processes()) == 2
    assert closed(server.endpoint.address)
    assert len(ssh_processes()) == 1


def test_nothing_is_left_on_the_engine(remote, tmp_path):
    before = volumes(remote)
    launcher = opened("/usr/share/doc/bash", FAKE_IMAGE, 'env = { HOW = "serves" }')
    with launcher.launch(BATCHED, tmp_path / "trial"):
        assert len(volumes(remote)) > len(before)
    launcher.close()
    assert volumes(remote) == before


def test_no_folder_of_this_host_is_mounted(launcher, tmp_path):
    with launcher.launch(BATCHED, tmp_path / "trial") as server:
        server.container.reload()
        mounts = server.container.attrs["Mounts"]
    bound = {mount["Destination"] for mount in mounts if mount["Type"] == "bind"}
    assert str(tmp_path / "trial") not in bound
    copied = {mount["Destination"]: mount["RW"] for mount in mounts if mount["Type"] == "volume"}
    assert copied["/usr/share/doc/bash"] is False
    assert str(tmp_path / "trial") in copied


def test_a_report_knows_what_lies_between(launcher):
    identity = launcher.identify()
    assert identity.through == "an ssh tunnel to 127.0.0.1"


def test_a_tunnel_that_ends_is_not_the_candidates(launcher, tmp_path):
    with launcher.launch(BATCHED, tmp_path / "trial") as server:
        server.tunnel.process.kill()
        server.tunnel.process.wait()
        with pytest.raises(HostError, match="the ssh tunnel is not there") as caught:
            server.check()
    assert "resumed" in caught.value.hint


def test_a_server_that_refuses_is_quoted_from_there_too(remote, tmp_path):
    launcher = opened("/usr/share/doc/bash", FAKE_IMAGE, 'env = { HOW = "refuses" }')
    error = refused(launcher, tmp_path, CandidateError)
    assert "INVALID_ARGUMENT: Invalid protobuf file: 'x'" in error.message
    launcher.close()


def test_a_key_that_is_not_let_in(remote, sshd, monkeypatch):
    monkeypatch.setenv("PATH", os.environ["PATH"].removeprefix(f"{sshd.folder}/bin:"))
    with pytest.raises(HostError) as caught:
        connect()
    assert caught.value.message.startswith(f"ssh://127.0.0.1:{sshd.port}: the ssh tunnel")
    assert "Host key verification failed" in caught.value.message
    assert "without a password" in caught.value.hint


def test_a_host_that_does_not_answer(monkeypatch):
    if reason := why_not():
        pytest.skip(reason)
    monkeypatch.setenv("DOCKER_HOST", "ssh://somebody@127.0.0.1:1")
    with pytest.raises(HostError, match=r"Connection refused") as caught:
        connect()
    assert "ssh somebody@127.0.0.1 docker version" in caught.value.hint


def test_a_socket_that_is_not_there(remote, sshd, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", sshd.where("/nowhere/docker.sock"))
    with pytest.raises(HostError, match="no Docker Engine answers"):
        connect()
    assert ssh_processes() == []


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("ssh://host", Remote("host")),
        ("ssh://me@host:2222", Remote("me@host", 2222)),
        ("ssh://host/run/user/1/docker.sock", Remote("host", None, "/run/user/1/docker.sock")),
    ],
)
def test_an_address_is_read_as_the_docker_command_reads_it(where, expected):
    assert Remote.of(where) == expected


@pytest.mark.parametrize(
    "where", ["ssh://", "ssh://me@", "ssh://h:port", "ssh://-oProxyCommand=x"]
)
def test_an_address_that_names_no_host(where):
    with pytest.raises(HostError, match="names no host"):
        Remote.of(where)


def test_processors_of_the_other_host_are_its_own():
    placement = place("4-7", "auto", frozenset({0, 1}), elsewhere=8)
    assert placement.server == {4, 5, 6, 7}
    assert placement.generator == {0}
    assert placement.apart
    assert placement.describe() == "server on 4,5,6,7 of another host, load generator on 0"
    with pytest.raises(ScenarioError, match=r"server\.cpus"):
        place("8", "auto", frozenset({0, 1}), elsewhere=8)


def test_kill_9_leaves_nothing_that_the_next_start_does_not_remove(remote, tmp_path):
    before = volumes(remote)
    script = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        from pathlib import Path
        from test_launchers import BATCHED
        from test_remote_engine import opened
        launcher = opened("/usr/share/doc/bash", {FAKE_IMAGE!r}, 'env = {{ HOW = "serves" }}')
        with launcher.launch(BATCHED, Path({str(tmp_path / "trial")!r})) as server:
            print(server.tunnel.process.pid, flush=True)
            input()
    """)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tuner:
        tunnel = int(tuner.stdout.readline())
        tuner.send_signal(signal.SIGKILL)
        tuner.wait()
    psutil.wait_procs([psutil.Process(tunnel)] if psutil.pid_exists(tunnel) else [], timeout=20)
    assert not psutil.pid_exists(tunnel)
    assert len(volumes(remote)) > len(before)
    told = []
    opened(told=told).close()
    assert sum("removed the container of a run that has ended" in line for line in told) == 2
    assert volumes(remote) == before


@pytest.fixture
def linked(exported, tmp_path):
    """A model whose version lies elsewhere."""
    base = tmp_path / "models" / "affine"
    base.mkdir(parents=True)
    (base / "1").symlink_to(exported / "affine" / "1")
    return base


def message(base, rows):
    part = MixPart(
        model="affine", signature=inspect(base).signature("serving_default"), rows={rows: 1.0}
    )
    return build_pool([part], seed=1, max_messages=1).messages[0]


@pytest.mark.slow
def test_a_configuration_is_swapped_in_over_there(remote, linked, tmp_path):
    told = []
    launcher = opened(linked, EMBEDDED_IMAGE, told=told)
    assert any(line.endswith("MB") and "copying to ssh://" in line for line in told)
    keeper = keeper_of(launcher, tmp_path)
    keeper.starts_s.append(600.0)
    try:
        with keeper.launch(BATCHED, tmp_path / "0") as server:
            first = ask(server.endpoint.address, message(linked, 16))
            assert "larger than maximum input batch size 8" in first.status.text
        with keeper.launch(WIDE, tmp_path / "1") as server:
            assert server.endpoint.swapped
            answer = ask(server.endpoint.address, message(linked, 16))
            assert (answer.status.code, answer.version) == ("OK", 2)
        keeper.close()
        with launcher.launch(WIDE, tmp_path / "2") as server:  # as the final starts it
            assert ask(server.endpoint.address, message(linked, 16)).status.code == "OK"
    finally:
        keeper.close()
        launcher.close()
