"""Samples of a long run, on disk: read in pieces, since hours of them do not fit into memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.load.wire import SAMPLE
from tuner.records import Samples, Status

ROWS = 1 << 18
"""Samples read at once: 8 MB."""


@dataclass(frozen=True, slots=True)
class Spool:
    """One file for each generator process, 30 bytes a request, and what belongs to them.

    `statuses` are those of each file; the rest is as in Samples.
    """

    paths: tuple[Path, ...]
    statuses: tuple[tuple[Status, ...], ...]
    started_ns: int
    ended_ns: int
    cpu_s: float

    def __len__(self) -> int:
        return sum(path.stat().st_size for path in self.paths) // SAMPLE.itemsize

    def samples(self, rows: int = ROWS) -> Iterator[Samples]:
        """Yield all samples, at most `rows` at once, each piece ordered by intended time.

        Pieces follow each other in time but for requests that were outstanding between them.
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
