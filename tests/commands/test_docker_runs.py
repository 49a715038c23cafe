"""The main job in containers: to its end, and through the loss of the engine and of the tuner."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from commands.running import scenario, tuner
from commands.test_tune import only_run, wait_for_trials
from containers import EMBEDDED_IMAGE, FAKE_IMAGE, build, mounts, scenario_lines
from private_engine import PrivateEngine
from server.test_launchers import BATCHED, launcher_of

from tuner.errors import HostError

pytestmark = [
    pytest.mark.alone,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


def in_containers(folder, model, *more, trials=3, blocks=0):
    """A scenario whose trials take seconds and whose server is a container."""
    path = scenario(folder, model, trials=trials, blocks=blocks)
    lines = scenario_lines(EMBEDDED_IMAGE, *more)
    path.write_text(
        path.read_text().replace("[server.flags]", f"[server]\n{lines}\n[server.flags]")
    )
    return path


def of_run(engine, run):
    found = engine.client.containers.list(all=True, filters={"label": f"tuner.run={run}"})
    return [container.id for container in found]


def test_a_run_in_containers_to_its_end(tmp_path, dense_model, docker_engine):
    out = tmp_path / "results"
    done = tuner("tune", in_containers(tmp_path, dense_model, blocks=1), "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    run = only_run(out)
    server = run.environment()["server"]
    assert server["launcher"] == "docker"
    assert server["image"] == EMBEDDED_IMAGE
    assert server["digest"] == docker_engine.image(EMBEDDED_IMAGE).id
    assert server["engine"] == f"Docker {docker_engine.version}"
    records = run.trials()
    assert [record.role for record in records][:2] == ["off", "default"]
    assert all(record.levels for record in records)
    assert not any(record.swapped for record in records if record.role == "final")
    level = records[1].levels[-1].measurement
    assert level.host.server_cpu > 0
    assert level.server.batches > 0
    assert of_run(docker_engine, run.path) == []
    assert not (run.path / "versions").exists()


@pytest.mark.usefixtures("docker_engine")
def test_a_memory_limit_that_no_configuration_fits_ends_with_its_reason(tmp_path, dense_model):
    out = tmp_path / "results"
    path = in_containers(tmp_path, dense_model, 'memory = "60m"', trials=2)
    done = tuner("tune", path, "--out", out)
    assert done.returncode == 1
    assert "nothing can be recommended" in done.stderr
    assert "it needed more memory than server.memory allows" in done.stderr
    assert 'raise server.memory (now "60m")' in done.stderr
    assert [record.outcome for record in only_run(out).trials()] == ["failed", "failed"]
    assert (only_run(out).path / "report.html").exists()


def test_kill_9_leaves_a_container_that_the_next_start_removes(
    tmp_path, dense_model, docker_engine
):
    out = tmp_path / "results"
    path = in_containers(tmp_path, dense_model, trials=2)
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "tune", str(path), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = wait_for_trials(out, 1, process)
    while not of_run(docker_engine, run.path):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = of_run(docker_engine, run.path)
    before = run.trials()
    done = tuner("tune", "--resume", run.path)
    assert done.returncode == 0, done.stderr
    assert left not in of_run(docker_engine, run.path)
    assert run.trials()[: len(before)] == before
    assert len(run.trials()) >= 2


@pytest.fixture
def private_engine():
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("an engine that may be killed needs root and dockerd")
    engine = PrivateEngine()
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (PrivateEngine.kill, "no Docker Engine answers"),
        (PrivateEngine.stop, "stopped from outside|no Docker Engine answers"),
    ],
    ids=["crashed", "stopped"],
)
def test_the_engine_lost_in_mid_trial_and_back_again(
    tmp_path, dense_model, private_engine, end, message
):
    """A crash leaves the server running; `systemctl stop docker` ends it first, politely."""
    engine = private_engine.start()
    build(engine)
    out = tmp_path / "results"
    path = in_containers(tmp_path, dense_model, trials=2)
    environment = {**os.environ, "DOCKER_HOST": private_engine.host}

    def command(*argv):
        return private_engine.inside(sys.executable, "-m", "tuner", "tune", *argv)

    process = subprocess.Popen(
        command(path, "--out", out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    run = wait_for_trials(out, 1, process)
    while not of_run(engine, run.path):
        time.sleep(0.05)
    time.sleep(1)
    begun = run.trials()
    end(private_engine)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(message, said), said
    assert f"tuner tune --resume {run.path}" in said
    assert "Traceback" not in said
    before = run.trials()
    assert before[: len(begun)] == begun
    assert not any(record.failure for record in before)  # it is not the configuration's fault
    engine.client.close()

    engine = private_engine.start()
    left = of_run(engine, run.path)
    done = subprocess.run(
        command("--resume", run.path), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert run.trials()[: len(before)] == before
    assert len(run.trials()) >= 2
    assert of_run(engine, run.path) == []
    assert len(left) <= 1
    engine.client.close()


def test_no_port_is_left_to_publish_on(tmp_path, private_engine, monkeypatch):
    """The engine reads the range when it starts; one other container takes both ports."""
    narrow = "echo '40000 40001' > /proc/sys/net/ipv4/ip_local_port_range"
    subprocess.run(private_engine.inside("sh", "-c", narrow), check=True)
    engine = private_engine.start()
    build(engine)
    monkeypatch.setenv("DOCKER_HOST", private_engine.host)
    ports = {"8500/tcp": ("127.0.0.1",), "8501/tcp": ("127.0.0.1",)}
    engine.client.containers.run(
        FAKE_IMAGE,
        ["tensorflow_model_server"],
        detach=True,
        environment={"HOW": "hangs"},
        ports=ports,
        volumes=[f"{mount}:ro" for mount in mounts()],
    )
    launcher = launcher_of("docker", "serves")
    with pytest.raises(HostError) as caught, launcher.launch(BATCHED, tmp_path):
        pytest.fail("it was taken for ready")
    assert "all ports are allocated" in caught.value.message
    assert "ip_local_port_range" in caught.value.hint
    launcher.engine.client.close()
    engine.client.close()
