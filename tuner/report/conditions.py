"""What a run's figures depend on: what must be alike for a comparison, and what may differ.

Conditions are plain values by dotted name, such as `load.arrivals`. Those of MUST_BE_ALIKE decide
what a figure means: another promise, other requests or another way of sending them make another
quantity, and beside each other two such figures would lie. All else (the GPU, the image, the
model's version) is what runs are put side by side for.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.scenario import ModelSection, Scenario

MUST_BE_ALIKE: tuple[tuple[str, str], ...] = (
    ("slo", "judge both for one promise: tune again with one [slo], or see tuner recommend"),
    ("requests", "the requests must be alike: tune again with one [model] inputs, dims and rows"),
    ("load", "the load must come alike: tune again with one [load]"),
    ("server.kind", "the embedded server's rates are its own: tune both on TensorFlow Serving"),
)
"""Beginnings of names that must be alike, and the remedy where they are not."""

_LOAD = ("arrivals", "burst_cv", "trace", "trace_speed", "profile", "engine", "deadline_ms")

SEARCH, MEASURING = "the search", "how it was measured"

SUBJECTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the model", ("models",)),
    ("the server", ("server.launcher", "server.version", "server.image", "server.digest",
                    "server.engine")),
    ("the GPU", ("server.gpus",)),
    ("the server's settings", ("setting",)),
    ("the machine", ("cpu_model", "cpus", "memory_gib", "kernel", "system", "governor",
                     "processors", "server_cpus")),
    (SEARCH, ("search",)),
    (MEASURING, ("measure", "seed", "connections", "processes", "spin", "tuner",
                             "packages", "python", "load_generator")),
)  # fmt: skip
"""What a comparison can be about, and the beginnings of the names that belong to it."""

_VARYING = ("load_generator.requests_per_s", "load_generator.cpu_us_per_request",
            "load_generator.latency_floor_ms", "load_generator.lag_p99_ms",
            "load_generator.machine", "started", "scenario_folder",
            "slo_free_scenario")  # fmt: skip
"""Readings that never repeat, and a digest of what is listed by name."""


def conditions_of(scenario: Scenario, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was asked for or found that a figure may depend on, by dotted name."""
    launcher = scenario.server.launcher
    load = scenario.load.model_dump(mode="json")
    load["trace"] = scenario.load.trace and _digest(scenario.load.trace)
    server = scenario.server.model_dump(mode="json", include={"flags", "memory", "runtime"})
    payload = environment.get("payload") or {}
    return {
        **{f"slo.{name}_ms": limit for name, limit in scenario.limits().limits_ms},
        "slo.max_error_rate": scenario.slo.max_error_rate,
        "slo.confidence": scenario.slo.confidence,
        "server.kind": "embedded" if launcher == "embedded" else "TensorFlow Serving",
        **_requests(scenario.models, payload),
        **{f"load.{name}": load[name] for name in _LOAD},
        **dict(_leaves(server, "setting.")),
        **dict(_leaves(scenario.measure.model_dump(mode="json"), "measure.")),
        **dict(_leaves(scenario.search.model_dump(mode="json"), "search.")),
        "connections": scenario.load.connections,
        "processes": scenario.load.processes,
        "spin": scenario.load.spin,
        "setting.tls": scenario.server.tls is not None,
        "seed": scenario.seed,
        **{
            name: value
            for name, value in _leaves(environment)
            if not _begins(name, (*_VARYING, "payload"))
        },
    }


def _requests(models: Sequence[ModelSection], payload: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent: by place in the mix, since names of models may differ with the model."""
    found: dict[str, Any] = {"requests.models": len(models)}
    for index, model in enumerate(models):
        name = "requests" if len(models) == 1 else f"requests.{index}"
        found |= {
            f"{name}.signature": model.signature,
            f"{name}.inputs": _digest(model.inputs),
            f"{name}.dims": {key: list(value) for key, value in sorted(model.dims.items())},
            f"{name}.rows": model.row_weights,
        }
        if len(models) > 1:
            found[f"{name}.weight"] = model.weight
        if tensors := payload.get(model.servable):  # older runs did not keep it
            found[f"{name}.tensors"] = sorted(tensors.values())
    return found


def _digest(inputs: str | Path) -> str:
    """What a file of inputs holds, where it is still there: its name says little."""
    if inputs == "random":
        return "random"
    path = Path(inputs)
    try:
        return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    except OSError:
        return str(path)


def unlike(named: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The names whose values differ between runs, with each run's value.

    A name that some run does not know at all is passed over: older tuners kept less.
    """
    names = list(dict.fromkeys(name for values in named.values() for name in values))
    found = {}
    for name in names:
        by_run = {run: values.get(name) for run, values in named.items()}
        everywhere = all(name in values for values in named.values())
        whole = everywhere or _begins(name, ("slo", "setting", "models"))
        if whole and any(value != next(iter(by_run.values())) for value in by_run.values()):
            found[name] = by_run
    return found


def untold(named: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """What some run kept and another did not, by the first word of its name."""
    names = dict.fromkeys(name for values in named.values() for name in values)
    return tuple(
        dict.fromkeys(
            name.partition(".")[0] if name.startswith("load_generator") else name
            for name in names
            if not all(name in values for values in named.values())
            and not _begins(name, ("slo", "setting", "models", "requests"))
        )
    )


def remedy_of(name: str) -> str | None:
    """What to do about a difference that makes a comparison lie; None for one that does not."""
    return next((remedy for start, remedy in MUST_BE_ALIKE if _begins(name, (start,))), None)


def subject_of(name: str) -> str:
    """What a difference is about, in words."""
    return next((words for words, starts in SUBJECTS if _begins(name, starts)), "other")


def _begins(name: str, starts: Sequence[str]) -> bool:
    return any(name == start or name.startswith(f"{start}.") for start in starts)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
