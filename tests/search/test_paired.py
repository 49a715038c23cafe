import math

import numpy as np
import pytest

from tuner.ladder import Ladder
from tuner.search.paired import (
    BOOTSTRAP_FROM,
    Gain,
    coarseness,
    detectable_percent,
    paired_gain,
    spread_at_worst,
    student_quantile,
)

NOISES = {
    "normal": lambda rng, n: rng.normal(0, 0.05, n),
    "skewed": lambda rng, n: 0.05 * (1 - rng.exponential(1, n)),
    "heavy": lambda rng, n: 0.03 * rng.standard_t(3, n),
    "coarse": lambda rng, n: 0.06 * rng.integers(-1, 2, n) + rng.normal(0, 0.005, n),
}
"""Noise of log rates between equal starts; `coarse` is that of a ladder with wide steps."""


def test_the_gain_is_students_interval_of_log_ratios():
    gain = paired_gain([400.0, 440.0, 420.0], [200.0, 200.0, 200.0])
    logs = [math.log(ratio) for ratio in (2.0, 2.2, 2.1)]
    centre = sum(logs) / 3
    half = 4.30265 * np.std(logs, ddof=1) / math.sqrt(3)
    assert gain.percent == pytest.approx((math.exp(centre) - 1) * 100)
    assert gain.low == pytest.approx((math.exp(centre - half) - 1) * 100, rel=1e-4)
    assert gain.high == pytest.approx((math.exp(centre + half) - 1) * 100, rel=1e-4)


@pytest.mark.parametrize(
    ("confidence", "degrees", "point"),
    [(0.95, 1, 12.7062), (0.95, 2, 4.30265), (0.975, 2, 6.20535), (0.95, 9, 2.26216)],
)
def test_quantiles_of_student(confidence, degrees, point):
    assert student_quantile(confidence, degrees) == pytest.approx(point, rel=1e-5)


def test_more_comparisons_widen_the_interval():
    ours, theirs = [110.0, 112.0, 109.0], [100.0, 101.0, 100.0]
    one, two = paired_gain(ours, theirs), paired_gain(ours, theirs, comparisons=2)
    assert two.low < one.low < one.percent < one.high < two.high
    assert one.percent == two.percent


@pytest.mark.parametrize("pair", [([], []), ([0.0, 100.0], [50.0, 50.0]), ([100.0], [0.0])])
def test_no_ratio_no_gain(pair):
    assert paired_gain(*pair) is None


@pytest.mark.parametrize("blocks", [1, 2])
def test_one_or_two_blocks_have_no_interval_and_prove_nothing(blocks):
    gain = paired_gain([400.0] * blocks, [200.0] * blocks)
    assert gain == Gain(pytest.approx(100.0), None, None)
    assert not gain.proven


def test_an_interval_that_says_nothing_is_not_stated():
    """Three blocks, 0.5, 1 and 2.2 times as much: anything from a quarter to four times."""
    assert paired_gain([50.0, 100.0, 220.0], [100.0] * 3) == Gain(
        pytest.approx(3.2, abs=0.1), None, None
    )
    wide = paired_gain([150.0, 300.0, 600.0], [10.0] * 3)
    assert wide.proven, "wide, but it says that more is carried"
    assert wide.high > 4 * wide.low


def test_equal_blocks_prove_themselves():
    assert paired_gain([200.0] * 9, [100.0] * 9).low == pytest.approx(100.0)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("blocks", [3, 5, BOOTSTRAP_FROM])
def test_of_equals_at_most_one_in_twenty_is_called_a_gain(noise, blocks):
    """Two candidates against a default, all three equal: either may be called better."""
    rng = np.random.default_rng(7)
    runs = 100 if blocks >= BOOTSTRAP_FROM else 1500
    false = 0
    for _ in range(runs):
        common = rng.normal(0, 0.1, blocks)  # what the hour does to all of a block
        default, *ours = np.exp(common + NOISES[noise](rng, (3, blocks)))
        false += any(paired_gain(rates, default, comparisons=2).proven for rates in ours)
    assert false / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("blocks", [3, 5, 10])
def test_the_interval_covers_the_true_gain(noise, blocks):
    rng = np.random.default_rng(11)
    runs = 150
    covered = 0
    for _ in range(runs):
        default, ours = np.exp(NOISES[noise](rng, (2, blocks)))
        gain = paired_gain(1.2 * ours, default)
        covered += gain.low is None or gain.low <= 20.0 <= gain.high  # None claims nothing
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / runs)


def test_pairs_that_agree_by_chance_are_known_no_finer_than_their_steps():
    """Uniform in steps of 10 %: 0.1 / sqrt(12) each, the same in all blocks; z = 1.96."""
    rates = ([120.0, 120.5, 119.5], [100.0, 100.4, 100.1])
    steps = ([0.1] * 3, [0.1] * 3)
    gain = paired_gain(*rates, steps=steps)
    half = 1.959964 * math.sqrt(2) * 0.1 / math.sqrt(12)
    centre = math.log1p(gain.percent / 100)
    assert math.log1p(gain.low / 100) == pytest.approx(centre - half)
    assert math.log1p(gain.high / 100) == pytest.approx(centre + half)
    bare = paired_gain(*rates)
    assert gain.low < bare.low < bare.high < gain.high
    two = paired_gain(*rates, comparisons=2, steps=steps)
    assert two.low < gain.low, "the error that is allowed to each is half as large"


def test_fine_steps_widen_nothing():
    rates = ([120.0, 132.0, 126.0], [100.0, 99.0, 104.0])
    assert paired_gain(*rates, steps=([0.01] * 3, [0.01] * 3)) == paired_gain(*rates)
    assert paired_gain(*rates, steps=([0.0] * 3, [0.0] * 3)) == paired_gain(*rates)


def test_steps_average_out_where_rates_wander_over_more_than_one():
    assert coarseness([100.0, 105.0, 103.0], [0.1] * 3) == pytest.approx(0.1 / math.sqrt(12))
    assert coarseness([100.0, 125.0, 103.0], [0.1] * 3) == pytest.approx(0.1 / 6)
    assert coarseness([100.0, 125.0], [0.1] * 2, 12) == pytest.approx(0.1 / 12)
    assert coarseness([100.0, 105.0], []) == 0


def climbed(rng, capacity, expected, resolution):
    """What the final's ladder finds of a server that holds up to `capacity`, and its step."""
    ladder = Ladder(expected, resolution / 2, step=1 + resolution, fall=1 / (1 + resolution))
    while (rate := ladder.next_rps()) is not None:
        arrived = rate * math.exp(rng.normal(0, 0.01))  # of 10,000 Poisson arrivals
        ladder.tell(arrived, held=arrived <= capacity)
    return ladder.held_rps, math.log(ladder.failed_rps / ladder.held_rps)


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03, 0.08])
@pytest.mark.parametrize("blocks", [3, 5])
def test_intervals_of_coarse_ladders_hold_the_true_gain(noise, blocks):
    """Starts that scatter by less than a step are told apart no better than by a step."""
    rng = np.random.default_rng(19)
    runs, held, alone = 300, 0, 0
    for _ in range(runs):
        truths = 200 * np.exp(rng.uniform(0, 0.5, 2))
        expected = [
            climbed(rng, t * math.exp(rng.normal(0, noise)), 150.0, 0.3)[0] for t in truths
        ]
        rates, steps = [], []
        for truth, begin in zip(truths, expected, strict=True):
            starts = truth * np.exp(rng.normal(0, noise, blocks))
            found = [climbed(rng, capacity, begin, 0.15) for capacity in starts]
            rates.append([rate for rate, _ in found])
            steps.append([step for _, step in found])
        true = (truths[0] / truths[1] - 1) * 100
        gain, bare = paired_gain(*rates, steps=tuple(steps)), paired_gain(*rates)
        held += gain.low <= true <= gain.high
        alone += bare.low <= true <= bare.high
    assert held / runs >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / runs)
    assert noise > 0.01 or alone / runs < 0.95, "without the steps it would not"


@pytest.mark.parametrize("blocks", [3, 5, BOOTSTRAP_FROM])
def test_a_gain_as_large_as_the_detectable_one_is_mostly_proven(blocks):
    rng = np.random.default_rng(3)
    spread, runs = 0.05, 200
    detectable = detectable_percent(np.exp(rng.normal(0, spread, 20_000)), blocks)
    proven = sum(
        paired_gain(
            np.exp(rng.normal(0, spread, blocks)) * (1 + detectable / 100),
            np.exp(rng.normal(0, spread, blocks)),
        ).proven
        for _ in range(runs)
    )
    assert 0.62 < proven / runs < 0.9


def test_with_many_blocks_the_detectable_gain_is_the_textbooks():
    rates = np.exp(np.random.default_rng(3).normal(0, 0.05, 20_000))
    textbook = math.expm1(2.8 * 0.05 * math.sqrt(2 / 400)) * 100
    assert detectable_percent(rates, 400) == pytest.approx(textbook, rel=0.02)


def test_nothing_is_detectable_below_the_steps_of_the_ladder():
    """(1.96 + 0.84) * sqrt(2) * 0.1 / sqrt(12): equal readings say no more."""
    found = detectable_percent([100.0, 100.0], 3, steps=[0.1, 0.1])
    assert math.log1p(found / 100) == pytest.approx(2.8016 * math.sqrt(2 / 12) * 0.1, rel=1e-3)
    assert detectable_percent([100.0, 100.0], 3) == 0


def test_nothing_is_detectable_without_a_second_start():
    assert detectable_percent([100.0], 3) is None
    assert detectable_percent([100.0, 0.0], 3) is None


@pytest.mark.parametrize(("count", "factor"), [(2, 15.95), (3, 4.415), (10, 1.645)])
def test_few_values_bound_their_spread_but_loosely(count, factor):
    """By tables: chi2(0.05) is 0.00393 with 1 degree, 0.1026 with 2, 3.325 with 9."""
    assert spread_at_worst(count) == pytest.approx(factor, rel=1e-3)


def test_the_bound_of_a_spread_holds_in_95_of_100_samples():
    drawn = np.random.default_rng(5).normal(0, 1, (20_000, 4))
    covered = drawn.std(axis=1, ddof=1) * spread_at_worst(4) >= 1
    assert covered.mean() == pytest.approx(0.95, abs=0.01)
