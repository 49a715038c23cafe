"""`tuner plan`: how many replicas a load takes, from the run's own data."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.batching import BatchingParameters
from tuner.commands.publish import identity_of, measured_cpus, scenario_of
from tuner.commands.recommend import recommend
from tuner.errors import UsageError
from tuner.records import Config, TrialRecord
from tuner.report.wording import number
from tuner.simulate.calibrate import Calibration, fit
from tuner.simulate.capacity import (
    Balancer,
    Demand,
    Load,
    Replica,
    load_on,
    replicas_between,
    replicas_for,
)
from tuner.simulate.curves import curves_of
from tuner.simulate.policy import Policy
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo, percentile_label
from tuner.store import RECOMMENDATION, RunDirectory, read_json

TABLE = (0.25, 0.5, 1, 2, 4, 10)
"""The table of replicas covers these multiples of the rate that is asked for."""

AGREES = 0.1
"""Model and measurement of one replica may differ by this share before the plan says so."""

LARGEST_FITTED = 256
"""Batches are modelled up to so many rows; no default of 1000 is ever filled by such loads."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is planned for: a mean rate, how far peaks exceed it, replicas to spare, and so on."""

    rate_rps: float
    limits_ms: Mapping[str, float]
    peak_factor: float = 1.0
    spare: int = 0
    cv: float = 1.0
    balancer: Balancer = "random"
    cost_per_hour: float | None = None


def plan(run: RunDirectory, ask: Ask) -> dict[str, Any]:
    """Plan from a recorded run. Raises UsageError where the run cannot carry a plan."""
    found = _recommended(run, ask)
    measured_rps = (found["recommended"] or {}).get("sustainable_rps")
    if not measured_rps:
        raise UsageError(
            f"{run.path}: no configuration keeps this promise at any load that was measured",
            hint="relax the limit, or tune with it: a plan needs a replica that keeps it",
        )
    slo = _slo(found)
    trials = run.trials()
    calibration = _calibrated(run, trials)
    config = _config(found)
    services = (calibration.service, *calibration.plausible)
    models = [_replica(run, config, service, slo, measured_rps) for service in services]
    replica, model_rps = models[0]
    demand = Demand(ask.rate_rps * ask.peak_factor, ask.cv, ask.balancer)
    needed = replicas_for(replica, demand)
    if needed is None:
        raise UsageError(
            "the model of this server keeps the promise at no load, though the server did",
            hint="the run holds too little to plan from; measure more loads, or relax the limit",
        )
    between = replicas_between([model for model, _ in models], demand) or (needed, needed)
    total = needed + ask.spare
    return {
        "schema_version": 1,
        "scenario": found["scenario"],
        "server": found["server"],
        "slo": found["slo"],
        "parameters": found["parameters"],
        "flags": found["flags"],
        "planned_rps": demand.rate_rps,
        "balancer": ask.balancer,
        "cv": ask.cv,
        "replicas": total,
        "spare": ask.spare,
        "needed": needed,
        "needed_between": list(between),
        "one_replica": {"measured_rps": measured_rps, "simulated_rps": model_rps},
        "at_peak": _json(load_on(replica, demand, total)),
        "one_lost": _json(load_on(replica, demand, total - 1)) if total > 1 else None,
        "cost_per_hour": None if ask.cost_per_hour is None else total * ask.cost_per_hour,
        "table": [_row(replica, demand, factor, ask.spare) for factor in TABLE],
        "misfit": calibration.misfit,
        "notes": list(_notes(run, trials, found, slo, measured_rps, model_rps, calibration)),
    }


def _recommended(run: RunDirectory, ask: Ask) -> Mapping[str, Any]:
    """What the run recommends, or what it would for other limits, judged from its histograms."""
    own = read_json(run.path / RECOMMENDATION)
    return own if own and not ask.limits_ms else recommend(run, ask.limits_ms, None)[0]


def _slo(found: Mapping[str, Any]) -> Slo:
    described = dict(found["slo"])
    errors, confidence = described.pop("max_error_rate"), described.pop("confidence")
    limits = tuple((name.removesuffix("_ms"), limit) for name, limit in described.items())
    return Slo(limits, max_error_rate=errors, confidence=confidence)


def _config(found: Mapping[str, Any]) -> Config:
    parameters = found["parameters"]
    return Config(BatchingParameters.from_dict(parameters) if parameters else None)


def _cpus(run: RunDirectory) -> int:
    return len(measured_cpus(run)) or int(run.environment().get("cpus") or 1)


def _rows(run: RunDirectory) -> tuple[tuple[int, float], ...]:
    return tuple(scenario_of(run).row_weights.items())


def _calibrated(run: RunDirectory, trials: tuple[TrialRecord, ...]) -> Calibration:
    curves = curves_of(trials, cpus=_cpus(run))
    largest = max((curve.policy.largest_batch for curve in curves), default=1)
    found = fit(curves, largest_batch=min(largest, LARGEST_FITTED), rows=_rows(run))
    if found is None:
        raise UsageError(
            f"{run.path}: no valid measurement to plan from",
            hint="the report says why, with remedies; then go on with tuner tune --resume",
        )
    return found


def _replica(
    run: RunDirectory,
    config: Config,
    service: ServiceModel,
    slo: Slo,
    measured_rps: float,
) -> tuple[Replica, float]:
    """The replica, and the rate that its model carries under the load it was measured with.

    Where that is more than was measured, every simulated rate is lowered by as much.
    """
    rows = _rows(run)
    policy = Policy.of(config, cpus=_cpus(run))
    model_rps = sustainable_rps(policy, service, slo, Workload.poisson(20_000, rows=rows))
    trust = min(1.0, measured_rps / model_rps) if model_rps > 0 else 1.0
    mean_rows = sum(size * weight for size, weight in rows) / sum(weight for _, weight in rows)
    return Replica(policy, service, slo, max(1, round(mean_rows)), trust), model_rps


def _json(load: Load) -> dict[str, Any]:
    values = asdict(load)
    values["percentiles_ms"] = {
        name: value if math.isfinite(value) else None
        for name, value in load.percentiles_ms.items()
    }
    return values


def _row(replica: Replica, demand: Demand, factor: float, spare: int) -> dict[str, Any]:
    asked = Demand(demand.rate_rps * factor, demand.cv, demand.balancer)
    needed = replicas_for(replica, asked)
    return {"rate_rps": asked.rate_rps, "replicas": None if needed is None else needed + spare}


def _notes(
    run: RunDirectory,
    trials: tuple[TrialRecord, ...],
    found: Mapping[str, Any],
    slo: Slo,
    measured_rps: float,
    model_rps: float,
    calibration: Calibration,
) -> Iterator[str]:
    """Where the measured data end, and what was made of it."""
    if identity_of(run.environment()).launcher == "embedded":
        yield (
            "measured on the embedded server: TensorFlow Serving itself needs fewer replicas; "
            "plan from a run on the server you deploy"
        )
    if (queues := scenario_of(run).queues) > 1:
        yield (
            f"the load waits in {queues} queues, one for each model and signature, and is planned "
            "as one: batches fill less in truth, so trust the measured replica, not how it scales"
        )
    carried = {
        name
        for trial in trials
        for level in trial.levels
        if level.verdict.valid
        for name in level.measurement.percentiles_ms
    }
    for name, _ in slo.limits_ms:
        if name not in carried:
            yield f"no measurement carries a {percentile_label(name)}: it is the model's alone"
    off = model_rps / measured_rps - 1
    if abs(off) > AGREES:
        lower = "what was measured" if off > 0 else "the model"
        yield (
            f"the model carries {off:+.0%} against the {number(measured_rps)}/s that were "
            f"measured of one replica; the plan counts on {lower}, the lower of the two"
        )
    if calibration.misfit > 2:
        yield (
            f"the model explains the measurements poorly (misfit {calibration.misfit:.1f}, 1 is "
            "a good fit)"
        )
    yield (
        "replicas are taken to be alike, fresh and each on hardware like that of the run; "
        "balancers that look at the servers' queues are not simulated"
    )
    if found["parameters"] and found["verdict"] != "gain":
        yield f"the configuration is not a proven gain over the default ({found['verdict']})"


def print_plan(plan: Mapping[str, Any], run: Path) -> None:
    """Print a plan to stdout."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    low, high = plan["needed_between"]
    spare = f", {plan['spare']} of them to spare" if plan["spare"] else ""
    console.print(
        Text(
            f"{plan['replicas']} replicas for {number(plan['planned_rps'])}/s{spare} "
            f"(without spare {low} to {high}, by {run.name}'s data)"
        )
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("replicas", "each/s", "headroom", "utilised", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("shed", justify="right")
    table.add_column("promise")
    for name, load in (("as planned", plan["at_peak"]), ("one lost", plan["one_lost"])):
        if load is not None:
            table.add_row(name, *_cells(load))
    console.print(table)
    if plan["cost_per_hour"] is not None:
        console.print(Text(f"cost: {plan['cost_per_hour']:,.2f} an hour"))
    rates = Table(box=box.SIMPLE_HEAD, title="Replicas by rate, spare included")
    for row in plan["table"]:
        rates.add_column(f"{number(row['rate_rps'])}/s", justify="right")
    found = [row["replicas"] for row in plan["table"]]
    rates.add_row(*("-" if replicas is None else str(replicas) for replicas in found))
    console.print(rates)
    for note in plan["notes"]:
        console.print(Text(f"note: {note}"))


def _cells(load: Mapping[str, Any]) -> Iterator[str]:
    yield str(load["replicas"])
    yield number(load["rate_rps"])
    yield f"{load['headroom']:+.0%}"
    yield f"{load['utilisation']:.0%}"
    for name in ("p50", "p95", "p99"):
        value = load["percentiles_ms"][name]
        yield "failed" if value is None else number(value)
    yield f"{load['shed_share']:.2%}"
    yield "holds" if load["holds"] else "missed"
