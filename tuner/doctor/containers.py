"""Checks of the Docker Engine, the image and what it is given of the GPUs."""

import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tuner.doctor.finding import Finding, Report, caught
from tuner.measure.gpu import Driver, driver
from tuner.scenario import Scenario
from tuner.server.containers import images
from tuner.server.containers.engine import Engine, connect
from tuner.server.containers.launcher import DockerLauncher, require_reachable
from tuner.server.containers.owner import Owner
from tuner.server.cpus import Placement

DEVICES = Path("/dev")


def check_containers(scenario: Scenario, placement: Placement, report: Report) -> None:
    """Reach the engine, have the image, and start it once as every trial will."""
    with caught("engine", report), ExitStack() as stack:
        engine = connect()
        stack.callback(engine.close)
        require_reachable(engine)
        report(Finding("engine", "green", f"Docker {engine.version} at {engine.where}"))
        if not engine.local:
            report(far_away(engine))
        if engine.local and scenario.server.gpus is not None:
            report(check_gpu_number(scenario))
        if engine.image(scenario.server.image) is None:
            report(
                Finding(
                    "image",
                    "yellow",
                    f"{scenario.server.image} is not on the engine yet, and is pulled now",
                    f"docker pull {scenario.server.image}, before a night without a network",
                )
            )
        with caught("image", report):
            image = images.find(engine, scenario.server.image, lambda _text: None)
            found = engine.image(image.name)
            variables = [] if found is None else found.attrs["Config"].get("Env") or []
            for finding in check_gpus(scenario, engine, image_cuda(variables)):
                report(finding)
            owner = Owner.this_process()
            identity = DockerLauncher(scenario, engine, image, owner, placement.server).identify()
            report(
                Finding(
                    "image", "green", f"{image.name} starts: {identity.version} ({image.digest})"
                )
            )


def far_away(engine: Engine) -> Finding:
    """What an engine on another host means for the figures."""
    return Finding(
        "remote-engine",
        "yellow",
        f"servers run on another host, {engine.cpus} processors, through ssh: every latency has "
        "the network and the tunnel in it; models are copied there, server.mounts are its own "
        "folders, and neither its clocks nor its processors' use are seen from here",
        "for figures of the server alone run tuner on that host",
    )


def check_gpus(scenario: Scenario, engine: Engine, cuda: tuple[int, int] | None) -> list[Finding]:
    """The GPUs a scenario asks for, against the image's CUDA and this host's driver."""
    asked = scenario.server.gpus
    if asked is None:
        if cuda is None:
            return []
        return [
            Finding(
                "gpu-request",
                "yellow",
                f"{scenario.server.image} is made for GPUs, but server.gpus asks for none",
                'set server.gpus = "device=0"',
            )
        ]
    if cuda is None:
        return [
            Finding(
                "gpu-image",
                "yellow",
                f"{scenario.server.image} does not say that it holds CUDA: the server may not use "
                "the GPU",
                "choose an image for GPUs, such as tensorflow/serving:2.20.0-gpu",
            )
        ]
    return [check_driver(driver(), cuda)] if engine.local else []


def check_gpu_number(scenario: Scenario, devices: Path = DEVICES) -> Finding:
    """Whether the host has GPUs, and whether one model is given several."""
    there = sorted(path.name for path in devices.glob("nvidia[0-9]*"))
    if not there:
        return Finding(
            "gpu-devices",
            "red",
            f"server.gpus = {scenario.server.gpus!r}, but there are no /dev/nvidia* here",
            "check `nvidia-smi`; install NVIDIA's driver or load it (sudo modprobe nvidia), or "
            "remove server.gpus",
        )
    count = gpu_count(scenario.server.gpus, len(there))
    if count > 1 and len(scenario.served) == 1:
        return Finding(
            "gpu-request",
            "yellow",
            f"one model is given {count} GPUs, and TensorFlow Serving runs a model on one: "
            "several are reported to lower utilisation",
            'set server.gpus = "device=0", and run one server for each GPU',
        )
    return Finding("gpu-request", "green", f"{count} of {len(there)} GPUs are asked for")


def gpu_count(asked: str | int | None, there: int) -> int:
    """How many GPUs `--gpus` gives a container on a host with `there`."""
    text = str(asked)
    if text == "all":
        return there
    return int(text) if text.isdigit() else text.count(",") + 1


def check_driver(found: Driver | None, cuda: tuple[int, int]) -> Finding:
    """Whether the driver runs the CUDA that an image was built with.

    A driver runs every minor version of the newest CUDA it knows, and all older ones.
    """
    wanted = ".".join(map(str, cuda))
    if found is None or found.cuda is None:
        return Finding(
            "gpu-driver",
            "red",
            f"the image needs CUDA {wanted}, and no NVIDIA driver answers here",
            "check `nvidia-smi`; install the driver, or remove server.gpus",
        )
    told = f"driver {found.version} runs CUDA up to {found.cuda[0]}.{found.cuda[1]}"
    if found.cuda[0] < cuda[0]:
        return Finding(
            "gpu-driver",
            "red",
            f"{told}; the image was built with {wanted}",
            "update the driver on this host, or choose an older image",
        )
    return Finding("gpu-driver", "green", f"{told}; the image's is {wanted}")


def image_cuda(variables: Iterable[str]) -> tuple[int, int] | None:
    """The CUDA of an image by its environment, as NVIDIA's base images set it; None without."""
    values = dict(item.partition("=")[::2] for item in variables)
    text = values.get("CUDA_VERSION") or values.get("NVIDIA_REQUIRE_CUDA", "")
    version = re.search(r"(\d+)\.(\d+)", text)
    return (int(version[1]), int(version[2])) if version else None
