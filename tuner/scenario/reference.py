"""The scenario format as a page for people, from the same descriptions as the JSON Schema."""

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tuner.scenario.flags import Flag
from tuner.scenario.sections import Scenario

INTRODUCTION = """\
# Scenario files

A scenario is one TOML file: which model, which latency promise, which server, which candidates.
`tuner init MODEL_DIR` writes a commented one; this page, made by `tuner schema --format markdown`,
has every key. Units are in the names. Paths are relative to the file.
"""


def markdown() -> str:
    """Every key of every table: what it takes, its default and its meaning."""
    return "\n".join([INTRODUCTION, *_tables(Scenario, "")]).rstrip() + "\n"


def _tables(section: type[BaseModel], path: str) -> list[str]:
    """Write a section's own keys as a table, then the sections inside it."""
    inner = {name: _section_of(field) for name, field in section.model_fields.items()}
    lines = []
    if path:
        title = "[model]` or `[[models]]" if path == "models" else f"[{path}]"
        lines = [f"## `{title}`", "", _first_paragraph(section), ""]
    lines += ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        if inner[name] is None:
            cells = (
                f"`{name}`",
                _taken(field.annotation),
                _default(field),
                field.description or "",
            )
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    lines.append("")
    for name, nested in inner.items():
        if nested is not None:
            lines += _tables(nested, f"{path}.{name}" if path else name)
    return lines


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kinds = (field.annotation, *get_args(field.annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _first_paragraph(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split("\n\n")[0].split())


def _taken(annotation: Any) -> str:
    """Name what a key takes in words of TOML."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation == Flag:
        return "value"
    if hasattr(annotation, "__metadata__"):
        origin, parts = None, ()
        annotation = annotation.__origin__
    if origin is Literal:
        return ", ".join(f"`{_toml(value)}`" for value in parts)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_taken(p) for p in parts if p is not type(None)))
    if origin is tuple:
        return f"list of {_plural(_taken(parts[0]))}"
    if origin is dict:
        return f"table of {_plural(_taken(parts[1]))}"
    words = {"bool": "true or false", "int": "whole number", "float": "number", "Path": "path"}
    return words.get(annotation.__name__, "text")


def _plural(words: str) -> str:
    return f"{words}s" if words in {"number", "whole number", "text", "value"} else words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    nothing = field.default in (None, "", (), {})
    return "" if nothing else f"`{_toml(field.default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return f"{value:g}" if isinstance(value, float) else str(value)
