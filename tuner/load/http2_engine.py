"""The engine on an HTTP/2 client of our own: one thread, no object and no task per request.

The schedule is absolute; all that is due goes out, then `select()` until the next. What it costs
beside other clients is measured in `benchmarks/loadgen`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from select import select
from time import monotonic_ns, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import __version__
from tuner.clock import NS_PER_S, wait_until
from tuner.http2.answers import StatusKey
from tuner.http2.headers import Field
from tuner.load.channel import Channel
from tuner.load.client import PREDICT, Columns, Recorder, Tls, merge, require_every_end
from tuner.load.connection import ClientConnection
from tuner.load.messages import Messages
from tuner.load.statuses import Statuses
from tuner.load.transport import Transport, target_of

CONNECT_S = 2.0
Piece = tuple[float, NDArray[np.int64], NDArray[np.int32]]

SPIN_NS = 100_000
"""How long before a request is due a spinning engine ceases to sleep: longer than waking takes."""

_NEVER_NS = 1 << 62


class Http2Engine:
    """Implements `Engine`. `address` is `host:port` or `unix:PATH`."""

    def __init__(
        self,
        address: str,
        *,
        deadline_s: float,
        connections: int = 1,
        tls: Tls | None = None,
        spin: bool = False,
    ) -> None:
        self._spin_ns = SPIN_NS if spin else 0
        self._target = target_of(address, tls)
        self._deadline_ns = round(deadline_s * NS_PER_S)
        self._timeout = _grpc_timeout(deadline_s)
        self._statuses = Statuses()
        self._messages: tuple[Sequence[bytes], Messages] = ((), Messages([b""]))
        self._strays = Recorder(self._statuses)
        self._channels = [
            Channel(self._connect, self._strays, self._on_sockets_changed)
            for _ in range(connections)
        ]
        # Descriptors, as `select` would ask each transport for its own at every call.
        self._open: dict[int, Transport] = {}
        self._fds: list[int] = []
        self._sockets_changed = True
        self._sent = self._ended = 0
        self._last_answer = b""
        self._timer_ns = 0
        now_ns = monotonic_ns()
        for channel in self._channels:
            channel.connect(now_ns)
        until_ns = now_ns + round(CONNECT_S * NS_PER_S)
        while any(c.transport is not None and not c.ready for c in self._channels):
            if monotonic_ns() >= until_ns:  # the requests will say what is wrong
                break
            self._turn(until_ns)

    @property
    def last_answer(self) -> bytes:
        """See `Engine.last_answer`."""
        return self._last_answer

    def open_loop(
        self,
        messages: Sequence[bytes],
        picks: NDArray[np.int32],
        offsets_ns: NDArray[np.int64],
        *,
        duration_s: float,
        give_up_outstanding: int | None = None,
        start_ns: int | None = None,
    ) -> Columns:
        """See `Engine.open_loop`."""
        self._prepare(messages)
        started_ns, cpu_s = wait_until(start_ns), process_time()
        end_ns = started_ns + round(duration_s * NS_PER_S)
        self._pace(offsets_ns + started_ns, picks, end_ns, give_up_outstanding)
        ended_ns, cpu_s = monotonic_ns(), process_time() - cpu_s
        self._drain()
        return self._columns(started_ns, min(ended_ns, end_ns), cpu_s)

    def long_run(
        self, messages: Sequence[bytes], pieces: Iterable[Piece], *, start_ns: int | None = None
    ) -> Iterator[Columns]:
        """As `open_loop`, for hours: yield the rows that ended after each piece of the schedule.

        A piece is (its end in seconds, its offsets, its picks). Rows come once, in order but for
        requests that are outstanding at the end of a piece.
        """
        self._prepare(messages)
        started_ns = ended_ns = wait_until(start_ns)
        for end_s, offsets_ns, picks in pieces:
            cpu_s, ended_ns = process_time(), started_ns + round(end_s * NS_PER_S)
            self._pace(offsets_ns + started_ns, picks, ended_ns, None)
            yield self._columns(started_ns, ended_ns, process_time() - cpu_s, whole=False)
        cpu_s = process_time()
        self._drain()
        yield self._columns(started_ns, ended_ns, process_time() - cpu_s)

    def settled_ns(self, until_ns: int) -> int:
        """Up to when all requests of a long run have ended, of those due before `until_ns`."""
        oldest = [due for c in self._channels if (due := c.oldest_ns) is not None]
        return min([until_ns, *oldest])

    def _pace(
        self,
        due: NDArray[np.int64],
        picks: NDArray[np.int32],
        end_ns: int,
        give_up_outstanding: int | None,
    ) -> None:
        """Send each request when it is due, until `end_ns` or until too many are unanswered."""
        number, count, chosen, due_ns = 0, len(due), picks.tolist(), [*due.tolist(), _NEVER_NS]
        limit = _NEVER_NS if give_up_outstanding is None else give_up_outstanding
        safe = 0  # up to here of the schedule, no more than `limit` can be outstanding
        for channel in self._channels:
            channel.expect(-(-count // len(self._channels)))
        while True:
            now_ns = monotonic_ns()
            # All that is due goes out before anything else: a late loop catches up in a burst.
            if due_ns[number] <= now_ns:
                if number == safe:
                    safe = number + limit + 1 - self._outstanding()
                stop = number + 1
                if due_ns[stop] <= now_ns:
                    stop = min(bisect_right(due_ns, now_ns, stop + 1), safe)
                self._hand_over(due_ns, chosen, number, stop, now_ns)
                number = stop
                if number == safe and self._outstanding() > limit:
                    return
            elif number == count and now_ns >= end_ns:
                return
            self._turn(due_ns[number] if number < count else end_ns)

    def closed_loop(
        self,
        messages: Sequence[bytes],
        picks: NDArray[np.int32],
        *,
        concurrency: int,
        duration_s: float,
        start_ns: int | None = None,
    ) -> Columns:
        """See `Engine.closed_loop`."""
        self._prepare(messages)
        shares = [
            (channel, len(range(number, concurrency, len(self._channels))))
            for number, channel in enumerate(self._channels)
        ]
        ring = _Ring(picks.tolist(), concurrency)
        started_ns, cpu_s = wait_until(start_ns), process_time()
        end_ns = started_ns + round(duration_s * NS_PER_S)
        while (now_ns := monotonic_ns()) < end_ns:
            for channel, share in shares:
                wanted = share - channel.outstanding
                if wanted > 0 and channel.able(now_ns):
                    channel.send([now_ns] * wanted, ring.next(wanted), now_ns)
                    self._sent += wanted
            self._turn(min(end_ns, now_ns + NS_PER_S // 10))
        ended_ns, cpu_s = monotonic_ns(), process_time() - cpu_s
        self._drain()
        columns = self._columns(started_ns, min(ended_ns, end_ns), cpu_s)
        # A closed loop has no schedule: a request is intended when it is sent.
        columns.intended_ns[:] = columns.sent_ns
        return columns

    def call(self, message: bytes, *, deadline_s: float) -> StatusKey:
        """See `Engine.call`."""
        usual_ns, self._deadline_ns = self._deadline_ns, round(deadline_s * NS_PER_S)
        channel = self._channels[0]
        channel.timeout = (b"grpc-timeout", _grpc_timeout(deadline_s))
        try:
            self._prepare([message])
            started_ns = monotonic_ns()
            self._sent += 1
            channel.send((started_ns,), (0,), started_ns)
            self._drain()
            columns = self._columns(started_ns, monotonic_ns(), 0.0)
        finally:
            channel.timeout, self._deadline_ns = None, usual_ns
        return columns.statuses[columns.status[0]]

    def close(self) -> None:
        """See `Engine.close`."""
        for channel in self._channels:
            channel.close()

    def _connect(self) -> Transport:
        fields: list[Field] = [
            (b":method", b"POST"),
            (b":scheme", self._target.scheme.encode()),
            (b":path", PREDICT.encode()),
            (b":authority", self._target.authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", f"tuner/{__version__}".encode()),
            (b"grpc-timeout", self._timeout),
        ]
        connection = ClientConnection(fields, self._messages[1], self._statuses)
        return Transport(self._target, connection)

    def _prepare(self, messages: Sequence[bytes]) -> None:
        """Make the bodies ready, and begin a run's statuses."""
        if self._messages[0] is not messages:
            self._messages = (messages, Messages(messages))
        self._statuses = self._strays.statuses = Statuses()
        self._sent = self._ended = 0
        for transport in (item for channel in self._channels for item in channel.transports()):
            transport.connection.messages = self._messages[1]
            transport.connection.statuses = self._statuses
            transport.connection.last_answer = b""
        self._timer_ns = 0

    def _outstanding(self) -> int:
        number = 0
        for channel in self._channels:
            number += channel.outstanding
        return number

    def _hand_over(
        self, due_ns: Sequence[int], chosen: Sequence[int], first: int, stop: int, now_ns: int
    ) -> None:
        """Send the requests `first` to `stop` of the schedule, in turn over the connections."""
        channels, self._sent = self._channels, self._sent + stop - first
        step = len(channels)
        if step == 1:
            channels[0].send(due_ns[first:stop], chosen[first:stop], now_ns)
            return
        for number in range(first, min(stop, first + step)):
            part = slice(number, stop, step)
            channels[number % step].send(due_ns[part], chosen[part], now_ns)

    def _turn(self, wake_ns: int) -> None:
        """Wait until something has arrived, until `wake_ns`, or until a timer is due."""
        writing = [fd for fd, transport in self._open.items() if transport.wants_write]
        if writing or self._sockets_changed:
            writing = self._look_around()
        wake_ns = min(wake_ns - self._spin_ns, self._timer_ns)
        wait_s = (wake_ns - monotonic_ns()) / NS_PER_S
        readable, writable, _ = select(self._fds, writing, (), max(wait_s, 0.0))
        for fd in writable:
            self._open[fd].write()
        for fd in readable:
            self._open[fd].read()
        for channel in self._channels:
            if channel.restless:
                channel.pump(monotonic_ns())
        now_ns = monotonic_ns()
        if now_ns >= self._timer_ns:
            self._expire(now_ns)

    def _look_around(self) -> list[int]:
        """Find the sockets there are now, and those of them that wait to be writable.

        One that is still connecting may get another descriptor with the server's next address.
        """
        self._sockets_changed = False
        self._open = {item.fd: item for c in self._channels for item in c.transports()}
        self._fds = list(self._open)
        return [fd for fd, transport in self._open.items() if transport.wants_write]

    def _expire(self, now_ns: int) -> None:
        """End what has reached its deadline, and note a time before which nothing else will."""
        due_ns = [now_ns + self._deadline_ns]
        for channel in self._channels:
            found = channel.expire(now_ns, self._deadline_ns)
            if found is not None:
                due_ns.append(found)
        self._timer_ns = min(due_ns)

    def _on_sockets_changed(self) -> None:
        self._sockets_changed = True

    def _drain(self) -> None:
        """Wait for every answer; each has a deadline."""
        while self._outstanding():
            self._turn(_NEVER_NS)

    def _columns(
        self, started_ns: int, ended_ns: int, cpu_s: float, *, whole: bool = True
    ) -> Columns:
        """Collect the rows that have ended since the last time.

        At the end of the `whole` run, raises LoadError unless each request sent had exactly one.
        """
        parts: list[Any] = [self._strays.take()]
        for channel in self._channels:
            parts += channel.take()
            for transport in channel.transports():
                self._last_answer = transport.connection.last_answer or self._last_answer
        columns = merge(
            parts, self._statuses, started_ns=started_ns, ended_ns=ended_ns, cpu_s=cpu_s
        )
        self._ended += int(np.count_nonzero(columns.done_ns))
        if whole:
            require_every_end(self._sent, self._ended)
        return columns


class _Ring:
    """Picks gone through again and again, in slices."""

    def __init__(self, picks: list[int], longest: int) -> None:
        self._period = len(picks)
        self._picks = picks * (1 + -(-longest // len(picks)))
        self._at = 0

    def next(self, count: int) -> list[int]:
        """The next `count` picks, at most the `longest` asked for."""
        first = self._at
        self._at = (first + count) % self._period
        return self._picks[first : first + count]


def _grpc_timeout(seconds: float) -> bytes:
    """A `grpc-timeout`, whose number has at most 8 digits."""
    for unit, per_second in ((b"u", 1_000_000), (b"m", 1_000), (b"S", 1)):
        number = round(seconds * per_second)
        if number < 10**8:
            return b"%d%s" % (max(number, 1), unit)
    return b"99999999S"
