"""The client's end without sockets: whatever a server says, each request ends once."""

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tuner.clock import now_ns
from tuner.http2 import frames
from tuner.http2.frames import ErrorCode, pack_frame
from tuner.http2.grpc import pack_answer, pack_error
from tuner.http2.headers import pack_literals
from tuner.load.connection import ClientConnection
from tuner.load.ledger import ENDED
from tuner.load.messages import Messages
from tuner.load.statuses import Statuses

# A slow machine is no failure.
robust = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FIELDS = [(b":method", b"POST"), (b":path", b"/p"), (b"grpc-timeout", b"1S")]
OPENING = frames.pack_settings({})
WIDE = frames.pack_settings({frames.INITIAL_WINDOW_SIZE: 2**31 - 1})
WIDE += frames.pack_window_update(0, 2**30)


def client(requests=8, opening=WIDE, messages=(b"one", b"two")):
    connection = ClientConnection(FIELDS, Messages(messages), Statuses())
    connection.receive(opening)
    send(connection, requests)
    connection.out.clear()
    return connection


def send(connection, requests, pick=0):
    connection.send([now_ns()] * requests, [pick] * requests, now_ns())
    connection.ledger.stamp(now_ns())


def ends(connection):
    """(code, text) of every row, None where it has not ended."""
    ledger = connection.ledger
    keys = connection.statuses.keys
    return [
        keys[ledger.status[row]] if ledger.state[row] == ENDED else None
        for row in range(ledger.count)
    ]


def codes(connection):
    return [None if end is None else end[0] for end in ends(connection)]


def kinds(out):
    """Type and stream of every frame in what is to be sent."""
    raw, at, found = b"".join(out), 0, []
    while at < len(raw):
        word, _, stream = frames.FRAME_HEAD.unpack_from(raw, at)
        found.append((word & 0xFF, stream))
        at += 9 + (word >> 8)
    return found


# --- many at once ---

few_and_many = pytest.mark.parametrize("size", [40, 200])
"""Read one by one, and as arrays."""


@pytest.mark.parametrize("size", [1, 5, 6, 40, 53, 54, 400])
def test_whole_answers_in_a_row(size):
    connection = client(size)
    connection.receive(pack_answer(1, b"first"))
    connection.receive(b"".join(pack_answer(2 * n + 1, b"later") for n in range(1, size)))
    assert codes(connection) == ["OK"] * size
    assert connection.ledger.outstanding == 0
    assert connection.last_answer == (b"later" if size > 1 else b"first")


@few_and_many
@pytest.mark.parametrize("order", ["reversed", "interleaved", "heads first"])
def test_answers_in_any_order_of_streams(order, size):
    connection = client(size)
    connection.receive(pack_answer(1, b"first") + pack_answer(3, b"first"))
    streams = [2 * n + 1 for n in range(2, size)]
    whole = [pack_answer(stream, b"later") for stream in streams]
    if order == "reversed":
        data = b"".join(reversed(whole))
    elif order == "interleaved":
        data = b"".join(whole[1::2] + whole[::2])
    else:
        (length,) = {len(answer) for answer in whole}
        head = 9 + (frames.FRAME_HEAD.unpack_from(whole[0])[0] >> 8)
        assert head < length
        data = b"".join([a[:head] for a in whole] + [a[head:] for a in whole])
    connection.receive(data)
    assert codes(connection) == ["OK"] * size


@few_and_many
def test_one_bad_answer_among_many_fails_alone(size):
    connection, half = client(size), size // 2
    answers = [pack_answer(2 * n + 1, b"message") for n in range(size)]
    answers[half] = pack_error(2 * half + 1, 8, "full")
    connection.receive(b"".join(answers))
    assert codes(connection) == ["OK"] * half + ["RESOURCE_EXHAUSTED"] + ["OK"] * (half - 1)


@few_and_many
def test_an_answer_that_comes_twice_is_a_violation(size):
    connection = client(size)
    answers = [pack_answer(2 * n + 1, b"message") for n in range(size - 10)]
    connection.receive(b"".join(answers))
    connection.receive(b"".join(answers))
    assert connection.closing
    assert codes(connection) == ["OK"] * (size - 10) + [None] * 10
    assert (frames.GOAWAY, 0) in kinds(connection.out)


@few_and_many
def test_answers_to_nothing_are_a_violation(size):
    connection = client(size)
    connection.receive(b"".join(pack_answer(2 * n + 1, b"message") for n in range(size + 20)))
    assert connection.closing
    assert codes(connection) == ["OK"] * size


def test_the_same_bytes_mean_something_else_once_the_table_has_changed():
    """A layout is only as good as the header table it was learnt under."""
    connection = client(4)
    insert_ok = b"\x40" + pack_literals([(b"grpc-status", b"0")])[1:]
    insert_full = b"\x40" + pack_literals([(b"grpc-status", b"8")])[1:]

    def answer(stream, trailers):
        head = pack_frame(frames.HEADERS, frames.END_HEADERS, stream, b"\x88")
        body = pack_frame(frames.DATA, 0, stream, b"\0\0\0\0\x01x")
        end = frames.END_HEADERS | frames.END_STREAM
        return head + body + pack_frame(frames.HEADERS, end, stream, trailers)

    newest = b"\xbe"  # index 62: the entry inserted last
    connection.receive(answer(1, insert_ok) + answer(3, newest) + answer(5, insert_full))
    connection.receive(answer(7, newest))
    assert codes(connection) == ["OK", "OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]


def test_requests_in_bulk_are_the_frames_of_requests_one_by_one():
    one, many = client(0), client(0)
    for connection in (one, many):
        send(connection, 2)  # the first fills the peer's table
        connection.out.clear()
    for pick in (0, 1) * 30:
        send(one, 1, pick)
    many.send([1] * 60, [0, 1] * 30, 1)
    assert b"".join(many.out) == b"".join(one.out)
    assert many.ledger.message[2:62].tolist() == [0, 1] * 30


def test_windows_hold_requests_back_in_bulk_too():
    connection = client(0, OPENING)
    send(connection, 1)
    connection.send([1] * 9000, [0] * 9000, 1)
    raw = b"".join(connection.out).removeprefix(frames.PREFACE)
    at = data = 0
    while at < len(raw):
        word, _, _ = frames.FRAME_HEAD.unpack_from(raw, at)
        data += word >> 8 if word & 0xFF == frames.DATA else 0
        at += 9 + (word >> 8)
    assert data == 65_535 - connection.sending.window
    assert len(connection.sending.waiting) > 100
    connection.out.clear()
    connection.receive(frames.pack_window_update(0, 2**30))
    assert not connection.sending.waiting


# --- rows and deadlines ---


def test_deadlines_end_the_oldest_first():
    connection = client(0)
    for moment in (100, 200, 300):
        connection.send([moment], [0], moment)
        connection.ledger.stamp(moment)
    assert connection.expire(149, 50) == 150
    assert codes(connection) == [None] * 3
    assert connection.expire(250, 50) == 350
    assert codes(connection) == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", None]
    assert connection.ledger.done_ns[:2].tolist() == [250, 250]
    connection.receive(pack_answer(5, b"x"))
    assert connection.expire(999, 50) is None


def test_rows_are_given_away_while_later_ones_are_outstanding():
    connection = client(6)
    connection.receive(b"".join(pack_answer(s, b"x") for s in (1, 3, 7)))
    rows = connection.take()
    assert len(rows.done_ns) == 2
    assert connection.ledger.count == 4
    connection.receive(b"".join(pack_answer(s, b"x") for s in (5, 9, 11)))
    assert codes(connection) == ["OK"] * 4
    assert len(connection.take().done_ns) == 4
    send(connection, 1)
    connection.receive(pack_answer(13, b"x"))
    assert codes(connection) == ["OK"]


def test_goaway_keeps_what_was_taken_up():
    connection = client(4)
    connection.receive(frames.pack_goaway(5, ErrorCode.NO_ERROR, "bye"))
    text = "the server is going away (NO_ERROR): bye"
    assert ends(connection) == [None, None, None, ("UNAVAILABLE", text)]
    assert connection.room == 0
    connection.receive(b"".join(pack_answer(s, b"x") for s in (1, 3, 5)))
    assert codes(connection) == ["OK", "OK", "OK", "UNAVAILABLE"]


def test_a_lost_connection_ends_everything_once():
    connection = client(3)
    connection.receive(pack_answer(3, b"x"))
    connection.lose(("UNAVAILABLE", "gone"), 77)
    assert codes(connection) == ["UNAVAILABLE", "OK", "UNAVAILABLE"]
    assert connection.ledger.outstanding == 0


# --- noise ---


def answers(streams):
    good = st.sampled_from(streams).map(lambda s: pack_answer(s, b"message"))
    bad = st.tuples(st.sampled_from(streams), st.integers(0, 20), st.text(max_size=20)).map(
        lambda drawn: pack_error(*drawn)
    )
    return st.one_of(good, bad)


def any_frame(streams):
    return st.builds(
        pack_frame,
        st.integers(0, 10),
        st.integers(0, 255),
        st.sampled_from([0, 2, 99, *streams]),
        st.one_of(st.binary(max_size=40), st.just(b"\x88"), st.just(b"\0\0\0\0\x01x")),
    )


STREAMS = [1, 3, 5, 7, 9, 11, 13, 15]


@robust(max_examples=300)
@given(
    st.lists(st.one_of(answers(STREAMS), any_frame(STREAMS)), max_size=30),
    st.integers(1, 60),
)
def test_no_sequence_of_frames_raises_or_ends_a_request_twice(pieces, cut):
    data = b"".join(pieces)
    check_noise(data, cut)


@robust(max_examples=300)
@given(st.binary(max_size=300), st.integers(1, 60))
@example(b"\0\0\0\4\1\0\0\0\0" * 3, 5)
def test_no_bytes_raise(data, cut):
    check_noise(data, cut)


@robust(max_examples=300)
@given(st.data())
def test_no_damage_to_good_answers_raises(data):
    whole = bytearray(b"".join(pack_answer(s, b"message") for s in STREAMS))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    check_noise(bytes(whole), data.draw(st.integers(1, len(whole))))


def check_noise(data, cut):
    """Feed bytes in pieces; the ledger must add up at every step, and end complete."""
    connection = client(8)
    for at in range(0, len(data), cut):
        connection.receive(data[at : at + cut])
        ledger = connection.ledger
        ended = int(np.count_nonzero(ledger.state[:8] == ENDED))
        assert ended == ledger.ended
        assert np.all(ledger.done_ns[:8][ledger.state[:8] == ENDED] > 0)
    if connection.closing:
        assert connection.failure is not None
        assert kinds(connection.out)[-1] == (frames.GOAWAY, 0)
    connection.lose(("UNAVAILABLE", "over"), now_ns())
    assert connection.ledger.outstanding == 0
    assert len(connection.take().done_ns) == 8
