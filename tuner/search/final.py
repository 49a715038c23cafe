"""The final: who meets in it, in which order, and what its blocks showed of each.

Every block starts a server for each contender, in an order drawn anew, and all of a block meet
the same arrivals, which no earlier block has seen.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeVar

from tuner.records import Config, TrialRecord
from tuner.search.paired import Gain, Steps, paired_gain
from tuner.search.queue_bound import deployable
from tuner.search.ranking import by_role, ranked, rate_of, step_of
from tuner.slo import Slo

Arm = Literal["winner", "runner-up", "default", "off"]

T = TypeVar("T")

NEAR = 0.85
"""Share of the default's rate in the search from which on a final may yet turn the order."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One that meets the others: `config` as it is deployed, `trial` where the search met it."""

    arm: Arm
    config: Config
    trial: TrialRecord

    @property
    def expected_rps(self) -> float | None:
        """The sustainable rate that the search found, from where the final starts."""
        return self.trial.sustainable_rps or None


@dataclass(frozen=True, slots=True)
class Finding:
    """What the final showed of a contender.

    `records` are its trials in order of blocks; `gain` is over the default, None for the default
    itself and where no block holds a valid rate of both. `beaten` says that it carried load in
    every block in which the default carried none.
    """

    contender: Contender
    records: tuple[TrialRecord, ...]
    gain: Gain | None
    pairs: int
    beaten: bool = False

    @property
    def proven(self) -> bool:
        """Whether it is shown to carry more than the default."""
        return self.beaten or (self.gain is not None and self.gain.proven)


def contenders(records: Sequence[TrialRecord], slo: Slo, number: int = 4) -> tuple[Contender, ...]:
    """Name up to `number` of winner, default, runner-up and off, in this order of importance.

    Where the search ranks the default first, who comes next is the winner that it has to beat:
    the default may have been lucky. Empty where nobody comes near it, which then needs no proof.
    """
    default, off = by_role(records, "default"), by_role(records, "off")
    if default is None:
        return ()
    best = rate_of(default, records)
    others = [trial for trial in ranked(records) if trial.config != default.config]
    if not others or max(rate_of(trial, records) for trial in others) < NEAR * best:
        return ()
    first, *rest = others
    found = [Contender("winner", deployable(first, slo, records), first)]
    found.append(Contender("default", default.config, default))
    found += [Contender("runner-up", deployable(trial, slo, records), trial) for trial in rest[:1]]
    if off is not None and off.sustainable_rps and off.config not in {c.config for c in found}:
        found.append(Contender("off", off.config, off))
    return tuple(found[:number])


def shuffled(contenders: Iterable[T], block: int, seed: int) -> list[T]:
    """The order of one block, drawn anew for each: no contender always comes first."""
    order = list(contenders)
    random.Random(seed * 1000 + block).shuffle(order)
    return order


def final_blocks(records: Iterable[TrialRecord]) -> dict[str, tuple[TrialRecord, ...]]:
    """The final's measurements by configuration id, in order of blocks."""
    blocks: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.role == "final":
            blocks.setdefault(record.config.id, []).append(record)
    return {
        config_id: tuple(sorted(found, key=lambda record: record.block or 0))
        for config_id, found in blocks.items()
    }


def findings(records: Sequence[TrialRecord], slo: Slo) -> tuple[Finding, ...]:
    """What the final showed of every contender that was in it.

    The best of winner and runner-up is picked afterwards, so their intervals hold together; off
    is in the final to be seen, and its interval stands for itself.
    """
    blocks = final_blocks(records)
    present = [found for found in contenders(records, slo) if found.config.id in blocks]
    candidates = sum(found.arm in {"winner", "runner-up"} for found in present)
    default = next((found for found in present if found.arm == "default"), None)
    theirs = () if default is None else blocks[default.config.id]
    return tuple(
        _finding(found, blocks[found.config.id], theirs, comparisons=candidates)
        for found in present
    )


def _finding(
    contender: Contender,
    records: tuple[TrialRecord, ...],
    theirs: Iterable[TrialRecord],
    *,
    comparisons: int,
) -> Finding:
    if contender.arm == "default":
        return Finding(contender, records, None, 0)
    met = Pairs.of(records, theirs)
    return Finding(
        contender,
        records,
        met.gain(comparisons=1 if contender.arm == "off" else comparisons),
        len(met.ours),
        beaten=bool(met.ours) and all(met.ours) and not any(met.theirs),
    )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sustainable rates of two in the blocks in which both were valid, with their steps."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    steps: Steps

    @classmethod
    def of(cls, ours: Iterable[TrialRecord], theirs: Iterable[TrialRecord]) -> Self:
        """Pair the trials of two by their blocks."""
        first, second = valid_blocks(ours), valid_blocks(theirs)
        met = [(first[block], second[block]) for block in first if block in second]
        return cls(
            tuple(our.sustainable_rps or 0.0 for our, _ in met),
            tuple(their.sustainable_rps or 0.0 for _, their in met),
            ([step_of(our) for our, _ in met], [step_of(their) for _, their in met]),
        )

    def gain(self, *, comparisons: int = 1) -> Gain | None:
        """The gain of ours over theirs."""
        return paired_gain(self.ours, self.theirs, comparisons=comparisons, steps=self.steps)


def valid_blocks(records: Iterable[TrialRecord]) -> dict[int, TrialRecord]:
    """Trials by block, where they were measured validly."""
    return {
        record.block: record
        for record in records
        if record.sustainable_rps is not None and record.block is not None
    }


def ahead(first: Finding, second: Finding) -> Gain | None:
    """The gain of one contender over another, from the blocks in which both were measured."""
    return Pairs.of(first.records, second.records).gain()
