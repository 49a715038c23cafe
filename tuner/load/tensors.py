"""Tensors between numpy and TensorProto, for a process that must not import TensorFlow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMPY: dict[str, Any] = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_HALF": np.float16,
    "DT_BFLOAT16": np.uint16,  # numpy has no bfloat16: its bits, the upper half of a float32
    "DT_INT8": np.int8,
    "DT_INT16": np.int16,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_UINT16": np.uint16,
    "DT_UINT32": np.uint32,
    "DT_UINT64": np.uint64,
    "DT_BOOL": np.bool_,
    "DT_COMPLEX64": np.complex64,
    "DT_COMPLEX128": np.complex128,
    "DT_STRING": np.object_,  # of bytes
}
_VALUE_FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_HALF": "half_val",
    "DT_BFLOAT16": "half_val",
    "DT_INT64": "int64_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
    "DT_BOOL": "bool_val",
    "DT_COMPLEX64": "scomplex_val",
    "DT_COMPLEX128": "dcomplex_val",
}
"""Where a TensorProto without tensor_content keeps its values; `int_val` for all other types."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Values of one input, rows along the first dimension; `dtype` as TensorFlow names it."""

    dtype: str
    values: NDArray[Any]

    def take(self, picks: NDArray[np.int64]) -> "Tensor":
        """Return the rows at `picks`."""
        return Tensor(self.dtype, self.values[picks])


def supported(dtype: str) -> bool:
    """Whether tensors of this type can be sent."""
    return dtype in _NUMPY


def random(dtype: str, shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Draw values that most models accept.

    Floating point: uniform in [0, 1). 8-bit integers: 0 to 127, as pixels. Other integers: 0 to 9,
    since they mostly are indices into a vocabulary. Raises TypeError for strings: no random text
    is a serialized example.
    """
    kind = np.dtype(_NUMPY[dtype])
    if dtype == "DT_STRING":
        raise TypeError("strings cannot be drawn at random")
    if dtype == "DT_BOOL":
        return Tensor(dtype, rng.random(shape) < 0.5)
    if dtype != "DT_BFLOAT16" and np.issubdtype(kind, np.integer):
        return Tensor(dtype, rng.integers(0, 128 if kind.itemsize == 1 else 10, shape, kind.type))
    uniform = rng.random(shape, dtype=np.float32)
    if kind.kind == "c":
        return Tensor(dtype, (uniform + 1j * rng.random(shape, dtype=np.float32)).astype(kind))
    return convert(uniform, dtype)


def convert(values: NDArray[Any], dtype: str) -> Tensor:
    """Cast an array to the type of an input. Raises TypeError where that changes its kind."""
    if dtype == "DT_BFLOAT16":
        single = np.ascontiguousarray(values.astype(np.float32, casting="same_kind"))
        return Tensor(dtype, (single.view(np.uint32) >> 16).astype(np.uint16))
    if dtype == "DT_STRING":
        if values.dtype.kind not in "SU":
            raise TypeError(f"cannot cast {values.dtype} to {dtype}")
        encoded = values if values.dtype.kind == "S" else np.char.encode(values, "utf-8")
        return Tensor(dtype, encoded.astype(np.object_))
    return Tensor(dtype, values.astype(_NUMPY[dtype], casting="same_kind"))


def encode(tensor: Tensor, proto: Any) -> None:
    """Fill a TensorProto, by `tensor_content`: one copy whatever the size."""
    from tensorflow.core.framework import types_pb2  # noqa: PLC0415  see tuner.protos

    proto.dtype = types_pb2.DataType.Value(tensor.dtype)
    for size in tensor.values.shape:
        proto.tensor_shape.dim.add(size=size)
    if tensor.dtype == "DT_STRING":
        proto.string_val.extend(tensor.values.ravel().tolist())
    else:
        proto.tensor_content = tensor.values.tobytes()


def decode(proto: Any) -> Tensor:
    """Read a TensorProto, whichever of its fields holds the values. Raises ValueError."""
    from tensorflow.core.framework import types_pb2  # noqa: PLC0415  see tuner.protos

    dtype = types_pb2.DataType.Name(proto.dtype)
    if not supported(dtype):
        raise ValueError(f"tensors of type {dtype} cannot be sent")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    count = math.prod(shape)
    if proto.tensor_content:
        return Tensor(dtype, np.frombuffer(proto.tensor_content, _NUMPY[dtype]).reshape(shape))
    given = _values(proto, dtype)
    if not 0 < len(given) <= max(count, 1):
        raise ValueError(f"{len(given)} values for the shape {shape}")
    # Where a TensorProto lists fewer values than elements, its last value stands for the rest.
    values = np.concatenate([given, np.repeat(given[-1:], count - len(given))])
    return Tensor(dtype, values[:count].reshape(shape))


def _values(proto: Any, dtype: str) -> NDArray[Any]:
    if dtype == "DT_STRING":
        return np.array(list(proto.string_val), dtype=np.object_)
    raw = getattr(proto, _VALUE_FIELDS.get(dtype, "int_val"))
    if dtype == "DT_HALF":
        return np.array(raw, dtype=np.uint16).view(np.float16)
    if dtype.startswith("DT_COMPLEX"):
        parts = np.float32 if dtype == "DT_COMPLEX64" else np.float64
        return np.array(raw, dtype=parts).view(_NUMPY[dtype])
    return np.array(raw, dtype=_NUMPY[dtype])
