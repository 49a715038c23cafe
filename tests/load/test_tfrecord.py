import struct

import numpy as np
import pytest

from tuner.errors import InputError
from tuner.load.tfrecord import masked_crc32c, read_records


def unmask(masked):
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


def bitwise_crc32c(data):
    """The definition, bit by bit: an independent reference."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(data):
    length = struct.pack("<Q", len(data))
    return (
        length
        + struct.pack("<I", masked_crc32c(length))
        + data
        + struct.pack("<I", masked_crc32c(data))
    )


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, B.4, and the check value of the CRC catalogue
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_published_values(data, crc):
    assert unmask(masked_crc32c(data)) == crc


@pytest.mark.parametrize("size", [1, 255, 1023, 1024, 1025, 4096, 5000, 65_537])
def test_lanes_agree_with_the_definition(size):
    data = np.random.default_rng(size).bytes(size)
    assert unmask(masked_crc32c(data)) == bitwise_crc32c(data)


def test_reads_what_was_written(tmp_path):
    records = [b"", b"short", bytes(10_000)]
    path = tmp_path / "records"
    path.write_bytes(b"".join(map(frame, records)))
    assert list(read_records(path)) == records


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-3], "record 2: the file ends in the middle"),
        (lambda data: data + b"\0\0", "record 3: the file ends in the middle"),
        (lambda data: data[:-6] + b"X" + data[-5:], "record 2: the checksum of its data"),
        (lambda data: b"PK\x03\x04" + data[4:], "record 1: the checksum of its length"),
    ],
)
def test_damage_names_the_record(tmp_path, damage, words):
    path = tmp_path / "records"
    path.write_bytes(damage(frame(b"first") + frame(b"second")))
    with pytest.raises(InputError, match=words):
        list(read_records(path))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        list(read_records(tmp_path / "nowhere"))
