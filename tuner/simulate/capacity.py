"""How many replicas a load takes, by simulating one, or a few together, behind a balancer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tuner.simulate.balancer import Balancer, Demand, arrivals_at_one
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import Outcome
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import ONE_ROW, Rows, capacity_rps, sustainable_rps
from tuner.slo import PERCENTILES, Slo

ROUNDS = 12
"""Corrections of a number of replicas by the rate that one carries at that number."""

ALL_APART, MOST_APART, STEP_APART = 20, 500, 0.05
"""Up to the first every number of replicas is simulated, up to the second in steps; beyond it
what one of them meets no longer changes."""

LESS, LESS_AT_MOST = 0.97, 120
"""Steps down to a rate at which no more is shed than may fail."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One server: its configuration as deployed, what its work takes, and what it must keep.

    `rows` are the rows of a request with their weights. No more than `proven_rps` is counted on,
    whatever the model carries and however kind the balancer.
    """

    policy: Policy
    service: ServiceModel
    slo: Slo
    rows: Rows = ONE_ROW
    proven_rps: float = math.inf

    @property
    def mean_rows(self) -> float:
        """Rows of a request, on average."""
        return sum(size * weight for size, weight in self.rows) / sum(
            weight for _, weight in self.rows
        )


@dataclass(frozen=True, slots=True)
class Load:
    """What one of `replicas` meets at a demand. Latencies in ms, failures infinitely slow.

    `utilisation` is the load over what full batches on all threads could do, `headroom` how much
    more one replica carries, as a share of this load, negative where it carries less. `holds`
    says that the load is within what is counted on, `kept` that the simulated latencies and
    failures keep the SLO.
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
    kept: bool


def carried_rps(replica: Replica, demand: Demand, replicas: int, *, seed: int = 0) -> float:
    """The highest rate counted on of one of so many replicas within the SLO; 0 where none."""
    return _carried(replica, demand.cv, demand.balancer, _told_apart(replicas), seed)


def simulated_rps(replica: Replica, demand: Demand, replicas: int, *, seed: int = 0) -> float:
    """The highest rate that one of so many replicas carries by the model alone."""
    workload = arrivals_at_one(demand, replicas, rows=replica.rows, seed=seed)
    return float(sustainable_rps(replica.policy, replica.service, replica.slo, workload))


def _told_apart(replicas: int) -> int:
    """Fewer replicas, by 5 % at most, that meet about the same: their share is no smoother."""
    if replicas <= ALL_APART:
        return replicas
    steps = math.floor(math.log(min(replicas, MOST_APART) / ALL_APART) / STEP_APART + 1e-9)
    return math.floor(ALL_APART * math.exp(steps * STEP_APART) + 1e-9)


@lru_cache(maxsize=1024)
def _carried(replica: Replica, cv: float, balancer: Balancer, replicas: int, seed: int) -> float:
    demand = Demand(1.0, cv, balancer)
    found = simulated_rps(replica, demand, replicas, seed=seed)
    rate = min(found, replica.proven_rps)
    workload = arrivals_at_one(demand, replicas, rows=replica.rows, seed=seed)
    # Latencies may be kept by turning requests away, which is a promise too.
    for _ in range(LESS_AT_MOST):
        if (
            rate <= 0
            or _shed(workload.at(rate, replica.policy, replica.service), replica.slo) <= 0
        ):
            return rate
        rate *= LESS
    return 0.0


def _shed(outcome: Outcome, slo: Slo) -> float:
    """By how much the share turned away exceeds what may fail."""
    return 1 - outcome.answered / len(outcome) - slo.max_error_rate


def replicas_for(replica: Replica, demand: Demand, *, seed: int = 0) -> int | None:
    """The fewest replicas that keep the SLO; None where one keeps it at no load.

    How bursty a replica's share is depends on how many there are, so the number is corrected
    until it agrees with itself; from two that alternate the larger is taken.
    """
    number, seen = 1, {1}
    for _ in range(ROUNDS):
        rate = carried_rps(replica, demand, number, seed=seed)
        if rate <= 0:
            if number > 1:
                return None
            needed = 2  # one of few meets all bursts; of more each meets a share
        else:
            needed = max(1, math.ceil(demand.rate_rps / rate - 1e-9))
        if needed == number:
            break
        if needed in seen:
            number = max(number, needed)
            break
        seen.add(needed)
        number = needed
    return number


def replicas_between(models: Sequence[Replica], demand: Demand, needed: int) -> tuple[int, int]:
    """The fewest and the most replicas that these call for, each with arrivals of its own.

    They are one replica by models that explain the measurements about as well as the best, which
    calls for `needed`; what each carries is judged at that number.
    """
    rates = (carried_rps(model, demand, needed, seed=seed) for seed, model in enumerate(models, 1))
    numbers = [math.ceil(demand.rate_rps / rate - 1e-9) for rate in rates if rate > 0]
    return min([needed, *numbers]), max([needed, *numbers])


def load_on(replica: Replica, demand: Demand, replicas: int, *, seed: int = 0) -> Load:
    """What one of so many replicas meets."""
    rate = demand.rate_rps / replicas
    alike = _told_apart(replicas)
    workload = arrivals_at_one(demand, alike, rows=replica.rows, seed=seed)
    outcome = workload.at(rate, replica.policy, replica.service)
    carried = carried_rps(replica, demand, replicas, seed=seed)
    most = capacity_rps(replica.policy, replica.service, mean_rows=replica.mean_rows)
    shed = 1 - outcome.answered / len(outcome)
    limits = replica.slo.limits_ms
    return Load(
        replicas=replicas,
        rate_rps=rate,
        sustainable_rps=carried,
        utilisation=float(rate / most),
        headroom=carried / rate - 1,
        percentiles_ms=_percentiles(outcome, replica.slo),
        shed_share=shed,
        rows_per_batch=outcome.rows_per_batch,
        holds=rate <= carried * (1 + 1e-9) and shed <= replica.slo.max_error_rate,
        kept=shed <= replica.slo.max_error_rate
        and all(outcome.percentile_ms(PERCENTILES[name]) <= most_ms for name, most_ms in limits),
    )


def _percentiles(outcome: Outcome, slo: Slo) -> dict[str, float]:
    """The usual ones, and those that are promised."""
    promised = {name for name, _ in slo.limits_ms}
    return {
        name: outcome.percentile_ms(share)
        for name, share in PERCENTILES.items()
        if name in {"p50", "p95", "p99"} | promised
    }
