"""Load generators side by side: the same null server, the same machine, in alternating order.

    make bench-loadgen      or: python benchmarks/loadgen/bench.py [PART...]

Parts: closed, paced, stall, locust, perf_analyzer; without one, all. perf_analyzer is run where
PERF_ANALYZER names a command that starts it: its wheel needs a newer glibc than Debian 12 has.
Each part renews its own rows of `results.json`; table and plot are made of all rows. The null
server runs alone on one processor and the client alone on another. Read the ratios: absolute
figures are this machine's, at this hour.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import figures
import numpy as np

from tuner import protos
from tuner.environment import cpu_model
from tuner.load.client import PREDICT
from tuner.load.generator import Generator, OpenLoop
from tuner.load.null_server import null_server
from tuner.load.pool import RequestPool
from tuner.server.process import GUARD

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
ENGINES = ("http2", "grpcio")
SIZES = (174, 4_143, 602_171)
CONCURRENCY = (1, 16, 64, 256)
RATES = (500, 2_000, 5_000, 20_000)
PACED_RPS = 2_000
NICENESS = -10
Row = dict[str, Any]


def main() -> None:
    parts = {
        "closed": closed,
        "paced": paced,
        "stall": stall,
        "locust": locust,
        "perf_analyzer": perf_analyzer,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--seconds", type=float, default=1.0, help="of load per cell and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs two processors: one for the server, one for the client")
    if os.geteuid() == 0:  # what the tuner's generator asks for, and all others inherit
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    for name in arguments.parts or parts:
        rows = parts[name](arguments.seconds, arguments.rounds)
        keep(name, rows)
    show()


def keep(part: str, rows: list[Row]) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [{"part": part, **row} for row in rows]
    kept = [row for row in known if row["part"] != part] + rows
    # Lateness is a figure of an engine, measured once: at 2,000/s, as `tuner calibrate` does.
    lags = {row["engine"]: row["lag_p99_ms"] for row in kept if row.get("rate_rps") == PACED_RPS}
    for row in kept:
        if "rate_rps" not in row:
            row["lag_p99_ms"] = lags.get(row["engine"])
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def show() -> None:
    rows = json.loads(RESULTS.read_text())
    (HERE / "table.md").write_text(figures.table(rows))
    figures.plot(rows, HERE / "plot.png")
    print((HERE / "table.md").read_text())


# --- the two processors ---


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
         "payload_bytes", "concurrency")
    )  # fmt: skip
    return {
        "engine": name,
        "version": version_of(name),
        **empty,
        "null_server": null,
        "machine": machine(),
        **figures_of,
    }


def median(values: list[Any]) -> Any:
    return statistics.median(values) if all(value is not None for value in values) else None


# --- closed loops ---


def closed(seconds: float, rounds: int) -> list[Row]:
    """Requests per second, processor time and latency, by size and concurrency."""
    names = [*ENGINES, *(["h2load"] if shutil.which("h2load") else [])]
    found: dict[tuple[str, int, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(rounds):
            for size in SIZES:
                path = pool(folder, size)
                for name in names if number % 2 == 0 else reversed(names):
                    with server() as null:
                        for concurrency in CONCURRENCY:
                            drive = h2load if name == "h2load" else own
                            cell = drive(name, null.address, path, concurrency, seconds, size)
                            found.setdefault((name, size, concurrency), []).append(cell)
                            print(number, name, size, concurrency, cell, file=sys.stderr)
            null_name = null.name
    rows = []
    for (name, size, concurrency), cells in found.items():
        floor = median([cell["p50_ms"] for cell in found[name, size, 1]])
        rows.append(
            row(
                name,
                null_name,
                payload_bytes=size,
                concurrency=concurrency,
                requests_per_s=round(median([cell["rate"] for cell in cells])),
                cpu_us_per_request=round(median([cell["cpu_us"] for cell in cells]), 2),
                latency_floor_ms=floor and round(floor, 4),
                p50_ms=median([cell["p50_ms"] for cell in cells]),
                p99_ms=median([cell["p99_ms"] for cell in cells]),
                rounds=len(cells),
            )
        )
    return rows


def own(
    name: str, address: str, path: Path, concurrency: int, seconds: float, _size: int
) -> dict[str, Any]:
    """One of the tuner's engines, in its process, as the tuner runs it."""
    with Generator(
        address, path, engine=name, cpus=frozenset({cpus()[0]}), niceness=NICENESS
    ) as generator:
        generator.closed_loop(concurrency=concurrency, duration_s=0.3, seed=1)
        samples = generator.closed_loop(concurrency=concurrency, duration_s=seconds, seed=1)
    assert not samples.status.any(), samples.statuses
    latency_ms = samples.latency_ns / 1e6
    return {
        "rate": len(samples) / seconds,
        "cpu_us": samples.cpu_s / len(samples) * 1e6,
        "p50_ms": round(float(np.percentile(latency_ms, 50)), 4),
        "p99_ms": round(float(np.percentile(latency_ms, 99)), 4),
    }


def h2load(
    _name: str, address: str, path: Path, concurrency: int, seconds: float, size: int
) -> dict[str, Any]:
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
        "rate": count / seconds,
        "cpu_us": cpu_s / count * 1e6,
        "p50_ms": float(np.percentile(micros, 50)) / 1e3 if micros else None,
        "p99_ms": float(np.percentile(micros, 99)) / 1e3 if micros else None,
    }


# --- open loops ---


def paced(seconds: float, rounds: int) -> list[Row]:
    """How late requests are sent, by rate. Poisson arrivals, the same for both engines."""
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = pool(Path(temporary), SIZES[0])
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
                    null_name = null.name
                    generator.closed_loop(concurrency=16, duration_s=0.3, seed=1)
                    for rate in RATES:
                        load = OpenLoop(rate, 3 * seconds, number, give_up_outstanding=50_000)
                        samples = generator.open_loop(load)
                        lag_ms = samples.lateness_ns / 1e6
                        run_s = (samples.ended_ns - samples.started_ns) / 1e9
                        cell = {
                            f"lag_{point}_ms": float(np.percentile(lag_ms, share))
                            for point, share in (("p50", 50), ("p99", 99), ("max", 100))
                        }
                        cell["p50_ms"] = float(np.percentile(samples.latency_ns / 1e6, 50))
                        cell["p99_ms"] = float(np.percentile(samples.latency_ns / 1e6, 99))
                        cell["cores"] = samples.cpu_s / run_s
                        found.setdefault((name, rate), []).append(cell)
                        print(number, name, rate, cell, file=sys.stderr)
    return [
        row(
            name,
            null_name,
            payload_bytes=SIZES[0],
            rate_rps=rate,
            rounds=len(cells),
            **{key: round(median([cell[key] for cell in cells]), 4) for key in cells[0]},
        )
        for (name, rate), cells in found.items()
    ]


def stall(_seconds: float, _rounds: int) -> list[Row]:
    """A server that stands still for one second of five: what each way of timing makes of it."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary, server() as null:
        path = pool(Path(temporary), SIZES[0])
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
                        payload_bytes=SIZES[0],
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


# --- peers of another kind ---


def locust(seconds: float, _rounds: int) -> list[Row]:
    """Locust with grpcio's gevent support, its usual way to gRPC."""
    binary = Path(os.environ.get("LOCUST", HERE / ".venv/bin/locust"))
    if not binary.exists():
        print(f"locust is left out: {binary} is not there (make bench-loadgen installs it)")
        return []
    rows = []
    with server() as null:
        for concurrency in CONCURRENCY:
            argv = [
                "taskset",
                "-c",
                str(cpus()[0]),
                str(binary),
                "-f",
                str(HERE / "locustfile.py"),
            ]
            argv += ["--headless", "-u", str(concurrency), "-r", str(concurrency), "--json"]
            argv += ["-t", f"{max(3, round(3 * seconds))}s", "--host", null.address]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            (stats,) = json.loads(done.stdout)
            assert not stats["num_failures"], done.stderr
            count = stats["num_requests"]
            run_s = stats["last_request_timestamp"] - stats["start_time"]
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rows.append(
                row(
                    "locust",
                    null.name,
                    payload_bytes=SIZES[0],
                    concurrency=concurrency,
                    requests_per_s=round(count / run_s),
                    cpu_us_per_request=round(cpu_s / count * 1e6, 1),
                )
            )
    return rows


def perf_analyzer(seconds: float, _rounds: int) -> list[Row]:
    """Triton's load generator in C++, as it speaks to TensorFlow Serving: synchronous calls."""
    command = os.environ.get("PERF_ANALYZER", shutil.which("perf_analyzer") or "")
    if not command:
        print("perf_analyzer is left out: set PERF_ANALYZER to a command that starts it")
        return []
    rows = []
    with (
        server(answers=serving_answers()) as null,
        tempfile.NamedTemporaryFile(suffix=".csv") as table,
    ):
        for concurrency in CONCURRENCY:
            argv = ["taskset", "-c", str(cpus()[0]), command, "-m", "null", "-i", "grpc"]
            argv += ["--service-kind", "tfserving", "-u", null.address, "--shape", "x:32"]
            argv += ["--concurrency-range", f"{concurrency}:{concurrency}", "-f", table.name]
            argv += ["--measurement-interval", f"{seconds * 1000:.0f}", "--max-trials", "5"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.monotonic()
            subprocess.run(
                [*argv, "--stability-percentage", "60"], check=True, capture_output=True
            )
            run_s = time.monotonic() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            header, line = Path(table.name).read_text().splitlines()[:2]
            found = dict(zip(header.split(","), line.split(","), strict=True))
            rate = float(found["Inferences/Second"])
            rows.append(
                row(
                    "perf_analyzer",
                    null.name,
                    payload_bytes=SIZES[0],
                    concurrency=concurrency,
                    requests_per_s=round(rate),
                    # It does nothing but send from its start to its end, at about this rate.
                    cpu_us_per_request=round(cpu_s / run_s / rate * 1e6, 1),
                    latency_floor_ms=float(found["p50 latency"]) / 1000
                    if concurrency == 1
                    else None,
                )
            )
    return rows


def serving_answers() -> dict[str, bytes]:
    """What perf_analyzer asks TensorFlow Serving for: a signature once, then predictions."""
    protos.install()
    from tensorflow.core.protobuf import meta_graph_pb2  # noqa: F401, PLC0415 - see tuner.protos
    from tensorflow_serving.apis import (  # noqa: PLC0415
        get_model_metadata_pb2,
        predict_pb2,
    )

    signatures = get_model_metadata_pb2.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    for side, name, width in ((signature.inputs, "x", 32), (signature.outputs, "y", 4)):
        side[name].name, side[name].dtype = f"{name}:0", 1
        side[name].tensor_shape.dim.add(size=-1)
        side[name].tensor_shape.dim.add(size=width)
    described = get_model_metadata_pb2.GetModelMetadataResponse()
    described.model_spec.name = "null"
    described.model_spec.version.value = 1
    described.metadata["signature_def"].Pack(signatures)
    answer = predict_pb2.PredictResponse()
    answer.model_spec.CopyFrom(described.model_spec)
    answer.outputs["y"].dtype = 1
    for size in (1, 4):
        answer.outputs["y"].tensor_shape.dim.add(size=size)
    answer.outputs["y"].tensor_content = bytes(16)
    service = PREDICT.rpartition("/")[0]
    return {
        PREDICT: answer.SerializeToString(),
        f"{service}/GetModelMetadata": described.SerializeToString(),
    }


if __name__ == "__main__":
    main()
