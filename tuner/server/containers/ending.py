"""How a container ended, and whose doing it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.server.readiness import exit_text

SIGNALLED = 128
"""An exit code above it says which signal ended the process."""

FAILED = 128 + 65
"""Codes from here on are the program's own again, such as the server's 255."""

NO_PROGRAM = frozenset({126, 127})
"""What a container's init ends with where it cannot start the program."""

STOPPED = frozenset({0, 128 + 9, 128 + 15})
"""Codes that a server does not end with by itself: it was told to stop, or was killed."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An exit code, and whether memory ran out: at the container's own limit, or the host's."""

    code: int
    at_limit: bool
    host_out_of_memory: bool

    @property
    def from_outside(self) -> bool:
        """Whether somebody stopped it, rather than its own fault or want of memory."""
        return self.code in STOPPED and not self.at_limit and not self.host_out_of_memory

    @property
    def never_began(self) -> bool:
        """Whether there was no such program, or none that runs here."""
        return self.code in NO_PROGRAM

    @property
    def signed(self) -> int:
        """The exit code, or the signal below 0, as a process of this host would have it."""
        return SIGNALLED - self.code if SIGNALLED < self.code < FAILED else self.code

    @property
    def text(self) -> str:
        """Words for an error."""
        if self.at_limit:
            return "killed: it needed more memory than server.memory allows"
        if self.code == SIGNALLED + 9 and self.host_out_of_memory:
            return "killed by the kernel: this host ran out of memory"
        return exit_text(self.signed)

    def hint(self, memory: str) -> str:
        """What to do about memory; empty where memory is not the cause."""
        if self.at_limit:
            return f'raise server.memory (now "{memory}"), or leave it out'
        if self.code == SIGNALLED + 9 and self.host_out_of_memory:
            return "set server.memory below what this host has, or search smaller batches"
        return ""


def ending(state: Mapping[str, Any], *, grown: bool) -> Ending | None:
    """Read a container's state; None while it runs.

    `grown` says that the kernel has killed for want of memory since the container was started.
    """
    if state.get("Running") or state.get("Status") == "created":
        return None
    return Ending(
        code=int(state.get("ExitCode", 0)),
        at_limit=bool(state.get("OOMKilled")),
        host_out_of_memory=grown,
    )


def oom_kills() -> int:
    """How often this host's kernel has killed for want of memory since it started."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
