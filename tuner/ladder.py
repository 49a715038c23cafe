"""The ladder of offered loads that brackets a configuration's sustainable rate."""

import math
from dataclasses import dataclass, field

FALL = 0.75
MOST_LEVELS = 14
LOWEST_SHARE = 0.1
MOST_OPEN = 2
"""Loads in a row, undecided every one, above which no further is tried."""

HARDLY = 0.8
"""A load that leaves so much of the bracket came too near its end: arrivals have their noise."""

MOST_EASED = 4
"""So often a load that was too much for the generator makes room for a lower one."""

NEARLY = 0.9
"""Of Poisson arrivals a few less may come than are asked for."""


@dataclass(slots=True)
class Ladder:
    """Climb while the SLO is not refuted, fall while nothing holds, then bisect.

    `start_rps` is the first load, `step` the factor by which it climbs, `fall` that by which it
    falls. A load that is undecided is not refuted: up to MOST_OPEN of them in a row are climbed
    over. The answer is found once no more than `resolution` (a share of the rate) lies between
    `held_rps`, the highest load that held, and the lowest above it that did not: `failed_rps`,
    which is refuted, or one of `open_rps`. A load that fails below one that held moves the bracket
    down: what is called sustainable has nothing failing under it. It also ends at a load that
    hardly moved a bound, since the next, with the same arrivals, would show the same; and
    once all that is left to find lies at or below `dominated_rps`, which another configuration
    carries with ease. No load is above `most_rps`.
    """

    start_rps: float
    resolution: float
    step: float = 1.25
    fall: float = FALL
    held_rps: float = 0.0
    failed_rps: float = math.inf
    levels: int = 0
    stuck: bool = False
    dominated_rps: float = 0.0
    most_rps: float = math.inf
    open_rps: list[float] = field(default_factory=list)
    eased: int = 0

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
        bound_rps = self._bound_rps
        wide = bound_rps > self.held_rps * (1 + self.resolution)
        climbing = self._higher_rps() is not None
        return wide and self.held_rps > 0 and bound_rps <= self.dominated_rps and not climbing

    @property
    def _bound_rps(self) -> float:
        """The lowest load above what held that was not shown to hold."""
        return min([self.failed_rps, *self.open_rps])

    def next_rps(self) -> float | None:
        """The load to try next, or None when the answer is bracketed or out of reach."""
        if self.stuck or self.levels >= MOST_LEVELS:
            return None
        if not self.levels:
            return self.start_rps
        if (higher_rps := self._higher_rps()) is not None:
            return higher_rps
        bound_rps = self._bound_rps
        if not self.held_rps:
            fall = max(self.fall, 1 / self.step) if self.open_rps else self.fall
            lower_rps = bound_rps * fall
            return lower_rps if lower_rps >= self.start_rps * LOWEST_SHARE else None
        bracketed = bound_rps <= self.held_rps * (1 + self.resolution)
        if bracketed or self.dominated or math.isinf(bound_rps):
            return None
        return math.sqrt(self.held_rps * bound_rps)

    def _higher_rps(self) -> float | None:
        """The next load of the climb, unless it is over."""
        top_rps = max([self.held_rps, *self.open_rps])
        if math.isfinite(self.failed_rps) or top_rps >= NEARLY * self.most_rps:
            return None
        if len(self.open_rps) >= MOST_OPEN:
            return None
        return min(top_rps * self.step, self.most_rps)

    def tell(self, offered_rps: float, *, held: bool | None) -> None:
        """Take in what a load showed; None: it is undecided."""
        self.levels += 1
        before = self._bounds()
        if held is None:
            self.open_rps.append(offered_rps)
        elif not held:
            self.failed_rps = min(self.failed_rps, offered_rps)
            if self.held_rps >= self.failed_rps:
                self.held_rps = 0.0
        elif offered_rps < self.failed_rps:
            self.held_rps = max(self.held_rps, offered_rps)
        self._tidy()
        after = self._bounds()
        narrowed = _width(after) <= HARDLY * (_width(before) or math.inf)
        self.stuck = after[2:] == before[2:] and (after == before or not narrowed)

    def ease(self, offered_rps: float) -> bool:
        """Go on below a load at which the generator was at its end; False: there is no use."""
        if math.isfinite(self.failed_rps) or self.eased >= MOST_EASED:
            return False
        self.eased += 1
        self.most_rps = min(self.most_rps, offered_rps * self.fall)
        self.start_rps = min(self.start_rps, self.most_rps)
        return True

    def settle(self, offered_rps: float) -> None:
        """Take in that a load, undecided by itself, was shown to hold after all."""
        if offered_rps < self.failed_rps:
            self.held_rps = max(self.held_rps, offered_rps)
            self._tidy()

    def _tidy(self) -> None:
        """Forget undecided loads that no longer lie in the bracket."""
        self.open_rps = [rate for rate in self.open_rps if self.held_rps < rate < self.failed_rps]

    def _bounds(self) -> tuple[float, float, float, float]:
        """What held, what did not, what was refuted, and the highest load that was not."""
        top_rps = max([self.held_rps, *self.open_rps])
        return self.held_rps, self._bound_rps, self.failed_rps, top_rps


def _width(bounds: tuple[float, ...]) -> float:
    """How far the bracket's ends lie apart, as a logarithm; 0 while it has but one."""
    held_rps, lowest_rps, *_ = bounds
    return math.log(lowest_rps / held_rps) if held_rps and math.isfinite(lowest_rps) else 0.0


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

    def tell(self, offered_rps: float, *, held: bool | None) -> None:
        """Take in what a load showed; one that is undecided does not hold."""
        self.levels += 1
        if held:
            self.held_rps = max(self.held_rps, offered_rps)
        else:
            self.failed_rps = offered_rps

    def ease(self, offered_rps: float) -> bool:  # noqa: ARG002
        """See `Ladder`; there are no loads but the chosen ones."""
        return False

    def settle(self, offered_rps: float) -> None:
        """See `Ladder`; a chosen load stands for itself."""
