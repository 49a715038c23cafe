"""Behaves at its ports as `tensorflow_model_server` may: python fake_server.py HOW, or HOW=... .

It knows no model; to HTTP/2 it only says hello. The launchers' tests use it for ways of failing
that a working server does not show; all else is tested on the servers themselves.
"""

import ctypes
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HOW = os.environ.get("HOW") or sys.argv[1]
FLAGS = dict(item.removeprefix("--").split("=", 1) for item in sys.argv[1:] if "=" in item)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def listen() -> threading.Event:
    """Greet as HTTP/2 on the gRPC port; the event is set when a client says `!`."""
    listener = socket.create_server(("0.0.0.0", int(FLAGS["port"])))
    say(f"pid {os.getpid()} serves on processors {sorted(os.sched_getaffinity(0))}")
    told = threading.Event()

    def greet() -> None:
        while True:
            connection, _ = listener.accept()
            if connection.recv(1) == b"!":
                told.set()
            connection.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))

    threading.Thread(target=greet, daemon=True).start()
    return told


def serve_metrics() -> None:
    """Open the HTTP port, as the server does some time after gRPC's."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"# {self.path}\n".encode())

        def log_message(self, *_):
            pass

    time.sleep(0.2)
    server = http.server.HTTPServer(("0.0.0.0", int(FLAGS["rest_api_port"])), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if "--version" in sys.argv:
    say("TensorFlow ModelServer: 2.19.0\nTensorFlow Library: 2.19.0")
    sys.exit()
if HOW == "refuses":
    say("Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: 'x'")
    sys.exit(255)
if HOW == "segfaults":
    ctypes.string_at(0)
if HOW == "eats-memory":
    say("loading a large model")
    hoard = [bytes([1]) * 2**20 for _ in range(2**12)]
if HOW == "writes-to-its-root":
    try:
        Path("/cache").touch()
    except OSError as error:
        say(f"F cache.cc] /cache: {error.strerror}")
        sys.exit(1)
if HOW == "loses-its-port":
    say("E tensorflow_serving/server.cc] Failed to BuildAndStart gRPC server")
    sys.exit(255)
if HOW == "misses-its-model":
    say("E file_system_storage_path_source.cc] Could not find base path /m for servable m")
if HOW == "ignores-sigterm":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if HOW == "has-a-child":
    say(f"child {subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid}")
if HOW == "is-older" and "enable_per_model_batching_parameters" in FLAGS:
    say("unknown argument: --enable_per_model_batching_parameters=true")
if HOW == "knows-not-a-flag":
    say("E command_line_flags] unknown argument: --grpc_z=1")
if HOW not in {"hangs", "misses-its-model"}:
    told = listen()
    if HOW == "loses-its-http-port":
        say(f"E evhttp_server.cc] Couldn't bind to port {FLAGS['rest_api_port']}")
    else:
        serve_metrics()
if HOW == "dies-later":
    told.wait()
    say("terminate called after throwing an instance of 'std::bad_alloc'")
    os.abort()
if HOW == "eats-memory-later":
    told.wait()
    hoard = [bytes([1]) * 2**20 for _ in range(2**12)]
time.sleep(600)
