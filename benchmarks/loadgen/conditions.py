"""What the machine did beside the benchmark: a round that was disturbed is measured again."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import psutil

FOREIGN_CORES = 0.05
"""Of other programs. An idle machine's own services use a fifth of that."""

STOLEN_CORES = 0.02
"""Of the two processors, lent by the hypervisor to its other guests."""

ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Conditions:
    """Cores that others had while something was measured."""

    foreign_cores: float
    stolen_cores: float

    @property
    def quiet(self) -> bool:
        return self.foreign_cores <= FOREIGN_CORES and self.stolen_cores <= STOLEN_CORES


def undisturbed(measure: Callable[[], dict[str, Any]], cpus: tuple[int, ...]) -> dict[str, Any]:
    """Measure until nobody disturbs it, a few times at most: what was measured and how.

    `attempts` counts the measurements, all but the last of which were disturbed; `disturbed` says
    that the last one was, too.
    """
    for attempts in range(1, ATTEMPTS + 1):  # noqa: B007 - the last one is the count
        others = Others(cpus)
        cell = measure()
        conditions = others.conditions()
        if conditions.quiet:
            break
        print("disturbed:", conditions, file=sys.stderr)
    noted = {"attempts": attempts, "disturbed": not conditions.quiet}
    return {**cell, **asdict(conditions), **noted}


class Others:
    """Reads, from now on, what programs outside this process's family and other guests use."""

    def __init__(self, cpus: tuple[int, ...]) -> None:
        self._cpus = cpus
        self._at_s = time.monotonic()
        self._used_s = _used_s()
        self._stolen_s = _stolen_s(cpus)

    def conditions(self) -> Conditions:
        run_s = time.monotonic() - self._at_s
        used_s = _used_s()
        # A process that has ended is in its parent's times, which hold its children's.
        foreign_s = sum(
            used_s[process] - self._used_s.get(process, 0.0)
            for process in used_s.keys() - _family()
        )
        return Conditions(
            foreign_cores=round(max(foreign_s, 0.0) / run_s, 3),
            stolen_cores=round((_stolen_s(self._cpus) - self._stolen_s) / run_s, 3),
        )


def _used_s() -> dict[int, float]:
    """Processor seconds of every process and of its children that have ended, by process id.

    Not the machine's own sums: those come from ticks, which miss what runs for microseconds.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            found[process.pid] = float(sum(process.cpu_times()[:4]))
        except psutil.Error:
            continue  # it has just ended
    return found


def _family() -> set[int]:
    own = psutil.Process()
    return {own.pid, *(child.pid for child in own.children(recursive=True))}


def _stolen_s(cpus: tuple[int, ...]) -> float:
    times = psutil.cpu_times(percpu=True)
    # They are listed in order of all that are online, not only of those this process may use.
    return sum(float(getattr(times[cpu], "steal", 0.0)) for cpu in cpus if cpu < len(times))
