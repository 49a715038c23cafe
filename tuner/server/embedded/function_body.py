"""Writing a TensorFlow function node by node."""

from collections.abc import Sequence
from typing import Any

from tensorflow.core.framework import attr_value_pb2, function_pb2, types_pb2

_VALUES = {
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_STRING: "string_val",
}


class Body:
    """A FunctionDef under construction. References are strings such as `node_3:output:0`."""

    def __init__(self, name: str) -> None:
        self.definition = function_pb2.FunctionDef()
        self.definition.signature.name = name
        self.definition.signature.is_stateful = True

    def argument(self, name: str, dtype: int) -> str:
        """Add an input of the function."""
        self.definition.signature.input_arg.add(name=name, type=dtype)
        return name

    def output(self, name: str, dtype: int, value: str) -> None:
        """Add an output of the function."""
        self.definition.signature.output_arg.add(name=name, type=dtype)
        self.definition.ret[name] = value

    def node(
        self, op: str, result: str | None, inputs: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add a node. Refers to the first tensor of output `result`; None: to the node's end.

        Attributes: DataTypes are given as ints under names that say so (`T`, `Tin`, `dtype`).
        """
        name = f"node_{len(self.definition.node_def)}"
        node = self.definition.node_def.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            _set_attribute(node.attr[key], key, value)
        return f"^{name}" if result is None else f"{name}:{result}:0"

    def call(
        self,
        function: str,
        inputs: Sequence[str],
        input_types: Sequence[int],
        output_types: Sequence[int],
        *,
        after: str,
    ) -> list[str]:
        """Call a function by name once the node `after` is done."""
        first = self.node(
            "StatefulPartitionedCall", "output", [*inputs, after],
            Tin=list(input_types), Tout=list(output_types),
        )  # fmt: skip
        self.definition.node_def[-1].attr["f"].func.name = function
        return [f"{first[:-1]}{index}" for index in range(len(output_types))]

    def constant(self, dtype: int, value: Any) -> str:
        """Add a scalar, or a vector where `value` is a list."""
        reference = self.node("Const", "output", dtype=dtype)
        proto = self.definition.node_def[-1].attr["value"].tensor
        proto.dtype = dtype
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list):
            proto.tensor_shape.dim.add(size=len(value))
        if dtype == types_pb2.DT_STRING:
            values = [item.encode() for item in values]
        getattr(proto, _VALUES[dtype]).extend(values)
        return reference

    def zero(self, dtype: int) -> str:
        """Add the scalar 0 (or the empty string) of any type."""
        reference = self.node("Const", "output", dtype=dtype)
        self.definition.node_def[-1].attr["value"].tensor.dtype = dtype
        return reference

    def scalar(self, value: int) -> str:
        """Add an int32 scalar."""
        return self.constant(types_pb2.DT_INT32, value)

    def ints(self, values: Sequence[int]) -> str:
        """Add an int32 vector."""
        return self.constant(types_pb2.DT_INT32, list(values))

    def doubles(self, value: float | list[float]) -> str:
        """Add a float64 scalar or vector."""
        return self.constant(types_pb2.DT_DOUBLE, value)

    def require(self, condition: str, text: str) -> str:
        """Fail with INVALID_ARGUMENT `assertion failed: [text]` unless the condition holds."""
        shown = self.constant(types_pb2.DT_STRING, text)
        return self.node("Assert", None, [condition, shown], T=[types_pb2.DT_STRING])

    def gather(self, values: str, dtype: int, rows: str) -> str:
        """Pick rows (int32 indices along dimension 0)."""
        return self.node(
            "GatherV2", "output", [values, rows, self.scalar(0)],
            Tparams=dtype, Tindices=types_pb2.DT_INT32, Taxis=types_pb2.DT_INT32, batch_dims=0,
        )  # fmt: skip

    def element(self, vector: str, dtype: int, index: int) -> str:
        """Pick one element; -1 is the last."""
        return (
            self.gather(vector, dtype, self.scalar(0)) if index == 0 else self._last(vector, dtype)
        )

    def _last(self, vector: str, dtype: int) -> str:
        return self._strided(vector, dtype, self.ints([-1]), self.ints([0]), shrink=1, end_mask=1)

    def head(self, values: str, dtype: int, end: str) -> str:
        """Keep rows before `end` (an int32 vector of one element)."""
        return self._strided(values, dtype, self.ints([0]), end, shrink=0, end_mask=0)

    def _strided(
        self, values: str, dtype: int, begin: str, end: str, *, shrink: int, end_mask: int
    ) -> str:
        return self.node(
            "StridedSlice", "output", [values, begin, end, self.ints([1])],
            T=dtype, Index=types_pb2.DT_INT32, begin_mask=0, end_mask=end_mask,
            ellipsis_mask=0, new_axis_mask=0, shrink_axis_mask=shrink,
        )  # fmt: skip


def _set_attribute(attribute: attr_value_pb2.AttrValue, key: str, value: Any) -> None:
    is_type = key.startswith("T") or key in {"dtype", "SrcT", "DstT", "Index"} or "_type" in key
    match value:
        case bool():
            attribute.b = value
        case int() if is_type:
            attribute.type = value
        case int():
            attribute.i = value
        case [str(), *_]:
            attribute.list.s.extend(item.encode() for item in value)
        case _:
            attribute.list.type.extend(value)
