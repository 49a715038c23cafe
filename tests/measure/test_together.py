import math
from dataclasses import replace

import numpy as np
from trials import level

from tuner.measure.counting import LOOKS, WINDOWS, chance_of_error, decide
from tuner.measure.slo import judge
from tuner.measure.together import decided_together
from tuner.records import Doubt
from tuner.slo import Slo

P90 = Slo((("p90", 400.0),))


def undecided(rate_rps, over, requests, *, failed=0, doubt=""):
    """A load of independent requests, `over` of them over a p90's limit."""
    found = level(rate_rps, held=None, valid=not doubt)
    measurement = replace(
        found.measurement,
        requests=requests,
        answered=requests - failed,
        effective_samples=float(requests),
        over_limit={"p90_ms": over},
    )
    doubts = (Doubt(doubt, "", ""),) if doubt else ()
    return replace(found, measurement=measurement, verdict=replace(found.verdict, doubts=doubts))


def shown(*levels, slo=P90):
    return [before.measurement.offered_rps for before, _, _ in decided_together(levels, slo)]


def test_two_loads_that_decide_nothing_alone_decide_the_lower_together():
    low, high = undecided(27.0, 5, 110), undecided(32.0, 7, 120)
    assert judge(low.measurement, P90, looks=LOOKS).feasible is None
    assert judge(high.measurement, P90, looks=LOOKS).feasible is None
    (found,) = decided_together([low, high], P90)
    before, after, note = found
    assert before is low
    assert (after.verdict.valid, after.verdict.feasible) == (True, True)
    assert "27.0/s holds by its own requests and those at 32.0/s together" in note.text
    assert shown(low) == [], "alone there is nothing to add"


def test_what_lies_above_a_refuted_load_takes_no_part():
    refuted = level(30.0, held=False)
    assert shown(undecided(27.0, 5, 110), refuted, undecided(32.0, 1, 1000)) == []


def test_failures_and_untrusted_loads_are_no_help():
    assert shown(undecided(27.0, 5, 110), undecided(32.0, 7, 120, failed=2)) == []
    assert shown(undecided(27.0, 5, 110), undecided(32.0, 7, 120, doubt="foreign-cpu")) == []
    assert shown(undecided(27.0, 5, 110), undecided(32.0, 7, 120, doubt="too-few-samples"))


def test_a_load_that_misses_its_limit_is_seldom_shown_to_hold():
    """Two loads, both at the limit's own share, each judged after three windows and then together:
    all errors of a load stay within the allowed one."""
    rng = np.random.default_rng(3)
    chance, runs, wrong = chance_of_error(P90, LOOKS), 3000, 0
    for _ in range(runs):
        counts = np.cumsum(rng.binomial([60, 60, 120], 0.1, (2, WINDOWS)), axis=1)
        ends = (60, 120, 240)
        low = [decide(over, of, 0.1, chance) for over, of in zip(counts[0], ends, strict=True)]
        if True in low:
            wrong += 1
        elif False not in low:
            high = [
                decide(over, of, 0.1, chance) for over, of in zip(counts[1], ends, strict=True)
            ]
            if True in high:
                wrong += 1  # what holds above holds below
            elif False not in high:
                pair = undecided(27.0, counts[0][-1], 240), undecided(32.0, counts[1][-1], 240)
                wrong += bool(shown(*pair))
    # The load above has an allowance of its own, which is used where it is called to hold.
    assert wrong / runs <= 2 * 0.05 + 3 * math.sqrt(0.1 * 0.9 / runs)
