"""What every way of running TensorFlow Serving has in common."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from tuner.records import Config, Endpoint, ServerIdentity


class Server(Protocol):
    """A server that was started and answers."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""

    def check(self) -> None:
        """Raise CandidateError where the server has died since it was ready."""

    def scrape(self) -> str | None:
        """Read the server's Prometheus page; None where it exports none."""

    def show(self, folders: Sequence[Path]) -> None:
        """Have the server see version folders that were made since it was started.

        On another host it sees none of this host's. Raises HostError.
        """


class Launcher(Protocol):
    """Starts a server for one configuration and stops it, whatever happens between."""

    def identify(self) -> ServerIdentity:
        """Say which server is measured. Raises HostError where there is none to start."""

    def launch(self, config: Config, folder: Path) -> AbstractContextManager[Server]:
        """Start the server with `config`; files and the log go to `folder`.

        The context yields once the server is ready and leaves no process behind.
        Raises CandidateError where the configuration is refused or kills the server, HostError
        where this machine is at fault, ModelError where the model cannot be served at all.
        """

    def close(self) -> None:
        """Give back what is held between two starts. Nothing can be started afterwards."""


class Keeper(Launcher, Protocol):
    """A launcher whose server may live on from one trial to the next.

    Its `close` stops that server; the next start is a new one.
    """


def log_tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a server's log, for an error or a record."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def log_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a log that may still grow; none where it is not there yet."""
    try:
        with path.open(errors="replace") as file:
            yield from file
    except OSError:
        return
