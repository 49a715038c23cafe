"""Ready-made requests in one file: written once by whoever knows the model, read by generators."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tuner import protos
from tuner.errors import HostError, LoadError

MAX_MESSAGE_BYTES = (1 << 31) - 1
"""Protobuf serializes no larger message, and gRPC carries none."""

_FORMAT = "tuner request pool, format 1"
_PICKS_STREAM = 1
"""Picks and arrivals come of one seed, but of streams apart: one can vary without the other."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestPool:
    """Serialized PredictRequests, with the rows (0th dimension) and the weight of each.

    `weights` add up to 1 and carry the mix of models and of row counts. `examples` holds, for
    each model of the mix, one request of all its example rows: `of_rows` cuts from it.
    """

    messages: tuple[bytes, ...]
    rows: tuple[int, ...]
    weights: tuple[float, ...]
    examples: tuple[bytes, ...]

    def draw(self, count: int, seed: int) -> NDArray[np.int32]:
        """Pick `count` messages by weight, independently: indices into `messages`."""
        rng = np.random.default_rng([seed, _PICKS_STREAM])
        picks = rng.choice(len(self.messages), size=count, p=self.weights)
        return picks.astype(np.int32)

    def of_rows(self, rows: int) -> tuple[bytes, ...]:
        """Build a request of exactly `rows` rows for each model of the mix.

        Raises LoadError where that makes a message larger than gRPC carries.
        """
        return tuple(_cut(example, rows) for example in self.examples)

    def save(self, path: Path) -> None:
        """Write the pool to one file. Raises HostError where that fails."""
        header = {
            "format": _FORMAT,
            "rows": self.rows,
            "weights": self.weights,
            "message_bytes": [len(message) for message in self.messages],
            "example_bytes": [len(example) for example in self.examples],
        }
        try:
            with path.open("wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.writelines(self.messages)
                file.writelines(self.examples)
        except OSError as error:
            raise HostError(
                f"{path}: cannot be written: {error.strerror}",
                hint="free space or choose another directory for the run",
            ) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises LoadError where the file is not a whole pool."""
        try:
            with path.open("rb") as file:
                header = _header(file.readline())
                if header is None:
                    raise LoadError(f"{path}: is not a request pool", hint="build it again")
                messages = tuple(file.read(size) for size in header["message_bytes"])
                examples = tuple(file.read(size) for size in header["example_bytes"])
        except OSError as error:
            raise LoadError(f"{path}: cannot be read: {error.strerror}") from None
        sizes = [*header["message_bytes"], *header["example_bytes"]]
        if [len(blob) for blob in (*messages, *examples)] != sizes:
            raise LoadError(f"{path}: the request pool is cut short", hint="build it again")
        return cls(messages, tuple(header["rows"]), tuple(header["weights"]), examples)


def _header(line: bytes) -> dict[str, Any] | None:
    try:
        header = json.loads(line)
    except ValueError:
        return None
    return header if isinstance(header, dict) and header.get("format") == _FORMAT else None


def _cut(example: bytes, rows: int) -> bytes:
    """Return the request with its first `rows` rows, going round where it has fewer."""
    protos.install()
    from tensorflow_serving.apis import predict_pb2  # noqa: PLC0415  see tuner.protos

    from tuner.load import tensors  # noqa: PLC0415  a generator that never cuts needs no protos

    source = predict_pb2.PredictRequest.FromString(example)
    request = predict_pb2.PredictRequest(model_spec=source.model_spec)
    for name, proto in source.inputs.items():
        tensor = tensors.decode(proto)
        available = len(tensor.values)
        if rows * len(example) // available > MAX_MESSAGE_BYTES:
            raise LoadError(
                f"a request of {rows} rows of {len(example) // available:,} bytes cannot be sent",
                hint="gRPC carries 2 GiB: lower max_batch_size in the search space",
            )
        picks = np.arange(rows) % available
        tensors.encode(tensor.take(picks), request.inputs[name])
    serialized: bytes = request.SerializeToString()
    return serialized
