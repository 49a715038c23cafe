import struct

import numpy as np
import pytest

from tuner import protos
from tuner.errors import HostError, InputError, LoadError
from tuner.load import tensors
from tuner.load.payload import MixPart, RequestPool, build_pool
from tuner.load.tfrecord import masked_crc32c
from tuner.model import Signature, TensorSpec

protos.install()

from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2  # noqa: E402


def signature(name="serving_default", **inputs):
    return Signature(
        name, {k: TensorSpec(dtype, shape) for k, (dtype, shape) in inputs.items()}, {}
    )


FLOATS = signature(x=("DT_FLOAT", (None, 4)))


def parse(message):
    return predict_pb2.PredictRequest.FromString(message)


def values(message, name="x"):
    return tensors.decode(parse(message).inputs[name]).values


def one_pool(tmp_path=None, sig=FLOATS, **kwargs):
    return build_pool([MixPart("m", sig, **kwargs)], seed=3)


# --- random rows ---


def test_requests_are_distinct_and_as_the_signature_says():
    pool = one_pool()
    assert len(set(pool.messages)) == len(pool.messages) == 64
    request = parse(pool.messages[0])
    assert request.model_spec.name == "m"
    assert request.model_spec.signature_name == "serving_default"
    assert request.model_spec.WhichOneof("version_choice") is None
    proto = request.inputs["x"]
    assert proto.dtype == types_pb2.DT_FLOAT
    assert [dim.size for dim in proto.tensor_shape.dim] == [1, 4]
    assert len(proto.tensor_content) == 16
    assert np.all((values(pool.messages[0]) >= 0) & (values(pool.messages[0]) < 1))


def test_equal_seeds_make_equal_pools():
    parts = [MixPart("m", FLOATS)]
    assert build_pool(parts, seed=1).messages == build_pool(parts, seed=1).messages
    assert build_pool(parts, seed=1).messages != build_pool(parts, seed=2).messages


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("DT_DOUBLE", 0, 1),
        ("DT_HALF", 0, 1),
        ("DT_UINT8", 0, 127),
        ("DT_INT64", 0, 9),
        ("DT_BOOL", 0, 1),
        ("DT_COMPLEX64", 0, 2),
    ],
)
def test_random_values_by_type(dtype, low, high):
    found = values(one_pool(sig=signature(x=(dtype, (None, 500)))).messages[0])
    assert np.all((np.abs(found) >= low) & (np.abs(found) <= high))
    assert len(np.unique(found)) > 1


def test_bfloat16_is_the_upper_half_of_a_float():
    tensor = tensors.convert(np.array([1.0, -2.5], np.float32), "DT_BFLOAT16")
    assert [hex(bits) for bits in tensor.values] == ["0x3f80", "0xc020"]


def test_open_dimensions_take_their_sizes_from_the_scenario():
    sig = signature(x=("DT_FLOAT", (None, None, 1)))
    pool = one_pool(sig=sig, dims={"x": [43844, 1]})
    assert values(pool.messages[0]).shape == (1, 43844, 1)
    with pytest.raises(
        InputError, match=r"'x' is DT_FLOAT \[\?, \?, 1\].*\n.*dims.x = \[64, 64\]"
    ):
        one_pool(sig=sig)


@pytest.mark.parametrize("sizes", [[7, 2], [7], [7, 1, 1], []])
def test_dims_must_fit_the_signature(sizes):
    with pytest.raises(InputError, match=r"dims.x = .* does not fit input 'x'"):
        one_pool(sig=signature(x=("DT_FLOAT", (None, None, 1))), dims={"x": sizes})


def test_dims_of_an_unknown_input():
    with pytest.raises(InputError, match=r"dims.X: .*no such input\n.*its inputs are x"):
        one_pool(dims={"X": [4]})


def test_unknown_rank_needs_dims():
    sig = signature(x=("DT_INT32", None))
    assert values(one_pool(sig=sig, dims={"x": [3]}).messages[0]).shape == (1, 3)
    with pytest.raises(InputError, match="of unknown rank"):
        one_pool(sig=sig)


def test_random_strings_are_refused():
    with pytest.raises(InputError, match="takes strings"):
        one_pool(sig=signature(x=("DT_STRING", (None,))))


def test_types_no_request_can_carry():
    with pytest.raises(InputError, match="type DT_RESOURCE"):
        one_pool(sig=signature(x=("DT_RESOURCE", (None,))))


# --- rows, mix, bounds ---


def test_rows_follow_their_distribution():
    pool = one_pool(rows={1: 3.0, 8: 1.0})
    picked = np.array(pool.rows)[pool.draw(20_000, seed=1)]
    assert all(len(values(m)) == rows for m, rows in zip(pool.messages, pool.rows, strict=True))
    assert np.mean(picked == 8) == pytest.approx(0.25, abs=0.02)  # deviation 0.003


def test_a_mix_interleaves_models_by_weight():
    parts = [
        MixPart("a", FLOATS, version=7, weight=3),
        MixPart("b", signature("other", y=("DT_INT32", (None,))), version_label="canary"),
    ]
    pool = build_pool(parts, seed=1)
    specs = [parse(message).model_spec for message in pool.messages]
    picked = np.array([spec.name == "b" for spec in specs])[pool.draw(20_000, seed=1)]
    assert picked.mean() == pytest.approx(0.25, abs=0.02)
    assert np.sum(picked[1:] != picked[:-1]) > 5_000  # interleaved, not one after the other
    assert {(s.name, s.version.value, s.version_label, s.signature_name) for s in specs} == {
        ("a", 7, "", "serving_default"),
        ("b", 0, "canary", "other"),
    }


def test_draw_is_reproducible_and_apart_from_the_arrivals():
    pool = one_pool()
    assert np.array_equal(pool.draw(100, seed=5), pool.draw(100, seed=5))
    assert not np.array_equal(pool.draw(100, seed=5), pool.draw(100, seed=6))
    assert np.array_equal(pool.draw(100, seed=5)[:50], pool.draw(50, seed=5))


def test_every_row_count_is_there_however_rare_or_large():
    sig = signature(x=("DT_FLOAT", (None, 1000)))
    pool = build_pool([MixPart("m", sig, rows={1: 0.999, 300: 0.001})], seed=1, max_bytes=100_000)
    assert set(pool.rows) == {1, 300}
    assert sum(pool.weights) == pytest.approx(1.0)
    assert len(pool.messages) == 24 + 1  # 99,900 B by 4,000 B, and the one large request


def test_a_request_beyond_two_gigabytes_is_refused():
    with pytest.raises(InputError, match=r"rows = 1000000 makes a request of 16,000,000,000"):
        one_pool(sig=signature(x=("DT_FLOAT", (None, 4000))), rows={1_000_000: 1.0})


# --- .npz ---


def npz(tmp_path, **arrays):
    path = tmp_path / "rows.npz"
    np.savez(path, **arrays)
    return path


def test_npz_rows_are_the_examples(tmp_path):
    rows = np.arange(20, dtype=np.float64).reshape(5, 4)
    pool = one_pool(inputs=npz(tmp_path, x=rows), rows={2: 1.0})
    allowed = {tuple(row) for row in rows}  # 5 rows, and all of them are used
    assert {tuple(row) for message in pool.messages for row in values(message)} == allowed
    assert values(pool.messages[0]).dtype == np.float32  # the model's type, not the file's


def test_npz_strings(tmp_path):
    path = npz(tmp_path, x=np.array(["grün", "rot"]))
    pool = one_pool(sig=signature(x=("DT_STRING", (None,))), inputs=path)
    assert {bytes(values(message)[0]) for message in pool.messages} == {"grün".encode(), b"rot"}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((2, 4))}, r"rows.npz: y: .*no such input"),
        ({}, "holds no array named 'x'"),
        ({"x": np.zeros((2, 5))}, r"rows.npz: x: shape \[2, 5\] does not fit .*\[\?, 4\]"),
        ({"x": np.float32(1)}, r"shape \[\] does not fit"),
        ({"x": np.zeros((0, 4))}, "the inputs have {'x': 0} rows"),
        ({"x": np.array([["a"] * 4])}, "holds <U1, the model takes DT_FLOAT"),
        ({"x": np.array([[None] * 4])}, "cannot be read as .npz: Object arrays"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, words):
    with pytest.raises(InputError, match=words):
        one_pool(inputs=npz(tmp_path, **arrays))


def test_npz_of_unequal_rows(tmp_path):
    sig = signature(x=("DT_FLOAT", (None,)), y=("DT_FLOAT", (None,)))
    with pytest.raises(InputError, match=r"{'x': 2, 'y': 3} rows"):
        one_pool(sig=sig, inputs=npz(tmp_path, x=np.zeros(2), y=np.zeros(3)))


def test_npz_missing_or_damaged(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        one_pool(inputs=tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"not a zip file")
    with pytest.raises(InputError, match=r"cannot be read as .npz"):
        one_pool(inputs=tmp_path / "bad.npz")


# --- tf_serving_warmup_requests ---


def warmup_file(tmp_path, *logs):
    path = tmp_path / "tf_serving_warmup_requests"
    with path.open("wb") as file:
        for log in logs:
            data = log if isinstance(log, bytes) else log.SerializeToString()
            length = struct.pack("<Q", len(data))
            crcs = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
            file.write(length + crcs[0] + data + crcs[1])
    return path


def predict_log(rows, name="x", signature_name=""):
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "recorded"
    request.model_spec.signature_name = signature_name
    tensors.encode(tensors.Tensor("DT_FLOAT", np.array(rows, np.float32)), request.inputs[name])
    return log


def test_warmup_rows_of_the_signature_are_the_examples(tmp_path):
    other = prediction_log_pb2.PredictionLog()
    other.classify_log.request.model_spec.name = "recorded"
    path = warmup_file(
        tmp_path,
        predict_log([[1, 1, 1, 1], [2, 2, 2, 2]]),
        predict_log([[9, 9, 9, 9]], signature_name="another"),
        other,
        predict_log([[3, 3, 3, 3]], signature_name="serving_default"),
    )
    pool = one_pool(inputs=path, rows={1: 1.0, 3: 1.0})
    assert {row[0] for message in pool.messages for row in values(message)} == {1.0, 2.0, 3.0}
    assert parse(pool.messages[0]).model_spec.name == "m"  # the scenario's, not the file's


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        ((b"\xff\xff",), "record 1: is not a PredictionLog"),
        ((predict_log([[1.0] * 4], signature_name="b"),), "no Predict request of signature"),
        ((predict_log([[1.0] * 5]),), r"record 1: input 'x': shape \[1, 5\]"),
        ((predict_log([[1.0] * 4]), predict_log([[1.0] * 4], "z")), "record 2: lacks input 'x'"),
    ],
)
def test_warmup_file_that_does_not_fit(tmp_path, logs, words):
    with pytest.raises(InputError, match=words):
        one_pool(inputs=warmup_file(tmp_path, *logs))


def test_warmup_of_another_type_or_of_mixed_shapes(tmp_path):
    path = warmup_file(tmp_path, predict_log([[1.0] * 3]), predict_log([[1.0] * 4]))
    with pytest.raises(InputError, match="record 1: input 'x' is DT_FLOAT, the model takes"):
        one_pool(sig=signature(x=("DT_INT32", (None, None))), inputs=path)
    with pytest.raises(InputError, match=r"differ in shape: \[3\], \[4\]"):
        one_pool(sig=signature(x=("DT_FLOAT", (None, None))), inputs=path)


# --- TensorProto ---


@pytest.mark.parametrize(
    ("dtype", "field", "given", "expected"),
    [
        ("DT_FLOAT", "float_val", [1.5], [1.5, 1.5, 1.5]),  # the last value fills the rest
        ("DT_DOUBLE", "double_val", [1, 2, 3], [1, 2, 3]),
        ("DT_INT32", "int_val", [-1, 2], [-1, 2, 2]),
        ("DT_UINT8", "int_val", [255], [255, 255, 255]),
        ("DT_INT64", "int64_val", [1 << 40], [1 << 40] * 3),
        ("DT_UINT32", "uint32_val", [7], [7, 7, 7]),
        ("DT_UINT64", "uint64_val", [7], [7, 7, 7]),
        ("DT_BOOL", "bool_val", [True, False], [True, False, False]),
        ("DT_HALF", "half_val", [0x3C00], [1.0, 1.0, 1.0]),
        ("DT_BFLOAT16", "half_val", [0x3F80], [0x3F80] * 3),
        ("DT_COMPLEX64", "scomplex_val", [1, 2], [1 + 2j] * 3),
        ("DT_COMPLEX128", "dcomplex_val", [1, 2], [1 + 2j] * 3),
        ("DT_STRING", "string_val", [b"a\0", b"b"], [b"a\0", b"b", b"b"]),
    ],
)
def test_decodes_every_value_field_and_encodes_it_back(dtype, field, given, expected):
    proto = tensor_pb2.TensorProto(dtype=dtype, **{field: given})
    proto.tensor_shape.dim.add(size=3)
    tensor = tensors.decode(proto)
    assert tensor.values.tolist() == expected
    again = tensor_pb2.TensorProto()
    tensors.encode(tensor, again)
    assert tensors.decode(again).values.tolist() == expected
    assert dtype == "DT_STRING" or again.tensor_content


@pytest.mark.parametrize("content", [b"\0" * 3, b"\0" * 8])
def test_tensor_content_of_the_wrong_size(content):
    proto = tensor_pb2.TensorProto(dtype="DT_FLOAT", tensor_content=content)
    proto.tensor_shape.dim.add(size=3)
    with pytest.raises(ValueError):
        tensors.decode(proto)


# --- the pool's file, and requests of exact sizes ---


def test_pool_round_trip(tmp_path):
    pool = one_pool(rows={1: 0.7, 3: 0.3})
    path = tmp_path / "pool"
    pool.save(path)
    loaded = RequestPool.load(path)
    for name in ("messages", "rows", "weights", "examples"):
        assert getattr(loaded, name) == getattr(pool, name)
    assert np.array_equal(loaded.draw(50, seed=1), pool.draw(50, seed=1))


def test_requests_of_exactly_k_rows_for_each_model():
    parts = [
        MixPart("a", FLOATS, version=7, rows={8: 1.0}),
        MixPart("b", signature(x=("DT_INT32", (None,)))),
    ]
    pool = build_pool(parts, seed=1)
    for rows in (1, 5, 1000):  # 1000: more than there are example rows
        first, second = pool.of_rows(rows)
        assert values(first).shape == (rows, 4)
        assert values(second).shape == (rows,)
        assert parse(first).model_spec == parse(pool.messages[0]).model_spec
    assert len(np.unique(values(pool.of_rows(5)[0]), axis=0)) == 5


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"\x80\n"])
def test_a_file_that_is_no_pool(tmp_path, content):
    path = tmp_path / "pool"
    path.write_bytes(content)
    with pytest.raises(LoadError, match="is not a request pool"):
        RequestPool.load(path)


def test_a_pool_cut_short_or_missing(tmp_path):
    path = tmp_path / "pool"
    one_pool().save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LoadError, match="cut short"):
        RequestPool.load(path)
    with pytest.raises(LoadError, match="No such file"):
        RequestPool.load(tmp_path / "nowhere")


def test_a_pool_that_cannot_be_written(tmp_path):
    with pytest.raises(HostError, match="No such file or directory"):
        one_pool().save(tmp_path / "nowhere" / "pool")
