"""The engine on grpcio's asynchronous API: correct everywhere, 4-6 thousand requests/s a core."""

import asyncio
import math
import selectors
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from time import monotonic_ns, process_time

import grpc
import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_S, wait_until
from tuner.http2.answers import EMPTY, OK, StatusKey
from tuner.load.client import PREDICT, Columns, Recorder, Tls
from tuner.load.credentials import credentials_of, name_options

CONNECT_S = 2.0
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A retry inside the library would hide a failure and count its wait as the server's.
    ("grpc.enable_retries", 0),
    # The load goes to the named server, never through a proxy of the environment.
    ("grpc.enable_http_proxy", 0),
    # Otherwise all channels to one address share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class _Flight:
    """One request under way. grpcio calls the serializer last, so `sent_ns` is stamped there."""

    __slots__ = ("message", "sent_ns")

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.sent_ns = 0


def _stamp_sent(flight: _Flight) -> bytes:
    flight.sent_ns = monotonic_ns()
    return flight.message


def _precise_loop() -> asyncio.AbstractEventLoop:
    # epoll rounds every sleep up to a millisecond, select() does not, and an engine has only a
    # handful of descriptors: measured at 500 requests/s, this halves the median lateness.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


class GrpcioEngine:
    """Implements `Engine` with one event loop and one or several channels."""

    def __init__(
        self,
        address: str,
        *,
        deadline_s: float,
        connections: int = 1,
        tls: Tls | None = None,
        spin: bool = False,  # noqa: ARG002 - the event loop sleeps as it does
    ) -> None:
        self._deadline_s = deadline_s
        self.last_answer = b""
        self._runner = asyncio.Runner(loop_factory=_precise_loop)
        self._runner.run(self._connect(address, connections, tls))

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
        return self._runner.run(
            self._open_loop(
                messages, picks, offsets_ns, duration_s, give_up_outstanding, wait_until(start_ns)
            )
        )

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
        return self._runner.run(
            self._closed_loop(messages, picks, concurrency, duration_s, wait_until(start_ns))
        )

    def call(self, message: bytes, *, deadline_s: float) -> StatusKey:
        """See `Engine.call`."""

        async def exchange() -> StatusKey:
            _, status = await self._end(self._predict[0](_Flight(message), timeout=deadline_s))
            return status

        return self._runner.run(exchange())

    def close(self) -> None:
        """See `Engine.close`."""
        self._runner.run(self._disconnect())
        self._runner.close()

    async def _connect(self, address: str, connections: int, tls: Tls | None) -> None:
        options = (*_OPTIONS, *name_options(tls))
        self._channels = [
            grpc.aio.insecure_channel(address, options=options)
            if tls is None
            else grpc.aio.secure_channel(address, credentials_of(tls), options=options)
            for _ in range(connections)
        ]
        self._predict = [
            channel.unary_unary(
                PREDICT, request_serializer=_stamp_sent, response_deserializer=self._stamp_done
            )
            for channel in self._channels
        ]
        ready = asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        with suppress(TimeoutError):  # the requests will say what is wrong
            await asyncio.wait_for(ready, CONNECT_S)

    async def _disconnect(self) -> None:
        for channel in self._channels:
            await channel.close()

    def _stamp_done(self, answer: bytes) -> tuple[int, int]:
        self.last_answer = answer
        return monotonic_ns(), len(answer)

    def _start(self, number: int, flight: _Flight) -> Awaitable[tuple[int, int]]:
        """Hand one request to grpcio, which sends it when the event loop next turns."""
        predict = self._predict[number % len(self._predict)]
        call: Awaitable[tuple[int, int]] = predict(flight, timeout=self._deadline_s)
        return call

    @staticmethod
    async def _end(call: Awaitable[tuple[int, int]]) -> tuple[int, StatusKey]:
        """Await one request; return when it ended and how. Never raises."""
        try:
            done_ns, size = await call
        except grpc.aio.AioRpcError as error:
            status = (error.code().name, error.details() or "")
        except Exception as error:  # noqa: BLE001  whatever grpcio raises is this request's end
            status = ("INTERNAL", f"{type(error).__name__}: {error}")
        else:
            return done_ns, OK if size else EMPTY
        return monotonic_ns(), status

    async def _open_loop(
        self,
        messages: Sequence[bytes],
        picks: NDArray[np.int32],
        offsets_ns: NDArray[np.int64],
        duration_s: float,
        give_up_outstanding: int | None,
        started_ns: int,
    ) -> Columns:
        recorder = Recorder()

        async def end(
            call: Awaitable[tuple[int, int]], flight: _Flight, intended_ns: int, pick: int
        ) -> None:
            done_ns, status = await self._end(call)
            recorder.record(intended_ns, flight.sent_ns or done_ns, done_ns, pick, status)

        create_task = asyncio.get_running_loop().create_task
        outstanding: set[asyncio.Task[None]] = set()
        number, chosen = 0, picks.tolist()
        cpu_s = process_time()
        due_ns = (offsets_ns + started_ns).tolist()
        end_ns = started_ns + round(duration_s * NS_PER_S)
        limit = math.inf if give_up_outstanding is None else give_up_outstanding
        while len(outstanding) <= limit:
            now_ns = monotonic_ns()
            # All that is due goes out before anything else: a late loop catches up in a burst.
            while number < len(due_ns) and due_ns[number] <= now_ns and len(outstanding) <= limit:
                flight = _Flight(messages[chosen[number]])
                call = self._start(number, flight)
                task = create_task(end(call, flight, due_ns[number], chosen[number]))
                outstanding.add(task)
                task.add_done_callback(outstanding.discard)
                number += 1
            if number == len(due_ns) and now_ns >= end_ns:
                break
            wake_ns = due_ns[number] if number < len(due_ns) else end_ns
            await asyncio.sleep((wake_ns - now_ns) / NS_PER_S)
        ended_ns, cpu_s = monotonic_ns(), process_time() - cpu_s
        if outstanding:
            await asyncio.wait(outstanding)
        return recorder.columns(
            sent=number, started_ns=started_ns, ended_ns=min(ended_ns, end_ns), cpu_s=cpu_s
        )

    async def _closed_loop(
        self,
        messages: Sequence[bytes],
        picks: NDArray[np.int32],
        concurrency: int,
        duration_s: float,
        started_ns: int,
    ) -> Columns:
        recorder = Recorder()
        chosen = picks.tolist()
        issued = 0

        async def client(channel: int) -> None:
            nonlocal issued
            while (intended_ns := monotonic_ns()) < end_ns:
                pick = chosen[issued % len(chosen)]
                issued += 1
                flight = _Flight(messages[pick])
                done_ns, status = await self._end(self._start(channel, flight))
                # A closed loop has no schedule: a request is intended when it is sent.
                sent_ns = flight.sent_ns or intended_ns
                recorder.record(sent_ns, sent_ns, done_ns, pick, status)

        cpu_s = process_time()
        end_ns = started_ns + round(duration_s * NS_PER_S)
        clients = [asyncio.create_task(client(channel)) for channel in range(concurrency)]
        await asyncio.sleep(duration_s)
        ended_ns, cpu_s = monotonic_ns(), process_time() - cpu_s
        await asyncio.wait(clients)
        return recorder.columns(
            sent=issued, started_ns=started_ns, ended_ns=min(ended_ns, end_ns), cpu_s=cpu_s
        )
