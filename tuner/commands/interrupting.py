"""What Ctrl-C and SIGTERM do to a command that measures."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tuner.commands.progress import Narrator
from tuner.trial import Stop

INTERRUPTED = 130


@contextmanager
def interruptible(narrator: Narrator, first: str, stop: Stop | None = None) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: `first`, in words, save, leave. Second: leave at once.

    A load that heeds `stop` is asked to end; else KeyboardInterrupt is raised. Leaving at once
    loses nothing: records are on disk, and the kernel ends the server and the generator with this
    process.
    """
    asked = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(INTERRUPTED)
        asked = True
        narrator.say(f"stopping: {first} (again to leave at once)")
        if stop is None or not stop.heeded:
            raise KeyboardInterrupt
        stop.asked = True

    previous = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
