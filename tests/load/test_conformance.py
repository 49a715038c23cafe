"""Both engines against a server that does everything HTTP/2 allows, and much that it does not."""

import contextlib
import os
import socket
import struct
import threading
import time
from collections import Counter

import h2.events
import h2.settings
import numpy as np
import pytest
from certificates import self_signed
from h2.settings import SettingCodes
from scripted_server import BODY, END, FIRST, LAST, MESSAGE, ScriptedServer

from tuner.http2 import frames
from tuner.http2.answers import CODES
from tuner.http2.frames import ErrorCode
from tuner.load.client import ENGINES, Tls, engine_factory

# Whoever lost a connection must have a new one before the load is over.
pytestmark = pytest.mark.alone

REQUEST = b"\x0a\x07request" * 12
engines = pytest.mark.parametrize("name", sorted(ENGINES))


def drive(
    name,
    address,
    *,
    requests=12,
    rate=400,
    deadline_s=2.0,
    connections=1,
    message=REQUEST,
    tls=None,
):
    """Send a few requests in an open loop; returns the columns."""
    engine = engine_factory(name)(address, deadline_s=deadline_s, connections=connections, tls=tls)
    try:
        offsets = (np.arange(requests) * 1e9 / rate).astype(np.int64)
        picks = np.zeros(requests, np.int32)
        columns = engine.open_loop([message], picks, offsets, duration_s=requests / rate)
    finally:
        engine.close()
    assert len(columns.done_ns) == requests
    assert np.all(columns.done_ns >= columns.sent_ns)
    assert np.all(columns.sent_ns >= columns.intended_ns)
    return columns


def ends(columns):
    return Counter(columns.statuses[number] for number in columns.status)


def codes(columns):
    found = Counter()
    for (code, _), number in ends(columns).items():
        found[code] += number
    return dict(found)


# --- oddities that are legal ---


def plainly(peer, stream):
    peer.answer(stream)


def padded(peer, stream):
    peer.frame(
        frames.HEADERS,
        frames.END_HEADERS | frames.PADDED,
        stream,
        b"\x03" + peer.block(FIRST) + bytes(3),
    )
    peer.frame(frames.DATA, frames.PADDED, stream, b"\xff" + BODY + bytes(255))
    peer.frame(frames.HEADERS, END | frames.PADDED, stream, b"\0" + peer.block(LAST))


def with_priority(peer, stream):
    peer.frame(frames.PRIORITY, 0, stream, struct.pack(">IB", 0, 15))
    payload = struct.pack(">IB", 0, 200) + peer.block(FIRST)
    peer.frame(frames.HEADERS, frames.END_HEADERS | frames.HAS_PRIORITY, stream, payload)
    peer.data(stream)
    peer.trailers(stream)


def in_continuations(peer, stream):
    block = peer.block([*FIRST, ("x-long", "y" * 300)])
    peer.frame(frames.HEADERS, 0, stream, block[:1])
    peer.frame(frames.CONTINUATION, 0, stream, block[1:40])
    peer.frame(frames.CONTINUATION, frames.END_HEADERS, stream, block[40:])
    peer.data(stream)
    block = peer.block(LAST)
    peer.frame(frames.HEADERS, frames.END_STREAM, stream, b"")
    peer.frame(frames.CONTINUATION, frames.END_HEADERS, stream, block)


def byte_by_byte(peer, stream):
    peer.headers(stream, FIRST)
    for at in range(len(BODY)):
        peer.data(stream, BODY[at : at + 1])
    peer.trailers(stream)


def dribbling(peer, stream):
    """The same bytes, but cut anywhere by the network."""
    block = peer.block(FIRST)
    whole = frames.pack_frame(frames.HEADERS, frames.END_HEADERS, stream, block)
    whole += frames.pack_frame(frames.DATA, 0, stream, BODY)
    whole += frames.pack_frame(frames.HEADERS, END, stream, peer.block(LAST))
    for at in range(0, len(whole), 7):
        peer.raw(whole[at : at + 7])
        time.sleep(0.0002)


def with_empty_data(peer, stream):
    peer.headers(stream, FIRST)
    peer.data(stream, b"")
    peer.data(stream)
    peer.data(stream, b"")
    peer.trailers(stream)


def unknown_frames(peer, stream):
    peer.frame(0xBE, 0xFF, stream, b"whatever")
    peer.frame(0xEF, 0, 0, b"")
    peer.answer(stream)


def pinging(peer, stream):
    peer.frame(frames.PING, 0, 0, b"12345678")
    peer.answer(stream)


def interim(peer, stream):
    peer.headers(stream, [(":status", "103"), ("link", "</style.css>")])
    peer.answer(stream)


def changing_headers(peer, stream):
    """A field that is new each time moves every entry of the header table."""
    peer.headers(stream, [*FIRST, ("date", f"moment {stream}")])
    peer.data(stream)
    peer.trailers(stream, [*LAST, ("x-trace", f"{stream:08x}")])


def shrinking_table(peer, stream):
    peer.encoder.header_table_size = 0 if stream % 4 == 1 else 4096
    peer.answer(stream)


def reserved_bit(peer, stream):
    peer.headers(stream | 1 << 31, FIRST)
    peer.data(stream | 1 << 31)
    peer.trailers(stream | 1 << 31)


def new_settings(peer, stream):
    values = {
        frames.INITIAL_WINDOW_SIZE: 16_384 + stream,
        frames.MAX_FRAME_SIZE: 16_384 + stream,
        frames.MAX_CONCURRENT_STREAMS: 1 + stream % 3,
        frames.HEADER_TABLE_SIZE: 0 if stream % 4 == 1 else 4096,
        0x99: 1,
    }
    peer.frame(frames.SETTINGS, 0, 0, frames.pack_settings(values)[9:])
    # The client's acknowledgement comes before anything that the settings allow or forbid.
    peer.h2.local_settings.update({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 4096})
    peer.answer(stream)


def update_windows(peer, stream):
    peer.raw(frames.pack_window_update(0, 1000), frames.pack_window_update(stream, 1000))
    peer.answer(stream)
    peer.raw(frames.pack_window_update(stream, 1))  # a stream that has just ended


def long_message(peer, stream):
    message = bytes(600_000)
    body = b"\0" + struct.pack(">I", len(message)) + message
    peer.headers(stream, FIRST)
    for at in range(0, len(body), 16_384):
        peer.data(stream, body[at : at + 16_384])
    peer.trailers(stream)


NOT_FOR_GRPCIO = {padded: "grpcio takes padding for header fields"}
ODDITIES = [
    plainly,
    padded,
    with_priority,
    in_continuations,
    byte_by_byte,
    dribbling,
    with_empty_data,
    unknown_frames,
    pinging,
    changing_headers,
    shrinking_table,
    reserved_bit,
    update_windows,
    long_message,
]


@engines
@pytest.mark.parametrize("script", ODDITIES)
def test_what_is_legal_is_understood(name, script):
    if name == "grpcio" and script in NOT_FOR_GRPCIO:
        pytest.skip(NOT_FOR_GRPCIO[script])
    with ScriptedServer(script) as server:
        columns = drive(name, server.address)
    assert codes(columns) == {"OK": 12}
    assert server.faults == []
    assert len(server.peers) == 1


@engines
def test_settings_may_change_in_mid_run(name):
    script = new_settings
    with ScriptedServer(script) as server:
        columns = drive(name, server.address)
    assert codes(columns) == {"OK": 12}
    assert len(server.peers) == 1


@pytest.mark.parametrize("statuses", [["100"], ["103"], ["100", "103", "103"]])
def test_interim_answers_are_passed_over(statuses):
    def script(peer, stream):
        for status in statuses:
            peer.headers(stream, [(":status", status), ("link", "</style.css>")])
        peer.answer(stream)

    with ScriptedServer(script) as server:
        assert codes(drive("http2", server.address)) == {"OK": 12}
    assert len(server.peers) == 1


def test_interim_answers_fail_their_request_with_grpcio_and_no_other():
    """grpcio takes them for the answer, and gives its connection up; no request is lost."""

    def script(peer, stream):
        (interim if peer.number == 0 and stream == 9 else plainly)(peer, stream)

    with ScriptedServer(script) as server:
        columns = drive("grpcio", server.address, requests=30, rate=100)
    found = ends(columns)
    assert found[("UNKNOWN", "Received http2 header with status: 103")] >= 1
    assert found[("OK", "")] >= 25
    assert {code for code, _ in found} <= {"OK", "UNKNOWN", "UNAVAILABLE"}
    assert columns.status[-1] == 0


def test_an_interim_status_must_not_end_the_answer():
    def script(peer, stream):
        if stream == 9:
            peer.headers(stream, [(":status", "100")], END)
        else:
            peer.answer(stream)

    with ScriptedServer(script) as server:
        found = ends(drive("http2", server.address))
    assert found[("INTERNAL", "the answer is malformed: it ended with an interim status")] == 1
    assert found[("OK", "")] == 11


def test_pings_are_answered_by_their_own_bytes():
    with ScriptedServer(pinging) as server:
        drive("http2", server.address)
        time.sleep(0.05)
    acks = server.peers[0].saw(h2.events.PingAckReceived)
    assert {event.ping_data for event in acks} == {b"12345678"}
    assert len(acks) == 12


@engines
def test_answers_in_any_order(name):
    held = []

    def script(peer, stream):
        held.append(stream)
        if len(held) == 12:
            for other in reversed(held):
                peer.headers(other, FIRST)
            for other in held:
                peer.data(other)
            for other in held[6:] + held[:6]:
                peer.trailers(other)

    with ScriptedServer(script) as server:
        columns = drive(name, server.address, rate=4000)
    assert codes(columns) == {"OK": 12}


@engines
@pytest.mark.parametrize("number", range(1, len(CODES)))
def test_every_status_with_its_text(name, number):
    with ScriptedServer(
        lambda peer, stream: peer.fail(stream, number, "50%25 of %C3%A9t%C3%A9")
    ) as s:
        columns = drive(name, s.address, requests=3)
    assert ends(columns) == {(CODES[number], "50% of été"): 3}


@engines
def test_an_error_after_a_message_counts(name):
    def script(peer, stream):
        peer.headers(stream, FIRST)
        peer.data(stream)
        peer.trailers(stream, [("grpc-status", "8"), ("grpc-message", "too late")])

    with ScriptedServer(script) as server:
        columns = drive(name, server.address)
    assert ends(columns) == {("RESOURCE_EXHAUSTED", "too late"): 12}


@engines
@pytest.mark.parametrize("code", [c for c in ErrorCode if c is not ErrorCode.HTTP_1_1_REQUIRED])
def test_resets_are_failures_with_a_code(name, code):
    def script(peer, stream):
        if stream % 4 == 1:
            peer.raw(frames.pack_reset(stream, code))
        else:
            peer.answer(stream)

    with ScriptedServer(script) as server:
        found = codes(drive(name, server.address))
    assert found.pop("OK") == 6
    ((kind, number),) = found.items()
    assert number == 6
    assert kind in {"INTERNAL", "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED",
                    "PERMISSION_DENIED", "UNKNOWN"}  # fmt: skip
    assert (kind == "CANCELLED") == (code is ErrorCode.CANCEL)
    assert (kind == "UNAVAILABLE") == (code is ErrorCode.REFUSED_STREAM)


@engines
@pytest.mark.parametrize(
    ("status", "code"), [(400, "INTERNAL"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"),
                         (404, "UNIMPLEMENTED"), (429, "UNAVAILABLE"), (503, "UNAVAILABLE"),
                         (500, "UNKNOWN")],
)  # fmt: skip
def test_http_errors_are_failures_with_a_code(name, status, code):
    def script(peer, stream):
        peer.headers(stream, [(":status", str(status)), ("content-type", "text/html")], END)

    with ScriptedServer(script) as server:
        assert codes(drive(name, server.address, requests=3)) == {code: 3}


# --- the request itself ---


def test_requests_are_what_grpc_asks_for():
    with ScriptedServer(plainly) as server:
        drive("http2", server.address, deadline_s=2.0)
    (peer,) = server.peers
    assert len(peer.requests) == 12
    for headers, body in peer.requests.values():
        assert body == b"\0" + struct.pack(">I", len(REQUEST)) + REQUEST
        assert headers[":method"] == "POST"
        assert headers[":path"] == "/tensorflow.serving.PredictionService/Predict"
        assert headers[":authority"] == server.address
        assert headers["te"] == "trailers"
        assert headers["content-type"] == "application/grpc"
        assert headers["grpc-timeout"] == "2000000u"
    assert server.faults == []


def test_the_header_block_of_every_request_but_the_first_is_a_few_bytes():
    sizes = []

    def each(peer, stream):
        sizes.append(len(peer.h2.decoder.header_table.dynamic_entries))

    with ScriptedServer(plainly, each=each) as server:
        drive("http2", server.address)
    assert len(set(sizes)) == 1  # nothing was added after the first


@engines
@pytest.mark.parametrize("size", [65_536, 600_000, 5_000_000])
def test_large_requests_under_small_windows(name, size):
    message = bytes(range(256)) * (size // 256)
    with ScriptedServer(plainly) as server:  # h2 opens windows of 65,535 bytes
        columns = drive(
            name, server.address, requests=3, rate=50, message=message, deadline_s=30.0
        )
    assert codes(columns) == {"OK": 3}
    assert [body[5:] for _, body in server.peers[0].requests.values()] == [message] * 3


@engines
def test_frame_size_and_windows_change_under_large_requests(name):
    """h2 refuses a frame or a byte beyond what it has announced, from its acknowledgement on."""
    wide = {SettingCodes.MAX_FRAME_SIZE: 65_536, SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20}
    narrow = {SettingCodes.MAX_FRAME_SIZE: 16_384, SettingCodes.INITIAL_WINDOW_SIZE: 3_000}
    changes = {1: wide, 9: narrow, 17: wide}
    message = bytes(range(256)) * 800

    def script(peer, stream):
        if stream in changes:
            peer.h2.update_settings(changes[stream])
        peer.answer(stream)

    with ScriptedServer(script) as server:
        columns = drive(
            name, server.address, requests=15, rate=60, message=message, deadline_s=30.0
        )
    assert codes(columns) == {"OK": 15}
    assert server.faults == []
    (peer,) = server.peers
    assert [body[5:] for _, body in peer.requests.values()] == [message] * 15
    largest = {
        stream: max(len(e.data) for e in peer.saw(h2.events.DataReceived) if e.stream_id == stream)
        for stream in peer.requests
    }
    assert largest[1] <= 16_384  # what holds until something else is said
    if name == "http2":
        assert largest[7] > 16_384
        assert largest[15] <= 3_000
        assert largest[29] > 16_384


@engines
def test_max_concurrent_streams_is_kept(name):
    most, held = [], []

    def script(peer, stream):
        held.append((peer, stream))
        most.append(peer.h2.open_inbound_streams)
        if len(held) == 4:
            release()

    def release():
        while held:
            peer, stream = held.pop(0)
            peer.h2.send_headers(stream, FIRST)
            peer.h2.send_data(stream, BODY)
            peer.h2.send_headers(stream, LAST, end_stream=True)
            peer.flush()

    limit = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 4}
    with ScriptedServer(script, settings=limit) as server:
        columns = drive(name, server.address, requests=40, rate=4000)
    assert codes(columns) == {"OK": 40}
    assert max(most) == 4
    assert server.faults == []


# --- the end of connections ---


@engines
def test_goaway_lets_what_was_taken_up_end_and_the_rest_go_elsewhere(name):
    def script(peer, stream):
        if peer.number == 0 and stream == 9:
            payload = struct.pack(">II", 9, 0) + b"maintenance"
            peer.frame(frames.GOAWAY, 0, 0, payload)
            time.sleep(0.02)
        peer.answer(stream)

    with ScriptedServer(script) as server:
        columns = drive(name, server.address, requests=30, rate=200)
    found = codes(columns)
    assert found["OK"] >= 25
    assert set(found) <= {"OK", "UNAVAILABLE"}
    assert len(server.peers) == 2


@engines
def test_a_lost_connection_fails_what_was_on_it_and_no_more(name):
    def script(peer, stream):
        if peer.number == 0 and stream == 9:
            peer.socket.close()
        else:
            peer.answer(stream)

    with ScriptedServer(script) as server:
        columns = drive(name, server.address, requests=40, rate=100)
    found = codes(columns)
    assert found["OK"] >= 20
    assert found["UNAVAILABLE"] >= 1
    assert len(server.peers) >= 2
    assert columns.status[-1] == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"))


def cut_off(peer):
    """As the kernel does for a process that was killed: no close_notify, the end of the bytes."""
    os.close(peer.socket.detach())


def reset_by_peer(peer):
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cut_off(peer)


def notify_of_the_end(peer):
    """A close_notify, as a server sends that closes in order, but in the middle of an answer."""
    peer.socket.settimeout(0.5)
    with contextlib.suppress(OSError):
        peer.socket.unwrap()


def noise_for_a_record(peer):
    os.write(peer.socket.fileno(), b"\x17\x03\x03\x00\x20" + bytes(range(32)))
    time.sleep(0.2)


def no_record_at_all(peer):
    os.write(peer.socket.fileno(), b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    time.sleep(0.2)


@engines
@pytest.mark.parametrize("part", ["headers", "half a message", "a whole answer"])
@pytest.mark.parametrize(
    "end", [cut_off, reset_by_peer, notify_of_the_end, noise_for_a_record, no_record_at_all]
)
def test_a_tls_connection_that_breaks_in_mid_run(name, end, part, certificate):
    """What was on it fails and is told why; what follows goes over another; nothing is lost."""

    def script(peer, stream):
        if peer.number == 0 and stream == 9:
            if part == "a whole answer":
                peer.answer(stream)
            else:
                peer.headers(stream, FIRST)
                if part == "half a message":
                    peer.data(stream, BODY[:-2])
            end(peer)
            raise OSError  # and the server lets go of it
        peer.answer(stream)

    tls = Tls(ca=certificate[1])
    with ScriptedServer(script, certificate=certificate) as server:
        columns = drive(name, server.address, requests=40, rate=100, tls=tls)
    found = ends(columns)
    assert sum(found.values()) == 40
    codes_found = {code for code, _ in found}
    assert codes_found <= {"OK", "UNAVAILABLE", "INTERNAL", "UNKNOWN"}
    assert found[("OK", "")] >= 30
    assert len(server.peers) >= 2
    assert columns.status[-1] == 0
    assert all(text for code, text in found if code != "OK")
    if part != "a whole answer":
        assert len(codes_found) > 1
    if name == "http2":
        assert codes_found <= {"OK", "UNAVAILABLE"}


@engines
def test_a_tls_server_that_breaks_off_the_handshake(name):
    def opening(peer):
        peer.socket.recv(1)
        raise OSError

    with ScriptedServer(plainly, opening=opening) as server:
        columns = drive(name, server.address, requests=20, rate=200, deadline_s=0.3, tls=Tls())
    assert set(codes(columns)) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


def test_stream_ids_that_run_out_need_a_new_connection():
    engine = engine_factory("http2")
    with ScriptedServer(plainly) as server:
        driver = engine(server.address, deadline_s=2.0)
        connection = driver._channels[0].transport.connection
        connection._next_id, connection._base = 2**31 - 9, (2**31 - 9) >> 1
        picks, offsets = np.zeros(12, np.int32), (np.arange(12) * 2_000_000).astype(np.int64)
        columns = driver.open_loop([REQUEST], picks, offsets, duration_s=0.03)
        driver.close()
    assert codes(columns) == {"OK": 12}
    assert sorted(server.peers[0].requests) == [2**31 - 9 + 2 * n for n in range(5)]
    assert sorted(server.peers[1].requests) == [1 + 2 * n for n in range(7)]


@engines
def test_several_connections_share_the_load(name):
    with ScriptedServer(plainly) as server:
        columns = drive(name, server.address, requests=30, connections=3)
    assert codes(columns) == {"OK": 30}
    assert [len(peer.requests) for peer in server.peers] == [10, 10, 10]


@engines
def test_deadlines_end_requests_at_their_time(name):
    with ScriptedServer(lambda *_: None) as server:
        columns = drive(name, server.address, requests=10, rate=100, deadline_s=0.3)
        time.sleep(0.05)
    assert codes(columns) == {"DEADLINE_EXCEEDED": 10}
    waited_ms = (columns.done_ns - columns.sent_ns) / 1e6
    assert waited_ms.min() >= 295
    assert np.median(waited_ms) < 330
    resets = server.peers[0].saw(h2.events.StreamReset)
    assert {event.error_code for event in resets} <= {ErrorCode.CANCEL}
    assert len(resets) == 10


@engines
def test_late_answers_are_ignored(name):
    late = []

    def script(peer, stream):
        if stream == 1:
            late.append(stream)
            return
        if late and stream > 5:
            peer.answer(late.pop())
        peer.answer(stream)

    with ScriptedServer(script) as server:
        columns = drive(name, server.address, requests=40, rate=100, deadline_s=0.1)
    assert codes(columns)["OK"] >= 38
    assert len(server.peers) == 1


@engines
def test_a_host_with_several_addresses(name):
    """localhost is ::1 too, where nobody listens."""
    with ScriptedServer(plainly) as server:
        columns = drive(name, server.address.replace("127.0.0.1", "localhost"))
    assert codes(columns) == {"OK": 12}


@engines
@pytest.mark.parametrize("address", ["nowhere.invalid:1", "..:1", "unix:/nowhere/at/all"])
def test_a_host_that_is_none(name, address):
    columns = drive(name, address, requests=5, rate=100, deadline_s=0.3)
    assert set(codes(columns)) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


@engines
def test_a_unix_socket(name, tmp_path):
    with ScriptedServer(plainly, path=tmp_path / "socket") as server:
        columns = drive(name, server.address)
    assert codes(columns) == {"OK": 12}


# --- against the rules ---


def broken_message(body):
    def script(peer, stream):
        peer.headers(stream, FIRST)
        peer.data(stream, body)
        peer.trailers(stream)

    return script


BROKEN_ANSWERS = {
    "compressed without being asked": broken_message(b"\x01" + BODY[1:]),
    "cut short": broken_message(BODY[:-1]),
    "too long": broken_message(BODY + b"!"),
    "two messages": broken_message(BODY + BODY),
    "no message": lambda peer, stream: (peer.headers(stream, FIRST), peer.trailers(stream)),
    "trailers only, with OK": lambda peer, stream: peer.fail(stream, 0),
    "half a prefix": broken_message(b"\0\0"),
    "no trailers": lambda peer, stream: (
        peer.headers(stream, FIRST),
        peer.data(stream, flags=frames.END_STREAM),
    ),
    "a status that is no number": lambda peer, stream: (
        peer.headers(stream, FIRST),
        peer.data(stream),
        peer.trailers(stream, [("grpc-status", "fine")]),
    ),
    "data before headers": lambda peer, stream: peer.data(stream),
    "no :status": lambda peer, stream: peer.headers(stream, FIRST[1:]),
    "upper case": lambda peer, stream: peer.headers(stream, [*FIRST, ("X-Loud", "1")]),
    "a second :status": lambda peer, stream: (
        peer.headers(stream, FIRST),
        peer.trailers(stream, FIRST),
    ),
    "window update of zero": lambda peer, stream: peer.raw(frames.pack_window_update(stream, 0)),
}


@pytest.mark.parametrize("script", BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS)
def test_a_broken_answer_fails_its_request_and_no_other(script):
    def every_third(peer, stream):
        (script if stream % 3 == 0 else plainly)(peer, stream)

    with ScriptedServer(every_third) as server:
        found = codes(drive("http2", server.address, deadline_s=0.5))
    assert found.pop("OK") == 8
    if script is BROKEN_ANSWERS["window update of zero"]:
        found.setdefault("OK", 0)  # of a request that was sent whole: nothing is left to break
    assert sum(found.values()) == 4
    assert set(found) <= {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "OK"}
    assert len(server.peers) == 1


def frame(kind, flags, stream, payload=b""):
    return lambda peer, _: peer.frame(kind, flags, stream, payload)


VIOLATIONS = {
    "SETTINGS of 5 bytes": frame(frames.SETTINGS, 0, 0, bytes(5)),
    "SETTINGS on a stream": frame(frames.SETTINGS, 0, 1),
    "SETTINGS ACK with payload": frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
    "ENABLE_PUSH": frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 2, 1)),
    "MAX_FRAME_SIZE too small": frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 5, 100)),
    "INITIAL_WINDOW_SIZE too large": frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)),
    "PING of 7 bytes": frame(frames.PING, 0, 0, bytes(7)),
    "PING on a stream": frame(frames.PING, 0, 1, bytes(8)),
    "WINDOW_UPDATE of zero": frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
    "WINDOW_UPDATE of 3 bytes": frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)),
    "a window over 2^31-1": lambda peer, _: peer.raw(
        frames.pack_window_update(0, 2**31 - 1) * 2
    ),
    "RST_STREAM of 5 bytes": frame(frames.RST_STREAM, 0, 1, bytes(5)),
    "RST_STREAM of an idle stream": frame(frames.RST_STREAM, 0, 999, bytes(4)),
    "RST_STREAM of the connection": frame(frames.RST_STREAM, 0, 0, bytes(4)),
    "GOAWAY of 7 bytes": frame(frames.GOAWAY, 0, 0, bytes(7)),
    "GOAWAY on a stream": frame(frames.GOAWAY, 0, 1, bytes(8)),
    "PUSH_PROMISE": frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, b"\0\0\0\2\x82"),
    "CONTINUATION of nothing": frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x88"),
    "HEADERS of an idle stream": frame(frames.HEADERS, END, 999, b"\x88"),
    "HEADERS of an even stream": frame(frames.HEADERS, END, 2, b"\x88"),
    "HEADERS of the connection": frame(frames.HEADERS, END, 0, b"\x88"),
    "DATA of an idle stream": frame(frames.DATA, 0, 999, b"x"),
    "DATA of the connection": frame(frames.DATA, 0, 0, b"x"),
    "a frame over MAX_FRAME_SIZE": lambda peer, _: peer.raw(struct.pack(">IBI", 0xFFFFFF00, 0, 1)),
    "padding longer than its frame": lambda peer, s: (
        peer.headers(s, FIRST),
        peer.frame(frames.DATA, frames.PADDED, s, b"\x09x"),
    ),
    "half a priority": frame(frames.HEADERS, END | frames.HAS_PRIORITY, 1, b"\0\0"),
    "a header block that cannot be": frame(frames.HEADERS, END, 7, b"\xff\xff\xff"),
    "an index beyond the table": lambda peer, s: peer.frame(frames.HEADERS, END, s, b"\xfe"),
    "a header block that another frame breaks": lambda peer, s: (
        peer.frame(frames.HEADERS, 0, s, b"\x88"),
        peer.frame(frames.PING, 0, 0, bytes(8)),
    ),
    "a header block without end": lambda peer, s: peer.raw(
        frames.pack_frame(frames.HEADERS, 0, s, b"\0" * 16_000),
        *[frames.pack_frame(frames.CONTINUATION, 0, s, b"\0" * 16_000)] * 8,
    ),
    "HEADERS after the end": lambda peer, s: (peer.answer(s), peer.headers(s, FIRST)),
    "DATA after the end": lambda peer, s: (peer.answer(s), peer.data(s)),
    "noise": lambda peer, _: peer.raw(bytes(range(255, 0, -1)) * 9),
}  # fmt: skip


@engines
@pytest.mark.parametrize("script", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_ends_the_connection_never_the_run(name, script):
    def script_once(peer, stream):
        if peer.number == 0 and len(peer.requests) == 4:
            script(peer, stream)
        else:
            plainly(peer, stream)

    with ScriptedServer(script_once) as server:
        columns = drive(name, server.address, requests=30, rate=150, deadline_s=1.0)
    found = codes(columns)
    assert sum(found.values()) == 30
    assert found["OK"] >= 15
    if name == "http2":
        assert len(server.peers) == 2
        assert columns.status[-1] == 0


OPENINGS = {
    "HTTP/1.1": lambda peer: peer.raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "PING first": lambda peer: peer.frame(frames.PING, 0, 0, bytes(8)),
    "an acknowledgement first": lambda peer: peer.frame(frames.SETTINGS, frames.ACK, 0),
    "closed at once": lambda peer: peer.socket.close(),
    "GOAWAY after SETTINGS": lambda peer: peer.raw(
        frames.pack_settings({}), frames.pack_goaway(0, ErrorCode.ENHANCE_YOUR_CALM, "full")
    ),
    "silence": lambda peer: None,
}


@engines
@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS)
def test_a_server_that_does_not_open_rightly(name, opening):
    with ScriptedServer(plainly, opening=opening) as server:
        columns = drive(name, server.address, requests=20, rate=200, deadline_s=0.2)
    assert set(codes(columns)) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}


def test_a_server_that_comes_up_later_is_found():
    with ScriptedServer(plainly) as server:
        address = server.address
    engine = engine_factory("http2")(address, deadline_s=2.0)
    offsets = (np.arange(60) * 10_000_000).astype(np.int64)
    host, port = address.split(":")

    def listen():
        time.sleep(0.2)
        server = ScriptedServer(plainly)
        server.listener.close()
        server.listener = socket.create_server((host, int(port)))
        return server.__enter__()

    found = []
    thread = threading.Thread(target=lambda: found.append(listen()))
    thread.start()
    columns = engine.open_loop([REQUEST], np.zeros(60, np.int32), offsets, duration_s=0.6)
    thread.join()
    engine.close()
    found[0].__exit__()
    assert codes(columns)["UNAVAILABLE"] > 5
    assert columns.status[-1] == 0
    assert next(text for code, text in columns.statuses if code == "UNAVAILABLE").endswith(
        "Connection refused"
    )


@engines
def test_both_keep_the_last_answer(name):
    with ScriptedServer(plainly) as server:
        engine = engine_factory(name)(server.address, deadline_s=2.0)
        assert engine.call(REQUEST, deadline_s=1.0) == ("OK", "")
        assert engine.last_answer == MESSAGE
        engine.close()
