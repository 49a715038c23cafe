"""The server's end of one HTTP/2 connection: bytes in, events and bytes out, no I/O."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from tuner.http2 import frames
from tuner.http2.flow import ReceiveWindow
from tuner.http2.frames import ErrorCode, Http2Error
from tuner.http2.headers import Field, Head
from tuner.http2.peer import MAX_FRAME_BYTES, RECEIVE_WINDOW, Peer, require_connection

__all__ = ["MAX_FRAME_BYTES", "ServerConnection", "Stream"]

_REMEMBERED_RESETS = 1_024


class Stream:
    """One request and its response. `ended`: the client has sent all of it."""

    __slots__ = ("ended", "id", "window")

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.ended = False
        self.window: ReceiveWindow | None = None


StreamT = TypeVar("StreamT", bound=Stream)


class ServerConnection(Peer[Head], Generic[Head, StreamT]):
    """Frames, header blocks, flow control and stream states; requests are left to a subclass.

    `receive` is fed with what the socket gave; `out` and `closing` are as in Peer. `streams` holds
    the open ones.
    """

    def __init__(
        self,
        interpret: Callable[[Sequence[Field]], Head],
        max_concurrent_streams: int | None = None,
    ) -> None:
        super().__init__(interpret)
        self.streams: dict[int, StreamT] = {}
        self._max_streams = max_concurrent_streams
        self._last_stream_id = 0
        self._resets: dict[int, None] = {}
        self._awaits_preface = True

    # What a subclass does.

    @abstractmethod
    def open_stream(self, stream_id: int, head: Head) -> StreamT | None:
        """Start a request from its head; None where it was answered or reset right away."""

    @abstractmethod
    def on_data(self, stream: StreamT, content: bytes) -> None:
        """Take a piece of an open stream's body. `stream.ended` says whether it is the last."""

    @abstractmethod
    def on_end(self, stream: StreamT) -> None:
        """Take notice that a request ended without a last piece of body."""

    # What a subclass may use.

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream from this side with RST_STREAM; what still arrives for it is ignored."""
        self.out.append(frames.pack_reset(stream_id, code))
        self.drop(stream_id)
        self._resets[stream_id] = None
        if len(self._resets) > _REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]

    def drop(self, stream_id: int) -> None:
        """Forget a stream that is over; does nothing where it is not open."""
        self.streams.pop(stream_id, None)
        self.sending.forget(stream_id)

    def send_body(self, stream_id: int, content: bytes, tail: bytes) -> None:
        """Send DATA and the frames `tail` that end the stream, as the client's windows allow."""
        self._finish(self.sending.send(stream_id, content, tail))

    def close(self, code: ErrorCode, text: str = "") -> None:
        """Say GOAWAY and stop: no stream of this connection is answered any more."""
        if self.closing:
            return
        self.out.append(frames.pack_goaway(self._last_stream_id, code, text))
        self.disconnect()

    def disconnect(self) -> None:
        """Stop without a word: the peer is gone, or never spoke HTTP/2."""
        self.closing = True
        for stream_id in list(self.streams):
            self.drop(stream_id)
        self._partial = b""
        self._block_parts.clear()

    # Receiving.

    def receive(self, data: bytes) -> None:
        """Take bytes from the client. A violation is answered by GOAWAY and sets `closing`."""
        if self.closing:
            return
        if self._partial:
            data = self._partial + data
        at = 0
        if self._awaits_preface:
            if not self._take_preface(data):
                return
            at = len(frames.PREFACE)
        try:
            self._read_frames(data, at)
        except Http2Error as error:
            self.close(error.code, str(error))

    def _take_preface(self, data: bytes) -> bool:
        """Check what must come first. False: wait for more, or (HTTP/1.1, noise) give up."""
        if not data.startswith(frames.PREFACE):
            if frames.PREFACE.startswith(data):
                self._partial = data
            else:
                self.disconnect()
            return False
        self._awaits_preface = False
        limit = self._max_streams
        self._announce({} if limit is None else {frames.MAX_CONCURRENT_STREAMS: limit})
        return True

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        if increment := self._receiving.consume(size):
            self.out.append(frames.pack_window_update(0, increment))
        stream = self.streams.get(stream_id)
        if stream is None or stream.ended:
            self._on_stray(stream_id)
            return
        if flags & frames.PADDED:
            payload = frames.strip_padding(payload)
        if flags & frames.END_STREAM:
            stream.ended = True
        else:
            if stream.window is None:
                stream.window = ReceiveWindow(RECEIVE_WINDOW)
            if increment := stream.window.consume(size):
                self.out.append(frames.pack_window_update(stream_id, increment))
        self.on_data(stream, payload)

    def _on_stray(self, stream_id: int) -> None:
        """Judge DATA of a stream on which the client may not send (any more)."""
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if stream_id not in self._resets:
            self.reset(stream_id, ErrorCode.STREAM_CLOSED)

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        head = self._headers.decode(block)
        ends = flags & frames.END_STREAM
        if not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a client opened stream {stream_id}")
        if stream_id <= self._last_stream_id:
            self._on_trailers(bool(ends), stream_id)
            return
        self._last_stream_id = stream_id
        if self._max_streams is not None and len(self.streams) >= self._max_streams:
            self.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        stream = self.open_stream(stream_id, head)
        if stream is not None:
            self.streams[stream_id] = stream
            if ends:
                stream.ended = True
                self.on_end(stream)

    def _on_trailers(self, ends: bool, stream_id: int) -> None:
        """Judge a second header block: trailers, or a violation."""
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.ended:
            if not ends:
                self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
                return
            stream.ended = True
            self.on_end(stream)
        elif stream_id not in self._resets:
            raise Http2Error(ErrorCode.STREAM_CLOSED, f"HEADERS on closed stream {stream_id}")

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        frames.parse_u32(payload, "RST_STREAM")
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on idle stream {stream_id}")
        self.drop(stream_id)

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Check the form only: a client that goes away still reads its answers."""
        require_connection(stream_id, "GOAWAY")
        frames.parse_goaway(payload)

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _may_send(self, stream_id: int) -> bool:
        return stream_id in self.streams

    def _is_idle(self, stream_id: int) -> bool:
        """Say whether the stream was never opened; stream 0 and all even ones never are."""
        return stream_id > self._last_stream_id or not stream_id & 1

    def _finish(self, stream_ids: list[int]) -> None:
        for stream_id in stream_ids:
            self.streams.pop(stream_id, None)
