"""What is asked of the engine for one container: image, limits, mounts, GPUs, and no privilege."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount

from tuner.scenario import Scenario, ServerSection, parse_mount
from tuner.server.containers.copies import Copies, volume
from tuner.server.containers.engine import Engine
from tuner.server.containers.images import Image
from tuner.server.links import beyond

ENTRYPOINT = "tensorflow_model_server"
"""Started directly: the image's own script is a shell that passes no signal on."""

GRPC_PORT, REST_PORT = "8500/tcp", "8501/tcp"
LOOPBACK = ("127.0.0.1",)
SCRATCH = "/tmp"  # noqa: S108 - a file system of the container's own, in memory

GPU_API = (1, 40)
"""The engine's API that knows device requests: Docker 19.03."""


def container_request(
    scenario: Scenario,
    engine: Engine,
    image: Image,
    *,
    arguments: Sequence[str],
    folders: Sequence[Path],
    labels: Mapping[str, str],
    cpus: frozenset[int] | None,
    copies: Copies | None = None,
) -> dict[str, Any]:
    """Everything `client.containers.create` needs.

    `folders` are mounted where they lie on this host, so that a path means the same on both
    sides, and so is what the models' links lead to. On another host `copies` are mounted in place
    of them, and volumes, see `volumes_of`. Raises HostError for an engine too old.
    """
    server = scenario.server
    request: dict[str, Any] = {
        "image": image.id,
        "entrypoint": [ENTRYPOINT],
        "command": list(arguments),
        "labels": dict(labels),
        "detach": True,
        # As process 1 a server would not die of its own abort(), and would ignore `docker stop`.
        "init": True,
        "ports": {GRPC_PORT: LOOPBACK, REST_PORT: LOOPBACK},
        "mounts": _mounts(scenario, engine, folders, copies),
        "environment": {"HOME": SCRATCH, **server.env},
        "tmpfs": {SCRATCH: ""},
        "read_only": server.root == "read-only",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        # Whatever the engine's default is, this one can be read back.
        "log_config": LogConfig(type=LogConfig.types.JSON),
        **_identity(server, engine),
    }
    if copies is not None:
        request["volumes_from"] = [f"{copies.container.id}:ro"]
    if cpus is not None:
        request["cpuset_cpus"] = ",".join(map(str, sorted(cpus)))
    if server.memory:
        # Without swap of its own, a limit is a limit.
        request |= {"mem_limit": server.memory, "memswap_limit": server.memory}
    if server.runtime:
        request["runtime"] = server.runtime
    if server.gpus is not None:
        engine.require_api(GPU_API, "gpus")
        request["device_requests"] = [gpu_request(server.gpus)]
    return request


def gpu_request(gpus: str | int) -> DeviceRequest:
    """The device request of `docker run --gpus`: `all`, a count, or `device=0,1`."""
    kind, _, devices = str(gpus).partition("=")
    if kind == "device":
        return DeviceRequest(device_ids=devices.split(","), capabilities=[["gpu"]])
    return DeviceRequest(count=-1 if kind == "all" else int(kind), capabilities=[["gpu"]])


def volumes_of(
    scenario: Scenario, folders: Sequence[Path], copies: Copies | None
) -> tuple[Path, ...]:
    """The folders that a server on another host has of its own, to be filled before it starts."""
    copied = frozenset() if copies is None else copies.folders
    wanted = dict.fromkeys([*folders, *(model.path for model in scenario.served)])
    return tuple(path for path in wanted if path not in copied)


def _mounts(
    scenario: Scenario, engine: Engine, folders: Sequence[Path], copies: Copies | None
) -> list[Mount]:
    asked = [parse_mount(text) for text in scenario.server.mounts]
    given = [
        Mount(target, source, type="bind", read_only=not writable)
        for source, target, writable in asked
    ]
    if not engine.local:
        return [*map(volume, volumes_of(scenario, folders, copies)), *given]
    models = [model.path for model in scenario.served]
    there = [*folders, *(Path(target) for source, target, _ in asked if source == target)]
    own = dict.fromkeys([*folders, *models, *beyond(models, there)])
    return [
        *(Mount(str(path), str(path), type="bind", read_only=True) for path in own),
        *given,
    ]


def _identity(server: ServerSection, engine: Engine) -> dict[str, Any]:
    """Run as whom: as ourselves, since without capabilities even root reads only its own files.

    A rootless engine maps its root to its user, and what a remote one may read is not known here.
    """
    if server.user:
        return {"user": server.user}
    if not engine.local or engine.rootless:
        return {}
    return {
        "user": f"{os.getuid()}:{os.getgid()}",
        "group_add": [str(group) for group in os.getgroups()],
    }
