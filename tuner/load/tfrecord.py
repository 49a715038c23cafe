"""The TFRecord file format, read and checked: the frames of `tf_serving_warmup_requests`.

    length (8 bytes, little endian) | masked CRC32C of length | data | masked CRC32C of data

The CRC is computed over lanes of the data at once by numpy: a byte-by-byte loop reads some 10 MB
a second, and a warm-up file of images has hundreds.
"""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import InputError

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h
_HEADER_BYTES = 12
_LANE_BYTES = 256  # a power of two: shifting a CRC over 2^k bytes is k squarings of a matrix


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the file's records. Raises InputError at the first that is cut short or damaged."""
    try:
        with path.open("rb") as file:
            number = 0
            while header := file.read(_HEADER_BYTES):
                number += 1
                where = f"{path}: record {number}"
                if len(header) < _HEADER_BYTES:
                    raise _cut_short(where)
                length, length_crc = struct.unpack("<QI", header)
                _check(where, "length", header[:8], length_crc)
                data, footer = file.read(length), file.read(4)
                if len(footer) < 4:
                    raise _cut_short(where)
                _check(where, "data", data, *struct.unpack("<I", footer))
                yield data
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}", hint="name an existing TFRecord file"
        ) from None


def masked_crc32c(data: bytes) -> int:
    """Checksum of `data` as TFRecord files store it."""
    crc = _crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _check(where: str, part: str, data: bytes, expected: int) -> None:
    if masked_crc32c(data) != expected:
        raise InputError(
            f"{where}: the checksum of its {part} does not match",
            hint="the file is damaged or is no TFRecord file (a compressed one must be unpacked)",
        )


def _cut_short(where: str) -> InputError:
    return InputError(f"{where}: the file ends in the middle", hint="copy the file again, whole")


def _crc32c(data: bytes) -> int:
    """CRC32C as of RFC 3720, appendix B.4."""
    return (_by_bytes(data) if len(data) < 4 * _LANE_BYTES else _by_lanes(data)) ^ 0xFFFFFFFF


def _by_bytes(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _table_list()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _by_lanes(data: bytes) -> int:
    """Work on equal parts of the data at once.

    A CRC is linear: that of a whole is the XOR of its parts' CRCs, each shifted over the bytes
    behind it. Leading zeros change nothing, so they fill up the first lanes.
    """
    lanes = 1 << (-(-len(data) // _LANE_BYTES) - 1).bit_length()
    padded = np.zeros(lanes * _LANE_BYTES, dtype=np.uint8)
    padded[-len(data) :] = np.frombuffer(data, dtype=np.uint8)
    padded[-len(data) : len(padded) - len(data) + 4] ^= 0xFF  # the start value 0xFFFFFFFF
    table, crcs = _table(), np.zeros(lanes, dtype=np.uint32)
    for column in np.ascontiguousarray(padded.reshape(lanes, _LANE_BYTES).T):
        crcs = table[(crcs ^ column) & 0xFF] ^ (crcs >> 8)
    shift = _lane_shift()
    while len(crcs) > 1:
        crcs = _apply(shift, crcs[0::2]) ^ crcs[1::2]
        shift = _apply(shift, shift)
    return int(crcs[0])


@cache
def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@cache
def _table_list() -> list[int]:
    return [int(entry) for entry in _table()]


@cache
def _lane_shift() -> NDArray[np.uint32]:
    """Return what one lane of zero bytes does to a CRC, as the images of its 32 bits."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    shift: NDArray[np.uint32] = _table()[bits & 0xFF] ^ (bits >> 8)  # one zero byte
    for _ in range(_LANE_BYTES.bit_length() - 1):
        shift = _apply(shift, shift)
    return shift


def _apply(shift: NDArray[np.uint32], crcs: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Multiply a matrix over GF(2), given by its columns, with every CRC."""
    result = np.zeros_like(crcs)
    for bit, image in enumerate(shift):
        result ^= np.where((crcs >> np.uint32(bit)) & 1, image, np.uint32(0))
    return result
