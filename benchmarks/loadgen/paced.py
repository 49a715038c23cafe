"""Open loops: how late requests are sent, and what a stalled server's latency is made to be."""

import os
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
from conditions import undisturbed
from stage import (
    ENGINES,
    NICENESS,
    SMALL,
    Cell,
    Row,
    conditions,
    cpus,
    medians,
    pool,
    row,
    server,
)

from tuner.load.generator import Generator, OpenLoop

RATES = (500, 2_000, 5_000, 20_000)


def paced(seconds: float, rounds: int) -> list[Row]:
    """How late requests are sent, by rate. Poisson arrivals, the same for both engines."""
    found: dict[tuple[str, int], list[Cell]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = pool(Path(temporary), SMALL)
        for number in range(rounds):
            for name in ENGINES if number % 2 == 0 else reversed(ENGINES):
                with (
                    server() as null,
                    Generator(
                        null.address,
                        path,
                        engine=name,
                        cpus=frozenset({cpus()[0]}),
                        niceness=NICENESS,
                        deadline_s=60.0,
                    ) as generator,
                ):
                    generator.closed_loop(concurrency=16, duration_s=0.3, seed=1)
                    for rate in RATES:
                        load = OpenLoop(rate, 3 * seconds, number, give_up_outstanding=50_000)
                        cell = undisturbed(partial(lateness, generator, load), cpus())
                        found.setdefault((name, rate), []).append(cell)
                        print(number, name, rate, cell, file=sys.stderr)
                    null_name = null.name
    keys = ("lag_p50_ms", "lag_p99_ms", "lag_max_ms", "machine_lag_p50_ms", "machine_lag_p99_ms",
            "machine_lag_max_ms", "p50_ms", "p99_ms", "cores")  # fmt: skip
    return [
        row(
            name,
            null_name,
            payload_bytes=SMALL,
            rate_rps=rate,
            **medians(cells, *keys),
            lag_p99_ms_by_round=[round(cell["lag_p99_ms"], 4) for cell in cells],
            **conditions(cells),
        )
        for (name, rate), cells in found.items()
    ]


def lateness(generator: Generator, load: OpenLoop) -> Cell:
    """An open loop, and before it a loop in the same process that sends nothing."""
    machine_lag_ms = generator.bare_loop(load) / 1e6
    samples = generator.open_loop(load)
    run_s = (samples.ended_ns - samples.started_ns) / 1e9
    return {
        **_points("lag", samples.lateness_ns / 1e6),
        **_points("machine_lag", machine_lag_ms),
        "p50_ms": float(np.percentile(samples.latency_ns / 1e6, 50)),
        "p99_ms": float(np.percentile(samples.latency_ns / 1e6, 99)),
        "cores": samples.cpu_s / run_s,
    }


def _points(name: str, values_ms: np.ndarray) -> Cell:
    shares = {"p50": 50, "p99": 99, "max": 100}
    return {f"{name}_{key}_ms": float(np.percentile(values_ms, n)) for key, n in shares.items()}


def stall(_seconds: float, _rounds: int) -> list[Row]:
    """A server that stands still for one second of five: what each way of timing makes of it."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary, server() as null:
        path = pool(Path(temporary), SMALL)
        with Generator(null.address, path, cpus=frozenset({cpus()[0]})) as generator:
            for way in ("open loop", "closed loop"):
                stopping = threading.Thread(target=stand_still, args=(null.pid,))
                stopping.start()
                if way == "open loop":
                    samples = generator.open_loop(OpenLoop(1_000, 5.0, seed=1))
                else:
                    samples = generator.closed_loop(concurrency=8, duration_s=5.0, seed=1)
                stopping.join()
                latency_ms = samples.latency_ns / 1e6
                rows.append(
                    row(
                        "http2",
                        null.name,
                        payload_bytes=SMALL,
                        way=way,
                        requests=len(samples),
                        p50_ms=round(float(np.percentile(latency_ms, 50)), 3),
                        p99_ms=round(float(np.percentile(latency_ms, 99)), 3),
                        max_ms=round(float(latency_ms.max()), 3),
                    )
                )
    return rows


def stand_still(pid: int) -> None:
    time.sleep(2.0)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.0)
    os.kill(pid, signal.SIGCONT)
