"""What the events of the batch scheduler act on: rules, costs, and arrays of records.

The arrays are numpy's, so that compiled code can change them in place. All times are float64
nanoseconds, all sizes rows.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ANSWERED, QUEUE_FULL, THREADS_EXHAUSTED, TOO_LARGE, UNFINISHED = 0, 1, 2, 3, 4
"""How a request ended. UNFINISHED: the simulation was given up before."""

NONE = -1
NEVER = 1e300


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
    """What a batch takes. `work[n]`: n executed rows alone; `executed[n]`: n rows padded.

    Batches that take turns do so for `alone_share` of their time (0: they share the processor by
    `slow`), and lose `crowding` times the log of how many there are.
    """

    work: Floats
    executed: Ints
    slow: Floats
    per_request: float
    noise: Floats
    """Factors of mean 1, one a batch, used in turn."""
    alone_share: float
    crowding: float


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

TASK = np.dtype([("request", np.int64), ("after", np.int64)])
"""A request, or a part of one that was split. The tasks of a batch form a list."""

BATCH = np.dtype(
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

QUEUE = np.dtype(
    [
        ("notified_at", np.float64),
        ("front", np.int64),
        ("open", np.int64),
        ("length", np.int64),
        ("notified", np.int64),
    ]
)
"""A queue: its oldest batch, its open one, and how many there are, both included."""

RUNNING = np.dtype([("end", np.float64), ("batch", np.int64)])
"""A batch that runs, with its end in virtual time; the array is a heap, first to end on top."""

CLOCK = np.dtype(
    [
        ("now", np.float64),
        ("virtual", np.float64),
        ("free", np.float64),
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
"""The scalars that change. `free`: the virtual time at which no batch runs alone any more."""


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
