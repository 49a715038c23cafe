"""The embedded server's network front: unary gRPC calls in, answers out, on one I/O thread.

grpcio's Python servers take 270 to 500 us of CPU a call, more than the whole budget of a cheap
model. This one takes a twentieth of that.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuner.clock import now_ns
from tuner.http2 import grpc
from tuner.http2.connection import ServerConnection, Stream
from tuner.http2.frames import ErrorCode
from tuner.http2.grpc import CallError, MessageReader, StatusCode
from tuner.http2.listening import bind_tcp, bind_unix
from tuner.http2.request_head import Head, read_head
from tuner.http2.socket_loop import Link, SocketLoop

_log = logging.getLogger(__name__)

Respond = Callable[[int, str, bytes], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One unary call whose message has arrived whole.

    `method` is the path, such as `/tensorflow.serving.PredictionService/Predict`; `deadline_ns` is
    absolute on the monotonic clock, None without a `grpc-timeout`. `respond(code, text, payload)`
    answers with a gRPC status code, and the payload where the code is 0. It may be called from any
    thread, and raises RuntimeError when called again. Where the client has cancelled or gone, it
    does nothing.
    """

    method: str
    message: bytes
    deadline_ns: int | None
    respond: Respond


class _Request(Stream):
    """A stream that carries a call."""

    __slots__ = ("_connection", "answered", "deadline_ns", "reader", "route")

    def __init__(self, stream_id: int, head: Head, connection: "_Connection") -> None:
        super().__init__(stream_id)
        self.route = head.route
        self.reader: MessageReader | None = None
        self.deadline_ns = None if head.timeout_ns is None else now_ns() + head.timeout_ns
        self._connection = connection
        self.answered = False

    def respond(self, code: int, text: str, payload: bytes) -> None:
        """See `Call.respond`."""
        if self.answered:
            raise RuntimeError(f"a call of {self.route.method} was answered twice")
        self.answered = True
        connection = self._connection
        connection.link.run(connection.answer, self, code, text, payload)


class _Connection(ServerConnection[Head, _Request]):
    """One client."""

    def __init__(
        self,
        link: Link,
        handler: Callable[[Call], None],
        max_message_bytes: int,
        max_concurrent_streams: int | None,
    ) -> None:
        super().__init__(read_head, max_concurrent_streams)
        self.link = link
        self._handler = handler
        self._max_message_bytes = max_message_bytes

    def open_stream(self, stream_id: int, head: Head) -> _Request | None:
        if head.route.malformed:
            self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
            return None
        if (refusal := head.route.refusal) is not None:
            self.out.append(
                grpc.pack_error(stream_id, refusal.code, refusal.text, refusal.http_status)
            )
            self.reset(stream_id, ErrorCode.NO_ERROR)
            return None
        return _Request(stream_id, head, self)

    def on_data(self, stream: _Request, content: bytes) -> None:
        # Nearly every request is one message in one frame, which needs no collecting.
        if stream.ended and stream.reader is None and len(content) >= grpc.PREFIX_BYTES:
            compressed, size = grpc.PREFIX.unpack_from(content)
            if (
                not compressed
                and size == len(content) - grpc.PREFIX_BYTES
                and size <= self._max_message_bytes
            ):
                self._handle(stream, content[grpc.PREFIX_BYTES :])
                return
        try:
            self._reader(stream).feed(content)
        except CallError as error:
            self._refuse(stream, error)
            return
        if stream.ended:
            self.on_end(stream)

    def on_end(self, stream: _Request) -> None:
        try:
            message = self._reader(stream).finish()
        except CallError as error:
            self._refuse(stream, error)
            return
        stream.reader = None
        self._handle(stream, message)

    def answer(self, stream: _Request, code: int, text: str, payload: bytes) -> None:
        """Send a call's answer, unless the client has cancelled it."""
        stream_id = stream.id
        if self.streams.get(stream_id) is not stream:
            return
        if code:
            self.out.append(grpc.pack_error(stream_id, code, text))
            self.drop(stream_id)
            return
        size = len(payload) + grpc.PREFIX_BYTES
        sending = self.sending
        if size <= sending.whole and size <= sending.window:
            sending.window -= size
            self.out.append(grpc.pack_answer(stream_id, payload))
            self.drop(stream_id)
            return
        self.out.append(grpc.pack_answer_headers(stream_id))
        self.send_body(stream_id, grpc.pack_message(payload), grpc.pack_trailers(stream_id))

    def close_gracefully(self) -> None:
        """Tell the client that the server goes away."""
        self.close(ErrorCode.NO_ERROR, "the server stops")

    def _reader(self, stream: _Request) -> MessageReader:
        if stream.reader is None:
            stream.reader = MessageReader(stream.route.encoding, self._max_message_bytes)
        return stream.reader

    def _refuse(self, stream: _Request, error: CallError) -> None:
        self.out.append(grpc.pack_error(stream.id, error.code, error.text))
        if stream.ended:
            self.drop(stream.id)
        else:
            # The answer is complete before the request is: RFC 9113, section 8.1.
            self.reset(stream.id, ErrorCode.NO_ERROR)

    def _handle(self, stream: _Request, message: bytes) -> None:
        try:
            self._handler(Call(stream.route.method, message, stream.deadline_ns, stream.respond))
        except Exception:  # noqa: BLE001 - whatever it was, the client is waiting
            _log.exception("the handler of %s failed", stream.route.method)
            if not stream.answered:
                stream.respond(StatusCode.UNKNOWN, "Exception calling application", b"")


class GrpcFront:
    """A gRPC server for unary calls, on TCP, on a UNIX socket, or on both.

    `handler` is called on the I/O thread and must return at once. It listens on `host:port`, where
    port 0 takes a free one, and on `socket_path` where that is given; with a path and port 0 it
    listens on the path alone. `max_concurrent_streams` is per connection; None sets no limit.
    """

    def __init__(
        self,
        handler: Callable[[Call], None],
        *,
        host: str = "0.0.0.0",  # noqa: S104 - as tensorflow_model_server; the caller may narrow it
        port: int = 0,
        socket_path: str = "",
        max_message_bytes: int = 2**31 - 1,
        max_concurrent_streams: int | None = None,
    ) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._socket_path = socket_path
        self._max_message_bytes = max_message_bytes
        self._max_concurrent_streams = max_concurrent_streams
        self._bound_path: Path | None = None
        self._loop = SocketLoop(self._connect)

    def bind(self) -> int:
        """Listen; clients wait until `serve_forever`. Returns the TCP port, 0 where there is none.

        Raises OSError where the address is taken or cannot be had; the front is then stopped.
        """
        try:
            return self._listen()
        except OSError:
            self.stop()
            raise

    def serve_forever(self) -> None:
        """Serve on the calling thread until `stop`."""
        try:
            self._loop.serve_forever()
        finally:
            if self._bound_path is not None:
                self._bound_path.unlink(missing_ok=True)

    def stop(self) -> None:
        """End `serve_forever` and close all connections; from any thread or signal handler."""
        self._loop.stop()

    def _listen(self) -> int:
        port = 0
        if self._port or not self._socket_path:
            listener = bind_tcp(self._host, self._port)
            self._loop.listen(listener)
            port = int(listener.getsockname()[1])
        if self._socket_path:
            self._loop.listen(bind_unix(self._socket_path))
            self._bound_path = Path(self._socket_path)
        return port

    def _connect(self, link: Link) -> _Connection:
        return _Connection(
            link, self._handler, self._max_message_bytes, self._max_concurrent_streams
        )
