"""`tuner plan`: how many replicas a load takes, from the run's own data."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tuner.commands.plan_notes import notes
from tuner.commands.plan_replica import Ground, ground
from tuner.errors import UsageError
from tuner.simulate.balancer import Balancer, Demand
from tuner.simulate.capacity import (
    Load,
    load_on,
    replicas_between,
    replicas_for,
    simulated_rps,
)
from tuner.simulate.trace import Trace
from tuner.store import RunDirectory

FACTORS = (0.1, 0.15, 0.25, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 10)
"""The tables of replicas cover these multiples of the rate that is asked for."""

HOUR_S = 3600.0

BURSTY_CV = 2.0
"""How bursty load is where nobody says: more than the Poisson arrivals of a measurement."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is planned for: a mean rate, or a trace in its place, and how far peaks exceed it.

    `promises` are limits by percentile name; the first is planned for, an empty one stands for
    the run's own, and the others are shown beside it.
    """

    rate_rps: float | None = None
    promises: tuple[Mapping[str, float], ...] = ({},)
    peak_factor: float = 1.0
    spare: int = 0
    cv: float | None = None
    balancer: Balancer = "random"
    cost_per_hour: float | None = None
    trace: Trace | None = None

    def demand(self, measured_cv: float = 1.0) -> Demand:
        """The load at its peak; where nobody says how bursty it is, no less than was measured."""
        traced = self.trace
        rate = self.rate_rps if traced is None else traced.peak_rps
        assert rate is not None, "either is given"
        cv = self.cv or (traced.cv if traced else None) or max(BURSTY_CV, measured_cv)
        return Demand(rate * self.peak_factor, cv, self.balancer)


def plan(run: RunDirectory, ask: Ask) -> dict[str, Any]:
    """Plan from a recorded run. Raises UsageError where the run cannot carry a plan."""
    base = ground(run, ask.promises[0])
    demand, replica = ask.demand(base.cv), base.replica
    needed = replicas_for(replica, demand)
    if needed is None:
        raise UsageError(
            f"with gaps of cv {demand.cv:g} one replica keeps the promise at no load",
            hint="plan for a lower --cv, or relax the limit",
        )
    total = needed + ask.spare
    at_peak, less = load_on(replica, demand, total), None
    if total > 1:
        less = load_on(replica, demand, total - 1)
    alone_rps = simulated_rps(replica, demand, total)
    return {
        "schema_version": 1,
        "scenario": base.found["scenario"],
        "server": base.found["server"],
        "slo": base.found["slo"],
        "parameters": base.found["parameters"],
        "flags": base.found["flags"],
        "planned_rps": demand.rate_rps,
        "peak_factor": ask.peak_factor,
        "balancer": ask.balancer,
        "cv": demand.cv,
        "replicas": total,
        "spare": ask.spare,
        "needed": needed,
        "needed_between": list(replicas_between(base.plausible, demand, needed)),
        "one_replica": {
            "measured_rps": base.measured_rps,
            "start_rates_rps": list(base.start_rates_rps),
            "loads_rps": list(base.loads_rps),
            "simulated_rps": base.simulated_rps,
            "behind_balancer_rps": alone_rps,
        },
        "at_peak": _json(at_peak),
        "one_lost": None if less is None else _json(less),
        "cost_per_hour": _cost(ask, total),
        "promises": list(_promises(run, ask, base, demand)),
        "trace": None if ask.trace is None else _through(ask.trace, ask, base, demand),
        "misfit": base.refined.misfit,
        "notes": list(notes(run, base, demand, alone_rps, (at_peak, less))),
    }


def _json(load: Load) -> dict[str, Any]:
    values = asdict(load)
    values["percentiles_ms"] = {
        name: value if math.isfinite(value) else None
        for name, value in load.percentiles_ms.items()
    }
    return values


def _cost(ask: Ask, replicas: float) -> float | None:
    return None if ask.cost_per_hour is None else replicas * ask.cost_per_hour


def _promises(
    run: RunDirectory, ask: Ask, base: Ground, demand: Demand
) -> Iterator[dict[str, Any]]:
    """Replicas against rate for each promise, each with the configuration that suits it."""
    for number, limits_ms in enumerate(ask.promises):
        try:
            found = ground(run, limits_ms) if number else base
        except UsageError as error:
            limits = ", ".join(f"{name} <= {limit:g} ms" for name, limit in limits_ms.items())
            yield {"promise": limits, "config": None, "table": [], "why": error.message}
            continue
        yield {
            "promise": found.slo.describe(),
            "config": found.config.label(),
            "parameters": found.found["parameters"],
            "each_rps": found.measured_rps,
            "table": [row for factor in FACTORS if (row := _row(found, demand, factor, ask))],
            "why": None,
        }


def _row(base: Ground, demand: Demand, factor: float, ask: Ask) -> dict[str, Any] | None:
    asked = Demand(demand.rate_rps * factor, demand.cv, demand.balancer)
    needed = replicas_for(base.replica, asked)
    if needed is None:
        return None
    total = needed + ask.spare
    return {
        "rate_rps": asked.rate_rps,
        "replicas": total,
        "each_rps": asked.rate_rps / total,
        "cost_per_hour": _cost(ask, total),
    }


def _through(trace: Trace, ask: Ask, base: Ground, demand: Demand) -> dict[str, Any]:
    """Replicas interval by interval; a replica is counted for the whole of each it is there."""
    rows = []
    for interval in trace.intervals:
        rate = interval.rate_rps * ask.peak_factor
        asked = Demand(rate, demand.cv, demand.balancer)
        needed = replicas_for(base.replica, asked) or 1 if rate > 0 else 1
        rows.append({**asdict(interval), "planned_rps": rate, "replicas": needed + ask.spare})
    most = max(row["replicas"] for row in rows)
    hours = trace.lasts_s / HOUR_S
    following = sum(row["replicas"] * row["lasts_s"] for row in rows) / HOUR_S
    return {
        "mean_rps": trace.mean_rps,
        "peak_rps": trace.peak_rps,
        "hours": hours,
        "measured_cv": trace.cv,
        "follow": {"replica_hours": following, "cost": _cost(ask, following)},
        "steady": {
            "replicas": most,
            "replica_hours": most * hours,
            "cost": _cost(ask, most * hours),
        },
        "saving": 1 - following / (most * hours),
        "intervals": rows,
    }
