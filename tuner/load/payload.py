"""Builds the pool of requests, once, from a model's signature and a source of rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tuner import protos
from tuner.errors import InputError
from tuner.load import tensors
from tuner.load.examples import Dims, Examples, read_examples
from tuner.load.pool import MAX_MESSAGE_BYTES, RequestPool
from tuner.model import Signature

__all__ = ["MixPart", "RequestPool", "build_pool"]

MAX_MESSAGES = 64
MAX_POOL_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class MixPart:
    """One model of the mix and how it is asked.

    `rows` maps rows per request to weights; `inputs` is None for random rows, or a file as in
    `examples.read_examples`; `dims` are sizes of dimensions after the first, by input name.
    """

    model: str
    signature: Signature
    version: int | None = None
    version_label: str | None = None
    weight: float = 1.0
    rows: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    inputs: Path | None = None
    dims: Dims = field(default_factory=dict)


def build_pool(
    parts: Sequence[MixPart],
    *,
    seed: int,
    max_messages: int = MAX_MESSAGES,
    max_bytes: int = MAX_POOL_BYTES,
) -> RequestPool:
    """Build distinct requests for every model and row count, in proportion to their weights.

    Every row count of every model gets one message at least; beyond that, `max_messages` and
    `max_bytes` bound the pool. Raises InputError where rows cannot be had.
    """
    messages: list[bytes] = []
    rows: list[int] = []
    weights: list[float] = []
    examples: list[bytes] = []
    mix_weight = sum(part.weight for part in parts)
    for number, part in enumerate(parts):
        found = read_examples(part.signature, part.inputs, dims=part.dims, seed=seed + number)
        row_bytes = _row_bytes(found)
        examples.append(_request(part, found))
        rng = np.random.default_rng([seed, number])
        row_weight = sum(part.rows.values())
        for count, weight in sorted(part.rows.items()):
            share = part.weight / mix_weight * weight / row_weight
            _check_size(part, count, row_bytes)
            distinct = _distinct(share * max_messages, share * max_bytes, count * row_bytes)
            messages += (_request(part, hand) for hand in _deal(found, count, distinct, rng))
            rows += [count] * distinct
            weights += [share / distinct] * distinct
    return RequestPool(tuple(messages), tuple(rows), tuple(weights), tuple(examples))


def _distinct(messages: float, total_bytes: float, message_bytes: int) -> int:
    return max(1, min(round(messages), int(total_bytes / max(message_bytes, 1))))


def _row_bytes(examples: Examples) -> int:
    rows = len(next(iter(examples.values())).values)
    total = sum(
        tensor.values.nbytes
        if tensor.dtype != "DT_STRING"
        else sum(len(text) for text in tensor.values.ravel())
        for tensor in examples.values()
    )
    return total // rows


def _check_size(part: MixPart, rows: int, row_bytes: int) -> None:
    if rows * row_bytes > MAX_MESSAGE_BYTES:
        raise InputError(
            f"model {part.model!r}: rows = {rows} makes a request of {rows * row_bytes:,} bytes",
            hint=f"gRPC carries 2 GiB: at most {MAX_MESSAGE_BYTES // row_bytes} rows a request",
        )


def _deal(
    examples: Examples, rows: int, hands: int, rng: np.random.Generator
) -> Iterator[Examples]:
    """Deal the example rows out, `rows` a hand, shuffled anew whenever all have been dealt.

    So all examples are used before one is used again, and requests differ while they can.
    """
    available = len(next(iter(examples.values())).values)
    shuffles = [rng.permutation(available) for _ in range(-(-hands * rows // available))]
    for picks in np.concatenate(shuffles)[: hands * rows].reshape(hands, rows):
        yield {name: tensor.take(picks) for name, tensor in examples.items()}


def _request(part: MixPart, examples: Examples) -> bytes:
    protos.install()
    from tensorflow_serving.apis import predict_pb2  # noqa: PLC0415  see tuner.protos

    request = predict_pb2.PredictRequest()
    request.model_spec.name = part.model
    request.model_spec.signature_name = part.signature.name
    if part.version is not None:
        request.model_spec.version.value = part.version
    if part.version_label is not None:
        request.model_spec.version_label = part.version_label
    for name, tensor in examples.items():
        tensors.encode(tensor, request.inputs[name])
    serialized: bytes = request.SerializeToString()
    return serialized
