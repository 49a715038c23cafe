"""Flow control (RFC 9113, section 5.2): what may be received, and what may be sent now."""

from tuner.http2.frames import (
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    FRAME_HEAD,
    MAX_WINDOW,
    ErrorCode,
    Http2Error,
)

Buffer = bytes | memoryview


class ReceiveWindow:
    """How much the peer may still send; `size` bytes once it has been told of all that came."""

    __slots__ = ("_left", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size

    def consume(self, count: int) -> int:
        """Take `count` received bytes; return the increment to announce now, or 0.

        Raises Http2Error (FLOW_CONTROL_ERROR) where the peer sent more than it was allowed.
        """
        self._left -= count
        if self._left < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more was sent than the window allows")
        if self._left > self._size // 2:
            return 0
        increment = self._size - self._left
        self._left = self._size
        return increment


class _Body:
    """The DATA of one stream that does not fit the peer's windows yet, and what follows it."""

    __slots__ = ("content", "sent", "tail")

    def __init__(self, content: bytes, tail: bytes) -> None:
        self.content = memoryview(content)
        self.tail = tail
        self.sent = 0


class SendFlow:
    """The peer's windows, and the bodies that wait for them, oldest first.

    A stream's window is `initial_window + credit - sent`, where its credit is the sum of its
    WINDOW_UPDATEs. A change of INITIAL_WINDOW_SIZE thus reaches every open stream by itself.
    `window` is the connection's own; `frame_size` the longest payload that the peer accepts;
    `whole` what any new stream can send at once in one frame; `waiting` the bodies, by stream.
    """

    __slots__ = ("_credits", "_out", "frame_size", "initial_window", "waiting", "whole", "window")

    def __init__(self, out: list[Buffer]) -> None:
        self._out = out
        self.waiting: dict[int, _Body] = {}
        self._credits: dict[int, int] = {}
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.frame_size = DEFAULT_FRAME_SIZE
        self.whole = DEFAULT_FRAME_SIZE

    def send(self, stream_id: int, content: bytes, tail: bytes) -> list[int]:
        """Send a stream's whole content as DATA, then `tail`, as far as the windows allow.

        Returns the streams that have been sent to their end, as do all methods here that may
        send. The rest waits.
        """
        self.waiting[stream_id] = _Body(content, tail)
        return self._resume((stream_id,))

    def forget(self, stream_id: int) -> None:
        """Drop what waits for a stream that was reset, and its credit."""
        self.waiting.pop(stream_id, None)
        self._credits.pop(stream_id, None)

    def widen(self, increment: int) -> list[int]:
        """Add a WINDOW_UPDATE of the connection."""
        self.window += increment
        if self.window > MAX_WINDOW:
            raise Http2Error(
                ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1"
            )
        return self._resume_all()

    def widen_stream(self, stream_id: int, increment: int) -> list[int] | None:
        """Add a WINDOW_UPDATE of an open stream; None where its window gets too large."""
        credit = self._credits.get(stream_id, 0) + increment
        body = self.waiting.get(stream_id)
        sent = 0 if body is None else body.sent
        if self.initial_window + credit - sent > MAX_WINDOW:
            return None
        self._credits[stream_id] = credit
        return self._resume((stream_id,))

    def set_initial_window(self, size: int) -> list[int]:
        """Apply the peer's INITIAL_WINDOW_SIZE to all streams, open and to come."""
        self.initial_window = size
        self.whole = min(size, self.frame_size)
        for stream_id, credit in self._credits.items():
            body = self.waiting.get(stream_id)
            if size + credit - (0 if body is None else body.sent) > MAX_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is over 2^31-1")
        return self._resume_all()

    def set_frame_size(self, size: int) -> None:
        """Apply the peer's MAX_FRAME_SIZE."""
        self.frame_size = size
        self.whole = min(size, self.initial_window)

    def _resume(self, stream_ids: tuple[int, ...]) -> list[int]:
        finished = []
        for stream_id in stream_ids:
            body = self.waiting.get(stream_id)
            if body is not None and self._advance(stream_id, body):
                self.forget(stream_id)
                finished.append(stream_id)
        return finished

    def _resume_all(self) -> list[int]:
        """Send what waits, oldest first, until the connection's window is used up."""
        finished = []
        for stream_id, body in self.waiting.items():
            if self.window <= 0:
                break
            if self._advance(stream_id, body):
                finished.append(stream_id)
        for stream_id in finished:
            self.forget(stream_id)
        return finished

    def _advance(self, stream_id: int, body: _Body) -> bool:
        """Put as many DATA frames out as the windows allow. True: the stream is done."""
        total = len(body.content)
        limit = self.initial_window + self._credits.get(stream_id, 0)
        while body.sent < total:
            size = min(total - body.sent, limit - body.sent, self.window, self.frame_size)
            if size <= 0:
                return False
            self._out.append(FRAME_HEAD.pack(size << 8 | DATA, 0, stream_id))
            self._out.append(body.content[body.sent : body.sent + size])
            body.sent += size
            self.window -= size
        self._out.append(body.tail)
        return True


def drop_sent(out: list[Buffer], sent: int) -> None:
    """Take `sent` bytes from the front of `out`."""
    whole = 0
    for piece in out:
        size = len(piece)
        if sent < size:
            break
        sent -= size
        whole += 1
    del out[:whole]
    if sent:
        out[0] = memoryview(out[0])[sent:]
