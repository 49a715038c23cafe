"""What a SavedModel says of itself: versions, signatures, shapes; read without TensorFlow."""

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner import protos
from tuner.errors import ModelError

SERVE_TAGS = frozenset({"serve"})
"""The meta graph that TensorFlow Serving loads unless `--saved_model_tags` says otherwise."""

DEFAULT_SIGNATURE = "serving_default"
_INTERNAL_SIGNATURES = frozenset({"__saved_model_init_op", "__saved_model_train_op"})
_GRAPH_FILE = "saved_model.pb"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its type as TensorFlow names it (`DT_FLOAT`) and its shape.

    An unknown dimension is None; a shape of None says that not even the rank is known. `tensor`
    is its name in the graph.
    """

    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of unknown rank"
        return f"{self.dtype} [{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: tensor names as requests and answers use them.

    `method` is what it is served as, such as `tensorflow/serving/predict`.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One version of a model.

    `versions` are all numeric version directories, ascending. `fingerprint` is the SHA-256 (hex)
    of everything in the version directory that decides what the model computes.
    """

    path: Path
    version: int
    versions: tuple[int, ...]
    signatures: Mapping[str, Signature]
    fingerprint: str

    def signature(self, name: str = DEFAULT_SIGNATURE) -> Signature:
        """Return the signature of that name. Raises ModelError that names the nearest one."""
        if name in self.signatures:
            return self.signatures[name]
        near = difflib.get_close_matches(name, self.signatures, n=1, cutoff=0.5)
        raise ModelError(
            f"{self.path}: version {self.version} has no signature {name!r}",
            hint=(f"did you mean {near[0]!r}? " if near else "")
            + f"its signatures are {', '.join(sorted(self.signatures)) or '(none)'}",
        )


def inspect(model_dir: Path, *, version: int | None = None) -> ModelInfo:
    """Read one version (by default the largest number, as the server does) of a model.

    Raises ModelError where the directory, the version or the graph cannot be used.
    """
    directories = _version_directories(model_dir)
    if version is None:
        version = max(directories)
    elif version not in directories:
        raise ModelError(
            f"{model_dir}: has no version {version}",
            hint=f"its versions are {', '.join(map(str, sorted(directories)))}",
        )
    directory = directories[version]
    return ModelInfo(
        path=model_dir,
        version=version,
        versions=tuple(sorted(directories)),
        signatures=_signatures(directory / _GRAPH_FILE),
        fingerprint=_fingerprint(directory),
    )


def obstacles(signature: Signature) -> tuple[str, ...]:
    """Say in words what keeps the server from batching this signature; empty where nothing does.

    Batching joins requests along the first dimension of every input and splits every output
    along it again (tensorflow_serving/batching/batching_session.cc), so all must leave it open.
    """
    found = [] if signature.inputs else ["it has no inputs"]
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for name, spec in sorted(tensors.items()):
            if spec.shape == ():
                found.append(f"{kind} {name!r} is a scalar, it has no dimension to batch along")
            elif spec.shape is not None and spec.shape[0] is not None:
                found.append(f"the first dimension of {kind} {name!r} is fixed: {spec}")
    return tuple(found)


def batchable(signature: Signature) -> bool:
    """Whether the server can batch requests of this signature."""
    return not obstacles(signature)


def require_batchable(model_dir: Path, signature: Signature) -> None:
    """Raise ModelError, naming the tensors at fault, where the server cannot batch a signature."""
    if found := obstacles(signature):
        raise ModelError(
            f"{model_dir}: signature {signature.name!r} cannot be batched: {'; '.join(found)}",
            hint="export the model with an open first dimension, such as "
            "tf.TensorSpec([None, 224, 224, 3], tf.float32), on every input and output",
        )


def _version_directories(model_dir: Path) -> dict[int, Path]:
    if not model_dir.is_dir():
        what = "is a file, not a directory" if model_dir.exists() else "no such directory"
        raise ModelError(
            f"{model_dir}: {what}",
            hint=f"name the directory that holds the version directories (1/{_GRAPH_FILE})",
        )
    try:
        entries = sorted(entry for entry in model_dir.iterdir() if entry.is_dir())
    except OSError as error:
        raise ModelError(
            f"{model_dir}: cannot be listed: {error.strerror}", hint="check its permissions"
        ) from None
    found = {int(entry.name): entry for entry in entries if _is_number(entry.name)}
    if not found:
        raise ModelError(
            f"{model_dir}: has no version directory, a subdirectory named by a number",
            hint=_no_version_hint(model_dir),
        )
    return found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _no_version_hint(model_dir: Path) -> str:
    if not (model_dir / _GRAPH_FILE).is_file():
        return (
            "did you forget the version? TensorFlow Serving expects "
            f"{model_dir / '1' / _GRAPH_FILE}"
        )
    if _is_number(model_dir.name):
        return f"this is itself a version: name its parent, {model_dir.parent}"
    return f"move {_GRAPH_FILE}, variables/ and assets/ into a subdirectory named 1"


def _signatures(path: Path) -> dict[str, Signature]:
    graph = _serve_graph(path)
    return {
        name: Signature(
            name, _specs(definition.inputs), _specs(definition.outputs), definition.method_name
        )
        for name, definition in sorted(graph.signature_def.items())
        if name not in _INTERNAL_SIGNATURES
    }


def _serve_graph(path: Path) -> Any:
    protos.install()
    from google.protobuf.message import DecodeError  # noqa: PLC0415  see tuner.protos
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    try:
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror}",
            hint=f"export the model again with tf.saved_model.save, which writes {_GRAPH_FILE}",
        ) from None
    except DecodeError:
        raise ModelError(
            f"{path}: is not a SavedModel, or it is damaged",
            hint="copy or export the model again; a file kept by Git LFS must be fetched first",
        ) from None
    tag_sets = [frozenset(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    if SERVE_TAGS not in tag_sets:
        listed = "; ".join(", ".join(sorted(tags)) or "(no tag)" for tags in tag_sets)
        raise ModelError(
            f'{path}: has no graph tagged "serve" for the server to load (it has: '
            f"{listed or 'no graph at all'})",
            hint="export it with tf.saved_model.save, or with tags={'serve'} from a session",
        )
    return saved_model.meta_graphs[tag_sets.index(SERVE_TAGS)]


def _specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
    from tensorflow.core.framework import types_pb2  # noqa: PLC0415  see tuner.protos

    return {
        name: TensorSpec(types_pb2.DataType.Name(info.dtype), _shape(info.tensor_shape), info.name)
        for name, info in sorted(tensors.items())
    }


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    if shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _fingerprint(directory: Path) -> str:
    """Hash names, sizes and contents; of variable shards only names and sizes.

    Shards can be many gigabytes, and `variables.index`, hashed whole, holds the CRC32C of every
    tensor in them (tensorflow/core/protobuf/tensor_bundle.proto).
    """
    digest = hashlib.sha256()
    try:
        for name, path in _files(directory):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            if not path.name.startswith("variables.data-"):
                digest.update(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{error.filename or directory}: cannot be read: {error.strerror}",
            hint="check the permissions of the model's files",
        ) from None
    return digest.hexdigest()


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return iter(sorted((path.relative_to(directory).as_posix(), path) for path in paths))
