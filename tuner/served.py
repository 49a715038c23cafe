"""Which models and versions one server holds: the entries of a load mix, merged by name."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Versions = Literal["latest", "all"] | tuple[int, ...]
"""The server's `model_version_policy`; a tuple is its `specific`, ascending."""


class Asked(Protocol):
    """One entry of a load mix: a model and how its requests name it."""

    @property
    def servable(self) -> str:
        """The name that requests carry."""

    @property
    def path(self) -> Path:
        """The directory of its versions."""

    @property
    def version(self) -> int | None:
        """The version that requests ask for."""

    @property
    def version_label(self) -> str | None:
        """The label that requests ask for."""

    @property
    def versions(self) -> Versions:
        """The policy this entry asks for."""

    @property
    def version_labels(self) -> Mapping[str, int]:
        """Labels and the versions they name."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of the server's `model_config_list`."""

    name: str
    path: Path
    versions: Versions
    labels: Mapping[str, int]

    @property
    def plain(self) -> bool:
        """Whether the flags `model_name` and `model_base_path` say all there is to say."""
        return self.versions == "latest" and not self.labels

    @property
    def named_versions(self) -> tuple[int, ...]:
        """Versions that must be there for the server to start."""
        listed = self.versions if isinstance(self.versions, tuple) else ()
        return tuple(sorted({*listed, *self.labels.values()}))


def served_models(asked: Iterable[Asked]) -> tuple[ServedModel, ...]:
    """Merge entries by name, in order of first mention.

    A version that requests or labels name is served, and nothing beside it unless `versions`
    says so. Raises ValueError where entries of one name contradict each other.
    """
    by_name: dict[str, list[Asked]] = {}
    for entry in asked:
        by_name.setdefault(entry.servable, []).append(entry)
    return tuple(_served(name, entries) for name, entries in by_name.items())


def _served(name: str, entries: Sequence[Asked]) -> ServedModel:
    if len({entry.path for entry in entries}) > 1:
        raise ValueError(f"two models are named {name!r}; set name on one")
    labels = _labels(name, entries)
    policies = {entry.versions for entry in entries} - {"latest"}
    if len(policies) > 1:
        raise ValueError(f"model {name!r} has two different versions keys; leave one")
    for entry in entries:
        _check_label(name, entry.version_label, labels)
    named = {entry.version for entry in entries if entry.version} | set(labels.values())
    versions: Versions = next(iter(policies), "latest")
    if versions == "latest" and named:
        if any(entry.version is None and entry.version_label is None for entry in entries):
            raise ValueError(
                f"model {name!r}: some requests ask for the latest version and others, or a "
                'label, for a named one; set versions = "all" or list the versions to serve'
            )
        versions = tuple(sorted(named))
    if isinstance(versions, tuple) and (missing := sorted(named - set(versions))):
        raise ValueError(
            f"model {name!r}: version {missing[0]} is asked for but not among versions = "
            f"{list(versions)}"
        )
    return ServedModel(name, entries[0].path, versions, labels)


def _labels(name: str, entries: Iterable[Asked]) -> dict[str, int]:
    labels: dict[str, int] = {}
    for entry in entries:
        for label, version in entry.version_labels.items():
            if labels.setdefault(label, version) != version:
                raise ValueError(
                    f"model {name!r}: label {label!r} names version {labels[label]} and {version}"
                )
    return labels


def _check_label(name: str, label: str | None, labels: Mapping[str, int]) -> None:
    if label is None or label in labels:
        return
    near = difflib.get_close_matches(label, labels, n=1)
    remedy = (
        f"did you mean {near[0]!r}?"
        if near
        else f"add version_labels = {{ {label} = 1 }} with the version it names"
    )
    raise ValueError(f"model {name!r} has no version label {label!r}; {remedy}")
