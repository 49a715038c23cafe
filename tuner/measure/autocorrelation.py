"""How many independent requests some correlated ones are worth, by the method of batch means.

Requests that share a batch or a queue are slow together, so n of them say less about a limit than
n independent ones. What a limit is judged by is the count of slow requests; so the correlation
that matters is that of slowness, not that of latency itself.

    inflation = batch length x variance of batch means / variance of one request
    effective samples = n / inflation

Thirty batches, following Schmeiser, "Batch size effects in the analysis of simulation output",
Operations Research 30 (1982): more batches hardly narrow the interval, and they must outlast the
correlation.
"""

import numpy as np
from numpy.typing import NDArray

BATCHES = 30
EVENTS = 50
"""Slow requests wanted for an estimate. Where the limit has fewer, the slowest fifty are taken."""


def effective_samples(latency_ns: NDArray[np.int64], over_limit: int) -> float:
    """Effective number of independent samples, in [1, n], of n requests in order of arrival.

    `latency_ns` holds a value above every latency for failed requests; `over_limit` counts those
    that missed the limit. Fewer than two requests a batch cannot tell: n is returned.
    """
    count = len(latency_ns)
    length = count // BATCHES
    if length < 2:
        return float(count)
    rank = count - min(max(over_limit, EVENTS), count // 2)
    slow = latency_ns >= np.partition(latency_ns, rank)[rank]
    share = float(slow.mean())
    # The oldest requests are left out where the batches do not divide the window evenly.
    batches = slow[count - length * BATCHES :].reshape(BATCHES, length).mean(axis=1)
    single = share * (1 - share)
    if single == 0:
        return float(count)
    inflation = length * float(batches.var(ddof=1)) / single
    return max(1.0, count / max(1.0, inflation))
