"""What only containers have, on a real engine: limits, ports, images, and ends from outside."""

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from containers import EMBEDDED_IMAGE, EMPTY_IMAGE, FAKE, FAKE_IMAGE, scenario_lines
from server.test_launchers import (
    BATCHED,
    death,
    launcher_of,
    nothing_is_left_behind,  # noqa: F401 - an autouse fixture
    refused,
    scenario,
    tell_to_die,
)

from tuner.errors import CandidateError, HostError
from tuner.server.containers.launcher import open_docker
from tuner.server.containers.owner import Owner, remove_orphans
from tuner.server.containers.request import container_request

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_engine")]


def opened(image, *lines):
    return open_docker(scenario(server=scenario_lines(image, *lines)), None, lambda _text: None)


def inspected(server):
    server.container.reload()
    return server.container.attrs


def test_a_container_has_no_privilege(tmp_path):
    with launcher_of("docker", "serves").launch(BATCHED, tmp_path) as server:
        host = inspected(server)["HostConfig"]
        config = inspected(server)["Config"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert all(mount["ReadOnly"] for mount in host["Mounts"])
    assert config["Entrypoint"] == ["tensorflow_model_server"]
    assert all(argument.startswith("--") and "=" in argument for argument in config["Cmd"])


def test_ports_are_published_on_loopback_alone(tmp_path):
    with launcher_of("docker", "serves").launch(BATCHED, tmp_path) as server:
        published = inspected(server)["NetworkSettings"]["Ports"]
    bindings = [binding for bindings in published.values() for binding in bindings or ()]
    assert len(bindings) == 2
    assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}
    assert server.endpoint.address.split(":")[1] in {binding["HostPort"] for binding in bindings}


def test_what_carries_the_traffic_is_known(tmp_path):
    with launcher_of("docker", "serves").launch(BATCHED, tmp_path) as server:
        names = {
            subprocess.run(
                ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=True
            ).stdout.strip()
            for pid in server.endpoint.relays
        }
    assert names == {"docker-proxy"}


def test_limits_and_mounts_are_those_asked_for(tmp_path):
    (tmp_path / "data").mkdir()
    lines = scenario_lines(FAKE_IMAGE, 'memory = "512m"', 'env = { HOW = "serves" }').replace(
        "mounts = [", f'mounts = ["{tmp_path}/data:/data:rw", '
    )
    launcher = open_docker(scenario(server=lines), frozenset({0}), lambda _text: None)
    with launcher.launch(BATCHED, tmp_path / "trial") as server:
        host = inspected(server)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (2**29, 2**29)
    assert host["CpusetCpus"] == "0"
    data = next(mount for mount in host["Mounts"] if mount["Target"] == "/data")
    assert not data.get("ReadOnly")


@pytest.mark.slow
def test_a_version_that_is_a_link_out_of_the_models_folder_is_found(exported, tmp_path):
    """As where a store holds the files, and directories of models only point into it."""
    version, base = tmp_path / "blobs" / "affine", tmp_path / "models" / "affine"
    version.mkdir(parents=True)
    base.mkdir(parents=True)
    for entry in (exported / "affine" / "1").iterdir():
        (version / entry.name).symlink_to(entry)
    (base / "1").symlink_to(version)
    launcher = open_docker(
        scenario(base, scenario_lines(EMBEDDED_IMAGE)), None, lambda _text: None
    )
    with launcher.launch(BATCHED, tmp_path / "trial") as server:
        server.check()


def test_a_model_that_needs_more_memory_than_the_limit(tmp_path):
    launcher = launcher_of("docker", "eats-memory", server=['memory = "64m"'])
    error = refused(launcher, tmp_path, CandidateError)
    assert "it needed more memory than server.memory allows" in error.message
    assert 'raise server.memory (now "64m")' in error.hint
    assert "loading a large model" in error.log_tail


def test_a_root_that_must_be_written_is_named(tmp_path):
    error = refused(launcher_of("docker", "writes-to-its-root"), tmp_path, HostError)
    assert 'server.root = "writable"' in error.hint
    launcher = launcher_of(
        "docker", "writes-to-its-root", server=['root = "writable"', 'user = "0:0"']
    )
    with launcher.launch(BATCHED, tmp_path) as server:
        server.check()


@pytest.mark.parametrize("how", ["kill", "stop", "remove"])
def test_an_end_from_outside_is_not_the_candidates(tmp_path, how):
    with launcher_of("docker", "serves").launch(BATCHED, tmp_path) as server:
        if how == "remove":
            server.container.remove(force=True)
        else:
            getattr(server.container, how)()
        with pytest.raises(HostError) as caught:
            server.check()
    expected = "removed by somebody else" if how == "remove" else "stopped from outside"
    assert expected in caught.value.message


def test_an_image_with_a_typo():
    with pytest.raises(HostError) as caught:
        opened("tuner-test/embeded:1")
    assert 'server.image: "tuner-test/embeded:1" is not on this engine' in caught.value.message
    assert "docker load" in caught.value.hint


def test_an_image_without_the_server():
    with pytest.raises(HostError) as caught:
        opened(EMPTY_IMAGE).identify()
    assert f'"{EMPTY_IMAGE}" cannot start tensorflow_model_server' in caught.value.message
    assert "No such file or directory" in caught.value.message


def test_gpus_that_the_engine_refuses():
    with pytest.raises(HostError) as caught:
        opened(FAKE_IMAGE, 'gpus = "device=0"').identify()
    assert 'could not select device driver "" with capabilities: [[gpu]]' in caught.value.message
    assert "NVIDIA container toolkit" in caught.value.hint


def test_an_engine_too_old_for_gpus(docker_engine):
    launcher = opened(FAKE_IMAGE, "gpus = 1")
    old = replace(docker_engine, version="18.09.1", api=(1, 39))
    with pytest.raises(HostError) as caught:
        replace(launcher, engine=old).identify()
    assert "server.gpus: Docker Engine 18.09.1 is too old for it" in caught.value.message
    assert "update the engine" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "count", "devices"),
    [
        ('"all"', -1, None),
        ("2", 2, None),
        ('"2"', 2, None),
        ('"device=0,GPU-a1"', 0, ["0", "GPU-a1"]),
    ],
)
def test_the_engine_receives_the_request_for_gpus(docker_engine, asked, count, devices):
    launcher = opened(FAKE_IMAGE, f"gpus = {asked}")
    request = container_request(
        launcher.scenario,
        docker_engine,
        launcher.image,
        arguments=[],
        folders=[],
        labels={},
        cpus=None,
    )
    container = docker_engine.client.containers.create(**request)
    try:
        (received,) = container.attrs["HostConfig"]["DeviceRequests"]
    finally:
        container.remove(force=True)
    assert received["Capabilities"] == [["gpu"]]
    assert (received["Count"], received["DeviceIDs"] or None) == (count, devices)


def test_a_runtime_that_the_engine_lacks():
    with pytest.raises(HostError) as caught:
        opened(FAKE_IMAGE, 'runtime = "nvidia"').identify()
    assert "server.runtime" in caught.value.hint


def test_a_memory_limit_that_the_engine_refuses():
    with pytest.raises(HostError) as caught:
        opened(FAKE_IMAGE, 'memory = "1m"').identify()
    assert "server.memory" in caught.value.hint


def test_a_mount_that_is_not_there():
    lines = scenario_lines(FAKE_IMAGE).replace("mounts = [", 'mounts = ["/no/such:/data", ')
    launcher = open_docker(scenario(server=lines), None, lambda _text: None)
    with pytest.raises(HostError) as caught:
        launcher.identify()
    assert "server.mounts" in caught.value.hint


def test_the_image_and_the_engine_are_recorded(docker_engine):
    identity = launcher_of("docker", "serves").identify()
    assert identity.launcher == "docker"
    assert identity.image == FAKE_IMAGE
    assert identity.digest == docker_engine.image(FAKE_IMAGE).id
    assert identity.engine == f"Docker {docker_engine.version}"


def orphan_maker(folder):
    """A tuner that holds a server until it is killed."""
    script = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[str(FAKE.parent), str(FAKE.parents[1])]!r}
        from pathlib import Path
        from test_launchers import BATCHED, launcher_of
        with launcher_of("docker", "serves").launch(BATCHED, Path({str(folder)!r})) as server:
            print(server.container.id, flush=True)
            input()
    """)
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ids(engine):
    found = engine.client.containers.list(all=True, filters={"label": "tuner.owner.pid"})
    return {container.id for container in found}


def test_the_next_start_removes_what_a_killed_tuner_left_and_nothing_else(docker_engine, tmp_path):
    with (
        orphan_maker(tmp_path / "run" / "trials" / "0007") as dying,
        orphan_maker(tmp_path / "run" / "trials" / "0008") as living,
    ):
        lost, kept = (process.stdout.readline().strip() for process in (dying, living))
        stranger = docker_engine.client.containers.create(FAKE_IMAGE, ["x"])
        try:
            dying.send_signal(signal.SIGKILL)
            dying.wait()
            assert {lost, kept} <= ids(docker_engine)  # nobody was left to remove it
            told = []
            open_docker(scenario(server=scenario_lines(FAKE_IMAGE)), None, told.append)
            assert lost not in ids(docker_engine)
            assert kept in ids(docker_engine)
            docker_engine.client.containers.get(stranger.id)
            assert any(f"{tmp_path}/run: trial 0007" in line for line in told)
        finally:
            stranger.remove(force=True)
        living.communicate("\n", timeout=30)
    assert kept not in ids(docker_engine)


@pytest.mark.parametrize(
    ("labels", "removed"),
    [
        ({}, False),
        ({"tuner.owner.started": "1"}, True),
        ({"tuner.owner.pid": "1073741824"}, True),
        ({"tuner.owner.pid": "1073741824", "tuner.owner.host": "elsewhere"}, False),
        ({"tuner.owner.pid": "1073741824", "tuner.owner.pids": "pid:[1]"}, False),
        ({"tuner.owner.pid": "1073741824", "tuner.owner.boot": "before"}, True),
        ({"tuner.owner.pid": "none"}, False),
    ],
    ids=["alive", "number-reused", "dead", "other-host", "other-namespace", "rebooted", "unread"],
)
def test_only_a_death_that_can_be_proven_counts(docker_engine, labels, removed):
    owner = Owner.this_process()
    container = docker_engine.client.containers.create(
        FAKE_IMAGE, ["x"], labels=owner.labels("run", "0001") | labels
    )
    try:
        remove_orphans(docker_engine, owner)
        assert (container.id not in ids(docker_engine)) == removed
    finally:
        if not removed:
            container.remove(force=True)


def test_a_running_container_of_another_boot_is_anothers(docker_engine, tmp_path):
    here = Owner.this_process()
    with launcher_of("docker", "serves").launch(BATCHED, tmp_path):
        labels = here.labels("run", "0001")
        assert not Owner.of(labels | {"tuner.owner.boot": "x"}).provably_dead(here, running=True)


def test_a_death_by_memory_while_it_serves(tmp_path):
    launcher = launcher_of("docker", "eats-memory-later", server=['memory = "64m"'])
    with launcher.launch(BATCHED, tmp_path) as server:
        tell_to_die(server)
        error = death(server)
    assert "died while it served (killed: it needed more memory" in error.message
    assert 'raise server.memory (now "64m")' in error.hint
