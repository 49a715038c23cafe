"""Errors that operators of TensorFlow Serving meet, by their texts, with what mends them."""

import re
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


ERRORS = (
    _known(
        "engine-permission",
        r"permission denied.{0,200}docker|docker.{0,200}permission denied|"
        r"no permission to talk to the docker engine",
        "you may not use the Docker Engine's socket",
        "sudo usermod -aG docker $USER, then log in again; or run the tuner as root",
    ),
    _known(
        "engine",
        r"cannot connect to the docker daemon|error while fetching server api version|"
        r"no docker engine answers|"
        r"docker.{0,200}(connection refused|no such file or directory)",
        "the Docker Engine does not answer",
        "sudo systemctl start docker; for an engine elsewhere set DOCKER_HOST or a docker context",
    ),
    _known(
        "gpu-toolkit",
        r"could not select device driver .{0,40}capabilities: \[\[gpu\]\]",
        "Docker has no driver for GPUs: the NVIDIA Container Toolkit is not installed",
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure "
        "--runtime=docker && sudo systemctl restart docker",
    ),
    _known(
        "gpu-driver",
        r"unsatisfied condition: cuda|cuda driver version is insufficient|"
        r"forward compatibility was attempted on non supported hw",
        "the NVIDIA driver is older than the image's CUDA",
        "update the driver on the host, or choose an older image, such as "
        "tensorflow/serving:2.13.1-gpu",
    ),
    _known(
        "gpu-devices",
        r"no /dev/nvidia\*|nvidia-container-cli: initialization error|"
        r"failed call to cuinit|no cuda-capable device",
        "the server finds no GPU",
        'set server.gpus, such as "device=0" or "all"; check `nvidia-smi` on the host (the driver '
        "may not be loaded: sudo modprobe nvidia)",
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
        r"repository does not exist|not found: manifest|"
        r"is not on this engine and cannot be pulled",
        "there is no such image",
        "check server.image letter by letter; Docker Hub lists the tags of tensorflow/serving",
    ),
    _known(
        "port",
        r"port is already allocated|address already in use|failed to buildandstart",
        "a port is taken",
        "end what holds it (`ss -ltnp` names it); the tuner itself takes free ports",
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
"""Most telling first: the first pattern that a text matches decides."""


def recognise(text: str) -> Known | None:
    """The error that a text quotes, or None where it is none of these."""
    return next((known for known in ERRORS if known.pattern.search(text)), None)
