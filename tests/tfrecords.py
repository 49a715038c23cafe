"""TFRecord files for tests."""

import struct

from tuner.load.tfrecord import masked_crc32c


def write_records(path, records):
    """Write a TFRecord file with right checksums."""
    with path.open("wb") as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(length + struct.pack("<I", masked_crc32c(length)))
            file.write(data + struct.pack("<I", masked_crc32c(data)))
