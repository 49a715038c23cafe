"""The function that runs one batch: what a batch thread of TensorFlow Serving does around a run.

TensorFlow's BatchFunction op concatenates the inputs of a batch's tasks and hands them to this
function. Around the model it (BatchingSession::ProcessBatch in batching_session.cc)

1. refuses a batch of which every task has outlived its deadline,
2. pads rows up to the first allowed batch size that is large enough, with copies of the first
   row of the last task, and cuts them off again,
3. pads dimensions of variable length to the longest of the batch, with the first element of each
   task's tensor.

The op could pad rows itself, but only to sizes in increasing order of which the last is the
largest batch; the server takes any list. Every row of a batch carries its task's enqueue time
and deadline in, and the batch's facts out (`BATCH_FACTS`), so metrics cost no extra step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorflow.core.framework import types_pb2

from tuner.server.embedded.function_body import Body
from tuner.server.embedded.status import Code, ServingError

EXPIRED = "Run() timeout exceeded while waiting in batching queue"
NO_DIMENSIONS = "Batched output tensor has 0 dimensions"
"""Texts of the failures that the function itself finds; the status code is INVALID_ARGUMENT."""

TASK_COLUMNS = 2
"""Per row: the task's enqueue time and its deadline, in seconds of the wall clock (float64)."""

BATCH_FACTS = 4
"""Per row: time of dequeuing in wall seconds, row's index in the batch, rows, padded rows."""

MAX_PADDED_RANK = 6


@dataclass(frozen=True, slots=True)
class BatchInput:
    """An input of the model. `padded_rank`: its rank where dimensions 1.. are padded, else None.

    A padded input comes as two: rows as variants (see `ragged_rows`), and per row the element
    to pad with.
    """

    dtype: int
    padded_rank: int | None = None

    @property
    def splits(self) -> int:
        """Number of dimensions of variable length; 0 where nothing is padded."""
        return 0 if self.padded_rank is None else self.padded_rank - 1


def batch_function(
    name: str,
    model: str,
    inputs: Sequence[BatchInput],
    outputs: Sequence[int],
    allowed_batch_sizes: Sequence[int],
) -> Any:
    """Build the FunctionDef around the function `model`.

    Takes the task columns, then the inputs; returns the batch facts, then the outputs (DataType
    numbers).
    """
    body = Body(name)
    task = body.argument("task", types_pb2.DT_DOUBLE)
    now = body.node("Timestamp", "ts")
    columns = body.node(
        "Unpack", "output", [task], T=types_pb2.DT_DOUBLE, num=TASK_COLUMNS, axis=1
    )
    enqueued, deadline = columns, columns.replace(":0", ":1")
    alive = _check_alive(body, now, deadline)
    rows = _rows_of(body, task, types_pb2.DT_DOUBLE)
    padded, sources = rows, None
    if allowed_batch_sizes:
        padded = _allowed(body, rows, allowed_batch_sizes)
        sources = _padding_sources(body, rows, padded, enqueued)
    values = []
    for index, item in enumerate(inputs):
        value = _input(body, index, item)
        if sources is not None:
            value = body.gather(value, item.dtype, sources)
        values.append(value)
    results = body.call(model, values, [item.dtype for item in inputs], outputs, after=alive)
    body.output("facts", types_pb2.DT_DOUBLE, _facts(body, now, rows, padded))
    for index, (result, dtype) in enumerate(zip(results, outputs, strict=True)):
        if sources is not None:
            result = _without_padding(body, result, dtype, rows, padded)  # noqa: PLW2901
        body.output(f"out_{index}", dtype, result)
    return body.definition


def _check_alive(body: Body, now: str, deadline: str) -> str:
    latest = body.node(
        "Max", "output", [deadline, body.ints([0])], T=types_pb2.DT_DOUBLE, Tidx=types_pb2.DT_INT32
    )
    alive = body.node("GreaterEqual", "z", [latest, now], T=types_pb2.DT_DOUBLE)
    return body.require(alive, EXPIRED)


def _rows_of(body: Body, value: str, dtype: int) -> str:
    shape = body.node("Shape", "output", [value], T=dtype, out_type=types_pb2.DT_INT32)
    return body.element(shape, types_pb2.DT_INT32, 0)


def _allowed(body: Body, rows: str, sizes: Sequence[int]) -> str:
    """Find the first allowed size that holds the rows, in the file's order, else the rows."""
    last = body.node(
        "ExpandDims",
        "output",
        [rows, body.scalar(0)],
        T=types_pb2.DT_INT32,
        Tdim=types_pb2.DT_INT32,
    )
    candidates = body.node(
        "ConcatV2", "output", [body.ints(sizes), last, body.scalar(0)],
        N=2, T=types_pb2.DT_INT32, Tidx=types_pb2.DT_INT32,
    )  # fmt: skip
    holds = body.node("GreaterEqual", "z", [candidates, rows], T=types_pb2.DT_INT32)
    return body.gather(candidates, types_pb2.DT_INT32, _first_true(body, holds))


def _padding_sources(body: Body, rows: str, padded: str, enqueued: str) -> str:
    """Index the row that each row of the padded batch is copied from.

    The last task starts at the first row that was enqueued when the last row was.
    """
    last = body.element(enqueued, types_pb2.DT_DOUBLE, -1)
    same = body.node(
        "Equal", "z", [enqueued, last], T=types_pb2.DT_DOUBLE, incompatible_shape_error=True
    )
    first = _first_true(body, same)
    index = body.node(
        "Range", "output", [body.scalar(0), padded, body.scalar(1)], Tidx=types_pb2.DT_INT32
    )
    real = body.node("Less", "z", [index, rows], T=types_pb2.DT_INT32)
    return body.node("SelectV2", "output", [real, index, first], T=types_pb2.DT_INT32)


def _first_true(body: Body, mask: str) -> str:
    bits = body.node("Cast", "y", [mask], SrcT=types_pb2.DT_BOOL, DstT=types_pb2.DT_INT32)
    return body.node(
        "ArgMax", "output", [bits, body.scalar(0)],
        T=types_pb2.DT_INT32, Tidx=types_pb2.DT_INT32, output_type=types_pb2.DT_INT32,
    )  # fmt: skip


def _facts(body: Body, now: str, rows: str, padded: str) -> str:
    counts = [
        body.node("Cast", "y", [value], SrcT=types_pb2.DT_INT32, DstT=types_pb2.DT_DOUBLE)
        for value in (rows, padded)
    ]
    zero = body.doubles(0.0)
    common = body.node(
        "Pack", "output", [now, zero, *counts], N=BATCH_FACTS, T=types_pb2.DT_DOUBLE, axis=0
    )
    index = body.node(
        "Range", "output", [zero, counts[0], body.doubles(1.0)], Tidx=types_pb2.DT_DOUBLE
    )
    column = body.node(
        "ExpandDims",
        "output",
        [index, body.scalar(1)],
        T=types_pb2.DT_DOUBLE,
        Tdim=types_pb2.DT_INT32,
    )
    placed = body.node(
        "Mul", "z", [column, body.doubles([0.0, 1.0, 0.0, 0.0])], T=types_pb2.DT_DOUBLE
    )
    return body.node("AddV2", "z", [placed, common], T=types_pb2.DT_DOUBLE)


def _input(body: Body, index: int, item: BatchInput) -> str:
    if not item.splits:
        return body.argument(f"in_{index}", item.dtype)
    if item.splits >= MAX_PADDED_RANK:
        raise ServingError(
            Code.INVALID_ARGUMENT, "Only tensors with rank from 1 to 6 can be padded."
        )
    ragged = body.argument(f"in_{index}", types_pb2.DT_VARIANT)
    element = body.argument(f"element_{index}", item.dtype)
    splits, values = _rows_of_variants(body, ragged, item)
    dense = _dense(body, values, item.dtype, splits)
    size = body.node("Shape", "output", [values], T=item.dtype, out_type=types_pb2.DT_INT32)
    true = body.constant(types_pb2.DT_BOOL, True)
    ones = body.node(
        "Fill", "output", [size, true], T=types_pb2.DT_BOOL, index_type=types_pb2.DT_INT32
    )
    mask = _dense(body, ones, types_pb2.DT_BOOL, splits)
    # One element a row, in a shape that broadcasts over the row: [rows, 1, 1, ...].
    shape = body.ints([-1] + [1] * item.splits)
    spread = body.node(
        "Reshape", "output", [element, shape], T=item.dtype, Tshape=types_pb2.DT_INT32
    )
    return body.node("SelectV2", "output", [mask, dense, spread], T=item.dtype)


def _rows_of_variants(body: Body, ragged: str, item: BatchInput) -> tuple[list[str], str]:
    """Unpack rows of unlike shapes into row splits, outermost first, and flat values."""
    first = body.node(
        "RaggedTensorFromVariant", "output_nested_splits", [ragged],
        input_ragged_rank=item.splits - 1, output_ragged_rank=item.splits,
        Tvalues=item.dtype, Tsplits=types_pb2.DT_INT64,
    )  # fmt: skip
    name = first.partition(":")[0]
    splits = [f"{name}:output_nested_splits:{index}" for index in range(item.splits)]
    return splits, f"{name}:output_dense_values:0"


def _dense(body: Body, values: str, dtype: int, splits: Sequence[str]) -> str:
    """Lay rows out in one tensor with the largest dimensions; zero where a row has no value."""
    anything = body.constant(types_pb2.DT_INT64, -1)
    zero = body.zero(dtype)
    return body.node(
        "RaggedTensorToTensor", "result", [anything, values, zero, *splits],
        T=dtype, Tindex=types_pb2.DT_INT64, Tshape=types_pb2.DT_INT64,
        num_row_partition_tensors=len(splits), row_partition_types=["ROW_SPLITS"] * len(splits),
    )  # fmt: skip


def _without_padding(body: Body, value: str, dtype: int, rows: str, padded: str) -> str:
    """Cut the pad rows off the end.

    An output whose dimension 0 is not the batch's thus keeps a wrong length, which the op reports
    in the server's own words.
    """
    rank = body.node("Rank", "output", [value], T=dtype)
    some = body.node("Greater", "z", [rank, body.scalar(0)], T=types_pb2.DT_INT32)
    checked = body.node("Identity", "output", [value, body.require(some, NO_DIMENSIONS)], T=dtype)
    pad = body.node("Sub", "z", [padded, rows], T=types_pb2.DT_INT32)
    end = body.node("Sub", "z", [_rows_of(body, checked, dtype), pad], T=types_pb2.DT_INT32)
    # Not below 0: a negative end would count from the end, and could hit the right length.
    end = body.node("Maximum", "z", [end, body.scalar(0)], T=types_pb2.DT_INT32)
    ends = body.node("Pack", "output", [end], N=1, T=types_pb2.DT_INT32, axis=0)
    return body.head(checked, dtype, ends)
