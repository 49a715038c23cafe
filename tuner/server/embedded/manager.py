"""Loading, swapping and finding model versions while requests run.

Follows TensorFlow Serving's aspired-versions manager: the base path is polled, a new version is
loaded beside the old one, and the old one is unloaded only when a new one is available.
"""

import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tuner.server.embedded import log
from tuner.server.embedded.servable import Servable
from tuner.server.embedded.served_models import ServedModel
from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.wire import ModelSpec

_MICROS_PER_S = 1_000_000

Load = Callable[[ServedModel, int, Path], Servable]
"""Loads one version. Raises ServingError."""


class State(IntEnum):
    """A version's state, numbered as in ModelVersionStatus."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A version's state, and the error that ended it."""

    version: int
    state: State
    code: Code = Code.OK
    text: str = ""


class Manager:
    """Keeps the versions that are asked for available."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        load: Load,
        *,
        poll_wait_s: int,
        load_retries: int,
        retry_interval_micros: int,
        labels_for_unavailable: bool = False,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._load = load
        self._poll_wait_s = poll_wait_s
        self._load_retries = load_retries
        self._retry_interval_s = retry_interval_micros / _MICROS_PER_S
        self._labels_for_unavailable = labels_for_unavailable
        self._states: dict[str, dict[int, VersionStatus]] = {name: {} for name in self._models}
        self._available: dict[str, dict[int, Servable]] = {name: {} for name in self._models}
        self._newest: dict[str, Servable] = {}

    def load_initial(self) -> None:
        """Load every model, waiting for as long as one has no version on disk.

        Raises ServingError where a version cannot be loaded.
        """
        for model in self._models.values():
            log.info(f"(Re-)adding model: {model.name}")
        waiting = list(self._models.values())
        while True:
            waiting = [model for model in waiting if not self._poll(model)]
            self._raise_failures()
            if not waiting:
                break
            self._wait()
        self._check_labels()

    def keep_polling(self) -> None:
        """Look for new versions from now on, on a thread of its own."""
        if self._poll_wait_s > 0:
            threading.Thread(target=self._poll_forever, name="versions", daemon=True).start()

    def _poll_forever(self) -> None:
        while True:
            self._wait()
            for model in self._models.values():
                self._poll(model)

    def _wait(self) -> None:
        if self._poll_wait_s > 0:
            time.sleep(self._poll_wait_s)
        else:
            threading.Event().wait()  # polled once and found nothing: the server waits for ever

    def _poll(self, model: ServedModel) -> bool:
        """Bring one model's versions in line with the disk; False where there is none."""
        try:
            aspired = model.aspired(model.on_disk())
        except OSError:
            log.error(
                "FileSystemStoragePathSource encountered a filesystem access error: Could not "
                f"find base path {model.base_path} for servable {model.name}"
            )
            return False
        if not aspired:
            log.warning(
                f"No versions of servable {model.name} found under base path {model.base_path}. "
                "Did you forget to name your leaf directory as a number (eg. '/1/')?"
            )
            return False
        for version, directory in aspired.items():
            if version not in self._states[model.name]:
                self._load_version(model, version, directory)
        self._unload_others(model.name, aspired.keys())
        return True

    def _load_version(self, model: ServedModel, version: int, directory: Path) -> None:
        name = _id(model.name, version)
        self._set(model.name, VersionStatus(version, State.LOADING))
        log.info(f"Loading servable version {name}")
        for attempt in range(self._load_retries + 1):
            if attempt:
                time.sleep(self._retry_interval_s)
                log.info(f"Retrying of Loading servable: {name} retry: {attempt}")
            try:
                servable = self._load(model, version, directory)
            except ServingError as error:
                log.error(f"Loading servable: {name} failed: {error}")
                failure = VersionStatus(version, State.END, error.code, error.text)
                continue
            self._available[model.name] = {**self._available[model.name], version: servable}
            self._newest[model.name] = self._highest(model.name)
            self._set(model.name, VersionStatus(version, State.AVAILABLE))
            log.info(f"Successfully loaded servable version {name}")
            return
        self._set(model.name, failure)

    def _unload_others(self, model: str, aspired: AbstractSet[int]) -> None:
        available = self._available[model]
        if not available.keys() & aspired:
            return
        for version in sorted(available.keys() - aspired):
            servable = available[version]
            self._available[model] = {
                number: other for number, other in available.items() if number != version
            }
            available = self._available[model]
            self._newest[model] = self._highest(model)
            self._set(model, VersionStatus(version, State.UNLOADING))
            log.info(f"Unloading servable version {_id(model, version)}")
            try:
                servable.unload()
            except ServingError as error:  # its memory is lost, and nothing else
                log.error(f"Unloading servable: {_id(model, version)} failed: {error}")
            self._set(model, VersionStatus(version, State.END))
            log.info(f"Done unloading servable version {_id(model, version)}")

    def _highest(self, model: str) -> Servable:
        return max(self._available[model].values(), key=lambda servable: servable.version)

    def _set(self, model: str, status: VersionStatus) -> None:
        self._states[model] = {**self._states[model], status.version: status}

    def _raise_failures(self) -> None:
        failures = [
            f"{_id(model, status.version)} due to error: {status.code.name}: {status.text}}}, "
            for model, states in self._states.items()
            for status in states.values()
            if status.code != Code.OK
        ]
        if failures:
            raise ServingError(
                Code.UNKNOWN,
                f"{len(failures)} servable(s) did not become available: {{{''.join(failures)}}}",
            )

    def _check_labels(self) -> None:
        if self._labels_for_unavailable:
            return
        for model in self._models.values():
            for version in model.labels.values():
                if version not in self._available[model.name]:
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )

    def hold(self, spec: ModelSpec | None) -> Servable:
        """Find the version a request asks for, held until the caller releases it.

        Raises ServingError with the server's texts.
        """
        if spec is None:
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        while True:
            servable = self._find(spec)
            if servable.hold():
                return servable

    def _find(self, spec: ModelSpec) -> Servable:
        version = self.resolve(spec)
        if version is None:
            servable = self._newest.get(spec.name)
            wanted = f"Latest({spec.name})"
        else:
            servable = self._available.get(spec.name, {}).get(version)
            wanted = f"Specific({spec.name}, {version})"
        if servable is None:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
        return servable

    def resolve(self, spec: ModelSpec) -> int | None:
        """Turn a version or label into a version number; None asks for the latest."""
        if not spec.name:
            raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        if not spec.label:
            return spec.version
        model = self._models.get(spec.name)
        if model is None or spec.label not in model.labels:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.label}"
            )
        return model.labels[spec.label]

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """List the states of a model's versions, highest first. Raises ServingError."""
        states = self._states.get(name, {})
        if version is not None:
            if version not in states:
                raise ServingError(
                    Code.NOT_FOUND, f"Could not find version {version} of model {name}"
                )
            return [states[version]]
        if not states:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [states[number] for number in sorted(states, reverse=True)]


def _id(model: str, version: int) -> str:
    return f"{{name: {model} version: {version}}}"
