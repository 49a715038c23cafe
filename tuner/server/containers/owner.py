"""Whose a container is, and which containers nobody owns any more.

`kill -9` leaves a tuner no time to remove its container. Labels say which process started it, so
that the next tuner can prove the process dead; a container of a process that lives, of another
host, or of a process that cannot be seen from here is never touched.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from docker.models.containers import Container

from tuner.errors import HostError
from tuner.server.containers.engine import Engine, mapped

PREFIX = "tuner."
RUN, TRIAL = "tuner.run", "tuner.trial"
DEAD_STATES = frozenset("ZXx")
STARTED_FIELD = 19
"""Place of the start time in /proc/PID/stat, counted after the command's closing bracket."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from all others that had or will have its number.

    `started` counts clock ticks since boot; `pids` is the namespace its number belongs to.
    """

    host: str
    boot: str
    pids: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Self:
        """This process."""
        started = started_ticks(os.getpid())
        assert started is not None
        return cls(
            host=f"{socket.gethostname()} {_line('/etc/machine-id')}",
            boot=_line("/proc/sys/kernel/random/boot_id"),
            pids=str(Path("/proc/self/ns/pid").readlink()),
            pid=os.getpid(),
            started=started,
        )

    def labels(self, run: str, trial: str) -> dict[str, str]:
        """Labels of a container that this process starts for a trial."""
        return {
            RUN: run,
            TRIAL: trial,
            "tuner.owner.host": self.host,
            "tuner.owner.boot": self.boot,
            "tuner.owner.pids": self.pids,
            "tuner.owner.pid": str(self.pid),
            "tuner.owner.started": str(self.started),
        }

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Self | None:
        """Read the owner from a container's labels; None where they do not say."""
        try:
            return cls(
                host=labels["tuner.owner.host"],
                boot=labels["tuner.owner.boot"],
                pids=labels["tuner.owner.pids"],
                pid=int(labels["tuner.owner.pid"]),
                started=int(labels["tuner.owner.started"]),
            )
        except (KeyError, ValueError):
            return None

    def provably_dead(self, here: Self, *, running: bool) -> bool:
        """Whether this process has certainly ended, as seen from the process `here`.

        `running` is the state of its container. After a restart of this host the process is gone,
        and so is its container's run; one that runs belongs to a host that is taken for this one.
        """
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return not running
        return self.pids == here.pids and started_ticks(self.pid) != self.started


def remove_orphans(engine: Engine, here: Owner) -> list[str]:
    """Remove the containers of tuners that have certainly ended; returns their trials' names."""
    removed = []
    with mapped(engine.where):
        labelled = engine.client.containers.list(
            all=True, filters={"label": "tuner.owner.pid"}, ignore_removed=True
        )
    for container in labelled:
        owner = Owner.of(container.labels)
        running = container.status in {"running", "paused", "restarting"}
        if owner is not None and owner.provably_dead(here, running=running):
            _remove(container)
            removed.append(f"{container.labels.get(RUN)}: trial {container.labels.get(TRIAL)}")
    return removed


def _remove(container: Container) -> None:
    with suppress(HostError), mapped():  # another tuner may be at it already
        container.remove(force=True, v=True)


def started_ticks(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command before may hold anything
    return None if fields[0] in DEAD_STATES else int(fields[STARTED_FIELD])


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
