"""One thread that serves many sockets: accepts, reads, writes, runs what other threads post."""

import errno
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from tuner.http2.flow import Buffer, drop_sent

_READ_BYTES = 65_536
_PIECES_PER_SEND = 512  # below Linux's IOV_MAX of 1,024
_MAX_UNSENT_BYTES = 8 * 2**20
_LINGER_S = 1.0
_BACKLOG = 1_024

_log = logging.getLogger(__name__)


class Session(Protocol):
    """What a socket is connected to: takes bytes, leaves bytes in `out`."""

    out: list[Buffer]
    closing: bool

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer; must not raise."""

    def close_gracefully(self) -> None:
        """Put a farewell into `out` and set `closing`."""

    def disconnect(self) -> None:
        """Free everything: the peer is gone."""


class Link:
    """A connected socket and its session."""

    __slots__ = ("_loop", "_mask", "alive", "linger_until", "session", "socket")

    def __init__(self, loop: "SocketLoop", connected: socket.socket) -> None:
        self._loop = loop
        self._mask = select.EPOLLIN
        self.socket = connected
        self.alive = True
        self.linger_until: float | None = None
        self.session: Session

    def run(self, work: Callable[..., None], *args: Any) -> None:
        """Call `work(*args)` on the loop's thread, then send what the session has to say.

        At once where this is the loop's thread. May be called from any thread at any time; after
        the end of the loop it does nothing.
        """
        self._loop.run(self, work, args)

    def read(self) -> None:
        """Take what has arrived."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self.linger_until is None:
            self.session.receive(data)

    def flush(self) -> None:
        """Send as much as the socket takes; wait for it to take more; end a closing session."""
        out = self.session.out
        while out:
            try:
                sent = self.socket.sendmsg(out[:_PIECES_PER_SEND])
            except (BlockingIOError, InterruptedError):
                # A peer that does not read is not read from either, lest `out` grow for ever.
                unsent = sum(map(len, out))
                reading = 0 if unsent > _MAX_UNSENT_BYTES else select.EPOLLIN
                self._watch(select.EPOLLOUT | reading)
                return
            except OSError:
                self.close()
                return
            drop_sent(out, sent)
        if self._mask != select.EPOLLIN:
            self._watch(select.EPOLLIN)
        if self.session.closing and self.linger_until is None:
            self._linger()

    def close(self) -> None:
        """Close the socket and free the session."""
        self.alive = False
        self.session.disconnect()
        self.session.out.clear()
        self._loop.forget(self)
        self.socket.close()

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self._loop.watch(self, mask)

    def _linger(self) -> None:
        """Stop sending, but read on: closing with unread input would destroy the farewell."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.linger_until = time.monotonic() + _LINGER_S
        self._loop.lingering.add(self)


class SocketLoop:
    """Accepts on listening sockets and connects each client to a session of its own.

    All of it happens on the thread that calls `serve_forever`, save `run` and `stop`.
    """

    def __init__(self, connect: Callable[[Link], Session]) -> None:
        self._connect = connect
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._listeners: dict[int, socket.socket] = {}
        self._links: dict[int, Link] = {}
        self._posted: deque[tuple[Link, Callable[..., None], tuple[Any, ...]]] = deque()
        self._touched: set[Link] = set()
        self.lingering: set[Link] = set()
        self._thread: int | None = None
        self._asleep = False
        self._stopping = False
        self._closed = False
        self._wake_lock = threading.RLock()  # a signal handler may call `stop` inside `_wake`
        # Given up for a moment to accept, and close, a client that finds no descriptor left.
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def listen(self, listener: socket.socket) -> None:
        """Accept clients of a bound socket, which the loop owns from now on."""
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self._listeners[listener.fileno()] = listener
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def serve_forever(self) -> None:
        """Serve until `stop`; then say farewell to every client and close everything."""
        self._thread = threading.get_ident()
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._thread = None
            self._close()

    def stop(self) -> None:
        """End `serve_forever`, from any thread or signal handler; may be called again."""
        self._stopping = True
        self._wake()
        if self._thread is None:
            self._close()

    def run(self, link: Link, work: Callable[..., None], args: tuple[Any, ...]) -> None:
        """See `Link.run`."""
        if threading.get_ident() == self._thread:
            if link.alive:
                work(*args)
                self._touched.add(link)
            return
        self._posted.append((link, work, args))
        # Read after the append, as the loop looks for posts after it has set the flag: one of
        # the two always sees the other.
        if self._asleep:
            self._asleep = False
            self._wake()

    def watch(self, link: Link, mask: int) -> None:
        """Change what a link's socket is watched for."""
        self._epoll.modify(link.socket.fileno(), mask)

    def forget(self, link: Link) -> None:
        """Let go of a link that is about to be closed."""
        fd = link.socket.fileno()
        if self._links.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        self.lingering.discard(link)
        self._touched.discard(link)

    def _turn(self) -> None:
        self._asleep = True
        timeout_s = 0.0 if self._posted or self._stopping else self._patience_s()
        events = self._epoll.poll(timeout_s)
        self._asleep = False
        for fd, mask in events:
            link = self._links.get(fd)
            if link is not None:
                self._serve(link, mask)
            elif fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd in self._listeners:
                self._accept(self._listeners[fd])
        self._run_posted()
        while self._touched:
            self._touched.pop().flush()
        if self.lingering:
            self._end_lingering()

    def _patience_s(self) -> float:
        """How long to sleep, as poll counts it: -1 is until something happens."""
        if not self.lingering:
            return -1.0
        first = min(link.linger_until or 0.0 for link in self.lingering)
        return max(0.0, first - time.monotonic())

    def _serve(self, link: Link, mask: int) -> None:
        try:
            if mask & ~select.EPOLLOUT:  # readable, or in error, which reading reveals
                link.read()
            if link.alive:
                link.flush()
        except Exception:  # noqa: BLE001 - a defect may cost one client, never the server
            self._fail(link)

    def _run_posted(self) -> None:
        posted, touched = self._posted, self._touched
        for _ in range(len(posted)):
            link, work, args = posted.popleft()
            if link.alive:
                try:
                    work(*args)
                except Exception:  # noqa: BLE001 - as in _serve
                    self._fail(link)
                else:
                    touched.add(link)

    def _fail(self, link: Link) -> None:
        """Give up the one connection on which a defect showed; the others are served on."""
        _log.exception("a connection is closed after an unexpected error")
        link.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connected, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away(listener)
            return
        connected.setblocking(False)
        if connected.family != socket.AF_UNIX:
            with suppress(OSError):  # a client that is gone already shows when it is read from
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link = Link(self, connected)
        link.session = self._connect(link)
        self._links[connected.fileno()] = link
        self._epoll.register(connected.fileno(), select.EPOLLIN)

    def _turn_away(self, listener: socket.socket) -> None:
        _log.warning("too many open files: a client is turned away; raise `ulimit -n`")
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with suppress(OSError):
            listener.accept()[0].close()
        with suppress(OSError):  # another thread was quicker to take the descriptor
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _end_lingering(self) -> None:
        now = time.monotonic()
        for link in list(self.lingering):
            if link.linger_until is not None and link.linger_until <= now:
                link.close()

    def _wake(self) -> None:
        with self._wake_lock:
            if not self._closed:
                os.eventfd_write(self._wake_fd, 1)

    def _close(self) -> None:
        with self._wake_lock:
            if self._closed:
                return
            self._closed = True
        for link in list(self._links.values()):
            link.session.close_gracefully()
            link.flush()
            link.close()
        for listener in self._listeners.values():
            listener.close()
        self._posted.clear()
        self._epoll.close()
        os.close(self._wake_fd)
        if self._spare is not None:
            os.close(self._spare)
