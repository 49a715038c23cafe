"""Batching files against each other: the blocks of the final, with entrants that a user names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from tuner.records import Config, TrialRecord
from tuner.search.final import Pairs, shuffled, valid_blocks
from tuner.search.paired import Gain
from tuner.search.ranking import TIE
from tuner.trial import Task

Word = Literal["more", "less", "equal", "open"]


@dataclass(frozen=True, slots=True)
class Entrant:
    """A configuration under the name that the user gave it: equal ones may meet as well."""

    arm: str
    config: Config


@dataclass(frozen=True, slots=True)
class Compared:
    """What the blocks showed of one entrant beside the first.

    `rates_rps` are its sustainable rates by block, None where a block was not valid. `word` is
    None for the first itself: `more` or `less` where the whole interval lies on one side of zero,
    `equal` where it lies within TIE, else `open`.
    """

    entrant: Entrant
    rates_rps: tuple[float | None, ...]
    gain: Gain | None
    word: Word | None

    def describe(self, first: str) -> str:
        """The finding in words."""
        if self.word is None:
            return f"{self.entrant.arm}: what the others are held against"
        name = f"{self.entrant.arm} against {first}"
        gain = self.gain
        if gain is None and self.word != "open":
            which = self.entrant.arm if self.word == "less" else first
            return f"{name}: the SLO holds at no load with {which}"
        if gain is None or gain.low is None or gain.high is None:
            return f"{name}: too few valid blocks to tell; --blocks gives more"
        interval = f"{gain.percent:+.1f} % [{gain.low:+.1f}, {gain.high:+.1f}]"
        said = {
            "more": "proven to carry more",
            "less": "proven to carry less",
            "equal": "equal",
            "open": "no difference proven",
        }
        return f"{name}: {said[self.word]}, {interval}"


def measure_blocks(
    entrants: Sequence[Entrant],
    blocks: int,
    seed: int,
    measure: Callable[[Task], TrialRecord],
) -> list[TrialRecord]:
    """Measure every entrant once in every block, in randomised order on fresh starts.

    From an entrant's second start on its ladder begins where the earlier ones ended.
    """
    records: list[TrialRecord] = []
    for block in range(blocks):
        for entrant in shuffled(entrants, block, seed):
            known = [
                record.sustainable_rps
                for record in records
                if record.arm == entrant.arm and record.sustainable_rps
            ]
            task = Task(
                number=len(records),
                role="given",
                config=entrant.config,
                block=block,
                arm=entrant.arm,
                replicate=block + 1,
                expected_rps=fmean(known) if known else None,
            )
            records.append(measure(task))
    return records


def compared(records: Sequence[TrialRecord], entrants: Sequence[Entrant]) -> tuple[Compared, ...]:
    """Hold every entrant against the first; all intervals hold together at 95 %."""
    theirs = {
        entrant.arm: [record for record in records if record.arm == entrant.arm]
        for entrant in entrants
    }
    blocks = sorted({record.block for record in records if record.block is not None})
    first = theirs[entrants[0].arm]
    return tuple(
        _compared(entrant, theirs[entrant.arm], first, blocks, len(entrants) - 1)
        if number
        else Compared(entrant, _rates(first, blocks), None, None)
        for number, entrant in enumerate(entrants)
    )


def _compared(
    entrant: Entrant,
    ours: Sequence[TrialRecord],
    first: Sequence[TrialRecord],
    blocks: Sequence[int],
    comparisons: int,
) -> Compared:
    met = Pairs.of(ours, first)
    gain = met.gain(comparisons=comparisons)
    return Compared(entrant, _rates(ours, blocks), gain, _word(gain, met.ours, met.theirs))


def _rates(records: Sequence[TrialRecord], blocks: Sequence[int]) -> tuple[float | None, ...]:
    """Sustainable rates by block, None where one was not valid."""
    valid = valid_blocks(records)
    return tuple(valid[block].sustainable_rps if block in valid else None for block in blocks)


def _word(gain: Gain | None, ours: Sequence[float], theirs: Sequence[float]) -> Word:
    if len(ours) > 1 and any(ours) != any(theirs):  # one of them carries no load in any block
        if all(ours):
            return "more"
        if all(theirs):
            return "less"
    if gain is None or gain.low is None or gain.high is None:
        return "open"
    if gain.proven or gain.refuted:
        return "more" if gain.proven else "less"
    return "equal" if gain.low > -100 * TIE and gain.high < 100 * TIE else "open"
