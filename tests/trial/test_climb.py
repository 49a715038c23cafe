"""Whole climbs against simulated servers: the ladder, the levels and the verdicts as they are."""

import math
from dataclasses import replace

import numpy as np
import pytest
from trial.simulated import SimulatedServer, bench, exponential, levels
from trials import level, trial

from tuner.errors import LoadError
from tuner.ladder import MOST_EASED, Ladder
from tuner.measure.curve import notes
from tuner.records import Doubt
from tuner.slo import Slo
from tuner.trial.climb import climb, ladder_from
from tuner.trial.run import measured
from tuner.trial.session import make_ready

P99 = Slo((("p99", 60.0),))
SPARE_RPS = math.log(20) / 0.05
"""By which an M/M/1 queue's capacity must exceed its load for a p95 of 50 ms."""


def record_of(folder, server, **task):
    trials = levels(folder, server, **task)
    return measured(trials, trial(0, "sampler", trials.task.config, None)), trials


@pytest.mark.parametrize("capacity", [300.0, 1000.0])
def test_the_sustainable_rate_of_a_known_queue_is_found(tmp_path, capacity):
    record, trials = record_of(tmp_path, SimulatedServer(exponential(capacity)))
    assert record.outcome == "ok"
    truth = capacity - SPARE_RPS
    # Eight seconds of a queue at 80 % utilisation prove less than it carries, never more.
    assert 0.75 * truth < record.sustainable_rps < 1.05 * truth
    assert record.sustainable_rps < record.ceiling_rps
    assert record.levels[record.reference_level].measurement.offered_rps == record.sustainable_rps
    assert {note.code for note in record.notes} <= {"decided-together"}
    assert trials.measuring_s < 120


def test_a_configuration_that_another_beats_is_measured_roughly(tmp_path):
    fine, long = record_of(tmp_path, SimulatedServer(exponential(500.0)))
    rough, short = record_of(tmp_path, SimulatedServer(exponential(500.0)), dominated_rps=900.0)
    assert rough.dominated
    assert not fine.dominated
    assert rough.sustainable_rps <= 1.05 * (500 - SPARE_RPS)
    assert short.measuring_s < 0.75 * long.measuring_s


def test_a_server_that_fails_beyond_a_load_collapses_and_it_is_said(tmp_path):
    """Past 400/s every request takes a second: a cliff that no lower load announces."""

    def service_s(rng, rate_rps, count):
        return np.full(count, 1.0 if rate_rps > 400 and np.isfinite(rate_rps) else 0.002)

    record, _ = record_of(tmp_path, SimulatedServer(service_s))
    assert record.outcome == "ok"
    assert 350 < record.sustainable_rps <= 410
    assert {note.code for note in record.notes} == {"cliff", "collapse"}


def test_a_load_at_which_everything_fails_is_infeasible_and_no_more(tmp_path):
    server = SimulatedServer(exponential(1000.0), queue_limit=None)
    generator = levels(tmp_path, server).generator
    served = type(generator)._served

    def refuse(self, arrivals_s, rate_rps, seed):
        done, refused = served(self, arrivals_s, rate_rps, seed)
        return (arrivals_s, np.ones_like(refused)) if rate_rps > 500 else (done, refused)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(generator), "_served", refuse)
        record, _ = record_of(tmp_path, server)
    assert record.outcome == "ok"
    assert 400 < record.sustainable_rps <= 510
    failed = max(record.levels[1:], key=lambda level: level.measurement.offered_rps)
    assert failed.verdict.feasible is False
    assert failed.measurement.answered == 0
    assert "no request is answered" in next(
        note.text for note in record.notes if note.code == "collapse"
    )


def test_a_server_that_is_slow_at_low_load_has_no_sustainable_rate_above_it(tmp_path):
    """A long batch timeout: below 300/s batches wait for it, above they fill before."""

    def service_s(rng, rate_rps, count):
        return rng.exponential(1 / 1000, count)

    server = SimulatedServer(service_s)
    generator = levels(tmp_path, server).generator
    served = type(generator)._served

    def waits(self, arrivals_s, rate_rps, seed):
        done, refused = served(self, arrivals_s, rate_rps, seed)
        return done + (0.2 if rate_rps < 500 else 0.0), refused

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(generator), "_served", waits)
        smooth, _ = record_of(tmp_path, server)
        asked, _ = record_of(tmp_path, server, curve_shares=(0.5,))
    assert smooth.sustainable_rps > 800
    assert (asked.outcome, asked.sustainable_rps) == ("infeasible", 0.0)
    assert "non-monotonic" in {note.code for note in asked.notes}


def rising(*steps):
    """Levels as (load, p99, held): a curve written down."""
    return [level(rate, p99_ms=p99, held=held) for rate, p99, held in steps]


def codes(curve, slo=P99):
    return [note.code for note in notes(curve, slo, next_to=1.12)]


def test_a_smooth_curve_has_no_notes():
    assert codes(rising((100, 20.0, True), (200, 40.0, True), (220, 80.0, False))) == []


def test_a_cliff_needs_neighbours():
    assert codes(rising((200, 20.0, True), (220, 200.0, False))) == ["cliff"]
    assert codes(rising((200, 20.0, True), (220, None, False))) == ["cliff"]
    assert codes(rising((200, 20.0, True), (300, 200.0, False))) == []
    assert codes(rising((200, 50.0, True), (220, 200.0, False))) == []


def test_odd_orders_within_the_noise_are_none():
    assert codes(rising((200, 80.0, False), (210, 50.0, True))) == []
    assert codes(rising((200, 80.0, False), (300, 50.0, True))) == ["non-monotonic"]


def test_a_client_at_its_end_is_named():
    late = level(900, held=None, valid=False)
    late = replace(
        late, verdict=replace(late.verdict, doubts=(Doubt("generator-cpu", "busy", "more"),))
    )
    curve = [*rising((400, 20.0, True)), late]
    assert codes(curve) == ["client-limited"]
    assert codes([*curve, *rising((950, 90.0, False))]) == []


@pytest.mark.parametrize("codes_", [("generator-late", "foreign-cpu"), ("generator-held-up",)])
def test_a_generator_that_a_neighbour_holds_up_is_not_at_its_end(codes_):
    doubts = tuple(Doubt(code, "sent late", "wait") for code in codes_)
    late = level(900, held=None, valid=False)
    late = replace(late, verdict=replace(late.verdict, doubts=doubts))
    assert codes([*rising((400, 20.0, True)), late]) == []


def test_where_the_slo_holds_at_the_highest_usable_load_the_client_is_the_limit(tmp_path):
    trials = levels(tmp_path, SimulatedServer(exponential(5000.0)))
    trials.bench = replace(trials.bench, usable_rps=1500.0)
    record = measured(trials, trial(0, "sampler", trials.task.config, None))
    assert record.outcome == "ok"
    assert record.sustainable_rps == pytest.approx(1500, rel=0.1)
    assert "client-limited" in {note.code for note in record.notes}
    assert max(load.rate_rps for load in trials.generator.driven) <= 1500.0


def test_a_generator_that_is_far_too_slow_ends_the_run(tmp_path):
    trials = levels(tmp_path, SimulatedServer(exponential(5000.0)))
    trials.bench = replace(trials.bench, usable_rps=50.0)
    with pytest.raises(LoadError, match=r"half of what this generator can send .*, 100/s"):
        measured(trials, trial(0, "sampler", trials.task.config, None))


def test_loads_that_somebody_chose_are_driven_by_a_slow_generator_too(tmp_path):
    trials = levels(tmp_path, SimulatedServer(exponential(5000.0)))
    trials.bench = replace(trials.bench, usable_rps=50.0)
    trials.task = replace(trials.task, loads_rps=(40.0,))
    measured(trials, trial(0, "given", trials.task.config, None))
    assert {load.rate_rps for load in trials.generator.driven} == {40.0}


def test_the_ladder_starts_where_the_peaks_latency_says(tmp_path):
    trials = levels(tmp_path, SimulatedServer(exponential(1000.0)))
    peak = make_ready(trials)
    slo = bench(tmp_path).slo
    ladder = ladder_from(peak, resolution=0.06, loosest_ms=slo.loosest_ms)
    # 64 outstanding at 1,000/s take 64 ms: 50 of them are promised.
    assert ladder.start_rps == pytest.approx(1000 * 50 / 64, rel=0.1)
    again = ladder_from(peak, resolution=0.06, loosest_ms=50.0, expected_rps=700.0)
    assert (again.start_rps, again.resolution) == (700.0, 0.03)


def test_an_untrusted_level_ends_the_climb():
    def measure(rate):
        disturbed = level(rate, held=None, valid=False)
        doubts = (Doubt("foreign-cpu", "busy", "stop it"),)
        return replace(disturbed, verdict=replace(disturbed.verdict, doubts=doubts))

    found = climb(Ladder(100.0, 0.05), measure, slo=P99)
    assert (found.outcome, found.sustainable_rps) == ("invalid", None)


def busy_above(most_rps):
    """Measures a server that carries all, by a generator that is at its end above `most_rps`."""
    asked = []

    def measure(rate):
        asked.append(rate)
        if rate <= most_rps:
            return level(rate, held=True)
        doubted = level(rate, held=True, valid=False)
        doubts = (Doubt("generator-cpu", "0.94 cores", "more processors"),)
        return replace(doubted, verdict=replace(doubted.verdict, doubts=doubts))

    return measure, asked


@pytest.mark.parametrize("start", [50.0, 400.0])
def test_where_the_generator_is_at_its_end_lower_loads_are_tried(start):
    measure, asked = busy_above(200.0)
    found = climb(Ladder(start, 0.05), measure, slo=P99)
    assert found.outcome == "ok"
    assert 100 <= found.sustainable_rps <= 200
    assert found.ladder.limited
    assert max(asked) > 200


def test_a_generator_that_is_at_its_end_at_any_load_ends_the_climb():
    measure, asked = busy_above(0.0)
    found = climb(Ladder(400.0, 0.05), measure, slo=P99)
    assert (found.outcome, found.sustainable_rps) == ("invalid", None)
    assert len(asked) == MOST_EASED + 1
    assert asked == sorted(asked, reverse=True)


def test_when_time_is_up_no_load_is_begun():
    asked = []

    def measure(rate):
        asked.append(rate)
        return level(rate)

    found = climb(
        Ladder(100.0, 0.05), measure, slo=P99, time_is_up=lambda: len(asked) >= 2, shares=(0.5,)
    )
    assert asked == [100.0, 125.0]
    assert found.cut_short
    assert (found.outcome, found.sustainable_rps, found.ceiling_rps) == ("ok", 125.0, None)


def test_a_deadline_that_has_passed_leaves_the_peak_and_says_so(tmp_path):
    record, _ = record_of(tmp_path, SimulatedServer(exponential(500.0)), until_ns=1)
    assert (record.outcome, record.sustainable_rps) == ("invalid", None)
    assert record.peak_rps > 400
    assert [note.code for note in record.notes] == ["cut-short"]


def lacking(rate, over=0):
    """A load with too few requests to decide, `over` of them over the limit."""
    few = level(rate, held=None, valid=False)
    doubt = Doubt("too-few-samples", "40 requests cannot decide", "a longer window")
    return replace(
        few,
        measurement=replace(few.measurement, over_limit={"p99_ms": over}),
        verdict=replace(few.verdict, doubts=(doubt,)),
    )


def test_a_load_with_too_few_requests_leads_to_a_higher_one_that_has_enough():
    def measure(rate):
        if rate < 120:
            return lacking(rate)
        return level(rate, held=rate < 180)

    found = climb(Ladder(100.0, 0.05), measure, slo=P99)
    assert found.outcome == "ok"
    assert 165 < found.sustainable_rps < 180 <= found.ceiling_rps


def test_what_was_not_shown_to_hold_is_not_called_sustainable():
    found = climb(
        Ladder(100.0, 0.05),
        lambda rate: lacking(rate) if rate < 120 else level(rate, held=False),
        slo=P99,
    )
    assert (found.outcome, found.sustainable_rps) == ("invalid", None)


def test_with_some_over_the_limit_a_lower_load_may_be_decided():
    found = climb(
        Ladder(100.0, 0.05),
        lambda rate: lacking(rate, over=3) if rate > 80 else level(rate),
        slo=P99,
    )
    assert (found.outcome, found.sustainable_rps) == ("ok", pytest.approx(79, abs=5))


SLOW = """
name = "s"
[model]
path = "m"
[slo]
p90_ms = 400
[load]
concurrency = 16
[measure]
window_s = 6.0
max_window_s = 30.0
resolution = 0.2
"""


def test_a_slow_model_is_decided_and_not_above_what_it_carries(tmp_path):
    """30/s at most, of which p90 <= 400 ms leaves 26.7/s: a window holds some 700 requests.

    Queued ones are slow together, so that few loads decide themselves; each climb has an answer.
    """
    truth, rates = 26.7, []
    for seed in range(12):
        server = SimulatedServer(lambda rng, _rps, count: rng.gamma(16, 1 / 480, count))
        trials = levels(tmp_path, server, text=SLOW, replicate=seed, expected_rps=25.4)
        record = measured(trials, trial(0, "sampler", trials.task.config, None))
        assert record.outcome == "ok"
        rates.append(record.sustainable_rps / truth)
    assert min(rates) > 0.6
    assert float(np.median(rates)) > 0.8
    assert sum(rate > 1.05 for rate in rates) <= 1


def test_loads_that_are_decided_together_are_kept_as_decided(tmp_path):
    found = []
    for seed in range(12):
        server = SimulatedServer(lambda rng, _rps, count: rng.gamma(16, 1 / 480, count))
        trials = levels(tmp_path, server, text=SLOW, replicate=seed, expected_rps=20.0)
        record = measured(trials, trial(0, "sampler", trials.task.config, None))
        notes_ = [note for note in record.notes if note.code == "decided-together"]
        if notes_:
            found.append(record)
            assert record.levels[record.reference_level].verdict.feasible
            assert any(level.verdict.feasible and level.verdict.valid for level in record.levels)
            assert len(record.levels) == len(trials.done)
    assert found
