"""PredictRequest and PredictResponse on the wire, without building protobuf messages.

A request's tensor is viewed where it lies in the message; only what is unusual (strings, values
that are repeated, varint-packed integers) goes through protobuf. Field numbers are those of
tensorflow_serving/apis/{predict,model}.proto and tensorflow/core/framework/tensor.proto.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.python.framework import tensor_util
from tensorflow_serving.apis import model_pb2

from tuner.server.embedded.status import Code, ServingError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_RAW: dict[int, np.dtype[Any]] = {
    types_pb2.DT_FLOAT: np.dtype("<f4"),
    types_pb2.DT_DOUBLE: np.dtype("<f8"),
    types_pb2.DT_INT32: np.dtype("<i4"),
    types_pb2.DT_UINT8: np.dtype("u1"),
    types_pb2.DT_INT16: np.dtype("<i2"),
    types_pb2.DT_INT8: np.dtype("i1"),
    types_pb2.DT_INT64: np.dtype("<i8"),
    types_pb2.DT_BOOL: np.dtype("?"),
    types_pb2.DT_HALF: np.dtype("<f2"),
    types_pb2.DT_UINT16: np.dtype("<u2"),
    types_pb2.DT_UINT32: np.dtype("<u4"),
    types_pb2.DT_UINT64: np.dtype("<u8"),
    types_pb2.DT_COMPLEX64: np.dtype("<c8"),
    types_pb2.DT_COMPLEX128: np.dtype("<c16"),
}
"""Types whose `tensor_content` is plain memory."""

_PACKED_FIELD = {types_pb2.DT_FLOAT: 5, types_pb2.DT_DOUBLE: 6, types_pb2.DT_BOOL: 11}
"""Types whose packed `*_val` field is plain memory, too (a bool is a varint of one byte)."""

_CONTENT_FIELD = 4

_ENTRY_TAG, _VALUE_TAG = b"\x0a", b"\x12"
"""Of an entry of the `outputs` map, and of the tensor in it."""

_HALVES = frozenset({types_pb2.DT_HALF, types_pb2.DT_BFLOAT16})

_VALUE_FIELD = {
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_STRING: "string_val",
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model, version and signature a request asks for. Empty strings: not said."""

    name: str = ""
    version: int | None = None
    label: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input: its DataType number and its values."""

    dtype: int
    values: NDArray[Any]


Output = tuple[str, int, NDArray[Any]]
"""An output's name, DataType number and values."""


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A request as it came; `spec` is None where the client sent none."""

    spec: ModelSpec | None
    inputs: dict[str, Tensor]
    output_filter: tuple[str, ...]


def parse_predict(message: bytes) -> PredictRequest:
    """Read a PredictRequest. Raises ServingError where it is not one."""
    spec = None
    inputs = {}
    output_filter = []
    try:
        for number, start, end in _fields(message, 0, len(message)):
            if number == 1:
                spec = parse_spec(message[start:end])
            elif number == 2:
                name, tensor = _parse_input(message, start, end)
                inputs[name] = tensor
            elif number == 3:
                output_filter.append(message[start:end].decode())
    except (IndexError, UnicodeDecodeError, DecodeError):
        raise ServingError(Code.INTERNAL, "Error parsing PredictRequest") from None
    return PredictRequest(spec, inputs, tuple(output_filter))


@lru_cache(maxsize=1024)
def parse_spec(content: bytes) -> ModelSpec:
    """Read a ModelSpec. Every request of a client says the same, hence the cache."""
    spec = model_pb2.ModelSpec.FromString(content)
    version = spec.version.value if spec.HasField("version") else None
    return ModelSpec(spec.name, version, spec.version_label, spec.signature_name)


def _parse_input(message: bytes, start: int, end: int) -> tuple[str, Tensor]:
    name = ""
    at, stop = end, end
    for number, first, last in _fields(message, start, end):
        if number == 1:
            name = message[first:last].decode()
        elif number == 2:
            at, stop = first, last
    tensor = _view(message, at, stop)
    return name, _convert(message[at:stop], name) if tensor is None else tensor


def _view(message: bytes, start: int, end: int) -> Tensor | None:
    """View a tensor's values in place, or None where they need conversion."""
    dtype = 0
    shape: tuple[int, ...] = ()
    where: tuple[int, int, int] | None = None
    for number, first, last in _fields(message, start, end):
        if number == 1:
            dtype = message[first]
        elif number == 2:
            shape = _parse_shape(message[first:last])
        elif number > 3:
            if where is not None:
                return None
            where = number, first, last
    raw = _RAW.get(dtype)
    if raw is None or where is None:
        return None
    number, first, last = where
    if number not in {_CONTENT_FIELD, _PACKED_FIELD.get(dtype)}:
        return None
    if any(size < 0 for size in shape) or last - first != prod(shape) * raw.itemsize:
        return None
    values = np.frombuffer(message, raw, (last - first) // raw.itemsize, first)
    return Tensor(dtype, values.reshape(shape))


@lru_cache(maxsize=1024)
def _parse_shape(content: bytes) -> tuple[int, ...]:
    return tuple(item.size for item in tensor_shape_pb2.TensorShapeProto.FromString(content).dim)


def _convert(content: bytes, name: str) -> Tensor:
    try:
        proto = tensor_pb2.TensorProto.FromString(content)
        return Tensor(proto.dtype, tensor_util.MakeNdarray(proto))
    except (DecodeError, TypeError, ValueError):
        raise ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {name}") from None


def _fields(message: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the fields of a message as (number, start, end of the value).

    A varint's value is left where it is. Raises IndexError where the message breaks off.
    """
    while at < end:
        tag = message[at]
        at += 1
        if tag > 0x7F:
            tag, at = _read_varint(message, at - 1)
        kind = tag & 7
        start = at
        if kind == _BYTES:
            size = message[at]
            at += 1
            if size > 0x7F:
                size, at = _read_varint(message, at - 1)
            start, at = at, at + size
        elif kind == _VARINT:
            _, at = _read_varint(message, at)
        elif kind == _FIXED32:
            at += 4
        elif kind == _FIXED64:
            at += 8
        else:
            raise IndexError
        if at > end:
            raise IndexError
        yield tag >> 3, start, at


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def predict_response(spec: bytes, outputs: Sequence[Output]) -> bytes:
    """Write a PredictResponse from `model_spec_field` and (name, DataType, values) outputs.

    Values go into the typed fields (`float_val`), not `tensor_content`, as the server's do.
    """
    parts: list[Any] = []
    for name, dtype, values in outputs:
        key, head, tag = _head(name, dtype, values.shape)
        if not tag:
            body: list[bytes | memoryview] = [_values(dtype, values)]
        elif values.size:
            body = [tag, _varint(values.nbytes), np.ascontiguousarray(values).data]
        else:
            body = []
        tensor = sum(memoryview(part).nbytes for part in body) + len(head)
        size = _varint(tensor)
        entry = len(key) + 1 + len(size) + tensor
        parts += [_ENTRY_TAG, _varint(entry), key, _VALUE_TAG, size, head, *body]
    return b"".join([*parts, spec])


def model_spec_field(name: str, version: int, signature: str) -> bytes:
    """Write the `model_spec` field of a PredictResponse."""
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    spec.version.value = version
    return _field(2, spec.SerializeToString())


@lru_cache(maxsize=1024)
def _head(name: str, dtype: int, shape: tuple[int, ...]) -> tuple[bytes, bytes, bytes]:
    """Write an output's map key, its tensor's type and shape, and the tag of its values.

    The tag is empty where the values are not plain memory.
    """
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    number = _PACKED_FIELD.get(dtype)
    tag = b"" if number is None else _varint(number << 3 | _BYTES)
    return _field(1, name.encode()), bytes(proto.SerializeToString()), tag


def _values(dtype: int, values: NDArray[Any]) -> bytes:
    """Write the value field of a type that protobuf has to convert."""
    proto = tensor_pb2.TensorProto()
    field = _VALUE_FIELD.get(dtype)
    if dtype in _HALVES:
        proto.half_val.extend(values.ravel().view(np.uint16).tolist())
    elif field is None:
        proto.tensor_content = values.tobytes()
    else:
        getattr(proto, field).extend(values.ravel().tolist())
    return bytes(proto.SerializeToString())
