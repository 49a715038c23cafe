from functools import partial

import hpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.http2 import frames, grpc
from tuner.http2.grpc import CallError, MessageReader, StatusCode

# A slow machine is no failure.
robust = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (b"2H", 7_200_000_000_000),
        (b"3M", 180_000_000_000),
        (b"10S", 10_000_000_000),
        (b"250m", 250_000_000),
        (b"99999999u", 99_999_999_000),
        (b"7n", 7),
        (b"0m", 0),
    ],
)
def test_timeout_units(value, ns):
    assert grpc.parse_timeout(value) == ns


@pytest.mark.parametrize(
    "value", [b"", b"S", b"10", b"10s", b"-1S", b"123456789S", b"1.5S", b"1S\n"]
)
def test_malformed_timeouts(value):
    with pytest.raises(CallError) as caught:
        grpc.parse_timeout(value)
    assert caught.value.code == StatusCode.INTERNAL


@robust()
@given(st.binary(max_size=200), st.lists(st.integers(0, 210), max_size=6))
def test_message_is_the_same_however_it_is_cut(message, cuts):
    body = grpc.pack_message(message)
    reader, edges = MessageReader("identity", 1_000), sorted({0, len(body), *cuts})
    for start, stop in zip(edges, [*edges[1:], len(body)], strict=True):
        reader.feed(body[start:stop])
    assert reader.finish() == message


def read_whole(body):
    reader = MessageReader("gzip", 100)
    reader.feed(body)
    return reader.finish()


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"", StatusCode.INTERNAL, "without a message"),
        (b"\0\0\0", StatusCode.INTERNAL, "within a message"),
        (b"\0\0\0\0\x03ab", StatusCode.INTERNAL, "within a message"),
        (b"\0\0\0\0\x01ab", StatusCode.UNIMPLEMENTED, "more than one message"),
        (b"\x01\0\0\0\x01a", StatusCode.UNIMPLEMENTED, "'gzip' is not supported"),
        (
            b"\0\0\0\0\x65",
            StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (101 vs. 100)",
        ),
    ],
)
def test_bodies_that_are_not_one_message(body, code, text):
    with pytest.raises(CallError) as caught:
        read_whole(body)
    assert caught.value.code == code
    assert text in caught.value.text


def test_compressed_flag_without_an_encoding_is_the_clients_fault():
    with pytest.raises(CallError) as caught:
        MessageReader("identity", 100).feed(b"\x01\0\0\0\x01a")
    assert caught.value.code == StatusCode.INTERNAL


def decode(frame):
    word, flags, stream_id = frames.FRAME_HEAD.unpack_from(frame)
    payload = frame[9 : 9 + (word >> 8)]
    fields = payload if word & 0xFF == frames.DATA else hpack.Decoder().decode(payload)
    return word & 0xFF, flags, stream_id, fields, frame[9 + (word >> 8) :]


def test_answer_is_headers_data_and_trailers():
    kind, flags, stream_id, fields, rest = decode(grpc.pack_answer(7, b"payload"))
    assert (kind, flags, stream_id) == (frames.HEADERS, frames.END_HEADERS, 7)
    assert fields == [(":status", "200"), ("content-type", "application/grpc")]
    kind, flags, stream_id, body, rest = decode(rest)
    assert (kind, flags, stream_id, body) == (frames.DATA, 0, 7, b"\0\0\0\0\x07payload")
    kind, flags, stream_id, fields, rest = decode(rest)
    assert (kind, flags, stream_id) == (frames.HEADERS, 5, 7)
    assert fields == [("grpc-status", "0")]
    assert rest == b""


def test_headers_and_trailers_apart_are_those_of_the_whole_answer():
    whole = grpc.pack_answer(9, b"")
    assert whole.startswith(grpc.pack_answer_headers(9))
    assert whole.endswith(grpc.pack_trailers(9))


def test_error_text_is_percent_encoded_and_cut():
    *_, fields, _ = decode(grpc.pack_error(1, 14, "50% of\nqüeue" + "x" * 2_000))
    message = dict(fields)["grpc-message"]
    assert message.startswith("50%25 of%0Aq%C3%BCeuexxx")
    assert len(message) == 1_024 + 2 + 2 + 5
    assert dict(fields)["grpc-status"] == "14"
