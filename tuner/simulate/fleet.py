"""Replicas behind a balancer that sends every request to the one with the least outstanding."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tuner.simulate import kernel
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import (
    GiveUp,
    Outcome,
    costs_of,
    outcome_of,
    phases,
    requests_of,
    rules_of,
)
from tuner.simulate.service import ServiceModel
from tuner.simulate.state import BATCH, CLOCK, QUEUE, RUNNING, TASK, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def simulate_fleet(
    policy: Policy,
    service: ServiceModel,
    arrivals_ns: Floats,
    members: int,
    *,
    rows: Ints | None = None,
    seed: int = 0,
    noise: Floats | None = None,
    give_up: GiveUp | None = None,
) -> Outcome:
    """Let requests arrive at a balancer in front of so many replicas, all alike.

    It knows at every instant how many requests are inside each and takes the least, in turn among
    equals: one balancer, not several that each see their own share. `noise` (members, n) gives
    the factors of batch times. What a request takes before the scheduler (`front_ms`) is the same
    for all here, without a queue of its own.
    """
    intended = np.asarray(arrivals_ns, np.float64)
    service = replace(service, front_ms=0.0, delay_ms=service.delay_ms + service.front_ms)
    requests = requests_of(intended, rows)
    costs = costs_of(policy, service, requests["rows"])
    costs = costs._replace(noise=_noise(service, members, seed) if noise is None else noise)
    rules = rules_of(policy, service, give_up)
    parts = int(kernel.tasks_at_most(requests, rules))
    abreast = len(requests) if rules.direct else rules.threads
    fleet = World(
        rules,
        costs,
        requests,
        # Zeroed by the system when it is first touched: what a member does not use costs nothing.
        tasks=np.zeros((members, parts), TASK),
        batches=np.zeros((members, parts + 2), BATCH),
        queues=np.zeros((members, 1), QUEUE),
        running=np.zeros((members, abreast), RUNNING),
        idle_since=np.stack([phases(policy, seed + member) for member in range(members)]),
        clock=np.zeros((members, 1), CLOCK),
    )
    kernel.run_fleet(requests, fleet)
    ran = [
        rows_of[: clock["batches"]]
        for rows_of, clock in zip(fleet.batches, fleet.clock[:, 0], strict=True)
    ]
    batches = np.concatenate(ran)
    batches = batches[(batches["rows"] > 0) & ~np.isnan(batches["began"])]
    return outcome_of(intended, requests, batches, service)


def _noise(service: ServiceModel, members: int, seed: int) -> Floats:
    """Factors for every member, each from another place of the same draw."""
    factors = service.noise(seed)
    shift = math.ceil(len(factors) / members)
    return np.stack([np.roll(factors, member * shift) for member in range(members)])
