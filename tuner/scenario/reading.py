"""Scenario files: TOML in, a Scenario out, or an error that says what to change."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import InputError, ScenarioError
from tuner.scenario.complaints import explain
from tuner.scenario.sections import Scenario


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises ScenarioError naming file, key, value and remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such scenario", hint=_neighbours(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ScenarioError(f"{path}: cannot be read: {reason}") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Scenario:
    """Validate a scenario's text; `path` names it in errors and anchors relative paths."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from None
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError(explain(path, error, single="model" in data)) from None
    try:
        scenario.limits()
    except InputError as error:
        raise ScenarioError(f"{path}: slo.{error.message}", hint=error.hint) from None
    return _anchored(scenario, path)


def json_schema() -> dict[str, Any]:
    """The scenario format as JSON Schema, with `[model]` as the short form of `[[models]]`."""
    schema = Scenario.model_json_schema()
    models = schema["properties"]["models"]
    schema["properties"]["model"] = models["items"]
    schema["required"].remove("models")
    schema["oneOf"] = [{"required": ["model"]}, {"required": ["models"]}]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "tuner scenario"
    return schema


def _anchored(scenario: Scenario, source: Path) -> Scenario:
    """Resolve every relative path against the folder of the scenario's file."""
    folder = source.parent

    def at(path: Path) -> Path:
        try:
            return (folder / path.expanduser()).resolve()
        except RuntimeError:
            raise ScenarioError(
                f"{source}: {path}: there is no such home directory",
                hint="name the directory by its whole path",
            ) from None

    models = tuple(
        model.model_copy(
            update={
                "path": at(model.path),
                "inputs": model.inputs if model.inputs == "random" else at(Path(model.inputs)),
            }
        )
        for model in scenario.models
    )
    trace, tls = scenario.load.trace, scenario.server.tls
    load_section = scenario.load.model_copy(update={"trace": trace and at(trace)})
    if tls is not None:
        files = {key: getattr(tls, key) for key in ("ca", "client_cert", "client_key")}
        tls = tls.model_copy(update={key: path and at(path) for key, path in files.items()})
    server = scenario.server.model_copy(update={"tls": tls})
    return scenario.model_copy(update={"models": models, "load": load_section, "server": server})


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no directory {folder} either"
    names = sorted(item.name for item in folder.glob("*.toml"))
    near = difflib.get_close_matches(path.name, names, n=1) or names[:5]
    return f"did you mean {' or '.join(str(folder / name) for name in near)}?" if near else (
        "write one with: tuner init MODEL_DIR"
    )  # fmt: skip
