"""What a run leaves for people and programs, made from its records alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.batching import BatchingParameters
from tuner.clock import utc_now
from tuner.deploy import MODELS_FILE
from tuner.errors import InputError, UsageError
from tuner.records import Config, ServerIdentity, TrialRecord
from tuner.report.conditions import conditions_of
from tuner.report.run import Run
from tuner.scenario import Scenario, parse
from tuner.search.decide import Decision, decide
from tuner.search.evidence import sentences
from tuner.search.foresee import Foreseen, foresee
from tuner.search.importance import importances
from tuner.search.ranking import by_role
from tuner.search.recommend import file_text, recommendation
from tuner.search.space import Space
from tuner.server.deployed import deployed_models_text, deployment
from tuner.simulate.policy import most_cores, takes_turns
from tuner.slo import Slo
from tuner.store import BATCHING, PARETO, RECOMMENDATION, SCENARIO, RunDirectory, read_json


def publish_recommendation(
    run: RunDirectory,
    scenario: Scenario,
    records: Sequence[TrialRecord],
    server: ServerIdentity,
) -> dict[str, Any] | None:
    """Write the batching file and `recommendation.json` as of now; None while nothing is known.

    Called after every trial, so that a run ended at any moment leaves a valid recommendation.
    """
    slo = scenario.limits()
    decision = decide(records, slo)
    if decision is None:
        return None
    described = describe(decision, records, scenario, server, slo, run)
    text = file_text(
        decision, records, scenario=scenario.name, server=server, slo=slo, when=utc_now()
    )
    run.write(BATCHING, text)
    if (models := deployed_models_text(scenario)) is not None:
        run.write(MODELS_FILE, models)
    run.write(RECOMMENDATION, json.dumps(described, indent=2) + "\n")
    return described


def describe(
    decision: Decision,
    records: Sequence[TrialRecord],
    scenario: Scenario,
    server: ServerIdentity,
    slo: Slo,
    run: RunDirectory,
) -> dict[str, Any]:
    """The object of `recommendation.json` for a decision.

    Without a word of how to deploy it where nothing is recommended yet.
    """
    deployed = deployment(scenario, decision.config, server, run.path, measured_cpus(run))
    found = recommendation(
        decision,
        records,
        scenario=scenario.name,
        server=server,
        slo=slo,
        flags=deployed.flags,
    )
    if not decision.recommends:
        return {**found, "evidence": []}
    default = by_role(records, "default")
    evidence = sentences(
        decision.standing_for(decision.config, decision.trial),
        records,
        None if default is None else decision.standing_for(default.config, default),
    )
    return {**found, "evidence": list(evidence), "deployment": deployed.to_dict()}


def measured_cpus(run: RunDirectory) -> tuple[int, ...]:
    """The processors that the server of a run had; empty where the run does not say."""
    return tuple(run.environment().get("server_cpus") or ())


def cpus_of(environment: Mapping[str, Any]) -> int:
    """How many processors a run's server saw; all of its machine's where it was not pinned."""
    return len(environment.get("server_cpus") or ()) or int(environment.get("cpus") or 1)


def measured_device(scenario: Scenario, environment: Mapping[str, Any]) -> str:
    """Whether a run's server had a GPU, `gpu` or `cpu`: by the scenario's word, or by its own."""
    if scenario.search.device != "auto":
        return scenario.search.device
    return "gpu" if (environment.get("server") or {}).get("gpus") else "cpu"


def publish_report(run: RunDirectory) -> tuple[Path, ...]:
    """Write the Pareto table, the plots and the page. Raises UsageError where this is no run."""
    from tuner.report.page import write_report  # noqa: PLC0415 - matplotlib and jinja are slow
    from tuner.report.tables import write_pareto_csv  # noqa: PLC0415

    shown = with_outlook(report_run(run))
    pareto = run.path / PARETO
    write_pareto_csv(shown, pareto)
    return (*write_report(shown, run.path), pareto)


def with_outlook(run: Run) -> Run:
    """Add what a report says beside the measurements: predicted steps, and weights."""
    assert run.directory is not None
    scenario = scenario_of(RunDirectory(run.directory))
    space = Space.of(scenario)
    if not any(trial.role in {"guide", "sampler"} for trial in run.trials):
        return run
    return replace(
        run,
        importance=importances(run.trials, space),
        foreseen=_foreseen(run, scenario, space),
    )


def _foreseen(run: Run, scenario: Scenario, space: Space) -> Foreseen | None:
    """One step from the recommended, for a single model that something is known of."""
    figures = run.recommendation.get("recommended") or {}
    chosen = next(
        (trial.config for trial in run.trials if trial.config.id == run.recommended_id), None
    )
    if chosen is None or not figures.get("sustainable_rps") or len(scenario.models) > 1:
        return None
    cpus = cpus_of(run.environment)
    return foresee(
        run.trials,
        chosen,
        figures["sustainable_rps"],
        space=space,
        slo=run.slo,
        cpus=cpus,
        rows=tuple(scenario.models[0].row_weights.items()),
        cv=scenario.load.gap_cv,
        in_turn=takes_turns({**scenario.server.flags, **dict(chosen.flags)}),
        most_cores=most_cores(measured_device(scenario, run.environment), cpus),
    )


def publish_comparison(runs: Sequence[RunDirectory], out: Path) -> tuple[Path, ...]:
    """Write several runs side by side into `out`; the page is the first of the paths.

    Raises UsageError where one of them is no run, and where comparing them would lie.
    """
    from tuner.report.beside import compare  # noqa: PLC0415 - as above
    from tuner.report.beside_page import write_comparison  # noqa: PLC0415

    return write_comparison(compare([report_run(run) for run in runs]), out)


def report_run(run: RunDirectory) -> Run:
    """Read a run from disk for a report. Raises UsageError where nothing was measured."""
    scenario = scenario_of(run)
    environment = run.environment()
    found = read_json(run.path / RECOMMENDATION) or {}
    records = run.trials()
    if not records:
        raise UsageError(
            f"{run.path}: no trial is finished yet, so there is nothing to report",
            hint=f"go on with: tuner tune --resume {run.path}",
        )
    return Run(
        name=scenario.name,
        directory=run.path,
        scenario_text=run.scenario_text(),
        slo=scenario.limits(),
        server=identity_of(environment),
        environment=environment,
        trials=records,
        recommendation=_with_deployment(found, run, scenario),
        batching_text=_deployed_text(run, found),
        conditions=conditions_of(scenario, environment),
    )


def _with_deployment(
    found: dict[str, Any], run: RunDirectory, scenario: Scenario
) -> dict[str, Any]:
    """The recommendation as it is written now: older tuners left out how it is deployed."""
    if not found.get("config_id") or "deployment" in found:
        return found
    server = identity_of(run.environment())
    deployed = deployment(scenario, Config(None), server, run.path, measured_cpus(run))
    return {**found, "deployment": replace(deployed, flags=found.get("flags", {})).to_dict()}


def scenario_of(run: RunDirectory) -> Scenario:
    """The scenario a run was started with."""
    folder = run.environment().get("scenario_folder", ".")
    return parse(run.scenario_text(), run.path / folder / SCENARIO)


def identity_of(environment: Mapping[str, Any]) -> ServerIdentity:
    """The server as a run's environment describes it. Raises UsageError where it does not."""
    try:
        return ServerIdentity(**environment["server"])
    except (KeyError, TypeError):
        raise UsageError(
            "environment.json is missing or torn, so the run does not say what it measured",
            hint="restore it from a copy, or start a new run",
        ) from None


def _deployed_text(run: RunDirectory, found: Mapping[str, Any]) -> str:
    """The recommended file; empty where batching off is recommended or nothing is."""
    if not found.get("parameters"):
        return ""
    path = run.path / BATCHING
    try:
        BatchingParameters.from_file(path)
        return path.read_text(encoding="utf-8")
    except (InputError, OSError):
        return BatchingParameters.from_dict(found["parameters"]).to_text()
