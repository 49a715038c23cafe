"""The seam between the generator and whatever speaks gRPC.

An engine gets ready-made request bytes and a schedule, and returns one row per request in
`Columns`. It decides how bytes reach the server and nothing else; a further engine is one module
and one line in `ENGINES`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from tuner.errors import LoadError
from tuner.http2.answers import OK, StatusKey
from tuner.load.ledger import Rows
from tuner.load.statuses import Statuses

PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Every request of one run, in columns of equal length, ordered by intended time.

    `intended_ns`, `sent_ns`, `done_ns` are monotonic; `status` indexes `statuses`, whose first
    entry is OK; `message` is the index of the request's bytes. A request is sent when its bytes
    are in the kernel, or when the server's own limits held them back. `started_ns` is the
    schedule's origin, `ended_ns` when sending stopped, and `cpu_s` the CPU this process used
    between them.
    """

    intended_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    status: NDArray[np.uint16]
    message: NDArray[np.int32]
    statuses: tuple[StatusKey, ...]
    started_ns: int
    ended_ns: int
    cpu_s: float


class Recorder:
    """Collects one run's requests in the order in which they end, and freezes them as Columns."""

    def __init__(self, statuses: Statuses | None = None) -> None:
        self._rows: list[tuple[int, int, int, int, int]] = []
        self.statuses = Statuses() if statuses is None else statuses

    def __len__(self) -> int:
        return len(self._rows)

    def record(
        self, intended_ns: int, sent_ns: int, done_ns: int, message: int, status: StatusKey = OK
    ) -> None:
        """Keep one request, whatever became of it."""
        number = self.statuses.number(status)
        self._rows.append((intended_ns, sent_ns, done_ns, number, message))

    def take(self) -> Rows:
        """Hand out what was recorded, and begin anew."""
        table = np.array(self._rows, dtype=np.int64).reshape(-1, 5)
        self._rows = []
        return Rows(
            intended_ns=table[:, 0].copy(),
            sent_ns=table[:, 1].copy(),
            done_ns=table[:, 2].copy(),
            status=table[:, 3].astype(np.uint16),
            message=table[:, 4].astype(np.int32),
        )

    def columns(self, *, sent: int, started_ns: int, ended_ns: int, cpu_s: float) -> Columns:
        """Freeze what was recorded. Raises LoadError unless each of `sent` requests ended."""
        require_every_end(sent, len(self))
        return merge(
            [self.take()], self.statuses, started_ns=started_ns, ended_ns=ended_ns, cpu_s=cpu_s
        )


def require_every_end(sent: int, ended: int) -> None:
    """Raise LoadError where requests were lost, or have ended twice: nothing may be dropped."""
    if sent != ended:
        raise LoadError(
            f"{sent} requests were sent, but {ended} have an end",
            hint="this is a defect of the load generator; please report it",
        )


def merge(
    parts: Sequence[Rows], statuses: Statuses, *, started_ns: int, ended_ns: int, cpu_s: float
) -> Columns:
    """Put the rows of several connections into one order, that of their intended times."""
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("intended_ns", "sent_ns", "done_ns", "status", "message")
    }
    order = np.argsort(whole["intended_ns"], kind="stable")
    return Columns(
        **{name: column[order] for name, column in whole.items()},
        statuses=statuses.keys,
        started_ns=started_ns,
        ended_ns=ended_ns,
        cpu_s=cpu_s,
    )


class Engine(Protocol):
    """Sends requests and notes what became of each. No failure of a request ever raises."""

    @property
    def last_answer(self) -> bytes:
        """The message of a good answer that came last, undecoded; empty where there was none."""
        ...

    def open_loop(
        self,
        messages: Sequence[bytes],
        picks: NDArray[np.int32],
        offsets_ns: NDArray[np.int64],
        *,
        duration_s: float,
        give_up_outstanding: int | None = None,
        start_ns: int | None = None,
    ) -> Columns:
        """Send `messages[picks[i]]` at `offsets_ns[i]` after the start, whatever has returned.

        The start is now, or `start_ns` on the monotonic clock, so that several engines begin at
        the same instant.

        Waits for every answer, each bounded by the deadline. Where more than
        `give_up_outstanding` requests are unanswered, sending stops: the rest of the schedule is
        then absent, and `ended_ns` says when.
        """
        ...

    def closed_loop(
        self,
        messages: Sequence[bytes],
        picks: NDArray[np.int32],
        *,
        concurrency: int,
        duration_s: float,
        start_ns: int | None = None,
    ) -> Columns:
        """Keep `concurrency` requests outstanding; `picks` is gone through again and again."""
        ...

    def call(self, message: bytes, *, deadline_s: float) -> StatusKey:
        """Send one request, with a deadline of its own, and wait for its end."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS asks for: files in PEM, each as its path.

    The server must show a certificate for `server_name`, or for the address's host where that is
    empty, of an authority in `ca`, or else of one the system trusts. `client_cert` and
    `client_key` are what this client shows.
    """

    ca: Path | None = None
    server_name: str = ""
    client_cert: Path | None = None
    client_key: Path | None = None


class EngineFactory(Protocol):
    """How an engine is made. It connects, but an unreachable server is not an error here."""

    def __call__(
        self,
        address: str,
        *,
        deadline_s: float,
        connections: int = 1,
        tls: Tls | None = None,
        spin: bool = False,
    ) -> Engine:
        """Return an engine for `address`; both loops put `deadline_s` on calls.

        `spin` asks to poll and not to sleep just before a request is due, where an engine can.

        The address is `host:port` or `unix:PATH`. Files of `tls` that cannot be read, or are not
        what they should be, raise OSError.
        """
        ...


ENGINES = {
    "http2": ("tuner.load.http2_engine", "Http2Engine"),
    "grpcio": ("tuner.load.grpcio_engine", "GrpcioEngine"),
}
"""Module and class by engine name, imported when asked for: gRPC stays out of other processes."""


def engine_factory(name: str) -> EngineFactory:
    """Look up an engine. Raises LoadError where there is none of that name."""
    try:
        module, attribute = ENGINES[name]
    except KeyError:
        raise LoadError(
            f"there is no load engine {name!r}", hint=f"the engines are {', '.join(ENGINES)}"
        ) from None
    return cast("EngineFactory", getattr(import_module(module), attribute))
