"""What a capacity plan rests on, and where the measured data end, in sentences."""

from collections.abc import Iterator, Sequence

from tuner.commands.plan_replica import Ground
from tuner.commands.publish import identity_of, scenario_of
from tuner.records import TrialRecord
from tuner.report.wording import number
from tuner.simulate.balancer import FLEET, Demand
from tuner.simulate.capacity import Load
from tuner.slo import percentile_label
from tuner.store import RunDirectory

AGREES = 0.1
"""Model and measurement of one replica may differ by this share before the plan says so."""

POOR = 2.0
"""A misfit above this is told."""


def notes(
    run: RunDirectory,
    base: Ground,
    demand: Demand,
    alone_rps: float,
    loads: Sequence[Load | None],
) -> Iterator[str]:
    """Every doubt of a plan; `alone_rps` is what the model alone gives one of the replicas."""
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
    yield from _of_the_replica(run.trials(), base)
    yield from _beyond_what_was_measured(base, loads)
    yield from _of_the_load(run, base, demand, alone_rps)
    yield (
        "replicas are taken to be alike, fresh and each on hardware like that of the run; "
        "a lost one is gone at once, its requests spread over the others"
    )
    if base.found["parameters"] and base.found["verdict"] != "gain":
        yield (
            f"the configuration is not a proven gain over the default ({base.found['verdict']})"
        )


def _of_the_replica(trials: Sequence[TrialRecord], base: Ground) -> Iterator[str]:
    carried = {
        name
        for trial in trials
        for level in trial.levels
        if level.verdict.valid
        for name in level.measurement.percentiles_ms
    }
    for name, _ in base.slo.limits_ms:
        if name not in carried:
            yield f"no measurement carries a {percentile_label(name)}: it is the model's alone"
    off = base.simulated_rps / base.measured_rps - 1
    if abs(off) > AGREES:
        lower = (
            "what was proven (longer windows, measure.max_window_s, may prove more)"
            if off > 0
            else "the model, the lower of the two"
        )
        yield (
            f"the model carries {off:+.0%} against the {number(base.measured_rps)}/s that were "
            f"proven of one replica; the plan counts on {lower}"
        )
    if len(base.start_rates_rps) > 1:
        low, high = min(base.start_rates_rps), max(base.start_rates_rps)
        yield (
            f"its {len(base.start_rates_rps)} starts carried {number(low)} to {number(high)}/s "
            f"each; the plan counts on {number(base.measured_rps)}/s at most"
        )
    if base.refined.misfit > POOR:
        yield (
            f"the model explains this configuration poorly (misfit {base.refined.misfit:.1f}, "
            "1 is a good fit)"
        )


def _beyond_what_was_measured(base: Ground, loads: Sequence[Load | None]) -> Iterator[str]:
    low, high = base.loads_rps
    for name, load in zip(("as planned", "with one lost"), loads, strict=True):
        if load is None:
            continue
        if load.rate_rps < low:
            side = f"below the lowest load measured, {number(low)}/s"
        elif load.rate_rps > high:
            side = f"above the highest load measured, {number(high)}/s"
        else:
            continue
        yield (
            f"{name} a replica meets {number(load.rate_rps)}/s, {side}: "
            "its latencies there are the model's alone"
        )


def _of_the_load(
    run: RunDirectory, base: Ground, demand: Demand, alone_rps: float
) -> Iterator[str]:
    if scenario_of(run).load.arrivals == "trace":
        yield "the run replayed a trace; its model was fitted as if it had been Poisson arrivals"
    elif demand.cv != base.cv:
        measured = "Poisson arrivals (cv 1)" if base.cv == 1 else f"arrivals of cv {base.cv:g}"
        yield f"the run measured {measured}; what cv {demand.cv:g} does is the model's alone"
    promised = base.replica.proven_rps
    if alone_rps > promised * (1 + AGREES):
        yield (
            f"behind this balancer the model carries {number(alone_rps)}/s a replica; "
            f"the plan counts on the {number(promised)}/s that were proven"
        )
    if demand.balancer == "least-outstanding":
        yield (
            "one balancer is taken to see what is outstanding at every replica; several that "
            f"each see their own share do worse, and more than {FLEET} replicas better"
        )
