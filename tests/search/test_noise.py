import math
from dataclasses import replace

import numpy as np
import pytest
from trials import DEFAULT, OFF, batched, trial

from tuner.records import Doubt, Drift
from tuner.search.noise import drift_at, noise_of, references, suspicious, to_repeat
from tuner.search.ranking import by_role, ranked, rate_of, search_trials, tried

RESOLUTION = 0.06


def run(*rates, step=1.01):
    """Off, then the default's rates with two trials of the search between each pair."""
    records = [trial(0, "off", OFF, 100.0)]
    for number, rate in enumerate(rates):
        role = "reference" if number else "default"
        records.append(trial(len(records), role, DEFAULT, rate, step=step))
        if number < len(rates) - 1:
            for size in (8, 16):
                config = batched(size * 4**number)
                records.append(trial(len(records), "sampler", config, 300.0))
    return records


def reference(records, rate):
    return trial(len(records), "reference", DEFAULT, rate)


def test_the_aa_test_says_what_can_be_told_from_noise():
    noise = noise_of(run(200.0, 210.0, 195.0), 5)
    assert noise.rates_rps == (200.0, 210.0, 195.0)
    assert noise.spread_percent == pytest.approx(3.8, abs=0.1)
    assert noise.detectable_percent == pytest.approx(9.2, abs=0.3)
    assert noise.describe(5) == (
        "A/A test: equal starts of the default carried 200/s, 210/s, 195/s, a spread of 3.8 %; "
        "5 blocks will prove a gain from 9 % on, as far as 3 starts can tell"
    )
    coarse = noise_of(run(200.0, 210.0, 195.0, step=1.1), 5)
    assert coarse.detectable_percent == pytest.approx(11.5, abs=0.1), "no finer than its steps"
    assert "one start says nothing" in noise_of(run(200.0), 5).describe(5)


def test_one_odd_start_is_no_drift():
    records = run(200.0, 202.0, 150.0)
    assert suspicious(150.0, [200.0, 202.0], RESOLUTION)
    assert drift_at(records, reference(records, 201.0), RESOLUTION) is None
    assert drift_at(records, reference(records, 260.0), RESOLUTION) is None


def test_two_odd_starts_spoil_what_was_measured_since_the_last_good_one():
    records = run(200.0, 202.0, 150.0)
    drift = drift_at(records, reference(records, 154.0), RESOLUTION)
    assert drift.percent == pytest.approx((152 / 201 - 1) * 100)
    assert drift.spoils == (5, 6)
    assert [records[number].role for number in drift.spoils] == ["sampler", "sampler"]


def drifted():
    records = run(200.0, 202.0, 150.0)
    latest = reference(records, 154.0)
    return [*records, replace(latest, drift=drift_at(records, latest, RESOLUTION))]


def test_spoilt_trials_are_repeated_once_and_count_no_more():
    records = drifted()
    assert to_repeat(records) == [("sampler", batched(32)), ("sampler", batched(64))]
    assert {5, 6}.isdisjoint(record.number for record in search_trials(records))
    again = [*records, trial(9, "sampler", batched(32), 230.0)]
    assert to_repeat(again) == [("sampler", batched(64))]
    spoilt_twice = [*again, replace(reference(again, 100.0), drift=Drift(-30.0, (9,)))]
    assert ("sampler", batched(32)) not in to_repeat(spoilt_twice)


def test_after_a_drift_the_reference_is_what_it_is_now():
    records = drifted()
    assert [record.sustainable_rps for record in references(records)] == [150.0, 154.0]
    assert drift_at(records, reference(records, 153.0), RESOLUTION) is None


def test_rates_from_before_a_drift_are_ranked_as_they_would_be_now():
    records = [*drifted(), trial(9, "sampler", batched(128), 260.0)]
    before = next(record for record in records if record.config == batched(8))
    assert rate_of(before, records) == pytest.approx(300.0 * 152 / 201)
    assert ranked(records)[0].config == batched(128)


@pytest.mark.parametrize("code", ["foreign-cpu", "generator-held-up"])
def test_what_another_program_disturbed_is_measured_again(code):
    busy = trial(1, "default", DEFAULT, None)
    doubt = Doubt(code, "others used 1.2 cores", "stop them")
    level = replace(busy.levels[0], verdict=replace(busy.levels[0].verdict, doubts=(doubt,)))
    records = [trial(0, "off", OFF, 100.0), replace(busy, levels=(level,))]
    assert to_repeat(records) == [("default", DEFAULT)]
    assert by_role(records, "default").number == 1
    records.append(trial(2, "default", DEFAULT, 200.0))
    assert tried(records) == 2
    assert to_repeat(records) == []
    assert by_role(records, "default").number == 2


def test_noise_alone_is_seldom_called_drift():
    """Nights of eight references with 5 % noise: at most one in twenty sees a drift."""
    rng = np.random.default_rng(9)
    nights, called = 300, 0
    for _ in range(nights):
        rates = 200 * np.exp(rng.normal(0, 0.05, 10))
        records = run(*rates[:2])
        for rate in rates[2:]:
            latest = reference(records, float(rate))
            found = drift_at(records, latest, RESOLUTION)
            records.append(replace(latest, drift=found))
            called += found is not None
    assert called / nights <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / nights)


@pytest.mark.parametrize("change", [0.7, 1.4])
def test_a_real_drift_is_found(change):
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(100):
        noise = np.exp(rng.normal(0, 0.03, 5))
        records = run(*(200 * noise[:3]), float(200 * change * noise[3]))
        latest = reference(records, float(200 * change * noise[4]))
        found += drift_at(records, latest, RESOLUTION) is not None
    assert found >= 80
