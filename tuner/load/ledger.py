"""The requests of one connection, in columns that are written in place.

A request is a row, and rows are numbered as streams are: the n-th request of a connection has
stream id 2 n + 1, so that an answer finds its row by arithmetic alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ASKED, HEADED, ANSWERED, APART, ENDED = range(5)
"""How far an answer has come: nothing of it, its first HEADERS, its one message; APART is one that
is read frame by frame."""

_FIRST_ROWS = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Finished requests, in columns of equal length; `status` numbers the run's statuses."""

    intended_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    status: NDArray[np.uint16]
    message: NDArray[np.int32]


class Ledger:
    """Rows `0..count`, of which `ended` have an end: their `state` is ENDED.

    The first `stamped` rows have been handed to the kernel; those before `oldest` have all ended.
    The columns are numpy arrays for many rows at once; for one at a time the memoryviews `*_at`
    of the same memory are three times as fast.
    """

    __slots__ = (
        "count",
        "done_at",
        "done_ns",
        "ended",
        "intended_at",
        "intended_ns",
        "message",
        "message_at",
        "oldest",
        "sent_at",
        "sent_ns",
        "stamped",
        "state",
        "state_at",
        "status",
        "status_at",
    )

    def __init__(self) -> None:
        self.count = self.ended = self.stamped = self.oldest = 0
        columns: list[NDArray[Any]] = [np.zeros(_FIRST_ROWS, kind) for kind in _KINDS]
        self._adopt(*columns)

    @property
    def outstanding(self) -> int:
        """Rows without an end."""
        return self.count - self.ended

    def reserve(self, rows: int) -> None:
        """Make room for more rows."""
        capacity = len(self.done_ns)
        if self.count + rows <= capacity:
            return
        grown = max(2 * capacity, self.count + rows)
        columns = []
        for column in self._columns():
            # Written to here, lest the kernel have to find its pages while requests are due.
            larger = np.full(grown, 0, column.dtype)
            larger[: self.count] = column[: self.count]
            columns.append(larger)
        self._adopt(*columns)

    def stamp(self, now_ns: int) -> None:
        """Note when the requests since the last stamp were handed to the kernel."""
        first, count = self.stamped, self.count
        if first + 1 == count:
            self.sent_at[first] = now_ns
        elif first < count:
            self.sent_ns[first:count] = now_ns
        self.stamped = count

    def end(self, row: int, now_ns: int, status: int) -> None:
        """Note the end of a request."""
        self.done_at[row] = now_ns
        self.status_at[row] = status
        self.state_at[row] = ENDED
        self.ended += 1

    def end_all(self, now_ns: int, status: int) -> None:
        """End every outstanding request in the same way."""
        rows = np.flatnonzero(self.state[: self.count] < ENDED)
        self.done_ns[rows] = now_ns
        self.status[rows] = status
        self.state[rows] = ENDED
        self.ended = self.count

    def first_outstanding(self) -> int:
        """The oldest row without an end, or `count`."""
        row, count, state = self.oldest, self.count, self.state_at
        while row < count and state[row] == ENDED:
            row += 1
        self.oldest = row
        return row

    def take(self) -> Rows:
        """Hand out the ended rows before the first that has not ended, and renumber the rest."""
        first = self.first_outstanding()
        taken = Rows(
            intended_ns=self.intended_ns[:first].copy(),
            sent_ns=self.sent_ns[:first].copy(),
            done_ns=self.done_ns[:first].copy(),
            status=self.status[:first].copy(),
            message=self.message[:first].copy(),
        )
        left = self.count - first
        for column in self._columns():
            column[:left] = column[first : self.count].copy()
            column[left : self.count] = 0
        self.count, self.ended = left, self.ended - first
        self.stamped, self.oldest = max(self.stamped - first, 0), 0
        return taken

    def _adopt(
        self,
        intended_ns: NDArray[np.int64],
        sent_ns: NDArray[np.int64],
        done_ns: NDArray[np.int64],
        message: NDArray[np.int32],
        status: NDArray[np.uint16],
        state: NDArray[np.uint8],
    ) -> None:
        self.intended_ns, self.intended_at = intended_ns, intended_ns.data
        self.sent_ns, self.sent_at = sent_ns, sent_ns.data
        self.done_ns, self.done_at = done_ns, done_ns.data
        self.message, self.message_at = message, message.data
        self.status, self.status_at = status, status.data
        self.state, self.state_at = state, state.data

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self.intended_ns, self.sent_ns, self.done_ns, self.message, self.status, self.state


_KINDS = (np.int64, np.int64, np.int64, np.int32, np.uint16, np.uint8)
