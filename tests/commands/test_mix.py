"""One run over models as people serve them: versions, labels, signatures, warm-up requests."""

import json
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from commands.running import refused, tuner
from tfrecords import write_records

from tuner import protos
from tuner.load.payload import MixPart, build_pool
from tuner.load.pool import RequestPool
from tuner.model import inspect
from tuner.search.evidence import sentences
from tuner.store import RunDirectory

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

MIX = """
name = "mix"
[[models]]
path = "affine"
version_label = "stable"
version_labels = { stable = 1, canary = 2 }
rows = { "1" = 0.5, "10" = 0.5 }
weight = 2
[[models]]
path = "affine"
version = 2
inputs = "affine/2/assets.extra/tf_serving_warmup_requests"
[[models]]
path = "lengths"
name = "text"
dims = { x = [3, 2] }
[slo]
p90_ms = 400
max_error_rate = 0.01
[server.flags]
tensorflow_intra_op_parallelism = 1
[load]
concurrency = 16
[measure]
window_s = 0.6
max_window_s = 1.0
warmup_s = 0.4
max_warmup_s = 0.8
resolution = 0.4
repeats = 0
[search]
sampler = "auto"
trials = 4
guide_points = 0
final_blocks = 0
[search.space]
max_batch_size = [8]
batch_timeout_micros = [0]
num_batch_threads = [1]
allowed_batch_sizes = ["linear"]
enable_large_batch_splitting = [true]
flags = { grpc_channel_arguments = ["grpc.max_concurrent_streams=1000", "grpc.x=1"] }
"""


@pytest.fixture
def folder(exported, tmp_path):
    """A scenario over two models, one with recorded warm-up requests of 4 rows."""
    for name in ("affine", "lengths"):
        shutil.copytree(exported / name, tmp_path / name)
    signature = inspect(tmp_path / "affine").signature()
    part = MixPart(model="affine", signature=signature, rows={4: 1.0})
    recorded = build_pool([part], seed=5, max_messages=3).messages
    protos.install()
    from tensorflow_serving.apis import prediction_log_pb2  # noqa: PLC0415

    logs = []
    for message in recorded:
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.ParseFromString(message)
        logs.append(log.SerializeToString())
    assets = tmp_path / "affine" / "2" / "assets.extra"
    assets.mkdir(exist_ok=True)
    write_records(assets / "tf_serving_warmup_requests", logs)
    (tmp_path / "mix.toml").write_text(MIX)
    return tmp_path


def targets(run):
    """What each request of the pool asks for: (model, version, label), and the pool."""
    from tensorflow_serving.apis import predict_pb2  # noqa: PLC0415

    pool = RequestPool.load(run.path / "requests.pool")
    specs = [predict_pb2.PredictRequest.FromString(item).model_spec for item in pool.messages]
    return [(spec.name, spec.version.value, spec.version_label) for spec in specs], pool


def test_a_mix_over_models_versions_and_labels_is_tuned(folder):
    done = tuner("tune", folder / "mix.toml", "--out", folder / "results", "--json")
    assert done.returncode == 0, done.stderr
    assert "waits in 3 queues" in done.stderr, "the model of the scheduler knows one"
    (path,) = (folder / "results").iterdir()
    run = RunDirectory(path)

    outcomes = [(trial.role, trial.outcome) for trial in run.trials()]
    assert [role for role, _ in outcomes][:2] == ["off", "default"]  # some may be measured again
    assert "failed" not in {outcome for _, outcome in outcomes}, outcomes

    asked, pool = targets(run)
    assert set(asked) == {("affine", 0, "stable"), ("affine", 2, ""), ("text", 0, "")}
    drawn = [asked[pick] for pick in pool.draw(4000, seed=1)]
    shares = Counter(drawn)
    assert shares["affine", 0, "stable"] / 4000 == pytest.approx(0.5, abs=0.05)
    assert shares["text", 0, ""] / 4000 == pytest.approx(0.25, abs=0.05)
    runs = 1 + np.count_nonzero([one != other for one, other in pairwise(drawn)])
    assert runs > 1500  # interleaved: neighbours are mostly of different models

    for trial in run.trials():
        log = (path / "trials" / f"{trial.number:04d}" / "server.log").read_text()
        for servable in ("affine version: 1", "affine version: 2", "text version: 1"):
            assert f"Successfully loaded servable version {{name: {servable}}}" in log
        assert "Number of warmup records read: 3" in log
        answered = [level.measurement for level in trial.levels]
        assert all(item.answered == item.requests > 0 for item in answered)
        assert all(item.server.requests["OK"] >= item.answered for item in answered)

    split = [trial for trial in run.trials() if trial.role == "sampler"]
    for trial in split:
        batching = trial.config.batching
        assert (batching.max_batch_size, batching.max_execution_batch_size) == (10, 8)
        fills = [level.measurement.server.rows_per_batch for level in trial.levels]
        assert all(0 < fill <= 8 for fill in fills)
    assert {dict(trial.config.flags)["grpc_channel_arguments"] for trial in split} == {
        "grpc.max_concurrent_streams=1000",
        "grpc.x=1",
    }

    printed = json.loads(done.stdout)
    assert printed["flags"]["model_config_file"] == "models.config"
    assert isinstance(printed["evidence"], list)
    trusted = [trial for trial in split if trial.shown_level is not None]  # a busy host has none
    told = [sentences(trial, run.trials(), None)[0] for trial in trusted]
    assert all(text.startswith("a batch held ") for text in told)
    config = (path / "models.config").read_text()
    assert 'base_path: "/models/affine"' in config
    assert 'base_path: "/models/text"' in config
    mounted = {item["name"]: item["path"] for item in printed["deployment"]["models"]}
    assert mounted == {"affine": str(folder / "affine"), "text": str(folder / "lengths")}


def test_a_warm_up_request_that_no_batch_takes_fails_that_candidate_alone(folder):
    text = MIX
    for old, new in (
        ("splitting = [true]", "splitting = [false]"),
        ("max_batch_size = [8]", "max_batch_size = [2]"),
        ('rows = { "1" = 0.5, "10" = 0.5 }\n', ""),
        ("trials = 4", "trials = 3"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "mix.toml").write_text(text)
    done = tuner("tune", folder / "mix.toml", "--out", folder / "results")
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "results").iterdir()
    trials = RunDirectory(path).trials()
    failed = [trial for trial in trials if trial.outcome == "failed"]
    assert {trial.role for trial in failed} == {"sampler"}
    assert "Task size 4 is larger than maximum input batch size 2" in failed[0].failure.text


def test_a_label_that_names_nothing_starts_no_server(folder):
    scenario = folder / "mix.toml"
    scenario.write_text(MIX.replace('version_label = "stable"', 'version_label = "stabel"'))
    said = refused("tune", scenario, "--out", folder / "results")
    assert "has no version label 'stabel'; did you mean 'stable'?" in said
    scenario.write_text(MIX.replace("canary = 2", "canary = 3"))
    assert "has no version 3" in refused("tune", scenario, "--out", folder / "results")
    assert not (folder / "results").exists()
