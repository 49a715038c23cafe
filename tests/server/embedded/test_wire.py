"""The hand-written wire format against protobuf's."""

import numpy as np
import pytest
import serving  # noqa: F401 - makes the protocol messages importable
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.python.framework import tensor_util
from tensorflow_serving.apis import predict_pb2

from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.wire import (
    ModelSpec,
    model_spec_field,
    parse_predict,
    predict_response,
)

NUMBERS = st.sampled_from(["<f4", "<f8", "<i4", "<i8", "u1", "i1", "<i2", "?", "<f2", "<u4"])
ARRAYS = NUMBERS.flatmap(
    lambda kind: arrays.arrays(np.dtype(kind), arrays.array_shapes(min_side=0, max_side=5))
)


def parse(request):
    return parse_predict(request.SerializeToString())


@given(values=ARRAYS)
def test_tensor_content(values):
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tensor_util.make_tensor_proto(values))
    tensor = parse(request).inputs["x"]
    assert tensor.values.shape == values.shape
    np.testing.assert_array_equal(tensor.values, values)


@pytest.mark.parametrize("field", ["float_val", "double_val", "int64_val", "bool_val"])
def test_packed_values(field):
    dtype = {
        "float_val": types_pb2.DT_FLOAT,
        "double_val": types_pb2.DT_DOUBLE,
        "int64_val": types_pb2.DT_INT64,
        "bool_val": types_pb2.DT_BOOL,
    }[field]
    request = predict_pb2.PredictRequest()
    proto = request.inputs["x"]
    proto.dtype = dtype
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    getattr(proto, field).extend([1, 0, 1, 1])
    assert parse(request).inputs["x"].values.tolist() == [[1, 0], [1, 1]]


def test_one_value_fills_the_tensor():
    request = predict_pb2.PredictRequest()
    proto = request.inputs["x"]
    proto.dtype = types_pb2.DT_FLOAT
    proto.tensor_shape.dim.add(size=3)
    proto.float_val.append(7)
    assert parse(request).inputs["x"].values.tolist() == [7, 7, 7]


def test_model_spec_and_filter():
    request = predict_pb2.PredictRequest(output_filter=["a", "b"])
    assert parse(request).spec is None
    request.model_spec.name = "m"
    request.model_spec.version.value = 300
    request.model_spec.signature_name = "s"
    parsed = parse(request)
    assert parsed.spec == ModelSpec("m", 300, "", "s")
    assert parsed.output_filter == ("a", "b")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x0a\x7f", Code.INTERNAL),  # a field longer than the message
        (b"\x12\x03\x0a\x01\xff", Code.INTERNAL),  # a name that is not UTF-8
        (b"\x0f", Code.INTERNAL),  # a wire type that does not exist
    ],
)
def test_broken_messages(message, code):
    with pytest.raises(ServingError) as caught:
        parse_predict(message)
    assert caught.value.code == code


def test_values_that_do_not_fill_the_shape():
    request = predict_pb2.PredictRequest()
    proto = request.inputs["x"]
    proto.dtype = types_pb2.DT_FLOAT
    proto.tensor_shape.dim.add(size=3)
    proto.tensor_content = bytes(8)
    with pytest.raises(ServingError, match="tensor parsing error: x"):
        parse(request)


@given(first=ARRAYS, second=ARRAYS)
def test_response(first, second):
    dtypes = [tensor_util.make_tensor_proto(values).dtype for values in (first, second)]
    message = predict_response(
        model_spec_field("m", 5, "s"), [("a", dtypes[0], first), ("b", dtypes[1], second)]
    )
    response = predict_pb2.PredictResponse.FromString(message)
    assert response.model_spec.name == "m"
    assert response.model_spec.version.value == 5
    assert response.model_spec.signature_name == "s"
    for name, values in (("a", first), ("b", second)):
        proto = response.outputs[name]
        np.testing.assert_array_equal(tensor_util.MakeNdarray(proto), values)


def test_response_uses_the_typed_fields_as_the_server_does():
    values = np.ones((2, 2), np.float32).T[:, :1]  # not contiguous
    message = predict_response(b"", [("a", types_pb2.DT_FLOAT, values)])
    proto = predict_pb2.PredictResponse.FromString(message).outputs["a"]
    expected = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1, 1])
    for size in (2, 1):
        expected.tensor_shape.dim.add(size=size)
    assert proto == expected


def test_strings():
    words = np.array([b"a", b"bc"], dtype=object)
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tensor_util.make_tensor_proto(words))
    tensor = parse(request).inputs["x"]
    assert tensor.values.tolist() == [b"a", b"bc"]
    message = predict_response(b"", [("a", types_pb2.DT_STRING, words)])
    proto = predict_pb2.PredictResponse.FromString(message).outputs["a"]
    assert list(proto.string_val) == [b"a", b"bc"]
