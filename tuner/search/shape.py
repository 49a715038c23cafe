"""How a run spends its server starts: how much goes into the search, how much into the proof."""

from dataclasses import dataclass, replace
from typing import Literal

from tuner.scenario import SearchSection


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured besides the search's own configurations.

    `contenders` meet in each of the final's `blocks`. The default is started `aa_starts` more
    times at the start, and once more after every `reference_every` trials (0: never). Before the
    final winner, runner-up and default are tested by `overload`, shares of their sustainable
    rates.
    """

    contenders: int
    blocks: int
    aa_starts: int = 0
    reference_every: int = 0
    overload: tuple[float, ...] = (1.2, 1.5)

    def left_out(self) -> str:
        """Say what a run this short does without; empty where it does all."""
        if not self.blocks:
            return "this run has no final: nothing it finds is proven"
        missing = []
        if not self.aa_starts:
            missing.append("an A/A test of the noise")
        if not self.reference_every:
            missing.append("a watch for drift")
        if not self.overload:
            missing.append("an overload test")
        if self.contenders < 4:
            absent = "batching off" if self.contenders == 3 else "runner-up and batching off"
            missing.append(f"{absent} in the final")
        return f"this run does without {', '.join(missing)}" if missing else ""


SHAPES = (
    (60, Shape(contenders=4, blocks=10, aa_starts=3, reference_every=10)),
    (24, Shape(contenders=4, blocks=5, aa_starts=2, reference_every=8)),
    (10, Shape(contenders=3, blocks=3, aa_starts=1, reference_every=6)),
    (0, Shape(contenders=2, blocks=3)),
)
"""What `auto` means, by the fewest starts of the search. A third of the starts are for proof."""


def shape_of(search: SearchSection, starts: int) -> Shape:
    """The scenario's own settings, and where they say `auto` what suits so many starts."""
    suited = next(shape for fewest, shape in SHAPES if starts >= fewest)
    return Shape(
        contenders=_chosen(search.final_contenders, suited.contenders),
        blocks=_chosen(search.final_blocks, suited.blocks),
        aa_starts=_chosen(search.aa_starts, suited.aa_starts),
        reference_every=_chosen(search.reference_every, suited.reference_every),
        overload=suited.overload if search.overload == "auto" else search.overload,
    )


FEWEST_BLOCKS = 3
"""Two blocks leave Student's t one degree of freedom, with which nearly nothing is proven."""

BEFORE_THE_FINAL = 3
"""Starts without which a final has nothing to prove: both baselines, and one of the search."""


def within(shape: Shape, starts: int) -> Shape:
    """Cut a final that would take more than half of all `starts`, to nothing if need be.

    Winner and default keep FEWEST_BLOCKS even where that is more than half; with time for fewer,
    searching on is worth more than a proof that proves nothing.
    """
    if shape.contenders * shape.blocks <= starts / 2:
        return shape
    fewest = min(FEWEST_BLOCKS, shape.blocks)
    blocks = max(fewest, min(shape.blocks, starts // 4))
    enough = BEFORE_THE_FINAL + 2 * fewest <= starts
    return replace(shape, contenders=2, blocks=blocks if enough else 0)


def _chosen(value: int | Literal["auto"], suited: int) -> int:
    return suited if value == "auto" else value
