"""Log lines on stderr in the format of TensorFlow's own."""

import sys
from datetime import datetime


def info(text: str) -> None:
    """Log what happened."""
    _write("I", text)


def warning(text: str) -> None:
    """Log what somebody may have to look at."""
    _write("W", text)


def error(text: str) -> None:
    """Log what failed."""
    _write("E", text)


def _write(severity: str, text: str) -> None:
    now = datetime.now().astimezone()
    sys.stderr.write(f"{now:%Y-%m-%d %H:%M:%S.%f}: {severity} tuner/server/embedded] {text}\n")
    sys.stderr.flush()
