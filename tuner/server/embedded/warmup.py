"""Requests that a model carries along to be run before it is available.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog messages
(servables/tensorflow/saved_model_warmup_util.cc). They go the way of ordinary requests, one at a
time, so under batching each waits the full batch timeout.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from tuner.server.embedded import log
from tuner.server.embedded.servable import Servable
from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.wire import parse_predict

MAX_RECORDS = 1000
"""A file with more is refused."""

_LENGTH = struct.Struct("<Q")
_CRC_BYTES = 4


def warm_up(servable: Servable, directory: Path, iterations: int) -> None:
    """Run a version's warm-up requests. Raises ServingError where one fails, as the load does."""
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    if not path.exists():
        log.info(f"No warmup data file found at {path}")
        return
    begun = time.monotonic()
    count = 0
    for count, record in enumerate(_records(path), start=1):
        if count > MAX_RECORDS:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}",
            )
        request = parse_predict(_predict_request(record))
        for _ in range(iterations):
            servable.predict(request, None)
    micros = int((time.monotonic() - begun) * 1e6)
    log.info(
        f"Finished reading warmup data for model at {path}. Number of warmup records read: "
        f"{count}. Elapsed time (microseconds): {micros}."
    )


def _records(path: Path) -> Iterator[bytes]:
    """Yield a TFRecord file's records; checksums are not verified."""
    content = path.read_bytes()
    at = 0
    while at < len(content):
        start = at + _LENGTH.size + _CRC_BYTES
        if start > len(content):
            raise ServingError(Code.DATA_LOSS, f"truncated record at {at} in {path}")
        (size,) = _LENGTH.unpack_from(content, at)
        at = start + size + _CRC_BYTES
        if at > len(content):
            raise ServingError(Code.DATA_LOSS, f"truncated record at {start} in {path}")
        yield content[start : start + size]


def _predict_request(record: bytes) -> bytes:
    try:
        log_entry = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError:
        raise ServingError(Code.INVALID_ARGUMENT, "Failed to parse warmup record") from None
    if log_entry.WhichOneof("log_type") != "predict_log":
        kind = log_entry.WhichOneof("log_type")
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    request = log_entry.predict_log.request
    request.model_spec.SetInParent()
    return bytes(request.SerializeToString())
