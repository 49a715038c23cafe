"""Processes that die with the tuner, whatever ends it, each in a group of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GUARD = Path(__file__).with_name("guard.py")
STOP_S = 5.0


def start(
    argv: Sequence[str], output: IO[bytes], cpus: Iterable[int] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a program on the given processors, what it says going to `output`.

    Raises OSError where it cannot be started.
    """
    shown = "" if cpus is None else ",".join(map(str, sorted(cpus)))
    guard = [sys.executable, "-I", "-S", str(GUARD), shown, str(os.getpid()), "--"]
    return subprocess.Popen(
        [*guard, *argv],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a terminal's Ctrl-C is the tuner's to decide on
    )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the whole process group: first politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            continue
        break
    with suppress(ProcessLookupError):  # what the program itself may have started
        os.killpg(process.pid, signal.SIGKILL)
