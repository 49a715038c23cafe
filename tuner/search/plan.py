"""The plan of a run: how many starts are left, when the final begins, when all is done.

Made anew before every start, from what the starts so far have taken. Nothing is kept, so a run
that was resumed plans as if it had never ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.records import TrialRecord
from tuner.search.lengths import Ahead, Lengths, reference_start_s, search_start_s
from tuner.search.ranking import tried

CLOSING_S = 10.0
"""For the page and the plots, once everything is measured."""

RESERVE = 0.15
"""Kept for the final beyond its expected length, as a share: its starts are foretold from others.

What is left of it in the end goes into more blocks.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left: starts of the search, starts of the final, and the seconds of both.

    `final_in_s` is the time until the final begins. None where no start has told of its length.
    """

    search_starts: int
    final_starts: int
    final_in_s: float | None
    left_s: float | None

    @property
    def starts(self) -> int:
        """All starts that are left."""
        return self.search_starts + self.final_starts

    def describe(self) -> str:
        """The plan in words."""
        text = f"plan: {self.search_starts} more starts for the search"
        if self.final_starts:
            text += f", then {self.final_starts} to prove what it finds"
        if self.left_s is None or self.final_in_s is None:
            return text
        begins = f", beginning in about {minutes(self.final_in_s)}" if self.final_starts else ""
        return f"{text}{begins}; done in about {minutes(self.left_s)}"


def plan(
    records: Sequence[TrialRecord],
    proof: Sequence[Ahead],
    *,
    trials: int | None,
    time_s: float | None,
    points: int,
    aa_starts: int = 0,
    reference_every: int = 0,
) -> Plan:
    """Plan what is left of a run.

    `proof` are the starts that overload tests and final still need. The search ends after `trials`
    starts in all, or so early that these are done in `time_s` seconds with RESERVE to spare, and
    at the latest when none of the `points` that are left is. Of the reference `aa_starts` more
    begin the search, and one follows every `reference_every` trials.
    """
    wanted = points
    if trials is not None:
        wanted = max(0, min(points, trials - tried(records)))
    share = 1 / reference_every if reference_every else 0.0
    if not records:
        return Plan(aa_starts + round(wanted * (1 + share)), len(proof), None, None)
    reference_s = reference_start_s(records)
    each_s = search_start_s(records) + share * reference_s
    final_s = Lengths(records).of(proof)
    if time_s is not None and each_s:
        rest_s = time_s - CLOSING_S - (1 + RESERVE) * final_s - aa_starts * reference_s
        wanted = min(wanted, max(0, int(rest_s / each_s)))
    search_s = wanted * each_s + aa_starts * reference_s
    starts = aa_starts + round(wanted * (1 + share))
    return Plan(starts, len(proof), search_s, search_s + final_s)


def minutes(seconds: float) -> str:
    """Whole minutes for people, hours where there are many."""
    whole = max(1, round(seconds / 60))
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60:02d} min"
