"""How long the next start of a server will take, from what starts of its kind took so far.

Without the time that they waited for another program: it says nothing of the next.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from tuner.records import Config, Role, TrialRecord
from tuner.search.ranking import APART, by_role, search_trials, unbounded


@dataclass(frozen=True, slots=True)
class Ahead:
    """A start that is to come; `config` is None where it is not known yet whose it will be."""

    role: Literal["overload", "final"]
    config: Config | None


def search_start_s(records: Iterable[TrialRecord]) -> float:
    """Seconds that one more start of the search is expected to take.

    The mean of those that the search chose, once there are two: baselines take longer, since
    nothing is known when they are measured.
    """
    measured = search_trials(records)
    chosen = [record.own_s for record in measured if record.role in {"guide", "sampler"}]
    walls = chosen if len(chosen) >= 2 else [record.own_s for record in measured]
    return fmean(walls) if walls else 0.0


def reference_start_s(records: Sequence[TrialRecord]) -> float:
    """Seconds that one more start of the reference is expected to take."""
    walls = [record.own_s for record in records if record.role == "reference"]
    default = by_role(records, "default")
    if walls or default is None:
        return fmean(walls) if walls else search_start_s(records)
    return default.own_s


class Lengths:
    """Seconds that starts after the search are expected to take, from the records so far."""

    def __init__(self, records: Sequence[TrialRecord]) -> None:
        self._records = records
        self._default = by_role(records, "default")
        self._searched: dict[Config, list[TrialRecord]] = {}
        for record in records:
            if record.role not in APART:
                self._searched.setdefault(unbounded(record.config), []).append(record)
        starting = [r.start_s for r in records if r.start_s is not None and not r.swapped]
        self._fresh_s = fmean(starting) if starting else 0.0
        finals = self._ratio("final")
        # Before the first final the references, measured alike, may warn of a longer one.
        self._pace = max(1.0, self._ratio("reference") or 1.0) if finals is None else finals
        self._known: dict[Ahead, float] = {}

    def of(self, starts: Iterable[Ahead]) -> float:
        """Seconds of all these starts together."""
        return sum(self._start_s(ahead) for ahead in starts)

    def _start_s(self, ahead: Ahead) -> float:
        if ahead not in self._known:
            self._known[ahead] = self._expected_s(ahead)
        return self._known[ahead]

    def _expected_s(self, ahead: Ahead) -> float:
        """Seconds of one start, from those of its kind.

        What the search took for its configuration, longer by what finals took so far, counts as
        much as one start of its own in the final: a single one may be far off.
        """
        same = [record for record in self._records if record.role == ahead.role]
        if same and (ahead.role == "overload" or ahead.config is None):
            return fmean(record.own_s for record in same)
        met = self._met(ahead.config) or ([] if self._default is None else [self._default])
        if not met:
            return search_start_s(self._records)
        foretold_s = self._fresh_s + self._pace * fmean(map(_after_start_s, met))
        own = [record.own_s for record in same if record.config == ahead.config]
        return fmean([foretold_s, *own])

    def _met(self, config: Config | None) -> list[TrialRecord]:
        """Where the search measured a configuration, whatever its queue's bound."""
        return [] if config is None else self._searched.get(unbounded(config), [])

    def _ratio(self, role: Role) -> float | None:
        """How much longer a role's starts measured than the search did; None without any.

        Their ladders begin where they will end, and have finer steps.
        """
        again = [
            (record, met)
            for record in self._records
            if record.role == role and (met := self._met(record.config))
        ]
        before_s = sum(fmean(map(_after_start_s, met)) for _, met in again)
        return sum(_after_start_s(record) for record, _ in again) / before_s if before_s else None


def _after_start_s(record: TrialRecord) -> float:
    """Seconds of a trial from when its server had started."""
    return max(0.0, record.own_s - (record.start_s or 0.0))
