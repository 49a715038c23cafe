"""The plan of a run: how many starts are left, when the final begins, when all is done.

Made anew before every start, from what the starts so far have taken. Nothing is kept, so a run
that was resumed plans as if it had never ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tuner.records import Config, TrialRecord
from tuner.search.ranking import APART, by_role, search_trials, tried, unbounded

CLOSING_S = 10.0
"""For the page and the plots, once everything is measured."""


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
    finalists: Sequence[Config | None],
    *,
    trials: int | None,
    time_s: float | None,
    points: int,
    aa_starts: int = 0,
    reference_every: int = 0,
) -> Plan:
    """Plan what is left of a run.

    `finalists` are the starts that the final still needs (None: of a configuration that is not
    known yet). The search ends after `trials` starts in all, or so early that the final is done
    in `time_s` seconds, and at the latest when none of the `points` that are left is. Of the
    reference `aa_starts` more begin the search, and one follows every `reference_every` trials.
    """
    wanted = points
    if trials is not None:
        wanted = max(0, min(points, trials - tried(records)))
    each = 1 + (1 / reference_every if reference_every else 0.0)
    if not records:
        return Plan(aa_starts + round(wanted * each), len(finalists), None, None)
    start_s = search_start_s(records)
    reference_s = aa_starts * final_start_s(records, None)
    final_s = sum(final_start_s(records, config) for config in finalists)
    if time_s is not None and start_s:
        rest_s = time_s - CLOSING_S - final_s - reference_s
        wanted = min(wanted, max(0, int(rest_s / (start_s * each))))
    search_s = wanted * each * start_s + reference_s
    return Plan(aa_starts + round(wanted * each), len(finalists), search_s, search_s + final_s)


def minutes(seconds: float) -> str:
    """Whole minutes for people, hours where there are many."""
    whole = max(1, round(seconds / 60))
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60:02d} min"


def search_start_s(records: Iterable[TrialRecord]) -> float:
    """Seconds that one more start of the search is expected to take.

    The mean of those that the search chose, once there are two: baselines take longer, since
    nothing is known when they are measured.
    """
    measured = search_trials(records)
    chosen = [record.wall_s for record in measured if record.role in {"guide", "sampler"}]
    walls = chosen if len(chosen) >= 2 else [record.wall_s for record in measured]
    return fmean(walls) if walls else 0.0


def final_start_s(records: Sequence[TrialRecord], config: Config | None) -> float:
    """Seconds that a start of a contender is expected to take.

    As in the final so far; before that as in the search, where it took the same warm-up.
    """
    again = [record for record in records if record.role == "final" and record.config == config]
    own = again or [record for record in records if _alike(record, config)]
    others = [record for record in records if record.role == "final"]
    shown = own or others
    if shown:
        return fmean(record.wall_s for record in shown)
    default = by_role(records, "default")
    return search_start_s(records) if default is None else default.wall_s


def _alike(record: TrialRecord, config: Config | None) -> bool:
    """Whether a trial of the search measured this configuration, whatever its queue's bound."""
    return (
        config is not None
        and record.role not in APART
        and unbounded(record.config) == unbounded(config)
    )
