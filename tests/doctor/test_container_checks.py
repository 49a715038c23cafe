"""The engine, the image and GPUs: on a real Docker Engine, and with facts written down."""

import gc
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from commands.models import saved_model
from containers import EMBEDDED_IMAGE, EMPTY_IMAGE, FAKE_IMAGE, scenario_lines

from tuner.doctor.containers import (
    check_containers,
    check_driver,
    check_gpu_number,
    check_gpus,
    image_cuda,
)
from tuner.doctor.live import check_live
from tuner.doctor.models import check_models
from tuner.measure.gpu import Driver, driver
from tuner.scenario import parse
from tuner.server.cpus import place

docker = pytest.mark.docker
# The docker package leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def no_socket_is_left():
    yield
    gc.collect()


def scenario(folder, lines, models='[model]\npath = "m"\n'):
    text = f'name = "s"\n{models}[slo]\np99_ms = 50\n[server]\n{lines}\n'
    return parse(text, folder / "s.toml")


def checked(folder, lines):
    saved_model(folder / "m" / "1")
    found = []
    check_containers(scenario(folder, lines), place("auto", "auto"), found.append)
    return found


def red(found):
    (finding,) = [finding for finding in found if finding.light == "red"]
    assert finding.remedy
    return finding


@docker
def test_an_engine_and_an_image_that_are_ready(docker_engine, tmp_path):
    found = checked(tmp_path, scenario_lines(FAKE_IMAGE))
    assert [finding.light for finding in found] == ["green", "green"], found
    assert found[0].what.startswith(f"Docker {docker_engine.version} at ")
    assert f"{FAKE_IMAGE} starts: TensorFlow ModelServer: 2.19.0" in found[1].what


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_an_engine_that_does_not_run(monkeypatch, tmp_path, host):
    monkeypatch.setenv("DOCKER_HOST", host)
    found = red(checked(tmp_path, 'launcher = "docker"'))
    assert found.check == "engine"
    assert "systemctl start docker" in found.remedy


@docker
def test_a_socket_that_we_may_not_use(docker_engine, tmp_path):
    """As a user who is not in the group docker; root would be let in anywhere."""
    script = (
        "import os\n"
        "from tuner.doctor.finding import caught\n"
        "from tuner.server.containers.engine import connect\n"
        "connect().client.close()  # by now all modules are loaded\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "with caught('engine', lambda found: print(found.check, found.remedy)):\n"
        "    connect()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if os.geteuid() != 0:
        pytest.skip("only root may change users")
    assert done.stdout.startswith("engine-permission "), done.stderr
    assert "usermod -aG docker" in done.stdout


@docker
@pytest.mark.usefixtures("docker_engine")
def test_an_image_that_is_absent_and_cannot_be_had(tmp_path):
    found = checked(tmp_path, 'launcher = "docker"\nimage = "tuner-test/servng:1"')
    assert [finding.light for finding in found] == ["green", "yellow", "red"]
    assert "tuner-test/servng:1 is not on the engine yet" in found[1].what
    assert red(found).check in {"image", "registry"}  # the latter where there is no network
    assert "tuner-test/servng:1" in red(found).what


@docker
@pytest.mark.usefixtures("docker_engine")
def test_an_image_without_the_server(tmp_path):
    found = red(checked(tmp_path, scenario_lines(EMPTY_IMAGE)))
    assert "cannot start tensorflow_model_server" in found.what


@docker
@pytest.mark.usefixtures("docker_engine")
@pytest.mark.skipif(driver() is not None, reason="this machine has a GPU")
def test_gpus_without_nvidias_toolkit(tmp_path):
    """The request reaches the engine, which has no driver for it."""
    found = checked(tmp_path, scenario_lines(FAKE_IMAGE, 'gpus = "device=0"'))
    by_check = {finding.check: finding for finding in found}
    assert "no /dev/nvidia*" in by_check["gpu-devices"].what
    toolkit = by_check["gpu-toolkit"]
    assert 'could not select device driver "" with capabilities: [[gpu]]' in toolkit.what
    assert "NVIDIA container toolkit" in toolkit.remedy
    assert by_check["gpu-image"].light == "yellow"  # it holds no CUDA


@docker
@pytest.mark.slow
@pytest.mark.usefixtures("docker_engine")
def test_the_server_in_its_container_answers(exported, tmp_path):
    asked = scenario(
        tmp_path, scenario_lines(EMBEDDED_IMAGE), f'[model]\npath = "{exported / "affine"}"\n'
    )
    found = []
    models = check_models(asked, found.append)
    check_live(asked, models, place("auto", "auto"), tmp_path, found.append)
    assert {finding.light for finding in found} == {"green"}, found
    assert any(f"docker server ({EMBEDDED_IMAGE}) ready" in finding.what for finding in found)


GPUS = 'launcher = "docker"\ngpus = {}'


@pytest.fixture
def devices(tmp_path):
    """A /dev with two GPUs."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("gpus", "light"),
    [('"all"', "yellow"), ("2", "yellow"), ('"device=0,1"', "yellow"), ("1", "green"),
     ('"device=1"', "green")],
)  # fmt: skip
def test_several_gpus_for_one_model(tmp_path, devices, gpus, light):
    found = check_gpu_number(scenario(tmp_path, GPUS.format(gpus)), devices)
    assert found.light == light
    if light == "yellow":
        assert "one model is given 2 GPUs" in found.what
        assert "lower utilisation" in found.what
        assert "device=0" in found.remedy


def test_several_gpus_for_several_models(tmp_path, devices):
    models = '[[models]]\npath = "a"\n[[models]]\npath = "b"\n'
    asked = scenario(tmp_path, GPUS.format('"all"'), models)
    assert check_gpu_number(asked, devices).light == "green"


def test_no_devices_of_nvidia(tmp_path):
    found = check_gpu_number(scenario(tmp_path, GPUS.format('"all"')), tmp_path)
    assert (found.check, found.light) == ("gpu-devices", "red")


@pytest.mark.parametrize(
    ("told", "cuda", "light"),
    [
        ((12, 4), (12, 5), "green"),  # minor versions are compatible
        ((12, 4), (11, 8), "green"),
        ((11, 8), (12, 5), "red"),
        (None, (12, 5), "red"),
    ],
)
def test_a_driver_older_than_the_images_cuda(told, cuda, light):
    found = check_driver(Driver("550.54.15", told, ("NVIDIA H100",)), cuda)
    assert found.light == light
    assert "12.5" in found.what or "11.8" in found.what


def test_a_driver_that_does_not_answer():
    assert check_driver(None, (12, 5)).light == "red"


@pytest.mark.parametrize(
    ("variables", "cuda"),
    [
        ([], None),
        (["PATH=/bin"], None),
        (["CUDA_VERSION=12.5.1", "NVIDIA_REQUIRE_CUDA=cuda>=11.0"], (12, 5)),
        (["NVIDIA_REQUIRE_CUDA=cuda>=12.5 brand=tesla,driver>=470"], (12, 5)),
    ],
)
def test_an_image_tells_its_cuda(variables, cuda):
    assert image_cuda(variables) == cuda


@docker
def test_an_image_for_gpus_without_a_request(docker_engine, tmp_path):
    (found,) = check_gpus(scenario(tmp_path, 'launcher = "docker"'), docker_engine, (12, 5))
    assert (found.check, found.light) == ("gpu-request", "yellow")
    remote = replace(docker_engine, local=False)  # whose devices nobody sees from here
    assert check_gpus(scenario(tmp_path, GPUS.format(1)), remote, (12, 5)) == []
