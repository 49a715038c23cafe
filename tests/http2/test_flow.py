from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.http2 import frames
from tuner.http2.flow import ReceiveWindow, SendFlow
from tuner.http2.frames import ErrorCode, Http2Error

# A slow machine is no failure.
robust = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read_data(out):
    """The DATA payloads in `out` and what else it holds, by stream."""
    raw = b"".join(out)
    content, at = {}, 0
    while at < len(raw) and raw[at : at + 4] != b"tail":
        word, _, stream_id = frames.FRAME_HEAD.unpack_from(raw, at)
        at += 9
        content[stream_id] = content.get(stream_id, b"") + raw[at : at + (word >> 8)]
        at += word >> 8
    return content, raw[at:]


def test_receive_window_is_announced_anew_once_half_is_used():
    window = ReceiveWindow(100)
    assert [window.consume(20) for _ in range(5)] == [0, 0, 60, 0, 0]


def test_receive_window_refuses_more_than_it_allows():
    window = ReceiveWindow(100)
    with pytest.raises(Http2Error) as caught:
        window.consume(101)
    assert caught.value.code == ErrorCode.FLOW_CONTROL_ERROR


def test_body_stops_at_the_stream_window_and_goes_on():
    out = []
    flow = SendFlow(out)
    flow.set_initial_window(10)
    assert flow.send(1, b"x" * 25, b"tail") == []
    assert read_data(out) == ({1: b"x" * 10}, b"")
    assert flow.widen_stream(1, 14) == []
    assert flow.widen_stream(1, 1) == [1]
    assert read_data(out) == ({1: b"x" * 25}, b"tail")


def test_credit_that_came_before_the_answer_counts():
    out = []
    flow = SendFlow(out)
    flow.set_initial_window(10)
    flow.widen_stream(1, 15)
    assert flow.send(1, b"x" * 25, b"tail") == [1]


def test_connection_window_is_shared_oldest_first():
    out = []
    flow = SendFlow(out)
    flow.set_initial_window(2**20)
    flow.send(1, b"a" * 60_000, b"")
    flow.send(3, b"b" * 60_000, b"")
    content, _ = read_data(out)
    assert (len(content[1]), len(content[3])) == (60_000, 5_535)
    assert flow.widen(60_000) == [3]


def test_smaller_initial_window_makes_a_stream_wait_longer():
    out = []
    flow = SendFlow(out)
    flow.set_initial_window(20)
    flow.send(1, b"x" * 30, b"tail")
    flow.set_initial_window(5)  # 20 were sent: the stream's window is -15
    assert flow.widen_stream(1, 15) == []
    assert read_data(out)[0] == {1: b"x" * 20}
    assert flow.widen_stream(1, 10) == [1]


def test_windows_over_31_bits_are_errors():
    flow = SendFlow([])
    assert flow.widen_stream(1, frames.MAX_WINDOW) is None
    with pytest.raises(Http2Error):
        flow.widen(frames.MAX_WINDOW)
    flow = SendFlow([])
    flow.widen_stream(1, 10)
    with pytest.raises(Http2Error):
        flow.set_initial_window(frames.MAX_WINDOW)


def test_reset_stream_sends_nothing_more():
    out = []
    flow = SendFlow(out)
    flow.set_initial_window(1)
    flow.send(1, b"xyz", b"tail")
    flow.forget(1)
    assert flow.widen_stream(1, 100) == []
    assert read_data(out) == ({1: b"x"}, b"")


@robust()
@given(
    st.lists(st.integers(1, 50_000), min_size=1, max_size=5),
    st.integers(0, 40_000),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30_000)), max_size=60),
)
def test_windows_are_never_overrun_and_nothing_is_lost(sizes, initial, updates):
    out = []
    flow = SendFlow(out)
    flow.set_initial_window(initial)
    connection = frames.DEFAULT_WINDOW
    streams = {2 * i + 1: initial for i in range(len(sizes))}
    for stream_id, size in zip(streams, sizes, strict=True):
        flow.send(stream_id, bytes([stream_id]) * size, b"")
    for which, increment in updates:
        if which == 0:
            flow.widen(increment)
            connection += increment
        elif 2 * which - 1 in streams:
            flow.widen_stream(2 * which - 1, increment)
            streams[2 * which - 1] += increment
        content, _ = read_data(out)
        assert sum(map(len, content.values())) <= connection
        assert all(len(body) <= streams[stream_id] for stream_id, body in content.items())
    flow.widen(10**6)
    flow.set_initial_window(10**6)
    expected = {s: bytes([s]) * size for s, size in zip(streams, sizes, strict=True)}
    assert read_data(out)[0] == expected
