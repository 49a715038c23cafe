"""HTTP/2 frames (RFC 9113, sections 4, 6 and 7): their numbers, their packing, their errors."""

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every client sends first."""

FRAME_HEAD = Struct(">IBI")
"""The 9 bytes before a payload: length (24 bits) and type (8 bits) as one word, flags, stream."""

FRAME_HEAD_BYTES = FRAME_HEAD.size

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
DEFAULT_FRAME_SIZE = 16_384
LARGEST_FRAME_SIZE = 2**24 - 1
STREAM_MASK = 2**31 - 1

PRIORITY_BYTES = 5
_MAX_GOAWAY_TEXT = 256

_SETTING = Struct(">HI")
_U32 = Struct(">I")
_GOAWAY = Struct(">II")


class ErrorCode(IntEnum):
    """Why a stream or a connection was ended (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Http2Error(Exception):
    """The peer broke the protocol in a way that ends the connection, told to it by GOAWAY.

    Never leaves the connection that it ends.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def pack_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Make one whole frame."""
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def pack_settings(values: dict[int, int]) -> bytes:
    """Make a SETTINGS frame that announces `values`, by setting number."""
    return pack_frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def pack_window_update(stream_id: int, increment: int) -> bytes:
    """Make a WINDOW_UPDATE of `increment` bytes; stream 0 is the connection."""
    return pack_frame(WINDOW_UPDATE, 0, stream_id, _U32.pack(increment))


def pack_reset(stream_id: int, code: ErrorCode) -> bytes:
    """Make an RST_STREAM frame."""
    return pack_frame(RST_STREAM, 0, stream_id, _U32.pack(code))


def pack_goaway(last_stream_id: int, code: ErrorCode, text: str) -> bytes:
    """Make a GOAWAY frame; `text` is for the peer's logs."""
    payload = _GOAWAY.pack(last_stream_id, code) + text.encode(errors="replace")
    return pack_frame(GOAWAY, 0, 0, payload)


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Read the (number, value) pairs of a SETTINGS payload, in the order in which they apply.

    Raises Http2Error where the payload or a value is illegal (RFC 9113, section 6.5.2).
    """
    if len(payload) % _SETTING.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is not a multiple of 6 bytes")
    settings = list(_SETTING.iter_unpack(payload))
    for number, value in settings:
        if number == ENABLE_PUSH and value > 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if number == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is over 2^31-1")
        if number == MAX_FRAME_SIZE and not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is not in 2^14..2^24-1")
    return settings


def parse_u32(payload: bytes, frame: str) -> int:
    """Read the number that is a whole RST_STREAM or WINDOW_UPDATE payload."""
    if len(payload) != _U32.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"{frame} is not 4 bytes long")
    (number,) = _U32.unpack(payload)
    return int(number)


def parse_goaway(payload: bytes) -> tuple[int, int, str]:
    """Read a GOAWAY payload: the last stream that was taken up, the error code, the text."""
    if len(payload) < _GOAWAY.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")
    last_stream_id, code = _GOAWAY.unpack_from(payload)
    text = payload[_GOAWAY.size :][:_MAX_GOAWAY_TEXT].decode(errors="replace")
    return last_stream_id & STREAM_MASK, code, text


def strip_padding(payload: bytes) -> bytes:
    """Take the content out of a PADDED payload: pad length, content, padding."""
    if not payload:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a padded frame has no pad length")
    padding = payload[0]
    if padding >= len(payload):
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
    return payload[1 : len(payload) - padding]
