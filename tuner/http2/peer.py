"""What both ends of an HTTP/2 connection do: frames, header blocks, settings, windows; no I/O."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic

from tuner.http2 import frames
from tuner.http2.flow import Buffer, ReceiveWindow, SendFlow
from tuner.http2.frames import ErrorCode, Http2Error
from tuner.http2.headers import Field, Head, HeaderDecoder

MAX_FRAME_BYTES = 65_536
"""The longest payload that the other end may send us. Longer ones would save little."""

RECEIVE_WINDOW = 2**30
"""Announced for the connection and for each stream. What arrives is taken in at once, so a
smaller window would only cost round trips."""

MAX_HEADER_BLOCK_BYTES = 65_536


class Peer(ABC, Generic[Head]):
    """One end of a connection; what its streams mean is left to a subclass.

    `out` holds what is to be sent, in order; whoever sends it empties it in place. `closing` says
    that nothing more is read or answered, and that the socket is to be closed once `out` is
    empty.
    """

    def __init__(self, interpret: Callable[[Sequence[Field]], Head]) -> None:
        self.out: list[Buffer] = []
        self.closing = False
        self.sending = SendFlow(self.out)
        self._receiving = ReceiveWindow(RECEIVE_WINDOW)
        self._headers = HeaderDecoder(interpret)
        self._partial = b""
        # The only frame type that may come next, where that is prescribed.
        self._prescribed: int | None = frames.SETTINGS
        # A header block whose CONTINUATION is still to come: its stream, flags and parts.
        self._block_stream_id = 0
        self._block_flags = 0
        self._block_parts = bytearray()

    # What a subclass does.

    @abstractmethod
    def close(self, code: ErrorCode, text: str = "") -> None:
        """Say GOAWAY and stop: no stream of this connection goes on."""

    @abstractmethod
    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream from this side with RST_STREAM; what still arrives for it is ignored."""

    @abstractmethod
    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None: ...

    @abstractmethod
    def _on_block(self, flags: int, stream_id: int, block: bytes) -> None:
        """Take a whole header block, to be decoded whether it is wanted or not."""

    @abstractmethod
    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None: ...

    @abstractmethod
    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None: ...

    @abstractmethod
    def _is_idle(self, stream_id: int) -> bool:
        """Say whether the stream was never opened."""

    @abstractmethod
    def _may_send(self, stream_id: int) -> bool:
        """Say whether the stream's window still matters."""

    @abstractmethod
    def _finish(self, stream_ids: list[int]) -> None:
        """Take notice of streams whose bodies have been sent to their end."""

    def _on_setting(self, number: int, value: int) -> None:
        """Apply one setting of the other end."""
        if number == frames.INITIAL_WINDOW_SIZE:
            self._finish(self.sending.set_initial_window(value))
        elif number == frames.MAX_FRAME_SIZE:
            self.sending.set_frame_size(value)

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a push, though ENABLE_PUSH is 0")

    # What both do alike.

    def _announce(self, settings: dict[int, int]) -> None:
        """Put the first SETTINGS out, with what both ends announce, and open the window."""
        common = {
            frames.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            frames.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            frames.MAX_HEADER_LIST_SIZE: MAX_HEADER_BLOCK_BYTES,
        }
        self.out.append(frames.pack_settings(common | settings))
        self.out.append(frames.pack_window_update(0, RECEIVE_WINDOW - frames.DEFAULT_WINDOW))

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
        if len(self._block_parts) > MAX_HEADER_BLOCK_BYTES:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "a header block is over 64 KiB")
        if flags & frames.END_HEADERS:
            block = bytes(self._block_parts)
            self._block_parts.clear()
            self._prescribed = None
            self._on_block(self._block_flags, stream_id, block)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        require_connection(stream_id, "SETTINGS")
        if flags & frames.ACK:
            if payload:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK is not empty")
            return
        settings = frames.parse_settings(payload)
        # Acknowledged before DATA that needs them: the other end counts by them from then on.
        self.out.append(frames.pack_frame(frames.SETTINGS, frames.ACK, 0))
        for number, value in settings:
            self._on_setting(number, value)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        require_connection(stream_id, "PING")
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
        if not self._may_send(stream_id):
            return
        if increment == 0:
            self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        finished = self.sending.widen_stream(stream_id, increment)
        if finished is None:
            self.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self._finish(finished)

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0 or len(payload) != frames.PRIORITY_BYTES:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "malformed PRIORITY")

    _READERS: ClassVar[dict[int, Callable[[Any, int, int, bytes], None]]] = {}
    """By frame type: each class's own methods, looked up once."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._READERS = {
            frames.DATA: cls._on_data,
            frames.HEADERS: cls._on_headers,
            frames.PRIORITY: cls._on_priority,
            frames.RST_STREAM: cls._on_reset,
            frames.SETTINGS: cls._on_settings,
            frames.PUSH_PROMISE: cls._on_push_promise,
            frames.PING: cls._on_ping,
            frames.GOAWAY: cls._on_goaway,
            frames.WINDOW_UPDATE: cls._on_window_update,
            frames.CONTINUATION: cls._on_continuation,
        }


def require_connection(stream_id: int, frame: str) -> None:
    """Refuse a frame that concerns the whole connection but names a stream."""
    if stream_id != 0:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{frame} on stream {stream_id}")
