"""Monotonic time in integer nanoseconds: the only clock a measurement ever reads."""

import time
from datetime import UTC, datetime

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def now_ns() -> int:
    """Read the monotonic clock, common to all processes of this machine since its boot."""
    return time.monotonic_ns()


def utc_now() -> str:
    """Wall time for people and file names, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
