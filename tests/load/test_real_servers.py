"""Both engines against servers that people run: grpcio's, one in C++, nghttp2's."""

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from certificates import self_signed

from tuner.http2.answers import OK
from tuner.load.client import ENGINES, PREDICT, Tls, engine_factory

pytestmark = pytest.mark.slow

engines = pytest.mark.parametrize("name", sorted(ENGINES))
MESSAGE = b"\x0a\x55" + bytes(range(1, 86))


@contextlib.contextmanager
def engine(name, address, **settings):
    made = engine_factory(name)(address, deadline_s=30.0, **settings)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate of its own for localhost."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def echo_binary(tmp_path_factory):
    """`echo_server.cc`, compiled where a compiler and gRPC's headers are installed."""
    compiler, config = shutil.which("g++"), shutil.which("pkg-config")
    if compiler is None or config is None:
        pytest.skip("no g++ or no pkg-config is installed")
    flags = subprocess.run(
        [config, "--cflags", "--libs", "grpc++"], capture_output=True, text=True, check=False
    )
    if flags.returncode:
        pytest.skip("libgrpc++-dev is not installed")
    binary = tmp_path_factory.mktemp("echo") / "echo_server"
    source = Path(__file__).with_name("echo_server.cc")
    subprocess.run(
        [compiler, "-O1", "-std=c++17", source, "-o", binary, *flags.stdout.split()], check=True
    )
    return binary


@contextlib.contextmanager
def cpp_server(binary, address, *tls):
    process = subprocess.Popen([binary, address, *tls], stdout=subprocess.PIPE, text=True)
    try:
        word, port = process.stdout.readline().split()
        assert word == "ready"
        yield SimpleNamespace(port=int(port), kill=process.kill)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def grpcio_server(credentials=None, host="127.0.0.1"):
    handler = grpc.method_handlers_generic_handler(
        PREDICT.split("/")[1],
        {"Predict": grpc.unary_unary_rpc_method_handler(lambda request, _: request)},
    )
    unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("receive", "send")]
    server = grpc.server(futures.ThreadPoolExecutor(8), options=unlimited)
    server.add_generic_rpc_handlers([handler])
    if credentials is None:
        port = server.add_insecure_port(f"{host}:0")
    else:
        port = server.add_secure_port(f"{host}:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def nghttpd(folder, *tls):
    """nghttp2's server: one file for every request, with the trailer of a good answer."""
    if shutil.which("nghttpd") is None:
        pytest.skip("nghttpd (Debian: nghttp2) is not installed")
    file = folder / PREDICT.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\0" + struct.pack(">I", len(MESSAGE)) + MESSAGE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    trailer = "--trailer=grpc-status: 0"
    plain = [] if tls else ["--no-tls"]
    argv = ["nghttpd", "-a", "127.0.0.1", "-d", folder, trailer, *plain, str(port), *tls]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def server_of(kind, request, tmp_path):
    if kind == "grpcio":
        with grpcio_server() as port:
            yield port
    elif kind == "C++":
        with cpp_server(request.getfixturevalue("echo_binary"), "127.0.0.1:0") as server:
            yield server.port
    else:
        with nghttpd(tmp_path) as port:
            yield port


def all_ok(columns):
    return len(columns.status) > 0 and not columns.status.any()


@engines
@pytest.mark.parametrize("kind", ["grpcio", "C++", "nghttpd"])
def test_loads_of_mixed_messages(name, kind, request, tmp_path):
    messages = [MESSAGE[:size] for size in (1, 20, 87)] + [bytes(20_000)]
    picks = np.random.default_rng(1).integers(0, 4, 300).astype(np.int32)
    with (
        server_of(kind, request, tmp_path) as port,
        engine(name, f"127.0.0.1:{port}", connections=2) as driver,
    ):
        closed = driver.closed_loop(messages, picks, concurrency=16, duration_s=0.3)
        offsets = np.sort(np.random.default_rng(2).uniform(0, 0.3, 300) * 1e9).astype(np.int64)
        opened = driver.open_loop(messages, picks, offsets, duration_s=0.3)
        assert driver.call(messages[2], deadline_s=5.0) == OK
        assert driver.last_answer == MESSAGE
    assert all_ok(closed)
    assert all_ok(opened)
    assert len(opened.status) == 300


@engines
@pytest.mark.parametrize("kind", ["grpcio", "C++"])
@pytest.mark.parametrize("size", [600_000, 64 << 20])
def test_large_messages_both_ways(name, kind, size, request, tmp_path):
    message = np.random.default_rng(size).bytes(size)
    with (
        server_of(kind, request, tmp_path) as port,
        engine(name, f"127.0.0.1:{port}") as driver,
    ):
        assert driver.call(message, deadline_s=30.0) == OK
        assert driver.last_answer == message
        if size < 1 << 20:
            picks = np.zeros(1, np.int32)
            columns = driver.closed_loop([message], picks, concurrency=4, duration_s=0.3)
            assert all_ok(columns)


@pytest.mark.parametrize("kind", ["grpcio", "C++", "nghttpd"])
@pytest.mark.parametrize("concurrency", [1, 300])
def test_our_engine_in_bulk(kind, concurrency, request, tmp_path):
    """More requests than nghttpd's 100 streams, more bytes than its windows of 65,535."""
    picks = np.zeros(1, np.int32)
    with (
        server_of(kind, request, tmp_path) as port,
        engine("http2", f"127.0.0.1:{port}") as driver,
    ):
        columns = driver.closed_loop(
            [bytes(1_000)], picks, concurrency=concurrency, duration_s=3.0
        )
    assert all_ok(columns)
    assert len(columns.status) > 4 * concurrency


@engines
@pytest.mark.parametrize("kind", ["grpcio", "C++", "nghttpd"])
def test_tls(name, kind, certificate, request, tmp_path):
    key, chain = certificate
    with contextlib.ExitStack() as stack:
        if kind == "grpcio":
            pair = [(key.read_bytes(), chain.read_bytes())]
            port = stack.enter_context(grpcio_server(grpc.ssl_server_credentials(pair)))
        elif kind == "C++":
            binary = request.getfixturevalue("echo_binary")
            port = stack.enter_context(cpp_server(binary, "127.0.0.1:0", key, chain)).port
        else:
            port = stack.enter_context(nghttpd(tmp_path, key, chain))
        address = f"localhost:{port}"
        with engine(name, address, tls=Tls(ca=chain)) as driver:
            assert driver.call(MESSAGE, deadline_s=5.0) == OK
            assert driver.last_answer == MESSAGE
            picks = np.zeros(1, np.int32)
            messages = [bytes(200_000)]
            columns = driver.closed_loop(messages, picks, concurrency=8, duration_s=0.3)
            assert all_ok(columns)


@engines
def test_tls_by_another_name_and_with_a_certificate_of_our_own(name, certificate):
    """The server is reached by its address, known by its name, and asks who calls."""
    key, chain = certificate
    pair = [(key.read_bytes(), chain.read_bytes())]
    asking = grpc.ssl_server_credentials(pair, chain.read_bytes(), require_client_auth=True)
    trusted = Tls(ca=chain, server_name="localhost", client_cert=chain, client_key=key)
    unnamed = "127.0.0.2"  # the certificate does not know it
    with grpcio_server(asking, unnamed) as port:
        address = f"{unnamed}:{port}"
        with engine(name, address, tls=trusted) as driver:
            assert driver.call(MESSAGE, deadline_s=5.0) == OK
        for missing in (replace(trusted, server_name=""), Tls(chain, "localhost")):
            with engine(name, address, tls=missing) as driver:
                assert driver.call(MESSAGE, deadline_s=0.5)[0] in {
                    "UNAVAILABLE",
                    "DEADLINE_EXCEEDED",
                }


@engines
def test_a_certificate_that_nobody_vouches_for(name, certificate):
    key, chain = certificate
    pair = [(key.read_bytes(), chain.read_bytes())]
    with (
        grpcio_server(grpc.ssl_server_credentials(pair)) as port,
        engine(name, f"localhost:{port}", tls=Tls()) as driver,
    ):
        code, text = driver.call(MESSAGE, deadline_s=1.0)
    assert code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    if name == "http2":
        assert "no TLS with localhost" in text
        assert "self-signed certificate" in text.lower().replace("self signed", "self-signed")


def test_tls_without_http2_is_told(certificate):
    key, chain = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for _ in range(2):
                with contextlib.suppress(OSError):
                    connected, _ = listener.accept()
                    context.wrap_socket(connected, server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"localhost:{listener.getsockname()[1]}"
        with engine("http2", address, tls=Tls(ca=chain)) as driver:
            code, text = driver.call(MESSAGE, deadline_s=1.0)
    assert code == "UNAVAILABLE"
    assert text == f"{address} does not speak HTTP/2 over TLS (ALPN)"


@engines
def test_a_unix_socket(name, echo_binary, tmp_path):
    path = tmp_path / "echo.socket"
    process = subprocess.Popen([echo_binary, f"unix:{path}"], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        with engine(name, f"unix:{path}") as driver:
            assert driver.call(MESSAGE, deadline_s=5.0) == OK
            assert driver.last_answer == MESSAGE
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@engines
@pytest.mark.parametrize("over", ["TCP", "TLS"])
def test_an_open_loop_outlives_its_server(name, over, echo_binary, certificate):
    """Killed and gone: what was on the way fails, what follows fails, nothing is lost."""
    picks, offsets = np.zeros(200, np.int32), (np.arange(200) * 5_000_000).astype(np.int64)
    files = certificate if over == "TLS" else ()
    tls = Tls(ca=certificate[1]) if over == "TLS" else None
    with (
        cpp_server(echo_binary, "127.0.0.1:0", *files) as server,
        engine(name, f"localhost:{server.port}", tls=tls) as driver,
    ):
        killer = threading.Timer(0.4, server.kill)
        killer.start()
        columns = driver.open_loop([MESSAGE], picks, offsets, duration_s=1.0)
        killer.join()
    assert len(columns.status) == 200
    found = {columns.statuses[number][0] for number in set(columns.status.tolist())}
    assert found == {"OK", "UNAVAILABLE"}
