"""The batching parameters as the scheduler acts on them, every default filled in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.batching import (
    DEFAULT_BATCH_TIMEOUT_MICROS,
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MAX_ENQUEUED_BATCHES,
    BatchingParameters,
)
from tuner.records import Config

NS_PER_US = 1_000
INTER_OP = "tensorflow_inter_op_parallelism"
UNBOUNDED = 1 << 40
"""No server holds so many requests or batches."""


def takes_turns(flags: Mapping[str, object]) -> bool:
    """Whether batches run one after another on a server with these flags, see `service`."""
    return str(flags.get(INTER_OP)) == "1"


def most_cores(device: str, cpus: int) -> float:
    """How many batches a server with so many processors can run undisturbed, at most.

    A GPU's own limit is not known.
    """
    return cpus if device == "cpu" else math.inf


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests become batches. Sizes are in rows.

    `largest_batch` is what a batch holds, `largest_request` what one request may; they differ
    where requests are split. `in_flight` requests may be inside the server: one fewer than
    `--grpc_max_threads`. `batching` False runs every request at once, beside all others.
    """

    threads: int
    largest_batch: int
    timeout_ns: int = 0
    most_queued: int = UNBOUNDED
    allowed: tuple[int, ...] = ()
    splitting: bool = False
    largest_request: int = UNBOUNDED
    in_flight: int = UNBOUNDED
    batching: bool = True

    @classmethod
    def of(cls, config: Config, *, cpus: int) -> "Policy":
        """The policy of a server on `cpus` processors; its cap on requests inside is lifted.

        The tuner raises `--grpc_max_threads` above what a configuration needs, so that the cap
        plays no part in what it measures; a flag in the configuration itself is heeded.
        """
        threads = dict(config.flags).get("grpc_max_threads")
        in_flight = UNBOUNDED if threads is None else max(0, int(threads) - 1)
        if config.batching is None:
            return cls(threads=1, largest_batch=1, in_flight=in_flight, batching=False)
        return _with_batching(config.batching, cpus, in_flight)


def _with_batching(batching: BatchingParameters, cpus: int, in_flight: int) -> Policy:
    size = batching.max_batch_size or DEFAULT_MAX_BATCH_SIZE
    timeout_us = batching.batch_timeout_micros
    queued = batching.max_enqueued_batches
    splitting = bool(batching.enable_large_batch_splitting)
    return Policy(
        threads=batching.num_batch_threads or cpus,
        largest_batch=(batching.max_execution_batch_size or size) if splitting else size,
        timeout_ns=(DEFAULT_BATCH_TIMEOUT_MICROS if timeout_us is None else timeout_us)
        * NS_PER_US,
        # Without splitting the server silently turns 0 into 1.
        most_queued=max(1, DEFAULT_MAX_ENQUEUED_BATCHES if queued is None else queued),
        allowed=batching.allowed_batch_sizes,
        splitting=splitting,
        largest_request=size,
        in_flight=in_flight,
    )
