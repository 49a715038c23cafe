"""The command line of TensorFlow Serving for one configuration, and the files it refers to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from tuner import protos
from tuner.deploy import MODELS_FILE
from tuner.records import Config
from tuner.scenario import Scenario
from tuner.served import ServedModel

METRICS_PATH = "/monitoring/prometheus/metrics"

GRPC_THREAD_MARGIN = 8
"""The server keeps one gRPC thread for polling and rejects sporadically within three of the cap
(measured on 9d981c5c): eight above what is needed rejects nothing."""


@dataclass(frozen=True, slots=True)
class Files:
    """What one start of the server reads, besides the model."""

    batching: Path | None
    monitoring: Path
    models: Path | None


def write_files(scenario: Scenario, config: Config, folder: Path) -> Files:
    """Write the batching, monitoring and model configuration files of one start."""
    batching = None
    if config.batching is not None:
        config.batching.check()
        batching = folder / "batching_parameters.txt"
        batching.write_text(config.batching.to_text())
    monitoring = folder / "monitoring.txt"
    monitoring.write_text(f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n')
    models = None
    if needs_model_config(scenario):
        models = folder / MODELS_FILE
        models.write_text(model_config_text(scenario.served))
    return Files(batching=batching, monitoring=monitoring, models=models)


def needs_model_config(scenario: Scenario) -> bool:
    """Whether flags alone cannot say which models and versions are served."""
    return len(scenario.served) > 1 or not scenario.served[0].plain


def model_config_text(
    models: tuple[ServedModel, ...], *, base_paths: Mapping[str, str] | None = None
) -> str:
    """The `model_config_file` for these models, with version policies and labels.

    `base_paths` are the directories by model name where the server sees other paths than this
    process, as in a container.
    """
    protos.install()
    from tensorflow_serving.config import model_server_config_pb2  # noqa: PLC0415 - see protos

    message = model_server_config_pb2.ModelServerConfig()
    for model in models:
        entry = message.model_config_list.config.add(
            name=model.name,
            base_path=(base_paths or {}).get(model.name, str(model.path)),
            model_platform="tensorflow",
        )
        if model.versions == "all":
            entry.model_version_policy.all.SetInParent()
        elif model.versions != "latest":
            entry.model_version_policy.specific.versions.extend(model.versions)
        for label, version in model.labels.items():
            entry.version_labels[label] = version
    return str(text_format.MessageToString(message))


def server_flags(
    scenario: Scenario, config: Config, files: Files, *, port: int, rest_port: int
) -> dict[str, str]:
    """All flags of one start, by name.

    Besides the candidate's they keep the measurement honest: a server that cannot load fails at
    once instead of retrying for five minutes, two servers never share a port, no version is
    swapped in mid-run, and gRPC's thread cap lies above what the load can use.
    """
    threads = scenario.load.outstanding_limit + scenario.load.concurrency + GRPC_THREAD_MARGIN
    flags = {
        "port": str(port),
        "rest_api_port": str(rest_port),
        "monitoring_config_file": str(files.monitoring),
        "max_num_load_retries": "0",
        "file_system_poll_wait_seconds": "0",
        "grpc_max_threads": str(threads),
        "grpc_channel_arguments": "grpc.so_reuseport=0",
    }
    if files.models is not None:
        flags["model_config_file"] = str(files.models)
    else:
        flags["model_name"] = scenario.models[0].servable
        flags["model_base_path"] = str(scenario.models[0].path)
    flags |= label_flags(scenario)
    if files.batching is not None:
        flags["enable_batching"] = "true"
        flags["batching_parameters_file"] = str(files.batching)
    for name, value in (*scenario.server.flags.items(), *config.flags):
        flags[name] = _joined(flags, name, flag_text(value))
    return flags


def deployed_flags(scenario: Scenario, config: Config) -> dict[str, str]:
    """The flags that must be deployed with a recommendation for it to hold.

    Files are the user's to place, so they are given by their bare names.
    """
    threads = scenario.load.outstanding_limit + scenario.load.concurrency + GRPC_THREAD_MARGIN
    flags = {"enable_batching": "false"}
    if config.batching is not None:
        flags = {
            "enable_batching": "true",
            "batching_parameters_file": "batching_parameters.txt",
        }
    if needs_model_config(scenario):
        flags["model_config_file"] = MODELS_FILE
    flags["grpc_max_threads"] = str(threads)
    flags |= label_flags(scenario)
    flags |= {name: flag_text(value) for name, value in scenario.server.flags.items()}
    return flags | dict(config.flags)


def label_flags(scenario: Scenario) -> dict[str, str]:
    """What the server needs to take labels for versions that it has yet to load, at its start."""
    if any(model.labels for model in scenario.served):
        return {"allow_version_labels_for_unavailable_models": "true"}
    return {}


def argv(flags: dict[str, str]) -> list[str]:
    """Render flags as `--name=value`: the server ignores a value that follows a space."""
    return [f"--{name}={value}" for name, value in flags.items()]


def flag_text(value: str | bool | float) -> str:
    """Write a flag's value as the server parses it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _joined(flags: dict[str, str], name: str, value: str) -> str:
    """Add a user's channel arguments to ours; any other flag is the user's alone."""
    if name == "grpc_channel_arguments" and "grpc.so_reuseport" not in value:
        return f"{flags[name]},{value}"
    return value
