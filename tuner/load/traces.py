"""Arrival times recorded elsewhere, read from a text file a little at a time.

One arrival a line, in seconds, ascending: from the start of the run, or since 1970, in which case
the first is the start. Of a line with commas the first column counts, and the first such line may
be a header. `#` starts a comment.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError

Seconds = NDArray[np.float64]

CHUNK_LINES = 1_024
"""Lines parsed at once: a millisecond's work, which a generator can afford between sends."""

CALENDAR_S = 1e8
"""From here on a time is one since 1970: no run lasts three years."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole file, looked through once: how many arrivals it holds, and the first and last."""

    path: Path
    count: int
    first_s: float
    last_s: float

    @property
    def period_s(self) -> float:
        """How long one replay takes, with a mean gap behind its last arrival."""
        return (self.last_s - self.first_s) * self.count / max(self.count - 1, 1)


def look_through(path: Path) -> Trace:
    """Read a trace to its end. Raises InputError naming file and line."""
    count, first_s, last_s = 0, 0.0, 0.0
    for times_s in chunks(path):
        if not count:
            first_s = float(times_s[0])
        count, last_s = count + len(times_s), float(times_s[-1])
    if not count:
        raise InputError(f"{path}: holds no arrival", hint="write one time in seconds a line")
    return Trace(path, count, first_s, last_s)


def replay(path: Path, rate_rps: float | None, speed: float) -> Iterator[Seconds]:
    """Yield arrivals a few at a time; without an end where they are stretched to a rate.

    Without a rate the trace is replayed once, `speed` times as fast. With one, its time is
    stretched so that its mean rate becomes `rate_rps`, and it begins anew whenever it ends.
    Raises InputError naming file and line.
    """
    if rate_rps is None:
        for times_s in chunks(path):
            yield times_s / speed
        return
    trace = look_through(path)
    round_s = trace.count / rate_rps
    stretch = round_s / trace.period_s if trace.period_s > 0 else 1.0
    for number in count():
        for times_s in chunks(path):
            yield number * round_s + (times_s - trace.first_s) * stretch


def chunks(path: Path) -> Iterator[Seconds]:
    """Yield a trace's times, CHUNK_LINES at once. Raises InputError naming file and line."""
    times_s = _times(path)
    while some := list(islice(times_s, CHUNK_LINES)):
        yield np.array(some)


def _times(path: Path) -> Iterator[float]:
    """Yield time after time, from the start of the run."""
    origin_s: float | None = None
    previous_s, headed = 0.0, False
    for line, text in _lines(path):
        column, comma, _ = text.partition(",")
        time_s = _seconds(column)
        if time_s is None:
            if comma and origin_s is None and not headed:
                headed = True
                continue
            raise _complaint(path, line, f"expected a time in seconds, got {column!r}")
        if origin_s is None:
            origin_s = time_s if time_s >= CALENDAR_S else 0.0
        time_s -= origin_s
        if time_s < previous_s:
            raise _complaint(path, line, f"{column} comes before the time above it")
        previous_s = time_s
        yield time_s


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, with their numbers."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if text := line.partition("#")[0].strip():
                    yield number, text
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"{path}: cannot be read: {reason}",
            hint="name a text file with one arrival time in seconds a line",
        ) from None


def _seconds(text: str) -> float | None:
    try:
        time_s = float(text)
    except ValueError:
        return None
    return time_s if math.isfinite(time_s) and time_s >= 0 else None


def _complaint(path: Path, line: int, words: str) -> InputError:
    return InputError(
        f"{path}:{line}: {words}",
        hint="write one number of seconds a line, such as 0.0125, in ascending order",
    )
