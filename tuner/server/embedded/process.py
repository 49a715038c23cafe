"""The server process: start order, log lines and exit codes of `tensorflow_model_server`."""

import gc
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tuner.errors import UsageError
from tuner.server.embedded import log
from tuner.server.embedded.flags import Flags
from tuner.server.embedded.front import GrpcFront
from tuner.server.embedded.loader import Loader
from tuner.server.embedded.manager import Manager
from tuner.server.embedded.metrics import Metrics
from tuner.server.embedded.queue_options import ServerDiesError
from tuner.server.embedded.rest import RestServer, metrics_path
from tuner.server.embedded.servable import Servable
from tuner.server.embedded.served_models import ServedModel, served_models
from tuner.server.embedded.service import Service
from tuner.server.embedded.status import Code, ServingError
from tuner.server.embedded.workers import Workers

EXIT_FAILED = 255
"""What the server exits with where it prints a reason."""

EXIT_SEGMENTATION_FAULT = 139
"""What a shell reports of a server killed by SIGSEGV."""

EXIT_ABORTED = 134
"""What a shell reports of a server that aborted."""

MAX_MESSAGE_BYTES = 2**31 - 1
"""What TensorFlow Serving accepts unless a channel argument says less: all that gRPC carries."""

SWITCH_INTERVAL_S = 0.0005
"""How long a Python thread may keep the others waiting: a tenth of the interpreter's default."""


def run(flags: Flags) -> NoReturn:
    """Serve until a signal comes."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _exit(0))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        _serve(flags)
    except ServingError as error:
        _fail(str(error))
    except UsageError as error:
        _fail(f"{Code.INVALID_ARGUMENT.name}: {error.message}")
    _exit(0)


def _serve(flags: Flags) -> None:
    if flags.grpc_max_threads < 1:
        log.error("No thread quota available (--grpc_max_threads must be at least 1)")
        _exit(EXIT_ABORTED)
    if not flags.port and not flags.grpc_socket_path:
        raise ServingError(Code.INVALID_ARGUMENT, "server_options.grpc_port is not set.")
    models = served_models(flags)
    metrics = Metrics()
    loader = Loader(flags, metrics)
    manager = Manager(
        models,
        _DyingLoader(loader).load,
        poll_wait_s=flags.file_system_poll_wait_seconds,
        load_retries=flags.max_num_load_retries,
        retry_interval_micros=flags.load_retry_interval_micros,
        labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
    )
    manager.load_initial()
    # One of the server's threads always polls for calls.
    service = Service(manager, metrics, Workers(flags.grpc_max_threads - 1))
    front = _bind(flags, service)
    _start_rest(flags, metrics, service)
    manager.keep_polling()
    # What is loaded by now stays: the collector need not walk through it in the middle of a call.
    gc.collect()
    gc.freeze()
    front.serve_forever()


class _DyingLoader:
    """Exits, with the reason, where TensorFlow Serving would be killed without one."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def load(self, model: ServedModel, version: int, directory: Path) -> Servable:
        """See `Loader.load`."""
        try:
            return self._loader.load(model, version, directory)
        except ServerDiesError as error:
            log.error(f"TensorFlow Serving would crash here without a message: {error}")
            _exit(EXIT_SEGMENTATION_FAULT)


def _bind(flags: Flags, service: Service) -> GrpcFront:
    largest = flags.channel_argument("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)
    streams = flags.channel_argument("grpc.max_concurrent_streams", 0)
    front = GrpcFront(
        service.handle,
        port=flags.port,
        socket_path=flags.grpc_socket_path,
        max_message_bytes=MAX_MESSAGE_BYTES if largest < 0 else largest,
        max_concurrent_streams=streams or None,
    )
    try:
        front.bind()
    except OSError as error:
        log.error(f"Cannot listen on port {flags.port}: {error.strerror or error}")
        raise ServingError(Code.INVALID_ARGUMENT, "Failed to BuildAndStart gRPC server") from None
    where = f"0.0.0.0:{flags.port}" if flags.port else flags.grpc_socket_path
    log.info(f"Running gRPC ModelServer at {where} ...")
    return front


def _start_rest(flags: Flags, metrics: Metrics, service: Service) -> None:
    port = flags.rest_api_port
    if not port:
        return
    if port == flags.port:
        log.error(
            "server_options.http_port cannot be same as grpc_port. Please use a different port "
            "for HTTP/REST API. Skipped exporting HTTP/REST API."
        )
        return
    path = metrics_path(flags.monitoring_config_file)
    try:
        server = RestServer(port, path, metrics, service)
    except OSError:
        log.error(f"Couldn't bind to port {port}")
        log.error(f"Failed to start HTTP Server at localhost:{port}")
        return
    server.start()
    log.info(f"Exporting HTTP/REST API at:localhost:{port} ...")
    log.info("NET_LOG: Entering the event loop ...")


def _fail(reason: str) -> NoReturn:
    sys.stdout.write(f"Failed to start server. Error: {reason}\n")
    _exit(EXIT_FAILED)


def _exit(code: int) -> NoReturn:
    """Leave at once: TensorFlow's threads would take their time, and calls are not drained."""
    with suppress(RuntimeError):  # the signal came in the middle of a write
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
