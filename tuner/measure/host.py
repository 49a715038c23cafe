"""Who used the processors while a load level ran: the server, the generator, or somebody else.

A process elsewhere on the machine, or a hypervisor that lends the cores to its other guests,
slows the server without a trace in its own figures.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tuner.clock import NS_PER_S, now_ns
from tuner.records import HostEvidence

CpuReader = Callable[[], float | None]
"""Seconds of processor time used so far by something, or None where that cannot be known."""


def processes_cpu(pids: Callable[[], Iterable[int]]) -> CpuReader:
    """Read the processor time of processes and all their descendants, dead ones included."""

    def read() -> float | None:
        roots = [process for pid in pids() if (process := _process(pid)) is not None]
        tree = {member for root in roots for member in _family(root)}
        # A child that has ended lives on in its parent's children_* times, so that a total over
        # the living does not run backwards when one ends.
        times = [_used_s(process, reaped=True) for process in tree]
        return sum(times) if roots else None

    return read


def cgroup_cpu(directory: Path) -> CpuReader:
    """Read the processor time of a control group (version 2), such as a container's."""

    def read() -> float | None:
        try:
            lines = (directory / "cpu.stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        fields = dict(line.split(maxsplit=1) for line in lines if " " in line)
        return int(fields["usage_usec"]) / 1e6 if "usage_usec" in fields else None

    return read


@dataclass(frozen=True, slots=True)
class _Reading:
    at_ns: int
    machine_s: float
    own_s: float
    generator_s: float | None
    server_s: float | None


class CpuMeter:
    """Measures processor use between `start` and `stop`.

    `server` reads the server's processor time (`processes_cpu`, `cgroup_cpu`; None where the
    server is not on this machine). `generator_pids` are the load generator's processes.
    """

    def __init__(self, server: CpuReader | None, *generator_pids: int) -> None:
        self._server = server
        self._generator_pids = generator_pids
        self._started: _Reading | None = None

    def start(self) -> None:
        """Begin; a second start begins anew."""
        self._started = self._read()

    def stop(self, *, generator_s: float | None = None) -> HostEvidence:
        """Return the use since `start`, in cores.

        `generator_s` is the processor time that the generator reports of itself, in seconds; it
        stands in where the generator's process has already ended. The server's share is None
        where it vanished or cannot be seen. What is foreign can be said only if both are known.
        """
        if self._started is None:
            raise RuntimeError("CpuMeter.stop() was called before start()")
        first, last = self._started, self._read()
        seconds = max(last.at_ns - first.at_ns, 1) / NS_PER_S
        server = _difference(first.server_s, last.server_s)
        generator = _difference(first.generator_s, last.generator_s)
        generator = generator_s if generator is None else generator
        own = 0.0 if os.getpid() in self._generator_pids else last.own_s - first.own_s
        foreign = None
        if server is not None and generator is not None:
            busy = last.machine_s - first.machine_s
            foreign = max(0.0, busy - server - generator - own) / seconds
        return HostEvidence(
            server_cpu=None if server is None else server / seconds,
            generator_cpu=(generator or 0.0) / seconds,
            foreign_cpu=foreign,
            generator_processes=len(self._generator_pids),
        )

    def _read(self) -> _Reading:
        return _Reading(
            at_ns=now_ns(),
            machine_s=_machine_busy_s(),
            own_s=_used_s(psutil.Process(), reaped=False),
            generator_s=self._generator_s(),
            server_s=None if self._server is None else self._server(),
        )

    def _generator_s(self) -> float | None:
        """Read the generator's own time; its children, should it have any, may be anybody's."""
        processes = [_process(pid) for pid in self._generator_pids]
        if None in processes:
            return None
        return sum(_used_s(process, reaped=False) for process in processes if process)


def _difference(first: float | None, last: float | None) -> float | None:
    """Growth between two readings; None where one is missing or a process vanished between."""
    if first is None or last is None or last < first:
        return None
    return last - first


def _machine_busy_s() -> float:
    """Seconds all processors of this machine spent on programs or lost to a hypervisor.

    Interrupt time is left out: it follows from the load's own traffic and no process owns it.
    """
    times = psutil.cpu_times()
    names = ("user", "nice", "system", "steal")
    return sum(float(getattr(times, name, 0.0)) for name in names)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _used_s(process: psutil.Process, *, reaped: bool) -> float:
    """Processor seconds of a process, and of its children that have ended; 0 where it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    own = times.user + times.system
    return float(own + times.children_user + times.children_system if reaped else own)
