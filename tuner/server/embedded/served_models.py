"""Which models and versions are to be served, and where they lie."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tuner.server.embedded import log
from tuner.server.embedded.flags import Flags
from tuner.server.embedded.status import Code, ServingError


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model's name, base path and version policy.

    `latest`: how many of the highest versions are served. `versions`: exactly these instead.
    `all_versions`: whatever is there instead. `labels` name versions.
    """

    name: str
    base_path: Path
    latest: int = 1
    versions: frozenset[int] = frozenset()
    all_versions: bool = False
    labels: dict[str, int] = field(default_factory=dict)

    def on_disk(self) -> dict[int, Path]:
        """List version directories: those whose name is a number. Raises OSError."""
        found: dict[int, Path] = {}
        for entry in self.base_path.iterdir():
            if entry.name.isascii() and entry.name.isdigit():
                found.setdefault(int(entry.name), entry)
        return found

    def aspired(self, on_disk: dict[int, Path]) -> dict[int, Path]:
        """Choose the versions to serve, highest first."""
        numbers = sorted(on_disk, reverse=True)
        if self.versions:
            numbers = [number for number in numbers if number in self.versions]
        elif not self.all_versions:
            numbers = numbers[: self.latest]
        return {number: on_disk[number] for number in numbers}


def served_models(flags: Flags) -> list[ServedModel]:
    """Read what the flags, or the file they name, ask for. Raises ServingError."""
    if not flags.model_config_file:
        if not flags.model_base_path:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "Both server_options.model_base_path and server_options.model_config_file are "
                "empty!",
            )
        return [_model(flags.model_name, flags.model_base_path)]
    text = read_text(flags.model_config_file)
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise invalid_file(flags.model_config_file, error) from None
    models = [_configured(item) for item in config.model_config_list.config]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Illegal to list model {name} multiple times in config list",
            )
    return models


def _configured(config: Any) -> ServedModel:
    if config.model_platform not in {"", "tensorflow"}:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Expect exactly one platform of tensorflow for model {config.name}, not "
            f"{config.model_platform!r}",
        )
    policy = config.model_version_policy
    return _model(
        config.name,
        config.base_path,
        latest=policy.latest.num_versions or 1,
        versions=frozenset(policy.specific.versions),
        all_versions=policy.HasField("all"),
        labels=dict(config.version_labels),
    )


def _model(
    name: str,
    base_path: str,
    *,
    latest: int = 1,
    versions: frozenset[int] = frozenset(),
    all_versions: bool = False,
    labels: dict[str, int] | None = None,
) -> ServedModel:
    if not Path(base_path).is_absolute():
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Expected model {name} to have an absolute path or URI; got base_path()={base_path}",
        )
    return ServedModel(name, Path(base_path), latest, versions, all_versions, labels or {})


def read_text(path: str) -> str:
    """Read a configuration file. Raises ServingError in the server's words."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.UNKNOWN
        raise ServingError(code, f"{path}; {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise invalid_file(path, error) from None


def invalid_file(path: str, reason: Exception) -> ServingError:
    """Say that a text-format file cannot be parsed; the reason goes to the log."""
    log.error(f"Error parsing text-format file {path}: {reason}")
    return ServingError(Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{path}'")
