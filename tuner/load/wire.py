"""How a generator's two processes talk: JSON lines over pipes, raw bytes behind a line.

A line that announces `bytes` is followed by that many. The parent's lines are commands, the
child's are replies: `ok`, or `error` with `hint`.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from tuner.load.client import Tls

SAMPLE = np.dtype(
    [
        ("intended_ns", "<i8"),
        ("sent_ns", "<i8"),
        ("done_ns", "<i8"),
        ("status", "<u2"),
        ("rows", "<i4"),
    ]
)
"""One request, as it travels from the child to the parent."""

Message = dict[str, Any]


def tls_message(tls: Tls) -> Message:
    """TLS as it travels to a generator's process."""
    return {key: str(value) for key, value in asdict(tls).items() if value}


def tls_of(message: Message) -> Tls:
    """What `tls_message` made."""
    name = message.get("server_name", "")
    files = {key: Path(value) for key, value in message.items() if key != "server_name"}
    return Tls(server_name=name, **files)


def write(file: IO[bytes], message: Message, blob: bytes = b"") -> None:
    """Send one message with its bytes."""
    file.write(json.dumps({**message, "bytes": len(blob)}).encode() + b"\n")
    file.write(blob)
    file.flush()


def read(file: IO[bytes]) -> tuple[Message, bytes]:
    """Receive one message with its bytes. Raises EOFError where the other side has gone."""
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message: Message = json.loads(line)
    size = message.pop("bytes")
    blob = file.read(size)
    if len(blob) < size:
        raise EOFError
    return message, blob
