"""How many replicas a load takes, by simulating one of them behind a balancer.

Replicas that share a stream and nothing else are alike, so one is simulated, on the arrivals that
reach it. A renewal stream with gamma gaps of shape a = 1/cv^2 reaches one of N replicas after
every K-th arrival, and its gaps there are gamma of shape a K: K = N in a round robin, geometric
with mean N where the balancer draws at random. That is exact for any N, a million requests a
second included. A balancer that looks at the queues is none of these, and is not offered.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import Outcome
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, capacity_rps, sustainable_rps
from tuner.slo import Slo

Balancer = Literal["random", "round-robin"]

REQUESTS = 20_000
"""Requests in one simulated stretch: 200 of them lie beyond a p99."""

ROUNDS = 12
"""Corrections of a number of replicas by the rate that one carries at that number."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Load on all replicas together; `cv` is the coefficient of variation of its gaps."""

    rate_rps: float
    cv: float = 1.0
    balancer: Balancer = "random"


@dataclass(frozen=True, slots=True)
class Replica:
    """One server: its configuration as deployed, what its work takes, and what it must keep.

    `trust` is the share of the simulated rate that is counted on: below 1 where the measured
    server carried less than the model of it.
    """

    policy: Policy
    service: ServiceModel
    slo: Slo
    rows: int = 1
    trust: float = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one of `replicas` meets at a demand. Latencies in ms, failures infinitely slow.

    `utilisation` is the load over what full batches on all threads could do, `headroom` how much
    more one replica carries, as a share of this load, negative where it carries less.
    """

    replicas: int
    rate_rps: float
    sustainable_rps: float
    utilisation: float
    headroom: float
    percentiles_ms: dict[str, float]
    shed_share: float
    rows_per_batch: float | None
    holds: bool


def arrivals_at_one(demand: Demand, replicas: int, *, rows: int = 1, seed: int = 0) -> Workload:
    """The requests that reach one replica, in units of the mean gap there."""
    rng = np.random.default_rng((seed, 11))
    shape = 1 / demand.cv**2
    if demand.balancer == "round-robin":
        every = np.full(REQUESTS, replicas)
    else:
        every = rng.geometric(1 / replicas, REQUESTS)
    arrivals = np.cumsum(rng.gamma(shape * every))
    arrivals *= REQUESTS / arrivals[-1]
    return Workload(arrivals, np.full(REQUESTS, rows, np.int64), seed)


def carried_rps(replica: Replica, demand: Demand, replicas: int, *, seed: int = 0) -> float:
    """The highest rate that one of so many replicas carries within the SLO; 0 where none."""
    workload = arrivals_at_one(demand, replicas, rows=replica.rows, seed=seed)
    found = sustainable_rps(replica.policy, replica.service, replica.slo, workload)
    return float(found * replica.trust)


def replicas_for(replica: Replica, demand: Demand, *, seed: int = 0) -> int | None:
    """The fewest replicas that keep the SLO; None where one keeps it at no load.

    How bursty a replica's share is depends on how many there are, so the number is corrected
    until it agrees with itself; from two that alternate the larger is taken.
    """
    number, seen = 1, {1}
    for _ in range(ROUNDS):
        rate = carried_rps(replica, demand, number, seed=seed)
        if rate <= 0:
            return None
        needed = math.ceil(demand.rate_rps / rate - 1e-9)
        if needed == number:
            break
        if needed in seen:
            number = max(number, needed)
            break
        seen.add(needed)
        number = needed
    while _sheds_too_much(load_on(replica, demand, number, seed=seed), replica.slo):
        number += max(1, number // 50)
    return number


def _sheds_too_much(load: Load, slo: Slo) -> bool:
    """Whether the bounded queue turns away more than may fail, though latencies are kept."""
    return load.shed_share > slo.max_error_rate and load.utilisation > 0.05


def replicas_between(models: Sequence[Replica], demand: Demand) -> tuple[int, int] | None:
    """The fewest and the most replicas that these call for, each with arrivals of its own.

    They are one replica by the models that explain the measurements about as well as the best.
    """
    found = [
        number
        for seed, replica in enumerate(models)
        if (number := replicas_for(replica, demand, seed=seed))
    ]
    return (min(found), max(found)) if found else None


def load_on(replica: Replica, demand: Demand, replicas: int, *, seed: int = 0) -> Load:
    """What one of so many replicas meets."""
    rate = demand.rate_rps / replicas
    workload = arrivals_at_one(demand, replicas, rows=replica.rows, seed=seed)
    outcome = workload.at(rate, replica.policy, replica.service)
    carried = carried_rps(replica, demand, replicas, seed=seed)
    most = capacity_rps(replica.policy, replica.service, mean_rows=replica.rows)
    shed = 1 - outcome.answered / len(outcome)
    return Load(
        replicas=replicas,
        rate_rps=rate,
        sustainable_rps=carried,
        utilisation=float(rate / most),
        headroom=carried / rate - 1,
        percentiles_ms=_percentiles(outcome),
        shed_share=shed,
        rows_per_batch=outcome.rows_per_batch,
        holds=bool(rate <= carried * (1 + 1e-9) and shed <= replica.slo.max_error_rate),
    )


def _percentiles(outcome: Outcome) -> dict[str, float]:
    return {
        name: outcome.percentile_ms(share)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
