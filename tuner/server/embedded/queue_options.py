"""What the server makes of batching parameters: one queue's options, or a refusal.

The order and the texts of the checks are those of bundle_factory_util.cc and
shared_batch_scheduler.h.
"""

from dataclasses import dataclass

from tuner.batching import (
    DEFAULT_BATCH_TIMEOUT_MICROS,
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MAX_ENQUEUED_BATCHES,
    BatchingParameters,
)
from tuner.server.embedded.status import Code, ServingError

_INT32_MAX = 2**31 - 1


class ServerDiesError(Exception):
    """TensorFlow Serving would be killed by SIGSEGV here, without a word."""


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """One queue of the batch scheduler, with every default filled in.

    Sizes are rows. `row_limit` is the largest request, `batch_limit` the largest batch before
    padding; they differ only where `splitting` is on.
    """

    threads: int
    row_limit: int
    batch_limit: int
    timeout_micros: int
    max_enqueued: int
    splitting: bool
    allowed_sizes: tuple[int, ...]
    pad_variable_length: bool

    @property
    def scheduler(self) -> str:
        """Names the scheduler: queues of equal options share its threads."""
        return (
            f"threads {self.threads}, rows {self.row_limit}, batch {self.batch_limit}, timeout "
            f"{self.timeout_micros}, enqueued {self.max_enqueued}, splitting {self.splitting}"
        )

    @property
    def op_sizes(self) -> list[int]:
        """The `allowed_batch_sizes` attribute that makes the op form batches up to `batch_limit`.

        The op takes the list's last entry for the largest batch and pads to the entries; padding
        is done in the batch function, so every size is listed.
        """
        if self.batch_limit == self.row_limit:
            return []
        return list(range(1, self.batch_limit + 1)) or [0]


def queue_options(parameters: BatchingParameters, threads: int) -> QueueOptions:
    """Fill in defaults and check what the server checks when it loads a model.

    Raises ServingError where the load fails, ServerDiesError where the process does.
    """
    splitting = bool(parameters.enable_large_batch_splitting)
    row_limit = _or(parameters.max_batch_size, DEFAULT_MAX_BATCH_SIZE)
    sizes = parameters.allowed_batch_sizes
    if sizes and sizes[-1] != row_limit:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
            f"{sizes[-1]}; expected {row_limit}",
        )
    timeout = _or(parameters.batch_timeout_micros, DEFAULT_BATCH_TIMEOUT_MICROS)
    enqueued = _or(parameters.max_enqueued_batches, DEFAULT_MAX_ENQUEUED_BATCHES)
    batch_limit = row_limit
    if splitting:
        # The server reads max_batch_size here without its default.
        batch_limit = _or(parameters.max_execution_batch_size, parameters.max_batch_size or 0)
    _check_queue(row_limit, batch_limit, timeout, enqueued, splitting=splitting)
    return QueueOptions(
        threads=threads,
        row_limit=_unsigned(row_limit),
        batch_limit=_unsigned(batch_limit),
        timeout_micros=min(timeout, _INT32_MAX),
        max_enqueued=max(_unsigned(enqueued), 1),
        splitting=splitting,
        allowed_sizes=sizes,
        pad_variable_length=parameters.pad_variable_length_inputs,
    )


def _check_queue(
    row_limit: int, batch_limit: int, timeout: int, enqueued: int, *, splitting: bool
) -> None:
    if row_limit == 0:
        raise ServerDiesError("input_batch_size_limit must be positive; was 0 (max_batch_size)")
    if timeout < 0:
        raise ServerDiesError(f"batch_timeout_micros must be non-negative; was {timeout}")
    if splitting and enqueued == 0:
        raise ServerDiesError("max_enqueued_batches must be positive; was 0")
    if splitting and batch_limit > row_limit:
        raise ServerDiesError(
            "When enable_large_batch_splitting is true, input_batch_size_limit must be greater "
            f"than or equal to max_execution_batch_size; max_execution_batch_size was "
            f"{batch_limit}, max_batch_size {row_limit}"
        )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _unsigned(value: int) -> int:
    """Read a size as the server does: a negative one is a huge one."""
    return _INT32_MAX if value < 0 else min(value, _INT32_MAX)
