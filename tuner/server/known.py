"""Errors that operators of TensorFlow Serving meet, by their texts, with what mends them.

The one table of them: the launchers quote an error with its remedy, doctor names it as well.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """One error: a stable name, what it means, what to do."""

    check: str
    pattern: re.Pattern[str]
    what: str
    remedy: str


def _known(check: str, pattern: str, what: str, remedy: str) -> Known:
    return Known(check, re.compile(pattern, re.IGNORECASE | re.DOTALL), what, remedy)


ENGINE = (
    _known(
        "engine-permission",
        r"permission denied.{0,80}(docker daemon|docker\.sock)|permissionerror\(13|"
        r"no permission to talk to the docker engine",
        "you may not use the Docker Engine's socket",
        "join the group docker (sudo usermod -aG docker $USER) and log in again; or run the tuner "
        "as root",
    ),
    _known(
        "engine",
        r"cannot connect to the docker daemon|error while fetching server api version|"
        r"no docker engine answers|"
        r"docker daemon.{0,200}(connection refused|no such file or directory)",
        "the Docker Engine does not answer",
        "start it (sudo systemctl start docker), or name it with DOCKER_HOST or a docker context; "
        "a run that was stopped can be resumed",
    ),
    _known(
        "gpu-toolkit",
        r"could not select device driver",
        "Docker has no driver for GPUs: the NVIDIA container toolkit is not installed",
        "install the NVIDIA container toolkit, run `sudo nvidia-ctk runtime configure "
        "--runtime=docker` and restart Docker; or remove server.gpus",
    ),
    _known(
        "gpu-devices",
        r"nvidia-container-cli: initialization error",
        "the engine finds no GPU",
        "check `nvidia-smi` on the engine's host (the driver may not be loaded: sudo modprobe "
        "nvidia), or remove server.gpus",
    ),
    _known(
        "gpu-driver",
        r"unsatisfied condition: cuda|nvidia-container-cli|libnvidia|nvidia-smi",
        "the NVIDIA driver is older than the image's CUDA, or does not fit it",
        "see that nvidia-smi works, then update the driver, or choose an image whose CUDA it "
        "runs, such as tensorflow/serving:2.13.1-gpu",
    ),
    _known(
        "runtime",
        r"unknown or invalid runtime name|unknown runtime",
        "the engine has no such runtime",
        "correct server.runtime; `docker info` lists what the engine has",
    ),
    _known(
        "registry",
        r"cannot be pulled.{0,300}(no such host|dial tcp|i/o timeout|tls handshake|"
        r"server misbehaving)",
        "the image is not here, and its registry cannot be reached",
        "check the network, or bring the image by docker save and docker load",
    ),
    _known(
        "image",
        r"pull access denied|manifest (for .{0,200})?(unknown|not found)|no such image|"
        r"repository does not exist|not found: manifest|invalid reference format|"
        r"is not on this engine and cannot be pulled",
        "there is no such image",
        "check server.image letter by letter, such as tensorflow/serving:2.20.0; Docker Hub lists "
        "its tags",
    ),
    _known(
        "port",
        r"port is already allocated|all ports are allocated|address already in use|"
        r"failed to buildandstart",
        "a port is taken",
        "end what holds it (`ss -ltnp` names it); the tuner takes free ports itself: where none "
        "is left, widen net.ipv4.ip_local_port_range",
    ),
    _known(
        "init",
        r"docker-init",
        "the engine lacks its init process",
        "install docker-init beside the engine (on Debian the package tini)",
    ),
    _known(
        "program",
        r"executable file not found|no such file or directory: unknown|exec format error",
        "the image holds no tensorflow_model_server for this machine",
        "correct server.image",
    ),
    _known(
        "mount",
        r"bind source path does not exist",
        "a mount leads nowhere",
        "correct server.mounts, or the model's path",
    ),
    _known(
        "disk",
        r"no space left on device",
        "a disk is full",
        "make room where the engine keeps its data",
    ),
    _known(
        "cpus",
        r"requested cpus are not available",
        "the engine's host has not these processors",
        "correct server.cpus",
    ),
    _known(
        "memory-limit",
        r"minimum memory limit|invalid memory|memory limit",
        "the engine refuses the memory limit",
        "raise server.memory",
    ),
)
"""What the Docker Engine says, most telling first."""

SERVER = (
    _known(
        "gpu-driver",
        r"cuda driver version is insufficient|"
        r"forward compatibility was attempted on non supported hw",
        "the NVIDIA driver is older than the image's CUDA",
        "update the driver on the host, or choose an older image, such as "
        "tensorflow/serving:2.13.1-gpu",
    ),
    _known(
        "gpu-devices",
        r"no /dev/nvidia\*|failed call to cuinit|no cuda-capable device",
        "the server finds no GPU",
        'set server.gpus, such as "device=0" or "all"; check `nvidia-smi` on the host (the driver '
        "may not be loaded: sudo modprobe nvidia)",
    ),
    _known(
        "model-name",
        r"servable not found for request|could not find any versions of model",
        "the server holds no model of the name or version that requests ask for",
        "model.name (or the last part of model.path) must be what clients put into "
        "model_spec.name, and model.version one that is served",
    ),
    _known(
        "version-label",
        r"unrecognized servable version label|request to assign label",
        "the version label names no version that is served",
        "add the label to model.version_labels with a version that lies under model.path",
    ),
    _known(
        "model-path",
        r"could not find base path|no versions of servable|did you forget to name your leaf",
        "the server finds no model: the base path or its numeric version directory is missing",
        "model.path must hold a directory named by a number, such as 1/, with saved_model.pb",
    ),
    _known(
        "message-size",
        r"received message larger than max|sent message larger than max",
        "a message is larger than its receiver takes",
        "raise grpc.max_receive_message_length: in clients as a channel option (-1: no limit), at "
        "the server in grpc_channel_arguments",
    ),
    _known(
        "not-batchable",
        r"batching run\(\) input tensors must|batched output tensor|"
        r"input tensors must have (equal 0th|at least one) dimension",
        "the model cannot be batched: an input or output has no common first dimension",
        "export it with an open first dimension on every input and output",
    ),
    _known(
        "input-shapes",
        r"different tasks have different shapes and padding is turned off",
        "requests of different shapes meet in one batch",
        "pad inputs to one shape in the client, or send each shape to a signature of its own",
    ),
    _known(
        "batch-too-small",
        r"is larger than maximum input batch size",
        "a request has more rows than max_batch_size",
        "raise search.space.max_batch_size, or set enable_large_batch_splitting = [true]",
    ),
    _known(
        "thread-cap",
        r"server threadpool exhausted",
        "more requests are in flight than grpc_max_threads",
        "leave grpc_max_threads to the tuner, or raise it above load.outstanding_limit",
    ),
    _known(
        "flag",
        r"unknown argument",
        "the server does not know a flag, and would go on without it",
        "check server.flags and search.space.flags against `tensorflow_model_server --help` of "
        "this version",
    ),
    _known(
        "memory",
        r"oom when allocating|out of memory|resource exhausted: failed to allocate|"
        r"cuda_error_out_of_memory|std::bad_alloc|killed by sigkill|oomkilled|out-of-memory",
        "the server ran out of memory",
        "raise server.memory, lower search.space.max_batch_size, or on a GPU "
        "per_process_gpu_memory_fraction of whatever else uses it",
    ),
    _known(
        "queue-full",
        r"batch scheduling queue to which this task was submitted is full",
        "the batching queue is full",
        "raise max_enqueued_batches; the tuner's own search keeps it unbounded",
    ),
    _known(
        "unavailable",
        r"failed to connect to all addresses|connection refused|unavailable",
        "nothing answers at the server's address",
        "a wrong port is the usual cause: gRPC is 8500, REST 8501; look at `docker ps` for the "
        "published one",
    ),
)
"""What the model server says, most telling first."""


def recognise(text: str, errors: Sequence[Known] = (*ENGINE, *SERVER)) -> Known | None:
    """The error that a text quotes, the first whose pattern it matches; None where it is none."""
    return next((known for known in errors if known.pattern.search(text)), None)


def named(check: str) -> Known:
    """The first error of this name."""
    return next(known for known in (*ENGINE, *SERVER) if known.check == check)
