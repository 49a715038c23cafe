"""A trace of load through a day: how many requests a second came, interval by interval.

    time,rate_rps              arrival
    00:00,310                  0.013
    00:15,290                  0.021
    ...                        ...

On the left a rate an interval, which ends where the next begins; on the right every request's
arrival, counted by intervals. Times are seconds, `HH:MM[:SS]` or ISO 8601. Other columns are
left alone.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import UsageError

Floats = NDArray[np.float64]

INTERVAL_S = 300.0
"""Arrivals are counted by intervals of so long."""

MOST_INTERVALS = 20_000
FEWEST_GAPS = 1000
MOST_EQUAL = 0.02
"""Where more arrivals than this share fall on one instant the clock was too coarse for a cv."""

TIMES, RATES, ARRIVALS = (
    ("time", "timestamp"),
    ("rate_rps", "rate", "rps"),
    ("arrival", "arrivals"),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """So many requests a second for so long. `starts_s` counts from the trace's beginning."""

    starts_s: float
    lasts_s: float
    rate_rps: float


@dataclass(frozen=True, slots=True)
class Trace:
    """Load interval by interval; `cv` is that of the gaps inside them, where arrivals tell it."""

    intervals: tuple[Interval, ...]
    cv: float | None = None

    @property
    def peak_rps(self) -> float:
        """The highest rate of an interval."""
        return max(interval.rate_rps for interval in self.intervals)

    @property
    def mean_rps(self) -> float:
        """Requests over time."""
        return sum(i.rate_rps * i.lasts_s for i in self.intervals) / self.lasts_s

    @property
    def lasts_s(self) -> float:
        """Seconds from the first interval's start to the last one's end."""
        return sum(interval.lasts_s for interval in self.intervals)


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises UsageError, naming file, line and remedy, where it is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip().lower() for name in next(rows, [])]
            arrival, time, rate = (_column(header, known) for known in (ARRIVALS, TIMES, RATES))
            if arrival is not None:
                return _counted(path, _column_of(path, rows, (arrival,))[0])
            if time is None or rate is None:
                raise UsageError(
                    f"{path}: the first line must name the columns, "
                    f"`time,rate_rps` or `arrival`, got {','.join(header)[:80]!r}",
                    hint="put `time,rate_rps` above a rate for each interval, or `arrival` above "
                    "the time of every request",
                )
            return _rated(path, *_column_of(path, rows, (time, rate)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}",
            hint="name a CSV file in UTF-8 with columns `time,rate_rps` or `arrival`",
        ) from None


def _column(header: Sequence[str], known: Sequence[str]) -> int | None:
    return next((header.index(name) for name in known if name in header), None)


def _column_of(
    path: Path, rows: Iterable[Sequence[str]], columns: tuple[int, ...]
) -> tuple[Floats, ...]:
    """The columns asked for: times where first, plain numbers where second."""
    readers: tuple[Callable[[str], float], ...] = (_seconds, float)
    found: list[list[float]] = [[] for _ in columns]
    for line, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row):
            continue
        for values, column, reader in zip(found, columns, readers, strict=False):
            text = row[column].strip() if column < len(row) else ""
            try:
                value = reader(text)
            except ValueError:
                value = float("nan")
            if not np.isfinite(value):
                raise UsageError(
                    f"{path}, line {line}: expected "
                    f"{'a time' if reader is _seconds else 'a rate'}, got {text[:40]!r}",
                    hint="times are seconds, HH:MM, or ISO 8601; rates are requests a second",
                )
            values.append(value)
    return tuple(np.array(values) for values in found)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    parts = text.split(":")
    if len(parts) in {2, 3} and all(part.replace(".", "", 1).isdigit() for part in parts):
        return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _rated(path: Path, times: Floats, rates: Floats) -> Trace:
    if len(times) < 2:
        raise UsageError(f"{path}: a trace needs two intervals", hint="add lines")
    lasts = np.diff(times)
    wrong = np.flatnonzero(lasts <= 0)
    if len(wrong):
        raise UsageError(
            f"{path}, line {wrong[0] + 3}: this time is not later than the one before",
            hint="order the lines by time; a trace over midnight needs dates or seconds",
        )
    if rates.min() < 0 or rates.max() <= 0:
        raise UsageError(
            f"{path}: rates must not be below 0, and one must be above",
            hint="a rate is requests a second in the interval that begins at its time",
        )
    return _trace(path, times - times[0], np.append(lasts, lasts[-1]), rates)


def _counted(path: Path, arrivals: Floats) -> Trace:
    if len(arrivals) < FEWEST_GAPS:
        raise UsageError(
            f"{path}: {len(arrivals)} arrivals are too few to plan from",
            hint=f"a trace needs {FEWEST_GAPS:,} at least; or give rates, as `time,rate_rps`",
        )
    arrivals = np.sort(arrivals - arrivals.min())
    lasts_s = float(arrivals[-1])
    count = max(1, int(lasts_s // INTERVAL_S))
    edges = np.append(np.arange(count) * INTERVAL_S, max(lasts_s, 1e-9))
    counts, _ = np.histogram(arrivals, edges)
    lasts = np.diff(edges)
    return _trace(path, edges[:-1], lasts, counts / lasts, _cv(arrivals, edges))


def _trace(
    path: Path, starts: Floats, lasts: Floats, rates: Floats, cv: float | None = None
) -> Trace:
    if len(starts) > MOST_INTERVALS:
        raise UsageError(
            f"{path}: {len(starts):,} intervals are more than {MOST_INTERVALS:,}",
            hint="give a rate for every minute or quarter of an hour",
        )
    columns = zip(starts, lasts, rates, strict=True)
    return Trace(tuple(Interval(*(float(value) for value in row)) for row in columns), cv)


def _cv(arrivals: Floats, edges: Floats) -> float | None:
    """Of the gaps, each over the mean gap of its interval, so that the day's shape is left out."""
    gaps = np.diff(arrivals)
    if np.mean(gaps == 0) > MOST_EQUAL:
        return None
    at = np.clip(np.searchsorted(edges, arrivals[1:], side="right") - 1, 0, len(edges) - 2)
    totals, counts = np.bincount(at, gaps), np.bincount(at)
    relative = gaps / (totals / np.maximum(counts, 1))[at]
    return float(relative.std() / relative.mean())
