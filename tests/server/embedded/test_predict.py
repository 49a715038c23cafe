"""Answers and refusals, against the texts of TensorFlow Serving."""

import grpc
import numpy as np
import pytest
from serving import request_of, rows_of
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
)

pytestmark = pytest.mark.slow


@pytest.fixture(params=["batched", "unbatched"])
def server(request, exported, launch):
    flags = ["--enable_batching=true"] if request.param == "batched" else []
    return launch("--model_name=affine", f"--model_base_path={exported / 'affine'}", *flags)


def test_answers_refusals_and_services(server):
    answer = server.predict(request_of("affine", x=rows_of(1, 5)))
    assert answer.version == 2
    np.testing.assert_array_equal(answer.y, rows_of(4, 16))
    np.testing.assert_array_equal(answer.rows, [2, 2])
    filtered = server.start_predict(
        request_of("affine", output_filter=["rows"], x=rows_of(1))
    ).result()
    assert set(filtered.outputs) == {"rows"}
    assert filtered.model_spec.signature_name == "serving_default"

    refusals = [
        (
            request_of("nope", x=rows_of(1)),
            "NOT_FOUND",
            "Servable not found for request: Latest(nope)",
        ),
        (
            request_of("affine", version=1, x=rows_of(1)),
            "NOT_FOUND",
            "Servable not found for request: Specific(affine, 1)",
        ),
        (
            request_of("affine", label="canary", x=rows_of(1)),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        ),
        (
            request_of("affine", "other", x=rows_of(1)),
            "FAILED_PRECONDITION",
            'Serving signature key "other" not found.',
        ),
        (
            request_of("affine"),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
            "Missing but required: {x}.",
        ),
        (
            request_of("affine", output_filter=["z"], x=rows_of(1)),
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: z Outputs expected to be in the set "
            "{last,rows,y}.",
        ),
        (
            request_of("affine", x=np.ones((1, 4))),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but double is provided",
        ),
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ]
    for request, code, text in refusals:
        assert server.failure(request) == (code, text)

    counts = server.metrics()
    assert counts['request_count{model_name="affine",status="OK"}'] == 2
    assert counts['request_count{model_name="nope",status="NOT_FOUND"}'] == 1
    latency = 'request_latency_count{model_name="affine",API="Predict",entrypoint="GRPC"}'
    assert counts[latency] == 2

    _check_model_service(server)
    _check_metadata(server)


def _check_model_service(server):
    stub = model_service_pb2_grpc.ModelServiceStub(server.channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "affine"
    (status,) = stub.GetModelStatus(request).model_version_status
    assert (status.version, status.state, status.status.error_code) == (2, 30, 0)
    request.model_spec.version.value = 7
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelStatus(request)
    assert caught.value.details() == "Could not find version 7 of model affine"
    assert '"state": "AVAILABLE"' in server.get("/v1/models/affine")


def _check_metadata(server):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "affine"
    answer = server.stub().GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    names = {name for name in signatures.signature_def if not name.startswith("__")}
    assert names == {"serving_default", "first", "halves", "slow"}
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary("/tensorflow.serving.PredictionService/Classify")(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_tables_assets_and_strings(launch, exported):
    server = launch("--model_name=v", f"--model_base_path={exported / 'vocabulary'}")
    answer = server.predict(request_of("v", word=np.array([b"three", b"none"], dtype=object)))
    assert answer.id.tolist() == [2, -1]
    assert answer.word.tolist() == [b"THREE", b"NONE"]


def test_calls_beyond_the_thread_cap_are_refused_and_not_counted(launch, exported):
    server = launch(
        "--model_name=affine", f"--model_base_path={exported / 'affine'}", "--grpc_max_threads=3"
    )
    server.predict(request_of("affine", "slow", x=rows_of(1)))
    calls = [server.start_predict(request_of("affine", "slow", x=rows_of(100))) for _ in range(6)]
    codes = [call.code().name for call in calls]
    assert codes.count("OK") == 2
    refused = [call for call in calls if call.code() != grpc.StatusCode.OK]
    assert {call.details() for call in refused} == {"Server Threadpool Exhausted"}
    assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    counts = {key for key in server.metrics() if key.startswith("request_count")}
    assert counts == {'request_count{model_name="affine",status="OK"}'}
