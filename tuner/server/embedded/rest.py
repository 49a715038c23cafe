"""The HTTP port: Prometheus metrics and model status. Inference is gRPC's alone here."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
)

from tuner.server.embedded.metrics import Metrics
from tuner.server.embedded.served_models import invalid_file, read_text
from tuner.server.embedded.service import Service
from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.wire import ModelSpec

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"

_STATUS = re.compile(r"/v1/models/([^/:]+)(?:/(?:versions/(\d+)|labels/([^/:]+)))?")
_HTTP_CODES = {Code.NOT_FOUND: 404, Code.INVALID_ARGUMENT: 400}


def metrics_path(monitoring_config_file: str) -> str | None:
    """Read where metrics are to be exported; None: nowhere. Raises ServingError."""
    if not monitoring_config_file:
        return None
    config = _monitoring_config()()
    try:
        text_format.Parse(read_text(monitoring_config_file), config)
    except text_format.ParseError as error:
        raise invalid_file(monitoring_config_file, error) from None
    if not config.prometheus_config.enable:
        return None
    return str(config.prometheus_config.path) or DEFAULT_METRICS_PATH


class RestServer:
    """Serves HTTP on a thread of its own. Raises OSError where the port is taken."""

    def __init__(self, port: int, path: str | None, metrics: Metrics, service: Service) -> None:
        handler = type("Handler", (_Handler,), {"app": _App(path, metrics, service)})
        self._server = ThreadingHTTPServer(("0.0.0.0", port), handler)  # noqa: S104 - as the server
        self._server.daemon_threads = True

    def start(self) -> None:
        """Begin to serve."""
        threading.Thread(target=self._server.serve_forever, name="rest", daemon=True).start()


class _App:
    """What the paths mean."""

    def __init__(self, path: str | None, metrics: Metrics, service: Service) -> None:
        self._path = path
        self._metrics = metrics
        self._service = service

    def get(self, path: str) -> tuple[int, str, str]:
        """Answer with an HTTP status, content type and body."""
        if self._path is not None and path == self._path:
            return 200, "text/plain", self._metrics.text()
        match = _STATUS.fullmatch(path)
        if match is None:
            return 404, "application/json", _error(f"Malformed request: GET {path}")
        name, version, label = match.groups()
        spec = ModelSpec(name, int(version) if version else None, label or "")
        try:
            status = self._service.model_status(spec)
        except ServingError as error:
            return _HTTP_CODES.get(error.code, 500), "application/json", _error(error.text)
        text = json_format.MessageToJson(
            status, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return 200, "application/json", f"{text}\n"


class _Handler(BaseHTTPRequestHandler):
    app: _App

    def do_GET(self) -> None:
        code, kind, text = self.app.get(self.path)
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - a scrape is no news
        pass


def _error(text: str) -> str:
    return json.dumps({"error": text}, indent=4) + "\n"


def _monitoring_config() -> Any:
    """Declare tensorflow_serving/config/monitoring_config.proto, which no package ships."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tuner/monitoring_config.proto", package="tensorflow.serving", syntax="proto3"
    )
    prometheus = file.message_type.add(name="PrometheusConfig")
    optional = kind.LABEL_OPTIONAL
    prometheus.field.add(name="enable", number=1, label=optional, type=kind.TYPE_BOOL)
    prometheus.field.add(name="path", number=2, label=optional, type=kind.TYPE_STRING)
    file.message_type.add(name="MonitoringConfig").field.add(
        name="prometheus_config", number=1, label=optional, type=kind.TYPE_MESSAGE,
        type_name=".tensorflow.serving.PrometheusConfig",
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("tensorflow.serving.MonitoringConfig")
    )
