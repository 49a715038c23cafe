from pathlib import Path

import pytest

from tuner import model, protos
from tuner.errors import ModelError

protos.install()

from tensorflow.core.framework import types_pb2  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402


def fill(info, dtype, shape):
    info.dtype = types_pb2.DataType.Value(dtype)
    if shape is None:
        info.tensor_shape.unknown_rank = True
    else:
        info.tensor_shape.SetInParent()
        for size in shape:
            info.tensor_shape.dim.add(size=size)


def saved_model(inputs=None, outputs=None, *, tags=("serve",), names=("serving_default",)):
    message = saved_model_pb2.SavedModel()
    graph = message.meta_graphs.add()
    graph.meta_info_def.tags.extend(tags)
    for name in names:
        definition = graph.signature_def[name]
        for tensor, (dtype, shape) in (inputs or {"x": ("DT_FLOAT", [-1, 4])}).items():
            fill(definition.inputs[tensor], dtype, shape)
        for tensor, (dtype, shape) in (outputs or {"y": ("DT_FLOAT", [-1, 2])}).items():
            fill(definition.outputs[tensor], dtype, shape)
    graph.signature_def["__saved_model_init_op"].SetInParent()
    return message


def write(directory, message=None, version="1"):
    target = directory / version
    (target / "variables").mkdir(parents=True)
    (target / "saved_model.pb").write_bytes((message or saved_model()).SerializeToString())
    (target / "variables" / "variables.index").write_bytes(b"crc of every tensor")
    (target / "variables" / "variables.data-00000-of-00001").write_bytes(b"numbers")
    return directory


def test_reads_signatures_with_types_and_open_dimensions(tmp_path):
    message = saved_model(
        {"image": ("DT_UINT8", [-1, 8, 8, 3]), "any": ("DT_STRING", None)},
        {"score": ("DT_FLOAT", [-1])},
    )
    found = model.inspect(write(tmp_path, message))
    signature = found.signature()
    assert list(found.signatures) == ["serving_default"]
    assert signature.inputs["image"] == model.TensorSpec("DT_UINT8", (None, 8, 8, 3))
    assert signature.inputs["any"] == model.TensorSpec("DT_STRING", None)
    assert signature.outputs["score"].shape == (None,)
    assert str(signature.inputs["image"]) == "DT_UINT8 [?, 8, 8, 3]"


def test_takes_the_largest_version_by_number_unless_told(tmp_path):
    for version in ("9", "10", "2"):
        write(tmp_path, version=version)
    (tmp_path / "old").mkdir()
    assert model.inspect(tmp_path).version == 10
    assert model.inspect(tmp_path).versions == (2, 9, 10)
    assert model.inspect(tmp_path, version=2).version == 2
    with pytest.raises(ModelError, match=r"no version 3\n.*2, 9, 10"):
        model.inspect(tmp_path, version=3)


def test_missing_directory(tmp_path):
    with pytest.raises(ModelError, match="no such directory"):
        model.inspect(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is a file"):
        model.inspect(tmp_path / "file")


def test_no_version_directory(tmp_path):
    with pytest.raises(ModelError, match="did you forget the version"):
        model.inspect(tmp_path)


def test_given_the_version_directory_itself(tmp_path):
    write(tmp_path)
    with pytest.raises(ModelError) as caught:
        model.inspect(tmp_path / "1")
    assert caught.value.hint == f"this is itself a version: name its parent, {tmp_path}"


def test_saved_model_that_was_never_versioned(tmp_path):
    (write(tmp_path) / "1").rename(tmp_path / "exported")
    with pytest.raises(ModelError, match="into a subdirectory named 1"):
        model.inspect(tmp_path / "exported")


def test_missing_and_corrupt_graph(tmp_path):
    graph = write(tmp_path) / "1" / "saved_model.pb"
    graph.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"saved_model.pb: is not a SavedModel"):
        model.inspect(tmp_path)
    graph.unlink()
    with pytest.raises(ModelError, match="No such file"):
        model.inspect(tmp_path)


@pytest.mark.parametrize(
    ("message", "listed"),
    [
        (saved_model(tags=("train",)), "train"),
        (saved_model(tags=("serve", "tpu")), "serve, tpu"),
        (saved_model_pb2.SavedModel(), "no graph at all"),
    ],
)
def test_no_graph_that_the_server_would_load(tmp_path, message, listed):
    with pytest.raises(ModelError, match=f'tagged "serve".*{listed}'):
        model.inspect(write(tmp_path, message))


def test_unknown_signature_names_the_nearest(tmp_path):
    found = model.inspect(write(tmp_path, saved_model(names=("classify", "serving_default"))))
    with pytest.raises(ModelError, match=r"did you mean 'classify'\?.*classify, serving_default"):
        found.signature("clasify")
    with pytest.raises(ModelError, match=r"^[^?]*its signatures are classify, serving_default"):
        found.signature("zzz")


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ({"x": ("DT_FLOAT", [1, 4])}, None, r"input 'x' is fixed: DT_FLOAT \[1, 4\]"),
        ({"x": ("DT_FLOAT", [-1]), "k": ("DT_INT32", [])}, None, "input 'k' is a scalar"),
        (None, {"y": ("DT_FLOAT", [])}, "output 'y' is a scalar"),
        (None, {"y": ("DT_FLOAT", [7])}, "output 'y' is fixed"),
    ],
)
def test_signature_that_cannot_be_batched(tmp_path, inputs, outputs, words):
    signature = model.inspect(write(tmp_path, saved_model(inputs, outputs))).signature()
    assert not model.batchable(signature)
    with pytest.raises(ModelError, match=words):
        model.require_batchable(tmp_path, signature)


def test_open_and_unknown_shapes_can_be_batched(tmp_path):
    message = saved_model({"x": ("DT_FLOAT", None)}, {"y": ("DT_FLOAT", [-1, 5])})
    signature = model.inspect(write(tmp_path, message)).signature()
    assert model.obstacles(signature) == ()
    model.require_batchable(tmp_path, signature)


def test_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path):
    first = model.inspect(write(tmp_path / "a")).fingerprint
    other = write(tmp_path / "b", version="7")
    assert model.inspect(other).fingerprint == first


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("variables/variables.index", b"crc of other tensors"),
        ("variables/variables.data-00000-of-00001", b"more numbers"),
        ("assets/vocabulary.txt", b"a\nb\n"),
    ],
)
def test_fingerprint_changes_with_every_part(tmp_path, name, content):
    before = model.inspect(write(tmp_path)).fingerprint
    path: Path = tmp_path / "1" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert model.inspect(tmp_path).fingerprint != before
