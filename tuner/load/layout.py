"""Frames of answers recognised at a glance, by likeness to those before.

A server answers like requests with like bytes: HEADERS, one DATA, trailers, and but for the
stream's number and the message each repeats the last one's. A run of such frames is compared in
one go, by numpy where there are many. What differs in any byte is read frame by frame.
"""

from functools import cached_property
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from tuner.http2 import frames
from tuner.http2.answers import AnswerHead
from tuner.http2.grpc import PREFIX, PREFIX_BYTES
from tuner.http2.headers import HeaderDecoder
from tuner.load.ledger import ANSWERED, ASKED, ENDED, HEADED

ENOUGH = 48
"""Below this many at once, one by one is faster: a numpy call costs more than an answer does, and
between two waits, when the processor's caches have gone cold, as much as several."""

FEW = 6
"""How many are read one by one before it is worth to try many at once."""

MANY_AT_FIRST = 64
"""How many are compared at once before it is known that so many are alike."""

KEY_BYTES = 5
"""Length, type and flags of a first frame: what layouts are looked up by."""

_HEAD = frames.FRAME_HEAD_BYTES
_TRAILERS_FLAGS = frames.END_HEADERS | frames.END_STREAM
_CACHED = 256

Span = tuple[int, int]


class Layout:
    """One to three frames of one stream: HEADERS, DATA, trailers, or a part of that row.

    They take a request from state `begins` to `ends`. `data_bytes` is what they take from the
    connection's window, `message` where the message lies (0, 0 where there is none). `unpack`
    gives, for each frame, its head, its stream and what is fixed of its payload.
    """

    def __init__(self, data: bytes, at: int, spans: list[Span], begins: int, ends: int) -> None:
        self.begins = begins
        self.ends = ends
        self.length = spans[-1][1] - at
        self.data_bytes = 0
        self.message = (0, 0)
        self._streams = [start - 4 - at for start, _ in spans]
        form = ">"
        for number, (start, stop) in enumerate(spans):
            size = stop - start
            if number + begins == HEADED:  # DATA
                self.data_bytes = size
                self.message = (start + PREFIX_BYTES - at, size - PREFIX_BYTES)
                form += f"5sI{PREFIX_BYTES}s{size - PREFIX_BYTES}x"
            else:
                form += f"5sI{size}s"
        self.unpack = Struct(form).unpack_from
        parts = self.unpack(data, at)
        self.heads, self.payloads = parts[0::3], parts[2::3]
        self._example = data[at : at + self.length]

    @cached_property
    def _template(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._example, np.uint8)

    @cached_property
    def _fixed(self) -> NDArray[np.uint8]:
        """Ones where bytes are to be as in the template."""
        fixed = np.full(self.length, 0xFF, np.uint8)
        for place in self._streams:
            fixed[place : place + 4] = 0
        start, size = self.message
        fixed[start : start + size] = 0
        return fixed

    @cached_property
    def _numbers(self) -> np.dtype[np.void]:
        names = [str(number) for number in range(len(self._streams))]
        formats = [">u4"] * len(names)
        fields = {"names": names, "formats": formats, "offsets": self._streams}
        return np.dtype({**fields, "itemsize": self.length})  # type: ignore[call-overload,no-any-return]

    def streams(self, data: bytes, at: int, count: int) -> NDArray[np.int64]:
        """Stream ids of what has this layout at `at`, up to the first that has not."""
        table = np.frombuffer(data, np.uint8, count * self.length, at).reshape(count, -1)
        same = ~((table ^ self._template) & self._fixed).any(axis=1)
        numbers = np.frombuffer(data, self._numbers, count, at)
        first = numbers["0"]
        for name in self._numbers.names[1:]:  # type: ignore[index]
            same &= first == numbers[name]
        whole = count if same.all() else int(same.argmin())
        return first[:whole].astype(np.int64)


class Layouts:
    """The layouts that a connection has met, while its header table stands still."""

    def __init__(self, headers: HeaderDecoder[AnswerHead]) -> None:
        self._headers = headers
        self._epoch = headers.epoch
        self._known: dict[tuple[object, ...], Layout] = {}
        self._latest: dict[bytes, Layout] = {}

    def find(self, data: bytes, at: int) -> Layout | None:
        """The layout that the last frame with such a head had."""
        if self._epoch != self._headers.epoch:
            self._epoch = self._headers.epoch
            self._known.clear()
            self._latest.clear()
        return self._latest.get(data[at : at + KEY_BYTES])

    def learn(self, data: bytes, at: int) -> Layout | None:
        """Read the layout of the good frames at `at`; None where there are none."""
        spans, begins, state, first = [], ASKED, ASKED, None
        key: list[object] = []
        begin = at
        while state < ENDED and len(data) - at >= _HEAD:
            word, flags, stream_id = frames.FRAME_HEAD.unpack_from(data, at)
            stop = at + _HEAD + (word >> 8)
            if stop > len(data) or first not in (None, stream_id):
                break
            step = self._step(data, at + _HEAD, stop, word & 0xFF, flags)
            if first is None:
                begins = state = step
            if step != state or step is ENDED:
                break
            first = stream_id
            spans.append((at + _HEAD, stop))
            key += (word, PREFIX_BYTES if step == HEADED else data[at + _HEAD : stop])
            at, state = stop, _AFTER[step]
        if not spans:
            return None
        found = self._known.get(tuple(key))
        if found is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            found = self._known[tuple(key)] = Layout(data, begin, spans, begins, state)
        self._latest[data[begin : begin + KEY_BYTES]] = found
        return found

    def _step(self, data: bytes, start: int, stop: int, kind: int, flags: int) -> int:
        """In which state of a request this frame is the next good one; ENDED where in none."""
        if kind == frames.DATA and flags == 0:
            size = stop - start - PREFIX_BYTES
            if size > 0 and PREFIX.unpack_from(data, start) == (0, size):
                return HEADED
        elif kind == frames.HEADERS:
            head = self._headers.known(data[start:stop])
            if head is not None and flags == frames.END_HEADERS and head.plain:
                return ASKED
            if head is not None and flags == _TRAILERS_FLAGS and head.good_end:
                return ANSWERED
        return ENDED


_AFTER = {ASKED: HEADED, HEADED: ANSWERED, ANSWERED: ENDED}
