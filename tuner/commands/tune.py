"""`tuner tune`: the main job."""

from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tuner import environment, store
from tuner.clock import NS_PER_S, now_ns
from tuner.commands.durations import duration_s
from tuner.commands.interrupting import interruptible
from tuner.commands.progress import Narrator
from tuner.commands.publish import publish_recommendation, publish_report, scenario_of
from tuner.errors import HostError, TunerError, UsageError
from tuner.records import TrialRecord
from tuner.scenario import Scenario, load
from tuner.search.loop import Budget, Tuning
from tuner.search.model_sampler import Setting
from tuner.search.sampler import Sampler
from tuner.search.space import Space, device_of
from tuner.simulate.policy import takes_turns
from tuner.store import RunDirectory
from tuner.trial import run_trial
from tuner.wiring import bench as benches


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for. Exactly one of `scenario` and `resume` is set."""

    scenario: Path | None
    resume: Path | None
    out: Path
    trials: int | None
    deadline: str | None


def tune(request: Request, narrator: Narrator) -> RunDirectory:
    """Run or resume a tuning run to its end, and publish what it found.

    Raises KeyboardInterrupt after the first Ctrl-C, with the run saved.
    """
    deadline_ns = None if request.deadline is None else deadline(request.deadline)
    if request.resume is not None:
        run = RunDirectory(request.resume)
        scenario = scenario_of(run)
        infos = benches.models(scenario, narrator.say)
    else:
        assert request.scenario is not None
        scenario = load(request.scenario)
        benches.require_startable(scenario)
        benches.require_rates(scenario)
        infos = benches.models(scenario, narrator.say)
        text = request.scenario.read_text(encoding="utf-8")
        run = store.create(request.out, scenario.name, text)
    with (
        run.locked(),
        closing(benches.prepare(scenario, infos, run, narrator.note, keep=True)) as prepared,
    ):
        _keep_environment(run, request, prepared.environment)
        narrator.say(f"results go to {run.path}")
        _search(run, scenario, prepared, request.trials, deadline_ns, narrator)
    _require_finding(run)
    return run


def _require_finding(run: RunDirectory) -> None:
    """Raise TunerError where no trial got so far that anything could be recommended."""
    if (run.path / store.RECOMMENDATION).exists():
        return
    failures = [record.failure for record in run.trials() if record.failure is not None]
    last = failures[-1] if failures else None
    why = "" if last is None else f"; the last: {last.text}"
    remedy = "" if last is None else last.hint
    raise TunerError(
        f"{run.path}: nothing can be recommended, since no configuration was measured{why}",
        hint=remedy or f"go on with: tuner tune --resume {run.path}",
    )


def _search(
    run: RunDirectory,
    scenario: Scenario,
    prepared: benches.Prepared,
    trials: int | None,
    deadline_ns: int | None,
    narrator: Narrator,
) -> None:
    """Drive the loop; whatever ends it, what was measured is published."""
    space = Space.of(scenario)
    records: list[TrialRecord] = list(run.trials())

    def append(record: TrialRecord) -> None:
        run.append(record)
        publish_recommendation(run, scenario, records, prepared.server)

    tuning = Tuning(
        scenario=scenario,
        slo=prepared.bench.slo,
        sampler=Sampler(
            space,
            name=_sampler_name(scenario, narrator),
            seed=scenario.seed,
            database=run.path / store.STUDY,
            setting=_setting(scenario, prepared, narrator),
            reach=scenario.load.outstanding_limit * _most_rows(scenario),
        ),
        space=space,
        cpus=prepared.cpus,
        budget=Budget(
            trials=trials or (None if deadline_ns else scenario.search.trials),
            deadline_ns=deadline_ns,
        ),
        records=records,
        measure=lambda task: run_trial(prepared.bench, task),
        append=append,
        watcher=narrator,
    )
    try:
        with interruptible(narrator, "ending the trial in flight"), closing(prepared.bench):
            tuning.run()
    except (HostError, KeyboardInterrupt):
        # The disk may be what failed: an error here would hide the one that matters.
        with suppress(TunerError):
            _publish(run, records)
        narrator.say(f"to go on: tuner tune --resume {run.path}")
        raise
    _publish(run, records)


def _setting(scenario: Scenario, prepared: benches.Prepared, narrator: Narrator) -> Setting:
    """What a model of the scheduler must know."""
    return Setting(
        slo=prepared.bench.slo,
        cpus=prepared.cpus,
        rows=tuple(scenario.row_weights.items()),
        cv=scenario.load.gap_cv,
        device=device_of(scenario),
        in_turn=takes_turns(scenario.server.flags),
        say=narrator.say,
    )


def _sampler_name(scenario: Scenario, narrator: Narrator) -> str:
    """The sampler that the scenario asks for, unless it cannot know what is tuned."""
    name = scenario.search.sampler
    if name != "auto" or scenario.queues == 1:
        return name
    narrator.say(
        f"this load waits in {scenario.queues} queues, one for each model and signature; the "
        "model of the scheduler knows one, so TPE chooses"
    )
    return "tpe"


def _most_rows(scenario: Scenario) -> int:
    return max(rows for model in scenario.models for rows in model.row_weights)


def _publish(run: RunDirectory, records: list[TrialRecord]) -> None:
    if records:
        publish_report(run)


def _keep_environment(run: RunDirectory, request: Request, described: dict[str, Any]) -> None:
    """Write what was measured where; on resume, refuse to mix unlike environments."""
    known = run.environment()
    if request.resume is not None and known:
        if unlike := environment.differences(known, described):
            shown = "; ".join(
                f"{key}: was {then!r}, is {now!r}" for key, (then, now) in unlike.items()
            )
            raise UsageError(
                f"{run.path}: this run was measured under other conditions: {shown}",
                hint="start a new run; figures of both would not be comparable",
            )
        return
    run.keep_environment(described, request.scenario or run.path / store.SCENARIO)


def deadline(text: str) -> int:
    """Parse `8h`, `90m`, `1h30m`, `45s` or a time of day `07:00` into a monotonic instant.

    Raises UsageError where it is neither.
    """
    remaining_s = _until(text) if ":" in text else duration_s(text)
    if remaining_s is None or remaining_s <= 0:
        raise UsageError(
            f"--deadline: {text!r} is neither a duration nor a time of day",
            hint="write 8h, 90m or 07:00",
        )
    return now_ns() + int(remaining_s * NS_PER_S)


def _until(text: str) -> float | None:
    """Seconds to the next time the local clock shows `text`."""
    try:
        wanted = datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 - a local time of day
    except ValueError:
        return None
    now = datetime.now().astimezone()
    moment = now.replace(hour=wanted.hour, minute=wanted.minute, second=0, microsecond=0)
    if moment <= now:
        moment += timedelta(days=1)
    return (moment - now).total_seconds()
