"""A process that behaves at its port as `tensorflow_model_server` may: python fake_server.py HOW.

It knows no model. The launcher's tests use it for ways of failing that a working server does not
show; all else is tested on the servers themselves.
"""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time

HOW = sys.argv[1]
FLAGS = dict(item.removeprefix("--").split("=", 1) for item in sys.argv[2:] if "=" in item)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", int(FLAGS["port"])))
    say(f"pid {os.getpid()} serves on processors {sorted(os.sched_getaffinity(0))}")
    return listener


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
    server = http.server.HTTPServer(("127.0.0.1", int(FLAGS["rest_api_port"])), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if "--version" in sys.argv:
    say("TensorFlow ModelServer: 2.19.0\nTensorFlow Library: 2.19.0")
    sys.exit()
if HOW == "refuses":
    say("Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: 'x'")
    sys.exit(255)
if HOW == "segfaults":
    os.kill(os.getpid(), signal.SIGSEGV)
if HOW == "loses-its-port":
    say("E tensorflow_serving/server.cc] Failed to BuildAndStart gRPC server")
    sys.exit(255)
if HOW == "misses-its-model":
    say("E file_system_storage_path_source.cc] Could not find base path /m for servable m")
if HOW == "ignores-sigterm":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if HOW == "has-a-child":
    say(f"child {subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid}")
if HOW == "knows-not-a-flag":
    say("E command_line_flags] unknown argument: --grpc_z=1")
if HOW not in {"hangs", "misses-its-model"}:
    held = listen()
    if HOW == "loses-its-http-port":
        say(f"E evhttp_server.cc] Couldn't bind to port {FLAGS['rest_api_port']}")
    else:
        serve_metrics()
if HOW == "dies-later":
    while held.accept()[0].recv(1) != b"!":  # the launcher's probes say nothing
        pass
    say("terminate called after throwing an instance of 'std::bad_alloc'")
    os.abort()
time.sleep(600)
