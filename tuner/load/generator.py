"""The load generator as its user sees it: a process, the loads it can drive, and Samples."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
import psutil
from numpy.typing import NDArray

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import LoadError
from tuner.load import wire
from tuner.load.client import Tls
from tuner.load.open_loop import OpenLoop
from tuner.load.process import START_S, Process
from tuner.load.spool import Spool, SpoolReader, samples_of
from tuner.records import Samples, Status

__all__ = ["Generator", "OpenLoop", "merged"]

EXERCISE_DEADLINE_S = 120.0
"""A first request of a size may have to wait for a compiler, so it gets longer than a load's."""

Watch = Callable[[Samples, int, int], None]
"""Takes samples of a run that goes on, up to when its schedule has been sent, and up to when all
of that has ended and come."""

HEAD_START_S = 0.05
"""Several processes begin a run this much after they were told to, all at the same instant."""


class Generator:
    """Drives load from a process of its own, or several, between `with` and its end.

        with Generator("127.0.0.1:8500", pool_path, deadline_s=10) as generator:
            samples = generator.open_loop(OpenLoop(rate_rps=200, duration_s=5, seed=1))

    Several processes share out the one schedule, and the processors `cpus`, and begin at the same
    instant. `tls` and `connections` (of each process) are as in EngineFactory; `spin` is heeded
    where a process has more than one processor to itself.

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
        processes: int = 1,
        tls: Tls | None = None,
        spin: bool = False,
        usable_rps: float | None = None,
    ) -> None:
        ordered = None if cpus is None else sorted(cpus)
        shares = [
            ordered and (ordered[number::processes] or ordered) for number in range(processes)
        ]
        self._deadline_s = deadline_s
        self._usable_rps = usable_rps
        self._settings = [
            {
                "address": address,
                "pool": str(pool_path),
                "engine": engine,
                "deadline_s": deadline_s,
                "cpus": share,
                "niceness": niceness,
                "connections": connections,
                "tls": None if tls is None else wire.tls_message(tls),
                "spin": spin,
            }
            for share in shares
        ]
        self._processes: list[Process] = []
        self.niceness: int | None = None
        """The niceness the processes have; the one asked for needs a privilege if negative."""

    def __enter__(self) -> Self:
        try:
            for settings in self._settings:
                self._processes.append(Process())
                self._processes[-1].tell(settings)
            replies = [process.hear(START_S)[0] for process in self._processes]
        except BaseException:
            self.__exit__()
            raise
        self.niceness = replies[0]["niceness"]
        self._models: int = replies[0]["models"]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.close()

    @property
    def pid(self) -> int:
        """The generator's process; its first one where there are several."""
        return self._processes[0].pid

    @property
    def pids(self) -> tuple[int, ...]:
        """All of the generator's processes."""
        return tuple(process.pid for process in self._processes)

    @property
    def cpu_s(self) -> float:
        """Processor seconds that the processes have used since their start, user and system."""
        total_s = 0.0
        for process in self._processes:
            try:
                times = psutil.Process(process.pid).cpu_times()
            except psutil.NoSuchProcess:
                raise process.death() from None
            total_s += float(times.user + times.system)
        return total_s

    def open_loop(self, load: OpenLoop) -> Samples:
        """Run a schedule and wait for all answers. Raises LoadError or InputError (the trace).

        A rate above `usable_rps` is refused: its figures would be the generator's.
        """
        require_usable(load.highest_rps, self._usable_rps)
        offsets_ns = load.offsets_ns()
        limit, parts = load.give_up_outstanding, len(self._processes)
        commands = [
            {
                "do": "open_loop",
                "duration_s": load.duration_s,
                "seed": load.seed,
                "give_up_outstanding": None if limit is None else -(-limit // parts),
            }
        ] * parts
        blobs = [offsets_ns[number::parts].astype("<i8").tobytes() for number in range(parts)]
        return self._run(commands, blobs, load.duration_s, concurrency=None)

    def bare_loop(self, load: OpenLoop) -> NDArray[np.int64]:
        """How late the generator's process wakes at a schedule's instants, in ns, sending nothing.

        That is the machine's own part in the lateness of `open_loop`.
        """
        offsets_ns = load.offsets_ns().astype("<i8").tobytes()
        _, late_ns = self._processes[0].ask({"do": "bare_loop"}, offsets_ns, load.duration_s)
        return np.frombuffer(late_ns, dtype="<i8").astype(np.int64)

    def long_run(
        self,
        load: OpenLoop,
        spool: Path,
        *,
        piece_s: float = 1.0,
        keep: bool = True,
        watch: Watch | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Spool:
        """Run a schedule of hours, whose samples go to files as they come.

        Schedule and samples are never in memory as a whole: a process stays as small as for
        `piece_s` seconds. `spool` is the stem of the files; several processes number theirs.
        Those read through are removed unless `keep`. `watch` is given the samples piece by piece.
        Once `stopping` says so no further piece is begun, and the run ends as if it were that
        short. Raises LoadError, InputError, or HostError where the disk refuses.
        """
        require_usable(load.highest_rps, self._usable_rps)
        parts, stem = len(self._processes), spool.resolve()
        start_ns = now_ns() + round(HEAD_START_S * NS_PER_S)
        readers = []
        for number, process in enumerate(self._processes):
            own = stem if parts == 1 else stem.with_name(f"{stem.name}-{number}")
            readers.append(SpoolReader(own, keep, start_ns))
            command = {
                "do": "long_run",
                "load": {**asdict(load), "trace": None if load.trace is None else str(load.trace)},
                "part": [number, parts],
                "piece_s": piece_s,
                "start_ns": start_ns,
                "spool": str(own),
            }
            process.tell(command)
        try:
            replies = self._follow(readers, piece_s, watch, stopping)
        finally:
            for reader in readers:
                reader.close()
        return Spool(
            paths=tuple(path for reader in readers for path in reader.paths),
            statuses=tuple(tuple(reader.statuses) for reader in readers for _ in reader.paths),
            rows=sum(reader.rows for reader in readers),
            started_ns=min(reply["started_ns"] for reply in replies),
            ended_ns=min(reply["ended_ns"] for reply in replies),
            cpu_s=sum(reply["cpu_s"] for reply in replies),
        )

    def _follow(
        self,
        readers: Sequence[SpoolReader],
        piece_s: float,
        watch: Watch | None,
        stopping: Callable[[], bool],
    ) -> list[wire.Message]:
        """Hear every process once a piece, to the last of its replies, which are returned."""
        going, until_ns = dict(enumerate(readers)), [readers[0].started_ns] * len(readers)
        settled_ns = list(until_ns)
        last: list[wire.Message] = []
        asked = False
        while going:
            for number, reader in list(going.items()):
                reply, _ = self._processes[number].hear(piece_s + self._deadline_s)
                if "going_on" not in reply:
                    last.append(reply)
                    del going[number]
                    continue
                until_ns[number] = reply["until_ns"]
                for samples in reader.new(reply["written"], _statuses(reply)):
                    if watch is not None:
                        watch(samples, min(until_ns), min(settled_ns))
                settled_ns[number] = reply["settled_ns"]
            if not asked and stopping():
                asked = True
                for process in self._processes:
                    # One time for all of them, that none has come to yet.
                    process.stop((max(until_ns) - readers[0].started_ns) / NS_PER_S + 2 * piece_s)
        return last

    def closed_loop(self, *, concurrency: int, duration_s: float, seed: int) -> Samples:
        """Keep `concurrency` requests outstanding for `duration_s`. Raises LoadError."""
        parts = min(len(self._processes), concurrency)
        commands = [
            {
                "do": "closed_loop",
                "concurrency": len(range(number, concurrency, parts)),
                "duration_s": duration_s,
                "seed": seed,
            }
            for number in range(parts)
        ]
        return self._run(commands, [b""] * parts, duration_s, concurrency=concurrency)

    def _run(
        self,
        commands: Sequence[wire.Message],
        blobs: Sequence[bytes],
        duration_s: float,
        *,
        concurrency: int | None,
    ) -> Samples:
        """Run one part of a load in each process, all on one clock, and merge what they saw."""
        parts = len(commands)
        start_ns = None if parts == 1 else now_ns() + round(HEAD_START_S * NS_PER_S)
        working = self._processes[:parts]
        for number, (process, command, blob) in enumerate(
            zip(working, commands, blobs, strict=True)
        ):
            whole = {**command, "part": [number, parts], "start_ns": start_ns}
            process.tell(whole, blob)
        replies = [process.hear(duration_s + self._deadline_s) for process in working]
        return merged([_samples(*reply, concurrency=concurrency) for reply in replies])

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
        expected_s = len(rows) * self._models * repeats * deadline_s
        reply, _ = self._processes[0].ask(command, b"", expected_s)
        return _statuses(reply)


def require_usable(rate_rps: float, usable_rps: float | None) -> None:
    """Raise LoadError for a load above what the generator may be asked for, if that is known."""
    if usable_rps is None or rate_rps <= usable_rps:
        return
    raise LoadError(
        f"a load of {rate_rps:,.0f} requests/s is above half of what this generator can send on "
        f"this machine, {2 * usable_rps:,.0f}/s: it would measure itself",
        hint="measure the generator again while the machine is idle (tuner calibrate), give "
        "load.cpus a faster processor or several with load.processes, or put more rows into a "
        "request",
    )


def _samples(reply: wire.Message, blob: bytes, *, concurrency: int | None) -> Samples:
    return samples_of(
        np.frombuffer(blob, dtype=wire.SAMPLE),
        statuses=_statuses(reply),
        started_ns=reply["started_ns"],
        ended_ns=reply["ended_ns"],
        cpu_s=reply["cpu_s"],
        concurrency=concurrency,
    )


def _statuses(reply: wire.Message) -> tuple[Status, ...]:
    return tuple(Status(code, text) for code, text in reply["statuses"])


def merged(parts: Sequence[Samples]) -> Samples:
    """One run's samples out of those of several processes, in order of their intended times."""
    if len(parts) == 1:
        return parts[0]
    numbers: dict[Status, int] = {}
    status = []
    for part in parts:
        table = [numbers.setdefault(item, len(numbers)) for item in part.statuses]
        status.append(np.array(table, dtype=np.uint16)[part.status])
    intended_ns = np.concatenate([part.intended_ns for part in parts])
    order = np.argsort(intended_ns, kind="stable")
    return Samples(
        intended_ns=intended_ns[order],
        sent_ns=np.concatenate([part.sent_ns for part in parts])[order],
        done_ns=np.concatenate([part.done_ns for part in parts])[order],
        status=np.concatenate(status)[order],
        rows=np.concatenate([part.rows for part in parts])[order],
        statuses=tuple(numbers),
        started_ns=min(part.started_ns for part in parts),
        ended_ns=min(part.ended_ns for part in parts),
        cpu_s=sum(part.cpu_s for part in parts),
        concurrency=parts[0].concurrency,
    )
