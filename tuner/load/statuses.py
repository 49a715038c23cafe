"""The statuses that requests of one run ended with, numbered as they come up."""

from tuner.http2.answers import OK, StatusKey

MAX_STATUSES = 4096
"""Distinct (code, text) pairs kept apart in one run; later texts are folded into their code."""


class Statuses:
    """Numbers for statuses; OK is 0."""

    def __init__(self) -> None:
        self._numbers: dict[StatusKey, int] = {OK: 0}

    @property
    def keys(self) -> tuple[StatusKey, ...]:
        """All statuses so far, by number."""
        return tuple(self._numbers)

    def number(self, status: StatusKey) -> int:
        """The number of a status."""
        number = self._numbers.get(status)
        if number is not None:
            return number
        # A server that writes a counter into every message must not outgrow the uint16 column.
        if len(self._numbers) >= MAX_STATUSES:
            status = (status[0], "(further texts)")
        return self._numbers.setdefault(status, len(self._numbers))
