from functools import partial

import hpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.http2.frames import ErrorCode, Http2Error
from tuner.http2.headers import HeaderDecoder, pack_literals

# A slow machine is no failure.
robust = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])

REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/tensorflow.serving.PredictionService/Predict"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]

NAMES = st.sampled_from([b":path", b"te", b"grpc-timeout", b"x-a", b"user-agent", b"x" * 130])
VALUES = st.sampled_from([b"", b"a", b"10S", b"trailers", b"v" * 126, b"v" * 127, b"w" * 3000])
BLOCKS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=6)


def plain(fields):
    return [(bytes(name), bytes(value)) for name, value in fields]


class Counting(HeaderDecoder):
    """Counts how often a block was really read."""

    def __init__(self):
        self.read = 0
        super().__init__(self._count)

    def _count(self, fields):
        self.read += 1
        return plain(fields)


def test_repeated_block_is_not_read_again_once_the_table_stands_still():
    encoder, decoder = hpack.Encoder(), Counting()
    for _ in range(5):
        assert decoder.decode(encoder.encode(REQUEST)) == REQUEST
    # The first block fills the table, the second is the first of the indexed form.
    assert decoder.read == 2


def test_insertion_invalidates_blocks_that_were_remembered():
    """The same bytes name another entry once one more has been inserted before it."""
    encoder, decoder = hpack.Encoder(), HeaderDecoder(plain)
    decoder.decode(encoder.encode([(b"x-first", b"1")]))
    newest = b"\xbe"  # index 62, the newest entry of the dynamic table
    assert decoder.decode(newest) == [(b"x-first", b"1")]
    decoder.decode(encoder.encode([(b"x-second", b"2")]))
    assert decoder.decode(newest) == [(b"x-second", b"2")]


def test_insertion_that_evicts_as_much_as_it_adds_invalidates():
    decoder = HeaderDecoder(plain)
    encoder = hpack.Encoder()
    for number in range(100):  # 4,096 bytes hold about 40 of these entries
        fields = [(b"x-number", b"%064d" % number)]
        assert decoder.decode(encoder.encode(fields)) == fields
        assert decoder.decode(b"\xbe") == fields


def test_table_resize_invalidates():
    encoder, decoder = hpack.Encoder(), HeaderDecoder(plain)
    decoder.decode(encoder.encode([(b"x-first", b"1")]))
    assert decoder.decode(b"\xbe") == [(b"x-first", b"1")]
    encoder.header_table_size = 0
    decoder.decode(encoder.encode([(b":method", b"POST")]))
    with pytest.raises(Http2Error):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize("first", [b"\x00", b"\x10"], ids=["not indexed", "never indexed"])
def test_varying_literal_among_indexed_fields(first):
    encoder, decoder = hpack.Encoder(), HeaderDecoder(plain)
    decoder.decode(encoder.encode(REQUEST))
    indexed = encoder.encode(REQUEST)
    for timeout in (b"1S", b"999999u", b"10S"):
        block = indexed + first + b"\x0cgrpc-timeout" + bytes((len(timeout),)) + timeout
        assert decoder.decode(block) == [*REQUEST, (b"grpc-timeout", timeout)]


def test_literal_with_an_indexed_name_beyond_the_first_fifteen():
    block = b"\x0f\x10\x10application/grpc"  # static entry 31 is content-type
    assert HeaderDecoder(plain).decode(block) == [(b"content-type", b"application/grpc")]


@robust()
@given(st.lists(BLOCKS, min_size=1, max_size=12), st.booleans(), st.data())
def test_agrees_with_the_library_on_every_sequence_of_blocks(blocks, huffman, data):
    encoder, ours, theirs = hpack.Encoder(), HeaderDecoder(plain), hpack.Decoder()
    for fields in blocks:
        if data.draw(st.integers(0, 9)) == 0:
            encoder.header_table_size = data.draw(st.sampled_from([0, 64, 200, 4096]))
        block = encoder.encode(fields, huffman=huffman)
        assert ours.decode(block) == plain(theirs.decode(block, raw=True))


@robust()
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_agrees_with_the_library_on_noise(blocks):
    ours, theirs = HeaderDecoder(plain), hpack.Decoder()
    for block in blocks:
        try:
            expected = plain(theirs.decode(block, raw=True))
        except hpack.HPACKError:
            with pytest.raises(Http2Error) as caught:
                ours.decode(block)
            assert caught.value.code == ErrorCode.COMPRESSION_ERROR
            return
        assert ours.decode(block) == expected


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 5000])
def test_packed_literals_are_read_back_and_leave_no_trace(length):
    fields = [(b"grpc-status", b"8"), (b"grpc-message", b"m" * length)]
    decoder = hpack.Decoder()
    assert plain(decoder.decode(pack_literals(fields), raw=True)) == fields
    assert not decoder.header_table.dynamic_entries


def test_block_that_resizes_the_table_does_so_every_time():
    shrink, grow, insert = b"\x20\x83", b"\x3f\xe1\x1f\x83", b"\x40\x03x-a\x011"
    decoder = HeaderDecoder(plain)
    for _ in range(2):
        decoder.decode(shrink)
        decoder.decode(grow)
    decoder.decode(shrink)
    decoder.decode(insert)  # too large for a table of 0 bytes
    with pytest.raises(Http2Error):
        decoder.decode(b"\xbe")
