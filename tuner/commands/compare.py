"""`tuner compare`: batching files side by side, in interleaved blocks on fresh starts."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner import store
from tuner.batching import BatchingParameters
from tuner.commands.progress import Narrator
from tuner.commands.publish import publish_report
from tuner.errors import UsageError
from tuner.records import Config, TrialRecord
from tuner.scenario import load
from tuner.search.compare import Compared, Entrant, compared, measure_blocks
from tuner.search.space import baselines
from tuner.store import RunDirectory
from tuner.trial import Task, run_trial
from tuner.wiring import bench as benches

BLOCKS = 5
"""Where neither the command line nor the scenario says how many."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for: `files` are paths, or the words `default` and `off`."""

    scenario: Path
    files: tuple[str, ...]
    blocks: int | None
    out: Path


def compare(request: Request, narrator: Narrator) -> tuple[RunDirectory, tuple[Compared, ...]]:
    """Measure all files and write a run of its own. Raises UsageError for fewer than two."""
    if len(request.files) < 2:
        raise UsageError(
            "compare needs at least two batching files",
            hint="the words default and off stand for the server's own settings and none",
        )
    scenario = load(request.scenario)
    benches.require_startable(scenario)
    benches.require_rates(scenario)
    infos = benches.models(scenario, narrator.say)
    text = request.scenario.read_text(encoding="utf-8")
    run = store.create(request.out, f"{scenario.name}-compare", text)
    with run.locked(), closing(benches.prepare(scenario, infos, run, narrator.note)) as prepared:
        run.keep_environment(prepared.environment, request.scenario)
        entrants = entrants_of(request.files, prepared.cpus)
        asked = scenario.search.final_blocks
        blocks = request.blocks or (BLOCKS if asked == "auto" else asked)
        narrator.say(f"results go to {run.path}")
        walls: list[float] = []

        def measure(task: Task) -> TrialRecord:
            total = blocks * len(entrants)
            left_s = (total - len(walls)) * sum(walls) / len(walls) if walls else None
            narrator.begin(task, done=len(walls), total=total, left_s=left_s)
            record = run_trial(prepared.bench, task)
            run.append(record)
            walls.append(record.own_s)
            narrator.finish(record)
            return record

        records = measure_blocks(entrants, blocks, scenario.seed, measure)
        publish_report(run)
    return run, compared(records, entrants)


def entrants_of(files: Sequence[str], cpus: int) -> tuple[Entrant, ...]:
    """Name every file by its own words; one that is given again gets a number.

    Raises BatchingError for a file that the server would not accept.
    """
    words = dict(baselines(cpus))
    seen: Counter[str] = Counter()
    entrants = []
    for name in files:
        config = words.get(name) or Config(BatchingParameters.from_file(Path(name)))
        seen[name] += 1
        entrants.append(Entrant(name if seen[name] == 1 else f"{name} #{seen[name]}", config))
    return tuple(entrants)


def as_object(found: Sequence[Compared]) -> dict[str, Any]:
    """The result for programs."""
    first = found[0].entrant.arm
    return {
        "against": first,
        "entrants": [
            {
                "name": item.entrant.arm,
                "config_id": item.entrant.config.id,
                "rates_rps": list(item.rates_rps),
                "verdict": item.word,
                "gain": None
                if item.gain is None
                else {
                    "percent": item.gain.percent,
                    "low": item.gain.low,
                    "high": item.gain.high,
                },
                "words": item.describe(first),
            }
            for item in found
        ],
    }
