"""Scenario files: TOML in, a frozen, typed Scenario out, or an error that says what to change."""

from tuner.scenario.containers import parse_mount
from tuner.scenario.flags import OP_THREADS
from tuner.scenario.reading import json_schema, load, parse
from tuner.scenario.sections import (
    LoadSection,
    MeasureSection,
    ModelSection,
    Scenario,
    SearchSection,
    ServerSection,
    SloSection,
    SpaceSection,
)

__all__ = [
    "OP_THREADS",
    "LoadSection",
    "MeasureSection",
    "ModelSection",
    "Scenario",
    "SearchSection",
    "ServerSection",
    "SloSection",
    "SpaceSection",
    "json_schema",
    "load",
    "parse",
    "parse_mount",
]
