"""A server in a container: what it says, and whether it is still there."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from docker.models.containers import Container

from tuner.errors import CandidateError, HostError, disk
from tuner.records import Endpoint
from tuner.server import flags
from tuner.server.containers.copies import as_version, put
from tuner.server.containers.ending import Ending, ending, oom_kills
from tuner.server.containers.engine import Engine, mapped
from tuner.server.containers.ssh import Tunnel
from tuner.server.launcher import log_tail
from tuner.server.readiness import Ports, fetch

LOG_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Log:
    """A file that a container's output is written to as it comes."""

    path: Path
    writer: threading.Thread

    def wait(self) -> None:
        """Wait until all that a container said before it ended is in the file."""
        self.writer.join(LOG_END_S)


@dataclass(frozen=True, slots=True)
class RunningContainer:
    """A server in a container that was ready once."""

    endpoint: Endpoint
    container: Container
    engine: Engine
    ports: Ports
    log: Log
    oom_kills: int
    memory: str
    tunnel: Tunnel | None = None

    def check(self) -> None:
        """Raise CandidateError where the server has died, HostError where the engine has."""
        if self.tunnel is not None:
            self.tunnel.check()
        found = ended(self.container, self.engine, self.oom_kills)
        if found is None:
            return
        if found.from_outside:
            raise stopped_from_outside(found)
        self.log.wait()
        raise CandidateError(
            f"the server died while it served ({found.text})",
            hint=found.hint(self.memory) or f"its output is in {self.log.path}",
            log_tail=log_tail(self.log.path),
        )

    def scrape(self) -> str | None:
        """Read the Prometheus page; None where it cannot be had just now."""
        return fetch(self.ports.rest, flags.METRICS_PATH)

    def show(self, folders: Sequence[Path]) -> None:
        """See `Server.show`."""
        if not self.engine.local:
            for folder in folders:
                put(self.engine, self.container, folder.parent, as_version(folder))


def ended(container: Container, engine: Engine, oom_before: int) -> Ending | None:
    """Ask how a container has ended; None while it runs. Raises HostError without an engine."""
    with mapped(engine.where):
        container.reload()
    return ending(container.attrs["State"], grown=oom_kills() > oom_before and engine.local)


def stopped_from_outside(found: Ending) -> HostError:
    """The error for a container that neither crashed nor ran out of memory."""
    return HostError(
        f"the server's container was stopped from outside ({found.text})",
        hint="see whether the Docker Engine was stopped, or who used docker stop or kill; "
        "the run can be resumed",
    )


@contextmanager
def followed(container: Container, path: Path) -> Iterator[Log]:
    """Write the container's output to `path`; at the end of the block the container is killed."""

    def follow() -> None:
        with suppress(HostError), mapped(), path.open("wb", buffering=0) as file:
            for chunk in container.logs(stream=True, follow=True):
                file.write(chunk)

    with disk(path):
        path.touch()
    log = Log(path, threading.Thread(target=follow, name="server.log", daemon=True))
    log.writer.start()
    try:
        yield log
    finally:
        with suppress(HostError), mapped():
            container.kill()
        log.wait()
