"""The first scenario for a model of one's own: what `tuner init MODEL_DIR` writes.

It runs as it is. What the model says is filled in, what only its owner can know is marked EDIT,
and every other key stands there as a comment with its default, taken from the scenario format.
"""

import json
import os
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tuner.errors import InputError, UsageError
from tuner.load.examples import read_examples
from tuner.model import (
    DEFAULT_SIGNATURE,
    ModelInfo,
    Signature,
    TensorSpec,
    batchable,
    inspect,
    require_batchable,
)
from tuner.scenario import (
    LoadSection,
    MeasureSection,
    SearchSection,
    ServerSection,
    SloSection,
    SpaceSection,
)

P99_MS = 50.0
PLACEHOLDER_SIZE = 64
"""Stands for a dimension that the model leaves open and only its owner knows."""

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
"""Where a SavedModel carries requests that TensorFlow Serving replays at load."""


def starter(model_dir: Path, scenario_path: Path) -> str:
    """Return the text of a scenario for this model, to be written to `scenario_path`.

    Raises ModelError where the model cannot be read or no signature of it can be batched, and
    UsageError where its path cannot be written as text.
    """
    info = inspect(model_dir)
    signature = _signature(model_dir, info)
    sections = (
        _model(info, signature, scenario_path.parent.resolve()),
        _slo(),
        _section("server", ServerSection),
        _section("load", LoadSection),
        _section("measure", MeasureSection),
        _section("search", SearchSection),
        _section("search.space", SpaceSection),
    )
    return "\n".join([_head(info), *("\n".join(section) + "\n" for section in sections)])


def _signature(model_dir: Path, info: ModelInfo) -> Signature:
    """The signature requests call by default, else the first one that can be batched."""
    if DEFAULT_SIGNATURE not in info.signatures:
        for signature in info.signatures.values():
            if batchable(signature):
                return signature
    signature = info.signature()
    require_batchable(model_dir, signature)
    return signature


def _head(info: ModelInfo) -> str:
    directory = info.path.resolve()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", directory.name).lstrip("._-")[:64] or "model"
    return (
        "# A scenario for tuner: which model, which promise, which load.\n"
        "# Lines marked EDIT hold a guess of ours. Commented keys show their defaults.\n"
        "# Paths are relative to this file. Run it with: tuner tune THIS_FILE\n"
        "\n"
        f"name = {_text(name)}\n"
        "# Of arrivals, payloads and the sampler.\n"
        "# seed = 1\n"
    )


def _model(info: ModelInfo, signature: Signature, folder: Path) -> Iterator[str]:
    yield "[model]"
    yield f"path = {_text(_reference(info.path.resolve(), folder))}"
    versions = ", ".join(map(str, info.versions))
    yield f"# It holds version{'s' * (len(info.versions) > 1)} {versions}; the largest is asked."
    yield f"# version = {info.version}"
    yield from _signature_lines(info, signature)
    yield ""
    yield from _inputs(info, signature, folder)
    yield ""
    yield '# EDIT: rows in one request, or a mix of them: rows = { "1" = 0.7, "8" = 0.3 }'
    yield "rows = 1"


def _signature_lines(info: ModelInfo, signature: Signature) -> Iterator[str]:
    others = [name for name in info.signatures if name != signature.name]
    if others:
        yield f"# It also has {', '.join(map(_text, others))}."
    yield f"signature = {_text(signature.name)}"
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for name, spec in tensors.items():
            yield f"#   {kind:6} {_text(name)}: {spec}"


def _inputs(info: ModelInfo, signature: Signature, folder: Path) -> Iterator[str]:
    """Say where rows come from, and give sizes where random ones need them."""
    version_dir = info.path.resolve() / str(info.version)
    if (warmup := version_dir / WARMUP_FILE).is_file() and _usable(warmup, signature):
        yield "# The requests that the model's owner recorded for warm-up."
        yield f"inputs = {_text(_reference(warmup, folder))}"
        return
    if texts := [name for name, spec in signature.inputs.items() if spec.dtype == "DT_STRING"]:
        yield f"# EDIT: {', '.join(map(_text, texts))} takes strings, which cannot be drawn at"
        yield "# random. Save real rows beside this file, one array for every input, with"
        yield '#   np.savez("inputs.npz", **{"INPUT NAME": rows, ...})'
        yield 'inputs = "inputs.npz"'
        return
    yield "# EDIT: random rows find the right batching where a row's cost does not depend on its"
    yield "# values. Otherwise name an .npz of arrays by input name, or recorded warm-up requests."
    yield 'inputs = "random"'
    opened = {name: sizes for name, spec in signature.inputs.items() if (sizes := _sizes(spec))}
    if opened:
        yield "# EDIT: the model leaves these sizes open. Give the ones your requests have; the"
        yield "# first dimension, the rows, is not among them."
        pairs = (f"{_key(name)} = {sizes}" for name, sizes in opened.items())
        yield f"dims = {{ {', '.join(pairs)} }}"


def _usable(warmup: Path, signature: Signature) -> bool:
    try:
        read_examples(signature, warmup, dims={}, seed=1)
    except InputError:
        return False
    return True


def _sizes(spec: TensorSpec) -> list[int]:
    """Sizes of the dimensions after the first, where the model leaves one of them open."""
    if spec.shape is None:
        return [PLACEHOLDER_SIZE]
    inner = spec.shape[1:]
    if None not in inner:
        return []
    return [PLACEHOLDER_SIZE if size is None else size for size in inner]


def _slo() -> Iterator[str]:
    yield "[slo]"
    yield "# EDIT: the latency you promise, in milliseconds from when a request was due to its"
    yield "# answer. Also p50_ms, p90_ms, p95_ms and p999_ms; every limit that is set must hold."
    yield f"p99_ms = {P99_MS:g}"
    yield from _defaults(SloSection)


def _section(name: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"[{name}]"
    yield from _defaults(section)


def _defaults(section: type[BaseModel]) -> Iterator[str]:
    """Yield every key that has a plain default, as a comment under what it means."""
    for key, field in section.model_fields.items():
        default = field.get_default()
        if default is None or isinstance(default, BaseModel):
            continue
        if meaning := _meaning(field):
            yield f"# {meaning}"
        yield f"# {key} = {_value(default)}"


def _meaning(field: FieldInfo) -> str:
    """The description of a key, with the values it may take where those are words."""
    words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    choices = f"One of {', '.join(map(_text, words))}." if len(words) > 1 else ""
    return " ".join(filter(None, (field.description, choices)))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def _reference(target: Path, folder: Path) -> str:
    """`target` relative to the scenario's folder where it lies near, else absolute."""
    relative = Path(os.path.relpath(target, folder))
    climbs = len(list(takewhile(lambda part: part == "..", relative.parts)))
    # The scenario reads a leading `~` as somebody's home directory.
    near = climbs <= 1 and not str(relative).startswith("~")
    return str(relative if near else target)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(text: str) -> str:
    """Write a TOML basic string: JSON's, with raw characters beyond ASCII and DEL escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{os.fsencode(text)!r}: a name that is not UTF-8 cannot be written to a scenario",
            hint="rename the directory",
        ) from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
