"""Coverage-guided fuzzing of the load generator's HTTP/2 client: what any server might send.

    make fuzz        or: python tests/fuzz/fuzz_client.py -max_total_time=60 [CORPUS...]

No bytes may raise, end a request twice, or leave the ledger wrong. The first byte of an input says
how the rest is cut into reads.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from tuner.http2 import frames, grpc
    from tuner.load.connection import ClientConnection
    from tuner.load.ledger import ENDED
    from tuner.load.messages import Messages
    from tuner.load.statuses import Statuses

FIELDS = [(b":method", b"POST"), (b":path", b"/p"), (b"grpc-timeout", b"1S")]
MESSAGES = Messages([b"one", b"two"])
REQUESTS = 8
STREAMS = range(1, 2 * REQUESTS, 2)


def feed(data: bytes) -> None:
    if not data:
        return
    statuses = Statuses()
    connection = ClientConnection(FIELDS, MESSAGES, statuses)
    connection.receive(frames.pack_settings({frames.INITIAL_WINDOW_SIZE: 100}))
    connection.send([1] * REQUESTS, [0] * REQUESTS, 1)
    ledger, cut = connection.ledger, data[0] + 1
    for at in range(1, len(data), cut):
        connection.receive(data[at : at + cut])
        ended = [row for row in range(REQUESTS) if ledger.state[row] == ENDED]
        assert ledger.ended == len(ended)
        assert all(ledger.done_ns[row] > 0 for row in ended)
    assert not connection.closing or connection.failure is not None
    connection.expire(1 << 62, 0)
    connection.lose(("UNAVAILABLE", "over"), 1)
    rows = connection.take()
    assert len(rows.done_ns) == REQUESTS
    assert rows.done_ns.all()
    assert rows.status.max() < len(statuses.keys)


def seeds() -> list[bytes]:
    """Good answers, of every kind that the client reads in a way of its own."""
    good = b"".join(grpc.pack_answer(stream, b"message") for stream in STREAMS)
    apart = b"".join(
        grpc.pack_answer_headers(stream)
        + frames.pack_frame(frames.DATA, frames.PADDED, stream, b"\2\0\0\0\0\1x\0\0")
        + grpc.pack_trailers(stream)
        for stream in STREAMS
    )
    ends = grpc.pack_error(1, 8, "full") + frames.pack_reset(3, frames.ErrorCode.CANCEL)
    ends += frames.pack_goaway(5, frames.ErrorCode.NO_ERROR, "bye")
    changes = frames.pack_settings({1: 0, 3: 1, 4: 65_535, 5: 16_384})
    changes += frames.pack_window_update(0, 9) + frames.pack_window_update(1, 9)
    changes += frames.pack_frame(frames.PING, 0, 0, bytes(8))
    parts = frames.pack_frame(frames.HEADERS, 0, 1, b"\x88")
    parts += frames.pack_frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x40\1a\1b")
    everything = [good, apart, ends, changes, parts, changes + good, parts + apart]
    return [bytes([cut]) + item for item in everything for cut in (255, 6)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds()):
            (Path(folder) / str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, folder], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
