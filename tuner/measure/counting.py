"""Deciding a limit by counting the requests that miss it.

p99 <= 60 ms holds where at most 1 % of requests are over 60 ms; so the number of requests over
the limit is held against the binomial distribution, one-sided both ways (Clopper & Pearson 1934;
MLPerf's early stopping is the same test). The test is for a number of samples fixed beforehand.
Who looks again after adding samples says how often in all (`looks`), and each look gets its part
of the allowed error (Bonferroni).
"""

import math

from tuner.measure.binomial import at_least, at_most
from tuner.records import Measurement
from tuner.slo import PERCENTILES, Slo

WINDOWS = 3
"""How many windows a load gets at most: an open question gets as much time again."""

LOOKS = WINDOWS + 1
"""How often one load is judged at most: after each window, and together with higher loads."""


def chance_of_error(slo: Slo, looks: int) -> float:
    """Probability with which one of `looks` decisions may be wrong."""
    return (1 - slo.confidence) / looks


def decide(over: float, samples: float, share: float, chance: float) -> bool | None:
    """Whether at most `share` of all requests are over a limit, `over` of `samples` being so.

    True or False where the other answer would have had a probability of at most `chance` of
    showing such a count; None where neither is.
    """
    if samples <= 0:
        return None
    if at_most(over, samples, share) <= chance:
        return True
    return False if at_least(over, samples, share) <= chance else None


def independence(measurement: Measurement) -> float:
    """Effective samples per request, at most 1."""
    if not measurement.requests:
        return 1.0
    return min(1.0, measurement.effective_samples / measurement.requests)


def needed_samples(slo: Slo, *, looks: int = 1) -> int:
    """Fewest independent samples that can prove the latency limits, with none over them.

    For p99 that is 299 at confidence 0.95 and 459 at 0.99. With none failed as well, the error
    limit then counts as kept (see `slo.judge`).
    """
    chance = chance_of_error(slo, looks)
    return max(
        math.ceil(math.log(chance) / math.log(PERCENTILES[name])) for name, _ in slo.limits_ms
    )


def window_s_for(
    slo: Slo, rate_rps: float, *, looks: int = 1, samples_per_effective: float = 1.0
) -> float:
    """Seconds of window at `rate_rps` for `needed_samples`.

    `samples_per_effective` is requests / effective_samples of an earlier, similar level.
    """
    return needed_samples(slo, looks=looks) * max(1.0, samples_per_effective) / rate_rps
