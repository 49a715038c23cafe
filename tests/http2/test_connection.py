"""The connection without sockets, against the h2 library's client and against noise."""

import struct
from functools import partial

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.http2 import frames
from tuner.http2.connection import MAX_FRAME_BYTES, ServerConnection, Stream
from tuner.http2.frames import ErrorCode, pack_frame

# A slow machine is no failure.
robust = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo"),
    (":authority", "test"),
]
OPENING = frames.PREFACE + frames.pack_settings({})
# POST, http, path / : all from the static table
BLOCK = b"\x83\x86\x84"
END = frames.END_HEADERS | frames.END_STREAM


class Body(Stream):
    __slots__ = ("content",)

    def __init__(self, stream_id):
        super().__init__(stream_id)
        self.content = b""


class Echo(ServerConnection):
    """Sends every body back as it came, framed by two frames of its own type."""

    def __init__(self, limit=None):
        super().__init__(list, limit)
        self.requests = []

    def open_stream(self, stream_id, head):
        self.requests.append([(bytes(n).decode(), bytes(v).decode()) for n, v in head])
        return Body(stream_id)

    def on_data(self, stream, content):
        stream.content += content
        if stream.ended:
            self.on_end(stream)

    def on_end(self, stream):
        self.out.append(pack_frame(frames.HEADERS, frames.END_HEADERS, stream.id, b"\x88"))
        tail = pack_frame(frames.DATA, frames.END_STREAM, stream.id)
        self.send_body(stream.id, stream.content, tail)


class Dialogue:
    """An h2 client and the connection, each reading what the other wrote."""

    def __init__(self, limit=None):
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.client = h2.connection.H2Connection(config)
        self.server = Echo(limit)
        self.client.initiate_connection()
        self.events = []

    def exchange(self):
        """Pass bytes both ways until neither has any; returns the client's new events."""
        new = []
        while (data := self.client.data_to_send()) or self.server.out:
            self.server.receive(data)
            answer = b"".join(self.server.out)
            self.server.out.clear()
            new += self.client.receive_data(answer)
        self.events += new
        return new

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def request(dialogue, body, *, headers=HEADERS):
    """Send a request with all flow control that h2 asks for."""
    client = dialogue.client
    stream_id = client.get_next_available_stream_id()
    client.send_headers(stream_id, headers)
    for at in range(0, len(body), 16_384):
        dialogue.exchange()
        client.send_data(stream_id, body[at : at + 16_384])
    client.end_stream(stream_id)
    return stream_id


def received(dialogue, stream_id):
    return b"".join(
        e.data for e in dialogue.of(h2.events.DataReceived) if e.stream_id == stream_id
    )


def goaway_of(server):
    """The error code of the GOAWAY that ends what the server said, None where there is none."""
    raw, at, code = b"".join(server.out), 0, None
    while at < len(raw):
        word, _, _ = frames.FRAME_HEAD.unpack_from(raw, at)
        if word & 0xFF == frames.GOAWAY:
            code = struct.unpack_from(">I", raw, at + 13)[0]
        at += 9 + (word >> 8)
    return code


def test_request_is_echoed_and_the_stream_is_forgotten():
    dialogue = Dialogue()
    dialogue.exchange()
    stream_id = request(dialogue, b"hello")
    dialogue.exchange()
    assert received(dialogue, stream_id) == b"hello"
    assert dialogue.of(h2.events.StreamEnded)
    assert dialogue.server.requests == [HEADERS]
    assert dialogue.server.streams == {}


def test_settings_and_pings_are_acknowledged():
    dialogue = Dialogue()
    dialogue.exchange()
    assert dialogue.of(h2.events.SettingsAcknowledged)
    dialogue.client.ping(b"bdp-ping")
    (event,) = [e for e in dialogue.exchange() if isinstance(e, h2.events.PingAckReceived)]
    assert event.ping_data == b"bdp-ping"


def test_large_answer_waits_for_both_windows():
    dialogue = Dialogue()
    dialogue.exchange()
    body = bytes(range(256)) * 1_200
    stream_id = request(dialogue, body)
    dialogue.exchange()
    assert len(received(dialogue, stream_id)) == frames.DEFAULT_WINDOW
    dialogue.client.increment_flow_control_window(200_000, stream_id)
    dialogue.exchange()
    assert len(received(dialogue, stream_id)) == frames.DEFAULT_WINDOW
    dialogue.client.increment_flow_control_window(10**6)
    dialogue.exchange()
    assert len(received(dialogue, stream_id)) == frames.DEFAULT_WINDOW + 200_000
    dialogue.client.increment_flow_control_window(100_000, stream_id)
    dialogue.exchange()
    assert received(dialogue, stream_id) == body
    assert dialogue.server.streams == {}


def test_change_of_initial_window_moves_waiting_answers():
    dialogue = Dialogue()
    dialogue.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    dialogue.exchange()
    stream_id = request(dialogue, b"x" * 100)
    dialogue.exchange()
    assert len(received(dialogue, stream_id)) == 10
    dialogue.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1_000})
    dialogue.exchange()
    assert received(dialogue, stream_id) == b"x" * 100


def test_frames_are_no_longer_than_the_client_accepts():
    dialogue = Dialogue()
    dialogue.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**20})
    dialogue.client.update_settings({h2.settings.SettingCodes.MAX_FRAME_SIZE: 20_000})
    dialogue.exchange()
    stream_id = request(dialogue, b"x" * 50_000)
    dialogue.exchange()
    sizes = [len(e.data) for e in dialogue.of(h2.events.DataReceived) if e.data]
    assert sizes == [20_000, 20_000, 10_000]
    assert received(dialogue, stream_id) == b"x" * 50_000


def test_continuation_frames_are_one_header_block():
    dialogue = Dialogue()
    dialogue.exchange()
    headers = [*HEADERS, *((f"x-{i}", "v" * 900) for i in range(30))]
    request(dialogue, b"", headers=headers)
    dialogue.exchange()
    assert dialogue.server.requests == [headers]


def test_padding_and_priority_are_ignored():
    dialogue = Dialogue()
    dialogue.exchange()
    client = dialogue.client
    client.send_headers(1, HEADERS, priority_weight=7, priority_depends_on=0)
    client.prioritize(1, weight=9)
    client.send_data(1, b"padded", end_stream=True, pad_length=200)
    dialogue.exchange()
    assert received(dialogue, 1) == b"padded"


def test_trailers_end_a_request():
    dialogue = Dialogue()
    dialogue.exchange()
    dialogue.client.send_headers(1, HEADERS)
    dialogue.client.send_data(1, b"body")
    dialogue.client.send_headers(1, [("x-checksum", "1")], end_stream=True)
    dialogue.exchange()
    assert received(dialogue, 1) == b"body"


def test_reset_request_is_forgotten_with_what_waits_for_it():
    dialogue = Dialogue()
    dialogue.exchange()
    stream_id = request(dialogue, b"x" * 100_000)
    dialogue.exchange()
    dialogue.client.reset_stream(stream_id, ErrorCode.CANCEL)
    dialogue.client.increment_flow_control_window(10**6)
    before = len(received(dialogue, stream_id))
    dialogue.exchange()
    assert dialogue.server.streams == {}
    assert len(received(dialogue, stream_id)) == before
    second = request(dialogue, b"alive")
    dialogue.exchange()
    assert received(dialogue, second) == b"alive"


def test_streams_over_the_limit_are_refused_and_the_rest_go_on():
    dialogue = Dialogue(limit=2)
    # Before the SETTINGS arrive a client may open as many as it likes.
    for stream_id in (1, 3, 5):
        dialogue.client.send_headers(stream_id, HEADERS)
    dialogue.exchange()
    (refused,) = dialogue.of(h2.events.StreamReset)
    assert (refused.stream_id, refused.error_code) == (5, ErrorCode.REFUSED_STREAM)
    assert dialogue.client.remote_settings.max_concurrent_streams == 2
    for stream_id in (1, 3):
        dialogue.client.send_data(stream_id, b"served", end_stream=True)
    dialogue.exchange()
    assert [received(dialogue, s) for s in (1, 3)] == [b"served", b"served"]


def test_bytes_may_arrive_one_by_one():
    whole, single = Echo(), Echo()
    script = OPENING + pack_frame(frames.HEADERS, frames.END_HEADERS, 1, BLOCK)
    script += pack_frame(frames.DATA, frames.END_STREAM, 1, b"drip")
    whole.receive(script)
    for byte in script:
        single.receive(bytes((byte,)))
    assert b"".join(single.out) == b"".join(whole.out)
    assert single.requests == whole.requests != []


def data_after_end(flags):
    return pack_frame(frames.HEADERS, flags, 1, BLOCK) + pack_frame(frames.DATA, 0, 1, b"late")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(pack_frame(frames.DATA, 0, 0, b"x"), "PROTOCOL_ERROR", id="DATA on 0"),
        pytest.param(pack_frame(frames.DATA, 0, 1, b"x"), "PROTOCOL_ERROR", id="DATA on idle"),
        pytest.param(pack_frame(frames.HEADERS, 5, 0, BLOCK), "PROTOCOL_ERROR", id="HEADERS on 0"),
        pytest.param(pack_frame(frames.HEADERS, 5, 2, BLOCK), "PROTOCOL_ERROR", id="even stream"),
        pytest.param(
            pack_frame(frames.HEADERS, 5, 5, BLOCK) + pack_frame(frames.HEADERS, 5, 3, BLOCK),
            "STREAM_CLOSED",
            id="stream numbers go down",
        ),
        pytest.param(
            pack_frame(frames.HEADERS, 0, 1, BLOCK) + pack_frame(frames.PING, 0, 0, bytes(8)),
            "PROTOCOL_ERROR",
            id="header block interrupted",
        ),
        pytest.param(
            pack_frame(frames.HEADERS, 0, 1, BLOCK) + pack_frame(frames.CONTINUATION, 4, 3),
            "PROTOCOL_ERROR",
            id="CONTINUATION elsewhere",
        ),
        pytest.param(pack_frame(frames.CONTINUATION, 4, 1), "PROTOCOL_ERROR", id="CONTINUATION"),
        pytest.param(
            pack_frame(frames.HEADERS, 0, 1, BLOCK)
            + pack_frame(frames.CONTINUATION, 0, 1, bytes(60_000)) * 2,
            "ENHANCE_YOUR_CALM",
            id="endless header block",
        ),
        pytest.param(
            pack_frame(frames.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
            "COMPRESSION_ERROR",
            id="undecodable block",
        ),
        pytest.param(
            pack_frame(frames.HEADERS, 0x2D, 1, b"\x09" + BLOCK), "PROTOCOL_ERROR", id="padding"
        ),
        pytest.param(
            pack_frame(frames.HEADERS, 0x25, 1, b"\0\0"), "FRAME_SIZE_ERROR", id="priority"
        ),
        pytest.param(
            pack_frame(frames.PRIORITY, 0, 0, bytes(5)), "PROTOCOL_ERROR", id="PRIORITY 0"
        ),
        pytest.param(
            pack_frame(frames.RST_STREAM, 0, 1, bytes(4)), "PROTOCOL_ERROR", id="RST idle"
        ),
        pytest.param(
            pack_frame(frames.RST_STREAM, 0, 1, bytes(3)), "FRAME_SIZE_ERROR", id="RST size"
        ),
        pytest.param(pack_frame(frames.SETTINGS, 0, 1), "PROTOCOL_ERROR", id="SETTINGS on 1"),
        pytest.param(
            pack_frame(frames.SETTINGS, 1, 0, bytes(6)), "FRAME_SIZE_ERROR", id="SETTINGS ACK"
        ),
        pytest.param(
            frames.pack_settings({frames.INITIAL_WINDOW_SIZE: 2**31}),
            "FLOW_CONTROL_ERROR",
            id="INITIAL_WINDOW_SIZE",
        ),
        pytest.param(pack_frame(frames.PUSH_PROMISE, 4, 1), "PROTOCOL_ERROR", id="PUSH_PROMISE"),
        pytest.param(pack_frame(frames.PING, 0, 1, bytes(8)), "PROTOCOL_ERROR", id="PING on 1"),
        pytest.param(pack_frame(frames.PING, 0, 0, bytes(7)), "FRAME_SIZE_ERROR", id="PING size"),
        pytest.param(
            pack_frame(frames.GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR", id="GOAWAY on 1"
        ),
        pytest.param(pack_frame(frames.GOAWAY, 0, 0, bytes(7)), "FRAME_SIZE_ERROR", id="GOAWAY"),
        pytest.param(frames.pack_window_update(0, 0), "PROTOCOL_ERROR", id="WINDOW_UPDATE of 0"),
        pytest.param(frames.pack_window_update(1, 1), "PROTOCOL_ERROR", id="WINDOW_UPDATE idle"),
        pytest.param(
            frames.pack_window_update(0, 2**31 - 1), "FLOW_CONTROL_ERROR", id="window overflow"
        ),
        pytest.param(
            frames.FRAME_HEAD.pack((MAX_FRAME_BYTES + 1) << 8, 0, 1), "FRAME_SIZE_ERROR", id="size"
        ),
    ],
)
def test_violation_ends_the_connection_with_its_error_code(script, code):
    server = Echo()
    server.receive(OPENING)
    assert goaway_of(server) is None
    server.receive(script)
    assert goaway_of(server) == ErrorCode[code]
    assert server.closing
    assert server.streams == {}
    written = len(server.out)
    server.receive(OPENING)
    assert len(server.out) == written


@pytest.mark.parametrize(
    "first", [pack_frame(frames.PING, 0, 0, bytes(8)), pack_frame(frames.SETTINGS, frames.ACK, 0)]
)
def test_the_first_frame_is_settings(first):
    server = Echo()
    server.receive(frames.PREFACE + first)
    assert goaway_of(server) == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(
            pack_frame(frames.HEADERS, 4, 1, BLOCK) + pack_frame(frames.HEADERS, 4, 1, BLOCK),
            ErrorCode.PROTOCOL_ERROR,
            id="trailers without END_STREAM",
        ),
        pytest.param(
            pack_frame(frames.HEADERS, 4, 1, BLOCK) + frames.pack_window_update(1, 0),
            ErrorCode.PROTOCOL_ERROR,
            id="WINDOW_UPDATE of 0",
        ),
        pytest.param(
            pack_frame(frames.HEADERS, 4, 1, BLOCK) + frames.pack_window_update(1, 2**31 - 1),
            ErrorCode.FLOW_CONTROL_ERROR,
            id="window overflow",
        ),
        pytest.param(data_after_end(5), ErrorCode.STREAM_CLOSED, id="DATA after END_STREAM"),
    ],
)
def test_violation_within_a_stream_resets_that_stream_alone(script, code):
    server = Echo()
    server.receive(OPENING)
    server.receive(script)
    assert server.out[-1] == frames.pack_reset(1, code)
    server.receive(pack_frame(frames.DATA, 0, 1, b"in flight"))
    assert server.out[-1] == frames.pack_reset(1, code)  # what was in flight is passed over
    server.receive(pack_frame(frames.HEADERS, END, 3, BLOCK))
    assert len(server.requests) == 2
    assert not server.closing


def test_more_than_the_receive_window_is_a_flow_control_error():
    server = Echo()
    server.receive(OPENING + pack_frame(frames.HEADERS, 4, 1, BLOCK))
    server._receiving._left = 10
    server.receive(pack_frame(frames.DATA, 0, 1, b"x" * 11))
    assert goaway_of(server) == ErrorCode.FLOW_CONTROL_ERROR


def test_refused_streams_are_not_remembered_for_ever():
    server = Echo(limit=0)
    server.receive(OPENING)
    for stream_id in range(1, 6_001, 2):
        server.receive(pack_frame(frames.HEADERS, frames.END_HEADERS, stream_id, BLOCK))
    assert server.streams == {}
    assert len(server._resets) < 2_000
    assert 5_999 in server._resets


def test_unknown_frame_types_and_settings_are_ignored():
    server = Echo()
    server.receive(OPENING + pack_frame(0xEE, 0xFF, 1, b"?") + frames.pack_settings({0xEE: 1}))
    server.receive(pack_frame(frames.HEADERS, END, 1, BLOCK))
    assert server.requests


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0", b"PRI * HTTP/2.1"])
def test_anything_but_the_preface_ends_without_a_word(first):
    server = Echo()
    server.receive(first)
    assert server.closing
    assert server.out == []


FRAMES = st.builds(
    pack_frame,
    st.integers(0, 11),
    st.one_of(st.sampled_from([0, 1, 4, 5]), st.integers(0, 255)),
    st.integers(0, 9),
    st.one_of(
        st.sampled_from([b"", BLOCK, bytes(4), bytes(5), bytes(8), b"\0\0\1\0"]),
        st.binary(max_size=40),
    ),
)


@robust(max_examples=400)
@given(
    st.lists(st.one_of(FRAMES, FRAMES, st.binary(max_size=30)), max_size=15), st.integers(1, 50)
)
def test_no_bytes_whatever_raise_or_leave_streams_behind(pieces, cut):
    server = Echo(limit=3)
    script = OPENING + b"".join(pieces)
    for at in range(0, len(script), cut):
        server.receive(script[at : at + cut])
    assert len(server.streams) <= 3
    assert server.closing == (goaway_of(server) is not None)
    assert not server.closing or server.streams == {}


@robust()
@given(st.binary(max_size=200))
def test_no_opening_whatever_raises(noise):
    server = Echo()
    server.receive(noise)
    assert server.closing != frames.PREFACE.startswith(noise[:24])
