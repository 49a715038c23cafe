"""The JSON Schemas of what a run is asked for and leaves: scenario, trial, recommendation."""

import json
from importlib import resources
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from tuner.records import TrialRecord
from tuner.scenario import json_schema

Format = Literal["scenario", "trial", "recommendation"]

FORMATS: tuple[Format, ...] = get_args(Format)


def schema_of(name: Format) -> dict[str, Any]:
    """The schema of a scenario, of a line of trials.jsonl, or of recommendation.json.

    Files of a newer tuner may hold more fields in a trial; none is taken away or changes its
    meaning within one schema_version.
    """
    if name == "scenario":
        return json_schema()
    if name == "trial":
        return _trial()
    text = resources.files("tuner") / "schemas" / "recommendation.schema.json"
    found: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
    return found


def _trial() -> dict[str, Any]:
    schema = TypeAdapter(TrialRecord).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "tuner trial: a line of trials.jsonl",
    }
