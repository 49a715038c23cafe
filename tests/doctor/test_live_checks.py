"""The started server: what operators meet, met for real on the embedded server."""

import shutil

import numpy as np
import pytest
from measure.queueing import columns

from tuner.doctor.live import check_answer, check_ceiling, check_live, check_metrics
from tuner.doctor.models import check_models
from tuner.load.payload import MixPart, build_pool
from tuner.model import inspect
from tuner.records import Config
from tuner.scenario import parse
from tuner.server.cpus import place
from tuner.server.process import embedded

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def doctor(exported, tmp_path):
    """All live checks of a scenario about the model `affine`."""

    def check(model="", rest=""):
        text = f'name = "s"\n[model]\npath = "{exported / "affine"}"\n{model}\n'
        scenario = parse(f"{text}[slo]\np99_ms = 50\n{rest}", tmp_path / "s.toml")
        found = []
        models = check_models(scenario, found.append)
        found.clear()
        placement = place(scenario.server.cpus, scenario.load.cpus)
        check_live(scenario, models, placement, tmp_path, found.append)
        return found

    return check


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory):
    """A server of `affine`: its address, and requests for it."""
    folder = tmp_path_factory.mktemp("served")
    text = f'name = "s"\n[model]\npath = "{exported / "affine"}"\n[slo]\np99_ms = 50\n'
    scenario = parse(text, folder / "s.toml")
    with embedded(scenario, None).launch(Config(None), folder) as server:
        yield server.endpoint.address


def request(exported, rows=1, name="affine", **part):
    signature = inspect(exported / "affine").signature()
    mix = MixPart(model=name, signature=signature, rows={rows: 1.0}, **part)
    return build_pool([mix], seed=1, max_messages=1).messages[0]


def asked(address, message, rows=1):
    found = []
    answered = check_answer("affine", rows, address, message, found.append)
    (finding,) = found
    return finding, answered


def test_all_is_well(doctor):
    found = doctor('rows = { "1" = 0.5, "8" = 0.5 }')
    assert [finding.light for finding in found] == ["green"] * 5, found
    checks = [finding.check for finding in found]
    assert checks == ["server", "request", "request", "metrics", "generator"]
    assert "a request of 8 rows" in found[2].what


def test_a_model_that_only_running_shows_to_be_unbatchable(doctor):
    (red,) = [finding for finding in doctor('signature = "halves"') if finding.light == "red"]
    assert red.check == "not-batchable"
    assert "Batched output tensor's 0th dimension" in red.what
    assert red.remedy


def test_a_server_that_refuses_a_flag(doctor):
    (red,) = doctor(rest="[server.flags]\ntensorflow_intra_op_paralelism = 1\n")
    assert (red.check, red.light) == ("flag", "red")
    assert "tensorflow_intra_op_paralelism" in red.what


def test_a_server_that_takes_no_such_message(doctor):
    flag = 'grpc_channel_arguments = "grpc.max_receive_message_length=100"'
    found = doctor("rows = 64", f"[server.flags]\n{flag}\n")
    (red,) = [finding for finding in found if finding.light == "red"]
    assert red.check == "message-size"
    assert "vs. 100)" in red.what
    assert "grpc_channel_arguments" in red.remedy


def test_inputs_that_cannot_be_read_start_no_server(doctor, tmp_path):
    (red,) = doctor('inputs = "rows.npz"')
    assert red.light == "red"
    assert str(tmp_path / "rows.npz") in red.what


def test_a_start_that_takes_too_long(doctor):
    (red,) = doctor(rest="[server]\nstart_timeout_s = 0.05\n")
    assert (red.check, red.light) == ("server", "red")
    assert "not ready within 0.05 s" in red.what


def test_a_model_name_that_clients_get_wrong(served, exported):
    finding, answered = asked(served, request(exported, name="afine"))
    assert (finding.check, finding.light, answered) == ("model-name", "red", False)
    assert "NOT_FOUND: Servable not found for request: Latest(afine)" in finding.what


def test_a_version_and_a_label_that_are_not_served(served, exported):
    finding, _ = asked(served, request(exported, version=9))
    assert finding.check == "model-name"
    finding, _ = asked(served, request(exported, version_label="stable"))
    assert finding.check == "version-label"


def test_a_port_that_clients_get_wrong(served, exported):
    finding, _ = asked("127.0.0.1:1", request(exported))
    assert (finding.check, finding.light) == ("unavailable", "red")
    assert "8500" in finding.remedy


def test_an_answer_that_an_ordinary_client_refuses(served, exported):
    rows = (4 << 20) // 16 + 1  # of four float32 each: just above the 4 MiB a client takes
    finding, answered = asked(served, request(exported, rows=rows), rows)
    assert (finding.check, finding.light, answered) == ("message-size", "yellow", True)
    assert "refuses more than 4,194,304" in finding.what
    assert "grpc.max_receive_message_length" in finding.remedy


def test_a_label_for_a_version_that_the_server_must_not_miss(exported, tmp_path):
    """With two versions and a label all are found by the names that requests use."""
    shutil.copytree(exported / "affine", tmp_path / "affine")
    text = (
        'name = "s"\n[[models]]\npath = "affine"\nversion_label = "stable"\n'
        'version_labels = { stable = 1 }\n[[models]]\npath = "affine"\nversion = 2\n'
        "[slo]\np99_ms = 50\n"
    )
    scenario = parse(text, tmp_path / "s.toml")
    found = []
    models = check_models(scenario, found.append)
    check_live(scenario, models, place("auto", "auto"), tmp_path, found.append)
    assert {finding.light for finding in found} == {"green"}, found


def test_metrics_that_cannot_be_read():
    assert check_metrics(None).light == "yellow"


@pytest.mark.parametrize(
    ("usable_rps", "light"), [(2500.0, "green"), (1500.0, "yellow"), (900.0, "red")]
)
def test_a_generator_near_its_own_limit(usable_rps, light):
    found = check_ceiling(columns(np.linspace(0, 1, 1000), 1.0, seconds=1.0), usable_rps)
    assert found.light == light
    assert "1,000 requests/s at the server's defaults" in found.what
    assert bool(found.remedy) == (light != "green")
