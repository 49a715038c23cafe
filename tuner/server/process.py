"""Servers that run as a process on this host: the embedded one, and TensorFlow's binary."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner import __version__
from tuner.clock import NS_PER_S, now_ns
from tuner.errors import CandidateError, HostError, PortTakenError, disk
from tuner.records import Config, Endpoint, ServerIdentity
from tuner.scenario import Scenario
from tuner.server import flags, guarded
from tuner.server.launcher import Server, log_tail
from tuner.server.ports import free_ports
from tuner.server.readiness import Ports, await_ready, exit_text, fetch, start_failure

PORT_TRIES = 3
"""So often ports are chosen for one start, since other programs may take them meanwhile."""


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A server process that was ready once."""

    endpoint: Endpoint
    process: "subprocess.Popen[bytes]"
    ports: Ports
    log: Path

    def check(self) -> None:
        """Raise CandidateError where the process has ended."""
        if (code := self.process.poll()) is not None:
            raise CandidateError(
                f"the server died while it served ({exit_text(code)})",
                hint=f"its output is in {self.log}",
                log_tail=log_tail(self.log),
            )

    def scrape(self) -> str | None:
        """Read the Prometheus page; None where it cannot be had just now."""
        return fetch(self.ports.rest, flags.METRICS_PATH)

    def show(self, folders: Sequence[Path]) -> None:
        """See `Server.show`: it sees this host's folders as they are."""


@dataclass(frozen=True, slots=True)
class ProcessLauncher:
    """Starts `command` with TensorFlow Serving's flags, on the given processors."""

    scenario: Scenario
    kind: Literal["embedded", "binary"]
    command: tuple[str, ...]
    cpus: frozenset[int] | None = None

    def close(self) -> None:
        """See `Launcher.close`: it holds nothing."""

    def identify(self) -> ServerIdentity:
        """Name the server and its version."""
        if self.kind == "embedded":
            return ServerIdentity(launcher="embedded", version=f"tuner {__version__}")
        return ServerIdentity(launcher="binary", version=_binary_version(self.command))

    @contextmanager
    def launch(self, config: Config, folder: Path) -> Iterator[Server]:
        """Start, wait until ready, yield, and stop. See `Launcher.launch`."""
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files = flags.write_files(self.scenario, config, folder)
        with ExitStack() as stopping:
            yield _entered(stopping, lambda: self._ready(config, folder, files))

    @contextmanager
    def _ready(self, config: Config, folder: Path, files: flags.Files) -> Iterator[RunningProcess]:
        """One start, on ports that are free as it begins."""
        ports = Ports(*free_ports(2))
        given = flags.server_flags(
            self.scenario, config, files, port=ports.grpc, rest_port=ports.rest
        )
        log = folder / "server.log"
        started_ns = now_ns()
        process = self._start([*self.command, *flags.argv(given)], log)

        def ended() -> CandidateError | HostError | None:
            code = process.poll()
            return None if code is None else start_failure(code, log, config)

        try:
            await_ready(ports, log, ended, timeout_s=self.scenario.server.start_timeout_s)
            endpoint = Endpoint(
                address=ports.address,
                metrics_url=ports.metrics_url,
                pid=process.pid,
                start_s=(now_ns() - started_ns) / NS_PER_S,
                flags=tuple(given.items()),
            )
            yield RunningProcess(endpoint, process, ports, log)
        finally:
            guarded.stop(process)

    def _start(self, argv: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
        try:
            with log.open("wb") as output:
                return guarded.start(argv, output, self.cpus)
        except OSError as error:
            raise HostError(
                f"{argv[0]}: cannot be started: {error.strerror}",
                hint="check the disk, the process limit and server.binary",
            ) from None


def _entered(
    stopping: ExitStack, start: Callable[[], AbstractContextManager[RunningProcess]]
) -> RunningProcess:
    """Start, a few times where a port that was free is taken before the server binds it."""
    for _ in range(PORT_TRIES - 1):
        with suppress(PortTakenError):
            return stopping.enter_context(start())
    return stopping.enter_context(start())


def embedded(scenario: Scenario, cpus: frozenset[int] | None) -> ProcessLauncher:
    """The server that ships with the project."""
    command = (sys.executable, "-m", "tuner.server.embedded")
    return ProcessLauncher(scenario, "embedded", command, cpus)


def binary(scenario: Scenario, cpus: frozenset[int] | None) -> ProcessLauncher:
    """TensorFlow Serving's own binary. Raises HostError where it is not installed."""
    name = scenario.server.binary
    path = shutil.which(name)
    if path is None:
        raise HostError(
            f"server.binary: no executable {name!r} on the PATH",
            hint='install tensorflow-model-server, or set server.launcher = "embedded"',
        )
    return ProcessLauncher(scenario, "binary", (path,), cpus)


def _binary_version(command: Sequence[str]) -> str:
    """Ask the binary for its version, `TensorFlow ModelServer: 2.19.0`."""
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]}: does not tell its version: {error}") from None
    words = done.stdout.splitlines()
    return words[0].strip() if words else "unknown"
