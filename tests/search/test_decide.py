"""Whole runs on drawn rates: how often a decision is wrong when the truth is known."""

import math

import numpy as np
import pytest
from trials import DEFAULT, OFF, batched, trial

from tuner.search.decide import decide
from tuner.search.final import contenders, shuffled
from tuner.slo import Slo

SLO = Slo((("p99", 60.0),), max_error_rate=0.001)
TRIED = [batched(size, timeout=timeout) for size in (8, 16, 32, 64) for timeout in (0, 2000)]


def night(rng, truth, *, noise, blocks, number=4):
    """One run: every configuration once, then the final's blocks, with noise of log rates."""

    def rate(config):
        return truth(config) * math.exp(rng.normal(0, noise))

    records = [trial(0, "off", OFF, 100.0), trial(1, "default", DEFAULT, rate(DEFAULT))]
    for config in TRIED:
        records.append(trial(len(records), "sampler", config, rate(config)))
    met = contenders(records, SLO, number)
    for block in range(blocks):
        for who in shuffled(met, block, 1):
            measured = rate(who.trial.config)
            records.append(
                trial(len(records), "final", who.config, measured, block=block, arm=who.arm)
            )
    return decide(records, SLO)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("blocks", [3, 5])
def test_where_all_are_equal_a_gain_is_claimed_in_one_night_of_twenty(blocks, number):
    rng = np.random.default_rng(17)
    nights = 400
    claimed = sum(
        night(rng, lambda _config: 200.0, noise=0.08, blocks=blocks, number=number).verdict
        == "gain"
        for _ in range(nights)
    )
    assert claimed / nights <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / nights)


def test_what_is_worse_than_the_default_is_not_recommended():
    """Nothing comes within 5 % of the default, but the search is noisy enough to think so."""

    def truth(config):
        return 200.0 if config == DEFAULT else 190.0

    rng = np.random.default_rng(23)
    nights = [night(rng, truth, noise=0.08, blocks=5, number=3) for _ in range(200)]
    assert sum(item.verdict == "gain" for item in nights) <= 4
    assert sum(item.verdict in {"tie", "none"} for item in nights) >= 196


def test_a_gain_of_a_third_is_mostly_proven():
    def truth(config):
        return 270.0 if config == TRIED[4] else 200.0

    rng = np.random.default_rng(29)
    nights = [night(rng, truth, noise=0.05, blocks=3, number=3) for _ in range(100)]
    proven = [item for item in nights if item.verdict == "gain"]
    assert len(proven) >= 75
    assert all(item.trial.config == TRIED[4] for item in proven)
    covered = sum(item.gain.low <= 35.0 <= item.gain.high for item in proven)
    assert covered >= 0.9 * len(proven)
