"""gRPC over HTTP/2: message framing, timeouts, statuses and the header blocks of answers."""

import re
from enum import IntEnum
from struct import Struct
from urllib.parse import quote

from tuner.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, pack_frame
from tuner.http2.headers import pack_literals

PREFIX = Struct(">BI")
"""Before every message: whether it is compressed, and its length."""

PREFIX_BYTES = PREFIX.size

_NS_PER_UNIT = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_MAX_STATUS_TEXT = 1_024
_UNESCAPED = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")

_STATUS_200 = b"\x88"  # the static table's `:status: 200`
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_ANSWER_BLOCK = _STATUS_200 + pack_literals([_CONTENT_TYPE])
_OK_BLOCK = pack_literals([(b"grpc-status", b"0")])
_ERROR_HEAD = pack_literals([_CONTENT_TYPE, (b"grpc-accept-encoding", b"identity")])

_ANSWER_HEADERS = Struct(f">IBI{len(_ANSWER_BLOCK)}s")
_ANSWER = Struct(f">IBI{len(_ANSWER_BLOCK)}sIBIBI")  # HEADERS, the head of DATA, the prefix
_TRAILERS = Struct(f">IBI{len(_OK_BLOCK)}s")
_ANSWER_WORD = len(_ANSWER_BLOCK) << 8 | HEADERS
_TRAILERS_WORD = len(_OK_BLOCK) << 8 | HEADERS


class StatusCode(IntEnum):
    """The gRPC status codes that HTTP/2 transport itself gives rise to."""

    OK = 0
    UNKNOWN = 2
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13


class CallError(Exception):
    """A call that is answered with an error before anybody handles it."""

    def __init__(self, code: StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class MessageReader:
    """Collects the one message of a request from pieces of its body.

    Raises CallError as soon as the body is known not to be one acceptable message.
    """

    __slots__ = ("_encoding", "_limit", "_missing", "_pieces", "_prefix")

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._prefix = b""
        self._pieces: list[bytes] = []
        self._missing = 0

    def feed(self, content: bytes) -> None:
        """Take the next piece of the body."""
        if len(self._prefix) < PREFIX_BYTES:
            wanted = PREFIX_BYTES - len(self._prefix)
            self._prefix += content[:wanted]
            if len(self._prefix) < PREFIX_BYTES:
                return
            content = content[wanted:]
            self._missing = self._message_size()
        if len(content) > self._missing:
            raise CallError(StatusCode.UNIMPLEMENTED, "more than one message in a unary call")
        if content:
            self._missing -= len(content)
            self._pieces.append(content)

    def finish(self) -> bytes:
        """Return the message, once the body has ended."""
        if not self._prefix:
            raise CallError(StatusCode.INTERNAL, "the client ended the call without a message")
        if self._missing or len(self._prefix) < PREFIX_BYTES:
            raise CallError(StatusCode.INTERNAL, "the client ended the call within a message")
        return b"".join(self._pieces)

    def _message_size(self) -> int:
        compressed, size = PREFIX.unpack(self._prefix)
        if compressed:
            raise _compression_error(self._encoding)
        if size > self._limit:
            raise CallError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"SERVER: Received message larger than max ({size} vs. {self._limit})",
            )
        return int(size)


def _compression_error(encoding: str) -> CallError:
    if encoding == "identity":
        return CallError(StatusCode.INTERNAL, "compressed flag set without a grpc-encoding")
    return CallError(
        StatusCode.UNIMPLEMENTED,
        f"grpc-encoding {encoding!r} is not supported: send messages uncompressed",
    )


def parse_timeout(value: bytes) -> int:
    """Read a `grpc-timeout` such as `250m`, in ns. Raises CallError where it is none."""
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise CallError(StatusCode.INTERNAL, f"malformed grpc-timeout {value[:64]!r}")
    return int(match[1]) * _NS_PER_UNIT[match[2]]


def pack_answer(stream_id: int, message: bytes) -> bytes:
    """Make a whole successful answer, for a message that fits into one DATA frame."""
    size = len(message)
    return b"".join(
        (
            _ANSWER.pack(
                _ANSWER_WORD,
                END_HEADERS,
                stream_id,
                _ANSWER_BLOCK,
                (size + PREFIX_BYTES) << 8 | DATA,
                0,
                stream_id,
                0,
                size,
            ),
            message,
            pack_trailers(stream_id),
        )
    )


def pack_answer_headers(stream_id: int) -> bytes:
    """Make the HEADERS frame that opens a successful answer."""
    return _ANSWER_HEADERS.pack(_ANSWER_WORD, END_HEADERS, stream_id, _ANSWER_BLOCK)


def pack_trailers(stream_id: int) -> bytes:
    """Make the HEADERS frame that ends a successful answer."""
    return _TRAILERS.pack(_TRAILERS_WORD, END_HEADERS | END_STREAM, stream_id, _OK_BLOCK)


def pack_message(message: bytes) -> bytes:
    """Put its prefix before a message."""
    return PREFIX.pack(0, len(message)) + message


def pack_error(stream_id: int, code: int, text: str, http_status: int = 200) -> bytes:
    """Make an answer of trailers only.

    `text` is cut after 1,024 characters, where TensorFlow Serving cuts its own.
    """
    status = pack_literals([(b":status", b"%d" % http_status)])
    fields = [(b"grpc-status", b"%d" % code), (b"grpc-message", _escape(text))]
    block = status + _ERROR_HEAD + pack_literals(fields)
    return pack_frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block)


def _escape(text: str) -> bytes:
    """Percent-encode all but printable ASCII, as `grpc-message` is sent."""
    return quote(text[:_MAX_STATUS_TEXT], safe=_UNESCAPED, errors="replace").encode()
