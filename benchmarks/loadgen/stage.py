"""What all parts of the benchmark stand on: two processors, a null server, requests, rows."""

import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tuner.environment import cpu_model
from tuner.load.null_server import null_server
from tuner.load.pool import RequestPool
from tuner.server.guarded import GUARD

ENGINES = ("http2", "grpcio")
SIZES = {174: "174B", 4_143: "4KB", 602_171: "600KB"}
SMALL = 174
CONCURRENCY = (1, 16, 64, 256)
NICENESS = -10
Row = dict[str, Any]
Cell = dict[str, Any]


def cpus() -> tuple[int, int]:
    """The client's processor and the server's."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return first, second


def server(**settings: Any) -> Any:
    """The null server, alone on its processor."""
    guard = [sys.executable, "-I", "-S", str(GUARD), str(cpus()[1]), str(os.getpid()), "--"]
    return null_server(guard, **settings)


def machine() -> dict[str, Any]:
    return {
        "cpu_model": cpu_model(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def version_of(name: str) -> str:
    if name in ENGINES:
        found = {"http2": "tuner", "grpcio": "grpcio"}[name]
        return f"{found} {metadata.version(found)}"
    if name == "h2load":
        argv = ["h2load", "--version"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    return name


def pool(folder: Path, size: int) -> Path:
    path = folder / f"pool-{size}"
    rng = np.random.default_rng(size)
    count = 1 if size > 100_000 else 64
    messages = tuple(rng.bytes(size) for _ in range(count))
    RequestPool(messages, (1,) * count, (1 / count,) * count, (b"",)).save(path)
    return path


def row(name: str, null: str, **figures_of: Any) -> Row:
    """One row of results.json; a figure that a client does not give is null."""
    empty = dict.fromkeys(
        ("requests_per_s", "cpu_us_per_request", "latency_floor_ms", "lag_p99_ms",
         "machine_lag_p99_ms", "payload_bytes", "concurrency")
    )  # fmt: skip
    return {
        "engine": name,
        "version": version_of(name),
        **empty,
        "null_server": null,
        "machine": machine(),
        **figures_of,
    }


def medians(cells: list[Cell], *keys: str, digits: int = 4) -> dict[str, Any]:
    """The medians of figures over rounds; None of one that is missing in any."""
    found = {}
    for key in keys:
        values = [cell[key] for cell in cells]
        known = all(value is not None for value in values)
        found[key] = round(statistics.median(values), digits) if known else None
    return found


def conditions(cells: list[Cell]) -> dict[str, Any]:
    """Under what the rounds of a row were measured; see conditions.undisturbed."""
    return {
        "rounds": len(cells),
        "rounds_disturbed": sum(cell["disturbed"] for cell in cells),
        "rounds_repeated": sum(cell["attempts"] - 1 for cell in cells),
        "foreign_cores": max(cell["foreign_cores"] for cell in cells),
        "stolen_cores": max(cell["stolen_cores"] for cell in cells),
    }
