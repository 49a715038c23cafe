"""Points that need no server start, since what was measured shows that they change nothing.

A larger `max_batch_size` than any batch grows to is a no-op: where batches stayed far below the
limit, every larger limit behaves the same, and so does every smaller one that they stay below as
well. The same holds for limits that the load itself cannot fill.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tuner.records import TrialRecord
from tuner.search.space import Point, Space, point_of

SIZE = "max_batch_size"
LADDERS = "allowed_batch_sizes"

FAR = 3.0
"""Batches of a mean size m hardly ever hold more than FAR * m + FURTHER rows: arrivals while a
batch runs are Poisson, and a backlog shows in the mean."""

FURTHER = 8


@dataclass(slots=True)
class NoOps:
    """Which points behave as another. `reach` is how many rows can wait at once, if known."""

    space: Space
    reach: int | None = None

    def among(self, records: Iterable[TrialRecord]) -> set[tuple[tuple[str, object], ...]]:
        """Keys of all points that need not be measured."""
        found = {_key(point) for point in self._unfillable()}
        for record in records:
            attained = _attained(record)
            point = None if attained is None else point_of(record.config, self.space)
            if point is None or attained is None or int(point[SIZE]) < attained:
                continue
            found |= {
                _key(other)
                for other in self._other_sizes(point)
                if int(other[SIZE]) >= attained and other != point
            }
        return found

    def _other_sizes(self, point: Point) -> Iterator[Point]:
        # A linear ladder is cut from the limit itself, so another limit pads otherwise.
        if point.get(LADDERS) == "linear":
            return
        for size in self.space.choices[SIZE]:
            yield {**point, SIZE: size}

    def _unfillable(self) -> Iterator[Point]:
        """Sizes above the smallest that holds all that can wait."""
        if self.reach is None:
            return
        idle = sorted(int(size) for size in self.space.choices[SIZE] if int(size) >= self.reach)
        for point in self.space.points():
            if int(point[SIZE]) in idle[1:] and point.get(LADDERS) != "linear":
                yield point


def is_no_op(point: Point, no_ops: set[tuple[tuple[str, object], ...]]) -> bool:
    """Whether a point is among those that need not be measured."""
    return _key(point) in no_ops


def _key(point: Point) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(point.items()))


def _attained(record: TrialRecord) -> float | None:
    """Rows that no batch exceeded, judging by the largest mean over all loads; None if unknown."""
    means = [
        level.measurement.server.rows_per_batch
        for level in record.levels
        if level.measurement.server is not None
        and level.measurement.server.rows_per_batch is not None
    ]
    return FAR * max(means) + FURTHER if means else None
