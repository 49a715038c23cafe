"""Running one signature: what a request's inputs go through on a worker thread."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from tuner import clock
from tuner.server.embedded.batch_function import (
    EXPIRED,
    NO_DIMENSIONS,
    TASK_COLUMNS,
    BatchInput,
)
from tuner.server.embedded.metrics import Metrics
from tuner.server.embedded.queue_options import QueueOptions
from tuner.server.embedded.runtime import Runtime, array, tensor
from tuner.server.embedded.signature import SignatureTensor
from tuner.server.embedded.status import Code, ServingError

_CHECKS = {EXPIRED: Code.RESOURCE_EXHAUSTED, NO_DIMENSIONS: Code.FAILED_PRECONDITION}
"""What the batch function checks, and the code the server answers with."""

_UNLIKE_SHAPES = ("Dimensions of inputs should match", "Ranks of all input tensors should match")
"""How the op's messages begin where tasks do not concatenate."""

_WRONG_LENGTH = (
    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of "
    "the input tensors"
)
"""How the op's message begins, and where the server's ends."""


class RunTarget(Protocol):
    """A set of input tensors and a set of output tensors of a graph: what one queue is for."""

    def run(
        self, values: Sequence[NDArray[Any]], deadline_ns: int | None, /
    ) -> list[NDArray[Any]]:
        """Run on values in the inputs' order; `deadline_ns` is monotonic. Raises ServingError."""


class DirectTarget:
    """Runs request by request: batching is off."""

    def __init__(self, runtime: Runtime, function: str, outputs: int) -> None:
        self._runtime = runtime
        self._function = function
        self._outputs = outputs

    def run(self, values: Sequence[NDArray[Any]], _deadline_ns: int | None) -> list[NDArray[Any]]:
        """See RunTarget. A run that has begun is not cut short at its deadline."""
        results = self._runtime.execute(
            self._function, [tensor(value) for value in values], self._outputs
        )
        return [array(result) for result in results]


class BatchedTarget:
    """Requests wait in a queue of the scheduler and run in batches."""

    def __init__(
        self,
        runtime: Runtime,
        metrics: Metrics,
        function: str,
        named: Sequence[SignatureTensor],
        inputs: Sequence[BatchInput],
        outputs: Sequence[int],
        options: QueueOptions,
    ) -> None:
        self._runtime = runtime
        self._metrics = metrics
        self._named = named
        self._inputs = inputs
        self._results = len(outputs) + 1
        self._splitting = options.splitting
        self._attributes = _op_attributes(function, inputs, outputs, options)

    def run(self, values: Sequence[NDArray[Any]], deadline_ns: int | None) -> list[NDArray[Any]]:
        """See RunTarget."""
        rows = _rows(values)
        for _ in values:
            self._metrics.input_batch_size.add(rows)
        if rows == 0:
            _hang(deadline_ns)
        tensors = [
            part
            for value, item in zip(values, self._inputs, strict=True)
            for part in self._parts(value, item)
        ]
        enqueued_s = time.time()
        task = np.empty((rows, TASK_COLUMNS))
        task[:, 0] = enqueued_s
        task[:, 1] = _wall_deadline(enqueued_s, deadline_ns)
        try:
            facts, *results = self._runtime.execute(
                "BatchFunction", [tensor(task), *tensors], self._results, self._attributes
            )
        except ServingError as error:
            raise _server_error(error, self._named, values) from None
        self._record(array(facts), enqueued_s)
        return [array(result) for result in results]

    def _parts(self, value: NDArray[Any], item: BatchInput) -> list[Any]:
        """Prepare one input for the op: itself, or rows that need not be of equal shape."""
        if not item.splits:
            return [tensor(value)]
        splits = []
        count = len(value)
        for size in value.shape[1:]:
            splits.append(tensor(np.arange(count + 1, dtype=np.int64) * size))
            count *= size
        if not value.size:
            raise ServingError(
                Code.INVALID_ARGUMENT, "Got empty tensor in batch of non-empty tensors."
            )
        (rows,) = self._runtime.execute(
            "RaggedTensorToVariant", [*splits, tensor(value.reshape(-1))], 1,
            ("RAGGED_RANK", item.splits, "Tvalues", item.dtype, "Tsplits", types_pb2.DT_INT64,
             "batched_input", True),
        )  # fmt: skip
        elements = np.full(len(value), value.flat[0], dtype=value.dtype)
        return [rows, tensor(elements)]

    def _record(self, facts: NDArray[np.float64], enqueued_s: float) -> None:
        """Count the task's parts, and the batches whose first row was this task's."""
        metrics = self._metrics
        if len(facts) == 1 or not self._splitting:
            parts = [facts[0].tolist()]
        else:
            # Another part begins where the row's index in its batch does not go up by one.
            steps = np.diff(facts[:, 1], prepend=np.nan)
            parts = facts[steps != 1].tolist()
        for dequeued_s, index, rows, padded in parts:
            metrics.queuing_latency.add((dequeued_s - enqueued_s) * 1e6, "")
            if index == 0:
                metrics.batch(int(rows), int(padded))


def _rows(values: Sequence[NDArray[Any]]) -> int:
    """Size a request: the 0th dimension of its inputs, which must agree."""
    if any(value.ndim == 0 for value in values):
        raise ServingError(
            Code.INVALID_ARGUMENT, "Batching Run() input tensors must have at least one dimension"
        )
    if not values:
        raise ServingError(
            Code.INVALID_ARGUMENT, "Batching Run() must have at least one input tensor"
        )
    rows = len(values[0])
    if any(len(value) != rows for value in values):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Batching Run() input tensors must have equal 0th-dimension size",
        )
    return rows


def _hang(deadline_ns: int | None) -> None:
    """Hold a request of no rows until its deadline: no batch is ever due for it."""
    while deadline_ns is None or clock.now_ns() < deadline_ns:
        time.sleep(0.1)
    raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")


def _wall_deadline(now_s: float, deadline_ns: int | None) -> float:
    if deadline_ns is None:
        return np.inf
    return now_s + (deadline_ns - clock.now_ns()) / clock.NS_PER_S


def _server_error(
    error: ServingError, inputs: Sequence[SignatureTensor], values: Sequence[NDArray[Any]]
) -> ServingError:
    """Say in the server's words what the op says in its own."""
    for text, code in _CHECKS.items():
        if error.text == f"assertion failed: [{text}]":
            return ServingError(code, text)
    if error.text.startswith(_WRONG_LENGTH):
        return ServingError(error.code, _WRONG_LENGTH)
    if error.text.startswith(_UNLIKE_SHAPES):
        name = _differing(error.text, inputs, values)
        return ServingError(
            Code.FAILED_PRECONDITION,
            f"Tensors with name '{name}' from different tasks have different shapes and padding "
            "is turned off. Set pad_variable_length_inputs to true, or ensure that all tensors "
            "with the same name have equal dimensions starting with the first dim.",
        )
    return error


def _differing(
    text: str, inputs: Sequence[SignatureTensor], values: Sequence[NDArray[Any]]
) -> str:
    """Find the input whose shape the op could not concatenate."""
    for named, value in zip(inputs, values, strict=True):
        if f"= [{','.join(map(str, value.shape))}]" in text:
            return named.tensor
    return inputs[0].tensor


def _op_attributes(
    function: str,
    inputs: Sequence[BatchInput],
    outputs: Sequence[int],
    options: QueueOptions,
) -> tuple[Any, ...]:
    types = [types_pb2.DT_DOUBLE]
    for item in inputs:
        types += [types_pb2.DT_VARIANT, item.dtype] if item.splits else [item.dtype]
    attributes: tuple[Any, ...] = (
        "f", function,
        "Tin", types,
        "Tcaptured", [],
        "Tout", [types_pb2.DT_DOUBLE, *outputs],
        "num_batch_threads", options.threads,
        "max_batch_size", options.row_limit,
        "batch_timeout_micros", options.timeout_micros,
        "max_enqueued_batches", options.max_enqueued,
        "shared_name", options.scheduler,
        "batching_queue", function,
    )  # fmt: skip
    if options.splitting:  # attributes are read at every call, so none is given without need
        attributes += (
            "enable_large_batch_splitting", True, "allowed_batch_sizes", options.op_sizes
        )  # fmt: skip
    return attributes
