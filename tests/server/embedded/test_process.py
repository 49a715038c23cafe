"""How the process starts, what it says, and what it exits with."""

import signal
import socket

import numpy as np
import pytest
from serving import request_of, rows_of
from tensorflow_serving.apis import prediction_log_pb2

pytestmark = pytest.mark.slow

FAILED = "Failed to start server. Error: "


@pytest.mark.parametrize(
    ("text", "code", "stdout", "stderr"),
    [
        ("max_batch_size: 32", 255, "INVALID_ARGUMENT: Invalid protobuf file: '", "1:"),
        ("", 255, "; Invalid argument", ""),
        ("num_batch_threads { value: 0 }", 255, "num_batch_threads must be positive; was 0", ""),
        (
            "max_batch_size { value: 32 } allowed_batch_sizes: 64",
            255,
            "UNKNOWN: 1 servable(s) did not become available: {{name: m version: 2} due to "
            "error: INVALID_ARGUMENT: Last entry in allowed_batch_sizes must match "
            "max_batch_size; last entry was 64; expected 32}, }",
            "Loading servable: {name: m version: 2} failed: INVALID_ARGUMENT: Last entry",
        ),
        ("max_batch_size { value: 0 }", 139, "", "input_batch_size_limit must be positive"),
        ("batch_timeout_micros { value: -1 }", 139, "", "must be non-negative; was -1"),
    ],
)
def test_bad_parameters(launch, exported, batching_file, text, code, stdout, stderr):
    server = launch(
        "--model_name=m",
        f"--model_base_path={exported / 'affine'}",
        "--enable_batching=true",
        "--max_num_load_retries=0",
        batching_file(text),
        ready=False,
    )
    exit_code, said, logged = server.wait_exit()
    assert exit_code == code, said + logged
    assert stdout in said
    assert said.startswith(FAILED) or code != 255
    assert stderr in logged


def test_a_corrupt_model_is_tried_again_and_given_up(launch, tmp_path):
    base = tmp_path / "m"
    (base / "1").mkdir(parents=True)
    (base / "1" / "saved_model.pb").write_bytes(b"\xff not a model")
    server = launch(
        "--model_name=m",
        f"--model_base_path={base}",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1000",
        ready=False,
    )
    code, said, logged = server.wait_exit()
    assert code == 255
    assert "DATA_LOSS: Can't parse" in said
    assert "Retrying of Loading servable: {name: m version: 1} retry: 1" in logged


def test_waits_for_a_version_and_ends_at_a_signal(launch, tmp_path, exported):
    base = tmp_path / "m"
    server = launch("--model_name=m", f"--model_base_path={base}", "--no_such_flag=1", ready=False)
    server.wait_for("FileSystemStoragePathSource encountered a filesystem access error")
    base.mkdir()
    server.wait_for("No versions of servable m found under base path")
    (base / "7").symlink_to(exported / "affine" / "1")
    server.wait_for("Running gRPC ModelServer at 0.0.0.0:")
    assert server.predict(request_of("m", x=rows_of(1))).version == 7
    server.process.send_signal(signal.SIGTERM)
    code, said, _ = server.wait_exit()
    assert code == 0
    assert "unknown argument: --no_such_flag=1" in said


def test_taken_ports(launch, exported):
    flags = ("--model_name=m", f"--model_base_path={exported / 'affine'}")
    with socket.socket() as held:
        held.bind(("0.0.0.0", 0))
        held.listen()
        port = held.getsockname()[1]
        refused = launch(*flags, f"--port={port}", ready=False)
        code, said, _ = refused.wait_exit()
        assert (code, said) == (
            255,
            f"{FAILED}INVALID_ARGUMENT: Failed to BuildAndStart gRPC server\n",
        )
        without_rest = launch(*flags, f"--rest_api_port={port}", ready=False)
        without_rest.wait_for(f"Failed to start HTTP Server at localhost:{port}")
        assert without_rest.predict(request_of("m", x=rows_of(1))).version == 2


def test_warm_up_requests_run_before_the_port_opens(launch, model_dir):
    base = model_dir("affine", 1)
    entry = prediction_log_pb2.PredictionLog()
    entry.predict_log.request.CopyFrom(request_of("m", x=rows_of(1, 2)))
    record = entry.SerializeToString()
    extra = base / "1" / "assets.extra"
    extra.mkdir()
    framed = len(record).to_bytes(8, "little") + bytes(4) + record + bytes(4)
    (extra / "tf_serving_warmup_requests").write_bytes(framed * 3)
    server = launch("--model_name=m", f"--model_base_path={base}", "--enable_batching=true")
    assert "Number of warmup records read: 3." in server.stderr.read_text()
    assert server.metrics()["wrapped_run_count"] == 3
    assert np.isfinite(server.predict(request_of("m", x=rows_of(1))).y).all()


def test_channel_arguments_bound_a_message(launch, exported):
    server = launch(
        "--model_name=m",
        f"--model_base_path={exported / 'affine'}",
        "--grpc_channel_arguments=grpc.so_reuseport=0,grpc.max_receive_message_length=1000,"
        "grpc.max_concurrent_streams=2",
    )
    assert server.predict(request_of("m", x=rows_of(1))).y.shape == (1, 4)
    code, text = server.failure(request_of("m", x=rows_of(*range(100))))
    assert code == "RESOURCE_EXHAUSTED"
    assert "Received message larger than max (1" in text
    assert text.endswith("vs. 1000)")
