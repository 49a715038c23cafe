"""The events of the batch scheduler, compiled: what `scheduler.simulate` runs.

Follows TensorFlow's SharedBatchScheduler (core/kernels/batching_util/shared_batch_scheduler.h)
and TensorFlow Serving's BatchingSession event by event. Of the server's timers only those that
can change anything are simulated: an idle thread's polls between two events find nothing, save
that they take back a queue's mark of having been notified.

All times are float64 nanoseconds. Batches that run beside each other share the processor:
`clock.virtual` advances at 1 / slow[k] while k batches run, and a batch that needs w ns alone
ends once it has advanced by w (processor sharing). Where batches take turns, virtual time is time,
and each begins what it does alone when the one before has done so.
"""

from typing import Any

import numpy as np

from tuner.simulate.compiled import compiled
from tuner.simulate.state import (
    ANSWERED,
    BATCH,
    CLOCK,
    NEVER,
    NONE,
    QUEUE,
    QUEUE_FULL,
    RUNNING,
    TASK,
    THREADS_EXHAUSTED,
    TOO_LARGE,
    Costs,
    Floats,
    Rules,
    World,
)


@compiled
def _heap_push(w: World, end: float, batch: int) -> None:
    heap = w.running
    at = w.clock[0].running
    while at > 0:
        above = (at - 1) // 2
        if heap[above].end <= end:
            break
        heap[at] = heap[above]
        at = above
    heap[at].end, heap[at].batch = end, batch
    w.clock[0].running += 1


@compiled
def _heap_pop(w: World) -> int:
    heap = w.running
    first = heap[0].batch
    size = w.clock[0].running - 1
    w.clock[0].running = size
    end, batch = heap[size].end, heap[size].batch
    at = 0
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and heap[below + 1].end < heap[below].end:
            below += 1
        if end <= heap[below].end:
            break
        heap[at] = heap[below]
        at = below
    heap[at].end, heap[at].batch = end, batch
    return int(first)


@compiled
def _slowness(w: World) -> float:
    """How many times longer a batch takes beside those that run now."""
    at = min(w.clock[0].running, len(w.costs.slow) - 1)
    return float(w.costs.slow[at])


@compiled
def _advance(w: World, now: float) -> None:
    w.clock[0].virtual += (now - w.clock[0].now) / _slowness(w)
    w.clock[0].now = now


@compiled
def _next_end(w: World) -> float:
    if not w.clock[0].running:
        return NEVER
    left = max(0.0, w.running[0].end - w.clock[0].virtual)
    return float(w.clock[0].now + left * _slowness(w))


@compiled
def _new_batch(w: World, queue: int) -> int:
    batch = w.clock[0].batches
    w.clock[0].batches += 1
    w.batches[batch].rows = 0
    w.batches[batch].began = np.nan
    w.batches[batch].tasks = 0
    w.batches[batch].first = NONE
    w.batches[batch].after = NONE
    if w.queues[queue].length:
        w.batches[w.queues[queue].open].after = batch
    else:
        w.queues[queue].front = batch
    w.queues[queue].open = batch
    w.queues[queue].length += 1
    return int(batch)


@compiled
def _add(w: World, queue: int, request: int, rows: int) -> None:
    """Put a task into the queue's open batch."""
    batch = w.queues[queue].open
    task = w.clock[0].tasks
    w.clock[0].tasks += 1
    w.tasks[task].request = request
    w.tasks[task].after = NONE
    if w.batches[batch].first == NONE:
        w.batches[batch].opened = w.clock[0].now
        w.batches[batch].first = task
    else:
        w.tasks[w.batches[batch].last].after = task
    w.batches[batch].last = task
    w.batches[batch].rows += rows
    w.batches[batch].tasks += 1
    w.requests[request].parts += 1


@compiled
def _ready_at(w: World, queue: int) -> float:
    """When a thread that looks will find work in this queue, if nothing else happens."""
    if w.queues[queue].length > 1:
        return -NEVER
    batch = w.queues[queue].open
    if not w.batches[batch].rows:
        return NEVER
    if w.batches[batch].rows >= w.rules.largest_batch:
        return -NEVER
    return float(w.batches[batch].opened + w.rules.timeout)


@compiled
def _run(w: World, batch: int) -> None:
    """Start a batch on a thread."""
    rows = w.batches[batch].rows
    executed = w.costs.executed[rows] if rows < len(w.costs.executed) else rows
    alone = w.costs.work[min(executed, len(w.costs.work) - 1)]
    alone += w.costs.per_request * w.batches[batch].tasks
    alone *= w.costs.noise[batch % len(w.costs.noise)]
    w.batches[batch].began = w.clock[0].now
    w.batches[batch].executed = executed
    _heap_push(w, _ends_at(w, alone), batch)


@compiled
def _ends_at(w: World, took: float) -> float:
    """When a batch that starts now, and takes so long by itself, ends in virtual time."""
    if not w.costs.alone_share:
        return float(w.clock[0].virtual + took)
    took *= 1.0 + w.costs.crowding * np.log1p(w.clock[0].running)
    w.clock[0].free = max(w.clock[0].free, w.clock[0].virtual) + w.costs.alone_share * took
    return float(w.clock[0].free + (1.0 - w.costs.alone_share) * took)


@compiled
def _scan(w: World) -> bool:
    """Let one free thread look once over the queues; whether it took a batch."""
    queues = w.queues
    for _ in range(len(queues)):
        queue = w.clock[0].next_queue
        w.clock[0].next_queue = (queue + 1) % len(queues)
        if _ready_at(w, queue) <= w.clock[0].now:
            batch = queues[queue].front
            if queues[queue].length == 1:
                queues[queue].length = 0
                _new_batch(w, queue)
            else:
                queues[queue].front = w.batches[batch].after
                queues[queue].length -= 1
            _run(w, batch)
            return True
        queues[queue].notified = 0
    return False


@compiled
def _first_poll(w: World, thread: int, after: float) -> float:
    """When an idle thread next looks by itself, later than `after`."""
    since = w.idle_since[thread]
    polls = np.floor((after - since) / w.rules.poll) + 1.0
    return float(since + max(polls, 1.0) * w.rules.poll)


@compiled
def _rest(w: World) -> None:
    w.idle_since[w.clock[0].idle] = w.clock[0].now
    w.clock[0].idle += 1


@compiled
def _wake(w: World, thread: int) -> None:
    """An idle thread looks: it takes a batch, or waits anew."""
    idle_since = w.idle_since
    w.clock[0].idle -= 1
    for at in range(thread, w.clock[0].idle):
        idle_since[at] = idle_since[at + 1]
    if not _scan(w):
        _rest(w)


@compiled
def _next_poll(w: World) -> tuple[float, int]:
    """When, and by which idle thread, work is found that no notification announced."""
    ready = NEVER
    for queue in range(len(w.queues)):
        ready = min(ready, _ready_at(w, queue))
    if ready >= NEVER:
        return NEVER, 0
    found, finder = NEVER, 0
    # A poll at the very instant of the expiry finds it.
    after = max(w.clock[0].now, ready - 1e-3)
    for thread in range(w.clock[0].idle):
        poll = _first_poll(w, thread, after)
        if poll < found:
            found, finder = poll, thread
    return found, finder


@compiled
def _forget_notices(w: World, now: float) -> None:
    """Polls since the notification that found nothing have taken the mark back."""
    for queue in range(len(w.queues)):
        if not w.queues[queue].notified:
            continue
        for thread in range(w.clock[0].idle):
            if _first_poll(w, thread, w.queues[queue].notified_at) <= now:
                w.queues[queue].notified = 0
                break


@compiled
def _notify(w: World, queue: int) -> None:
    if w.queues[queue].notified or _ready_at(w, queue) > w.clock[0].now:
        return
    w.queues[queue].notified = 1
    w.queues[queue].notified_at = w.clock[0].now
    if w.clock[0].idle:
        _wake(w, 0)


@compiled
def _finish(w: World, request: int, status: int) -> None:
    w.requests[request].done = w.clock[0].now
    w.requests[request].status = status
    late = w.clock[0].now - w.requests[request].arrives > w.rules.limit
    if late or status != ANSWERED:
        w.clock[0].over += 1
    if w.rules.concurrency and w.clock[0].issued < len(w.requests):
        w.requests[w.clock[0].issued].arrives = w.clock[0].now + w.rules.turnaround
        w.clock[0].issued += 1


@compiled
def _enqueue(w: World, request: int) -> bool:
    """Schedule() of the batch scheduler; False where the queue is full."""
    rules, queues = w.rules, w.queues
    queue, rows = w.requests[request].queue, w.requests[request].rows
    free = rules.largest_batch - w.batches[queues[queue].open].rows
    if not rules.splitting:
        if rows > free:
            if queues[queue].length >= rules.most_queued:
                return False
            _new_batch(w, queue)
        _add(w, queue, request, rows)
        return True
    if rows > (rules.most_queued - queues[queue].length) * rules.largest_batch + free:
        return False
    while rows > 0:
        if free == 0:
            _new_batch(w, queue)
            free = rules.largest_batch
        part = min(rows, free)
        _add(w, queue, request, part)
        rows -= part
        free -= part
    return True


@compiled
def _arrive(w: World, request: int) -> None:
    rules = w.rules
    if w.clock[0].inside >= rules.in_flight:
        _finish(w, request, THREADS_EXHAUSTED)
        return
    if rules.direct:
        batch = w.clock[0].batches
        w.clock[0].batches += 1
        w.batches[batch].rows = w.requests[request].rows
        w.batches[batch].tasks = 1
        task = w.clock[0].tasks
        w.clock[0].tasks += 1
        w.tasks[task].request, w.tasks[task].after = request, NONE
        w.batches[batch].first = task
        w.requests[request].parts = 1
        w.clock[0].inside += 1
        _run(w, batch)
        return
    if w.requests[request].rows > rules.largest_request:
        _finish(w, request, TOO_LARGE)
    elif not _enqueue(w, request):
        _finish(w, request, QUEUE_FULL)
    else:
        w.clock[0].inside += 1
        _notify(w, w.requests[request].queue)


@compiled
def _end(w: World) -> None:
    """The batch that is first to end answers its requests, and its thread looks for the next."""
    batch = _heap_pop(w)
    began = w.batches[batch].began
    task = w.batches[batch].first
    while task != NONE:
        request = w.tasks[task].request
        w.requests[request].waited = began - w.requests[request].arrives
        w.requests[request].parts -= 1
        if not w.requests[request].parts:
            w.clock[0].inside -= 1
            _finish(w, request, ANSWERED)
        task = w.tasks[task].after
    if not w.rules.direct and not _scan(w):
        _rest(w)


@compiled
def _drive(w: World) -> None:
    """Until all requests have ended, or the simulation is given up."""
    at = 0
    while w.rules.most_over < 0 or w.clock[0].over <= w.rules.most_over:
        next_arrival = w.requests[at].arrives if at < w.clock[0].issued else NEVER
        next_end = _next_end(w)
        moment = min(next_arrival, next_end)
        if w.clock[0].idle:
            poll, thread = _next_poll(w)
            if poll < moment:
                _forget_notices(w, poll)
                _advance(w, poll)
                _wake(w, thread)
                continue
        if moment >= NEVER:
            return
        if w.clock[0].idle:
            _forget_notices(w, moment)
        _advance(w, moment)
        if next_end <= next_arrival:
            _end(w)
        else:
            at += 1
            _arrive(w, at - 1)


@compiled
def _settle(w: World, until: float) -> None:
    """Let everything happen that needs no arrival, up to a moment."""
    while True:
        next_end = _next_end(w)
        if w.clock[0].idle:
            poll, thread = _next_poll(w)
            if poll < min(until, next_end):
                _forget_notices(w, poll)
                _advance(w, poll)
                _wake(w, thread)
                continue
        moment = min(next_end, until)
        if moment >= NEVER:
            return
        if w.clock[0].idle:
            _forget_notices(w, moment)
        _advance(w, moment)
        if next_end > until:
            return
        _end(w)


@compiled
def _next_event(w: World) -> float:
    """When something happens next, if no request arrives."""
    moment = _next_end(w)
    if w.clock[0].idle:
        moment = min(moment, _next_poll(w)[0])
    return moment


@compiled
def tasks_at_most(requests: Any, rules: Rules) -> int:
    """How many parts these requests can be split into."""
    if not rules.splitting:
        return len(requests)
    tasks = 0
    for request in range(len(requests)):
        tasks += requests[request].rows // rules.largest_batch + 2
    return tasks


@compiled
def _world(requests: Any, queues: int, rules: Rules, costs: Costs) -> World:
    tasks = tasks_at_most(requests, rules)
    threads = len(requests) if rules.direct else rules.threads
    return World(
        rules,
        costs,
        requests,
        np.zeros(tasks, TASK),
        np.zeros(tasks + queues + 1, BATCH),
        np.zeros(queues, QUEUE),
        np.zeros(threads, RUNNING),
        np.zeros(threads),
        np.zeros(1, CLOCK),
    )


@compiled
def run(requests: Any, queues: int, phases: Floats, rules: Rules, costs: Costs) -> tuple[Any, int]:
    """Let everything happen; return the batches, and how many requests were issued.

    A batch that never ran began at NaN.

    `requests`, an array of REQUEST, is filled in; those that never ended keep their status.
    `phases` are the instants, at most 0, at which the threads last looked. Of a closed loop the
    first `concurrency` arrivals are given; the others are made.
    """
    w = _world(requests, queues, rules, costs)
    if not rules.direct:
        for queue in range(queues):
            _new_batch(w, queue)
        w.idle_since[:] = phases
        w.clock[0].idle = rules.threads
    count = len(requests)
    w.clock[0].issued = min(rules.concurrency, count) if rules.concurrency else count
    _drive(w)
    return w.batches[: w.clock[0].batches], w.clock[0].issued


@compiled
def _least(clocks: Any, begin: int) -> int:
    """The member with the fewest requests inside, the first from `begin` on among equals."""
    count = len(clocks)
    found = begin % count
    for step in range(1, count):
        member = (begin + step) % count
        if clocks[member, 0].inside < clocks[found, 0].inside:
            found = member
    return found


@compiled
def run_fleet(requests: Any, fleet: World) -> None:
    """Send every request to the member of a fleet that has the fewest inside.

    The arrays of `fleet`, `requests` and those of `costs` apart, have a row for every member;
    `costs.noise` has one too.
    """
    members = len(fleet.clock)
    for member in range(members) if not fleet.rules.direct else range(0):
        for queue in range(fleet.queues.shape[1]):
            _new_batch(_member(fleet, member), queue)
        fleet.clock[member, 0].idle = fleet.rules.threads
    next_at = np.full(members, NEVER)
    over = 0
    for request in range(len(requests) + 1):
        last = request == len(requests)
        now = NEVER if last else requests[request].arrives
        for member in range(members):
            if last or next_at[member] <= now:
                w = _member(fleet, member)
                before = w.clock[0].over
                _settle(w, now)
                next_at[member] = _next_event(w)
                over += w.clock[0].over - before
        if last or 0 <= fleet.rules.most_over < over:
            return
        chosen = _least(fleet.clock, request)
        w = _member(fleet, chosen)
        before = w.clock[0].over
        _settle(w, now)
        _arrive(w, request)
        next_at[chosen] = _next_event(w)
        over += w.clock[0].over - before


@compiled
def _member(fleet: World, member: int) -> World:
    """The world of one member."""
    costs = fleet.costs
    return World(
        fleet.rules,
        Costs(
            costs.work,
            costs.executed,
            costs.slow,
            costs.per_request,
            costs.noise[member],
            costs.alone_share,
            costs.crowding,
        ),
        fleet.requests,
        fleet.tasks[member],
        fleet.batches[member],
        fleet.queues[member],
        fleet.running[member],
        fleet.idle_since[member],
        fleet.clock[member],
    )
