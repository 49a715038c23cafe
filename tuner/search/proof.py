"""What is measured once the search is over: the overload tests, and the blocks of the final.

Both say what they still need from what is on record, so that a run can be planned long before and
resumed in the middle of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tuner.records import Config, TrialRecord
from tuner.search.final import Contender, contenders, shuffled
from tuner.search.lengths import Ahead, Lengths
from tuner.search.plan import CLOSING_S
from tuner.search.queue_bound import CARRIED, next_bound, ours, overload_tests
from tuner.search.ranking import by_role
from tuner.search.shape import Shape
from tuner.slo import Slo

MOST_BLOCKS = 10
"""Blocks that time which is left over may make of fewer: as many as the longest runs ask for."""

CANDIDATES = frozenset({"winner", "runner-up"})
"""Arms whose configurations may be recommended, and are overloaded before."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The end of a run, as `records` foretell it; `met` are those who meet in the final.

    `searching` says that contenders may change yet. `filling` lets blocks beyond the shape's
    follow while there is time. Whether they do never depends on what the blocks before them
    showed: who adds blocks until a gain is proven proves one too often.
    """

    slo: Slo
    seed: int
    shape: Shape
    records: Sequence[TrialRecord]
    searching: bool
    filling: bool
    lengths: Lengths = field(init=False)
    met: tuple[Contender, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Look up who meets as things stand, and how long starts take, once."""
        object.__setattr__(self, "lengths", Lengths(self.records))
        met = contenders(self.records, self.slo, self.shape.contenders)
        object.__setattr__(self, "met", met)

    @property
    def overloaded(self) -> list[Contender]:
        """Who may be recommended, by importance: all are tried under overload before the final.

        The default comes last: it is what the others are held against, and what may be kept.
        """
        if not self.shape.overload or not self.shape.blocks or self._begun:
            return []
        default = by_role(self.records, "default")
        kept = [] if default is None else [Contender("default", default.config, default)]
        candidates = [item for item in self.met if item.arm in CANDIDATES]
        return [item for item in (*candidates, *kept) if item.trial.sustainable_rps]

    def next_test(self, contender: Contender) -> Config | None:
        """The bound of a contender's queue to try next; None where there is nothing to learn."""
        return next_bound(contender.trial, self.slo, self.records)

    def shares(self, contender: Contender) -> tuple[float, ...]:
        """The loads of its next test: a queue that we bound has to show what it carries, too."""
        bounded = ours(contender.trial.config)
        return (CARRIED, *self.shape.overload) if bounded else self.shape.overload

    def fits_test(self, contender: Contender, config: Config, time_s: float | None) -> bool:
        """Whether a test ends in time; the default's and a repeated one yield to the final."""
        again = bool(overload_tests(contender.trial.config, self.records))
        after = self._missing() if again or contender.arm == "default" else []
        return self.fits([Ahead("overload", config), *after], time_s)

    def block(self, number: int, time_s: float | None) -> list[Contender] | None:
        """Whom block `number` still lacks and has time for, in an order drawn for it.

        Where not all fit, the first by importance. None where the time is over: winner and default
        are measured both or neither.
        """
        chosen = self._fitting(number, [], time_s)
        if chosen is None:
            return None
        return [item for item in shuffled(self.met, number, self.seed) if item in chosen]

    @property
    def blocks(self) -> range:
        """Numbers of the blocks that there may be."""
        blocks = self.shape.blocks
        return range(max(blocks, MOST_BLOCKS) if self.filling and blocks else blocks)

    @property
    def unfinished(self) -> bool:
        """Whether the final has begun, and not all of its blocks are done."""
        return self._begun and bool(self._missing())

    @property
    def _begun(self) -> bool:
        return any(record.role == "final" for record in self.records)

    def wanted(self) -> list[Ahead]:
        """All starts that are still needed, in order."""
        return [*self._overloads(), *self._missing()]

    def within(self, time_s: float | None) -> list[Ahead]:
        """The starts that so many seconds are expected to have room for; None: no deadline."""
        if time_s is None:
            return self.wanted()
        found = self._overloads()
        if not self.fits(found, time_s):
            found = []
        for number in self.blocks:
            chosen = self._fitting(number, found, time_s)
            if chosen is None:
                break
            found += [_final(item) for item in chosen]
        return found

    def fits(self, starts: Sequence[Ahead], time_s: float | None) -> bool:
        """Whether these starts end in time for what closes a run."""
        return time_s is None or self.lengths.of(starts) + CLOSING_S <= time_s

    def _expected(self) -> list[Contender | None]:
        """Who will meet; None for one that the search may yet find."""
        met: list[Contender | None] = [*self.met]
        return met + [None] * (self.shape.contenders - len(met) if self.searching else 0)

    def _fitting(
        self, number: int, before: Sequence[Ahead], time_s: float | None
    ) -> list[Contender | None] | None:
        """Of those that a block lacks, as many as fit after the starts that come `before`."""
        lacking = self._lacking(number)
        essential = sum(item in lacking for item in self._expected()[:2])
        for count in range(len(lacking), essential - 1, -1):
            if self.fits([*before, *map(_final, lacking[:count])], time_s):
                return lacking[:count]
        return None

    def _lacking(self, number: int) -> list[Contender | None]:
        """Whom a block has not measured yet, by importance."""
        measured = {record.config.id for record in self.records if record.block == number}
        return [
            item for item in self._expected() if item is None or item.config.id not in measured
        ]

    def _missing(self) -> list[Ahead]:
        return [
            _final(item) for number in range(self.shape.blocks) for item in self._lacking(number)
        ]

    def _overloads(self) -> list[Ahead]:
        found = [
            Ahead("overload", config)
            for contender in self.overloaded
            if (config := self.next_test(contender)) is not None
        ]
        if self.searching and self.shape.overload and self.shape.blocks:
            expected = 2 + (self.shape.contenders > 2)  # winner and default, and the runner-up
            found += [Ahead("overload", None)] * (expected - len(self.overloaded))
        return found


def _final(contender: Contender | None) -> Ahead:
    return Ahead("final", None if contender is None else contender.config)
