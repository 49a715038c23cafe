"""A server process and requests for it, shared by the tests of this folder."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest

from tuner import protos

protos.install()

import grpc  # noqa: E402
import numpy as np  # noqa: E402
from tensorflow.python.framework import tensor_util  # noqa: E402
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

START_S = 90


def held_port():
    """A socket with a port that nobody is given while it is open, and that a server may take."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Server:
    """The embedded server as a process, as a launcher would start it."""

    def __init__(self, folder, flags):
        self.held = (held_port(), held_port())
        self.port, self.rest_port = (held.getsockname()[1] for held in self.held)
        monitoring = folder / "monitoring.txt"
        monitoring.write_text("prometheus_config { enable: true }")
        self.stdout, self.stderr = folder / "stdout.txt", folder / "stderr.txt"
        argv = [
            sys.executable,
            "-m",
            "tuner.server.embedded",
            f"--port={self.port}",
            f"--rest_api_port={self.rest_port}",
            f"--monitoring_config_file={monitoring}",
            *flags,
        ]
        with self.stdout.open("w") as out, self.stderr.open("w") as err:
            self.process = subprocess.Popen(argv, stdout=out, stderr=err)
        self.channel = None

    def wait_for(self, text, timeout_s=START_S):
        deadline = time.monotonic() + timeout_s
        while text not in self.stderr.read_text():
            assert self.process.poll() is None, self.stdout.read_text() + self.stderr.read_text()
            assert time.monotonic() < deadline, self.stderr.read_text()
            time.sleep(0.05)

    def wait_exit(self):
        """The exit code, what was said on stdout, and what on stderr."""
        code = self.process.wait(START_S)
        return code, self.stdout.read_text(), self.stderr.read_text()

    def stub(self):
        if self.channel is None:
            self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def start_predict(self, request, timeout_s=60):
        return self.stub().Predict.future(request, timeout=timeout_s)

    def predict(self, request, timeout_s=60):
        return outputs_of(self.start_predict(request, timeout_s).result())

    def failure(self, request, timeout_s=60):
        """The status code's name and text of a call that fails."""
        with pytest.raises(grpc.RpcError) as caught:
            self.predict(request, timeout_s)
        return caught.value.code().name, caught.value.details()

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}{path}") as answer:
            return answer.read().decode()

    def metrics(self):
        """Sums, counts and counters by name and labels, without the common prefix."""
        text = self.get("/monitoring/prometheus/metrics")
        values = {}
        for line in text.splitlines():
            if match := re.fullmatch(r":tensorflow:serving:(\S+?)(?:\{\})? (\S+)", line):
                values[match[1].removeprefix("batching_session:")] = float(match[2])
        return values

    def close(self):
        if self.channel is not None:
            self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for held in self.held:
            held.close()


def request_of(model, signature="", version=None, label="", output_filter=(), **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    request.output_filter.extend(output_filter)
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tensor_util.make_tensor_proto(values))
    return request


def outputs_of(response):
    return SimpleNamespace(
        version=response.model_spec.version.value,
        **{name: tensor_util.MakeNdarray(proto) for name, proto in response.outputs.items()},
    )


def rows_of(*values):
    """Rows of four equal float32 numbers."""
    return np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)
