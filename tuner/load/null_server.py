"""Servers that do nothing, by which the load generator itself is measured.

nghttpd, nghttp2's server in C, where it is installed (Debian: nghttp2); else one of our own:

    python -m tuner.load.null_server        prints the port on which it listens
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tuner.errors import HostError
from tuner.http2 import grpc
from tuner.http2.connection import ServerConnection, Stream
from tuner.http2.frames import ErrorCode
from tuner.http2.listening import bind_tcp
from tuner.http2.request_head import Head, read_head
from tuner.http2.socket_loop import Link, SocketLoop
from tuner.load.client import PREDICT

ANSWER = b"\x0a\x55" + b"0" * 85
"""The message of every answer: 87 bytes, as a small PredictResponse has."""

START_S = 10.0
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class NullServer:
    """A null server that listens: `name` for records, and where it is."""

    name: str
    address: str
    pid: int


@contextmanager
def null_server(
    prefix: Sequence[str] = (),
    *,
    own: bool = False,
    answers: Mapping[str, bytes] = MappingProxyType({PREDICT: ANSWER}),
) -> Iterator[NullServer]:
    """Run a null server; `prefix` is a command that runs it, as one that chooses processors.

    `own` asks for our own server though nghttpd be there; `answers` are nghttpd's messages by
    method. Raises HostError where it cannot start.
    """
    if own or shutil.which("nghttpd") is None:
        with _running([*prefix, sys.executable, "-m", "tuner.load.null_server"]) as process:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise HostError("the null server did not start", hint="look at what it printed")
            yield NullServer("tuner", f"{_HOST}:{int(port)}", process.pid)
        return
    with tempfile.TemporaryDirectory(prefix="tuner-null-") as folder:
        for method, message in answers.items():
            file = Path(folder) / method.lstrip("/")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(grpc.pack_message(message))
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port = probe.getsockname()[1]
        argv = ["nghttpd", "--no-tls", "-a", _HOST, "-d", folder, "--trailer=grpc-status: 0"]
        # Windows and streams as wide as gRPC's servers open them, not nghttpd's narrow defaults.
        argv += ["-m", "4096", "-w", "30", "-W", "30", str(port)]
        with _running([*prefix, *argv]) as process:
            _await_port(port, process)
            yield NullServer(_version(), f"{_HOST}:{port}", process.pid)


@contextmanager
def _running(argv: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex((_HOST, port)) == 0:
                return
        time.sleep(0.02)
    raise HostError(
        f"nghttpd does not listen on {_HOST}:{port}",
        hint="was the port taken meanwhile? Try again",
    )


def _version() -> str:
    """Name and version as nghttpd prints them, such as `nghttpd nghttp2/1.52.0`."""
    done = subprocess.run(["nghttpd", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
    return done.stdout.strip() or "nghttpd"


class _Connection(ServerConnection[Head, Stream]):
    """Answers every request with the same message once it has come in whole."""

    def __init__(self, link: Link) -> None:
        super().__init__(read_head)
        self.link = link

    def open_stream(self, stream_id: int, head: Head) -> Stream | None:
        if head.route.malformed:
            self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
            return None
        return Stream(stream_id)

    def on_data(self, stream: Stream, content: bytes) -> None:  # noqa: ARG002 - it is not read
        if stream.ended:
            self.on_end(stream)

    def on_end(self, stream: Stream) -> None:
        sending, size = self.sending, len(ANSWER) + grpc.PREFIX_BYTES
        if size <= sending.whole and size <= sending.window and not sending.waiting:
            sending.window -= size
            self.out.append(grpc.pack_answer(stream.id, ANSWER))
            self.drop(stream.id)
            return
        self.out.append(grpc.pack_answer_headers(stream.id))
        self.send_body(stream.id, grpc.pack_message(ANSWER), grpc.pack_trailers(stream.id))

    def close_gracefully(self) -> None:
        """Tell the client that the server goes away."""
        self.close(ErrorCode.NO_ERROR, "the server stops")


def main() -> None:
    """Serve until killed, or until nobody reads what it prints."""
    loop = SocketLoop(_Connection)
    listener = bind_tcp(_HOST, 0)
    loop.listen(listener)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    loop.serve_forever()


if __name__ == "__main__":
    main()
