"""TensorFlow Serving's batching parameters: one value for its text file, and its validity.

The file is a text-format `tensorflow.serving.BatchingParameters`
(tensorflow_serving/servables/tensorflow/session_bundle_config.proto). That message is not in the
tensorflow-serving-api package, so its descriptor is declared here; reading and writing is
protobuf's own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as wrappers

from tuner.errors import BatchingError

DEFAULT_MAX_BATCH_SIZE = 1000
DEFAULT_BATCH_TIMEOUT_MICROS = 0
DEFAULT_MAX_ENQUEUED_BATCHES = 10
"""What the server takes for an unset field; `num_batch_threads` defaults to the CPU count."""

_WRAPPED = {
    "max_batch_size": (1, "Int64Value"),
    "batch_timeout_micros": (2, "Int64Value"),
    "max_enqueued_batches": (3, "Int64Value"),
    "num_batch_threads": (4, "Int64Value"),
    "thread_pool_name": (5, "StringValue"),
    "enable_large_batch_splitting": (8, "BoolValue"),
    "max_execution_batch_size": (9, "Int64Value"),
}


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """The nine fields of a batching file. None (or empty) means unset: the server's default.

    Sizes count rows (the 0th dimension), not requests.
    """

    max_batch_size: int | None = None
    batch_timeout_micros: int | None = None
    max_enqueued_batches: int | None = None
    num_batch_threads: int | None = None
    thread_pool_name: str | None = None
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool | None = None
    max_execution_batch_size: int | None = None

    @classmethod
    def from_text(cls, text: str, *, source: str = "batching parameters") -> Self:
        """Parse a batching file's text. Raises BatchingError naming `source`, line and remedy.

        Validity is another question: see `check`.
        """
        if not text.strip():
            raise BatchingError(
                f"{source}: the file is empty, and TensorFlow Serving does not start on it",
                hint="write at least one field, such as `max_batch_size { value: 32 }`",
            )
        try:
            message = text_format.Parse(text, _message_class()())
        except text_format.ParseError as error:
            raise BatchingError(f"{source}:{error}", hint=_syntax_hint(str(error), text)) from None
        wrapped = {
            name: getattr(message, name).value for name in _WRAPPED if message.HasField(name)
        }
        return cls(
            allowed_batch_sizes=tuple(message.allowed_batch_sizes),
            pad_variable_length_inputs=message.pad_variable_length_inputs,
            **wrapped,
        )

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read and check a batching file. Raises BatchingError where it cannot be used."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise BatchingError(
                f"{path}: cannot be read: {reason}",
                hint="name a batching parameters file in protobuf text format",
            ) from None
        parameters = cls.from_text(text, source=str(path))
        parameters.check(source=str(path))
        return parameters

    def to_text(self) -> str:
        """Render the file TensorFlow Serving reads, one field a line, unset fields left out."""
        return "".join(
            f"{_one_field(name, item)}\n"
            for name, value in self.to_dict().items()
            for item in (value if isinstance(value, list) else [value])
        )

    def to_dict(self) -> dict[str, Any]:
        """Render the set fields as plain JSON values, in the file's order."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((item.name, getattr(self, item.name)) for item in fields(self))
            if value is not None and value != () and not (
                name == "pad_variable_length_inputs" and value is False
            )
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` rendered. Raises BatchingError on a name that is no field."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise BatchingError(
                f"batching parameters: unknown field {unknown[0]!r}",
                hint=f"the fields are {', '.join(sorted(known))}",
            )
        given = dict(values)
        if "allowed_batch_sizes" in given:
            given["allowed_batch_sizes"] = tuple(given["allowed_batch_sizes"])
        return cls(**given)

    @property
    def row_limit(self) -> int:
        """The largest batch that runs, in rows (before padding)."""
        limit = self.max_batch_size or DEFAULT_MAX_BATCH_SIZE
        if self.enable_large_batch_splitting and self.max_execution_batch_size:
            return min(limit, self.max_execution_batch_size)
        return limit

    @property
    def queue_limit(self) -> int:
        """How many batches may wait in one queue."""
        if self.max_enqueued_batches is None:
            return DEFAULT_MAX_ENQUEUED_BATCHES
        return max(self.max_enqueued_batches, 1)

    def label(self) -> str:
        """Words for tables and plots; unset fields are left to the reader's knowledge."""
        parts = []
        if self.max_batch_size is not None:
            parts.append(f"max {self.max_batch_size}")
        if self.batch_timeout_micros is not None:
            parts.append(f"timeout {self.batch_timeout_micros} µs")
        if self.num_batch_threads is not None:
            parts.append(
                f"{self.num_batch_threads} thread{'s' if self.num_batch_threads != 1 else ''}"
            )
        if self.allowed_batch_sizes:
            parts.append(f"{len(self.allowed_batch_sizes)} allowed sizes")
        if self.enable_large_batch_splitting:
            parts.append(f"split at {self.row_limit}")
        return ", ".join(parts) or "server defaults"

    def check(self, *, source: str = "batching parameters") -> None:
        """Raise BatchingError for the first value that TensorFlow Serving would punish.

        The server answers these with a crash, five minutes of silence, or a silently different
        meaning, and never with a message that says so.
        """
        for name, value, consequence, remedy in self._problems():
            shown = list(value) if isinstance(value, tuple) else value
            raise BatchingError(f"{source}: {name} = {shown}: {consequence}", hint=remedy)

    def _problems(self) -> Iterator[tuple[str, Any, str, str]]:
        """Yield (field, value, what the server does, remedy) for every broken rule."""
        splitting = bool(self.enable_large_batch_splitting)
        yield from self._range_problems(splitting=splitting)
        yield from self._allowed_size_problems()
        if splitting and self.max_batch_size is None:
            yield (
                "max_batch_size", None,
                "with enable_large_batch_splitting and no max_batch_size the server starts and "
                "then rejects every request",
                "set max_batch_size",
            )  # fmt: skip
        execution = self.max_execution_batch_size
        if splitting and execution is not None and not 1 <= execution <= self._max:
            yield (
                "max_execution_batch_size", execution,
                f"the server crashes without a message unless it lies in 1..{self._max} "
                "(max_batch_size)",
                f"choose at most {self._max}, or raise max_batch_size",
            )  # fmt: skip

    def _range_problems(self, *, splitting: bool) -> Iterator[tuple[str, Any, str, str]]:
        if self.max_batch_size is not None and self.max_batch_size < 1:
            consequence = (
                "the server crashes without a message while it loads the model"
                if self.max_batch_size == 0
                else "the server takes a negative size for a limit without bound"
            )
            yield "max_batch_size", self.max_batch_size, consequence, "use 1 or more"
        if self.batch_timeout_micros is not None and self.batch_timeout_micros < 0:
            yield (
                "batch_timeout_micros", self.batch_timeout_micros,
                "the server crashes without a message while it loads the model",
                "use 0 or more; 0 takes whatever is queued at once",
            )  # fmt: skip
        if self.num_batch_threads is not None and self.num_batch_threads < 1:
            yield (
                "num_batch_threads", self.num_batch_threads,
                "the server refuses to start (num_batch_threads must be positive)",
                "use 1 or more, or leave it out for one thread per CPU",
            )  # fmt: skip
        enqueued = self.max_enqueued_batches
        if enqueued is not None and enqueued < 0:
            yield (
                "max_enqueued_batches", enqueued,
                "the server takes a negative number for a queue without bound",
                "use a large number to mean without bound, such as 1000000",
            )  # fmt: skip
        if enqueued == 0 and splitting:
            yield (
                "max_enqueued_batches", 0,
                "with enable_large_batch_splitting the server crashes without a message",
                "use 1 or more",
            )  # fmt: skip

    def _allowed_size_problems(self) -> Iterator[tuple[str, Any, str, str]]:
        sizes = self.allowed_batch_sizes
        if not sizes:
            return
        if any(size < 1 for size in sizes):
            yield (
                "allowed_batch_sizes",
                sizes,
                "sizes below 1 make no batch",
                "use sizes from 1 up",
            )
        if any(second <= first for first, second in pairwise(sizes)):
            yield (
                "allowed_batch_sizes", sizes,
                "the sizes do not increase; the server does not notice and pads batches to the "
                "wrong size",
                f"list them in increasing order: {sorted(set(sizes))}",
            )  # fmt: skip
        if sizes[-1] != self._max:
            unset = "" if self.max_batch_size is not None else " (the default, since it is unset)"
            yield (
                "allowed_batch_sizes", sizes,
                f"the last size must be max_batch_size = {self._max}{unset}; the server retries "
                "loading the model for five minutes with its port closed, then exits",
                f"end the list with {self._max}, or set max_batch_size to {sizes[-1]}",
            )  # fmt: skip

    @property
    def _max(self) -> int:
        return DEFAULT_MAX_BATCH_SIZE if self.max_batch_size is None else self.max_batch_size


def _one_field(name: str, value: Any) -> str:
    """Render one field. Protobuf's printer would leave zeros out: `batch_timeout_micros { }`."""
    if isinstance(value, str):
        escaped = text_format.MessageToString(wrappers.StringValue(value=value), as_utf8=True)
        return f"{name} {{ {escaped.strip()} }}"
    shown = str(value).lower()
    return f"{name} {{ value: {shown} }}" if name in _WRAPPED else f"{name}: {shown}"


def _syntax_hint(error: str, text: str) -> str:
    """Say the remedy for the commonest mistake: a wrapped field written as a plain one."""
    lines = text.splitlines()
    position = error.split(":", 1)[0].strip()
    line = (
        lines[int(position) - 1] if position.isdigit() and 0 < int(position) <= len(lines) else ""
    )
    name, separator, value = line.partition(":")
    if separator and name.strip() in _WRAPPED:
        return f"write `{name.strip()} {{ value: {value.split('#')[0].strip()} }}`, with braces"
    return f"the fields are {', '.join(item.name for item in fields(BatchingParameters))}"


@cache
def _message_class() -> type[Any]:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tuner/batching_parameters.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    for name, (number, wrapper) in _WRAPPED.items():
        message.field.add(
            name=name,
            number=number,
            label=field_type.LABEL_OPTIONAL,
            type=field_type.TYPE_MESSAGE,
            type_name=f".google.protobuf.{wrapper}",
        )
    message.field.add(
        name="allowed_batch_sizes",
        number=6,
        label=field_type.LABEL_REPEATED,
        type=field_type.TYPE_INT64,
    )
    message.field.add(
        name="pad_variable_length_inputs",
        number=7,
        label=field_type.LABEL_OPTIONAL,
        type=field_type.TYPE_BOOL,
    )
    # A pool of its own: another package may register the same message in the default pool.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters")
    return message_factory.GetMessageClass(descriptor)
