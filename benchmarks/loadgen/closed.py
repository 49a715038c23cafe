"""Closed loops: requests per second, processor time and latency, by size and concurrency."""

import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from conditions import undisturbed
from stage import (
    CONCURRENCY,
    ENGINES,
    NICENESS,
    Cell,
    Row,
    conditions,
    cpus,
    medians,
    pool,
    row,
    server,
)

from tuner.load.client import PREDICT
from tuner.load.generator import Generator
from tuner.load.pool import RequestPool


def closed(size: int, seconds: float, rounds: int) -> list[Row]:
    """All clients at all concurrencies, with messages of one size."""
    names = [*ENGINES, *(["h2load"] if shutil.which("h2load") else [])]
    found: dict[tuple[str, int], list[Cell]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = pool(Path(temporary), size)
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                drive = partial(h2load if name == "h2load" else own, name)
                with server() as null:
                    for concurrency in CONCURRENCY:
                        cell = undisturbed(
                            partial(drive, null.address, path, concurrency, seconds, size), cpus()
                        )
                        found.setdefault((name, concurrency), []).append(cell)
                        print(number, name, size, concurrency, cell, file=sys.stderr)
                null_name = null.name
    return [
        row(
            name,
            null_name,
            payload_bytes=size,
            concurrency=concurrency,
            latency_floor_ms=medians(found[name, 1], "p50_ms")["p50_ms"],
            **medians(cells, "requests_per_s", digits=0),
            **medians(cells, "cpu_us_per_request", digits=2),
            **medians(cells, "p50_ms", "p99_ms"),
            **conditions(cells),
        )
        for (name, concurrency), cells in found.items()
    ]


def own(name: str, address: str, path: Path, concurrency: int, seconds: float, _size: int) -> Cell:
    """One of the tuner's engines, in its process, as the tuner runs it."""
    with Generator(
        address, path, engine=name, cpus=frozenset({cpus()[0]}), niceness=NICENESS
    ) as generator:
        generator.closed_loop(concurrency=concurrency, duration_s=0.3, seed=1)
        samples = generator.closed_loop(concurrency=concurrency, duration_s=seconds, seed=1)
    assert not samples.status.any(), samples.statuses
    latency_ms = samples.latency_ns / 1e6
    return {
        "requests_per_s": len(samples) / seconds,
        "cpu_us_per_request": samples.cpu_s / len(samples) * 1e6,
        "p50_ms": round(float(np.percentile(latency_ms, 50)), 4),
        "p99_ms": round(float(np.percentile(latency_ms, 99)), 4),
    }


def h2load(
    _name: str, address: str, path: Path, concurrency: int, seconds: float, size: int
) -> Cell:
    """nghttp2's load generator in C: the same requests over one connection."""
    body, log = path.parent / f"body-{size}", path.parent / "h2load.log"
    body.write_bytes(b"\0" + struct.pack(">I", size) + RequestPool.load(path).messages[0])
    argv = ["taskset", "-c", str(cpus()[0]), "h2load", "-D", f"{seconds * 1000:.0f}ms"]
    argv += ["-c1"]
    argv += ["-m", str(concurrency), "-d", str(body), "-H", "content-type: application/grpc"]
    argv += ["-H", "te: trailers", "-w", "30", "-W", "30"]
    # The log costs processor time, so it is written only where it gives the latency floor.
    logged = [f"--log-file={log}"] if concurrency == 1 else []
    log.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*argv, *logged, f"http://{address}{PREDICT}"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    match = re.search(r"requests: .* (\d+) succeeded, (\d+) failed", done.stdout)
    assert match is not None, done.stdout
    assert int(match[2]) <= concurrency, done.stdout  # those under way at the end
    count = int(match[1])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    micros = [int(line.split()[2]) for line in log.read_text().splitlines()] if logged else []
    return {
        "requests_per_s": count / seconds,
        "cpu_us_per_request": cpu_s / count * 1e6,
        "p50_ms": float(np.percentile(micros, 50)) / 1e3 if micros else None,
        "p99_ms": float(np.percentile(micros, 99)) / 1e3 if micros else None,
    }
