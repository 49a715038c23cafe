"""Whole answers recognised at a glance: HEADERS, DATA and trailers as the last answer had them.

A server answers like requests with like bytes: but for the stream's number and the message, each
answer repeats the one before. One comparison then stands for reading three frames, and numpy
compares all the answers of one `recv` at once. What differs in any byte is read frame by frame.
"""

from dataclasses import dataclass
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from tuner.http2 import frames
from tuner.http2.answers import AnswerHead
from tuner.http2.grpc import PREFIX, PREFIX_BYTES
from tuner.http2.headers import HeaderDecoder

FEW = 6
"""Below this many answers at once, one by one is faster."""

_HEAD = frames.FRAME_HEAD_BYTES
_TRAILERS_FLAGS = frames.END_HEADERS | frames.END_STREAM
_MAX_BLOCK_BYTES = 2_048


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the parts of an answer lie.

    `unpack` gives (head, stream, block and head, stream, prefix, head, stream, trailers), whose
    non-stream parts are `parts`. `message` is where the message begins and how long it is,
    `data_bytes` what the answer takes from the connection's window. The layout holds while the
    decoder's epoch is `epoch`.
    """

    unpack: Struct
    length: int
    parts: tuple[bytes, bytes, bytes, bytes, bytes]
    message: tuple[int, int]
    data_bytes: int
    epoch: int
    template: NDArray[np.uint8]
    fixed: NDArray[np.uint8]
    streams: np.dtype[np.void]

    def whole_streams(self, data: bytes, at: int, count: int) -> NDArray[np.int64]:
        """Stream ids of the answers at `at` that have this layout, up to the first without it."""
        table = np.frombuffer(data, np.uint8, count * self.length, at).reshape(count, -1)
        same = ~((table ^ self.template) & self.fixed).any(axis=1)
        ids = np.frombuffer(data, self.streams, count, at)
        first = ids["first"]
        same &= (first == ids["second"]) & (first == ids["third"])
        whole = count if same.all() else int(same.argmin())
        return first[:whole].astype(np.int64)


def learn(data: bytes, at: int, headers: HeaderDecoder[AnswerHead]) -> Layout | None:
    """Read the layout of a whole good answer at `at`; None where none lies there."""
    three = _three_frames(data, at)
    if three is None:
        return None
    first_block, body, last_block = three
    opening = headers.known(data[slice(*first_block)])
    ending = headers.known(data[slice(*last_block)])
    if opening is None or ending is None or not (opening.plain and ending.good_end):
        return None
    size = body[1] - body[0]
    if size <= PREFIX_BYTES or PREFIX.unpack_from(data, body[0]) != (0, size - PREFIX_BYTES):
        return None
    return _layout(data, at, three, headers.epoch)


Span = tuple[int, int]


def _three_frames(data: bytes, at: int) -> tuple[Span, Span, Span] | None:
    """Where the payloads of HEADERS, DATA and HEADERS of one stream lie, all in one piece."""
    spans, streams = [], set()
    for kind, flags in (
        (frames.HEADERS, frames.END_HEADERS),
        (frames.DATA, 0),
        (frames.HEADERS, _TRAILERS_FLAGS),
    ):
        if len(data) - at < _HEAD:
            return None
        word, found, stream_id = frames.FRAME_HEAD.unpack_from(data, at)
        stop = at + _HEAD + (word >> 8)
        if word & 0xFF != kind or found != flags or stop > len(data):
            return None
        if kind == frames.HEADERS and word >> 8 > _MAX_BLOCK_BYTES:
            return None
        spans.append((at + _HEAD, stop))
        streams.add(stream_id)
        at = stop
    return (spans[0], spans[1], spans[2]) if len(streams) == 1 else None


def _layout(data: bytes, at: int, three: tuple[Span, Span, Span], epoch: int) -> Layout:
    (_, opened), (begun, ended), (_, stop) = three
    message_bytes = ended - begun - PREFIX_BYTES
    struct = Struct(f">5sI{opened - at - _HEAD + 5}sI5s{message_bytes}x5sI{stop - ended - _HEAD}s")
    parts = struct.unpack_from(data, at)
    template = np.frombuffer(data, np.uint8, stop - at, at)
    fixed = np.full(stop - at, 0xFF, np.uint8)
    places = [at + 5, opened + 5, ended + 5]
    for place in places:
        fixed[place - at : place - at + 4] = 0
    fixed[begun + PREFIX_BYTES - at : ended - at] = 0
    streams = np.dtype(
        {
            "names": ["first", "second", "third"],
            "formats": [">u4"] * 3,
            "offsets": [place - at for place in places],
            "itemsize": stop - at,
        }
    )
    return Layout(
        unpack=struct,
        length=stop - at,
        parts=(parts[0], parts[2], parts[4], parts[5], parts[7]),
        message=(begun + PREFIX_BYTES - at, message_bytes),
        data_bytes=ended - begun,
        epoch=epoch,
        template=template,
        fixed=fixed,
        streams=streams,
    )
