"""How many independent requests some correlated ones are worth, by the method of batch means.

Requests that share a batch or a queue are slow together, so n of them say less about a limit than
n independent ones. What a limit is judged by is the count of slow requests; so the correlation
that matters is that of slowness, not that of latency itself.

    inflation = batch length x variance of batch means / variance of one request
    effective samples = n / inflation

Batches must outlast the correlation, and nobody knows how long that is: so a window is cut into
30 batches and into 15, and the cut that leaves the least counts. Thirty follow Schmeiser, "Batch
size effects in the analysis of simulation output", Operations Research 30 (1982). Few batches
know their variance less well, and are charged for it as Korn & Graubard (1998) charge a survey
for its few degrees of freedom, by (t / z) squared.

Simulated M/M/1 queues say what this is worth (see the tests): a load 5 % beyond the sustainable
one is seldom called sustained. Within 2 % of it, where the window holds few of the queue's own
ups and downs, the chance of a wrong answer is above the nominal one.
"""

import numpy as np
from numpy.typing import NDArray

CHARGED = {30: 1.09, 15: 1.2}
"""Batches that a window is cut into: (t / z) ** 2 of as many, one fewer degrees, at 95 %."""

EVENTS = 50
"""Slow requests wanted for an estimate. Where the limit has fewer, the slowest fifty are taken."""


def effective_samples(latency_ns: NDArray[np.int64], over_limit: int) -> float:
    """Effective number of independent samples, in [1, n], of n requests in order of arrival.

    `latency_ns` holds a value above every latency for failed requests; `over_limit` counts those
    that missed the limit. Fewer than two requests in a batch of 30 cannot tell: n is returned.
    """
    count = len(latency_ns)
    if count // max(CHARGED) < 2:
        return float(count)
    rank = count - min(max(over_limit, EVENTS), count // 2)
    slow = latency_ns >= np.partition(latency_ns, rank)[rank]
    share = float(slow.mean())
    single = share * (1 - share)
    if single == 0:
        return float(count)
    inflation = max(
        charge * _inflation(slow, batches, single) for batches, charge in CHARGED.items()
    )
    return max(1.0, count / max(1.0, inflation))


def _inflation(slow: NDArray[np.bool_], batches: int, single: float) -> float:
    """Variance of a batch's mean over what it would be for independent requests."""
    length = len(slow) // batches
    # The oldest requests are left out where the batches do not divide the window evenly.
    means = slow[len(slow) - length * batches :].reshape(batches, length).mean(axis=1)
    return length * float(means.var(ddof=1)) / single
