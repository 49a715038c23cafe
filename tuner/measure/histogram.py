"""Latencies as an HdrHistogram that merges, and travels in HdrHistogram's own log format.

Values are whole microseconds from 1 us to 1 h with three significant digits, rounded up, so that
a percentile read from a histogram is never better than what was measured. Nothing is dropped:
longer values count as the longest and are shown as overflow, and failed requests, which have no
latency, rank above every answer.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader, HistogramLogWriter
from numpy.typing import NDArray

from tuner.errors import StoreError
from tuner.measure.percentiles import nearest_rank

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3

_NS_PER_US = 1_000
_US_PER_MS = 1_000
# Three digits need 2,048 linear steps, 11 bits, before values are grouped by powers of two.
_LINEAR_BITS = 11
_COUNTERS = re.compile(r"#\[Failed: (\d+), Overflow: (\d+)\]")


def _empty() -> Any:
    return HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)


@dataclass(frozen=True, slots=True, eq=False)
class LatencyHistogram:
    """The latencies of some requests. Never changed once made: merging makes another.

    `answers` is the HdrHistogram of the answered requests in microseconds, `failed` counts the
    others, and `overflow` the answers that took longer than one hour.
    """

    answers: Any
    failed: int = 0
    overflow: int = 0

    @classmethod
    def of(cls, latency_ns: NDArray[np.int64], failed: int = 0) -> "LatencyHistogram":
        """Record the latencies of answered requests (int64 nanoseconds), and count the failed."""
        micros = np.maximum(-(-latency_ns // _NS_PER_US), LOWEST_US)
        overflow = int(np.count_nonzero(micros > HIGHEST_US))
        answers = _empty()
        # record_value is a Python call, so it is made once per distinguishable value only.
        for value, count in zip(
            *np.unique(_highest_equivalent(np.minimum(micros, HIGHEST_US)), return_counts=True),
            strict=True,
        ):
            answers.record_value(int(value), int(count))
        return cls(answers, failed, overflow)

    @property
    def count(self) -> int:
        """All requests, answered or failed."""
        return cast("int", self.answers.get_total_count()) + self.failed

    def merge(self, other: "LatencyHistogram") -> "LatencyHistogram":
        """Return the histogram of both sets of requests."""
        answers = _empty()
        answers.add(self.answers)
        answers.add(other.answers)
        return LatencyHistogram(
            answers, self.failed + other.failed, self.overflow + other.overflow
        )

    def percentile_ms(self, share: float) -> float | None:
        """Milliseconds at `share` (0.99 for p99) by nearest rank; None among failed requests."""
        return self.percentiles_ms((share,))[0]

    def percentiles_ms(self, shares: tuple[float, ...]) -> list[float | None]:
        """Read several percentiles at once; None where one falls among failed requests."""
        cumulative = np.cumsum(np.ctypeslib.as_array(self.answers.counts))
        ranks = [nearest_rank(share, self.count) for share in shares]
        indexes = np.searchsorted(cumulative, ranks)
        return [
            self._upper_ms(int(index)) if index < len(cumulative) else None for index in indexes
        ]

    def over(self, limit_ms: float) -> int:
        """How many requests took longer than `limit_ms`, or failed.

        A request counts as within the limit where its counter begins at or below it, so the
        answer is exact to the histogram's three digits.
        """
        counts = np.ctypeslib.as_array(self.answers.counts)
        first_over = bisect_right(range(len(counts)), limit_ms, key=self._lower_ms)
        return int(counts[first_over:].sum()) + self.failed

    def _lower_ms(self, index: int) -> float:
        return float(self.answers.get_value_from_index(index)) / _US_PER_MS

    def _upper_ms(self, index: int) -> float:
        lower = self.answers.get_value_from_index(index)
        return float(self.answers.get_highest_equivalent_value(lower)) / _US_PER_MS


def _highest_equivalent(micros: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round up to the largest value that shares a counter with each of `micros`."""
    bits = np.frexp(micros.astype(np.float64))[1].astype(np.int64)
    grouped = np.maximum(bits - _LINEAR_BITS, 0)
    return micros | ((np.int64(1) << grouped) - 1)


def write_log(
    path: Path, histogram: LatencyHistogram, *, start_epoch_s: float, length_s: float
) -> None:
    """Write one histogram to `path` in HdrHistogram log format, which standard tools open.

    `start_epoch_s` is the wall time of the window's start in seconds since 1970, `length_s` the
    window's length. Values are microseconds: HistogramLogProcessor shows milliseconds with
    `-outputValueUnitRatio 1000`. Raises StoreError where the file cannot be written.
    """
    with HistogramLog(path, start_epoch_s=start_epoch_s) as log:
        log.add(histogram, length_s=length_s)


class HistogramLog(AbstractContextManager["HistogramLog"]):
    """A log that grows by one interval after the other; see `write_log`."""

    def __init__(self, path: Path, *, start_epoch_s: float) -> None:
        self._path = path
        # Whole milliseconds, as in the comment: readers skip intervals before StartTime.
        self._at_s = math.floor(start_epoch_s * 1000) / 1000
        self._failed = self._overflow = 0

    def __enter__(self) -> Self:
        with self._writing():
            self._file = self._path.open("w", encoding="utf-8")
            self._writer = HistogramLogWriter(self._file)
            self._writer.output_log_format_version()
            self._writer.output_comment("[Values are latencies in microseconds]")
            # The package's own output_start_time calls a method that datetime does not have.
            self._writer.output_comment(f"[StartTime: {self._at_s:.3f} (seconds since epoch)]")
            self._writer.output_legend()
        return self

    def __exit__(self, *_: object) -> None:
        """Say what is in no interval, and close the file."""
        with self._writing(), self._file:
            counters = f"[Failed: {self._failed}, Overflow: {self._overflow}]"
            self._writer.output_comment(counters)

    def add(self, histogram: LatencyHistogram, *, length_s: float) -> None:
        """Write the next interval, and let others see it."""
        self._failed += histogram.failed
        self._overflow += histogram.overflow
        with self._writing():
            self._writer.output_interval_histogram(
                histogram.answers,
                start_time_stamp_sec=self._at_s,
                end_time_stamp_sec=self._at_s + length_s,
                max_value_unit_ratio=float(_US_PER_MS),
            )
            self._file.flush()
        self._at_s += length_s

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self._path}: cannot write the histogram: {error.strerror}",
                hint="free space or make the results directory writable, then resume the run",
            ) from error


def read_log(path: Path) -> LatencyHistogram:
    """Read the sum of all intervals of a log that `write_log` wrote.

    Raises StoreError where the file cannot be read or is no HdrHistogram log.
    """
    try:
        failed, overflow = _read_counters(path)
        return LatencyHistogram(_read_answers(path), failed, overflow)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot read the histogram: {error.strerror}",
            hint="the report can be rebuilt without it only if the trial is measured again",
        ) from error
    except Exception as error:  # the decoder raises zlib, binascii, struct and its own errors
        raise StoreError(
            f"{path}: not a readable HdrHistogram log ({error})",
            hint="the file was changed or cut short; restore it from a copy",
        ) from error


def _read_counters(path: Path) -> tuple[int, int]:
    found = _COUNTERS.search(path.read_text(encoding="utf-8"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _read_answers(path: Path) -> Any:
    reader = HistogramLogReader(str(path), _empty())
    try:
        answers = reader.get_next_interval_histogram()
        if answers is None:
            raise ValueError("it holds no interval")
        while reader.add_next_interval_histogram(answers) is not None:
            pass
    finally:
        reader.close()
    return answers
