"""Commands on a server that runs already, over TLS, as a user meets it."""

import json
from concurrent import futures

import grpc
import pytest
from certificates import self_signed
from commands.models import saved_model
from commands.running import FAST, refused, tuner

from tuner.load.client import PREDICT

pytestmark = [pytest.mark.alone, pytest.mark.slow]


@pytest.fixture
def serving(tmp_path):
    """A server that shows a certificate, asks for one, and answers as fast as it can."""
    key, chain = self_signed(tmp_path)
    pair = [(key.read_bytes(), chain.read_bytes())]
    handler = grpc.method_handlers_generic_handler(
        PREDICT.split("/")[1],
        {"Predict": grpc.unary_unary_rpc_method_handler(lambda request, _: request)},
    )
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([handler])
    asking = grpc.ssl_server_credentials(pair, chain.read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", asking)
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


@pytest.fixture
def scenario(serving, tmp_path):
    saved_model(tmp_path / "model" / "1")
    text = FAST.format(model="model", trials=1, blocks=0, limit_ms=400)
    running = f"""
[server]
launcher = "running"
address = "{serving}"
[server.tls]
ca = "chain.pem"
client_cert = "chain.pem"
client_key = "key.pem"
"""
    flags = text[text.index("[server.flags]") : text.index("[load]")]
    path = tmp_path / "fast.toml"
    # As much time as it takes to show that the load holds, whatever else this machine does.
    text = text.replace("max_window_s = 1.0", "max_window_s = 10.0")
    path.write_text(text.replace(flags, running))
    return path


def test_a_running_server_is_checked_over_tls(scenario, tmp_path):
    done = tuner("check", scenario, "--rate", 200, "--out", tmp_path / "results", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] is True
    (run,) = (tmp_path / "results").iterdir()
    (record,) = map(json.loads, (run / "trials.jsonl").read_text().splitlines())
    assert record["config"]["as_it_runs"] is True
    environment = json.loads((run / "environment.json").read_text())
    assert environment["server"]["launcher"] == "running"
    assert environment["server"]["version"].endswith("over TLS")
    assert "Running server" in (run / "report.html").read_text()


def test_doctor_looks_at_a_running_server_over_tls(scenario):
    done = tuner("doctor", scenario, "--json")
    found = {item["check"]: item for item in json.loads(done.stdout)["findings"]}
    assert found["server"]["light"] == "green", done.stderr
    assert "over TLS" in found["server"]["what"]
    assert found["request"]["light"] == "green"
    assert "server.metrics_url" in found["metrics"]["remedy"]
    assert "generator" in found


def test_a_bench_of_a_running_server_over_tls(scenario, tmp_path):
    out = tmp_path / "results"
    done = tuner("bench", scenario, "--rate", 100, "--duration", "2s", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["levels"][0]["measurement"]
    assert measured["requests"] == measured["answered"] > 100


def test_who_shows_no_certificate_is_told_so(scenario, tmp_path):
    text = scenario.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("client_")]
    scenario.write_text("\n".join(lines))
    done = tuner("check", scenario, "--rate", 200, "--out", tmp_path / "results")
    assert done.returncode == 1
    assert "the first request failed: UNAVAILABLE" in done.stderr
    assert "check server.address and [server.tls]" in done.stderr


@pytest.mark.parametrize("command", [["tune"], ["compare", "default", "off"]])
def test_a_running_server_cannot_be_tuned(scenario, tmp_path, command):
    name, *files = command
    said = refused(name, scenario, *files, "--out", tmp_path / "results")
    assert "runs already, and cannot be given other batching parameters" in said
    assert not (tmp_path / "results").exists()
