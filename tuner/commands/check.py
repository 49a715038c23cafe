"""`tuner check`: whether a batching file still keeps the promise, for a gate in CI."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner import store
from tuner.batching import BatchingParameters
from tuner.commands.progress import Narrator
from tuner.commands.publish import publish_report
from tuner.records import TrialRecord
from tuner.scenario import load
from tuner.store import RECOMMENDATION, RunDirectory, read_json
from tuner.trial import Task, run_trial
from tuner.wiring import bench as benches

RECOMMENDED_SHARE = 0.9
"""Of the load a file was recommended for, that it must still carry: one start varies."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for.

    `params` is None for batching off, or for a running server's own settings.
    """

    scenario: Path
    params: Path | None
    rate_rps: float | None
    starts: int
    out: Path


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether the SLO holds at `rate_rps` in every start (None: at any load at all), and why."""

    kept: bool
    rate_rps: float | None
    why: str
    records: tuple[TrialRecord, ...]

    def as_object(self) -> dict[str, Any]:
        """The result for programs."""
        return {
            "kept": self.kept,
            "rate_rps": self.rate_rps,
            "why": self.why,
            "starts": [
                {"outcome": record.outcome, "sustainable_rps": record.sustainable_rps}
                for record in self.records
            ],
        }


def check(request: Request, narrator: Narrator) -> tuple[RunDirectory, Checked]:
    """Measure the file at the asked load on fresh starts, until one does not hold."""
    batching = None if request.params is None else BatchingParameters.from_file(request.params)
    scenario = load(request.scenario)
    benches.require_rates(scenario)
    infos = benches.models(scenario, narrator.say)
    text = request.scenario.read_text(encoding="utf-8")
    run = store.create(request.out, f"{scenario.name}-check", text)
    rate_rps = request.rate_rps or recommended_rps(request.params, batching)
    records: list[TrialRecord] = []
    with run.locked(), closing(benches.prepare(scenario, infos, run, narrator.note)) as prepared:
        run.keep_environment(prepared.environment, request.scenario)
        for start in range(request.starts):
            task = Task(
                number=start,
                role="given",
                config=benches.given(scenario, batching),
                block=start,
                replicate=start + 1,
                loads_rps=() if rate_rps is None else (rate_rps,),
            )
            narrator.begin(task, done=start, total=request.starts, left_s=None)
            records.append(run_trial(prepared.bench, task))
            run.append(records[-1])
            narrator.finish(records[-1])
            if records[-1].outcome != "ok":
                break
        publish_report(run)
    return run, judged(records, rate_rps)


def judged(records: list[TrialRecord], rate_rps: float | None) -> Checked:
    """The verdict of the last start, which is the first that did not hold, if any."""
    last = records[-1]
    at = "at some load" if rate_rps is None else f"at {rate_rps:,.1f} requests/s"
    kept = last.outcome == "ok"
    starts = f"{len(records)} start{'s' if len(records) > 1 else ''}"
    if kept:
        why = f"the SLO holds {at} in {starts}"
    elif last.failure is not None:
        why = last.failure.text
    else:
        verdicts = [level.verdict for level in last.levels if level.measurement.loop == "open"]
        texts = [*(text for verdict in verdicts for text in verdict.reasons)]
        texts += [doubt.text for verdict in verdicts for doubt in verdict.doubts]
        state = "could not be decided" if last.outcome == "invalid" else "does not hold"
        why = f"the SLO {state} {at}: {texts[-1] if texts else 'nothing was measured'}"
    return Checked(kept, rate_rps, why, tuple(records))


def recommended_rps(params: Path | None, batching: BatchingParameters | None) -> float | None:
    """The load to check a recommended file at, from the `recommendation.json` beside it."""
    if params is None or batching is None:
        return None
    found = read_json(params.parent / RECOMMENDATION) or {}
    rate_rps = (found.get("recommended") or {}).get("sustainable_rps")
    if found.get("parameters") != batching.to_dict() or not isinstance(rate_rps, int | float):
        return None
    return RECOMMENDED_SHARE * rate_rps or None
