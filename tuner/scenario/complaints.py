"""What is wrong with a scenario, said to the person who wrote it."""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tuner.scenario.sections import (
    MeasureSection,
    ModelSection,
    Scenario,
    SearchSection,
    ServerSection,
    SloSection,
    SpaceSection,
    shown,
)
from tuner.scenario.traffic import LoadSection, TlsSection

_SECTIONS: dict[str, type[BaseModel]] = {
    "models": ModelSection,
    "slo": SloSection,
    "server": ServerSection,
    "tls": TlsSection,
    "load": LoadSection,
    "measure": MeasureSection,
    "search": SearchSection,
    "space": SpaceSection,
}


def explain(path: Path, error: ValidationError, *, single: bool) -> str:
    """Say each problem as `file: key.path: what is wrong, got value`."""
    lines = []
    problems = error.errors()
    places = [problem["loc"] for problem in problems]
    for problem in problems:
        loc = problem["loc"]
        if problem["type"] == "too_short" and any(_lies_in(place, loc) for place in places):
            continue  # pydantic counts only the items that are right
        where = [part for before, part in pairwise((0, *loc)) if not _is_type_tag(part, before)]
        if single and where[:2] == ["models", 0]:
            where[:2] = ["model"]
        key = ".".join(str(part) for part in where) or "the scenario"
        lines.append(f"{path}: {key}: {_complaint(problem, where)}")
    return "\n".join(dict.fromkeys(lines))


def _lies_in(place: Sequence[int | str], section: Sequence[int | str]) -> bool:
    return len(place) > len(section) and place[: len(section)] == section


def _is_type_tag(part: int | str, before: int | str) -> bool:
    """Tell pydantic's own names of union members from the user's keys."""
    return isinstance(part, str) and (
        part in {"str", "bool", "int", "float", "constrained-int"}
        or (part == "path" and isinstance(before, str))  # else the key `path` of a model
        or part.startswith(("literal[", "dict[", "tuple[", "function-", "lax-or-strict"))
    )


def _complaint(problem: Any, where: Sequence[int | str]) -> str:
    kind, value = problem["type"], problem["input"]
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _known_keys(where)
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key; {remedy}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return message
    wanted = {
        "float_parsing": "expected a number",
        "float_type": "expected a number",
        "int_parsing": "expected a whole number",
        "int_type": "expected a whole number",
        "int_from_float": "expected a whole number",
        "string_type": "expected text in quotes",
        "model_type": "expected a table",
    }.get(kind, message[:1].lower() + message[1:])
    return f"{wanted}, got {shown(value)}"


def _known_keys(where: Sequence[int | str]) -> list[str]:
    """List the keys of the section that the last part of `where` was written in."""
    section: type[BaseModel] = Scenario
    for part in where[:-1]:
        name = "models" if part == "model" else str(part)
        section = _SECTIONS.get(name, section)
    keys = list(section.model_fields)
    return ["model", *keys] if section is Scenario else keys
