"""Loads that are undecided each by itself, decided together with those above them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tuner.measure.counting import LOOKS
from tuner.measure.curve import offered_rps
from tuner.measure.slo import kept_together
from tuner.records import Doubt, Level
from tuner.slo import Slo
from tuner.words import per_second

MENDED_BY_TIME = frozenset({"too-few-samples"})
"""Doubts that the same measurement again would not settle, but a longer window would."""


def decided_together(levels: Sequence[Level], slo: Slo) -> Iterator[tuple[Level, Level, Doubt]]:
    """Yield undecided levels that hold by the counts of their own and of all undecided above.

    Each comes with the level as it is then judged, and a note that says so. Every load has one
    such test, which has its part of the allowed error (see `LOOKS`); loads above one that is
    refuted take no part.
    """
    failed_rps = min(
        (offered_rps(level) for level in levels if level.verdict.feasible is False),
        default=math.inf,
    )
    pool: list[Level] = []
    for level in sorted(levels, key=offered_rps, reverse=True):
        if not _undecided(level) or offered_rps(level) >= failed_rps:
            continue
        pool.append(level)
        measurements = [other.measurement for other in pool]
        if len(pool) > 1 and kept_together(measurements, slo, looks=LOOKS):
            verdict = replace(level.verdict, valid=True, feasible=True, reasons=(), doubts=())
            yield level, replace(level, verdict=verdict), _note(level, pool[:-1])


def _undecided(level: Level) -> bool:
    return (
        level.verdict.feasible is None
        and {doubt.code for doubt in level.verdict.doubts} <= MENDED_BY_TIME
    )


def _note(level: Level, above: Sequence[Level]) -> Doubt:
    loads = ", ".join(per_second(offered_rps(other)) for other in reversed(above))
    return Doubt(
        "decided-together",
        f"{per_second(offered_rps(level))} holds by its own requests and those at {loads} "
        "together, where the SLO can only be harder to keep",
        "with a longer measure.max_window_s each load is decided by itself",
    )
