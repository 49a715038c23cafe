"""What the search found, ranked: which trials count, and which configuration is best of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from tuner.records import Config, Overload, TrialRecord
from tuner.search.space import UNBOUNDED_QUEUE
from tuner.slo import Slo
from tuner.words import per_second

TIE = 0.03
"""Configurations whose sustainable rates differ by less are told apart by simplicity alone."""

PATIENT = 0.2
"""A batch timeout of this share of the tightest limit may make low loads slower than high ones."""

APART = frozenset({"final", "reference", "overload"})
"""Roles of trials that measure again what the search has measured already."""


def search_trials(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials of the search that count: first measurements, which no drift has spoilt."""
    listed = list(records)
    lost = spoilt(listed)
    return [record for record in listed if record.role not in APART and record.number not in lost]


def bounded(trial: TrialRecord) -> bool:
    """Whether some load above the sustainable rate was seen to miss the promise.

    Where none was, those loads stayed undecided or were not tried: the rate is a lower bound.
    """
    return any(
        level.verdict.feasible is False
        and (level.measurement.offered_rps or 0.0) > (trial.sustainable_rps or 0.0)
        for level in trial.levels
        if level.measurement.loop == "open"
    )


def step_of(trial: TrialRecord) -> float:
    """How finely a trial's rate is known: the log distance to the next load not shown to hold.

    0 where no load above was tried, or none holds.
    """
    rate_rps = trial.sustainable_rps or 0.0
    above = [
        level.measurement.offered_rps or 0.0
        for level in trial.levels
        if level.measurement.loop == "open" and level.verdict.feasible is not True
    ]
    next_rps = min((offered for offered in above if offered > rate_rps), default=rate_rps)
    return math.log(next_rps / rate_rps) if rate_rps > 0 else 0.0


def tried(records: Iterable[TrialRecord]) -> int:
    """How many configurations the search has measured; one measured again counts once."""
    return len({record.config.id for record in search_trials(records)})


def spoilt(records: Iterable[TrialRecord]) -> frozenset[int]:
    """Numbers of the trials during which the machine changed."""
    return frozenset(
        number for record in records if record.drift for number in record.drift.spoils
    )


def by_role(records: Iterable[TrialRecord], role: str) -> TrialRecord | None:
    """The first trial with this role that counts; where none does, the first of all."""
    listed = list(records)
    lost = spoilt(listed)
    found = [record for record in listed if record.role == role]
    sound = (
        record for record in found if record.outcome != "invalid" and record.number not in lost
    )
    return next(sound, next(iter(found), None))


def ranked(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The search's trials that hold the SLO at some load, the one to recommend first.

    Time and again the first is the highest sustainable rate left, or, among rates within TIE of
    it, the configuration nearest the default. A larger lead may still be noise: that is for the
    final to find out.
    """
    left = [record for record in search_trials(records) if record.sustainable_rps]
    rates = {record.number: rate_of(record, records) for record in left}
    order: list[TrialRecord] = []
    while left:
        best = max(rates[record.number] for record in left)
        near = [record for record in left if rates[record.number] >= best * (1 - TIE)]
        first = min(near, key=lambda record: (simplicity(record.config), -rates[record.number]))
        order.append(first)
        left = [record for record in left if record.config != first.config]
    return order


def rate_of(trial: TrialRecord, records: Sequence[TrialRecord]) -> float:
    """A trial's sustainable rate on the machine as it is now.

    The mean of all such starts where it was measured again, each corrected by the drifts that
    the references have found since.
    """
    again = [
        record
        for record in records
        if record.role == "reference"
        and record.config == trial.config
        and record.sustainable_rps is not None
    ]
    return fmean(
        (record.sustainable_rps or 0.0) * changed_since(record, records)
        for record in (trial, *again)
    )


def changed_since(trial: TrialRecord, records: Iterable[TrialRecord]) -> float:
    """The factor by which drifts after a trial have changed what the machine carries."""
    return math.prod(
        1 + record.drift.percent / 100
        for record in records
        if record.drift and record.number > trial.number
    )


def patient(config: Config, slo: Slo) -> bool:
    """Whether batches may wait to be filled for a good part of the limit."""
    timeout_micros = 0 if config.batching is None else config.batching.batch_timeout_micros
    return (timeout_micros or 0) / 1000 >= PATIENT * slo.tightest_ms


def surpassed(test: TrialRecord) -> Overload | None:
    """The highest load of an overload test that was carried, contradicting the rate shown."""
    kept = [found for found in test.overload if found.finding == "carries" and found.share > 1]
    return max(kept, key=lambda found: found.share, default=None)


def understated(test: TrialRecord) -> str:
    """Words for an overload test that contradicts the rate it is made of, else nothing."""
    most = surpassed(test)
    if most is None:
        return ""
    return (
        f"the true rate may be higher: at {most.share * 100:.0f} % of what was shown for "
        f"{test.config.label()}, {per_second(most.offered_rps)}, the latency limits were kept"
    )


def choose(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial to recommend; None where no configuration met the SLO."""
    return next(iter(ranked(records)), None)


def simplicity(config: Config) -> float:
    """How far a configuration lies from the shipped default; less is simpler.

    The default is 0 and batching off is nearest to it; elsewhere each doubling of a parameter
    away from the default counts 1, and every additional setting 2.
    """
    batching = config.batching
    if batching is None:
        return 0.5
    if batching.max_enqueued_batches != UNBOUNDED_QUEUE:
        return 0.0
    steps = abs(math.log2(batching.row_limit / 1000))
    steps += math.log2(1 + (batching.batch_timeout_micros or 0) / 1000)
    added = bool(batching.allowed_batch_sizes) + bool(batching.enable_large_batch_splitting)
    return 1.0 + steps + 2.0 * added + 2.0 * len(config.flags)


def unbounded(config: Config) -> Config:
    """The configuration without regard to its queue."""
    if config.batching is None:
        return config
    return replace(config, batching=replace(config.batching, max_enqueued_batches=None))
