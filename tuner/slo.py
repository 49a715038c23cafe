"""The latency promise: which percentiles must stay under how many milliseconds, how surely.

Slo((("p99", 60.0),), max_error_rate=0.001).describe()     p99 <= 60 ms, errors <= 0.1 %
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tuner.errors import InputError

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
"""The percentiles that are measured and may be promised, by name, as shares of all requests."""

ERROR_RATE = "error_rate"
"""Name of the error limit among the margins of a verdict."""


def percentile_label(name: str) -> str:
    """Words for people: `p999` is written `p99.9`."""
    return f"p{PERCENTILES[name] * 100:g}"


def limit_name(name: str) -> str:
    """Name of a latency limit in records and margins: `p99` is limited by `p99_ms`."""
    return f"{name}_ms"


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits that a server must keep.

    `limits_ms` are (percentile name, milliseconds) pairs, at least one, ordered by percentile.
    `max_error_rate` is the share of requests that may fail; 0 means none. `confidence` is the
    probability, in (0.5, 1), with which a claim about a limit must be right.

    Raises InputError, naming key, value and remedy, for a promise that makes no sense.
    """

    limits_ms: tuple[tuple[str, float], ...]
    max_error_rate: float = 0.001
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, limit in self.limits_ms:
            _check_limit(name, limit)
        _check_set(self.limits_ms)
        if not 0 <= self.max_error_rate < 1:
            raise InputError(
                f"max_error_rate: must be at least 0 and below 1, got {self.max_error_rate:g}",
                hint="it is a share of all requests: 0.001 allows one failure in a thousand",
            )
        if not 0.5 < self.confidence < 1:
            raise InputError(
                f"confidence: must be above 0.5 and below 1, got {self.confidence:g}",
                hint="0.95 is usual; 0.99 needs about half as many samples again",
            )
        # Equal promises must be equal values, whatever order they were written in.
        ordered = tuple(sorted(self.limits_ms, key=lambda pair: PERCENTILES[pair[0]]))
        object.__setattr__(self, "limits_ms", ordered)

    @property
    def tightest_ms(self) -> float:
        """The smallest latency limit in milliseconds."""
        return min(limit for _, limit in self.limits_ms)

    @property
    def loosest_ms(self) -> float:
        """The largest latency limit in milliseconds: an answer later than this is of no use."""
        return max(limit for _, limit in self.limits_ms)

    def describe(self) -> str:
        """Words for tables and plots, such as `p99 <= 60 ms, errors <= 0.1 %`."""
        limits = [f"{percentile_label(name)} <= {limit:g} ms" for name, limit in self.limits_ms]
        errors = (
            f"errors <= {self.max_error_rate * 100:g} %" if self.max_error_rate else "no errors"
        )
        return ", ".join([*limits, errors])


def _check_limit(name: str, limit: float) -> None:
    if name not in PERCENTILES:
        raise InputError(
            f"{name}_ms: {name} is not a percentile that can be promised",
            hint=f"use one of {', '.join(limit_name(known) for known in PERCENTILES)}",
        )
    if not (math.isfinite(limit) and limit > 0):
        raise InputError(
            f"{limit_name(name)}: must be a number of milliseconds above 0, got {limit:g}",
            hint=f"for example {limit_name(name)} = 50",
        )


def _check_set(limits: Iterable[tuple[str, float]]) -> None:
    pairs = sorted(limits, key=lambda pair: PERCENTILES[pair[0]])
    if not pairs:
        raise InputError("no latency limit is set", hint="for example p99_ms = 50")
    for (low, low_ms), (high, high_ms) in pairwise(pairs):
        if low == high:
            raise InputError(f"{limit_name(low)}: set twice", hint="keep one of them")
        if low_ms > high_ms:
            raise InputError(
                f"{limit_name(low)}: {low_ms:g} ms is above {limit_name(high)}, {high_ms:g} ms",
                hint=f"{percentile_label(low)} never exceeds {percentile_label(high)}: "
                "lower the one or raise the other",
            )
