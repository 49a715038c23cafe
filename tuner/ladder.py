"""The ladder of offered loads that brackets a configuration's sustainable rate."""

import math
from dataclasses import dataclass

FALL = 0.75
MOST_LEVELS = 14
LOWEST_SHARE = 0.1
NEARLY = 0.9
"""Of Poisson arrivals a few less may come than are asked for."""


@dataclass(slots=True)
class Ladder:
    """Climb while the SLO holds, fall while it does not, then bisect.

    `start_rps` is the first load, `step` the factor by which it climbs, and the answer is
    bracketed once no more than `resolution` (a share of the rate) lies between `held_rps`, the
    highest load that held, and `failed_rps`, the lowest that did not. A load that fails below one
    that held moves the bracket down: what is called sustainable has nothing failing under it.
    It also ends at a load that moved neither bound, since asking for it again, with the same
    arrivals, would show the same; and once all that is left to find lies at or below
    `dominated_rps`, which another configuration carries with ease. No load is above `most_rps`.
    """

    start_rps: float
    resolution: float
    step: float = 1.25
    held_rps: float = 0.0
    failed_rps: float = math.inf
    levels: int = 0
    stuck: bool = False
    dominated_rps: float = 0.0
    most_rps: float = math.inf

    def __post_init__(self) -> None:
        """Begin no higher than loads may be."""
        self.start_rps = min(self.start_rps, self.most_rps)

    @property
    def limited(self) -> bool:
        """Whether the highest load there may be holds, so that the answer lies beyond it."""
        return math.isinf(self.failed_rps) and self.held_rps >= NEARLY * self.most_rps

    @property
    def dominated(self) -> bool:
        """Whether the bracket is left wide, since no rate in it would be of use."""
        wide = self.failed_rps > self.held_rps * (1 + self.resolution)
        return wide and self.held_rps > 0 and self.failed_rps <= self.dominated_rps

    def next_rps(self) -> float | None:
        """The load to try next, or None when the answer is bracketed or out of reach."""
        if self.stuck or self.levels >= MOST_LEVELS:
            return None
        if not self.levels:
            return self.start_rps
        if math.isinf(self.failed_rps):
            return None if self.limited else min(self.held_rps * self.step, self.most_rps)
        if not self.held_rps:
            lower = self.failed_rps * FALL
            return lower if lower >= self.start_rps * LOWEST_SHARE else None
        if self.dominated or self.failed_rps <= self.held_rps * (1 + self.resolution):
            return None
        return math.sqrt(self.held_rps * self.failed_rps)

    def tell(self, offered_rps: float, *, held: bool) -> None:
        """Take in what a load showed."""
        self.levels += 1
        bounds = (self.held_rps, self.failed_rps)
        if held and offered_rps < self.failed_rps:
            self.held_rps = max(self.held_rps, offered_rps)
        elif not held:
            self.failed_rps = min(self.failed_rps, offered_rps)
            if self.held_rps >= self.failed_rps:
                self.held_rps = 0.0
        self.stuck = (self.held_rps, self.failed_rps) == bounds


@dataclass(slots=True)
class Rungs:
    """Loads that somebody else chose, rising: climbed up to the first that does not hold."""

    loads_rps: tuple[float, ...]
    held_rps: float = 0.0
    failed_rps: float = math.inf
    levels: int = 0
    dominated: bool = False
    limited: bool = False

    def next_rps(self) -> float | None:
        """The load to try next, or None after the last and after one that did not hold."""
        if math.isfinite(self.failed_rps) or self.levels >= len(self.loads_rps):
            return None
        return self.loads_rps[self.levels]

    def tell(self, offered_rps: float, *, held: bool) -> None:
        """Take in what a load showed."""
        self.levels += 1
        if held:
            self.held_rps = max(self.held_rps, offered_rps)
        else:
            self.failed_rps = offered_rps
