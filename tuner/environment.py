"""Where a run was measured, and which runs may be put side by side."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tuner import __version__
from tuner.records import ServerIdentity

MUST_MATCH = ("models", "server", "slo_free_scenario", "cpu_model", "cpus", "memory_gib", "kernel")
"""Figures measured under different values of these are not comparable."""

PACKAGES = ("tensorflow-cpu", "tensorflow", "grpcio", "optuna", "numpy")


def describe(
    *,
    server: ServerIdentity,
    models: Mapping[str, str],
    scenario: Mapping[str, Any],
    placement: str,
) -> dict[str, Any]:
    """Everything a reader needs to know to measure the same again.

    `models` maps servable names to fingerprints; `scenario` is the parsed scenario as plain
    values, of which the SLO, the search and the measuring effort may differ between runs.
    """
    stable = {
        key: value
        for key, value in scenario.items()
        if key not in {"name", "slo", "search", "measure"}
    }
    return {
        "models": dict(models),
        "server": {
            "launcher": server.launcher,
            "version": server.version,
            "image": server.image,
            "digest": server.digest,
            "engine": server.engine,
            "gpus": list(server.gpus),
            # Left out where there is nothing to say, as in the files of earlier versions.
            **({"through": server.through} if server.through else {}),
        },
        "slo_free_scenario": _digest(stable),
        "cpu_model": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "system": _distribution(),
        "python": platform.python_version(),
        "tuner": __version__,
        "packages": _versions(),
        "processors": placement,
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
    }


def environment_id(environment: Mapping[str, Any]) -> str:
    """A short name that is equal for environments whose figures may be compared."""
    return "e-" + _digest({key: environment.get(key) for key in MUST_MATCH})[:8]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys of MUST_MATCH whose values differ, with both values."""
    return {
        key: (one.get(key), other.get(key)) for key in MUST_MATCH if one.get(key) != other.get(key)
    }


def cpu_model() -> str:
    """The processor's name as the kernel gives it, or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
