"""Samples of a long run, on disk: written and read in pieces, since memory holds no hours of them.

A generator process writes `STEM.0`, `STEM.1`, ..., each of some CHUNK_ROWS rows of 30 bytes. Who
reads them as they come may remove each once it is read through.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import disk
from tuner.load.wire import SAMPLE
from tuner.records import Samples, Status

ROWS = 1 << 18
"""Samples read at once: 8 MB."""

CHUNK_ROWS = 1 << 20
"""From so many rows on, the next go to another file."""


@dataclass(frozen=True, slots=True)
class Spool:
    """What a long run left: its files, each with the statuses its rows refer to.

    `rows` counts all samples, those of removed files too; the rest is as in Samples.
    """

    paths: tuple[Path, ...]
    statuses: tuple[tuple[Status, ...], ...]
    rows: int
    started_ns: int
    ended_ns: int
    cpu_s: float

    def __len__(self) -> int:
        return self.rows

    def samples(self, rows: int = ROWS) -> Iterator[Samples]:
        """Yield all samples that are kept, at most `rows` at once, each ordered by intended time.

        Pieces of a process follow each other in time but for requests that were outstanding
        between them.
        """
        for path, statuses in zip(self.paths, self.statuses, strict=True):
            with path.open("rb") as file:
                while len(table := np.fromfile(file, SAMPLE, rows)):
                    yield samples_of(
                        table,
                        statuses=statuses,
                        started_ns=self.started_ns,
                        ended_ns=self.ended_ns,
                        cpu_s=self.cpu_s,
                    )


class SpoolWriter:
    """A process's end. `written` are the rows written in all."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._chunk = -1
        self._left = 0
        self._file: IO[bytes] | None = None
        self.written = 0

    def write(self, table: NDArray[Any]) -> None:
        """Add rows. Raises HostError where the disk refuses."""
        path = chunk_path(self._stem, self._chunk + (self._left <= 0))
        with disk(path):
            if self._left <= 0:
                self.close()
                self._chunk, self._left = self._chunk + 1, CHUNK_ROWS
                self._file = path.open("wb", buffering=0)
            assert self._file is not None
            data = memoryview(table.tobytes())
            while data:
                data = data[self._file.write(data) :]
        self.written += len(table)
        self._left -= len(table)

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()


@dataclass(slots=True)
class SpoolReader:
    """The parent's end, for one process: reads what has come, and may remove what it has read."""

    stem: Path
    keep: bool
    started_ns: int
    statuses: list[Status] = field(default_factory=list)
    rows: int = 0
    paths: list[Path] = field(default_factory=list)
    _chunk: int = 0
    _file: IO[bytes] | None = None

    def new(self, written: int, statuses: Sequence[Status]) -> Iterator[Samples]:
        """Yield the rows up to `written` in all, at most ROWS at once. `statuses` are new ones."""
        self.statuses += statuses
        while self.rows < written:
            if self._file is None:
                self._open()
            assert self._file is not None
            table = np.fromfile(self._file, SAMPLE, min(ROWS, written - self.rows))
            if not len(table):
                self._open()
                continue
            self.rows += len(table)
            yield samples_of(
                table,
                statuses=tuple(self.statuses),
                started_ns=self.started_ns,
                ended_ns=int(table["intended_ns"][-1]),
                cpu_s=0.0,
            )

    def close(self) -> None:
        """Close the file that is open; it is removed unless kept."""
        if self._file is not None:
            self._file.close()
            if not self.keep:
                self.paths.pop().unlink()

    def _open(self) -> None:
        self.close()
        path = chunk_path(self.stem, self._chunk)
        self._chunk += 1
        self._file = path.open("rb")
        self.paths.append(path)


def chunk_path(stem: Path, chunk: int) -> Path:
    """The file of one chunk."""
    return stem.with_name(f"{stem.name}.{chunk}")


def samples_of(
    table: NDArray[Any],
    *,
    statuses: tuple[Status, ...],
    started_ns: int,
    ended_ns: int,
    cpu_s: float,
    concurrency: int | None = None,
) -> Samples:
    """Samples of the rows that a worker wrote."""
    return Samples(
        intended_ns=table["intended_ns"].astype(np.int64),
        sent_ns=table["sent_ns"].astype(np.int64),
        done_ns=table["done_ns"].astype(np.int64),
        status=table["status"].astype(np.uint16),
        rows=table["rows"].astype(np.int32),
        statuses=statuses,
        started_ns=started_ns,
        ended_ns=ended_ns,
        cpu_s=cpu_s,
        concurrency=concurrency,
    )
