from dataclasses import replace

import numpy as np
import pytest
from queueing import P99_60, QUIET, columns, mm1

from tuner.measure.binomial import at_least, at_most
from tuner.measure.counting import decide, needed_samples, window_s_for
from tuner.measure.doubts import Tolerances
from tuner.measure.slo import judge
from tuner.measure.window import measure
from tuner.records import OK, HostEvidence, Measurement, Status
from tuner.slo import Slo

P99 = 1 - 0.99


def level(over=0, requests=3_000, failed=0, **changes):
    """A healthy measurement of independent requests, p99 limited to 60 ms."""
    p99 = 40.0 if over <= requests / 100 else 80.0
    fields = {
        "loop": "open",
        "offered_rps": requests / 10,
        "concurrency": None,
        "window_s": 10.0,
        "drain_s": 0.1,
        "warmup_s": 2.0,
        "requests": requests,
        "answered": requests - failed,
        "throughput_rps": (requests - failed) / 10.1,
        "goodput_rps": (requests - over) / 10.1,
        "rows_rps": requests / 10.1,
        "mean_ms": 20.0,
        "max_ms": 100.0,
        "percentiles_ms": {"p50": 20.0, "p99": p99} if requests >= 1_000 else {"p50": 20.0},
        "over_limit": {"p99_ms": over},
        "errors": {"UNAVAILABLE: full": failed} if failed else {},
        "lateness_p50_ms": 0.1,
        "lateness_p99_ms": 0.3,
        "lateness_max_ms": 1.0,
        "achieved_share": 1.0,
        "outstanding_slope_rps": 0.0,
        "effective_samples": float(requests),
        "host": QUIET,
    }
    return Measurement(**(fields | changes))


def codes(verdict):
    return [doubt.code for doubt in verdict.doubts]


# The table of MLPerf's early stopping (peers compute the same): fewest samples that prove a
# percentile at a confidence with `over` of them beyond the limit.
@pytest.mark.parametrize(
    ("share", "confidence", "counts"),
    [
        (0.99, 0.99, (459, 662, 838, 1307, 2010, 3304, 6898, 12571)),
        (0.99, 0.95, (299, 473, 628, 1049, 1693, 2902, 6323, 11799)),
        (0.95, 0.99, (90, 130, 165, 259, 398, 656, 1372, 2504)),
        (0.999, 0.99, (4603, 6636, 8403, 13105, 20140, 33097, 69058, 125826)),
    ],
)
def test_the_counting_table(share, confidence, counts):
    for over, fewest in zip((0, 1, 2, 5, 10, 20, 50, 100), counts, strict=True):
        assert decide(over, fewest, 1 - share, 1 - confidence) is True
        assert decide(over, fewest - 1, 1 - share, 1 - confidence) is not True


def test_counts_decide_both_ways_and_leave_the_middle_open():
    assert decide(0, 1_000, P99, 0.05) is True
    assert decide(10, 1_000, P99, 0.05) is None
    assert decide(30, 1_000, P99, 0.05) is False
    assert decide(0, 0, P99, 0.05) is None


@pytest.mark.parametrize("samples", [300, 1_000, 3_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wrong_decisions_are_as_rare_as_promised(samples, confidence):
    # The worst cases are shares just beyond the limit: it is missed, or kept, by a hair.
    rng = np.random.default_rng(2026)
    runs = 20_000
    chance = 1 - confidence
    verdicts = {
        over: decide(over, samples, P99, chance) for over in range(samples // 100 * 5 + 20)
    }
    drawn = rng.binomial(samples, P99, runs)
    # Three standard errors of a simulated frequency.
    slack = 3 * np.sqrt(chance * confidence / runs)
    for wrong in (True, False):
        assert np.mean([verdicts[over] is wrong for over in drawn]) <= chance + slack


def test_wrong_decisions_stay_rare_through_the_whole_judgement():
    # Independent latencies, 1.2 % of which are over the limit: "feasible" is wrong.
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        latency = np.where(rng.random(1_000) < 0.012, 80.0, rng.uniform(5, 50, 1_000))
        samples = columns(np.arange(1_000) / 100, latency, seconds=10)
        found = measure(samples, warmup_s=0, slo=P99_60, host=QUIET, seed=1)
        wrong += judge(found, P99_60).feasible is True
    assert wrong <= 10  # 5 % of 200


def test_requests_that_share_a_batch_do_not_prove_more_than_their_batches():
    # 500 requests in 50 batches, none over: 50 facts cannot prove a p99.
    latency = np.repeat(np.random.default_rng(1).uniform(5, 50, 50), 10)
    samples = columns(np.arange(500) / 50, latency, seconds=10)
    verdict = judge(measure(samples, warmup_s=0, slo=P99_60, host=QUIET, seed=1), P99_60)
    assert (verdict.valid, verdict.feasible) == (False, None)
    assert codes(verdict) == ["too-few-samples"]


@pytest.mark.parametrize(
    ("limits", "confidence", "fewest"),
    [
        ((("p99", 60.0),), 0.95, 299),
        ((("p99", 60.0),), 0.99, 459),
        ((("p95", 60.0),), 0.95, 59),
        ((("p95", 60.0), ("p999", 90.0)), 0.95, 2_995),
        ((("p50", 60.0),), 0.95, 5),
    ],
)
def test_needed_samples(limits, confidence, fewest):
    slo = Slo(limits, confidence=confidence)
    assert needed_samples(slo) == fewest
    empty = dict.fromkeys((f"{limit}_ms" for limit, _ in limits), 0)
    enough = level(requests=fewest, over_limit=empty, percentiles_ms={})
    assert judge(enough, slo).feasible is True
    short = replace(enough, requests=fewest - 1, answered=fewest - 1)
    assert judge(replace(short, effective_samples=fewest - 1.0), slo).feasible is None


def test_looking_twice_needs_more_samples():
    assert needed_samples(P99_60, looks=2) == 368  # ln 0.025 / ln 0.99 = 367.04
    assert judge(level(requests=300), P99_60).feasible is True
    assert judge(level(requests=300), P99_60, looks=2).feasible is None


def test_window_for_a_rate():
    assert window_s_for(P99_60, 100) == pytest.approx(2.99)
    assert window_s_for(P99_60, 100, samples_per_effective=8) == pytest.approx(23.92)


def test_a_healthy_level_that_keeps_its_promise():
    verdict = judge(level(over=5), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, True)
    assert (verdict.reasons, verdict.doubts) == ((), ())
    assert verdict.margins == pytest.approx({"p99_ms": 1 / 3, "error_rate": 1.0})


def test_a_level_that_misses_its_limit():
    verdict = judge(level(over=60), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, False)
    assert verdict.reasons == (
        "p99 <= 60 ms is missed: 60 of 3,000 requests took longer or failed, 1 % may",
    )
    assert verdict.margins["p99_ms"] == pytest.approx(-1 / 3)


def test_a_close_call_is_valid_and_undecided():
    verdict = judge(level(over=28), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, None)
    assert "p99 <= 60 ms is undecided: 28 of 3,000" in verdict.reasons[0]


def test_errors_are_judged_by_counting_too():
    assert judge(level(failed=30), P99_60).feasible is False
    assert judge(level(failed=2), P99_60).feasible is None
    assert judge(level(failed=2, requests=20_000), P99_60).feasible is True
    verdict = judge(level(failed=30), P99_60)
    assert verdict.reasons == (
        "errors <= 0.1 % is missed: 30 of 3,000 requests failed (30 x UNAVAILABLE: full)",
    )
    assert verdict.margins["error_rate"] == pytest.approx(-9.0)


def test_failures_that_come_together_count_as_fewer():
    assert judge(level(failed=10), P99_60).feasible is False
    assert judge(level(failed=10, effective_samples=300.0), P99_60).feasible is None


def test_no_failure_is_within_every_error_limit():
    assert judge(level(requests=500), Slo((("p99", 60.0),), max_error_rate=1e-6)).feasible is True


def test_an_error_limit_of_zero_allows_none():
    slo = Slo((("p99", 60.0),), max_error_rate=0)
    assert judge(level(), slo).feasible is True
    assert judge(level(failed=1), slo).feasible is False
    assert judge(level(failed=3), slo).margins["error_rate"] == pytest.approx(-1.0)


def test_margins_without_a_percentile_have_the_sign_of_the_count():
    few = judge(level(requests=500, over=1), P99_60)
    assert few.margins["p99_ms"] == pytest.approx(0.8)
    among_failures = judge(
        level(failed=90, over=90, percentiles_ms={"p50": 20.0, "p99": None}), P99_60
    )
    assert among_failures.margins["p99_ms"] == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"lateness_p99_ms": 3.1}, "generator-held-up"),
        ({"lateness_p99_ms": 3.1, "host": HostEvidence(1.0, 0.3, 0.0)}, "generator-late"),
        ({"lateness_p99_ms": 3.1, "host": HostEvidence(1.0, 0.3, 0.0, 2)}, "generator-held-up"),
        ({"achieved_share": 0.98}, "schedule-missed"),
        ({"host": HostEvidence(1.0, 0.95, 0.0)}, "generator-cpu"),
        ({"host": HostEvidence(1.0, 0.2, 0.3)}, "foreign-cpu"),
        ({"max_ms": 3_600_001.0}, "histogram-overflow"),
        ({"outstanding_slope_rps": 30.0}, "not-steady"),
        ({"loop": "closed", "offered_rps": None, "concurrency": 8}, "generator-idle"),
    ],
)
def test_every_doubt_makes_a_level_invalid_and_says_what_to_do(changes, code):
    verdict = judge(level(**changes), P99_60)
    assert (verdict.valid, codes(verdict)) == (False, [code])
    assert verdict.doubts[0].text
    assert verdict.doubts[0].remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"lateness_p99_ms": 2.9},
        {"achieved_share": 0.995},
        {"host": HostEvidence(None, 0.85, None)},
        {"host": HostEvidence(None, 1.7, None, generator_processes=2)},
        {"host": HostEvidence(1.9, 0.2, 0.2)},
        {"outstanding_slope_rps": 5.0},
        # Half a percent of the load: far beyond chance at this count, and of no consequence.
        {"requests": 1_000_000, "outstanding_slope_rps": 500.0},
        # Whatever the window began with, the promise was kept.
        {"outstanding_slope_rps": -30.0},
        # 300 requests/s of 20 ms each are six outstanding.
        {"loop": "closed", "offered_rps": None, "concurrency": 6},
    ],
)
def test_ordinary_trouble_is_tolerated(changes):
    assert judge(level(**changes), P99_60).valid


def test_tolerances_can_be_set():
    assert judge(level(lateness_p99_ms=11.0), P99_60, tolerances=Tolerances(0.2)).valid


def test_a_limit_on_the_median_is_held_against_median_lateness():
    slo = Slo((("p50", 4.0), ("p99", 60.0)))
    counts = {"p50_ms": 100, "p99_ms": 0}
    assert judge(level(over_limit=counts, lateness_p99_ms=2.0), slo).valid
    assert not judge(level(over_limit=counts, lateness_p50_ms=0.5), slo).valid


def test_timers_are_not_blamed_for_a_tiny_limit():
    slo = Slo((("p99", 1.0),))
    assert judge(level(lateness_p99_ms=0.15), slo).valid
    assert not judge(level(lateness_p99_ms=0.25), slo).valid


def test_too_few_samples_say_how_long_to_measure():
    # 50 requests/s worth a quarter each: 4 x 299 requests, 23.9 s; 996 of them are missing.
    found = level(requests=200, window_s=4.0, effective_samples=50.0)
    (doubt,) = judge(found, P99_60).doubts
    assert doubt.code == "too-few-samples"
    assert "996 more are needed" in doubt.text
    assert doubt.remedy == "a window of 23.9 s at this load"


def test_few_samples_suffice_where_all_are_far_too_slow():
    verdict = judge(level(requests=50, over=50), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, False)


def test_nothing_arrived():
    found = level(requests=0, over_limit={"p99_ms": 0}, mean_ms=None, max_ms=None)
    verdict = judge(replace(found, effective_samples=0.0), P99_60)
    assert (verdict.valid, verdict.feasible, codes(verdict)) == (
        False,
        None,
        ["too-few-samples"],
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("load", [1.05, 1.3, 3.0])
def test_an_overloaded_server_is_valid_and_infeasible(load, seed):
    samples = mm1(load * 200, 200, 20, seed=seed)
    verdict = judge(measure(samples, warmup_s=4, slo=P99_60, host=QUIET, seed=seed), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, False)
    if load >= 1.3:
        assert "the server fell behind" in verdict.reasons[-1]


@pytest.mark.parametrize("seed", range(10))
def test_a_lightly_loaded_server_is_valid_and_feasible(seed):
    samples = mm1(100, 400, 60, seed=seed)
    verdict = judge(measure(samples, warmup_s=4, slo=P99_60, host=QUIET, seed=seed), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, True)


@pytest.mark.parametrize("load", [0.7, 0.9, 0.95])
@pytest.mark.parametrize("seconds", [3, 9])
def test_a_queue_that_only_wanders_is_not_called_saturated(load, seconds):
    """A limit that nothing misses: whatever is infeasible here is so for its slopes."""
    slo, called = Slo((("p99", 60_000.0),)), 0
    for seed in range(100):
        samples = mm1(load * 400, 400, seconds, seed=seed)
        found = measure(samples, warmup_s=1, slo=slo, host=QUIET, seed=seed)
        called += judge(found, slo).feasible is False
    assert called <= (1 if load < 0.95 else 3)


@pytest.mark.parametrize("seed", range(5))
def test_saturation_needs_no_limit_to_be_missed(seed):
    slo = Slo((("p99", 60_000.0),))
    found = measure(mm1(500, 400, 5, seed=seed), warmup_s=1, slo=slo, host=QUIET, seed=seed)
    verdict = judge(found, slo)
    assert (verdict.valid, verdict.feasible) == (True, False)
    assert "more requests outstanding every second, each second's" in verdict.reasons[-1]
    assert abs(found.littles_gap) > 0.1


def test_an_overloaded_server_that_rejects_is_valid_and_infeasible():
    status = np.random.default_rng(1).random(3_000) < 0.3
    samples = columns(
        np.arange(3_000) / 300,
        np.where(status, 1.0, 20.0),
        seconds=10,
        status=status.astype(int),
        statuses=(Status(OK), Status("UNAVAILABLE", "queue full")),
    )
    verdict = judge(measure(samples, warmup_s=0, slo=P99_60, host=QUIET, seed=1), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, False)


@pytest.mark.parametrize("late_ms", [10.0, 50.0, 500.0])
def test_a_late_generator_makes_the_level_invalid(late_ms):
    # The server takes 20 ms; what is beyond that is the generator's own doing.
    late = np.random.default_rng(1).uniform(0, late_ms, 3_000)
    samples = columns(np.arange(3_000) / 300, 20 + late, late_ms=late, seconds=10)
    verdict = judge(measure(samples, warmup_s=0, slo=P99_60, host=QUIET, seed=1), P99_60)
    assert not verdict.valid
    assert "generator-held-up" in codes(verdict)


def test_a_late_generator_does_not_excuse_a_server_that_is_far_too_slow():
    late = np.random.default_rng(1).uniform(0, 5, 3_000)
    samples = columns(np.arange(3_000) / 300, 400 + late, late_ms=late, seconds=10)
    verdict = judge(measure(samples, warmup_s=0, slo=P99_60, host=QUIET, seed=1), P99_60)
    assert (verdict.valid, verdict.feasible) == (True, False)


def test_a_window_that_begins_with_a_backlog_is_not_blamed_on_the_load():
    # 200 requests/s; cold for 2 s at 100/s, then 300/s: a queue of 400 drains from 4 s to 8 s.
    rng = np.random.default_rng(3)
    arrivals = np.sort(rng.uniform(0, 12, 2_400))
    service = np.where(arrivals < 2, 1 / 100, 1 / 300)
    busy = np.cumsum(service)
    done = busy + np.maximum.accumulate(arrivals - (busy - service))
    samples = columns(arrivals, (done - arrivals) * 1e3, seconds=12)
    verdict = judge(measure(samples, warmup_s=4, slo=P99_60, host=QUIET, seed=3), P99_60)
    assert (verdict.valid, codes(verdict)) == (False, ["not-steady"])
    assert "warm up for longer" in verdict.doubts[0].remedy


def test_one_sided_both_ways():
    # What is decided False must be improbable under the limit, and the converse.
    for over in range(60):
        decided = decide(over, 2_000, P99, 0.05)
        assert (decided is True) == (at_most(over, 2_000, P99) <= 0.05)
        assert (decided is False) == (at_least(over, 2_000, P99) <= 0.05)
