"""What a service model makes of a load that was measured, simulated as it was measured.

A server near its end shows more the longer one looks, so that a window's length and its warm-up
count as much as its rate.
"""

from collections.abc import Sequence

import numpy as np

from tuner.simulate.curves import CurvePoint
from tuner.simulate.express import Brief, Extent, brief, fits
from tuner.simulate.policy import Policy
from tuner.simulate.residuals import Shown
from tuner.simulate.scheduler import Outcome, simulate_closed
from tuner.simulate.service import NS_PER_MS, ServiceModel
from tuner.simulate.sustain import Workload

REQUESTS, MOST_REQUESTS = 800, 1000
"""Simulated for a load of which it is not known how many it held, and at most."""


def predicted(
    policy: Policy, point: CurvePoint, service: ServiceModel, workload: Workload
) -> Outcome:
    """What the model makes of a load that was measured."""
    if point.concurrency is not None:
        requests = max(len(workload.arrivals) // 2, 8 * point.concurrency)
        return simulate_closed(
            policy, service, concurrency=point.concurrency, requests=requests, seed=workload.seed
        )
    assert point.offered_rps is not None
    return workload.at(point.offered_rps, policy, service)


def shown(
    policy: Policy, point: CurvePoint, service: ServiceModel, workloads: Sequence[Workload]
) -> Shown:
    """What the model makes of a load as it was measured, on average over draws of arrivals."""
    seen = [_shown(policy, point, service, workload) for workload in workloads]
    if len(seen) == 1:
        return seen[0]
    rows = [one.rows_per_batch for one in seen if one.rows_per_batch is not None]
    runs = [one.run_ms for one in seen if one.run_ms is not None]
    latencies = np.array([one.percentiles_ms for one in seen])
    return Shown(
        float(np.mean([one.throughput_rps for one in seen])),
        [float(value) for value in np.exp(np.log(latencies).mean(axis=0))],
        float(np.mean(rows)) if rows else None,
        float(np.mean(runs)) if runs else None,
    )


def _shown(policy: Policy, point: CurvePoint, service: ServiceModel, workload: Workload) -> Shown:
    """On one draw of arrivals, by the brief simulation where that one can be used."""
    shares = [share for share, _ in point.percentiles_ms]
    seen = _brief(policy, point, service, workload)
    if seen is not None:
        return Shown(
            seen.throughput_rps, seen.percentiles_ms(shares), seen.rows_per_batch, seen.run_ms
        )
    outcome = predicted(policy, point, service, workload.first(REQUESTS))
    return Shown(
        outcome.throughput_rps,
        [outcome.percentile_ms(share) for share in shares],
        outcome.rows_per_batch,
        _run_ms(outcome, service),
    )


def extent(
    policy: Policy, point: CurvePoint, service: ServiceModel, workloads: Sequence[Workload]
) -> Extent | None:
    """How much of the model a load makes use of; None where that is not known."""
    seen = [_brief(policy, point, service, workload) for workload in workloads]
    found = [one.extent for one in seen if one is not None]
    if not found:
        return None
    return Extent(
        min(one.fewest_rows for one in found),
        max(one.most_rows for one in found),
        max(one.most_beside for one in found),
    )


def _brief(
    policy: Policy, point: CurvePoint, service: ServiceModel, workload: Workload
) -> Brief | None:
    """The brief simulation of a load, None where that one cannot be used."""
    if point.offered_rps is None or point.concurrency is not None or not fits(policy, workload):
        return None
    count, before = _length(point, len(workload.arrivals))
    return brief(workload.first(count), point.offered_rps, policy, service, before=before)


def _length(point: CurvePoint, most: int) -> tuple[int, int]:
    """How many requests are simulated for a load, and how many of them before any is counted."""
    if not point.requests or most <= REQUESTS:
        return REQUESTS, 0
    asked = point.before + point.requests
    count = min(asked, most)
    return count, min(round(point.before * count / asked), count - 1)


def _run_ms(outcome: Outcome, service: ServiceModel) -> float:
    """Mean over requests of the time that their batch ran."""
    done = np.isfinite(outcome.latency_ns)
    inside = outcome.latency_ns[done] - outcome.waited_ns[done]
    # With a busy front the wait before it is part of latency, and not of the run.
    return float(np.mean(inside)) / NS_PER_MS - service.delay_ms - service.front_ms
