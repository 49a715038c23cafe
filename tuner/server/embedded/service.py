"""The gRPC methods: PredictionService's Predict and GetModelMetadata, ModelService's status."""

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tuner.clock import now_ns
from tuner.server.embedded import log
from tuner.server.embedded.front import Call
from tuner.server.embedded.manager import Manager
from tuner.server.embedded.metrics import Metrics
from tuner.server.embedded.status import MAX_TEXT, Code, ServingError
from tuner.server.embedded.wire import ModelSpec, parse_predict, parse_spec, predict_response
from tuner.server.embedded.workers import Workers

_METADATA_FIELD = "signature_def"
_NS_PER_US = 1_000

Method = Callable[[bytes, int | None], bytes]
"""Answers a message, given the call's deadline. Raises ServingError."""


class Service:
    """Answers calls, each on a worker thread."""

    def __init__(self, manager: Manager, metrics: Metrics, workers: Workers) -> None:
        self._manager = manager
        self._metrics = metrics
        self._workers = workers
        self._methods: dict[str, Method] = {
            "/tensorflow.serving.PredictionService/Predict": self._predict,
            "/tensorflow.serving.PredictionService/GetModelMetadata": self._get_model_metadata,
            "/tensorflow.serving.ModelService/GetModelStatus": self._get_model_status,
        }

    def handle(self, call: Call) -> None:
        """Take a call from the I/O thread."""
        method = self._methods.get(call.method)
        if method is None:
            call.respond(Code.UNIMPLEMENTED, "", b"")
        elif not self._workers.submit(partial(_answer, method, call)):
            call.respond(Code.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted", b"")

    def _predict(self, message: bytes, deadline_ns: int | None) -> bytes:
        begun_ns = now_ns()
        model = ""
        try:
            request = parse_predict(message)
            model = request.spec.name if request.spec else ""
            servable = self._manager.hold(request.spec)
            try:
                run_ns = now_ns()
                signature, outputs = servable.predict(request, deadline_ns)
                ran_ns = now_ns()
                response = predict_response(signature.response_spec, outputs)
            finally:
                servable.release()
        except ServingError as error:
            self._metrics.request_count.add(model, error.code.name)
            raise
        metrics = self._metrics
        metrics.runtime_latency.add((ran_ns - run_ns) / _NS_PER_US, model, "Predict", "TF1")
        metrics.request_count.add(model, Code.OK.name)
        elapsed_ns = now_ns() - begun_ns
        metrics.request_latency.add(elapsed_ns / _NS_PER_US, model, "Predict", "GRPC")
        return response

    def _get_model_metadata(self, message: bytes, _deadline_ns: int | None) -> bytes:
        request = _parse(get_model_metadata_pb2.GetModelMetadataRequest, message)
        spec = _spec(request)
        if not request.metadata_field:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != _METADATA_FIELD:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported"
                )
        servable = self._manager.hold(spec)
        try:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in servable.signature_defs.items():
                signatures.signature_def[name].CopyFrom(definition)
            response.metadata[_METADATA_FIELD].Pack(signatures)
        finally:
            servable.release()
        return bytes(response.SerializeToString())

    def _get_model_status(self, message: bytes, _deadline_ns: int | None) -> bytes:
        request = _parse(get_model_status_pb2.GetModelStatusRequest, message)
        spec = _spec(request)
        return bytes(self.model_status(spec).SerializeToString())

    def model_status(self, spec: ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """Report the states of a model's versions. Raises ServingError."""
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._manager.statuses(spec.name, self._manager.resolve(spec)):
            entry = response.model_version_status.add(version=status.version, state=status.state)
            entry.status.error_code = status.code
            entry.status.error_message = status.text
        return response


def _answer(method: Method, call: Call) -> Callable[[], None]:
    """Run a method; returns the function that sends its answer."""
    try:
        payload = method(call.message, call.deadline_ns)
    except ServingError as error:
        return partial(call.respond, error.code, error.text[:MAX_TEXT], b"")
    except Exception as error:  # noqa: BLE001 - a defect here must not leave the client waiting
        log.error(f"{call.method}: {traceback.format_exc()}")
        return partial(call.respond, Code.INTERNAL, f"{type(error).__name__}: {error}", b"")
    return partial(call.respond, Code.OK, "", payload)


def _parse(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise ServingError(Code.INTERNAL, f"Error parsing {kind.__name__}") from None


def _spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    return parse_spec(request.model_spec.SerializeToString())
