import pytest

from tuner.http2 import frames
from tuner.http2.frames import ErrorCode, Http2Error


def test_frame_head_is_nine_bytes_of_length_type_flags_and_stream():
    packed = frames.pack_frame(frames.PING, frames.ACK, 0, b"12345678")
    assert packed == b"\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678"


def test_settings_round_trip():
    values = {frames.INITIAL_WINDOW_SIZE: 2**31 - 1, frames.MAX_FRAME_SIZE: 16_384, 0x99: 7}
    packed = frames.pack_settings(values)
    assert frames.parse_settings(packed[frames.FRAME_HEAD_BYTES :]) == list(values.items())


@pytest.mark.parametrize(
    ("number", "value", "code"),
    [
        (frames.ENABLE_PUSH, 2, ErrorCode.PROTOCOL_ERROR),
        (frames.INITIAL_WINDOW_SIZE, 2**31, ErrorCode.FLOW_CONTROL_ERROR),
        (frames.MAX_FRAME_SIZE, 16_383, ErrorCode.PROTOCOL_ERROR),
        (frames.MAX_FRAME_SIZE, 2**24, ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_illegal_setting_names_its_error_code(number, value, code):
    packed = frames.pack_settings({number: value})
    with pytest.raises(Http2Error) as caught:
        frames.parse_settings(packed[frames.FRAME_HEAD_BYTES :])
    assert caught.value.code == code


def test_settings_of_a_broken_length_are_a_frame_size_error():
    with pytest.raises(Http2Error) as caught:
        frames.parse_settings(b"\0" * 7)
    assert caught.value.code == ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    ("payload", "content"), [(b"\x00abc", b"abc"), (b"\x02abc\0\0", b"abc"), (b"\x03\0\0\0", b"")]
)
def test_padding_is_stripped(payload, content):
    assert frames.strip_padding(payload) == content


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x04abc"])
def test_padding_longer_than_its_frame_is_refused(payload):
    with pytest.raises(Http2Error):
        frames.strip_padding(payload)
