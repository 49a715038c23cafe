"""Servers that run as a process on this host: the embedded one, and TensorFlow's binary."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner import __version__
from tuner.clock import NS_PER_S, now_ns
from tuner.errors import CandidateError, HostError, ModelError, disk
from tuner.records import Config, Endpoint, ServerIdentity
from tuner.scenario import Scenario
from tuner.server import flags
from tuner.server.launcher import Server, log_lines, log_tail

GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.02
STOP_S = 5.0
SEGFAULT = -signal.SIGSEGV


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A server process that was ready once."""

    endpoint: Endpoint
    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Raise CandidateError where the process has ended."""
        if (code := self.process.poll()) is not None:
            raise CandidateError(
                f"the server died while it served ({_exit_text(code)})",
                hint=f"its output is in {self.log}",
                log_tail=log_tail(self.log),
            )

    def scrape(self) -> str | None:
        """Read the Prometheus page; None where it cannot be had just now."""
        url = self.endpoint.metrics_url
        if url is None:
            return None
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own URL
                return str(response.read().decode("utf-8", "replace"))
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class ProcessLauncher:
    """Starts `command` with TensorFlow Serving's flags, on the given processors."""

    scenario: Scenario
    kind: Literal["embedded", "binary"]
    command: tuple[str, ...]
    cpus: frozenset[int] | None = None

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
        port, rest_port = _free_ports(2)
        given = flags.server_flags(self.scenario, config, files, port=port, rest_port=rest_port)
        log = folder / "server.log"
        started_ns = now_ns()
        process = self._start([*self.command, *flags.argv(given)], log)
        try:
            self._await_ready(process, (port, rest_port), log, config)
            endpoint = Endpoint(
                address=f"127.0.0.1:{port}",
                metrics_url=f"http://127.0.0.1:{rest_port}{flags.METRICS_PATH}",
                pid=process.pid,
                start_s=(now_ns() - started_ns) / NS_PER_S,
                flags=tuple(given.items()),
            )
            yield RunningProcess(endpoint, process, log)
        finally:
            _stop(process)

    def _start(self, argv: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
        cpus = "" if self.cpus is None else ",".join(map(str, sorted(self.cpus)))
        guard = [sys.executable, "-I", "-S", str(GUARD), cpus, str(os.getpid()), "--"]
        try:
            with log.open("wb") as output:
                return subprocess.Popen(
                    [*guard, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a terminal's Ctrl-C is the tuner's to decide on
                )
        except OSError as error:
            raise HostError(
                f"{argv[0]}: cannot be started: {error.strerror}",
                hint="check the disk, the process limit and server.binary",
            ) from None

    def _await_ready(
        self,
        process: "subprocess.Popen[bytes]",
        ports: Sequence[int],
        log: Path,
        config: Config,
    ) -> None:
        """Wait for every port, the process's end, a telling log line, or the deadline.

        The metrics' port opens after gRPC's: without it a trial would have no evidence.
        """
        deadline_ns = now_ns() + int(self.scenario.server.start_timeout_s * NS_PER_S)
        while now_ns() < deadline_ns:
            if (code := process.poll()) is not None:
                raise _start_failure(code, log, config)
            if all(_accepts(port) for port in ports):
                _refuse_unknown_flags(log)
                return
            _refuse_missing_model(log)
            _refuse_lost_metrics(log)
            time.sleep(POLL_S)
        raise CandidateError(
            f"the server was not ready within {self.scenario.server.start_timeout_s:g} s",
            hint="raise server.start_timeout_s, or look into its log for what it waits for",
            log_tail=log_tail(log),
        )


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


def _free_ports(count: int) -> tuple[int, ...]:
    """Find ports that nothing listens on. Held together until all are known, so they differ."""
    sockets = []
    try:
        for _ in range(count):
            probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sockets.append(probe)
            probe.bind(("127.0.0.1", 0))
        return tuple(int(probe.getsockname()[1]) for probe in sockets)
    except OSError as error:
        raise HostError(
            f"no free port on 127.0.0.1: {error.strerror}", hint="end what holds the ports"
        ) from None
    finally:
        for probe in sockets:
            probe.close()


def _accepts(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _refuse_unknown_flags(log: Path) -> None:
    """The server goes on without a flag it does not know; a trial must not."""
    for line in log_lines(log):
        if "unknown argument" in line:
            raise HostError(
                f"the server does not know a flag: {line.strip()}",
                hint="correct server.flags or search.space.flags in the scenario",
            )


def _refuse_missing_model(log: Path) -> None:
    """The server waits for ever for a model that is not there."""
    for line in log_lines(log):
        if "Could not find base path" in line or "No versions of servable" in line:
            raise ModelError(
                f"the server finds no model: {line.strip()}",
                hint="model.path must hold a directory named by a number, such as 1/",
            )


def _refuse_lost_metrics(log: Path) -> None:
    """The server goes on without its HTTP port where that is taken; a trial must not."""
    for line in log_lines(log):
        if "Couldn't bind to port" in line or "Failed to start HTTP Server" in line:
            raise HostError(
                f"the server exports no metrics: {line.strip()}",
                hint="the port was taken between choosing and binding it; start again, "
                "the run resumes where it was",
            )


def _start_failure(code: int, log: Path, config: Config) -> CandidateError | HostError:
    tail = log_tail(log)
    if "BuildAndStart" in tail or "address already in use" in tail.lower():
        return HostError(
            "the server's port was taken between choosing and binding it",
            hint="start again; the run resumes where it was",
        )
    cause = f"; likely cause: {_likely_cause(config)}" if code == SEGFAULT else ""
    reason = next((line for line in tail.splitlines()[::-1] if "Error:" in line), "")
    text = f"the server exited before it was ready ({_exit_text(code)}{cause})"
    return CandidateError(
        f"{text}: {reason.strip()}" if reason else text,
        hint=f"its output is in {log}",
        log_tail=tail,
    )


def _likely_cause(config: Config) -> str:
    if config.batching is None:
        return "the model or the machine, since batching is off"
    return f"the batching parameters ({config.label()})"


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server's whole process group: first politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            continue
        break
    with suppress(ProcessLookupError):  # what the server itself may have started
        os.killpg(process.pid, signal.SIGKILL)
