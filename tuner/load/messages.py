"""Requests made ready to be sent: whole bodies, and the frames of many of them at once."""

from collections.abc import Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from tuner.http2 import frames
from tuner.http2.grpc import pack_message

MANY = 24
"""From this many requests at once, numpy builds their frames faster than one after another."""

_EVEN_BYTES = 16_384
_TEMPLATES_BYTES = 64 << 20
_HEAD = frames.FRAME_HEAD_BYTES


class Messages:
    """The bodies of a run's requests: each message with its gRPC prefix.

    `even_size` is the size of every body where all are small and alike, else 0: their frames then
    differ in nothing but the stream's number and the message.
    """

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.bodies = [pack_message(message) for message in messages]
        sizes = {len(body) for body in self.bodies}
        even = len(sizes) == 1 and max(sizes) <= _EVEN_BYTES
        self.even_size = (
            max(sizes) if even and sum(map(len, self.bodies)) < _TEMPLATES_BYTES else 0
        )
        self._head: tuple[bytes, Struct] = (b"", Struct(">IBI0sIBI"))
        self._templates: tuple[bytes, NDArray[np.uint8]] = (b"", np.empty((0, 0), np.uint8))

    def head(self, block: bytes) -> Struct:
        """What packs HEADERS and the head of DATA: (word, flags, stream, block) and as many."""
        if self._head[0] != block:
            self._head = (block, Struct(f">IBI{len(block)}sIBI"))
        return self._head[1]

    def pack_many(self, picks: Sequence[int], block: bytes, first_id: int) -> memoryview:
        """Make the frames of one request for each pick, in streams from `first_id` on."""
        if self._templates[0] != block:
            self._templates = (block, self._build(block))
        rows = self._templates[1][picks]
        ids = np.arange(first_id, first_id + 2 * len(picks), 2, dtype=">u4")
        numbers = ids.view(np.uint8).reshape(-1, 4)
        rows[:, 5:9] = numbers
        data = _HEAD + len(block)
        rows[:, data + 5 : data + 9] = numbers
        return rows.reshape(-1).data

    def _build(self, block: bytes) -> NDArray[np.uint8]:
        headers = frames.pack_frame(frames.HEADERS, frames.END_HEADERS, 0, block)
        whole = [
            headers + frames.pack_frame(frames.DATA, frames.END_STREAM, 0, body)
            for body in self.bodies
        ]
        return np.frombuffer(b"".join(whole), np.uint8).reshape(len(whole), -1)
