"""Candidates as versions of a model: a directory of links, and a batching file of its own.

With `--enable_per_model_batching_parameters` TensorFlow Serving (2.11 and later) reads the
batching parameters of a version from the version's own directory, so that a new configuration is
a new version, and no restart.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import HostError, ModelError, disk
from tuner.served import ServedModel
from tuner.server.readiness import fetch

PARAMETERS = "batching_params.pbtxt"
STATUS_S = 2.0


@dataclass(frozen=True, slots=True)
class VersionFolders:
    """Base paths, one for every model, in which the tuner alone makes and removes versions."""

    root: Path
    models: tuple[ServedModel, ...]

    def base(self, name: str) -> Path:
        """The base path of a model."""
        return self.root / name

    def sources(self) -> tuple[Path, ...]:
        """The version directories that links lead to: each model's latest, as it is served."""
        return tuple(_latest(model.path) for model in self.models)

    def publish(self, version: int, parameters: str) -> None:
        """Give every model a version with these batching parameters, whole or not at all.

        Raises HostError where the disk refuses, ModelError for a model without a version.
        """
        for model, source in zip(self.models, self.sources(), strict=True):
            base = self.base(model.name)
            partial = self.root / f".{model.name}.{version}"
            with disk(base):
                base.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                for entry in sorted(source.iterdir()):
                    if entry.name != PARAMETERS:
                        (partial / entry.name).symlink_to(entry)
                (partial / PARAMETERS).write_text(parameters, encoding="utf-8")
                partial.rename(base / str(version))

    def of(self, version: int) -> tuple[Path, ...]:
        """The folders of a version, one for every model."""
        return tuple(self.base(model.name) / str(version) for model in self.models)

    def remove(self, version: int) -> None:
        """Remove a version of every model."""
        for folder in self.of(version):
            shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all versions, of this run and of one that was killed."""
        shutil.rmtree(self.root, ignore_errors=True)


def can_be_versions(models: Sequence[ServedModel]) -> bool:
    """Whether requests ask for nothing but the latest version, which a swap replaces."""
    return all(model.plain for model in models)


def _latest(path: Path) -> Path:
    with suppress(OSError):
        versions = [
            entry for entry in path.iterdir() if entry.name.isascii() and entry.name.isdigit()
        ]
        if versions:
            return max(versions, key=lambda entry: int(entry.name))
    raise ModelError(
        f"{path}: holds no version", hint="a model's directory holds one named by a number"
    )


@dataclass(frozen=True, slots=True)
class Swapped:
    """How far a server is with a new version.

    `failed` is the server's reason for not loading it, empty where it has not failed.
    """

    alone: bool
    failed: str = ""


def look(rest_port: int, models: Sequence[ServedModel], version: int) -> Swapped:
    """Ask a server whether `version` of every model is available, and every other gone."""
    alone = True
    for model in models:
        states = _states(rest_port, model.name)
        state, error = states.pop(version, ("", ""))
        if state == "END":
            return Swapped(alone=False, failed=error or "the server gave no reason")
        others = any(other != "END" for other, _ in states.values())
        alone = alone and state == "AVAILABLE" and not others
    return Swapped(alone)


def _states(rest_port: int, name: str) -> dict[int, tuple[str, str]]:
    """State and error of every version that a server knows of a model."""
    page = fetch(rest_port, f"/v1/models/{name}", STATUS_S)
    if page is None:
        return {}
    try:
        found = json.loads(page)["model_version_status"]
        return {
            int(item["version"]): (
                str(item["state"]),
                str(item.get("status", {}).get("error_message", "")),
            )
            for item in found
        }
    except (KeyError, TypeError, ValueError):
        raise HostError(
            f"the server's status page cannot be read: {page[:200]}",
            hint='set server.swap = "never"',
        ) from None
