"""A server in a thread that answers every request by a script: rightly, oddly or wrongly.

The h2 library reads what the client says and would catch its faults; scripts speak through `Peer`,
which may say what h2 would refuse to.
"""

import contextlib
import socket
import ssl
import struct
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hpack import Encoder

from tuner.http2 import frames

MESSAGE = b"\x0a\x05hello"
BODY = b"\0" + struct.pack(">I", len(MESSAGE)) + MESSAGE
FIRST = [(":status", "200"), ("content-type", "application/grpc")]
LAST = [("grpc-status", "0")]
END = frames.END_HEADERS | frames.END_STREAM


class Peer:
    """One client of the scripted server."""

    def __init__(self, connected, number):
        self.socket, self.number = connected, number
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.encoder = Encoder()
        self.requests = {}
        self.events = []

    def raw(self, *pieces):
        """Send bytes as they are."""
        self.flush()
        self.socket.sendall(b"".join(pieces))

    def frame(self, kind, flags, stream_id, payload=b""):
        self.raw(frames.pack_frame(kind, flags, stream_id, payload))

    def headers(self, stream_id, fields, flags=frames.END_HEADERS):
        self.frame(frames.HEADERS, flags, stream_id, self.block(fields))

    def block(self, fields):
        return self.encoder.encode(fields)

    def data(self, stream_id, body=BODY, flags=0):
        self.frame(frames.DATA, flags, stream_id, body)

    def trailers(self, stream_id, fields=LAST):
        self.headers(stream_id, fields, END)

    def answer(self, stream_id, body=BODY):
        """Answer as a server should."""
        self.headers(stream_id, FIRST)
        self.data(stream_id, body)
        self.trailers(stream_id)

    def fail(self, stream_id, code, text=None):
        fields = [*FIRST, ("grpc-status", str(code))]
        self.trailers(stream_id, fields if text is None else [*fields, ("grpc-message", text)])

    def flush(self):
        if data := self.h2.data_to_send():
            self.socket.sendall(data)

    def saw(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class ScriptedServer:
    """Calls `script(peer, stream_id)` for each request that has come in whole.

    `opening(peer)` takes the place of the server's SETTINGS where it is given. `faults` are the
    client's, as h2 found them. `certificate` is a key and a chain, as files, to speak TLS with.
    """

    def __init__(
        self, script, *, opening=None, settings=None, path=None, each=None, certificate=None
    ):
        self.tls = None
        if certificate is not None:
            key, chain = certificate
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(chain, key)
            self.tls.set_alpn_protocols(["h2"])
        self.script, self.opening, self.settings, self.each = script, opening, settings, each
        self.peers, self.faults, self.threads = [], [], []
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen()
            self.address = f"unix:{path}"

    def __enter__(self):
        self.spawn(self.accept)
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()

    def spawn(self, work, *args):
        thread = threading.Thread(target=work, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self.listener.accept()
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if (
                    connected.family != socket.AF_UNIX
                ) else None
                self.peers.append(Peer(connected, len(self.peers)))
                self.spawn(self.serve, self.peers[-1])

    def serve(self, peer):
        try:
            if self.tls is not None:
                peer.socket = self.tls.wrap_socket(peer.socket, server_side=True)
            with peer.socket:
                self.talk(peer)
        except OSError:
            pass
        except h2.exceptions.ProtocolError as error:
            self.faults.append(error)

    def talk(self, peer):
        if self.opening is not None:
            self.opening(peer)
        if self.settings is not None:
            peer.h2.local_settings = h2.settings.Settings(
                client=False, initial_values=self.settings
            )
        peer.h2.initiate_connection()
        if self.opening is None:
            peer.flush()
        else:
            peer.h2.data_to_send()
        for data in whole_frames(peer.socket):
            for event in peer.h2.receive_data(data):
                peer.events.append(event)
                self.on_event(peer, event)
            peer.flush()

    def on_event(self, peer, event):
        if isinstance(event, h2.events.RequestReceived):
            peer.requests[event.stream_id] = [dict(event.headers), b""]
            if self.each is not None:
                self.each(peer, event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            peer.requests[event.stream_id][1] += event.data
            peer.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.script(peer, event.stream_id)


def whole_frames(connected):
    """Yield the preface, then frame by frame: h2 heeds a new MAX_FRAME_SIZE only from one call of
    `receive_data` to the next."""
    unread, preface = b"", True
    while data := connected.recv(65_536):
        unread += data
        while (size := frame_bytes(unread, preface)) <= len(unread):
            yield unread[:size]
            unread, preface = unread[size:], False


def frame_bytes(data, preface):
    """How long what `data` begins with is, as far as it can be told."""
    if preface:
        return len(frames.PREFACE)
    if len(data) < frames.FRAME_HEAD_BYTES:
        return frames.FRAME_HEAD_BYTES
    return frames.FRAME_HEAD_BYTES + (frames.FRAME_HEAD.unpack_from(data)[0] >> 8)
