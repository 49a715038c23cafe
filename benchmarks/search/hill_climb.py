"""A hill climb as Triton Model Analyzer's quick search does it, for comparison.

From its documentation (docs/config_search.md) and its quick run-config generator, in our own
words: parameters are axes of whole steps; the climb starts at the smallest of all. Around its home
it measures the nearest neighbours until a few within the radius are known, adds up the directions
to them, each weighted by its gain over home, and steps along the sum as far as the radius. Where
that leads nowhere new, home becomes the best point known and the radius shrinks; once the
neighbours of the best are all measured it is at its end. So that it can be compared over a given
number of starts it then begins anew at a random point.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tuner.search.space import Choice, Point, Space

RADIUS = 2
ENOUGH_NEIGHBOURS = 3

Place = tuple[int, ...]


class HillClimb:
    """Asks for one point after the other; `tell` it each one's rate."""

    def __init__(self, space: Space, seed: int) -> None:
        self._values: list[tuple[str, tuple[Choice, ...]]] = list(space.choices.items())
        self._there = {self._place(point) for point in space.points()}
        self._rates: dict[Place, float] = {}
        self._rng = np.random.default_rng(seed)
        self._home: Place = min(self._there)
        self._radius = RADIUS

    def ask(self) -> Point | None:
        """The next point, None when all were measured."""
        if len(self._rates) == len(self._there):
            return None
        while True:
            if self._home not in self._rates:
                return self._point(self._home)
            near = self._near(self._home)
            known = [place for place in near if place in self._rates]
            unknown = [place for place in near if place not in self._rates]
            if unknown and len(known) < ENOUGH_NEIGHBOURS:
                return self._point(unknown[0])
            self._move(known, unknown)

    def tell(self, point: Point, rate: float) -> None:
        """Take in what a point showed."""
        self._rates[self._place(point)] = rate

    def _move(self, known: Sequence[Place], unknown: Sequence[Place]) -> None:
        step = self._home
        if known:
            step = self._stepped(known)
        if step not in self._rates and step in self._there:
            self._home = step
            return
        best = max([*known, self._home], key=lambda place: self._rates[place])
        if self._rates[best] > self._rates[self._home]:
            self._home = best
        elif unknown:
            self._home = unknown[0]  # the neighbours of the best are measured to the last
        elif self._radius > 1:
            self._radius -= 1
        else:
            left = sorted(self._there - self._rates.keys())
            self._home = left[int(self._rng.integers(len(left)))]
            self._radius = RADIUS

    def _stepped(self, known: Sequence[Place]) -> Place:
        """Home, moved along the gains of its neighbours by the radius."""
        home = np.array(self._home, float)
        base = max(self._rates[self._home], 1e-9)
        total = np.zeros(len(home))
        for place in known:
            way = np.array(place, float) - home
            total += way / np.linalg.norm(way) * (self._rates[place] / base - 1)
        length = float(np.abs(total).max())
        if length == 0:
            return self._home
        moved = np.rint(home + total / length * self._radius)
        highest = [len(values) - 1 for _, values in self._values]
        return tuple(int(value) for value in np.clip(moved, 0, highest))

    def _near(self, home: Place) -> list[Place]:
        """Recorded places within the radius, the nearest first."""
        reach = range(-self._radius, self._radius + 1)
        found = []
        for offset in itertools.product(reach, repeat=len(home)):
            distance = math.hypot(*offset)
            place = tuple(at + by for at, by in zip(home, offset, strict=True))
            if 0 < distance <= self._radius and place in self._there:
                found.append((distance, place))
        return [place for _, place in sorted(found)]

    def _place(self, point: Point) -> Place:
        return tuple(values.index(point[name]) for name, values in self._values)

    def _point(self, place: Place) -> Point:
        pairs = zip(self._values, place, strict=True)
        return {name: values[at] for (name, values), at in pairs}
