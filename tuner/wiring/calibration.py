"""`tuner calibrate`: what the load generator can do here, against a server that does nothing.

The result is kept for the machine, and no load above half of it is trusted: beyond, the figures
would begin to be the generator's.
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner import __version__
from tuner.environment import cpu_model
from tuner.errors import HostError, disk
from tuner.load.generator import Generator, OpenLoop
from tuner.load.null_server import null_server
from tuner.load.pool import RequestPool
from tuner.measure.percentiles import value_at
from tuner.server.cpus import Placement, place
from tuner.server.guarded import GUARD
from tuner.store import write_atomically

MESSAGE_BYTES = 174
"""A request of a small model; larger ones cost more, nearly all of it in the kernel."""

CONCURRENCY = 64
PACED_RPS = 2_000.0
BRIEF_S = 1.0
USABLE_SHARE = 0.5
"""Share of the ceiling up to which a load is the server's test and not the generator's."""

BUSY_LAG_MS = 50.0
"""A loop that sends nothing and wakes this late at p99 shares its processor with others."""

_MESSAGES = 64
_SEED = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one engine does on one machine.

    `requests_per_s` and `cpu_us_per_request` are those of a closed loop with 64 outstanding
    requests of 174 bytes, `latency_floor_ms` the median at concurrency 1, `lag_p99_ms` how late
    requests are sent in an open loop at 2,000/s, and `machine_lag_p99_ms` how late a loop wakes
    there that sends nothing.
    """

    engine: str
    requests_per_s: float
    cpu_us_per_request: float
    latency_floor_ms: float
    lag_p99_ms: float
    machine_lag_p99_ms: float
    null_server: str
    machine: dict[str, Any]

    @property
    def usable_rps(self) -> float:
        """The highest load that this machine's generator may drive."""
        return USABLE_SHARE * self.requests_per_s


def machine(placement: Placement, processes: int = 1) -> dict[str, Any]:
    """What a calibration depends on, and is kept for; generator processes where several."""
    return {
        "cpu_model": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "placement": placement.describe(),
        "tuner": __version__,
        **({"processes": processes} if processes > 1 else {}),
    }


def calibrate(
    engine: str,
    *,
    placement: Placement | None = None,
    processes: int = 1,
    seconds: float = 2.0,
    notify: Callable[[str], None] = lambda _text: None,
) -> Calibration:
    """Measure the generator for about five times `seconds`. Raises HostError or LoadError."""
    placement = placement or place("auto", "auto")
    cpus = ",".join(map(str, sorted(placement.server)))
    guard = [sys.executable, "-I", "-S", str(GUARD), cpus, str(os.getpid()), "--"]
    with (
        tempfile.TemporaryDirectory(prefix="tuner-calibrate-") as folder,
        null_server(guard) as server,
    ):
        pool = Path(folder) / "pool"
        _pool().save(pool)
        with Generator(
            server.address,
            pool,
            engine=engine,
            cpus=placement.generator,
            processes=processes,
        ) as generator:
            notify("warming up")
            generator.closed_loop(concurrency=CONCURRENCY, duration_s=seconds / 2, seed=_SEED)
            notify("latency floor")
            floor = generator.closed_loop(concurrency=1, duration_s=seconds / 2, seed=_SEED)
            notify("requests per second")
            peak = generator.closed_loop(concurrency=CONCURRENCY, duration_s=seconds, seed=_SEED)
            notify("punctuality")
            schedule = OpenLoop(PACED_RPS, seconds, _SEED)
            machine_lag_ns = generator.bare_loop(schedule)
            paced = generator.open_loop(schedule)
    failed = sum(int(np.count_nonzero(samples.status)) for samples in (floor, peak, paced))
    if failed:
        raise HostError(
            f"{failed} requests to the null server failed: "
            + ", ".join(status.code for status in peak.statuses[1:] or paced.statuses[1:]),
            hint="this machine is overloaded, or the engine has a defect: please report it",
        )
    return Calibration(
        engine=engine,
        requests_per_s=len(peak) / seconds,
        cpu_us_per_request=peak.cpu_s / len(peak) * 1e6,
        latency_floor_ms=value_at(0.5, floor.latency_ns),
        lag_p99_ms=value_at(0.99, paced.lateness_ns),
        machine_lag_p99_ms=value_at(0.99, machine_lag_ns),
        null_server=server.name,
        machine=machine(placement, processes),
    )


def calibrated(
    engine: str, placement: Placement, notify: Callable[[str], None], *, processes: int = 1
) -> Calibration:
    """What was measured on this machine before, or else now, for a few seconds.

    What was measured while the machine was busy is not kept: it would hold for good.
    """
    found = known(engine, placement, processes)
    if found is None:
        notify("measuring the load generator itself, once")
        found = calibrate(engine, placement=placement, processes=processes, seconds=BRIEF_S)
        if found.machine_lag_p99_ms > BUSY_LAG_MS:
            notify(
                f"the machine is busy (a loop that sends nothing wakes "
                f"{found.machine_lag_p99_ms:.0f} ms late), so the next run measures it again"
            )
            return found
        with suppress(HostError):  # it is then measured again next time
            keep(found)
    return found


def known(engine: str, placement: Placement, processes: int = 1) -> Calibration | None:
    """What was measured on this machine before, under the same conditions."""
    found = _read().get(_key(engine, machine(placement, processes)))
    try:
        return None if found is None else Calibration(**found)
    except TypeError:  # of another version
        return None


def keep(calibration: Calibration) -> Path:
    """Keep a calibration for this machine. Raises HostError where that fails."""
    path = _path()
    kept = _read() | {_key(calibration.engine, calibration.machine): asdict(calibration)}
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(kept, indent=2) + "\n")
    return path


def describe(calibration: Calibration) -> str:
    """The result in words."""
    found = calibration
    return (
        f"engine {found.engine} against {found.null_server}, {found.machine['placement']}:\n"
        f"  requests/s            {found.requests_per_s:>10,.0f}   at {CONCURRENCY} outstanding, "
        f"{MESSAGE_BYTES} bytes each\n"
        f"  processor time        {found.cpu_us_per_request:>10.1f}   us a request\n"
        f"  latency floor         {found.latency_floor_ms:>10.3f}   ms, median at concurrency 1\n"
        f"  lateness p99          {found.lag_p99_ms:>10.3f}   ms, open loop, {PACED_RPS:,.0f}/s\n"
        f"  of that, the machine  {found.machine_lag_p99_ms:>10.3f}   ms, a loop that sends "
        "nothing\n"
        f"  highest usable load   {found.usable_rps:>10,.0f}   requests/s, half of the ceiling"
    )


def as_json_text(calibration: Calibration) -> str:
    """The object that scripts read."""
    return json.dumps(asdict(calibration), indent=2)


def _pool() -> RequestPool:
    rng = np.random.default_rng(_SEED)
    messages = tuple(rng.bytes(MESSAGE_BYTES) for _ in range(_MESSAGES))
    share = 1 / _MESSAGES
    return RequestPool(messages, (1,) * _MESSAGES, (share,) * _MESSAGES, (b"",))


def _path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tuner" / "calibrations.json"


def _key(engine: str, described: dict[str, Any]) -> str:
    return json.dumps([engine, described], sort_keys=True)


def _read() -> dict[str, Any]:
    try:
        found = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or a torn one: it is only a cache
        return {}
    return found if isinstance(found, dict) else {}
