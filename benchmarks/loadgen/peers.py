"""Load generators of another kind: locust and perf_analyzer."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from conditions import undisturbed
from stage import CONCURRENCY, SMALL, Cell, Row, conditions, cpus, row, server

from tuner import protos
from tuner.load.client import PREDICT

HERE = Path(__file__).parent


def locust(seconds: float, _rounds: int) -> list[Row]:
    """Locust with grpcio's gevent support, its usual way to gRPC."""
    binary = Path(os.environ.get("LOCUST", HERE / ".venv/bin/locust"))
    if not binary.exists():
        print(f"locust is left out: {binary} is not there (make bench-loadgen installs it)")
        return []
    with server() as null:
        cells = {
            concurrency: undisturbed(
                partial(_locust, str(binary), null.address, concurrency, seconds), cpus()
            )
            for concurrency in CONCURRENCY
        }
    return _rows("locust", null.name, cells)


def _locust(binary: str, address: str, concurrency: int, seconds: float) -> Cell:
    argv = ["taskset", "-c", str(cpus()[0]), binary, "-f", str(HERE / "locustfile.py")]
    argv += ["--headless", "-u", str(concurrency), "-r", str(concurrency), "--json"]
    argv += ["-t", f"{max(3, round(3 * seconds))}s", "--host", address]
    before_s = _children_s()
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    cpu_s = _children_s() - before_s
    (stats,) = json.loads(done.stdout)
    assert not stats["num_failures"], done.stderr
    count = stats["num_requests"]
    return {
        "requests_per_s": round(count / (stats["last_request_timestamp"] - stats["start_time"])),
        "cpu_us_per_request": round(cpu_s / count * 1e6, 1),
        "latency_floor_ms": None,
    }


def perf_analyzer(seconds: float, _rounds: int) -> list[Row]:
    """Triton's load generator in C++, as it speaks to TensorFlow Serving: synchronous calls."""
    command = os.environ.get("PERF_ANALYZER", shutil.which("perf_analyzer") or "")
    if not command:
        print("perf_analyzer is left out: set PERF_ANALYZER to a command that starts it")
        return []
    with server(answers=serving_answers()) as null:
        cells = {
            concurrency: undisturbed(
                partial(_perf_analyzer, command, null.address, concurrency, seconds), cpus()
            )
            for concurrency in CONCURRENCY
        }
    return _rows("perf_analyzer", null.name, cells)


def _perf_analyzer(command: str, address: str, concurrency: int, seconds: float) -> Cell:
    with tempfile.NamedTemporaryFile(suffix=".csv") as table:
        argv = ["taskset", "-c", str(cpus()[0]), command, "-m", "null", "-i", "grpc"]
        argv += ["--service-kind", "tfserving", "-u", address, "--shape", "x:32"]
        argv += ["--concurrency-range", f"{concurrency}:{concurrency}", "-f", table.name]
        argv += ["--measurement-interval", f"{seconds * 1000:.0f}", "--max-trials", "5"]
        before_s, started = _children_s(), time.monotonic()
        subprocess.run([*argv, "--stability-percentage", "60"], check=True, capture_output=True)
        run_s, cpu_s = time.monotonic() - started, _children_s() - before_s
        header, line = Path(table.name).read_text().splitlines()[:2]
    found = dict(zip(header.split(","), line.split(","), strict=True))
    rate = float(found["Inferences/Second"])
    return {
        "requests_per_s": round(rate),
        # It does nothing but send from its start to its end, at about this rate.
        "cpu_us_per_request": round(cpu_s / run_s / rate * 1e6, 1),
        "latency_floor_ms": float(found["p50 latency"]) / 1000 if concurrency == 1 else None,
    }


def _children_s() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rows(name: str, null: str, cells: dict[int, Cell]) -> list[Row]:
    keys = ("requests_per_s", "cpu_us_per_request", "latency_floor_ms")
    return [
        row(
            name,
            null,
            payload_bytes=SMALL,
            concurrency=concurrency,
            **{key: cell[key] for key in keys},
            **conditions([cell]),
        )
        for concurrency, cell in cells.items()
    ]


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
