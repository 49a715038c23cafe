"""What the embedded server costs beside plain grpcio servers that do nothing at all.

    make bench        or: python benchmarks/embedded_server.py [--seconds 3] [--rounds 3]

Every server runs alone on one processor, the load on another; rounds alternate over the servers,
so that a machine that slows down slows all of them. The load is h2load where it is installed
(Debian: nghttp2), else the project's own generator, whose ceiling then bounds the figures. Read
the ratios; absolute rates are this machine's, at this hour.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.environment import cpu_model
from tuner.load.generator import Generator
from tuner.load.payload import MixPart, build_pool
from tuner.model import inspect
from tuner.server.guarded import GUARD

PREDICT = "/tensorflow.serving.PredictionService/Predict"
CONCURRENCY = (1, 16, 64)
HERE = Path(__file__).parent

EXPORT = """
import sys, tensorflow as tf
class Tiny(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(self, x):
        return {"y": x * 2.0 + 1.0}
tiny = Tiny()
tf.saved_model.save(tiny, sys.argv[1], signatures={"serving_default": tiny.serve})
"""

PLAIN = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
import grpc
def handlers(answer):
    method = grpc.unary_unary_rpc_method_handler(answer)
    return (grpc.method_handlers_generic_handler(
        "tensorflow.serving.PredictionService", {"Predict": method}),)
async def aio(port):
    async def answer(request, context): return request
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers(answer))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()
def sync(port):
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(handlers(lambda request, context: request))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()
kind, port = sys.argv[1:]
asyncio.run(aio(port)) if kind == "aio" else sync(port)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of load per cell")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "embedded_server.json")
    arguments = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        sys.exit("needs two processors: one for the server, one for the load")
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), cpus, arguments.seconds, arguments.rounds)
    result = summary(rates)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


def measure(
    folder: Path, cpus: list[int], seconds: float, rounds: int
) -> dict[str, dict[int, list[float]]]:
    """Requests per second by server and concurrency, one figure a round."""
    model = folder / "tiny"
    subprocess.run(
        [sys.executable, "-c", EXPORT, str(model / "1")], check=True, capture_output=True
    )
    info = inspect(model)
    pool = build_pool([MixPart("tiny", info.signature())], seed=1)
    pool.save(folder / "pool")
    batching = folder / "batching.txt"
    batching.write_text(
        "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 0 }\n"
        "max_enqueued_batches { value: 1000000 }\nnum_batch_threads { value: 1 }\n"
    )
    embedded = [sys.executable, "-m", "tuner.server.embedded", "--model_name=tiny"]
    embedded += [f"--model_base_path={model}", "--grpc_max_threads=200"]
    commands = {
        "embedded, batching off": [*embedded, "--port={port}"],
        "embedded, batching on": [
            *embedded,
            "--port={port}",
            "--enable_batching=true",
            f"--batching_parameters_file={batching}",
        ],
        "grpcio aio, echo": [sys.executable, "-c", PLAIN, "aio", "{port}"],
        "grpcio sync, echo": [sys.executable, "-c", PLAIN, "sync", "{port}"],
    }
    rates: dict[str, dict[int, list[float]]] = {
        name: {concurrency: [] for concurrency in CONCURRENCY} for name in commands
    }
    for number in range(rounds):
        order = list(commands) if number % 2 == 0 else list(reversed(commands))
        for name in order:
            with running(commands[name], cpus[1]) as address:
                for concurrency in CONCURRENCY:
                    load(address, folder, pool.messages[0], cpus[0], concurrency, 0.5)
                    rate = load(address, folder, pool.messages[0], cpus[0], concurrency, seconds)
                    rates[name][concurrency].append(rate)
    return rates


@contextmanager
def running(command: list[str], cpu: int) -> Iterator[str]:
    """Start a server on one processor and wait until it listens."""
    port = str(20_000 + os.getpid() % 10_000 + int(time.monotonic() * 10) % 1_000)
    argv = [part.replace("{port}", port) for part in command]
    guard = [sys.executable, "-I", "-S", str(GUARD), str(cpu), str(os.getpid()), "--"]
    process = subprocess.Popen(
        [*guard, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(int(port), process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"a server exited with {process.returncode} before it was ready")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("a server was not ready within a minute")


def load(
    address: str, folder: Path, message: bytes, cpu: int, concurrency: int, seconds: float
) -> float:
    """Answered requests per second in a closed loop."""
    if shutil.which("h2load") is None:
        with Generator(address, folder / "pool", cpus=frozenset({cpu})) as generator:
            samples = generator.closed_loop(concurrency=concurrency, duration_s=seconds, seed=1)
            return float((samples.status == 0).sum()) / seconds
    body = folder / "body"
    body.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    argv = ["taskset", "-c", str(cpu), "h2load", "-D", f"{seconds * 1000:.0f}ms", "-c1"]
    done = subprocess.run(
        [*argv, "-m", str(concurrency), "-d", str(body), *headers, f"http://{address}{PREDICT}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"requests: .* (\d+) succeeded", done.stdout)
    assert found is not None, done.stdout
    return float(found.group(1)) / seconds


def summary(rates: dict[str, dict[int, list[float]]]) -> dict[str, object]:
    """Medians, and ratios to the faster of the plain servers, round by round."""
    plain = [name for name in rates if name.startswith("grpcio")]
    rows = []
    for name, by_concurrency in rates.items():
        for concurrency, found in by_concurrency.items():
            base = [max(rates[p][concurrency][i] for p in plain) for i in range(len(found))]
            ratios = [rate / other for rate, other in zip(found, base, strict=True)]
            rows.append(
                {
                    "server": name,
                    "concurrency": concurrency,
                    "requests_per_s": round(statistics.median(found)),
                    "ratio_to_best_grpcio_echo": round(statistics.median(ratios), 2),
                }
            )
    return {
        "load": "h2load" if shutil.which("h2load") else "own generator",
        "placement": "server on one processor, load on another",
        "cpu_model": cpu_model(),
        "rows": rows,
    }


def show(result: dict[str, object]) -> None:
    print(f"load: {result['load']}; {result['placement']}; {result['cpu_model']}")
    print(f"{'server':<24}{'concurrency':>12}{'requests/s':>12}{'ratio':>8}")
    rows = result["rows"]
    assert isinstance(rows, list)
    for row in rows:
        print(
            f"{row['server']:<24}{row['concurrency']:>12}{row['requests_per_s']:>12,}"
            f"{row['ratio_to_best_grpcio_echo']:>8.2f}"
        )


if __name__ == "__main__":
    main()
