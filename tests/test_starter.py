import os
import re
import struct
from pathlib import Path

import pytest
from test_model import saved_model, write

from tuner.errors import ModelError, UsageError
from tuner.load.examples import read_examples
from tuner.load.tfrecord import masked_crc32c
from tuner.model import inspect
from tuner.scenario import parse
from tuner.starter import starter


def written(model_dir, scenario_path):
    """The scenario that a starter's text means, where it is written to its place."""
    return parse(starter(model_dir, scenario_path), scenario_path)


def examples(scenario):
    """Rows as a run would draw them: what fails here would fail a night."""
    (model,) = scenario.models
    signature = inspect(model.path).signature(model.signature)
    source = None if model.inputs == "random" else model.inputs
    return read_examples(signature, source, dims=model.dims, seed=1)


def test_a_model_with_known_sizes_runs_as_it_is(tmp_path):
    model = write(tmp_path / "m", saved_model({"x": ("DT_FLOAT", [-1, 4])}))
    scenario = written(model, tmp_path / "m.toml")
    assert scenario.name == "m"
    assert scenario.models[0].path == model
    assert scenario.models[0].dims == {}
    assert scenario.limits().describe() == "p99 <= 50 ms, no errors"
    assert examples(scenario)["x"].values.shape[1:] == (4,)


def test_open_sizes_get_placeholders_that_are_marked(tmp_path):
    inputs = {
        "image": ("DT_UINT8", [-1, -1, -1, 3]),
        "known": ("DT_FLOAT", [-1, 7]),
        "odd name": ("DT_INT64", None),
    }
    model = write(tmp_path / "m", saved_model(inputs))
    text = starter(model, tmp_path / "m.toml")
    scenario = parse(text, tmp_path / "m.toml")
    assert scenario.models[0].dims == {"image": (64, 64, 3), "odd name": (64,)}
    assert text.splitlines()[text.splitlines().index(dims_line(text)) - 2].startswith("# EDIT: ")
    shapes = {name: tensor.values.shape[1:] for name, tensor in examples(scenario).items()}
    assert shapes == {"image": (64, 64, 3), "known": (7,), "odd name": (64,)}


def dims_line(text):
    return next(line for line in text.splitlines() if line.startswith("dims = "))


def test_every_commented_key_is_a_default(tmp_path):
    """Taking the comment signs away changes nothing: what is shown is what holds."""
    model = write(tmp_path / "m")
    text = starter(model, tmp_path / "m.toml")
    shown = re.sub(r"(?m)^# (?!version)([a-z_0-9]+ = )", r"\1", text)
    assert shown.count("\n#") < text.count("\n#") - 20
    assert parse(shown, tmp_path / "m.toml") == parse(text, tmp_path / "m.toml")
    for key in ("seed", "confidence", "launcher", "concurrency", "window_s", "trials", "flags"):
        assert re.search(rf"(?m)^# {key} = ", text), key


def test_the_signature_is_the_default_or_else_the_first_that_batches(tmp_path):
    both = write(tmp_path / "a", saved_model(names=("embed", "serving_default")))
    assert written(both, tmp_path / "s.toml").models[0].signature == "serving_default"
    assert '# It also has "embed".' in starter(both, tmp_path / "s.toml")
    other = write(tmp_path / "b", saved_model(names=("classify", "embed")))
    assert written(other, tmp_path / "s.toml").models[0].signature == "classify"


def test_versions_are_told(tmp_path):
    for version in ("3", "12"):
        write(tmp_path / "m", version=version)
    text = starter(tmp_path / "m", tmp_path / "s.toml")
    assert "# It holds versions 3, 12; the largest is asked.\n# version = 12\n" in text


@pytest.mark.parametrize(
    ("model", "scenario", "path"),
    [
        ("m", "s.toml", "m"),
        ("models/m", "s.toml", "models/m"),
        ("models/m", "scenarios/s.toml", "../models/m"),
        ("~models/m", "s.toml", None),
        ("m", "a/b/s.toml", None),
    ],
)
def test_a_near_model_is_named_relative_to_the_scenario(tmp_path, model, scenario, path):
    directory = write(tmp_path / model)
    text = starter(directory, tmp_path / scenario)
    assert f'path = "{path or directory}"\n' in text
    assert parse(text, tmp_path / scenario).models[0].path == directory


def test_relative_arguments_are_resolved(tmp_path, monkeypatch):
    write(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    assert written(Path(), Path("../s.toml")).models[0].path == tmp_path / "m"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    assert written(Path("../m"), Path("../link/s.toml")).models[0].path == tmp_path / "m"


@pytest.mark.parametrize(
    "name",
    ['a "quoted" one', "back\\slash", "line\nbreak", "tab\tbell\x07", "é ☃ 𝄞", "-#'", "\x7f"],
)
def test_odd_names_are_escaped(tmp_path, name):
    model = write(tmp_path / name, saved_model({name: ("DT_FLOAT", [-1, -1])}, names=(name,)))
    scenario = written(model, tmp_path / "s.toml")
    assert scenario.models[0].path == model
    assert scenario.models[0].signature == name
    assert scenario.models[0].dims == {name: (64,)}
    assert examples(scenario)[name].values.shape[1:] == (64,)


def test_a_name_that_is_not_text_is_refused(tmp_path):
    model = write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff")))
    with pytest.raises(UsageError, match=r"(?s)m\\xff.*not UTF-8.*rename"):
        starter(model, tmp_path / "s.toml")


def test_strings_ask_for_real_rows(tmp_path):
    model = write(tmp_path / "m", saved_model({"text": ("DT_STRING", [-1])}))
    text = starter(model, tmp_path / "s.toml")
    assert '# EDIT: "text" takes strings' in text
    assert parse(text, tmp_path / "s.toml").models[0].inputs == tmp_path / "inputs.npz"


def test_recorded_warmup_requests_are_used(tmp_path):
    model = write(tmp_path / "m", saved_model({"text": ("DT_STRING", [-1])}))
    warmup = model / "1" / "assets.extra" / "tf_serving_warmup_requests"
    warmup.parent.mkdir()
    warmup.write_bytes(b"this is no record")
    assert written(model, tmp_path / "s.toml").models[0].inputs == tmp_path / "inputs.npz"

    warmup.write_bytes(recorded_request())
    scenario = written(model, tmp_path / "s.toml")
    assert scenario.models[0].inputs == warmup
    assert examples(scenario)["text"].values.tolist() == [b"hello"]


def recorded_request():
    """A TFRecord of one PredictionLog."""
    from tensorflow_serving.apis import prediction_log_pb2  # noqa: PLC0415  see tuner.protos

    log = prediction_log_pb2.PredictionLog()
    tensor = log.predict_log.request.inputs["text"]
    tensor.dtype = 7  # DT_STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(b"hello")
    data = log.SerializeToString()
    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda _path: None, "no such directory"),
        (Path.mkdir, "no version directory"),
        (lambda path: write(path, saved_model({"x": ("DT_FLOAT", [8, 4])})), "cannot be batched"),
        (lambda path: write(path, saved_model(names=())), "no signature 'serving_default'"),
    ],
)
def test_a_model_that_cannot_be_tuned_is_refused(tmp_path, prepare, message):
    prepare(tmp_path / "m")
    with pytest.raises(ModelError, match=message):
        starter(tmp_path / "m", tmp_path / "s.toml")
