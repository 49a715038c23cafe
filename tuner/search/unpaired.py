"""Gains between runs: starts that share no block, no hour and maybe no machine."""

import math
from collections.abc import Sequence

import numpy as np

from tuner.search.paired import (
    CONFIDENCE,
    Gain,
    Steps,
    coarseness,
    normal_quantile,
    percent_of,
    stated,
    student_quantile,
)


def unpaired_gain(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    comparisons: int = 1,
    steps: Steps = ((), ()),
) -> Gain | None:
    """The gain of `ours` over `theirs`, rates of fresh starts, by the geometric means.

    The interval is Welch's on log rates: it knows how starts of each differ, and nothing of what
    else changed between the two; nor is it narrower than the ladders' `steps` allow, as in pairs.
    `comparisons` is how many such intervals must hold together.
    Without two starts of both there is none; without any, or where one carried nothing, None.
    """
    if not ours or not theirs or min(*ours, *theirs) <= 0:
        return None
    logs = [np.log(np.asarray(rates, np.float64)) for rates in (ours, theirs)]
    centre = float(logs[0].mean() - logs[1].mean())
    if min(len(ours), len(theirs)) < 2:
        return Gain(percent_of(centre), None, None)
    variances = [float(found.var(ddof=1)) / len(found) for found in logs]
    error = math.sqrt(sum(variances))
    weights = [
        variance**2 / (len(found) - 1) for variance, found in zip(variances, logs, strict=True)
    ]
    # Welch and Satterthwaite's degrees of freedom, rounded down to stay on the safe side.
    degrees = max(1, math.floor(sum(variances) ** 2 / sum(weights) + 1e-9)) if error > 0 else 1
    confidence = 1 - (1 - CONFIDENCE) / comparisons
    coarse = math.hypot(coarseness(ours, steps[0]), coarseness(theirs, steps[1]))
    half = max(student_quantile(confidence, degrees) * error, normal_quantile(confidence) * coarse)
    return stated(centre, centre - half, centre + half)
