"""Simulating a server: arrivals, a policy and a service model in; every request's latency out.

    outcome = simulate(policy, service, arrivals_ns)
    outcome.percentile_ms(0.99)

The model is TensorFlow Serving's own scheduler, event by event (see `kernel`): one queue per
signature, open and closed batches, a timeout that matters only while a thread is idle, the 1 ms
poll of idle threads, the bound on queued batches, splitting, padding to the allowed sizes and the
cap on requests inside the server. A million requests take about half a second.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tuner.simulate import kernel
from tuner.simulate.policy import Policy
from tuner.simulate.service import NS_PER_MS, ServiceModel
from tuner.simulate.state import ANSWERED, REQUEST, UNFINISHED, Costs, Rules

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NS_PER_S = 1e9
POLL_NS = 1e6
"""How often an idle batch thread looks by itself (kTimeoutMillis in the scheduler's source)."""

MOST_BESIDE = 512
"""Beyond so many batches at once the slowness of one more is not told apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of every request, in order of arrival, and of every batch that ran.

    `latency_ns` counts from the intended arrival and is infinite for a request that failed or,
    where the simulation was given up, did not end. `status` holds the codes of `state`.
    `waited_ns` is the time before a batch thread took it; `batch_rows` are real rows,
    `batch_executed` those with padding. `ended_ns` is when the last answer was given.
    """

    arrives_ns: Floats
    latency_ns: Floats
    waited_ns: Floats
    status: Ints
    batch_rows: Ints
    batch_executed: Ints
    ended_ns: float

    def __len__(self) -> int:
        return len(self.status)

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return int(np.count_nonzero(self.status == ANSWERED))

    @property
    def throughput_rps(self) -> float:
        """Answers over the time from the first arrival to the last answer."""
        span_ns = self.ended_ns - float(self.arrives_ns[0]) if len(self) else 0.0
        return self.answered / span_ns * NS_PER_S if span_ns > 0 else 0.0

    @property
    def rows_per_batch(self) -> float | None:
        """Mean real rows of the batches that ran, None where none did."""
        return float(self.batch_rows.mean()) if len(self.batch_rows) else None

    def percentile_ms(self, share: float) -> float:
        """Nearest-rank percentile of latency, failures counted as infinitely slow."""
        if not len(self):
            return math.nan
        rank = max(1, math.ceil(share * len(self) - 1e-9)) - 1
        return float(np.partition(self.latency_ns, rank)[rank]) / NS_PER_MS

    def share_over(self, limit_ms: float) -> float:
        """Share of requests that failed or took longer than this."""
        return float(np.mean(self.latency_ns > limit_ms * NS_PER_MS)) if len(self) else 0.0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """When there is nothing left to learn: more than `most` requests were over `limit_ms`."""

    limit_ms: float
    most: int


def simulate(
    policy: Policy,
    service: ServiceModel,
    arrivals_ns: NDArray[np.int64] | Floats,
    *,
    rows: Ints | None = None,
    queue: Ints | None = None,
    seed: int = 0,
    noise: Floats | None = None,
    give_up: GiveUp | None = None,
) -> Outcome:
    """Let requests arrive at `arrivals_ns` (ascending, from 0) whatever the answers are.

    `rows` are the rows of each request, 1 by default, and `queue` numbers its signature from 0:
    requests of different signatures never share a batch. `seed` draws the spread of batch times
    and when idle threads look; `noise` gives the factors of batch times instead, used in turn.
    """
    intended = np.asarray(arrivals_ns, np.float64)
    requests = requests_of(_through_front(intended, service.front_ms * NS_PER_MS), rows, queue)
    batches, _ = _run(policy, service, requests, seed=seed, noise=noise, give_up=give_up)
    return outcome_of(intended, requests, batches, service)


def simulate_closed(
    policy: Policy,
    service: ServiceModel,
    *,
    concurrency: int,
    requests: int,
    rows: Ints | None = None,
    seed: int = 0,
) -> Outcome:
    """Keep `concurrency` requests outstanding until so many were sent.

    `front_ms` and `delay_ms` lie between a client's answer and its next request's arrival.
    """
    first = np.arange(requests, dtype=np.float64)  # 1 ns apart: no two at the same instant
    table = requests_of(first, rows, None)
    turnaround_ns = (service.front_ms + service.delay_ms) * NS_PER_MS
    batches, issued = _run(
        policy, service, table, seed=seed, concurrency=concurrency, turnaround_ns=turnaround_ns
    )
    table = table[:issued]
    return outcome_of(table["arrives"].copy(), table, batches, service)


def _through_front(intended: Floats, front_ns: float) -> Floats:
    """When each request has passed the front, which takes them one at a time (Lindley 1952)."""
    if front_ns <= 0:
        return intended
    passed = np.arange(len(intended)) * front_ns
    return np.asarray(np.maximum.accumulate(intended - passed) + passed + front_ns)


def requests_of(arrives: Floats, rows: Ints | None, queue: Ints | None = None) -> NDArray[np.void]:
    """The table of requests that the events fill in."""
    table = np.zeros(len(arrives), REQUEST)
    table["arrives"] = arrives
    table["done"] = math.inf
    table["rows"] = 1 if rows is None else rows
    table["queue"] = 0 if queue is None else queue
    table["status"] = UNFINISHED
    return table


def _run(
    policy: Policy,
    service: ServiceModel,
    requests: NDArray[np.void],
    *,
    seed: int,
    noise: Floats | None = None,
    give_up: GiveUp | None = None,
    concurrency: int = 0,
    turnaround_ns: float = 0.0,
) -> tuple[NDArray[np.void], int]:
    rules = rules_of(policy, service, give_up)
    rules = rules._replace(concurrency=concurrency, turnaround=turnaround_ns)
    costs = costs_of(policy, service, requests["rows"])
    costs = costs._replace(noise=service.noise(seed) if noise is None else noise)
    queues = int(requests["queue"].max(initial=0)) + 1
    batches, issued = kernel.run(requests, queues, phases(policy, seed), rules, costs)
    return batches[~np.isnan(batches["began"])], int(issued)


def rules_of(policy: Policy, service: ServiceModel, give_up: GiveUp | None) -> Rules:
    """The rules of an open loop."""
    return Rules(
        threads=policy.threads,
        largest_request=policy.largest_request,
        largest_batch=policy.largest_batch,
        most_queued=policy.most_queued,
        timeout=float(policy.timeout_ns),
        splitting=policy.splitting,
        direct=not policy.batching,
        in_flight=policy.in_flight,
        poll=POLL_NS,
        concurrency=0,
        turnaround=0.0,
        limit=_limit_ns(give_up, service),
        most_over=-1 if give_up is None else give_up.most,
    )


def phases(policy: Policy, seed: int) -> Floats:
    """When each batch thread last looked before the first request came."""
    return -np.random.default_rng((seed, 1)).uniform(0.0, POLL_NS, policy.threads)


def _limit_ns(give_up: GiveUp | None, service: ServiceModel) -> float:
    if give_up is None:
        return math.inf
    return max(0.0, give_up.limit_ms - service.delay_ms - service.front_ms) * NS_PER_MS


def costs_of(policy: Policy, service: ServiceModel, rows: Ints) -> Costs:
    """Tables by number of rows, up to the largest batch that these requests can make."""
    if policy.batching:
        return _tables(policy, service, min(policy.largest_batch, int(rows.sum())))
    return _tables(policy, service, int(rows.max(initial=1)))


@lru_cache(maxsize=64)
def _tables(policy: Policy, service: ServiceModel, largest: int) -> Costs:
    executed = np.arange(largest + 1)
    if policy.batching:
        executed = padded(executed, policy.allowed)
    beside = min(policy.threads, MOST_BESIDE) if policy.batching else MOST_BESIDE
    return Costs(
        work=service.run_of(np.arange(int(executed.max()) + 1)) * NS_PER_MS,
        executed=executed,
        slow=service.slowness(beside),
        per_request=service.request_ms * NS_PER_MS,
        noise=np.ones(1),
        alone_share=service.alone_share,
        crowding=service.crowding,
    )


def padded(rows: Ints, allowed: tuple[int, ...]) -> Ints:
    """The smallest allowed size that holds so many rows; unpadded where none does."""
    if not allowed:
        return rows
    sizes = np.array(allowed, np.int64)
    at = np.searchsorted(sizes, rows)
    found = np.where(at < len(sizes), sizes[np.minimum(at, len(sizes) - 1)], rows)
    return np.asarray(found, np.int64)


def outcome_of(
    intended: Floats, requests: NDArray[np.void], batches: NDArray[np.void], service: ServiceModel
) -> Outcome:
    """What became of the requests, seen by those who sent them."""
    answered = requests["status"] == ANSWERED
    delay_ns = service.delay_ms * NS_PER_MS
    latency = np.where(answered, requests["done"] - intended + delay_ns, math.inf)
    return Outcome(
        arrives_ns=intended,
        latency_ns=latency,
        waited_ns=requests["waited"].copy(),
        status=requests["status"].copy(),
        batch_rows=batches["rows"].copy(),
        batch_executed=batches["executed"].copy(),
        ended_ns=float(requests["done"][answered].max(initial=0.0)) + delay_ns,
    )
