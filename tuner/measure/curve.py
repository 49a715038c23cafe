"""What the loads of one configuration show together: cliffs, collapses, odd orders."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tuner.measure.doubts import DISTURBED
from tuner.records import Doubt, Level
from tuner.slo import Slo, percentile_label
from tuner.words import per_second

APART = 1.1
"""Loads closer than this are one load that noise has judged in two ways."""

CLIFF = 0.5, 2.0
"""Shares of the limit: a cliff leads from below the one to above the other without a step."""

COLLAPSE = 0.8
"""Of what a lower load was answered at: a higher load that gets less is worse than useless."""

CLIENT = frozenset({"generator-late", "generator-cpu", "schedule-missed"})
"""Doubts that say that the load generator is at its end."""

CLIENT_LIMITED = "client-limited"
"""The note of a trial whose highest load was the generator's limit, not the server's."""


def notes(levels: Sequence[Level], slo: Slo, *, next_to: float) -> tuple[Doubt, ...]:
    """Say what a sustainable rate alone would smooth over.

    `levels` are all of a trial; `next_to` is the ratio of two loads between which no step is left
    to take, from the ladder's resolution.
    """
    opened = [level for level in levels if level.measurement.loop == "open"]
    trusted = sorted((level for level in opened if level.verdict.valid), key=offered_rps)
    return (
        *_odd_orders(trusted),
        *_cliffs(trusted, slo, next_to),
        *_collapses(trusted),
        *_client_limits(opened),
    )


def _odd_orders(trusted: Sequence[Level]) -> Iterator[Doubt]:
    missed = next((level for level in trusted if level.verdict.feasible is False), None)
    if missed is None:
        return
    above = [
        level
        for level in trusted
        if level.verdict.feasible and offered_rps(level) > APART * offered_rps(missed)
    ]
    if above:
        yield Doubt(
            "non-monotonic",
            f"the SLO is missed at {_load(missed)} and holds at {_load(above[-1])}: "
            "only loads below the first are called sustainable",
            "a long batch timeout does this at low load; look at the curve before planning",
        )


def _cliffs(trusted: Sequence[Level], slo: Slo, next_to: float) -> Iterator[Doubt]:
    low, high = CLIFF
    for below, above in pairwise(trusted):
        if not (below.verdict.feasible and above.verdict.feasible is False):
            continue
        # The rate of a load that was given up after few requests is known no better than this.
        blurred = 1 + 3 / math.sqrt(max(1, above.measurement.requests))
        if offered_rps(above) > next_to * blurred * offered_rps(below):
            continue
        for name, limit_ms in slo.limits_ms:
            before = below.measurement.percentiles_ms.get(name)
            # A load that was given up early has too few requests for a percentile.
            after = above.measurement.percentiles_ms.get(name, above.measurement.mean_ms)
            if before is None or before > low * limit_ms:
                continue
            if after is None or after > high * limit_ms:
                end = "failure" if after is None else f"{after:,.0f} ms"
                yield Doubt(
                    "cliff",
                    f"from {_load(below)} to {_load(above)} "
                    f"{percentile_label(name)} leaps from {before:,.0f} ms to {end}",
                    "leave headroom: there is no warning before it",
                )
                return


def _collapses(trusted: Sequence[Level]) -> Iterator[Doubt]:
    best = max(trusted, key=lambda level: level.measurement.throughput_rps, default=None)
    if best is None:
        return
    for level in trusted:
        measured = level.measurement
        if offered_rps(level) <= APART * offered_rps(best):
            continue
        if measured.throughput_rps < COLLAPSE * best.measurement.throughput_rps:
            shown = "no request is" if not measured.answered else (
                f"only {per_second(measured.throughput_rps)} are"
            )  # fmt: skip
            yield Doubt(
                "collapse",
                f"at {_load(level)} offered {shown} answered, after "
                f"{per_second(best.measurement.throughput_rps)} at {_load(best)}",
                "bound the queue, and shed load in front of the server",
            )
            return


def _client_limits(opened: Sequence[Level]) -> Iterator[Doubt]:
    highest = max(opened, key=offered_rps, default=None)
    if highest is None or highest.verdict.feasible is False:
        return
    if doubts := client_doubts(highest):
        yield Doubt(
            CLIENT_LIMITED,
            f"the load generator, not the server, was at its end at {_load(highest)}: "
            f"{doubts[0].text}",
            doubts[0].remedy,
        )


def client_doubts(level: Level) -> list[Doubt]:
    """Why the generator was at its end; nothing where it may have been another program's doing."""
    if any(doubt.code in DISTURBED for doubt in level.verdict.doubts):
        return []  # a generator that shares its processor is late at any load
    return [doubt for doubt in level.verdict.doubts if doubt.code in CLIENT]


def _load(level: Level) -> str:
    return per_second(offered_rps(level))


def offered_rps(level: Level) -> float:
    """The load of a level in requests/s, 0 where none was offered."""
    return level.measurement.offered_rps or 0.0
