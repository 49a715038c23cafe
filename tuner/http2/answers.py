"""What a gRPC answer says: its header blocks, its message, and the status that follows.

Statuses are (code name, text), as `docs/http-grpc-status-mapping.md` and the protocol document
`PROTOCOL-HTTP2.md` of gRPC derive them. No answer raises: a broken one is a failed call.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from tuner.http2.frames import ErrorCode
from tuner.http2.grpc import PREFIX, PREFIX_BYTES
from tuner.http2.headers import Field

StatusKey = tuple[str, str]

OK: StatusKey = ("OK", "")
EMPTY: StatusKey = ("INTERNAL", "the answer is empty (0 bytes): not a PredictResponse")
DEADLINE_EXCEEDED: StatusKey = ("DEADLINE_EXCEEDED", "Deadline Exceeded")

CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Names of the gRPC status codes, by number."""

_HTTP_CODES = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
_RESET_CODES = {
    ErrorCode.REFUSED_STREAM: "UNAVAILABLE",
    ErrorCode.CANCEL: "CANCELLED",
    ErrorCode.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
    ErrorCode.INADEQUATE_SECURITY: "PERMISSION_DENIED",
}
_HTTP_OK = 200
_CONTENT_TYPE = b"application/grpc"
_MAX_TEXT_BYTES = 4_096


class AnswerHead(NamedTuple):
    """What a header block of an answer says, be it the first or the trailers.

    `http_status` is None without `:status`, as in trailers; `grpc_status` is None where there is
    none. `malformed` names a violation of HTTP/2's own rules, and is empty otherwise.
    """

    http_status: int | None
    grpc_status: int | None
    text: str
    content_type: bytes
    malformed: str = ""

    @property
    def plain(self) -> bool:
        """Whether it opens an answer whose trailers decide."""
        return self.http_status == _HTTP_OK and self.grpc_status is None and not self.malformed

    @property
    def good_end(self) -> bool:
        """Whether it is the trailers of a call that went well."""
        return self.http_status is None and self.grpc_status == 0 and not self.malformed

    def status(self, first: "AnswerHead") -> StatusKey:
        """The status that this last header block gives a call whose first was `first`."""
        if self.grpc_status is not None:
            number = self.grpc_status
            return (CODES[number] if number < len(CODES) else "UNKNOWN"), self.text
        if first.http_status != _HTTP_OK:
            code = _HTTP_CODES.get(first.http_status or 0, "UNKNOWN")
            return code, f"HTTP status {first.http_status} without a grpc-status"
        if not first._is_grpc():  # noqa: SLF001 - of the same class
            kind = first.content_type.decode("latin-1")
            return "UNKNOWN", f"the answer's content-type is {kind!r}, not application/grpc"
        return "UNKNOWN", "the answer ended without a grpc-status"

    def _is_grpc(self) -> bool:
        suffix = self.content_type[len(_CONTENT_TYPE) : len(_CONTENT_TYPE) + 1]
        return self.content_type.startswith(_CONTENT_TYPE) and suffix in (b"", b"+", b";")


def read_answer_head(fields: Sequence[Field]) -> AnswerHead:
    """Read a header block of an answer (RFC 9113, section 8.3.2)."""
    http_status = grpc_status = None
    text, content_type, malformed, regular = "", b"", "", False
    for name, value in fields:
        if name.startswith(b":"):
            if name != b":status" or regular or http_status is not None:
                malformed = f"the pseudo-header {name.decode('latin-1')!r} does not belong there"
            elif (http_status := _number(value)) is None or not 100 <= http_status <= 999:
                malformed = f":status is {value[:16].decode('latin-1')!r}"
        else:
            regular = True
            if name != name.lower():
                malformed = f"the field name {name[:64].decode('latin-1')!r} is not lower-case"
        if name == b"grpc-status":
            number = _number(value)
            grpc_status = CODES.index("UNKNOWN") if number is None else number
        elif name == b"grpc-message":
            text = unquote_to_bytes(value[:_MAX_TEXT_BYTES]).decode(errors="replace")
        elif name == b"content-type":
            content_type = value
    return AnswerHead(http_status, grpc_status, text, content_type, malformed)


def _number(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= 10 else None


def reset_status(code: int) -> StatusKey:
    """The status of a call whose stream the server reset."""
    try:
        known = ErrorCode(code)
    except ValueError:
        return "INTERNAL", f"the server reset the stream with error 0x{code:x}"
    code_name = _RESET_CODES.get(known, "INTERNAL")
    return code_name, f"the server reset the stream with {known.name}"


class AnswerMessage:
    """Collects the one message of an answer, and says what is wrong with it."""

    __slots__ = ("_pieces", "_size", "_wanted")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._wanted: int | None = None

    def feed(self, content: bytes) -> bool:
        """Take the next piece of the body. False: it is more than one message."""
        self._pieces.append(content)
        self._size += len(content)
        if self._wanted is None and self._size >= PREFIX_BYTES:
            self._pieces = [b"".join(self._pieces)]
            _, size = PREFIX.unpack_from(self._pieces[0])
            self._wanted = PREFIX_BYTES + size
        return self._wanted is None or self._size <= self._wanted

    def finish(self) -> tuple[StatusKey, bytes]:
        """Judge the body of a call that ended with status OK, and return its message."""
        body = b"".join(self._pieces)
        if self._wanted is None:
            return ("INTERNAL", "the answer ended without a message"), b""
        if self._size != self._wanted:
            return ("INTERNAL", f"the answer is {self._size} of {self._wanted} bytes long"), b""
        if body[0]:
            return ("INTERNAL", "the answer is compressed, which was not asked for"), b""
        return (OK if self._size > PREFIX_BYTES else EMPTY), body[PREFIX_BYTES:]
