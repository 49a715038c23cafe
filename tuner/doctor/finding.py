"""What a check has found: how bad it is, what it is, and what to do about it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tuner.errors import TunerError
from tuner.server.known import recognise

Light = Literal["green", "yellow", "red"]
"""green: fine. yellow: works, with a caveat for the figures. red: `tuner tune` would fail."""

Report = Callable[["Finding"], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is empty where there is nothing to do.

    `check` is a short stable name for programs, `detail` what a person may want to read beside.
    """

    check: str
    light: Light
    what: str
    remedy: str = ""
    detail: str = ""


def of_error(check: str, error: TunerError) -> Finding:
    """Tell an error as a finding, with the remedy that is known for what it quotes.

    A candidate's error says where its log is; all others come with a remedy of their own.
    """
    log = getattr(error, "log_tail", "")
    known = recognise(f"{error.message}\n{log}")
    if known is None:
        return Finding(check, "red", error.message, error.hint, log)
    remedy = known.remedy if log or not error.hint else error.hint
    return Finding(known.check, "red", f"{known.what}: {error.message}", remedy, log)


@contextmanager
def caught(check: str, report: Report) -> Iterator[None]:
    """Report an error of the block as a finding, and go on after it."""
    try:
        yield
    except TunerError as error:
        report(of_error(check, error))


def worst(findings: Sequence[Finding]) -> Light:
    """The worst light among findings; green where there are none."""
    lights: tuple[Light, ...] = ("red", "yellow")
    return next((light for light in lights if any(f.light == light for f in findings)), "green")
