"""Every error the tuner raises on purpose.

TunerError                 message + hint; the command line prints both and exits with `exit_code`
├── InputError             the user's input, exit code 2
│   ├── ScenarioError      a scenario file: names file, key path, value and remedy
│   ├── BatchingError      a batching parameters file, or a value the server would punish
│   ├── ModelError         a SavedModel that is missing, broken or cannot be batched
│   └── UsageError         a command line that asks for something impossible
├── CandidateError         a configuration the server refused or died of: a trial, recorded
├── HostError              this machine cannot go on: stops the run, nothing is lost
│   ├── PortTakenError     another program took a port that was free: a new start has others
│   └── StoreError         the run directory cannot be written or read
└── LoadError              the load generator itself failed
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class TunerError(Exception):
    """An error with a remedy. `hint` says what to do about it, and may be empty."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(TunerError):
    """What the user gave cannot be used."""

    exit_code: ClassVar[int] = 2


class ScenarioError(InputError):
    """A scenario that says something wrong. The message names file, key path and value."""


class BatchingError(InputError):
    """Batching parameters that TensorFlow Serving would refuse, crash on, or silently bend."""


class ModelError(InputError):
    """A SavedModel that is missing, unreadable, or cannot be batched."""


class UsageError(InputError):
    """A command line that asks for something that cannot be done."""


class CandidateError(TunerError):
    """The server refused this configuration or died of it. Recorded, never retried.

    `log_tail` holds the last lines of the server's own output.
    """

    def __init__(self, message: str, *, hint: str = "", log_tail: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log_tail = log_tail


class HostError(TunerError):
    """This machine, not the configuration, is at fault. The run stops and can be resumed."""


class PortTakenError(HostError):
    """Another program took a port between its choice and the server's binding it."""


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Map what the disk refuses inside the block, a write to `path`, to HostError."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"{path}: cannot be written: {error.strerror}",
            hint="make room or check the rights; a run that was stopped can be resumed",
        ) from None


class StoreError(HostError):
    """The run directory cannot be written or read."""


class LoadError(TunerError):
    """The load generator process failed; the server is not to blame."""
