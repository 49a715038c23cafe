"""Progress for people: one live line on a terminal, plain lines in a log."""

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from tuner.clock import NS_PER_S, now_ns
from tuner.records import TrialRecord
from tuner.trial import Task
from tuner.words import per_second

OUTCOMES = {
    "ok": "holds the SLO",
    "infeasible": "misses the SLO at every load tried",
    "invalid": "could not be measured reliably",
    "failed": "failed",
}

LOG_EVERY_S = 30
"""In a log the progress of one step, such as a pull, is a line no more often than this."""


class Narrator(AbstractContextManager["Narrator"]):
    """Tells on stderr what a run is doing, so that stdout stays for results."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        if sys.stderr.isatty():
            self._live = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
        self._row = None if self._live is None else self._live.add_task("", total=None, left="")
        self._title = ""
        self._step = ""
        self._started_ns = self._noted_ns = now_ns()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def live(self) -> bool:
        """Whether there is a terminal with a line that changes."""
        return self._live is not None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(f"{self._clock()}  {text}"))

    def note(self, text: str) -> None:
        """Tell of a step; those inside a trial are shown on a terminal only."""
        if self._live is not None and self._row is not None:
            self._live.update(self._row, description=f"{self._title}  {text}")
        elif not self._title and self._is_due(text):
            self.say(text)

    def begin(self, task: Task, *, done: int, total: int, left_s: float | None) -> None:
        """A trial starts."""
        self._title = task.describe()
        left = "" if left_s is None else f"about {duration(left_s)} left"
        if self._live is not None and self._row is not None:
            self._live.update(
                self._row, completed=done, total=total, left=left, description=self._title
            )
        else:
            self.say(f"trial {done + 1} of {total}: {self._title}{left and f' ({left})'}")

    def advance(self, text: str, *, done: int, total: int, left_s: float) -> None:
        """A part of a long trial is over; `done` of `total` in whatever unit."""
        if self._live is not None and self._row is not None:
            left = f"about {duration(left_s)} left"
            self._live.update(self._row, completed=done, total=total, left=left, description=text)
        else:
            self.say(text)

    def finish(self, record: TrialRecord) -> None:
        """A trial is on disk."""
        text = f"#{record.number} {record.role:<8} {record.config.label():<40}"
        self.say(f"{text} {finding(record)}  [{duration(record.wall_s)}]")

    def _is_due(self, text: str) -> bool:
        """Whether a note is the first of its step (what stands before a bar), or its turn is."""
        step, now = text.partition(" [")[0], now_ns()
        if step == self._step and now - self._noted_ns < LOG_EVERY_S * NS_PER_S:
            return False
        self._step, self._noted_ns = step, now
        return True

    def _clock(self) -> str:
        seconds = (now_ns() - self._started_ns) // NS_PER_S
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def finding(record: TrialRecord) -> str:
    """What a trial showed, in a few words."""
    codes = dict.fromkeys(note.code for note in record.notes)
    noted = "".join(f"; {code.replace('-', ' ')}" for code in codes)
    if record.outcome == "ok" and record.sustainable_rps is not None:
        bound = "" if record.ceiling_rps is not None else "at least "
        level = record.reference
        tail = None if level is None else level.measurement.percentiles_ms.get("p99")
        at = "" if tail is None else f", p99 {tail:.1f} ms"
        return f"{bound}{per_second(record.sustainable_rps)} sustainable{at}{noted}"
    if record.overload:
        return "; ".join(found.describe() for found in record.overload)
    if record.failure is not None:
        return f"failed: {record.failure.text}"
    return f"{OUTCOMES[record.outcome]}{noted}"


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `7 min`, `3 h 05 min`."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
