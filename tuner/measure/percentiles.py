"""Percentiles by nearest rank, failures above everything, only as far as the samples carry them.

An empirical percentile rests on the samples beyond it: with fewer than ten of them it is the
luck of a few requests. So p50 needs 20 samples, p90 100, p95 200, p99 1,000, p99.9 10,000.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_MS
from tuner.slo import PERCENTILES

SAMPLES_BEYOND = 10


def samples_for(name: str) -> int:
    """Fewest samples that carry the named percentile."""
    # Rounding first: 10 / (1 - 0.9) is 100.00000000000001 in floating point.
    return math.ceil(round(SAMPLES_BEYOND / (1 - PERCENTILES[name]), 6))


def nearest_rank(share: float, count: int) -> int:
    """Rank, from 1, of the smallest value not exceeded by `share` of `count` values."""
    return max(1, math.ceil(round(share * count, 6)))


def supported_percentiles_ms(
    answered_ns: NDArray[np.int64], failed: int
) -> dict[str, float | None]:
    """Milliseconds by percentile name, for the percentiles that the sample count carries.

    None where the percentile falls among the `failed` requests, which rank above all answers.
    """
    count = len(answered_ns) + failed
    ranks = {
        name: nearest_rank(share, count)
        for name, share in PERCENTILES.items()
        if count >= samples_for(name)
    }
    inside = sorted({rank - 1 for rank in ranks.values() if rank <= len(answered_ns)})
    ordered = np.partition(answered_ns, inside) if inside else answered_ns
    return {
        name: float(ordered[rank - 1]) / NS_PER_MS if rank <= len(answered_ns) else None
        for name, rank in ranks.items()
    }


def value_at(share: float, values_ns: NDArray[np.int64]) -> float:
    """Milliseconds at `share` of the values by nearest rank; 0 where there are none."""
    if len(values_ns) == 0:
        return 0.0
    index = nearest_rank(share, len(values_ns)) - 1
    return float(np.partition(values_ns, index)[index]) / NS_PER_MS
