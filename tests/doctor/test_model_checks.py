"""Models that are missing, misnamed or not to be batched: real directories, no server."""

import pytest
from commands.models import saved_model

from tuner import protos
from tuner.doctor.models import check_models
from tuner.scenario import parse


@pytest.fixture
def findings(tmp_path):
    """Check a scenario about the model `m` (version 1) after changing things on disk."""
    saved_model(tmp_path / "m" / "1")

    def check(model="", rest=""):
        text = f'name = "s"\n[[models]]\npath = "m"\n{model}\n[slo]\np99_ms = 50\n{rest}'
        found = []
        usable = check_models(parse(text, tmp_path / "s.toml"), found.append)
        return found, [section.servable for section, _ in usable]

    return check


def reds(found):
    return [finding for finding in found if finding.light == "red"]


def test_a_model_is_shown_as_saved_model_cli_shows_it(findings):
    found, usable = findings()
    assert not reds(found)
    assert usable == ["m"]
    assert found[0].detail.splitlines() == [
        "signature_def['serving_default']:",
        "  The given SavedModel SignatureDef contains the following input(s):",
        "    inputs['x'] tensor_info:",
        "        dtype: DT_FLOAT",
        "        shape: (-1, 4)",
        "        name: x:0",
        "  The given SavedModel SignatureDef contains the following output(s):",
        "    outputs['y'] tensor_info:",
        "        dtype: DT_FLOAT",
        "        shape: (-1, 4)",
        "        name: y:0",
        "  Method name is: tensorflow/serving/predict",
    ]


def test_a_base_path_that_is_missing(findings, tmp_path):
    (tmp_path / "m").rename(tmp_path / "n")
    found, usable = findings()
    (red,) = reds(found)
    assert f"{tmp_path / 'm'}: no such directory" in red.what
    assert red.remedy
    assert usable == []


def test_a_version_directory_that_is_missing(findings, tmp_path):
    (tmp_path / "m" / "1").rename(tmp_path / "m" / "one")
    (red,) = reds(findings()[0])
    assert "has no version directory" in red.what
    assert "did you forget the version?" in red.remedy


def test_a_model_that_cannot_be_batched(findings, tmp_path):
    saved_model(tmp_path / "m" / "2", first=1)
    found, usable = findings()
    (red,) = reds(found)
    assert red.check == "not-batchable"
    assert "the first dimension of input 'x' is fixed" in red.what
    assert usable == []


def test_a_signature_that_is_misspelt(findings):
    (red,) = reds(findings('signature = "serving_defualt"')[0])
    assert "did you mean 'serving_default'?" in red.remedy


def test_a_label_for_a_version_that_is_not_there(findings):
    found, _ = findings('version_label = "new"\nversion_labels = { new = 7 }')
    assert {red.what for red in reds(found)} >= {
        next(red.what for red in reds(found) if "has no version 7" in red.what)
    }


def test_an_unused_label_must_be_right_too(findings):
    found, _ = findings("version = 1\nversion_labels = { old = 1, next = 7 }")
    (red,) = reds(found)
    assert "has no version 7 (label 'next')" in red.what


@pytest.mark.parametrize(
    ("sizes", "splitting", "light"),
    [
        ("[8, 16]", "[false]", "green"),
        ("[4, 16]", "[false]", "yellow"),
        ("[2, 4]", "[false]", "red"),
        ("[2, 4]", "[true]", "green"),
        ("[2, 4]", "[false, true]", "yellow"),
    ],
)
def test_rows_that_no_batch_takes(findings, sizes, splitting, light):
    found, _ = findings(
        "rows = 8",
        f"[search.space]\nmax_batch_size = {sizes}\nenable_large_batch_splitting = {splitting}\n",
    )
    (rows,) = [finding for finding in found if finding.check == "rows"]
    assert rows.light == light
    assert bool(rows.remedy) == (light != "green")


def warmup(version_dir, *row_counts):
    """Write warm-up requests of so many rows, as TensorFlow Serving reads them."""
    from tfrecords import write_records  # noqa: PLC0415

    protos.install()
    from tensorflow_serving.apis import prediction_log_pb2  # noqa: PLC0415

    records = []
    for rows in row_counts:
        log = prediction_log_pb2.PredictionLog()
        tensor = log.predict_log.request.inputs["x"]
        tensor.tensor_shape.dim.add(size=rows)
        tensor.tensor_shape.dim.add(size=4)
        records.append(log.SerializeToString())
    path = version_dir / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    write_records(path, records)
    return path


@pytest.mark.parametrize(
    ("rows", "rest", "light", "text"),
    [
        ((1, 4), "", "green", "2 warm-up requests of up to 4 rows"),
        ((16,), "", "yellow", "does not load where max_batch_size is smaller, such as 4"),
        ((1,) * 1001, "", "red", "no model with more than 1,000"),
        (
            (1,) * 20,
            "[search.space]\nbatch_timeout_micros = [0, 5_000_000]\n",
            "yellow",
            "up to 100 s of server.start_timeout_s = 120",
        ),
    ],
)
def test_warm_up_requests_of_a_model(findings, tmp_path, rows, rest, light, text):
    warmup(tmp_path / "m" / "1", *rows)
    (found,) = [finding for finding in findings(rest=rest)[0] if finding.check == "warmup"]
    assert found.light == light
    assert text in found.what


def test_a_damaged_warm_up_file(findings, tmp_path):
    path = warmup(tmp_path / "m" / "1", 1)
    path.write_bytes(path.read_bytes()[:-2])
    assert any(red.check == "warmup" for red in reds(findings()[0]))
