"""The climb: a ladder of open-loop loads that brackets the sustainable rate."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tuner.ladder import LOWEST_SHARE, Ladder, Rungs
from tuner.load.generator import require_usable
from tuner.measure.counting import LOOKS, needed_samples
from tuner.measure.curve import client_doubts, offered_rps
from tuner.measure.together import MENDED_BY_TIME, decided_together
from tuner.records import Doubt, Level, Outcome
from tuner.slo import Slo

START_SHARES = (0.6, 0.85)
"""Bounds of the first open-loop load, as a share of the closed-loop peak."""

Measure = Callable[[float], Level]
"""Measures an open-loop load, given in requests per second."""


@dataclass(slots=True)
class Climb:
    """What a ladder showed. `levels` are those that it was told, in order.

    `cut_short` says that time was up before it ended; `hopeful` that some load had too few
    requests to be shown to hold, though none was over a limit. `notes` say which loads were
    decided together with others, and `renewed` are these levels before and after.
    """

    ladder: Ladder | Rungs
    levels: list[Level] = field(default_factory=list)
    trusted: bool = True
    cut_short: bool = False
    hopeful: bool = False
    notes: list[Doubt] = field(default_factory=list)
    renewed: list[tuple[Level, Level]] = field(default_factory=list)

    def settle(self, slo: Slo) -> None:
        """Decide loads together where they are undecided each by itself, and tell the ladder."""
        for before, after, note in list(decided_together(self.levels, slo)):
            self.levels[self.levels.index(before)] = after
            self.ladder.settle(offered_rps(after))
            self.renewed.append((before, after))
            self.notes.append(note)

    def as_decided(self, levels: Iterable[Level]) -> tuple[Level, ...]:
        """All levels of a trial, those that were decided together as they are judged now."""
        return tuple(
            next((after for before, after in self.renewed if before is level), level)
            for level in levels
        )

    @property
    def reference(self) -> Level | None:
        """The highest load that was shown to hold; None where none was."""
        held = [
            level
            for level in self.levels
            if level.verdict.feasible and offered_rps(level) <= self.ladder.held_rps
        ]
        return max(held, key=offered_rps, default=None)

    @property
    def outcome(self) -> Outcome:
        """What the climb says of its configuration."""
        if self.reference is not None:
            return "ok"
        missed = any(level.verdict.feasible is False for level in self.levels)
        return "infeasible" if missed and self.trusted and not self.hopeful else "invalid"

    @property
    def sustainable_rps(self) -> float | None:
        """The highest load that held; None where nothing trustworthy decides."""
        if self.reference is not None:
            return offered_rps(self.reference)
        return None if self.outcome == "invalid" else 0.0

    @property
    def ceiling_rps(self) -> float | None:
        """The lowest load that did not hold; None where all did."""
        return self.ladder.failed_rps if math.isfinite(self.ladder.failed_rps) else None


def climb(
    ladder: Ladder | Rungs,
    measure: Measure,
    *,
    slo: Slo,
    shares: Sequence[float] = (),
    time_is_up: Callable[[], bool] = lambda: False,
) -> Climb:
    """Follow the ladder to its end, to a level that cannot be trusted, or until time is up.

    Where it is the generator that cannot, lower loads are tried.

    Loads that are undecided are decided together by `slo`, since more load makes no request
    faster; not for a server of which low loads have to be asked as well, by `shares`.

    Then measure the loads at `shares` of what it found. Where one of them fails, what was found
    is not sustainable, and the ladder is followed on from there.
    """
    found = Climb(ladder)
    pooled = not shares
    _follow(found, measure, time_is_up, slo, pooled=pooled)
    for share in sorted(shares):
        if not ladder.held_rps or not found.trusted or time_is_up():
            break
        level = measure(ladder.held_rps * share)
        if level.verdict.valid and level.verdict.feasible is False:
            ladder.tell(offered_rps(level), held=False)
            found.levels.append(level)
            _follow(found, measure, time_is_up, slo, pooled=pooled)
            break
    return found


def _follow(
    found: Climb, measure: Measure, time_is_up: Callable[[], bool], slo: Slo, *, pooled: bool
) -> None:
    while found.trusted and (rate_rps := found.ladder.next_rps()) is not None:
        if time_is_up():
            found.cut_short = True
            return
        level = measure(rate_rps)
        lacking = {doubt.code for doubt in level.verdict.doubts} <= MENDED_BY_TIME
        found.trusted = level.verdict.valid or lacking
        if _too_much_for_client(level) and found.ladder.ease(offered_rps(level) or rate_rps):
            found.trusted = True  # of the server, which has shown nothing yet at this load
            continue
        if found.trusted:
            hopeful = not level.verdict.valid and _too_few(level, slo)
            found.hopeful |= hopeful
            held = True if hopeful else level.verdict.feasible
            # What arrived decides, not what was asked: Poisson counts differ by their noise. Of a
            # load that was given up early the count is too short to say more than what was asked.
            arrived_rps = offered_rps(level) or rate_rps
            missed = held is False
            found.ladder.tell(min(arrived_rps, rate_rps) if missed else arrived_rps, held=held)
            found.levels.append(level)
            if pooled:
                found.settle(slo)


def _too_much_for_client(level: Level) -> bool:
    """Whether a load that the server may carry is more than the generator can be trusted with."""
    return level.verdict.feasible is not False and bool(client_doubts(level))


def _too_few(level: Level, slo: Slo) -> bool:
    """Whether a load, none of its requests over a limit, had but too few of them.

    A higher load, which has more of them, may then be decided. Where it has enough, but queued
    ones that are slow together, it is a lower load that may.
    """
    few = level.measurement.requests < needed_samples(slo, looks=LOOKS)
    return few and not any(level.measurement.over_limit.values())


def ladder_from(
    peak: Level,
    *,
    resolution: float,
    loosest_ms: float,
    expected_rps: float | None = None,
    dominated_rps: float = 0.0,
    most_rps: float = math.inf,
) -> Ladder:
    """The ladder for a server whose closed-loop `peak` is known.

    Where a sustainable rate is expected the ladder starts there and can afford finer steps. Else
    it starts at the share of the peak that the latency limit is of the peak's latency: where the
    peak was bought with twice the latency that is promised, about half of it will hold. Below
    `dominated_rps` a wide bracket is good enough; `most_rps` is all that can be offered. Raises
    LoadError where that is less than the ladder would ever fall to: nothing would be found.
    """
    if expected_rps:
        step = 1 + resolution
        return Ladder(expected_rps, resolution / 2, step=step, fall=1 / step, most_rps=most_rps)
    lowest, highest = START_SHARES
    share = loosest_ms / (peak.measurement.mean_ms or loosest_ms)
    start_rps = peak.measurement.throughput_rps * min(highest, max(lowest, share))
    if most_rps < LOWEST_SHARE * start_rps:
        require_usable(start_rps, most_rps)
    return Ladder(start_rps, resolution, dominated_rps=dominated_rps, most_rps=most_rps)


def index_of(level: Level | None, levels: Sequence[Level]) -> int | None:
    """Where a level stands among all of its trial."""
    return next((number for number, item in enumerate(levels) if item is level), None)
