"""The server's end of one HTTP/2 connection: bytes in, events and bytes out, no I/O."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from tuner.http2 import frames
from tuner.http2.flow import Buffer, ReceiveWindow, SendFlow
from tuner.http2.frames import ErrorCode, Http2Error
from tuner.http2.headers import Field, Head, HeaderDecoder

MAX_FRAME_BYTES = 65_536
"""The longest payload that clients may send us. Longer ones would save little."""

_RECEIVE_WINDOW = 2**30
"""Announced for the connection and for each stream. What arrives is taken in at once, so a
smaller window would only cost round trips."""

_MAX_HEADER_BLOCK_BYTES = 65_536
_REMEMBERED_RESETS = 1_024


class Stream:
    """One request and its response. `ended`: the client has sent all of it."""

    __slots__ = ("ended", "id", "window")

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.ended = False
        self.window: ReceiveWindow | None = None


StreamT = TypeVar("StreamT", bound=Stream)


class ServerConnection(ABC, Generic[Head, StreamT]):
    """Frames, header blocks, flow control and stream states; requests are left to a subclass.

    `receive` is fed with what the socket gave. `out` holds what is to be sent, in order; whoever
    sends it empties it in place. `closing` says that nothing more is read or answered, and that
    the socket is to be closed once `out` is empty. `streams` holds the open ones.
    """

    def __init__(
        self,
        interpret: Callable[[Sequence[Field]], Head],
        max_concurrent_streams: int | None = None,
    ) -> None:
        self.out: list[Buffer] = []
        self.closing = False
        self.streams: dict[int, StreamT] = {}
        self.sending = SendFlow(self.out)
        self._receiving = ReceiveWindow(_RECEIVE_WINDOW)
        self._headers = HeaderDecoder(interpret)
        self._max_streams = max_concurrent_streams
        self._last_stream_id = 0
        self._resets: dict[int, None] = {}
        self._partial = b""
        self._awaits_preface = True
        # The only frame type that may come next, where that is prescribed.
        self._prescribed: int | None = frames.SETTINGS
        # A header block whose CONTINUATION is still to come: its stream, flags and parts.
        self._block_stream_id = 0
        self._block_flags = 0
        self._block_parts = bytearray()

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
        settings = {
            frames.INITIAL_WINDOW_SIZE: _RECEIVE_WINDOW,
            frames.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            frames.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BLOCK_BYTES,
        }
        if self._max_streams is not None:
            settings[frames.MAX_CONCURRENT_STREAMS] = self._max_streams
        self.out.append(frames.pack_settings(settings))
        self.out.append(frames.pack_window_update(0, _RECEIVE_WINDOW - frames.DEFAULT_WINDOW))
        return True

    def _read_frames(self, data: bytes, at: int) -> None:
        end = len(data)
        unpack = frames.FRAME_HEAD.unpack_from
        while end - at >= frames.FRAME_HEAD_BYTES:
            word, flags, stream_id = unpack(data, at)
            size = word >> 8
            if size > MAX_FRAME_BYTES:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a frame is over MAX_FRAME_SIZE")
            start = at + frames.FRAME_HEAD_BYTES
            stop = start + size
            if stop > end:
                break
            kind = word & 0xFF
            stream_id &= frames.STREAM_MASK
            if self._prescribed is not None:
                self._check_prescribed(kind, flags, stream_id)
            read = self._READERS.get(kind)
            if read is not None:  # frames of unknown types are passed over
                read(self, flags, stream_id, data[start:stop])
            at = stop
        self._partial = data[at:]

    def _check_prescribed(self, kind: int, flags: int, stream_id: int) -> None:
        expected = self._prescribed
        if kind != expected:
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR, f"frame type {kind} where {expected} is due"
            )
        if kind == frames.SETTINGS:
            if flags & frames.ACK:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
            self._prescribed = None
        elif stream_id != self._block_stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a header block goes on in another stream")

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
                stream.window = ReceiveWindow(_RECEIVE_WINDOW)
            if increment := stream.window.consume(size):
                self.out.append(frames.pack_window_update(stream_id, increment))
        self.on_data(stream, payload)

    def _on_stray(self, stream_id: int) -> None:
        """Judge DATA of a stream on which the client may not send (any more)."""
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if stream_id not in self._resets:
            self.reset(stream_id, ErrorCode.STREAM_CLOSED)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & frames.PADDED:
            payload = frames.strip_padding(payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < frames.PRIORITY_BYTES:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "HEADERS has half a priority")
            payload = payload[frames.PRIORITY_BYTES :]
        if flags & frames.END_HEADERS:
            self._on_block(flags, stream_id, payload)
            return
        self._block_stream_id = stream_id
        self._block_flags = flags
        self._block_parts += payload
        self._prescribed = frames.CONTINUATION

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._prescribed is None:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block_parts += payload
        if len(self._block_parts) > _MAX_HEADER_BLOCK_BYTES:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "a header block is over 64 KiB")
        if flags & frames.END_HEADERS:
            block = bytes(self._block_parts)
            self._block_parts.clear()
            self._prescribed = None
            self._on_block(self._block_flags, stream_id, block)

    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        # Every block is decoded, wanted or not: it may change the table for those to come.
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

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        _require_connection(stream_id, "SETTINGS")
        if flags & frames.ACK:
            if payload:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK is not empty")
            return
        settings = frames.parse_settings(payload)
        # Acknowledged before DATA that needs them: the client counts by them from then on.
        self.out.append(frames.pack_frame(frames.SETTINGS, frames.ACK, 0))
        for number, value in settings:
            if number == frames.INITIAL_WINDOW_SIZE:
                self._finish(self.sending.set_initial_window(value))
            elif number == frames.MAX_FRAME_SIZE:
                self.sending.set_frame_size(value)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _require_connection(stream_id, "PING")
        if len(payload) != 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "PING is not 8 bytes long")
        if not flags & frames.ACK:
            self.out.append(frames.pack_frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        increment = frames.parse_u32(payload, "WINDOW_UPDATE") & frames.MAX_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 bytes")
            self._finish(self.sending.widen(increment))
            return
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE on idle {stream_id}")
        if stream_id not in self.streams:
            return
        if increment == 0:
            self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        finished = self.sending.widen_stream(stream_id, increment)
        if finished is None:
            self.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self._finish(finished)

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        frames.parse_u32(payload, "RST_STREAM")
        if self._is_idle(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on idle stream {stream_id}")
        self.drop(stream_id)

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0 or len(payload) != frames.PRIORITY_BYTES:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "malformed PRIORITY")

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Check the form only: a client that goes away still reads its answers."""
        _require_connection(stream_id, "GOAWAY")
        if len(payload) < 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _is_idle(self, stream_id: int) -> bool:
        """Say whether the stream was never opened; stream 0 and all even ones never are."""
        return stream_id > self._last_stream_id or not stream_id & 1

    def _finish(self, stream_ids: list[int]) -> None:
        for stream_id in stream_ids:
            self.streams.pop(stream_id, None)

    _READERS: ClassVar = {
        frames.DATA: _on_data,
        frames.HEADERS: _on_headers,
        frames.PRIORITY: _on_priority,
        frames.RST_STREAM: _on_reset,
        frames.SETTINGS: _on_settings,
        frames.PUSH_PROMISE: _on_push_promise,
        frames.PING: _on_ping,
        frames.GOAWAY: _on_goaway,
        frames.WINDOW_UPDATE: _on_window_update,
        frames.CONTINUATION: _on_continuation,
    }


def _require_connection(stream_id: int, frame: str) -> None:
    if stream_id != 0:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{frame} on stream {stream_id}")
