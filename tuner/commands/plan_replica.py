"""One replica as a run's data show it: the ground that a capacity plan stands on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tuner.batching import BatchingParameters
from tuner.commands.publish import cpus_of, scenario_of
from tuner.commands.recommend import recommend
from tuner.errors import UsageError
from tuner.records import Config, TrialRecord
from tuner.report.wording import number
from tuner.search.rejudge import rejudge
from tuner.simulate.calibrate import LARGEST_FITTED, fit
from tuner.simulate.capacity import Replica
from tuner.simulate.curves import Curve, curves_of
from tuner.simulate.policy import Policy, takes_turns
from tuner.simulate.refine import Refined, alike, refine
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Rows, Workload, sustainable_rps
from tuner.slo import Slo, percentile_label
from tuner.store import RECOMMENDATION, RunDirectory, read_json

MOST_CURVES = 12
"""Other configurations that the model begins from: those most like the one that is planned."""

JUDGED = 20_000
"""Requests on which a simulated sustainable rate is decided."""

DRAWS = 12
"""Models drawn beside the best one; the interval of a plan spans what they say."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A replica to plan with, and how it was come by.

    `plausible` are the same replica by other models that explain the measurements about as well.
    `cv` is how much the gaps between the run's requests varied.
    `measured_rps` is what the run proved of one replica, `simulated_rps` what the model makes of
    the same arrivals, `start_rates_rps` what each start of the configuration carried, and
    `loads_rps` the lowest and the highest load that it was measured at.
    """

    found: Mapping[str, Any]
    slo: Slo
    config: Config
    cpus: int
    cv: float
    replica: Replica
    plausible: tuple[Replica, ...]
    measured_rps: float
    simulated_rps: float
    start_rates_rps: tuple[float, ...]
    loads_rps: tuple[float, float]
    refined: Refined


def ground(run: RunDirectory, limits_ms: Mapping[str, float]) -> Ground:
    """The recommended configuration's replica, for the run's own SLO or for other limits.

    Raises UsageError where the run cannot carry a plan, and says why.
    """
    rows, cv = _rows(run), scenario_of(run).load.gap_cv
    trials = run.trials()
    found = _recommended(run, limits_ms)
    slo = _slo(found)
    if found["config_id"] is None:
        raise UsageError(
            f"{run.path}: nothing is recommended yet that could be planned with: {found['why']}",
            hint=f"go on with: tuner tune --resume {run.path}",
        )
    measured_rps = (found["recommended"] or {}).get("sustainable_rps")
    if not measured_rps:
        raise _unkept(run, slo, trials)
    cpus, config = cpus_of(run.environment()), _config(found, trials)
    policy = Policy.of(config, cpus=cpus)
    own = starts_of(run, config)
    refined = _refined(run, config)
    arrivals = Workload.drawn(JUDGED, cv=cv, rows=rows)

    def carries(service: ServiceModel) -> float:
        return sustainable_rps(policy, service, slo, arrivals)

    simulated_rps = carries(refined.service)
    if simulated_rps <= 0:
        raise UsageError(
            "the model of this server keeps the promise at no load, though the server did",
            hint="the run holds too little to plan from; measure more loads, or relax the limit",
        )
    replica = Replica(policy, refined.service, slo, rows, measured_rps)
    return Ground(
        found=found,
        slo=slo,
        config=config,
        cpus=cpus,
        cv=cv,
        replica=replica,
        plausible=tuple(
            Replica(policy, service, slo, rows, measured_rps * other / simulated_rps)
            for service in refined.plausible
            if (other := carries(service)) > 0
        ),
        measured_rps=measured_rps,
        simulated_rps=simulated_rps,
        start_rates_rps=_start_rates(run, own, slo),
        loads_rps=_loads(curves_of(own, cpus=cpus)),
        refined=refined,
    )


def _recommended(run: RunDirectory, limits_ms: Mapping[str, float]) -> Mapping[str, Any]:
    """What the run recommends, or what it would for other limits, judged from its histograms."""
    own = read_json(run.path / RECOMMENDATION)
    return own if own and not limits_ms else recommend(run, limits_ms, None)[0]


def _slo(found: Mapping[str, Any]) -> Slo:
    described = dict(found["slo"])
    errors, confidence = described.pop("max_error_rate"), described.pop("confidence")
    limits = tuple((name.removesuffix("_ms"), limit) for name, limit in described.items())
    return Slo(limits, max_error_rate=errors, confidence=confidence)


def _config(found: Mapping[str, Any], trials: Sequence[TrialRecord]) -> Config:
    for trial in trials:
        if trial.config.id == found["config_id"]:
            return trial.config
    parameters = found["parameters"]
    return Config(BatchingParameters.from_dict(parameters) if parameters else None)


def _same(one: Config, other: Config, cpus: int) -> bool:
    """Whether two configurations differ in the bound of their queue at most."""
    policies = (alike(Policy.of(config, cpus=cpus)) for config in (one, other))
    return one.flags == other.flags and len(set(policies)) == 1


def _rows(run: RunDirectory) -> Rows:
    return tuple(scenario_of(run).row_weights.items())


def _unkept(run: RunDirectory, slo: Slo, trials: Sequence[TrialRecord]) -> UsageError:
    """Why no replica keeps the promise, with the lowest latency that one could promise."""
    measured = [
        (value, limit, trial, level, name)
        for trial in trials
        for level in trial.levels
        if level.verdict.valid and level.measurement.loop == "open"
        for name, limit in slo.limits_ms
        if (value := level.measurement.percentiles_ms.get(name)) is not None
    ]
    if not measured:
        return UsageError(
            f"{run.path}: no valid measurement to plan from",
            hint="the report says why, with remedies; then go on with tuner tune --resume",
        )
    value, _, trial, level, name = min(measured, key=lambda found: found[0] / found[1])
    label = percentile_label(name)
    return UsageError(
        f"{run.path}: no configuration keeps this promise ({slo.describe()}) "
        "at any load that was measured",
        hint=f"the lowest {label} measured is {number(value)} ms, by {trial.config.label()} at "
        f"{number(level.measurement.offered_rps)}/s: promise more than that, or tune for less",
    )


@lru_cache(maxsize=16)
def _refined(run: RunDirectory, config: Config) -> Refined:
    """The model of one configuration: from the others' measurements first, then from its own."""
    own = curves_of(starts_of(run, config), cpus=cpus_of(run.environment()))
    return refine(
        model_of_others(run, config),
        own,
        rows=_rows(run),
        cv=scenario_of(run).load.gap_cv,
        draws=DRAWS,
    )


def starts_of(run: RunDirectory, config: Config) -> tuple[TrialRecord, ...]:
    """The trials of a configuration, and of those that differ in the bound of their queue."""
    cpus = cpus_of(run.environment())
    return tuple(trial for trial in run.trials() if _same(trial.config, config, cpus))


@lru_cache(maxsize=16)
def model_of_others(run: RunDirectory, config: Config) -> ServiceModel:
    """What the run's other configurations say of the server; the own where there are none."""
    cpus, own = cpus_of(run.environment()), starts_of(run, config)
    target = Policy.of(config, cpus=cpus)
    others = sorted(
        curves_of((trial for trial in run.trials() if trial not in own), cpus=cpus),
        key=lambda curve: _unlikeness(curve.policy, target),
    )
    nearest = others[:MOST_CURVES] or curves_of(own, cpus=cpus)
    largest = max(target.largest_batch, *(curve.policy.largest_batch for curve in nearest))
    found = fit(
        nearest,
        largest_batch=min(largest, LARGEST_FITTED),
        rows=_rows(run),
        cv=scenario_of(run).load.gap_cv,
        in_turn=takes_turns({**scenario_of(run).server.flags, **dict(config.flags)}),
        thorough=True,
        draws=0,
    )
    assert found is not None, "curves without points are left out"
    return found.service


def _unlikeness(one: Policy, other: Policy) -> float:
    sizes = [min(policy.largest_batch, LARGEST_FITTED) for policy in (one, other)]
    waits_ms = abs(one.timeout_ns - other.timeout_ns) / 1e6
    return (
        abs(math.log(sizes[0] / sizes[1]))
        + abs(math.log(one.threads / other.threads))
        + waits_ms / 10
    )


def _start_rates(run: RunDirectory, own: Sequence[TrialRecord], slo: Slo) -> tuple[float, ...]:
    judged = (rejudge(trial, slo, run.path) for trial in own)
    return tuple(trial.sustainable_rps for trial in judged if trial.sustainable_rps)


def _loads(starts: Sequence[Curve]) -> tuple[float, float]:
    offered = [
        point.offered_rps for curve in starts for point in curve.points if point.offered_rps
    ]
    return (min(offered), max(offered))
