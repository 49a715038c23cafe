"""A socket and the HTTP/2 connection on it: TCP, TLS with ALPN, or a unix socket; never blocks."""

import os
import socket
import ssl
from dataclasses import dataclass

from tuner.clock import now_ns
from tuner.http2.answers import StatusKey
from tuner.http2.flow import Buffer, drop_sent
from tuner.load.client import Tls
from tuner.load.connection import ClientConnection

_READ_BYTES = 65_536
_MOST_READ_BYTES = 1 << 20
_PIECES_PER_SEND = 1_000  # below Linux's IOV_MAX of 1,024
_JOINED_BYTES = 65_536
"""Up to so many bytes, one copy into one piece costs less than a vector of small ones."""

_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens: `host:port`, `[v6]:port` or `unix:PATH`; `tls` wraps the socket.

    `server_name` stands for the address's host in requests and certificates.
    """

    address: str
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    @property
    def scheme(self) -> str:
        """The scheme of requests."""
        return "http" if self.tls is None else "https"

    @property
    def authority(self) -> str:
        """The `:authority` of requests."""
        local = "localhost" if self.address.startswith(_UNIX) else self.address
        return self.server_name or local

    @property
    def host(self) -> str:
        """The server's name, as certificates are checked for it."""
        return self.server_name or self.authority.rpartition(":")[0].strip("[]") or self.authority

    def places(self) -> list[tuple[int, str | tuple[str, int]]]:
        """Address families and addresses to try in turn. Raises OSError: no such host."""
        if self.address.startswith(_UNIX):
            return [(socket.AF_UNIX, self.address.removeprefix(_UNIX).replace("//", "", 1))]
        host, _, port = self.address.rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        return [(family, (str(place[0]), int(place[1]))) for family, *_, place in found]


def target_of(address: str, tls: Tls | None) -> Target:
    """A server's address, with TLS that offers HTTP/2 by ALPN. See EngineFactory for `tls`."""
    if tls is None:
        return Target(address)
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.client_cert is not None:
        context.load_cert_chain(tls.client_cert, tls.client_key)
    context.set_alpn_protocols(["h2"])
    return Target(address, context, tls.server_name)


class Transport:
    """One connected, or connecting, socket and what is said on it.

    `fd` is the socket's descriptor, by which it is waited for. `lost` is the reason once it is
    closed. `wants_write` says that it waits to be writable. The connection may be used from the
    start: what it has to say is sent when it can.
    """

    def __init__(self, target: Target, connection: ClientConnection) -> None:
        self.connection = connection
        self.lost: StatusKey | None = None
        self.wants_write = True
        self._target = target
        self._places = target.places()
        self._connecting = True
        self._shaking = target.tls is not None
        self._read_bytes = _READ_BYTES
        self._begin()

    def read(self) -> None:
        """Take what has arrived."""
        if self.lost is not None:
            return
        if self._connecting or self._shaking:
            self._go_on()
            return
        try:
            data = self._socket.recv(self._read_bytes)
        except (BlockingIOError, ssl.SSLWantReadError, InterruptedError):
            return
        except OSError as error:
            self.close(f"the connection broke: {error.strerror or error}")
            return
        if not data:
            self.close("the server closed the connection")
            return
        if len(data) == self._read_bytes < _MOST_READ_BYTES:
            self._read_bytes *= 2
        self.connection.receive(data)
        if self._target.tls is not None:
            self._read_decrypted()
        if self.connection.out:
            self.flush()

    def write(self) -> None:
        """Go on where the socket was not writable."""
        if self._connecting or self._shaking:
            self._go_on()
        else:
            self.flush()

    def flush(self) -> None:
        """Hand all there is to say to the kernel, as far as it takes it, and stamp the ledger."""
        connection = self.connection
        out = connection.out
        if not (self._connecting or self._shaking or self.lost):
            self._send_all(out)
        connection.ledger.stamp(now_ns())
        if connection.closing and not out and self.lost is None:
            self.close("the connection was given up")

    def close(self, reason: str) -> None:
        """Close the socket; whatever is outstanding on it has failed."""
        if self.lost is None:
            self.lost = self.connection.failure or ("UNAVAILABLE", reason)
            self.wants_write = False
            self.connection.lose(self.lost, now_ns())
            self.connection.out.clear()
            self._socket.close()

    def _begin(self) -> None:
        """Start to connect to the next of the server's addresses."""
        family, place = self._places.pop(0)
        raw = socket.socket(family, socket.SOCK_STREAM)
        raw.setblocking(False)
        if family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = raw
        self.fd = raw.fileno()
        try:
            raw.connect(place)
        except BlockingIOError:
            return  # it is under way
        except OSError as error:
            self._refused(error.strerror or str(error))

    def _go_on(self) -> None:
        """Take the next step towards a connection."""
        if self._connecting:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._refused(os.strerror(error))
                return
            self._connecting = False
            if self._target.tls is not None:
                self._socket = self._target.tls.wrap_socket(
                    self._socket, server_hostname=self._target.host, do_handshake_on_connect=False
                )
        if self._shaking:
            self._shake()
        if not self._shaking and self.lost is None:
            self.flush()

    def _shake(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self.wants_write = False
            return
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return
        except OSError as error:  # ssl.SSLError is one
            self.close(f"no TLS with {self._target.address}: {error.strerror or error}")
            return
        if self._socket.selected_alpn_protocol() != "h2":
            self.close(f"{self._target.address} does not speak HTTP/2 over TLS (ALPN)")
            return
        self._shaking = False

    def _refused(self, words: str) -> None:
        if self._places:
            self._socket.close()
            self._begin()
        else:
            self.close(f"no connection to {self._target.address}: {words}")

    def _read_decrypted(self) -> None:
        """Take what OpenSSL holds decrypted: no select() will tell of it."""
        assert isinstance(self._socket, ssl.SSLSocket)
        while self.lost is None and (pending := self._socket.pending()):
            try:
                data = self._socket.recv(pending)
            except OSError as error:
                self.close(f"the connection broke: {error.strerror or error}")
                return
            self.connection.receive(data)

    def _send_all(self, out: list[Buffer]) -> None:
        plain = self._target.tls is None
        try:
            while out:
                pieces = out[:_PIECES_PER_SEND]
                size = sum(map(len, pieces))
                if len(pieces) == 1:
                    sent = self._socket.send(pieces[0])
                elif plain and size > _JOINED_BYTES:
                    sent = self._socket.sendmsg(pieces)
                else:
                    sent = self._socket.send(b"".join(pieces))
                if sent == size:
                    del out[: len(pieces)]
                else:
                    drop_sent(out, sent)
        except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self.wants_write = True
            return
        except OSError as error:
            self.close(f"the connection broke: {error.strerror or error}")
            return
        self.wants_write = False
