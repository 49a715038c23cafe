"""One of the engine's connections as requests see it: it connects, and again after any end."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from tuner.clock import NS_PER_MS
from tuner.http2.answers import DEADLINE_EXCEEDED, StatusKey
from tuner.http2.headers import Field
from tuner.load.client import Recorder
from tuner.load.ledger import Rows
from tuner.load.transport import Transport

FIRST_PAUSE_NS = 100 * NS_PER_MS
LONGEST_PAUSE_NS = 1_000 * NS_PER_MS
"""Between attempts to connect; each failure doubles it."""


class Channel:
    """Requests to one server over one connection at a time.

    Requests that find no free stream wait in `waiting`, as (intended, message, sent), where sent
    is when they would have gone out. Connections that may open no more streams are `retired`, and
    closed once their last answer has come. `strays` records requests that ended without a stream.
    `timeout` is the header of requests with a deadline of their own. `changed` is called whenever
    there are other sockets than before.
    """

    def __init__(
        self,
        connect: Callable[[], Transport],
        strays: Recorder,
        changed: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._strays = strays
        self._changed = changed
        self.transport: Transport | None = None
        self.retired: list[Transport] = []
        self.waiting: deque[tuple[int, int, int]] = deque()
        self.refusal: StatusKey = ("UNAVAILABLE", "not connected")
        self.timeout: Field | None = None
        self._retry_ns = 0
        self._pause_ns = FIRST_PAUSE_NS
        self._ended: list[Rows] = []

    @property
    def ready(self) -> bool:
        """Whether the server has answered the connection's opening."""
        return self.transport is not None and self.transport.connection.ready

    @property
    def outstanding(self) -> int:
        """Requests without an end."""
        number = len(self.waiting)
        if self.transport is not None:
            number += self.transport.connection.ledger.outstanding
        for transport in self.retired:
            number += transport.connection.ledger.outstanding
        return number

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest request without an end was due; those before it can all be taken."""
        due_ns = [self.waiting[0][0]] if self.waiting else []
        for transport in self.transports():
            ledger = transport.connection.ledger
            if (row := ledger.first_outstanding()) < ledger.count:
                due_ns.append(int(ledger.intended_at[row]))
        return min(due_ns, default=None)

    @property
    def restless(self) -> bool:
        """Whether `pump` may have something to do."""
        transport = self.transport
        return bool(
            self.waiting
            or self.retired
            or transport is None
            or transport.lost is not None
            or transport.connection.draining
        )

    def able(self, now_ns: int) -> bool:
        """Whether a request would be sent or wait for a connection, and not fail at once."""
        return self.transport is not None or now_ns >= self._retry_ns

    def transports(self) -> Iterator[Transport]:
        """All that have a socket."""
        if self.transport is not None:
            yield self.transport
        yield from self.retired

    def expect(self, requests: int) -> None:
        """Get memory for so many requests now, and not when one of them is due."""
        if self.transport is not None:
            self.transport.connection.ledger.reserve(requests)

    def send(self, intended_ns: Sequence[int], picks: Sequence[int], now_ns: int) -> None:
        """Send one request for each pick, or let it wait, or fail where nobody listens."""
        transport = self.transport
        if transport is not None and not self.waiting:
            connection = transport.connection
            room = connection.room
            if room >= len(picks):
                connection.send(intended_ns, picks, now_ns, self.timeout)
                transport.flush()
                if transport.lost is not None or connection.draining:
                    self.pump(now_ns)
                return
        elif transport is None and not self.able(now_ns):
            for intended, pick in zip(intended_ns, picks, strict=True):
                self._strays.record(intended, now_ns, now_ns, pick, self.refusal)
            return
        for intended, pick in zip(intended_ns, picks, strict=True):
            self.waiting.append((intended, pick, now_ns))
        self.pump(now_ns)

    def pump(self, now_ns: int) -> None:
        """Send what waits, as far as the server allows, and keep the connection up."""
        self._settle(now_ns)
        if self.transport is None and self.waiting and now_ns >= self._retry_ns:
            self.connect(now_ns)
        transport = self.transport
        if transport is None:
            return
        connection = transport.connection
        while self.waiting and (room := connection.room) > 0:
            for _ in range(min(room, len(self.waiting))):
                intended, pick, offered = self.waiting.popleft()
                connection.send((intended,), (pick,), offered, self.timeout)
                # Held back by the server, not by us: the stamp of the first attempt stays.
                connection.ledger.stamped = connection.ledger.count
        if connection.out:
            transport.flush()
        self._settle(now_ns)

    def connect(self, now_ns: int) -> None:
        """Begin to connect. An attempt that fails at once fails what waits for it."""
        try:
            self.transport = self._connect()
        except (OSError, UnicodeError) as error:  # no such host; a name that cannot be one
            words = error.strerror if isinstance(error, OSError) else None
            self._fall_back(("UNAVAILABLE", f"no such server: {words or error}"), now_ns)
            return
        self._changed()
        self._settle(now_ns)

    def expire(self, now_ns: int, deadline_ns: int) -> int | None:
        """End what is older than its deadline; return when the next is due, if any."""
        due: list[int] = []
        while self.waiting and self.waiting[0][2] + deadline_ns <= now_ns:
            intended, pick, offered = self.waiting.popleft()
            self._strays.record(intended, offered, now_ns, pick, DEADLINE_EXCEEDED)
        if self.waiting:
            due.append(self.waiting[0][2] + deadline_ns)
            if self.transport is None:
                due.append(self._retry_ns)
        for transport in list(self.transports()):
            next_ns = transport.connection.expire(now_ns, deadline_ns)
            if next_ns is not None:
                due.append(next_ns)
            if transport.connection.out:
                transport.flush()
        self.pump(now_ns)
        return min(due, default=None)

    def take(self) -> list[Rows]:
        """Hand out the rows that have ended."""
        ended, self._ended = self._ended, []
        return ended + [transport.connection.take() for transport in self.transports()]

    def close(self) -> None:
        """Close every connection; nothing may be outstanding."""
        for transport in list(self.transports()):
            transport.close("the load generator has finished")
        self._retry_ns = 0
        self.transport, self.retired = None, []

    def _settle(self, now_ns: int) -> None:
        """Let go of connections that have ended or may carry nothing more."""
        transport = self.transport
        if transport is not None:
            if transport.lost is not None:
                self._changed()
                self.transport = None
                self._ended.append(transport.connection.take())
                if transport.connection.ready:  # it had worked: try again at once
                    self._pause_ns = FIRST_PAUSE_NS
                    self._retry_ns = 0
                    self.refusal = transport.lost
                else:
                    self._fall_back(transport.lost, now_ns)
            elif transport.connection.draining:
                self.transport = None
                self.retired.append(transport)
        for retired in list(self.retired):
            if retired.lost is None and not retired.connection.ledger.outstanding:
                retired.close("no stream is left on it")
            if retired.lost is not None:
                self._changed()
                self.retired.remove(retired)
                self._ended.append(retired.connection.take())

    def _fall_back(self, status: StatusKey, now_ns: int) -> None:
        """Note a failed attempt to connect, which ends all that waited for it."""
        self.transport = None
        self.refusal = status
        self._retry_ns = now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        while self.waiting:
            intended, pick, offered = self.waiting.popleft()
            self._strays.record(intended, offered, now_ns, pick, status)
