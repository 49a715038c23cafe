"""One call as an ordinary client makes it: with grpcio's own limits, unlike the engines'."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from tuner import protos
from tuner.load.client import PREDICT, Tls
from tuner.load.credentials import credentials_of, name_options
from tuner.records import OK, Status

DEFAULT_RECEIVE_LIMIT = 4 << 20
"""Bytes of an answer that a gRPC client takes unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended, the answer's bytes (0 where there is none), and the version it names."""

    status: Status
    size: int
    version: int | None = None


def ask(
    address: str,
    message: bytes,
    *,
    deadline_s: float = 30.0,
    receive_limit: int | None = None,
    tls: Tls | None = None,
) -> Answer:
    """Send one serialized PredictRequest. `receive_limit` None is grpcio's own; -1 has none."""
    options: list[tuple[str, int | str]] = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_send_message_length", -1),
        *name_options(tls),
    ]
    if receive_limit is not None:
        options.append(("grpc.max_receive_message_length", receive_limit))
    opened = (
        grpc.insecure_channel(address, options=options)
        if tls is None
        else grpc.secure_channel(address, credentials_of(tls), options=options)
    )
    with opened as channel:
        try:
            answer = channel.unary_unary(PREDICT)(message, timeout=deadline_s)
        except grpc.RpcError as error:
            return Answer(Status(error.code().name, error.details() or ""), 0)
    return Answer(Status(OK), len(answer), _version(answer))


def _version(answer: bytes) -> int | None:
    protos.install()
    from tensorflow_serving.apis import predict_pb2  # noqa: PLC0415 - see protos

    try:
        spec = predict_pb2.PredictResponse.FromString(answer).model_spec
    except DecodeError:
        return None
    return int(spec.version.value) if spec.HasField("version") else None
