"""What a gRPC request's header block says (gRPC over HTTP/2; RFC 9113, section 8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tuner.http2.grpc import CallError, StatusCode, parse_timeout
from tuner.http2.headers import Field

_HTTP_OK = 200
_HTTP_METHOD_NOT_ALLOWED = 405
_HTTP_UNSUPPORTED_MEDIA_TYPE = 415
_CONTENT_TYPE = b"application/grpc"
_CONNECTION_FIELDS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is answered before its message is read."""

    code: StatusCode
    text: str
    http_status: int = _HTTP_OK


@dataclass(frozen=True, slots=True)
class Route:
    """What a client's header blocks have in common. `malformed`: against HTTP/2's own rules."""

    method: str = ""
    encoding: str = "identity"
    refusal: Refusal | None = None
    malformed: bool = False


_MALFORMED = Route(malformed=True)


class Head(NamedTuple):
    """What a request's header block says."""

    route: Route
    timeout_ns: int | None


def read_head(fields: Sequence[Field]) -> Head:
    """Read a request's header block.

    All but the timeout is the same from call to call, and is judged once.
    """
    common = tuple([field for field in fields if field[0] != b"grpc-timeout"])
    route = _read_route(common)
    if len(common) == len(fields):
        return Head(route, None)
    timeout = next(value for name, value in fields if name == b"grpc-timeout")
    try:
        return Head(route, parse_timeout(timeout))
    except CallError as error:
        return Head(Route(refusal=Refusal(error.code, error.text)), None)


@lru_cache(maxsize=256)
def _read_route(fields: tuple[Field, ...]) -> Route:
    """Judge a request's fields (RFC 9113, section 8.3; gRPC over HTTP/2, requests)."""
    values = _field_values(fields)
    if values is None or not all(values.get(name) for name in (b":method", b":path", b":scheme")):
        return _MALFORMED
    if values.get(b"te", b"trailers") != b"trailers":
        return _MALFORMED
    refusal = _judge(values[b":method"], values.get(b"content-type", b""))
    return Route(
        method=values[b":path"].decode("latin-1"),
        encoding=values.get(b"grpc-encoding", b"identity").decode("latin-1"),
        refusal=refusal,
    )


def _judge(method: bytes, content_type: bytes) -> Refusal | None:
    """Say why a well-formed HTTP request is no gRPC call, if it is none."""
    if method != b"POST":
        text = f"gRPC calls are POST, not {method.decode('latin-1')}"
        return Refusal(StatusCode.UNKNOWN, text, _HTTP_METHOD_NOT_ALLOWED)
    suffix = content_type[len(_CONTENT_TYPE) : len(_CONTENT_TYPE) + 1]
    if not content_type.startswith(_CONTENT_TYPE) or suffix not in (b"", b"+", b";"):
        text = f"content-type is {content_type.decode('latin-1')!r}, not application/grpc"
        return Refusal(StatusCode.UNKNOWN, text, _HTTP_UNSUPPORTED_MEDIA_TYPE)
    return None


def _field_values(fields: Sequence[Field]) -> dict[bytes, bytes] | None:
    """Index fields by name; None where their names or order make the request malformed."""
    values: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if regular or name in values:
                return None
        else:
            regular = True
            if name != name.lower() or name in _CONNECTION_FIELDS:
                return None
        values[name] = value
    return values
