"""Header blocks (HPACK, RFC 7541): the few that a gRPC peer repeats are looked up, not decoded."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from hpack import Decoder, Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple

from tuner.http2.frames import ErrorCode, Http2Error

Head = TypeVar("Head")
Field = tuple[bytes, bytes]

_STATIC_ENTRIES = 61
_DEFAULT_TABLE_BYTES = 4_096
_CACHED_BLOCKS = 512
_CACHED_BLOCK_BYTES = 2_048

# First byte of a field representation (RFC 7541, section 6).
_INDEXED = 0x80
_RESIZE_MASK, _RESIZE = 0xE0, 0x20
_LITERALS_THAT_INSERT = 0x20  # and table resizes: everything from here up to _INDEXED
_LONG_NAME_INDEX = 0x0F
_LONG_STRING = 0x7F  # of 127 bytes or more; with the top bit set, Huffman-coded


class HeaderDecoder(Generic[Head]):
    """The decoding half of a connection's header compression.

    `interpret` turns decoded fields into what the caller keeps of them. Its result is remembered
    by the bytes of the block. Equal bytes mean equal fields only while the dynamic table stands
    still, so whatever changes the table or its size empties the memory, and a block that
    does so is never remembered.
    """

    def __init__(self, interpret: Callable[[Sequence[Field]], Head]) -> None:
        self._interpret = interpret
        self._decoder = Decoder()
        self._static = self._read_static_table()
        self._entries = self._static
        self._heads: dict[bytes, Head] = {}
        self.epoch = 0
        """Grows whenever equal blocks may cease to mean equal fields."""

    def known(self, block: bytes) -> Head | None:
        """What a block of these bytes means now, where that is remembered."""
        return self._heads.get(block)

    def decode(self, block: bytes) -> Head:
        """Interpret one whole header block.

        Raises Http2Error (COMPRESSION_ERROR) where it cannot be decoded; the connection's
        compression state is then lost.
        """
        head = self._heads.get(block)
        if head is not None:
            return head
        changed = False
        fields = self._look_up(block) if len(block) <= _CACHED_BLOCK_BYTES else None
        if fields is None:
            fields, changed = self._decode(block)
        head = self._interpret(fields)
        if changed:
            self._heads.clear()
            self.epoch += 1
            self._entries = self._static + list(self._decoder.header_table.dynamic_entries)
        elif len(block) <= _CACHED_BLOCK_BYTES:
            if len(self._heads) >= _CACHED_BLOCKS:
                self._heads.clear()
            self._heads[block] = head
        return head

    def _read_static_table(self) -> list[Field]:
        """List the static table by index, from 1; a blank stands at the illegal index 0."""
        table = self._decoder.header_table
        return [(b"", b""), *(table.get_by_index(i) for i in range(1, _STATIC_ENTRIES + 1))]

    def _decode(self, block: bytes) -> tuple[list[Field], bool]:
        """Decode with the library; also say whether the dynamic table may have changed."""
        entries = self._decoder.header_table.dynamic_entries
        count, newest = len(entries), entries[0] if entries else None
        try:
            fields = [(n, v) for n, v in self._decoder.decode(block, raw=True)]
        except HPACKError as error:
            raise Http2Error(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        # An insertion puts a new object first even where it evicts as many as it adds.
        changed = len(entries) != count or (count > 0 and entries[0] is not newest)
        resized = bool(block) and block[0] & _RESIZE_MASK == _RESIZE
        return fields, changed or resized

    def _look_up(self, block: bytes) -> list[Field] | None:
        """Read a block of indexed fields and short plain literals that are not to be indexed.

        This is what gRPC peers send once the table is warm, with a `grpc-timeout` that differs
        from call to call. Nothing is changed, so for any other block the answer is None and the
        library decodes it from its start, or finds what is wrong with it.
        """
        fields: list[Field] = []
        entries, end, at = self._entries, len(block), 0
        try:
            while at < end:
                first = block[at]
                at += 1
                if first > _INDEXED:
                    # 0xFF announces a longer index; entry 127 and up are not looked up here.
                    if first == 0xFF:
                        return None
                    fields.append(entries[first - _INDEXED])
                    continue
                if first >= _LITERALS_THAT_INSERT:
                    return None
                name, at = self._look_up_name(block, first & _LONG_NAME_INDEX, at)
                value, at = _plain_string(block, at)
                fields.append((name, value))
        except IndexError:
            return None
        return fields

    def _look_up_name(self, block: bytes, index: int, at: int) -> tuple[bytes, int]:
        """Find the name of a literal field and where its value begins."""
        if index == 0:
            return _plain_string(block, at)
        if index == _LONG_NAME_INDEX:
            if block[at] >= _INDEXED:  # the index goes on in the next byte
                raise IndexError
            index += block[at]
            at += 1
        return self._entries[index][0], at


def _plain_string(block: bytes, at: int) -> tuple[bytes, int]:
    """Read a short string without Huffman code, and its end. IndexError: it is no such string."""
    length = block[at]
    stop = at + 1 + length
    if length >= _LONG_STRING or stop > len(block):
        raise IndexError
    return block[at + 1 : stop], stop


class RepeatedBlock:
    """The header block of a request that is sent over and over.

    The first block fills the peer's table, and from then on every block is the same few bytes:
    `block`, which is None as long as the next one differs.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = [HeaderTuple(*field) for field in fields]
        self._encoder = Encoder()
        self.block: bytes | None = None

    def resize(self, size: int) -> None:
        """Apply the peer's HEADER_TABLE_SIZE. A larger table than the default is left unused."""
        self._encoder.header_table_size = min(size, _DEFAULT_TABLE_BYTES)
        self.block = None

    def encode(self, last: Field | None = None) -> bytes:
        """Encode the next block; `last` takes the place of the last field, this once."""
        fields = list(self._fields)
        if last is not None:  # one that will not come again, so that no table need remember it
            fields[-1] = NeverIndexedHeaderTuple(*last)
        table = self._encoder.header_table
        resized, before = table.resized, tuple(table.dynamic_entries)
        block = bytes(self._encoder.encode(fields))
        # An encoder whose table did not change encodes the same fields to the same bytes.
        if resized or before != tuple(table.dynamic_entries):
            self.block = None
        elif last is None:
            self.block = block
        return block


def pack_literals(fields: Sequence[Field]) -> bytes:
    """Encode fields as plain literals that no table remembers: the same bytes at every use.

    Names and values are shorter than 127 bytes, save the last value, which may be of any length.
    """
    return b"".join(b"\x00" + _pack_string(name) + _pack_string(value) for name, value in fields)


def _pack_string(text: bytes) -> bytes:
    """Put its length before a string, as one of HPACK's integers (RFC 7541, section 5.1)."""
    length = len(text)
    if length < _LONG_STRING:
        return bytes((length,)) + text
    octets = [_LONG_STRING]
    length -= _LONG_STRING
    while length >= 0x80:
        octets.append(length & 0x7F | 0x80)
        length >>= 7
    octets.append(length)
    return bytes(octets) + text
