"""The scheduler's events once more, for the common case and some ten times faster than `kernel`.

One signature, no bound on what is queued, no splitting, no cap on requests inside: then the front
batch is always the oldest requests that fit, so that a batch is a range of requests and nothing
else need be kept. `tests/simulate/test_express.py` holds both to the same latencies. A fit of the
service model needs thousands of short simulations, a search for the best configuration tens of
thousands: here one takes some 20 us.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.compiled import compiled
from tuner.simulate.policy import UNBOUNDED, Policy
from tuner.simulate.scheduler import MOST_BESIDE, NS_PER_S, POLL_NS, padded
from tuner.simulate.service import NS_PER_MS, Floats, ServiceModel
from tuner.simulate.sustain import LOWEST_SHARE, Workload, capacity_rps
from tuner.slo import PERCENTILES, Slo

Ints = NDArray[np.int64]

_NEVER = 1e300

FIRST_STEP = 1.06
"""From a guess towards a rate on the other side of the answer."""


class Case(NamedTuple):
    """A configuration on a server under one workload. Times in ns, arrivals in mean gaps.

    `work[n]` is the time of n rows alone, padding included; `largest` 0 is batching off.
    """

    arrivals: Any
    rows: Any
    work: Any
    slow: Any
    noise: Any
    phases: Any
    per_request: float
    front: float
    timeout: float
    threads: int
    largest: int
    alone_share: float
    crowding: float


class Extent(NamedTuple):
    """What of a service model a simulation made use of: batches as executed, and side by side."""

    fewest_rows: int
    most_rows: int
    most_beside: int


@dataclass(frozen=True, slots=True, eq=False)
class Brief:
    """What a simulated load came to.

    `latency_ns` is in order of arrival; `run_ms` is the mean over all requests, those not counted
    included, of the time that their batch ran.
    """

    latency_ns: Floats
    throughput_rps: float
    rows_per_batch: float
    run_ms: float
    extent: Extent

    def percentiles_ms(self, shares: Sequence[float]) -> list[float]:
        """Nearest-rank percentiles of latency."""
        count = len(self.latency_ns)
        ranks = [max(1, math.ceil(share * count - 1e-9)) - 1 for share in shares]
        parted = np.partition(self.latency_ns, ranks) if ranks else self.latency_ns
        return [float(parted[rank]) / NS_PER_MS for rank in ranks]


def fits(policy: Policy, workload: Workload) -> bool:
    """Whether this is the common case."""
    if policy.splitting or policy.in_flight < UNBOUNDED:
        return False
    if not policy.batching:
        return True
    largest = 1 if workload.rows is None else int(workload.rows.max(initial=1))
    return policy.most_queued >= len(workload.arrivals) and largest <= policy.largest_batch


def brief(
    workload: Workload,
    rate_rps: float,
    policy: Policy,
    service: ServiceModel,
    *,
    before: int = 0,
) -> Brief:
    """One load on one configuration that `fits`; the first `before` requests are not counted."""
    case = _case(workload, policy, service)
    latency = np.empty(len(workload.arrivals))
    gap_ns = NS_PER_S / rate_rps
    ended, batches, rows, run, (fewest, most, beside) = _run(case, gap_ns, math.inf, -1, latency)
    delay_ns = service.delay_ms * NS_PER_MS
    latency += delay_ns
    counted = latency[before:]
    span_ns = ended + delay_ns - float(workload.arrivals[before]) * gap_ns
    _, executed, _ = _layout(workload, policy)
    extent = Extent(int(executed[fewest]), int(executed[most]), beside)
    rate = len(counted) / span_ns * NS_PER_S
    return Brief(counted, rate, rows / batches, run / len(latency) / NS_PER_MS, extent)


def highest_rps(
    workload: Workload,
    policy: Policy,
    service: ServiceModel,
    slo: Slo,
    resolution: float,
    *,
    guess_rps: float = 0.0,
) -> float:
    """The highest rate that keeps the SLO, within `resolution`; 0 where none does.

    A good guess saves half of the simulations.
    """
    count = len(workload.arrivals)
    case = _case(workload, policy, service)
    most = capacity_rps(policy, service, mean_rows=workload.mean_rows) * 1.02
    latency = np.empty(count)
    found = most
    for name, limit_ms in slo.limits_ms:
        inside_ns = (limit_ms - service.delay_ms) * NS_PER_MS
        allowed = math.floor((1 - PERCENTILES[name]) * count + 1e-9)
        bounds = (most * LOWEST_SHARE, found, resolution)
        found = _highest(case, bounds, guess_rps, inside_ns, allowed, latency)
    return found


def _case(workload: Workload, policy: Policy, service: ServiceModel) -> Case:
    rows, executed, phases = _layout(workload, policy)
    return Case(
        arrivals=workload.arrivals,
        rows=rows,
        work=_work(service, int(executed.max()).bit_length())[executed],
        slow=_slow(service)[: policy.threads + 1] if policy.batching else _slow(service),
        noise=service.noise(workload.seed),
        phases=phases,
        per_request=service.request_ms * NS_PER_MS,
        front=service.front_ms * NS_PER_MS,
        timeout=float(policy.timeout_ns),
        threads=policy.threads if policy.batching else len(rows),
        largest=policy.largest_batch if policy.batching else 0,
        alone_share=service.alone_share,
        crowding=service.crowding,
    )


# A fit asks for one model's tables under many policies, one after another.
@lru_cache(maxsize=64)
def _work(service: ServiceModel, bits: int) -> Floats:
    """Nanoseconds of batches of fewer than 2 ** bits rows."""
    return service.run_of(np.arange(2**bits)) * NS_PER_MS


@lru_cache(maxsize=64)
def _slow(service: ServiceModel) -> Floats:
    return service.slowness(MOST_BESIDE)


@lru_cache(maxsize=4096)
def _layout(workload: Workload, policy: Policy) -> tuple[Ints, Ints, Floats]:
    """What no service model changes: rows a request, executed rows a batch, when threads look."""
    count = len(workload.arrivals)
    rows = np.ones(count, np.int64) if workload.rows is None else workload.rows
    executed = np.arange(int(rows.max(initial=1)) + 1)
    if policy.batching:
        largest = min(policy.largest_batch, int(rows.sum()))
        executed = padded(np.arange(largest + 1), policy.allowed)
    rng = np.random.default_rng((workload.seed, 1))
    return rows, executed, -rng.uniform(0.0, POLL_NS, policy.threads)


@compiled
def _push(ends: Any, size: int, end: float, batch: int, batches: Any) -> None:
    """Put a batch that ends then into the heap, the first to end on top."""
    at = size
    while at > 0:
        above = (at - 1) // 2
        if ends[above] <= end:
            break
        ends[at], batches[at] = ends[above], batches[above]
        at = above
    ends[at], batches[at] = end, batch


@compiled
def _pop(ends: Any, size: int, batches: Any) -> None:
    """Drop the top of the heap; `size` counts what is left."""
    end, batch = ends[size], batches[size]
    at = 0
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and ends[below + 1] < ends[below]:
            below += 1
        if end <= ends[below]:
            break
        ends[at], batches[at] = ends[below], batches[below]
        at = below
    ends[at], batches[at] = end, batch


@compiled
def _turn(took: float, free: float, share: float) -> tuple[float, float]:
    """When a batch that takes so long ends, and when the next may run alone: from `free` on."""
    free += share * took
    return free + (1.0 - share) * took, free


@compiled
def _poll(since: float, after: float) -> float:
    """When a thread that is idle since then next looks by itself, later than `after`."""
    return float(since + max(np.floor((after - since) / POLL_NS) + 1.0, 1.0) * POLL_NS)


# One function, since scalars are fast only as locals: as fields of a shared record, handed from
# function to function as in `kernel`, they make this ten times slower.
@compiled
def _run(  # noqa: C901, PLR0912, PLR0915
    case: Case, gap: float, limit: float, most_over: int, latency: Any
) -> tuple[float, int, int, float, tuple[int, int, int]]:
    """Let everything happen; `latency` is filled in.

    Returns when it ended, how many batches ran, their rows, request-nanoseconds of running, and
    the fewest and most rows of a batch with the most batches beside each other.
    Given up once more than `most_over` (if not negative) took longer than `limit`. Until a
    request is answered, `latency` holds when it passed the front.
    """
    arrivals, rows, work, slow = case.arrivals, case.rows, case.work, case.slow
    noise, phases, front, timeout = case.noise, case.phases, case.front, case.timeout
    largest, per_request, share = case.largest, case.per_request, case.alone_share
    count, most_beside = len(arrivals), len(slow) - 1
    threads = min(case.threads, count)
    ends, order = np.empty(threads), np.empty(threads, np.int64)
    firsts, lasts, begans = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
    since = np.empty(threads)
    idle = threads if largest else 0
    for at in range(idle):
        since[at] = phases[at]
    now, virtual, free, notified, notified_at = 0.0, 0.0, 0.0, False, 0.0
    head, filled, filled_rows, tail = 0, 0, 0, 0  # head..filled are the front batch
    running, over, batches, all_rows, run = 0, 0, 0, 0, 0.0
    fewest, most, beside = 1 << 40, 0, 0
    arrival = arrivals[0] * gap + front
    while most_over < 0 or over <= most_over:
        next_arrival = arrival if tail < count else _NEVER
        end = _NEVER
        if running:
            end = now + max(0.0, ends[0] - virtual) * slow[min(running, most_beside)]
        moment = min(next_arrival, end)
        looks, thread = False, -1  # whether a thread looks for work; which of the idle ones
        if idle and tail > head:
            ready = -_NEVER
            if filled == tail and filled_rows < largest:
                ready = latency[head] + timeout
            after, poll = max(now, ready - 1e-3), _NEVER
            for at in range(idle):
                found = _poll(since[at], after)
                if found < poll:
                    poll, thread = found, at
            looks = poll < moment
            if looks:
                moment = poll
        if moment >= _NEVER:
            break
        if idle and notified:  # polls that found nothing have taken the mark back
            for at in range(idle):
                if _poll(since[at], notified_at) <= moment:
                    notified = False
                    break
        virtual += (moment - now) / slow[min(running, most_beside)]
        now = moment
        if not looks and end <= next_arrival:
            batch = order[0]
            running -= 1
            _pop(ends, running, order)
            for request in range(firsts[batch], lasts[batch]):
                took = now - arrivals[request] * gap
                latency[request] = took
                if took > limit:
                    over += 1
            run += (now - begans[batch]) * (lasts[batch] - firsts[batch])
            looks, thread = largest > 0, -1
        elif not looks:
            latency[tail] = now
            tail += 1
            if tail < count:
                coming = arrivals[tail] * gap
                # The front takes requests one at a time.
                arrival = max(coming, arrival) + front if front > 0 else coming
            if not largest:
                alone = (work[rows[head]] + per_request) * noise[batches % len(noise)]
                firsts[batches], lasts[batches], begans[batches] = head, tail, now
                end = virtual + alone
                if share:
                    alone *= 1.0 + case.crowding * np.log1p(running)
                    end, free = _turn(alone, max(free, virtual), share)
                _push(ends, running, end, batches, order)
                all_rows += rows[head]
                fewest, most = min(fewest, rows[head]), max(most, rows[head])
                running += 1
                beside = max(beside, running)
                batches += 1
                head = tail
                continue
            if filled == tail - 1 and filled_rows + rows[filled] <= largest:
                filled_rows += rows[filled]
                filled += 1
            if not notified and (
                filled < tail or filled_rows >= largest or latency[head] + timeout <= now
            ):
                notified, notified_at = True, now
                looks, thread = idle > 0, 0
        if not looks:
            continue
        if thread >= 0:
            idle -= 1
            for at in range(thread, idle):
                since[at] = since[at + 1]
        if tail > head and (
            filled < tail or filled_rows >= largest or latency[head] + timeout <= now
        ):
            alone = work[filled_rows] + per_request * (filled - head)
            alone *= noise[batches % len(noise)]
            firsts[batches], lasts[batches], begans[batches] = head, filled, now
            end = virtual + alone
            if share:
                alone *= 1.0 + case.crowding * np.log1p(running)
                end, free = _turn(alone, max(free, virtual), share)
            _push(ends, running, end, batches, order)
            all_rows += filled_rows
            fewest, most = min(fewest, filled_rows), max(most, filled_rows)
            running += 1
            beside = max(beside, running)
            batches += 1
            head, filled_rows = filled, 0
            while filled < tail and filled_rows + rows[filled] <= largest:
                filled_rows += rows[filled]
                filled += 1
        else:
            notified = False
            since[idle] = now
            idle += 1
    return now, batches, all_rows, run, (fewest, most, beside)


@compiled
def _holds(case: Case, rate: float, limit: float, most_over: int, latency: Any) -> bool:
    _run(case, NS_PER_S / rate, limit, most_over, latency)
    over = 0
    for value in latency:
        over += value > limit
    return over <= most_over


@compiled
def _highest(
    case: Case,
    bounds: tuple[float, float, float],
    guess: float,
    limit: float,
    most_over: int,
    latency: Any,
) -> float:
    """Find the highest rate at which at most `most_over` take longer than `limit`.

    A bisection, from the bounds or, in growing steps, from around a guess between them.
    """
    least, high, resolution = bounds
    low = least
    if least < guess < high:
        step = FIRST_STEP
        if _holds(case, guess, limit, most_over, latency):
            low = guess
            while low * step < high:
                if not _holds(case, low * step, limit, most_over, latency):
                    high = low * step
                    break
                low, step = low * step, step * step
        else:
            high = guess
            while high / step > low:
                if _holds(case, high / step, limit, most_over, latency):
                    low = high / step
                    break
                high, step = high / step, step * step
    while high > low * (1 + resolution):
        middle = np.sqrt(low * high) if high > 4 * low else (low + high) / 2
        if _holds(case, middle, limit, most_over, latency):
            low = middle
        else:
            high = middle
    return low if low > least else 0.0
