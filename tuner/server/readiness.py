"""Waiting for a server to get ready, and telling why it does not. Common to all launchers.

A port that accepts proves little: Docker's proxy accepts for a server that does not listen yet.
What counts is HTTP/2 spoken on the gRPC port and the metrics page served on the other.
"""

import http.client
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import CandidateError, HostError, ModelError, PortTakenError, TunerError
from tuner.records import Config
from tuner.server.flags import METRICS_PATH
from tuner.server.launcher import log_lines, log_tail

POLL_S = 0.02
PROBE_S = 1.0
SCRAPE_S = 5.0
SEGFAULT = -signal.SIGSEGV

_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""HTTP/2's connection preface with empty SETTINGS (RFC 9113, 3.4)."""

_FRAME_HEAD = 9
_SETTINGS = 4


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server that was started will answer on 127.0.0.1."""

    grpc: int
    rest: int

    @property
    def address(self) -> str:
        """The gRPC address."""
        return f"127.0.0.1:{self.grpc}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus page."""
        return f"http://127.0.0.1:{self.rest}{METRICS_PATH}"

    def answer(self) -> bool:
        """Whether both speak their protocols.

        The metrics' port opens after gRPC's: without it a trial would have no evidence.
        """
        return speaks_http2(self.grpc) and fetch(self.rest, METRICS_PATH, PROBE_S) is not None


def await_ready(
    ports: Ports,
    log: Path,
    ended: Callable[[], TunerError | None],
    *,
    timeout_s: float,
    poll_s: float = POLL_S,
) -> None:
    """Watch the ports, the server's end, its log and the deadline at once.

    `ended` returns why the server has ended, None while it lives. Raises that error, HostError
    or ModelError for what the log tells, and CandidateError at the deadline.
    """
    deadline_ns = now_ns() + int(timeout_s * NS_PER_S)
    while now_ns() < deadline_ns:
        if (error := ended()) is not None:
            raise error
        if ports.answer():
            refuse_unknown_flags(log)
            return
        _refuse_missing_model(log)
        _refuse_lost_metrics(log)
        time.sleep(poll_s)
    raise CandidateError(
        f"the server was not ready within {timeout_s:g} s",
        hint="raise server.start_timeout_s, or look into its log for what it waits for",
        log_tail=log_tail(log),
    )


def speaks_http2(port: int) -> bool:
    """Whether a server greets with HTTP/2's SETTINGS, as every gRPC server does at once."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_S) as connection:
            connection.sendall(_GREETING)
            head = b""
            while len(head) < _FRAME_HEAD and (part := connection.recv(_FRAME_HEAD - len(head))):
                head += part
    except OSError:
        return False
    return len(head) == _FRAME_HEAD and head[3] == _SETTINGS


def fetch(
    port: int, path: str, timeout_s: float = SCRAPE_S, *, host: str = "127.0.0.1"
) -> str | None:
    """GET a page of the server's HTTP port, through no proxy; None where it cannot be had."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return text if response.status == http.client.OK else None


def start_failure(code: int, log: Path, config: Config) -> CandidateError | HostError:
    """Say why a server exited before it was ready. `code` is below 0 for a signal."""
    tail = log_tail(log)
    if "BuildAndStart" in tail or "address already in use" in tail.lower():
        return PortTakenError(
            "the server's port was taken between choosing and binding it",
            hint="start again; the run resumes where it was",
        )
    cause = f"; likely cause: {_likely_cause(config)}" if code == SEGFAULT else ""
    reason = next((line for line in tail.splitlines()[::-1] if "Error:" in line), "")
    text = f"the server exited before it was ready ({exit_text(code)}{cause})"
    return CandidateError(
        f"{text}: {reason.strip()}" if reason else text,
        hint=f"its output is in {log}",
        log_tail=tail,
    )


def exit_text(code: int) -> str:
    """Words for an exit code, or for a signal where it is below 0."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def refuse_unknown_flags(log: Path) -> None:
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
            raise PortTakenError(
                f"the server exports no metrics: {line.strip()}",
                hint="the port was taken between choosing and binding it; start again, "
                "the run resumes where it was",
            )


def _likely_cause(config: Config) -> str:
    if config.batching is None:
        return "the model or the machine, since batching is off"
    return f"the batching parameters ({config.label()})"
