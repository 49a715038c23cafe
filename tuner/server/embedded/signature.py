"""Signatures: what a request must bring, in the server's words (predict_util.cc)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.wire import Tensor, model_spec_field


@dataclass(frozen=True, slots=True)
class SignatureTensor:
    """An input or output of a signature: its name there, and its tensor in the graph."""

    alias: str
    tensor: str
    dtype: int


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature's inputs and outputs, ordered by the tensors' names."""

    name: str
    inputs: tuple[SignatureTensor, ...]
    outputs: tuple[SignatureTensor, ...]
    aliases: frozenset[str]
    response_spec: bytes

    @classmethod
    def of(cls, model: str, version: int, name: str, definition: Any) -> "Signature":
        """Read a SignatureDef of a model's version."""
        return cls(
            name=name,
            inputs=_tensors(definition.inputs),
            outputs=_tensors(definition.outputs),
            aliases=frozenset(definition.inputs),
            response_spec=model_spec_field(model, version, name),
        )

    def values(self, inputs: dict[str, Tensor]) -> list[NDArray[Any]]:
        """Put a request's inputs in order. Raises ServingError where they do not fit."""
        self._check_names(inputs)
        values = []
        for position, item in enumerate(self.inputs):
            given = inputs[item.alias]
            if given.dtype != item.dtype:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"Expects arg[{position}] to be {_type_name(item.dtype)} but "
                    f"{_type_name(given.dtype)} is provided",
                )
            values.append(given.values)
        return values

    def wanted(self, output_filter: Sequence[str]) -> tuple[SignatureTensor, ...]:
        """Choose the outputs of a request's filter; all where it is empty. Raises ServingError."""
        if not output_filter:
            return self.outputs
        known = {item.alias: item for item in self.outputs}
        for position, alias in enumerate(output_filter):
            if alias not in known:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"output tensor alias not found in signature: {alias} Outputs expected "
                    f"to be in the set {{{','.join(sorted(known))}}}.",
                )
            if alias in output_filter[:position]:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}"
                )
        return tuple(known[alias] for alias in output_filter)

    def _check_names(self, inputs: dict[str, Tensor]) -> None:
        if inputs.keys() == self.aliases:
            return
        given, wanted = sorted(inputs), sorted(self.aliases)
        extra = sorted(inputs.keys() - self.aliases)
        missing = sorted(self.aliases - inputs.keys())
        if len(given) != len(wanted):
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"input size does not match signature: {len(given)}!={len(wanted)} "
                f"len({{{','.join(given)}}}) != len({{{','.join(wanted)}}}). "
                f"Sent extra: {{{','.join(extra)}}}. "
                f"Missing but required: {{{','.join(missing)}}}.",
            )
        feed = next(item.tensor for item in self.inputs if item.alias == missing[0])
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Signature input alias: {missing[0]}(feed name: {feed}) not found in request and no "
            "default value provided. Inputs expected to be in the request "
            f"{{{','.join(given)}}}, or default input alias set: ",
        )


def _tensors(side: Any) -> tuple[SignatureTensor, ...]:
    tensors = [SignatureTensor(alias, info.name, info.dtype) for alias, info in side.items()]
    return tuple(sorted(tensors, key=lambda item: (item.tensor, item.alias)))


def _type_name(dtype: int) -> str:
    """Name a DataType as TensorFlow's messages do: `float`, `int32`."""
    return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower()
