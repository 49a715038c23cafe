"""The front over real sockets, against grpcio's clients, the h2 library and plain bytes."""

import asyncio
import errno
import gc
import os
import socket
import struct
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.clock import NS_PER_S, now_ns
from tuner.http2 import frames
from tuner.server.embedded.front import GrpcFront

# A slow machine is no failure.
robust = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ECHO = "/test.Echo/Call"
LIMITS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


def echo(call):
    call.respond(0, "", call.message)


@contextmanager
def serving(handler=echo, **options):
    """A front on a thread of its own; yields it and its port."""
    front = GrpcFront(handler, host="127.0.0.1", **options)
    port = front.bind()
    thread = threading.Thread(target=front.serve_forever)
    thread.start()
    try:
        yield front, port
    finally:
        front.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


@contextmanager
def dialling(target):
    with grpc.insecure_channel(str(target), options=LIMITS) as channel:
        yield channel.unary_unary(ECHO)


def dial(port):
    return dialling(f"127.0.0.1:{port}")


def test_answers_a_blocking_client():
    calls = []

    def handler(call):
        calls.append(call)
        call.respond(0, "", call.message[::-1])

    with serving(handler) as (_, port), dial(port) as invoke:
        assert invoke(b"abc") == b"cba"
        assert invoke(b"") == b""
    assert [call.method for call in calls] == [ECHO, ECHO]
    assert [call.deadline_ns for call in calls] == [None, None]


def test_errors_carry_code_and_text():
    text = "The batching queue is 100% full;\nnäher: 批"
    with (
        serving(lambda call: call.respond(14, text, b"")) as (_, port),
        dial(port) as invoke,
        pytest.raises(grpc.RpcError) as caught,
    ):
        invoke(b"x")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == text


def test_handler_that_fails_after_its_answer_does_not_disturb_it(caplog):
    large = b"x" * 300_000  # more than the first window lets through

    def handler(call):
        call.respond(0, "", large)
        raise ValueError("told to fail late")

    with serving(handler) as (_, port), dial(port) as invoke:
        assert [invoke(b"x") for _ in range(3)] == [large] * 3
    assert "told to fail late" in caplog.text


def test_handler_that_fails_answers_unknown_and_the_server_goes_on(caplog):
    def handler(call):
        if call.message == b"bad":
            raise ValueError("told to fail")
        echo(call)

    with serving(handler) as (_, port), dial(port) as invoke:
        with pytest.raises(grpc.RpcError) as caught:
            invoke(b"bad")
        assert invoke(b"good") == b"good"
    assert caught.value.code() == grpc.StatusCode.UNKNOWN
    assert "told to fail" in caplog.text


def test_second_answer_is_a_bug_of_the_handler():
    caught = []

    def handler(call):
        echo(call)
        try:
            echo(call)
        except RuntimeError as error:
            caught.append(str(error))

    with serving(handler) as (_, port), dial(port) as invoke:
        assert invoke(b"x") == b"x"
    assert caught == [f"a call of {ECHO} was answered twice"]


@pytest.mark.parametrize("mib", [1, 5, 16])
def test_large_messages_both_ways(mib):
    message = os.urandom(mib * 2**20)
    with serving() as (_, port), dial(port) as invoke:
        assert invoke(message) == message
        assert invoke(b"small") == b"small"


@pytest.mark.slow
def test_64_mib_both_ways_beside_small_calls():
    message = os.urandom(64 * 2**20)
    with serving() as (_, port), dial(port) as invoke:
        large = [invoke.future(message) for _ in range(2)]
        assert invoke(b"small", timeout=60) == b"small"
        assert all(call.result() == message for call in large)


def test_many_threads_answer_in_any_order():
    pool = ThreadPoolExecutor(8)

    def handler(call):
        pool.submit(answer_late, call)

    def answer_late(call):
        time.sleep(call.message[0] / 20_000)
        call.respond(0, "", call.message)

    messages = [bytes((i % 256,)) * (1 + i * 37 % 5_000) for i in range(500)]
    with pool, serving(handler) as (_, port), dial(port) as invoke:
        pending = [invoke.future(message) for message in messages]
        assert [call.result(timeout=60) for call in pending] == messages


def test_asynchronous_client():
    async def drive(port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=LIMITS) as channel:
            invoke = channel.unary_unary(ECHO)
            messages = [b"%d" % i for i in range(300)]
            return messages, await asyncio.gather(*(invoke(m, timeout=60) for m in messages))

    with serving() as (_, port):
        sent, received = asyncio.run(drive(port))
    assert received == sent


def test_deadline_is_absolute_and_monotonic():
    deadlines = []

    def handler(call):
        deadlines.append(call.deadline_ns)
        echo(call)

    with serving(handler) as (_, port), dial(port) as invoke:
        invoke(b"connects")
        before = now_ns()
        invoke(b"x", timeout=100)
        after = now_ns()
    # gRPC may round a timeout up by some percent.
    assert before + 99 * NS_PER_S <= deadlines[1] <= after + 110 * NS_PER_S


def test_cancelled_call_is_dropped_and_others_are_not():
    held, arrived = [], threading.Semaphore(0)

    def handler(call):
        held.append(call)
        arrived.release()

    with serving(handler) as (_, port), dial(port) as invoke:
        first, second = invoke.future(b"first"), invoke.future(b"second")
        assert arrived.acquire(timeout=20)
        assert arrived.acquire(timeout=20)
        first.cancel()
        for call in held:
            echo(call)
        assert second.result(timeout=20) == b"second"
        assert first.cancelled()


def test_deadline_that_passes_at_the_client_leaves_the_connection_usable():
    held = []

    def handler(call):
        if call.message == b"held":
            held.append(call)
        else:
            echo(call)

    with serving(handler) as (_, port), dial(port) as invoke:
        invoke(b"x")
        with pytest.raises(grpc.RpcError) as caught:
            invoke(b"held", timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        held[0].respond(0, "", b"too late")
        assert invoke(b"x") == b"x"


def test_compressed_message_is_refused_with_the_reason():
    with serving() as (_, port), dial(port) as invoke:
        with pytest.raises(grpc.RpcError) as caught:
            invoke(b"x" * 10_000, compression=grpc.Compression.Gzip)
        assert invoke(b"x") == b"x"
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "gzip" in caught.value.details()


@pytest.mark.parametrize("size", [1_001, 300_000])
def test_message_over_the_limit(size):
    with serving(max_message_bytes=1_000) as (_, port), dial(port) as invoke:
        assert invoke(b"x" * 1_000) == b"x" * 1_000
        with pytest.raises(grpc.RpcError) as caught:
            invoke(b"x" * size)
        assert invoke(b"after") == b"after"
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == f"SERVER: Received message larger than max ({size} vs. 1000)"


def test_more_calls_than_concurrent_streams_wait_their_turn():
    with serving(max_concurrent_streams=3) as (_, port), dial(port) as invoke:
        pending = [invoke.future(b"%d" % i) for i in range(50)]
        assert [call.result(timeout=60) for call in pending] == [b"%d" % i for i in range(50)]


def test_unix_socket(tmp_path):
    path = tmp_path / "front.sock"
    with serving(socket_path=str(path)) as (_, port):
        assert port == 0
        with dialling(f"unix:{path}") as invoke:
            assert invoke(b"x" * 100_000) == b"x" * 100_000
    assert not path.exists()


def test_unix_socket_and_port_together(tmp_path):
    path = tmp_path / "front.sock"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        wanted = free.getsockname()[1]
    with serving(socket_path=str(path), port=wanted) as (_, port):
        assert port == wanted
        for target in (f"unix:{path}", f"127.0.0.1:{port}"):
            with dialling(target) as invoke:
                assert invoke(b"x") == b"x"


def test_stale_unix_socket_is_taken_over_and_a_live_one_is_not(tmp_path):
    path = str(tmp_path / "front.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with serving(socket_path=path):
        rival = GrpcFront(echo, socket_path=path)
        with pytest.raises(OSError, match="another server") as caught:
            rival.bind()
    assert caught.value.errno == errno.EADDRINUSE


def test_taken_port_is_an_error():
    with serving() as (_, port):
        rival = GrpcFront(echo, host="127.0.0.1", port=port)
        with pytest.raises(OSError, match="in use") as caught:
            rival.bind()
    assert caught.value.errno == errno.EADDRINUSE


def test_stop_closes_connections_and_may_be_repeated():
    with serving(lambda call: None) as (front, port), dial(port) as invoke:
        pending = invoke.future(b"never answered")
        time.sleep(0.2)
        front.stop()
        with pytest.raises(grpc.RpcError):
            pending.result(timeout=20)
        front.stop()


def test_stop_before_serving_returns_at_once():
    front = GrpcFront(echo, host="127.0.0.1")
    front.bind()
    front.stop()
    front.serve_forever()


def test_answer_after_the_end_is_ignored():
    held = []
    with serving(held.append) as (_, port), dial(port) as invoke:
        pending = invoke.future(b"x")
        wait_until(lambda: held)
    assert not pending.cancelled()
    held[0].respond(0, "", b"nobody is there")


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Plain sockets.


class Wire:
    """An h2 client on a real socket."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.client = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.client.initiate_connection()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def open(self, *extra, method="POST", content_type="application/grpc", end=False):
        stream_id = self.client.get_next_available_stream_id()
        headers = [
            (":method", method),
            (":scheme", "http"),
            (":path", ECHO),
            (":authority", "test"),
            ("content-type", content_type),
            ("te", "trailers"),
            *extra,
        ]
        self.client.send_headers(stream_id, headers, end_stream=end)
        return stream_id

    def answer(self, stream_id):
        """The headers, trailers and body of a stream's answer, once it has ended."""
        fields, body = {}, b""
        while True:
            self.socket.sendall(self.client.data_to_send())
            data = self.socket.recv(65_536)
            assert data, "the server closed the connection"
            for event in self.client.receive_data(data):
                if getattr(event, "stream_id", None) != stream_id:
                    continue
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    fields |= dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    return fields, body


def grpc_body(message):
    return struct.pack(">BI", 0, len(message)) + message


@pytest.fixture(scope="module")
def shared_port():
    with serving() as (_, port):
        yield port


@pytest.fixture
def wire(shared_port):
    with Wire(shared_port) as wire:
        yield wire


def test_answer_on_the_wire(wire):
    stream_id = wire.open()
    wire.client.send_data(stream_id, grpc_body(b"abc"), end_stream=True)
    fields, body = wire.answer(stream_id)
    assert fields == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
    assert body == grpc_body(b"abc")


def test_message_in_pieces_with_padding(wire):
    stream_id = wire.open()
    for byte in grpc_body(b"abc"):
        wire.client.send_data(stream_id, bytes((byte,)), pad_length=3)
    wire.client.send_data(stream_id, b"", end_stream=True)
    assert wire.answer(stream_id)[1] == grpc_body(b"abc")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/grpc+proto", "200"),
        ("application/grpc;charset=utf-8", "200"),
        ("application/json", "415"),
        ("application/grpc-web", "415"),
    ],
)
def test_content_types(wire, content_type, status):
    stream_id = wire.open(content_type=content_type)
    wire.client.send_data(stream_id, grpc_body(b"abc"), end_stream=True)
    assert wire.answer(stream_id)[0][":status"] == status


def test_get_is_not_allowed(wire):
    assert wire.answer(wire.open(method="GET", end=True))[0][":status"] == "405"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, "13"),
        (b"\0\0\0", "13"),
        (b"\0\0\0\0\x09abc", "13"),
        (grpc_body(b"a") + grpc_body(b"b"), "12"),
        (b"\x01\0\0\0\x01a", "13"),
    ],
    ids=["none", "half a prefix", "half a message", "two messages", "compressed with nothing"],
)
def test_calls_that_are_not_one_message(wire, body, status):
    stream_id = wire.open(end=body is None)
    if body is not None:
        wire.client.send_data(stream_id, body, end_stream=True)
    assert wire.answer(stream_id)[0]["grpc-status"] == status


@pytest.mark.parametrize("timeout", ["1", "5s", "123456789S"])
def test_malformed_timeout(wire, timeout):
    stream_id = wire.open(("grpc-timeout", timeout), end=True)
    fields, _ = wire.answer(stream_id)
    assert fields["grpc-status"] == "13"
    assert timeout in fields["grpc-message"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([(":method", "POST"), (":path", "/a")], "no scheme"),
        ([(":method", "POST"), (":scheme", "http")], "no path"),
        ([(":method", "POST")] * 2 + [(":scheme", "http"), (":path", "/a")], "twice"),
        ([("te", "trailers"), (":method", "POST"), (":scheme", "http"), (":path", "/")], "order"),
        ([(":method", "POST"), (":scheme", "http"), (":path", "/"), ("TE", "trailers")], "case"),
        ([(":method", "POST"), (":scheme", "http"), (":path", "/"), ("te", "gzip")], "te"),
        ([(":method", "POST"), (":scheme", "http"), (":path", "/"), ("upgrade", "h3")], "hop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_request_is_reset_and_the_connection_lives(wire, fields, why):
    block = wire.client.encoder.encode(fields)
    wire.socket.sendall(
        wire.client.data_to_send() + frames.pack_frame(frames.HEADERS, 5, 1, block)
    )
    raw = b""
    while frames.pack_reset(1, frames.ErrorCode.PROTOCOL_ERROR) not in raw:
        raw += wire.socket.recv(65_536)
    wire.socket.sendall(frames.pack_frame(frames.PING, 0, 0, b"still up"))
    while b"still up" not in raw:
        raw += wire.socket.recv(65_536)


def read_to_end(connected):
    """Everything the server says until it closes."""
    raw = b""
    while data := connected.recv(65_536):
        raw += data
    return raw


def test_violation_is_told_before_the_connection_is_closed(shared_port):
    with socket.create_connection(("127.0.0.1", shared_port), timeout=20) as connected:
        opening = frames.PREFACE + frames.pack_settings({})
        # Much input behind the violation: closing over it must not destroy the GOAWAY.
        junk = frames.pack_frame(frames.PUSH_PROMISE, 4, 1) + bytes(300_000)
        connected.sendall(opening + junk)
        raw = read_to_end(connected)
    code = frames.ErrorCode.PROTOCOL_ERROR
    assert frames.pack_goaway(0, code, "a client cannot push") in raw


def test_http_1_is_closed(shared_port):
    with socket.create_connection(("127.0.0.1", shared_port), timeout=20) as connected:
        connected.sendall(b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_to_end(connected) == b""


def test_client_that_vanishes_frees_its_connection():
    held = []
    with serving(held.append) as (_, port):
        with Wire(port) as wire:
            stream_id = wire.open()
            wire.client.send_data(stream_id, grpc_body(b"abc"), end_stream=True)
            wire.socket.sendall(wire.client.data_to_send())
            wait_until(lambda: held)
            # An abortive close: RST, as of a killed client.
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection = weakref.ref(held[0].respond.__self__._connection)
        wait_until(lambda: connection().closing)
        held.pop().respond(0, "", b"nobody is there")
        wait_until(lambda: gc.collect() is not None and connection() is None)


def test_client_that_does_not_read_blocks_nobody_else():
    large = b"x" * (4 * 2**20)
    with serving(lambda call: call.respond(0, "", large)) as (_, port), Wire(port) as deaf:
        deaf.client.increment_flow_control_window(2**30)
        for _ in range(20):
            stream_id = deaf.open()
            deaf.client.increment_flow_control_window(2**24, stream_id)
            deaf.client.send_data(stream_id, grpc_body(b"abc"), end_stream=True)
        deaf.socket.sendall(deaf.client.data_to_send())
        with dial(port) as invoke:
            assert invoke(b"x", timeout=60) == large
        fields, body = deaf.answer(stream_id)
    assert fields["grpc-status"] == "0"
    assert body == grpc_body(large)


@robust(max_examples=25)
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_noise_never_ends_the_server(shared_port, pieces, greet):
    with socket.create_connection(("127.0.0.1", shared_port), timeout=20) as connected:
        opening = frames.PREFACE + frames.pack_settings({}) if greet else b""
        connected.sendall(opening + b"".join(pieces))
        connected.shutdown(socket.SHUT_WR)
        read_to_end(connected)
    with Wire(shared_port) as wire:
        stream_id = wire.open()
        wire.client.send_data(stream_id, grpc_body(b"alive"), end_stream=True)
        assert wire.answer(stream_id)[1] == grpc_body(b"alive")
