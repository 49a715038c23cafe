"""What the tables of the page are made of."""

from dataclasses import dataclass

NARROW = "\u00a0"
"""A space that no line ends at."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the section: what, how much, and why it matters."""

    name: str
    value: str
    meaning: str
