"""How a recommendation is started: `docker run`, a compose service, a Kubernetes container.

All three are meant for a directory that holds the run's `batching_parameters.txt` (and
`models.config`, where several models or versions are served): the run directory is one.

    for snippet in snippets(recommendation):      # the object of recommendation.json
        print(snippet.title, snippet.text)
"""

import csv
import io
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import yaml

GRPC_PORT = 8500
REST_PORT = 8501
"""TensorFlow Serving's customary ports; Prometheus metrics are on the second."""

CONFIG_DIR = "/config"
MODELS_DIR = "/models"
MODELS_FILE = "models.config"
PROGRAM = "tensorflow_model_server"
SERVICE = "tensorflow-serving"

CONFIG_FLAGS = frozenset({"batching_parameters_file", "model_config_file"})
"""Flags whose files lie beside the recommendation, and in CONFIG_DIR inside a container."""

OP_THREADS = (
    "tensorflow_session_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
)

SnippetName = Literal["docker", "compose", "kubernetes"]


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """A servable's name, and the directory that holds its versions.

    `path` is the measuring host's, or relative to the run directory for a model that this
    project made beside it.
    """

    name: str
    path: str

    @property
    def mounted(self) -> str:
        """Where a container sees the directory."""
        return f"{MODELS_DIR}/{self.name}"


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of the host that the container sees at `target`."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """What must be started, and on what, for a recommendation's figures to hold.

    `flags` are the server's, by name; files are given by their bare names (see CONFIG_FLAGS).
    `cpus` are the processors the server was measured on, empty where it had them all. `gpus` is
    what `docker run --gpus` takes: `all`, a count, or `device=0,1`. `measured_image` says whether
    `image` is what was measured, or the like of it. `mounts` are those beside the models.
    """

    name: str
    image: str
    flags: Mapping[str, str]
    models: tuple[DeployedModel, ...]
    measured_image: bool = True
    cpus: tuple[int, ...] = ()
    gpus: str = ""
    runtime: str = ""
    memory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Render as plain JSON values, for `recommendation.json`."""
        values = asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` rendered."""
        return cls(
            **{
                **values,
                "models": tuple(DeployedModel(**model) for model in values["models"]),
                "cpus": tuple(values["cpus"]),
                "mounts": tuple(Mount(**mount) for mount in values.get("mounts", ())),
            }
        )

    @property
    def arguments(self) -> list[str]:
        """The server's command line inside a container."""
        flags = {"port": str(GRPC_PORT), "rest_api_port": str(REST_PORT)}
        if "model_config_file" not in self.flags:
            flags |= {
                "model_name": self.models[0].name,
                "model_base_path": self.models[0].mounted,
            }
        flags |= {
            name: f"{CONFIG_DIR}/{value}" if name in CONFIG_FLAGS else value
            for name, value in self.flags.items()
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    @property
    def files(self) -> tuple[str, ...]:
        """Files that the server reads from CONFIG_DIR."""
        return tuple(value for name, value in self.flags.items() if name in CONFIG_FLAGS)

    @property
    def binds(self) -> tuple[Mount, ...]:
        """Everything that is mounted; the run directory, where it is needed, as `.`."""
        models = (Mount(model.path, model.mounted) for model in self.models)
        config = (Mount(".", CONFIG_DIR),) if self.files else ()
        return (*models, *self.mounts, *config)

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPUs asked for by index or UUID; empty where they are asked for by number."""
        _, found, listed = self.gpus.partition("device=")
        return tuple(item for item in listed.split(",") if item) if found else ()


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to start the recommendation: `text` is whole and ready to be copied.

    `note` says in a sentence what the reader has to know before using it.
    """

    name: SnippetName
    title: str
    text: str
    note: str


def snippets(recommendation: Mapping[str, Any]) -> tuple[Snippet, ...]:
    """Every way to start what `recommendation.json` recommends; none where it does not say how."""
    described = recommendation.get("deployment")
    if not described:
        return ()
    deployment = Deployment.from_dict(described)
    here = (
        f"Run it where {' and '.join(deployment.files)} "
        f"{'lies' if len(deployment.files) == 1 else 'lie'}: in the run's directory."
        if deployment.files
        else "It reads no file of the run."
    )
    image = (
        ""
        if deployment.measured_image
        else f" {deployment.image} was not what was measured: put your image in its place."
    )
    return (
        Snippet("docker", "docker run", docker_run(deployment), here + image),
        Snippet("compose", "Compose service", compose(deployment), here + image),
        Snippet("kubernetes", "Kubernetes container", kubernetes(deployment), here + image),
    )


def docker_run(deployment: Deployment) -> str:
    """The `docker run` command, one option a line, quoted for a POSIX shell."""
    options = [
        f"--name={_label(deployment.name)}",
        f"--publish={GRPC_PORT}:{GRPC_PORT}",
        f"--publish={REST_PORT}:{REST_PORT}",
    ]
    if deployment.gpus:
        options.append(f"--gpus={_gpus_option(deployment.gpus)}")
    if deployment.runtime:
        options.append(f"--runtime={deployment.runtime}")
    if deployment.cpus:
        options.append(f"--cpuset-cpus={_ranges(deployment.cpus)}")
    if deployment.memory:
        options.append(f"--memory={deployment.memory}")
    options += [f"--env={name}={value}" for name, value in deployment.environment.items()]
    words = ["docker run --detach", *map(shlex.quote, options)]
    words += map(_shell_mount, deployment.binds)
    words.append(f"--entrypoint={PROGRAM}")
    words.append(shlex.quote(deployment.image))
    words += map(shlex.quote, deployment.arguments)
    return " \\\n  ".join(words) + "\n"


def compose(deployment: Deployment) -> str:
    """A compose file with one service."""
    service: dict[str, Any] = {
        "image": deployment.image,
        "entrypoint": [PROGRAM],
        "command": deployment.arguments,
        "ports": [f"{GRPC_PORT}:{GRPC_PORT}", f"{REST_PORT}:{REST_PORT}"],
        "volumes": [
            {
                "type": "bind",
                "source": bind.source,
                "target": bind.target,
                "read_only": not bind.writable,
            }
            for bind in deployment.binds
        ],
    }
    if deployment.environment:
        service["environment"] = dict(deployment.environment)
    if deployment.cpus:
        service["cpuset"] = _ranges(deployment.cpus)
    if deployment.memory:
        service["mem_limit"] = deployment.memory
    if deployment.runtime:
        service["runtime"] = deployment.runtime
    if deployment.gpus:
        request: dict[str, Any] = {"driver": "nvidia", "capabilities": ["gpu"]}
        if deployment.devices:
            request["device_ids"] = list(deployment.devices)
        else:
            request["count"] = _gpu_count(deployment) or "all"
        service["deploy"] = {"resources": {"reservations": {"devices": [request]}}}
    # Compose fills in `$NAME`; a dollar of our own is written twice.
    return _yaml(_mapped({"services": {SERVICE: service}}, lambda text: text.replace("$", "$$")))


def kubernetes(deployment: Deployment) -> str:
    """The `containers` and `volumes` of a pod's `spec`."""
    config = f"{_label(deployment.name)}-config"
    volumes, places = _volumes(deployment, config)
    container: dict[str, Any] = {
        "name": SERVICE,
        "image": deployment.image,
        "command": [PROGRAM],
        # The kubelet fills in `$(NAME)`; a dollar of our own is written twice.
        "args": [argument.replace("$(", "$$(") for argument in _pod_arguments(deployment)],
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "http", "containerPort": REST_PORT},
        ],
        "readinessProbe": {"tcpSocket": {"port": "grpc"}},
    }
    if deployment.environment:
        container["env"] = [
            {"name": name, "value": value} for name, value in deployment.environment.items()
        ]
    if limits := _limits(deployment):
        container["resources"] = {"requests": dict(limits), "limits": limits}
    container["volumeMounts"] = places
    pod: dict[str, Any] = {"containers": [container], "volumes": volumes}
    if deployment.runtime:
        pod["runtimeClassName"] = deployment.runtime
    head = "# hostPath is where it lay when it was measured; name your own volume.\n"
    if deployment.files:
        files = " ".join(f"--from-file={name}" for name in deployment.files)
        head = f"# First: kubectl create configmap {config} {files}\n{head}"
    return head + _yaml(pod)


def _pod_arguments(deployment: Deployment) -> list[str]:
    """The server's command line in a pod, whose quota TensorFlow does not see.

    It counts the node's processors, so the number of threads in an operator is said where the
    measured server had some of the processors only.
    """
    arguments = deployment.arguments
    if deployment.cpus and not any(name in deployment.flags for name in OP_THREADS):
        arguments.append(f"--{OP_THREADS[0]}={len(deployment.cpus)}")
    return arguments


def _limits(deployment: Deployment) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if deployment.cpus:
        limits["cpu"] = len(deployment.cpus)
    if deployment.memory:
        limits["memory"] = _quantity(deployment.memory)
    if deployment.gpus:
        limits["nvidia.com/gpu"] = _gpu_count(deployment) or 1
    return limits


def _volumes(
    deployment: Deployment, config: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A pod's volumes, and where its container sees them. `config` names the ConfigMap."""
    volumes: list[dict[str, Any]] = []
    places: list[dict[str, Any]] = []
    for number, bind in enumerate(deployment.binds):
        if bind.source == ".":
            name, held = "config", {"configMap": {"name": config}}
        else:
            # A model that is found from the run directory lies nowhere a node knows.
            path = bind.source if bind.source.startswith("/") else bind.target
            name, held = f"volume-{number}", {"hostPath": {"path": path}}
        volumes.append({"name": name, **held})
        places.append({"name": name, "mountPath": bind.target, "readOnly": not bind.writable})
    return volumes, places


def _shell_mount(bind: Mount) -> str:
    """One quoted `--mount`; what lies beside the run is found from the shell's directory.

    Docker reads the option as CSV and takes absolute sources only.
    """
    mode = () if bind.writable else ("readonly",)
    if bind.source.startswith("/"):
        fields = ("type=bind", f"source={bind.source}", f"target={bind.target}", *mode)
        return shlex.quote(f"--mount={_csv(*fields)}")
    place = '"$PWD"' if bind.source == "." else f'"$PWD"/{shlex.quote(bind.source)}'
    target = ",".join((f"target={bind.target}", *mode))
    return f"--mount=type=bind,source={place},{shlex.quote(target)}"


def _gpus_option(gpus: str) -> str:
    """The value of `--gpus`, which docker reads as CSV: a list of devices needs its own quotes."""
    return f'"{gpus}"' if "," in gpus else gpus


def _gpu_count(deployment: Deployment) -> int | None:
    """How many GPUs are asked for; None where it is all of them."""
    if deployment.devices:
        return len(deployment.devices)
    return int(deployment.gpus) if deployment.gpus.isdigit() else None


def _quantity(memory: str) -> str:
    """Docker's `4g` as Kubernetes writes it, `4Gi`: both are powers of 1024."""
    found = re.fullmatch(r"(\d+)([bkmg]?)b?", memory.strip().lower())
    if found is None or found[2] in {"", "b"}:
        return memory.strip().rstrip("bB")
    return f"{found[1]}{found[2].upper()}i"


def _label(name: str) -> str:
    """A name as DNS and container engines take it: small letters, digits, inner dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].rstrip("-") or "tuned"


def _ranges(cpus: tuple[int, ...]) -> str:
    """Write processors as cpusets do: `0-3,6`."""
    parts: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _csv(*fields: str) -> str:
    """One line of CSV, as docker reads `--mount`."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _mapped(value: Any, change: Any) -> Any:
    """Change every text inside nested lists and mappings, keys left alone."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000)
    return text
