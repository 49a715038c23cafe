"""`tuner measure`: the throughput/latency curve of one configuration."""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tuner import store
from tuner.batching import BatchingParameters
from tuner.commands.progress import Narrator
from tuner.commands.publish import publish_report
from tuner.records import TrialRecord
from tuner.scenario import load
from tuner.store import RunDirectory
from tuner.trial import Task, run_trial
from tuner.wiring import bench as benches

CURVE_SHARES = (0.25, 0.5, 0.75, 0.9)
"""Loads below the sustainable rate that complete the curve."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for.

    `params` is None for batching off, or for a running server's own settings.
    """

    scenario: Path
    params: Path | None
    out: Path


def measure(request: Request, narrator: Narrator) -> tuple[RunDirectory, TrialRecord]:
    """Measure one configuration and write a run of its own with its plots."""
    batching = None if request.params is None else BatchingParameters.from_file(request.params)
    scenario = load(request.scenario)
    benches.require_rates(scenario)
    infos = benches.models(scenario, narrator.say)
    text = request.scenario.read_text(encoding="utf-8")
    run = store.create(request.out, f"{scenario.name}-measure", text)
    with run.locked(), closing(benches.prepare(scenario, infos, run, narrator.note)) as prepared:
        run.keep_environment(prepared.environment, request.scenario)
        config = benches.given(scenario, batching)
        task = Task(number=0, role="given", config=config, curve_shares=CURVE_SHARES)
        narrator.begin(task, done=0, total=1, left_s=None)
        record = run_trial(prepared.bench, task)
        run.append(record)
        narrator.finish(record)
        publish_report(run)
    return run, record


def as_json_text(record: TrialRecord) -> str:
    """The record as it stands in `trials.jsonl`."""
    return json.dumps(json.loads(store.record_json(record)), indent=2)
