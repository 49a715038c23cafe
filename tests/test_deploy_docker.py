"""The `docker run` that a report prints, run as it is printed."""

import secrets
import subprocess
import time
from dataclasses import replace

import pytest
from containers import EMBEDDED_IMAGE, scenario_lines

from tuner.batching import BatchingParameters
from tuner.deploy import MODELS_FILE, docker_run
from tuner.load.payload import MixPart, build_pool
from tuner.load.probe import ask
from tuner.model import inspect
from tuner.records import Config, ServerIdentity
from tuner.scenario import parse
from tuner.server.deployed import deployed_models_text, deployment

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.usefixtures("docker_engine")]

READY_S = 60


def published(name):
    done = subprocess.run(
        ["docker", "port", name, "8500"], capture_output=True, text=True, check=False
    )
    logs = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, logs.stdout + logs.stderr
    return done.stdout.split()[0]


def answer(address, message):
    """Ask until the server is up."""
    deadline = time.monotonic() + READY_S
    while True:
        found = ask(address, message)
        if found.status.code != "UNAVAILABLE" or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_the_command_starts_a_server_with_the_file_and_the_models(exported, tmp_path):
    text = f"""
        name = "s"
        [[models]]
        path = "{exported / "affine"}"
        version_labels = {{ stable = 1 }}
        version_label = "stable"
        [[models]]
        path = "{exported / "lengths"}"
        name = "it's"
        dims = {{ x = [2, 2] }}
        [slo]
        p99_ms = 50
        [server]
        {scenario_lines(EMBEDDED_IMAGE)}
    """
    scenario = parse(text, tmp_path / "s.toml")
    batching = BatchingParameters(max_batch_size=2, num_batch_threads=1)
    (tmp_path / "batching_parameters.txt").write_text(batching.to_text())
    (tmp_path / MODELS_FILE).write_text(deployed_models_text(scenario))
    identity = ServerIdentity("docker", "2.19.0", EMBEDDED_IMAGE)
    found = deployment(scenario, Config(batching), identity, tmp_path, cpus=(0,))
    command = docker_run(replace(found, name=f"tuner-test-{secrets.token_hex(4)}"))
    for port in (8500, 8501):  # a port of its own, on this host alone
        command = command.replace(f"--publish={port}:{port}", f"--publish=127.0.0.1::{port}")

    done = subprocess.run(
        ["sh", "-eu", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name = done.stdout.strip()
    try:
        address = published(name)
        info = inspect(exported / "affine", version=1)
        for rows, code in ((1, "OK"), (3, "INVALID_ARGUMENT")):  # the file is in force
            part = MixPart(
                model="affine",
                signature=info.signature(),
                version_label="stable",
                rows={rows: 1.0},
            )
            got = answer(address, build_pool([part], seed=1, max_messages=1).messages[0])
            assert got.status.code == code, got
        other = MixPart(
            model="it's",
            signature=inspect(exported / "lengths").signature(),
            dims={"x": (2, 2)},
        )
        message = build_pool([other], seed=1, max_messages=1).messages[0]
        assert answer(address, message).status.code == "OK"
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)
