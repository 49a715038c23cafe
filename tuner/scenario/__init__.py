"""Scenario files: TOML in, a frozen, typed Scenario out, or an error that says what to change."""

from tuner.scenario.containers import parse_mount
from tuner.scenario.flags import OP_THREADS
from tuner.scenario.reading import json_schema, load, parse
from tuner.scenario.reference import markdown
from tuner.scenario.sections import (
    MeasureSection,
    ModelSection,
    Scenario,
    SearchSection,
    ServerSection,
    SloSection,
    SpaceSection,
)
from tuner.scenario.traffic import LoadSection, TlsSection

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
    "TlsSection",
    "json_schema",
    "load",
    "markdown",
    "parse",
    "parse_mount",
]
