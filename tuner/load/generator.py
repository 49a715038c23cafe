"""The load generator as its user sees it: a process, the loads it can drive, and Samples."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from select import POLLIN, poll
from typing import IO, Literal, Self

import numpy as np
import psutil

from tuner.errors import LoadError
from tuner.load import arrivals as schedules
from tuner.load import wire
from tuner.records import Samples, Status

START_S = 30.0
"""How long the process may take to start and connect."""

GRACE_S = 30.0
"""How much longer than its schedule and deadline a run may take before it counts as stuck."""

EXERCISE_DEADLINE_S = 120.0
"""A first request of a size may have to wait for a compiler, so it gets longer than a load's."""

_TAIL_BYTES = 2000
_TAIL_LINES = 6


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """A load whose arrivals ignore the answers.

    `rate_rps` may be None for a trace, which is then replayed as recorded. Where more than
    `give_up_outstanding` requests are unanswered, the run ends early and `Samples.ended_ns`
    says when.
    """

    rate_rps: float | None
    duration_s: float
    seed: int
    arrivals: Literal["poisson", "constant", "trace"] = "poisson"
    trace: Path | None = None
    give_up_outstanding: int | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.arrivals == "trace") != (self.trace is not None):
            raise ValueError("arrivals='trace' and a trace file belong together")
        if self.rate_rps is None and self.trace is None:
            raise ValueError(f"{self.arrivals} arrivals need a rate")

    def offsets_ns(self) -> schedules.Offsets:
        """Draw the schedule; the same for equal values. Raises InputError on a bad trace."""
        if self.trace is not None:
            return schedules.trace(self.trace, self.duration_s, self.rate_rps)
        assert self.rate_rps is not None
        if self.arrivals == "constant":
            return schedules.constant(self.rate_rps, self.duration_s)
        return schedules.poisson(self.rate_rps, self.duration_s, self.seed)


class Generator:
    """Drives load from a process of its own, between `with` and its end.

        with Generator("127.0.0.1:8500", pool_path, deadline_s=10) as generator:
            samples = generator.open_loop(OpenLoop(rate_rps=200, duration_s=5, seed=1))

    A failed request is a sample with its status. LoadError says that the generator itself
    failed; what was interrupted or failed cannot go on, and must be left.
    """

    def __init__(
        self,
        address: str,
        pool_path: Path,
        *,
        engine: str = "http2",
        deadline_s: float = 10.0,
        cpus: frozenset[int] | None = None,
        niceness: int = -10,
        connections: int = 1,
        usable_rps: float | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._usable_rps = usable_rps
        self._settings = {
            "address": address,
            "pool": str(pool_path),
            "engine": engine,
            "deadline_s": deadline_s,
            "cpus": None if cpus is None else sorted(cpus),
            "niceness": niceness,
            "connections": connections,
        }
        self.niceness: int | None = None
        """The niceness the process has; the one asked for needs a privilege if negative."""

    def __enter__(self) -> Self:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tuner.load.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # Ctrl-C in the terminal is the parent's to decide on.
            start_new_session=True,
            # No BLAS is called, and its threads would cost start-up time.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands, self._replies = self._process.stdin, self._process.stdout
        self._idle = True
        try:
            reply, _ = self._ask(self._settings, b"", START_S)
        except BaseException:
            self.__exit__()
            raise
        self.niceness = reply["niceness"]
        self._models: int = reply["models"]
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._commands.close()  # the worker exits at the end of its input
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._stderr.close()

    @property
    def pid(self) -> int:
        """The generator's process."""
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """Processor seconds that the process has used since its start, user and system."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.NoSuchProcess:
            raise self._death() from None
        return float(times.user + times.system)

    def open_loop(self, load: OpenLoop) -> Samples:
        """Run a schedule and wait for all answers. Raises LoadError or InputError (the trace).

        A rate above `usable_rps` is refused: its figures would be the generator's.
        """
        self._require_usable(load)
        offsets_ns = load.offsets_ns()
        command = {
            "do": "open_loop",
            "duration_s": load.duration_s,
            "seed": load.seed,
            "give_up_outstanding": load.give_up_outstanding,
        }
        reply, blob = self._ask(
            command, offsets_ns.astype("<i8").tobytes(), load.duration_s + self._deadline_s
        )
        return _samples(reply, blob, concurrency=None)

    def closed_loop(self, *, concurrency: int, duration_s: float, seed: int) -> Samples:
        """Keep `concurrency` requests outstanding for `duration_s`. Raises LoadError."""
        command = {
            "do": "closed_loop",
            "concurrency": concurrency,
            "duration_s": duration_s,
            "seed": seed,
        }
        reply, blob = self._ask(command, b"", duration_s + self._deadline_s)
        return _samples(reply, blob, concurrency=concurrency)

    def exercise(
        self,
        rows: Sequence[int],
        repeats: int = 1,
        *,
        deadline_s: float = EXERCISE_DEADLINE_S,
    ) -> tuple[Status, ...]:
        """Send requests of exactly these row counts, one at a time, to every model of the mix.

        Returns how each ended, in order: by row count, then model, then repeat. The first that
        is not answered within `deadline_s` is the last: a server that hangs is no server.
        """
        command = {
            "do": "exercise",
            "rows": list(rows),
            "repeats": repeats,
            "deadline_s": deadline_s,
        }
        reply, _ = self._ask(command, b"", len(rows) * self._models * repeats * deadline_s)
        return _statuses(reply)

    def _require_usable(self, load: OpenLoop) -> None:
        if self._usable_rps is None or not load.rate_rps or load.rate_rps <= self._usable_rps:
            return
        raise LoadError(
            f"a load of {load.rate_rps:,.0f} requests/s is above half of what this generator can "
            f"send on this machine, {2 * self._usable_rps:,.0f}/s: it would be measured itself",
            hint="measure the generator again while the machine is idle (tuner calibrate), give "
            "load.cpus a faster processor, or put more rows into a request",
        )

    def _ask(
        self, command: wire.Message, blob: bytes, expected_s: float
    ) -> tuple[wire.Message, bytes]:
        """Send one command and wait for its reply."""
        if not self._idle:
            raise LoadError(
                "the load generator was interrupted in the middle of a run",
                hint="leave its `with` block and start another",
            )
        self._idle = False
        try:
            wire.write(self._commands, command, blob)
            self._await_reply(expected_s + GRACE_S)
            reply, answer = wire.read(self._replies)
        except (EOFError, BrokenPipeError):
            raise self._death() from None
        if "error" in reply:
            raise LoadError(reply["error"], hint=reply["hint"])
        self._idle = True
        return reply, answer

    def _await_reply(self, timeout_s: float) -> None:
        waiting = poll()
        waiting.register(self._replies, POLLIN)
        started = time.monotonic()
        if not waiting.poll(timeout_s * 1000):
            raise LoadError(
                f"the load generator did not answer within {time.monotonic() - started:.0f} s",
                hint="is this machine overloaded or suspended? Run the trial again",
            )

    def _death(self) -> LoadError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2.0)
        code = self._process.returncode
        if code is None:
            ended = "closed its pipe"
        elif code < 0:
            ended = f"was killed by {signal.Signals(-code).name}"
        else:
            ended = f"exited with code {code}"
        self._stderr.seek(max(self._stderr.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        words = self._stderr.read().decode(errors="replace")
        tail = "\n".join(words.strip().splitlines()[-_TAIL_LINES:])
        return LoadError(
            f"the load generator process {ended}",
            hint=f"its last output:\n{tail}" if tail else "did the system run out of memory?",
        )


def _samples(reply: wire.Message, blob: bytes, *, concurrency: int | None) -> Samples:
    table = np.frombuffer(blob, dtype=wire.SAMPLE)
    return Samples(
        intended_ns=table["intended_ns"].astype(np.int64),
        sent_ns=table["sent_ns"].astype(np.int64),
        done_ns=table["done_ns"].astype(np.int64),
        status=table["status"].astype(np.uint16),
        rows=table["rows"].astype(np.int32),
        statuses=_statuses(reply),
        started_ns=reply["started_ns"],
        ended_ns=reply["ended_ns"],
        cpu_s=reply["cpu_s"],
        concurrency=concurrency,
    )


def _statuses(reply: wire.Message) -> tuple[Status, ...]:
    return tuple(Status(code, text) for code, text in reply["statuses"])
