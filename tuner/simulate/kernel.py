"""The events of the batch scheduler, compiled: what `scheduler.simulate` runs.

Follows TensorFlow's SharedBatchScheduler (core/kernels/batching_util/shared_batch_scheduler.h)
and TensorFlow Serving's BatchingSession event by event. Of the server's timers only those that
can change anything are simulated: an idle thread's polls between two events find nothing, save
that they take back a queue's mark of having been notified.

All times are float64 nanoseconds. Batches that run beside each other share the processor:
`clock.virtual` advances at 1 / slow[k] while k batches run, and a batch that needs w ns alone
ends once it has advanced by w (processor sharing).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ANSWERED, QUEUE_FULL, THREADS_EXHAUSTED, TOO_LARGE, UNFINISHED = 0, 1, 2, 3, 4
"""How a request ended. UNFINISHED: the simulation was given up before."""

NONE = -1
_NEVER = 1e300


class Rules(NamedTuple):
    """What does not change while events happen. Sizes are in rows, times in nanoseconds."""

    threads: int
    largest_request: int
    largest_batch: int
    most_queued: int
    timeout: float
    splitting: bool
    direct: bool
    """Batching off: every request is run at once, beside all others."""
    in_flight: int
    """Requests inside the server at most, as `--grpc_max_threads` bounds them."""
    poll: float
    concurrency: int
    """Of a closed loop; 0 for arrivals that ignore the answers."""
    turnaround: float
    """From an answer to the same client's next request, in a closed loop."""
    limit: float
    most_over: int
    """Give up once more requests than this took longer than `limit`; negative: never."""


class Costs(NamedTuple):
    """What a batch takes. `work[n]`: n executed rows alone; `executed[n]`: n rows padded."""

    work: Floats
    executed: Ints
    slow: Floats
    per_request: float
    noise: Floats
    """Factors of mean 1, one a batch, used in turn."""


REQUEST = np.dtype(
    [
        ("arrives", np.float64),
        ("done", np.float64),
        ("waited", np.float64),
        ("rows", np.int64),
        ("queue", np.int64),
        ("status", np.int64),
        ("parts", np.int64),
    ]
)
"""A request; the array is in order of arrival. The first, `rows` and `queue` are given."""

_TASK = np.dtype([("request", np.int64), ("after", np.int64)])
"""A request, or a part of one that was split. The tasks of a batch form a list."""

_BATCH = np.dtype(
    [
        ("opened", np.float64),
        ("began", np.float64),
        ("executed", np.int64),
        ("rows", np.int64),
        ("tasks", np.int64),
        ("first", np.int64),
        ("last", np.int64),
        ("after", np.int64),
    ]
)
"""A batch; the array is in order of opening. The batches of a queue form a list."""

_QUEUE = np.dtype(
    [
        ("notified_at", np.float64),
        ("front", np.int64),
        ("open", np.int64),
        ("length", np.int64),
        ("notified", np.int64),
    ]
)
"""A queue: its oldest batch, its open one, and how many there are, both included."""

_RUNNING = np.dtype([("end", np.float64), ("batch", np.int64)])
"""A batch that runs, with its end in virtual time; the array is a heap, first to end on top."""

_CLOCK = np.dtype(
    [
        ("now", np.float64),
        ("virtual", np.float64),
        ("running", np.int64),
        ("idle", np.int64),
        ("inside", np.int64),
        ("next_queue", np.int64),
        ("batches", np.int64),
        ("tasks", np.int64),
        ("over", np.int64),
        ("issued", np.int64),
    ]
)
"""The scalars that change."""


class World(NamedTuple):
    """Everything the events act on. `idle_since` says when each idle thread last looked."""

    rules: Rules
    costs: Costs
    requests: Any
    tasks: Any
    batches: Any
    queues: Any
    running: Any
    idle_since: Any
    clock: Any


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
    if w.clock[0].running:
        w.clock[0].virtual += (now - w.clock[0].now) / _slowness(w)
    w.clock[0].now = now


@compiled
def _next_end(w: World) -> float:
    if not w.clock[0].running:
        return _NEVER
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
        return -_NEVER
    batch = w.queues[queue].open
    if not w.batches[batch].rows:
        return _NEVER
    if w.batches[batch].rows >= w.rules.largest_batch:
        return -_NEVER
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
    _heap_push(w, w.clock[0].virtual + alone, batch)


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
    ready = _NEVER
    for queue in range(len(w.queues)):
        ready = min(ready, _ready_at(w, queue))
    if ready >= _NEVER:
        return _NEVER, 0
    found, finder = _NEVER, 0
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
        next_arrival = w.requests[at].arrives if at < w.clock[0].issued else _NEVER
        next_end = _next_end(w)
        moment = min(next_arrival, next_end)
        if w.clock[0].idle:
            poll, thread = _next_poll(w)
            if poll < moment:
                _forget_notices(w, poll)
                _advance(w, poll)
                _wake(w, thread)
                continue
        if moment >= _NEVER:
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
def _tasks_at_most(requests: Any, rules: Rules) -> int:
    if not rules.splitting:
        return len(requests)
    tasks = 0
    for request in range(len(requests)):
        tasks += requests[request].rows // rules.largest_batch + 2
    return tasks


@compiled
def _world(requests: Any, queues: int, rules: Rules, costs: Costs) -> World:
    tasks = _tasks_at_most(requests, rules)
    threads = len(requests) if rules.direct else rules.threads
    return World(
        rules,
        costs,
        requests,
        np.zeros(tasks, _TASK),
        np.zeros(tasks + queues + 1, _BATCH),
        np.zeros(queues, _QUEUE),
        np.zeros(threads, _RUNNING),
        np.zeros(threads),
        np.zeros(1, _CLOCK),
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
