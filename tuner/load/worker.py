"""The generator's own process: `python -m tuner.load.worker`, commands on stdin.

It imports neither TensorFlow nor anything else that is not needed to send bytes on time, and it
ends with its parent: end of file on stdin ends it at once, even in the middle of a run.
"""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import LoadError, TunerError
from tuner.http2.answers import StatusKey
from tuner.load import bare_loop, wire
from tuner.load.client import Columns, Engine, engine_factory
from tuner.load.http2_engine import Http2Engine
from tuner.load.open_loop import OpenLoop
from tuner.load.pool import RequestPool
from tuner.load.priority import raise_priority
from tuner.load.spool import SpoolWriter

PICKS = 1 << 16
"""Requests drawn ahead for a closed loop, whose number nobody knows; they then repeat."""

Reply = tuple[wire.Message, bytes]


class Worker:
    """A pool and an engine, and the commands on them. Each returns a reply and its bytes."""

    def __init__(
        self,
        settings: wire.Message,
        commands: SimpleQueue[tuple[wire.Message, bytes]],
        tell: Callable[[wire.Message], None],
    ) -> None:
        self._commands = commands
        self._tell = tell
        self.pool = RequestPool.load(Path(settings["pool"]))
        self._rows = np.array(self.pool.rows, dtype=np.int32)
        self.engine: Engine = engine_factory(settings["engine"])(
            settings["address"],
            deadline_s=settings["deadline_s"],
            connections=settings["connections"],
            tls=None if settings["tls"] is None else wire.tls_of(settings["tls"]),
            # Who spins uses up his share of a processor that others need too.
            spin=settings["spin"] and len(os.sched_getaffinity(0)) > 1,
        )

    def open_loop(self, command: wire.Message, blob: bytes) -> Reply:
        """Run the schedule whose offsets are the command's bytes."""
        offsets_ns = np.frombuffer(blob, dtype="<i8").astype(np.int64)
        # Each of several processes takes every n-th request of the one schedule.
        number, parts = command["part"]
        picks = self.pool.draw(len(offsets_ns) * parts, command["seed"])[number::parts]
        with _without_gc():
            columns = self.engine.open_loop(
                self.pool.messages,
                picks,
                offsets_ns,
                duration_s=command["duration_s"],
                give_up_outstanding=command["give_up_outstanding"],
                start_ns=command["start_ns"],
            )
        return self._samples(columns)

    def bare_loop(self, _command: wire.Message, blob: bytes) -> Reply:
        """Wake at the offsets that are the command's bytes, and send nothing."""
        with _without_gc():
            late_ns = bare_loop.lateness_ns(np.frombuffer(blob, dtype="<i8").astype(np.int64))
        return {"ok": True}, late_ns.astype("<i8").tobytes()

    def closed_loop(self, command: wire.Message, _blob: bytes) -> Reply:
        """Keep a number of requests outstanding."""
        number, parts = command["part"]
        picks = self.pool.draw(PICKS, command["seed"])[number::parts]
        with _without_gc():
            columns = self.engine.closed_loop(
                self.pool.messages,
                picks,
                concurrency=command["concurrency"],
                duration_s=command["duration_s"],
                start_ns=command["start_ns"],
            )
        return self._samples(columns)

    def long_run(self, command: wire.Message, _blob: bytes) -> Reply:
        """Run a schedule of any length; samples go to a file after each piece of it."""
        load = OpenLoop(
            **{
                **command["load"],
                "trace": command["load"]["trace"] and Path(command["load"]["trace"]),
                "profile": tuple((at_s, rate) for at_s, rate in command["load"]["profile"]),
            }
        )
        if not isinstance(self.engine, Http2Engine):
            raise LoadError(
                "this engine keeps a run's samples in memory, so it cannot run for hours",
                hint='use the engine "http2"',
            )
        number, parts = command["part"]
        cpu_s, told = 0.0, 0
        spool = SpoolWriter(Path(command["spool"]))
        with closing(spool), _without_gc():
            pieces = (
                (end_s, offsets[number::parts], self.pool.draw(len(offsets), seed)[number::parts])
                for seed, (end_s, offsets) in enumerate(
                    self._until_stopped(load, command["piece_s"]), start=load.seed
                )
            )
            for columns in self.engine.long_run(
                self.pool.messages, pieces, start_ns=command["start_ns"]
            ):
                spool.write(self._table(columns))
                cpu_s += columns.cpu_s
                progress = {
                    "going_on": True,
                    "written": spool.written,
                    "statuses": columns.statuses[told:],
                    "until_ns": columns.ended_ns,
                    "settled_ns": self.engine.settled_ns(columns.ended_ns),
                }
                self._tell(progress)
                told = len(columns.statuses)
        reply = {
            "ok": True,
            "started_ns": columns.started_ns,
            "ended_ns": columns.ended_ns,
            "cpu_s": cpu_s,
        }
        return reply, b""

    def _until_stopped(
        self, load: OpenLoop, piece_s: float
    ) -> Iterator[tuple[float, NDArray[np.int64]]]:
        """Yield the pieces of a schedule, up to the time from which on none are wanted."""
        stop_s = load.duration_s
        for number, piece in enumerate(load.pieces(piece_s)):
            with suppress(Empty):
                command, _ = self._commands.get_nowait()
                stop_s = command["at_s"]
            if number * piece_s >= stop_s:
                return
            yield piece

    def exercise(self, command: wire.Message, _blob: bytes) -> Reply:
        """Send requests of given row counts one after another, until one is not answered."""
        statuses: list[StatusKey] = []
        for rows in command["rows"]:
            for message in self.pool.of_rows(rows):
                for _ in range(command["repeats"]):
                    status = self.engine.call(message, deadline_s=command["deadline_s"])
                    statuses.append(status)
                    # A server that hangs would otherwise cost the deadline for every size.
                    if status[0] == "DEADLINE_EXCEEDED":
                        return {"ok": True, "statuses": statuses}, b""
        return {"ok": True, "statuses": statuses}, b""

    def _table(self, columns: Columns) -> NDArray[Any]:
        """Rows as they travel, or are written."""
        table = np.empty(len(columns.intended_ns), dtype=wire.SAMPLE)
        for name in ("intended_ns", "sent_ns", "done_ns", "status"):
            table[name] = getattr(columns, name)
        table["rows"] = self._rows[columns.message]
        return table

    def _samples(self, columns: Columns) -> Reply:
        reply = {
            "ok": True,
            "statuses": columns.statuses,
            "started_ns": columns.started_ns,
            "ended_ns": columns.ended_ns,
            "cpu_s": columns.cpu_s,
        }
        return reply, self._table(columns).tobytes()


def main() -> None:
    """Serve commands until the parent closes the pipe."""
    # What a library prints must not get between the replies: file descriptor 1 becomes stderr.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    commands = _commands()
    settings, _ = commands.get()
    try:
        niceness = _settle(settings)
        worker = Worker(settings, commands, partial(wire.write, replies))
        models = len(worker.pool.examples)
        wire.write(replies, {"ok": True, "niceness": niceness, "models": models})
        handlers: dict[str, Callable[[wire.Message, bytes], Reply]] = {
            "open_loop": worker.open_loop,
            "bare_loop": worker.bare_loop,
            "closed_loop": worker.closed_loop,
            "long_run": worker.long_run,
            "exercise": worker.exercise,
        }
        while True:
            command, blob = commands.get()
            if command["do"] != "stop":  # of a run that has ended meanwhile
                wire.write(replies, *handlers[command["do"]](command, blob))
    except TunerError as error:
        wire.write(replies, {"error": error.message, "hint": error.hint})


def _commands() -> SimpleQueue[tuple[wire.Message, bytes]]:
    """Read stdin in a thread of its own, so that its end is noticed while a run is going on."""
    queue: SimpleQueue[tuple[wire.Message, bytes]] = SimpleQueue()
    # A file of its own: the interpreter aborts if sys.stdin is being read while it shuts down.
    stdin = os.fdopen(os.dup(0), "rb")

    def listen() -> None:
        with suppress(EOFError):
            while True:
                queue.put(wire.read(stdin))
        os._exit(0)  # nobody is left to hear a reply, so nothing is worth tidying

    threading.Thread(target=listen, daemon=True).start()
    return queue


def _settle(settings: wire.Message) -> int:
    """Take processors and priority before gRPC starts its threads, which inherit both.

    Returns the niceness reached.
    """
    if settings["cpus"] is not None:
        try:
            os.sched_setaffinity(0, settings["cpus"])
        except (OSError, ValueError) as error:
            allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            raise LoadError(
                f"the load generator cannot run on processors {settings['cpus']}: {error}",
                hint=f"this process may use processors {allowed}",
            ) from None
    return raise_priority(settings["niceness"])


@contextmanager
def _without_gc() -> Iterator[None]:
    """Keep the collector's pauses out of a run."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


if __name__ == "__main__":
    main()
