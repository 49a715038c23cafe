"""How a balancer spreads one stream of requests over replicas, and what one of them then meets.

Replicas that share a stream and nothing else are alike, so for a balancer that does not look at
them one is simulated, on the arrivals that reach it. A renewal stream with gamma gaps of shape
a = 1/cv^2 reaches one of N replicas after every K-th arrival, and its gaps there are gamma of
shape a K: K = N in a round robin, geometric with mean N where the balancer draws at random. That
is exact for any N, a million requests a second included.

A balancer that sends each request to the replica with the least outstanding makes replicas depend
on each other, so they are simulated together, up to FLEET of them. Of more replicas as many are
taken, with their share of the stream: what more of them would help each other is left out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.fleet import simulate_fleet
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import GiveUp, Outcome
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import ONE_ROW, Rows, Workload, drawn_rows

Balancer = Literal["random", "round-robin", "least-outstanding"]

REQUESTS = 20_000
"""Requests in one simulated stretch: 200 of them lie beyond a p99."""

FLEET = 16
"""Replicas that are simulated together at most."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Load on all replicas together; `cv` is the coefficient of variation of its gaps."""

    rate_rps: float
    cv: float = 1.0
    balancer: Balancer = "random"


class Shared(Workload):
    """Requests that a few replicas share, each to the one with the least outstanding.

    Arrivals are in units of the mean gap at one replica, so that a rate is one replica's.
    """

    __slots__ = ("members",)
    members: int

    @classmethod
    def of(cls, workload: Workload, members: int) -> "Shared":
        """Bring so many times the load to as many replicas."""
        shared = cls(workload.arrivals / members, workload.rows, workload.seed)
        object.__setattr__(shared, "members", members)
        return shared

    def _run(
        self,
        policy: Policy,
        service: ServiceModel,
        arrivals_ns: NDArray[np.float64],
        rows: NDArray[np.int64] | None,
        give_up: GiveUp | None,
    ) -> Outcome:
        """Let the requests arrive at the balancer."""
        return simulate_fleet(
            policy, service, arrivals_ns, self.members, rows=rows, seed=self.seed, give_up=give_up
        )


def arrivals_at_one(
    demand: Demand, replicas: int, *, rows: Rows = ONE_ROW, seed: int = 0
) -> Workload:
    """The requests that reach one replica, in units of the mean gap there.

    Behind a balancer that minds the outstanding, those that reach all that are simulated.
    """
    rng = np.random.default_rng((seed, 11))
    members = min(replicas, FLEET) if demand.balancer == "least-outstanding" else 1
    every: NDArray[np.int64]
    if demand.balancer == "round-robin":
        every = np.full(REQUESTS, replicas)
    else:
        every = rng.geometric(members / replicas, REQUESTS)
    arrivals = np.cumsum(rng.gamma(every / demand.cv**2))
    arrivals *= REQUESTS / arrivals[-1]
    workload = Workload(arrivals, drawn_rows(rows, REQUESTS, rng), seed)
    return Shared.of(workload, members) if members > 1 else workload
