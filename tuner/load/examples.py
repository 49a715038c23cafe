"""Where the rows of requests come from: random values, an .npz, or a model's warm-up requests."""

import difflib
import math
import zipfile
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import protos
from tuner.errors import InputError
from tuner.load import tensors
from tuner.load.tensors import Tensor
from tuner.load.tfrecord import read_records
from tuner.model import DEFAULT_SIGNATURE, Signature, TensorSpec

Examples = Mapping[str, Tensor]
"""Tensors by input name, all with the same number of rows along the first dimension."""

Dims = Mapping[str, Sequence[int]]
"""Sizes of the dimensions after the first, by input name."""

MAX_EXAMPLE_ROWS = 256
MAX_EXAMPLE_BYTES = 32 << 20
"""More rows than this are not kept: requests draw on them again and again."""


def read_examples(
    signature: Signature, source: Path | None, *, dims: Dims, seed: int
) -> dict[str, Tensor]:
    """Return example rows for every input of a signature.

    `source` is None for random values, else an `.npz` of arrays by input name or a TFRecord of
    PredictionLog (`tf_serving_warmup_requests`). Raises InputError where it does not fit.
    """
    _check_dims(signature, dims)
    for name, spec in signature.inputs.items():
        if not tensors.supported(spec.dtype):
            raise InputError(
                f"input {name!r} has type {spec.dtype}, which no request can carry",
                hint="choose a signature whose inputs are plain tensors",
            )
    if source is None:
        return _random(signature, dims, np.random.default_rng(seed))
    found = _npz(source, signature) if source.suffix == ".npz" else _warmup(source, signature)
    for name, spec in signature.inputs.items():
        _check_shape(found[name], spec, dims.get(name), f"{source}: {name}")
    return _bounded(_aligned(found, source))


def _random(signature: Signature, dims: Dims, rng: np.random.Generator) -> dict[str, Tensor]:
    shapes = {name: _row_shape(name, spec, dims) for name, spec in signature.inputs.items()}
    for name, spec in signature.inputs.items():
        if spec.dtype == "DT_STRING":
            raise InputError(
                f"input {name!r} takes strings, and random ones would not be valid inputs",
                hint="give real inputs: an .npz of arrays or a tf_serving_warmup_requests file",
            )
    row_elements = sum(math.prod(shape) for shape in shapes.values())
    rows = _row_limit(8 * row_elements)
    return {
        name: tensors.random(spec.dtype, (rows, *shapes[name]), rng)
        for name, spec in signature.inputs.items()
    }


def _row_shape(name: str, spec: TensorSpec, dims: Dims) -> tuple[int, ...]:
    if name in dims:
        return tuple(dims[name])
    if spec.shape is not None and None not in spec.shape[1:]:
        return tuple(size for size in spec.shape[1:] if size is not None)
    count = 1 if spec.shape is None else len(spec.shape) - 1
    sizes = ", ".join(["64"] * count)
    raise InputError(
        f"input {name!r} is {spec}: random rows need the size of every dimension after the first",
        hint=f"add `dims.{name} = [{sizes}]` to the model, with sizes of your own",
    )


def _check_dims(signature: Signature, dims: Dims) -> None:
    for name, sizes in dims.items():
        if name not in signature.inputs:
            raise _unknown_input(f"dims.{name}", name, signature)
        spec = signature.inputs[name]
        if not _fits(sizes, spec):
            raise InputError(
                f"dims.{name} = {list(sizes)} does not fit input {name!r}, {spec}",
                hint="give one size for each dimension after the first, equal where it is fixed",
            )


def _fits(sizes: Sequence[int], spec: TensorSpec) -> bool:
    if spec.shape is None:
        return True
    pairs = zip_longest(sizes, spec.shape[1:], fillvalue=-1)
    return all(known in (None, size) and size != -1 for size, known in pairs)


def _check_shape(
    tensor: Tensor, spec: TensorSpec, sizes: Sequence[int] | None, where: str
) -> None:
    shape = tensor.values.shape
    wanted = spec if sizes is None else TensorSpec(spec.dtype, (None, *sizes))
    if not shape or not _fits(shape[1:], wanted):
        raise InputError(
            f"{where}: shape {list(shape)} does not fit the input, {wanted}",
            hint="rows lie along the first dimension; the others must be the model's",
        )


def _npz(path: Path, signature: Signature) -> dict[str, Tensor]:
    arrays = _read_npz(path)
    for name in arrays:
        if name not in signature.inputs:
            raise _unknown_input(f"{path}: {name}", name, signature)
    found = {}
    for name, spec in signature.inputs.items():
        if name not in arrays:
            raise InputError(
                f"{path}: holds no array named {name!r}",
                hint=f"save one with np.savez(path, **{{{name!r}: rows}})",
            )
        try:
            found[name] = tensors.convert(arrays[name], spec.dtype)
        except TypeError:
            raise InputError(
                f"{path}: {name}: holds {arrays[name].dtype}, the model takes {spec.dtype}",
                hint="convert the array with .astype before saving it",
            ) from None
    return found


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise InputError(
            f"{path}: cannot be read as .npz: {reason}",
            hint="write it with np.savez(path, input_name=rows); strings as dtype 'S' or 'U'",
        ) from None


def _warmup(path: Path, signature: Signature) -> dict[str, Tensor]:
    """Join the rows of all recorded Predict requests of this signature, up to the limit."""
    protos.install()
    from google.protobuf.message import DecodeError  # noqa: PLC0415  see tuner.protos
    from tensorflow_serving.apis import prediction_log_pb2  # noqa: PLC0415

    recorded: list[dict[str, Tensor]] = []
    size = rows = 0
    for number, record in enumerate(read_records(path), start=1):
        where = f"{path}: record {number}"
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError:
            raise InputError(
                f"{where}: is not a PredictionLog",
                hint="write it as TensorFlow Serving's guide to SavedModel warmup shows",
            ) from None
        request = log.predict_log.request
        if (request.model_spec.signature_name or DEFAULT_SIGNATURE) != signature.name:
            continue
        if not log.HasField("predict_log"):
            continue
        recorded.append(_recorded_inputs(request, signature, where))
        size += len(record)
        rows += len(next(iter(recorded[-1].values())).values)
        if size > MAX_EXAMPLE_BYTES or rows >= MAX_EXAMPLE_ROWS:
            break
    if not recorded:
        raise InputError(
            f"{path}: holds no Predict request of signature {signature.name!r}",
            hint="record some, or choose another signature or other inputs",
        )
    return {name: _joined(name, recorded, path) for name in signature.inputs}


def _recorded_inputs(request: Any, signature: Signature, where: str) -> dict[str, Tensor]:
    found = {}
    for name, spec in signature.inputs.items():
        if name not in request.inputs:
            raise InputError(f"{where}: lacks input {name!r}", hint="record complete requests")
        try:
            found[name] = tensors.decode(request.inputs[name])
        except ValueError as error:
            raise InputError(
                f"{where}: input {name!r} is damaged: {error}", hint="record the request again"
            ) from None
        if found[name].dtype != spec.dtype:
            raise InputError(
                f"{where}: input {name!r} is {found[name].dtype}, the model takes {spec.dtype}",
                hint="record the requests with this version of the model",
            )
        _check_shape(found[name], spec, None, f"{where}: input {name!r}")
    return _aligned(found, where)


def _joined(name: str, recorded: Sequence[Mapping[str, Tensor]], path: Path) -> Tensor:
    pieces = [inputs[name] for inputs in recorded]
    shapes = sorted({piece.values.shape[1:] for piece in pieces})
    if len(shapes) > 1:
        raise InputError(
            f"{path}: rows of input {name!r} differ in shape: {list(shapes[0])}, "
            f"{list(shapes[1])}",
            hint="keep the requests of one shape, or list one model entry in the mix per shape",
        )
    return Tensor(pieces[0].dtype, np.concatenate([piece.values for piece in pieces]))


def _aligned(found: dict[str, Tensor], where: object) -> dict[str, Tensor]:
    counts = {name: len(tensor.values) for name, tensor in found.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise InputError(
            f"{where}: the inputs have {counts} rows",
            hint="every input needs the same number of rows, at least 1",
        )
    return found


def _bounded(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep rows evenly spread over the source, as many as the limits allow."""
    rows = len(next(iter(found.values())).values)
    size = sum(tensor.values.nbytes for tensor in found.values())
    kept = min(rows, _row_limit(-(-size // rows)))
    picks = np.linspace(0, rows - 1, kept).astype(np.int64)
    return {name: tensor.take(picks) for name, tensor in found.items()}


def _row_limit(row_bytes: int) -> int:
    return max(1, min(MAX_EXAMPLE_ROWS, MAX_EXAMPLE_BYTES // max(row_bytes, 1)))


def _unknown_input(where: str, name: str, signature: Signature) -> InputError:
    near = difflib.get_close_matches(name, signature.inputs, n=1)
    return InputError(
        f"{where}: signature {signature.name!r} has no such input",
        hint=(f"did you mean {near[0]!r}? " if near else "")
        + f"its inputs are {', '.join(signature.inputs)}",
    )
