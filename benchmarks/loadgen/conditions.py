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
        self._used = _used()
        self._stolen_s = _stolen_s(cpus)

    def conditions(self) -> Conditions:
        run_s = time.monotonic() - self._at_s
        foreign_s = _growth_s(self._used, _used(), _family())
        return Conditions(
            foreign_cores=round(foreign_s / run_s, 3),
            stolen_cores=round((_stolen_s(self._cpus) - self._stolen_s) / run_s, 3),
        )


@dataclass(frozen=True, slots=True)
class Used:
    """Processor seconds of a process, and of those of its children that have ended."""

    own_s: float = 0.0
    reaped_s: float = 0.0


def _growth_s(before: dict[int, Used], after: dict[int, Used], family: set[int]) -> float:
    """What processes outside the family used between two readings, those that ended included.

    A process that has ended is, with its whole life, in the sum of whoever waited for it: its
    parent, or an ancestor of that. Of this the part up to the first reading does not count.
    """
    own_s = reaped_s = 0.0
    for process in after.keys() - family:
        first, last = before.get(process, Used()), after[process]
        own_s += max(last.own_s - first.own_s, 0.0)
        reaped_s += max(last.reaped_s - first.reaped_s, 0.0)
    ended = [before[process] for process in before.keys() - after.keys()]
    earlier_s = sum(used.own_s + used.reaped_s for used in ended)
    return own_s + max(reaped_s - earlier_s, 0.0)


def _used() -> dict[int, Used]:
    """What every process has used.

    Not the machine's own sums: those come from ticks, which miss what runs for microseconds.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue  # it has just ended
        found[process.pid] = Used(
            own_s=times.user + times.system,
            reaped_s=times.children_user + times.children_system,
        )
    return found


def _family() -> set[int]:
    own = psutil.Process()
    return {own.pid, *(child.pid for child in own.children(recursive=True))}


def _stolen_s(cpus: tuple[int, ...]) -> float:
    times = psutil.cpu_times(percpu=True)
    # They are listed in order of all that are online, not only of those this process may use.
    return sum(float(getattr(times[cpu], "steal", 0.0)) for cpu in cpus if cpu < len(times))
