"""How far the machine itself can be trusted: noise between equal starts, and drift over hours.

The default is the reference: it is started again at the start of a run (an A/A test) and after
every so many trials. What its rates scatter by is noise; a change beyond the noise is drift.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tuner.measure.doubts import DISTURBED
from tuner.records import Config, Drift, Role, TrialRecord
from tuner.search.paired import detectable_percent, spread_of, student_quantile
from tuner.search.ranking import APART, by_role, spoilt, step_of
from tuner.words import per_second

DRIFT_FLOOR = 0.05
"""Smaller changes of log rate are never called drift."""

STEPS = 1.5
"""Nor are changes of fewer steps of the ladder, which knows a rate no finer."""

SURE = 0.95
"""Nor are changes that a single start shows by noise with this probability, by Student's t."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What equal starts of the reference say.

    `spread_percent` is the standard deviation between them, `detectable_percent` the smallest
    gain that the final's blocks would mostly prove; both None with fewer than two starts.
    """

    rates_rps: tuple[float, ...]
    spread_percent: float | None
    detectable_percent: float | None

    def describe(self, blocks: int) -> str:
        """The A/A test in words."""
        shown = ", ".join(map(per_second, self.rates_rps))
        if self.spread_percent is None:
            return f"A/A test: the default carried {shown}; one start says nothing of noise"
        text = (
            f"A/A test: equal starts of the default carried {shown}, a spread of "
            f"{self.spread_percent:.1f} %"
        )
        if self.detectable_percent is None:
            return text
        return (
            f"{text}; {blocks} blocks will prove a gain from {self.detectable_percent:.0f} % on, "
            f"as far as {len(self.rates_rps)} starts can tell"
        )


def references(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The default's valid starts since the last drift, the drift's own included."""
    default = by_role(records, "default")
    found: list[TrialRecord] = []
    for record in records:
        if record.drift is not None:
            found = found[-1:]  # the start that raised the suspicion; the drift's own follows
        if record is default or record.role == "reference":
            found.append(record)
    return [record for record in found if record.sustainable_rps]


def noise_of(records: Sequence[TrialRecord], blocks: int, *, comparisons: int = 1) -> Noise:
    """What is known of the noise by now."""
    known = references(records)
    rates = [record.sustainable_rps or 0.0 for record in known]
    spread = spread_of(rates)
    return Noise(
        tuple(rates),
        None if spread is None else math.expm1(spread) * 100,
        detectable_percent(
            rates, blocks, comparisons=comparisons, steps=[step_of(record) for record in known]
        ),
    )


def suspicious(rate_rps: float, before: Sequence[float], resolution: float) -> bool:
    """Whether a start of the reference differs from those before it by more than noise."""
    if not before or rate_rps <= 0:
        return bool(before)
    change = math.log(rate_rps) - fmean(map(math.log, before))
    spread = spread_of(before)
    allowed = 0.0
    if spread is not None:
        point = student_quantile(SURE, len(before) - 1)
        allowed = point * spread * math.sqrt(1 + 1 / len(before))
    return abs(change) > max(DRIFT_FLOOR, STEPS * resolution, allowed)


def drift_at(
    records: Sequence[TrialRecord], latest: TrialRecord, resolution: float
) -> Drift | None:
    """The drift that `latest`, a start of the reference not in `records` yet, confirms.

    It takes two starts in a row that differ from the earlier ones in the same direction: one may
    be an accident. Spoilt is what was measured since the reference was last as it had been.
    """
    known = references(records)
    if len(known) < 2 or records[-1] is not known[-1] or not latest.sustainable_rps:
        return None
    *before, first = known
    rates = [record.sustainable_rps or 0.0 for record in before]
    new = [first.sustainable_rps or 0.0, latest.sustainable_rps]
    if not all(suspicious(rate, rates, resolution) for rate in new):
        return None
    was, now = fmean(rates), fmean(new)
    if (new[0] > was) != (new[1] > was):
        return None
    lost = tuple(
        record.number
        for record in records
        if record.number > before[-1].number and record.role not in APART
    )
    return Drift((now / was - 1) * 100, lost)


def to_repeat(records: Sequence[TrialRecord]) -> list[tuple[Role, Config]]:
    """Trials of the search to be measured once more: spoilt by drift, or by another program.

    Each configuration once at most: what fails twice is left as it is.
    """
    lost = spoilt(records)
    due: list[tuple[Role, Config]] = []
    for record in records:
        if record.role in APART or not (record.number in lost or _disturbed(record)):
            continue
        times = sum(other.config == record.config and other.role not in APART for other in records)
        if times == 1:
            due.append((record.role, record.config))
    return due


def _disturbed(record: TrialRecord) -> bool:
    return record.outcome == "invalid" and any(
        doubt.code in DISTURBED for level in record.levels for doubt in level.verdict.doubts
    )
