"""Checks of the host, under conditions that are really so wherever a test can make them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from containers import FAKE_IMAGE, mounts

from tuner.doctor.host import (
    check_clocks,
    check_gpu,
    check_ports,
    check_processors,
    check_quota,
    check_threads,
    cpu_quota,
    pace_of,
)
from tuner.measure.gpu import driver
from tuner.scenario import parse
from tuner.server.cpus import Placement

CGROUP = Path("/sys/fs/cgroup")


def scenario(rest=""):
    text = f'name = "s"\n[model]\npath = "/m"\n[slo]\np99_ms = 50\n{rest}'
    return parse(text, Path("/s.toml"))


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        found = check_ports((port,))
        assert found.light == "yellow"
        assert f"something listens on {port}" in found.what
        assert f":{port}" in found.remedy
    assert check_ports((port,)).light == "green"


def test_processors_that_are_shared_are_named():
    shared = Placement(frozenset({0}), frozenset({0}))
    assert check_processors(shared).light == "yellow"
    assert check_processors(Placement(frozenset({1}), frozenset({0}))).light == "green"


@pytest.mark.parametrize(("quota", "light"), [(None, "green"), (4.0, "green"), (1.5, "yellow")])
def test_a_quota_below_the_processors_seen(quota, light):
    found = check_quota(quota, 4)
    assert found.light == light
    if light == "yellow":
        assert "the quota is 1.5 processors, but the server sees 4" in found.what
        assert "at most 1" in found.remedy


def test_the_least_quota_along_the_control_groups_counts(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert cpu_quota(tmp_path, own) is None
    (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path, own) is None
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path, own) == 1.5


def test_quotas_of_the_first_version_are_read_too(tmp_path):
    own = tmp_path / "own"
    own.write_text("11:memory:/m\n4:cpu,cpuacct:/c\n")
    (tmp_path / "cpu" / "c").mkdir(parents=True)
    (tmp_path / "cpu" / "c" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "c" / "cpu.cfs_period_us").write_text("50000\n")
    assert cpu_quota(tmp_path, own) is None
    (tmp_path / "cpu" / "c" / "cpu.cfs_quota_us").write_text("100000\n")
    assert cpu_quota(tmp_path, own) == 2.0


def test_no_control_groups_are_no_quota(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "missing") is None


QUOTAS = {
    CGROUP: {"cpu.max": "50000 100000"},
    CGROUP / "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
}
"""Half a processor, in control groups of either version, by where they are mounted."""


@pytest.fixture
def half_a_processor():
    """A control group with a real quota; a skip that says why where none can be made."""
    for root, settings in QUOTAS.items():
        group = root / f"tuner-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if all((group / name).exists() for name in settings):
                for name, value in settings.items():
                    (group / name).write_text(value)
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no control group with the cpu controller can be made here")


def test_a_real_quota_is_seen_from_inside(half_a_processor):
    script = (
        "import os, pathlib, sys\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from tuner.doctor.host import cpu_quota\n"
        "print(cpu_quota())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(half_a_processor)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0.5\n"


@pytest.mark.docker
def test_the_quota_of_a_container_is_seen_from_inside(docker_engine):
    """What `docker run --cpus=0.5` gives."""
    said = docker_engine.client.containers.run(
        FAKE_IMAGE,
        entrypoint=[sys.executable, "-c"],
        command=["from tuner.doctor.host import cpu_quota; print(cpu_quota())"],
        nano_cpus=500_000_000,
        volumes=[f"{mount}:ro" for mount in mounts()],
        remove=True,
    )
    assert said == b"0.5\n"


@pytest.mark.parametrize(
    ("rest", "light", "text"),
    [
        ("", "green", "up to 4 batch threads, 4 threads in an operator, on 4 processors"),
        (
            "[server.flags]\ntensorflow_intra_op_parallelism = 1\n",
            "green",
            "up to 4 batch threads, 1 thread in an operator",
        ),
        (
            "[search.space]\nnum_batch_threads = [1, 16]\n",
            "yellow",
            "64 threads may compute at once",
        ),
        (
            "[search.space.flags]\ntensorflow_session_parallelism = [2, 8]\n",
            "yellow",
            "32 threads may compute at once",
        ),
    ],
)
def test_threads_that_the_server_will_start(rest, light, text):
    found = check_threads(scenario(rest), cpus=4)
    assert found.light == light
    assert text in found.what


def test_a_processor_that_is_shared_is_not_steady():
    cpu = min(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as rival:
        rival.stdout.readline()
        try:
            found = check_clocks(cpu)
        finally:
            rival.kill()
    assert found.light == "yellow"
    assert "is not steady" in found.what
    assert "others had the processor" in found.what


def test_timing_leaves_the_process_where_it_was():
    before = os.sched_getaffinity(0)
    assert pace_of(min(before)).spread >= 0
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(driver() is not None, reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_and_absent():
    assert check_gpu(scenario()).light == "green"
    found = check_gpu(scenario('[search]\ndevice = "gpu"\n'))
    assert found.light == "red"
    assert "nvidia-smi" in found.remedy
