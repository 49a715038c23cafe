"""Monotonic time in integer nanoseconds: the only clock a measurement ever reads."""

import time
from datetime import UTC, datetime

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


now_ns = time.monotonic_ns
"""Read the monotonic clock, common to all processes of this machine since its boot."""


def utc_now() -> str:
    """Wall time for people and file names, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def wait_until(at_ns: int | None) -> int:
    """Sleep until an instant of the monotonic clock and return it; None is now."""
    if at_ns is None:
        return now_ns()
    while (left_ns := at_ns - now_ns()) > 0:
        time.sleep(left_ns / NS_PER_S)
    return at_ns
