import numpy as np
import pytest
from queueing import P99_60, QUIET, columns

from tuner.errors import LoadError
from tuner.measure.window import (
    ERROR_KINDS,
    OTHER_ERRORS,
    error_kind,
    measure,
    pooled,
    window,
    window_histogram,
)
from tuner.records import OK, ServerEvidence, Status
from tuner.slo import Slo

STATUSES = (Status(OK), Status("UNAVAILABLE", "queue full"), Status("INTERNAL"))


def measured(samples, *, warmup_s=0.0, slo=P99_60, **more):
    return measure(samples, warmup_s=warmup_s, slo=slo, host=QUIET, seed=7, **more)


def test_counts_and_rates():
    # 10 requests/s for 4 s, the first second is warm-up; 30 in the window of 3 s.
    # Latency 50 ms but for one of 80 ms, and one failure; the last answer comes 1 s late.
    latency = np.full(40, 50.0)
    latency[20] = 80.0
    latency[39] = 1_100.0  # intended at 3.9 s, done at 5.0 s
    status = np.zeros(40, int)
    status[15] = 1
    samples = columns(
        np.arange(40) / 10, latency, seconds=4, status=status, statuses=STATUSES, rows=3
    )
    found = measured(samples, warmup_s=1.0)
    assert (found.loop, found.concurrency, found.seed) == ("open", None, 7)
    assert (found.window_s, found.drain_s, found.warmup_s) == (3.0, pytest.approx(1.0), 1.0)
    assert (found.requests, found.answered) == (30, 29)
    assert found.offered_rps == pytest.approx(10.0)
    assert found.throughput_rps == pytest.approx(29 / 4)
    assert found.goodput_rps == pytest.approx(27 / 4)
    assert found.rows_rps == pytest.approx(29 * 3 / 4)
    assert found.mean_ms == pytest.approx((27 * 50 + 80 + 1_100) / 29)
    assert found.max_ms == pytest.approx(1_100)
    assert found.percentiles_ms == {"p50": 50.0}
    assert found.over_limit == {"p99_ms": 3}
    assert found.errors == {"UNAVAILABLE: queue full": 1}
    assert found.error_rate == pytest.approx(1 / 30)
    assert found.achieved_share == 1.0
    assert found.host is QUIET


def test_the_window_is_cut_by_intended_time():
    # Intended in warm-up and done in the window: not counted. Intended at the end: not counted.
    samples = columns([0.5, 1.0, 1.5, 2.0], 700, seconds=2)
    assert measured(samples, warmup_s=1.0).requests == 2


def test_latency_counts_from_the_intended_instant():
    samples = columns(np.arange(100) / 10, 50, late_ms=40, seconds=10)
    found = measured(samples)
    assert found.mean_ms == 50
    assert (found.lateness_p50_ms, found.lateness_p99_ms, found.lateness_max_ms) == (40, 40, 40)


def test_failures_do_not_stretch_the_drain():
    status = [0] * 9 + [1]
    latency = [100.0] * 9 + [60_000.0]
    samples = columns(np.arange(10) / 10, latency, seconds=1, status=status, statuses=STATUSES)
    assert measured(samples).drain_s == 0


def test_a_backlog_at_the_client_lowers_the_achieved_share():
    samples = columns(np.arange(100) / 100, 2_000, late_ms=np.linspace(0, 1_000, 100), seconds=1)
    assert measured(samples).achieved_share == pytest.approx(0.5, abs=0.02)


def test_closed_loop():
    samples = columns(np.arange(50) / 50, 20, seconds=1, concurrency=1)
    found = measured(samples)
    assert (found.loop, found.offered_rps, found.concurrency) == ("closed", None, 1)


def test_every_limit_is_counted_and_goodput_goes_by_the_loosest():
    slo = Slo((("p50", 10.0), ("p99", 60.0)))
    latency = np.concatenate([np.full(60, 5.0), np.full(30, 20.0), np.full(10, 100.0)])
    samples = columns(np.arange(100) / 100, latency, seconds=1)
    found = measured(samples, slo=slo)
    assert found.over_limit == {"p50_ms": 40, "p99_ms": 10}
    assert found.goodput_rps == pytest.approx(90 / (1 + found.drain_s))


def test_independence_is_that_of_the_tail():
    # Half the requests are over 10 ms, in no order; those over 60 ms come all at once.
    latency = np.random.default_rng(1).uniform(5, 15, 3_000)
    latency[1_000:1_100] = 100
    samples = columns(np.arange(3_000) / 300, latency, seconds=10)
    tail = measured(samples, slo=Slo((("p99", 60.0),)))
    both = measured(samples, slo=Slo((("p50", 10.0), ("p99", 60.0))))
    assert both.effective_samples == tail.effective_samples < 300


def test_a_request_exactly_at_the_limit_keeps_it():
    assert measured(columns([0.0], 60.0, seconds=1)).over_limit == {"p99_ms": 0}


def test_nothing_arrived():
    found = measured(columns([], [], seconds=1))
    assert (found.requests, found.answered, found.error_rate) == (0, 0, 0.0)
    assert (found.mean_ms, found.max_ms, found.percentiles_ms) == (None, None, {})
    assert found.offered_rps == 0


def test_everything_failed():
    samples = columns(np.arange(20) / 20, 1, seconds=1, status=np.full(20, 2), statuses=STATUSES)
    found = measured(samples)
    assert found.errors == {"INTERNAL": 20}
    assert found.percentiles_ms == {"p50": None}
    assert found.over_limit == {"p99_ms": 20}
    assert (found.throughput_rps, found.mean_ms) == (0, None)


def test_server_evidence_travels_along():
    seen = ServerEvidence(batches=3, rows_per_batch=2.0, padding_share=0.0, queue_ms=1.0)
    assert measured(columns([0.1], 1.0, seconds=1), server=seen).server is seen


@pytest.mark.parametrize("warmup_s", [2.0, 5.0])
def test_a_warm_up_that_leaves_no_window(warmup_s):
    with pytest.raises(LoadError, match="leaves no window in a run of 2 s"):
        measured(columns([0.5], 1.0, seconds=2), warmup_s=warmup_s)


def test_time_never_runs_backwards():
    with pytest.raises(LoadError, match="before it was to be sent"):
        measured(columns([0.5], -1.0, seconds=2))


def test_histogram_of_the_window():
    samples = columns(
        np.arange(40) / 10,
        10,
        seconds=4,
        status=[0] * 30 + [1] * 10,
        statuses=STATUSES,
    )
    histogram = window_histogram(window(samples, warmup_s=1.0))
    assert (histogram.count, histogram.failed) == (30, 10)
    assert histogram.percentile_ms(0.5) == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("INTERNAL", "", "INTERNAL"),
        (
            "UNAVAILABLE",
            "full; currently 12 batches enqueued and max_enqueued_batches is 10",
            "UNAVAILABLE: full; currently N batches enqueued and max_enqueued_batches is N",
        ),
        ("UNAVAILABLE", "ipv4:127.0.0.1:43211: refused", "UNAVAILABLE: ipvN: refused"),
        ("INTERNAL", "at 0x7f3a00c1 in op", "INTERNAL: at N in op"),
        ("INTERNAL", "request 6f1d2c3b4a5968778695a4b3c2d1e0ff", "INTERNAL: request N"),
        ("INTERNAL", "first\nsecond", "INTERNAL: first"),
    ],
)
def test_error_kinds(code, text, kind):
    assert error_kind(Status(code, text)) == kind


def test_error_texts_are_bounded():
    assert len(error_kind(Status("INTERNAL", "words " * 1000))) < 200


def test_texts_that_differ_by_a_number_are_one_kind():
    statuses = (Status(OK), *(Status("UNAVAILABLE", f"{n} batches") for n in range(50)))
    samples = columns(np.arange(50) / 50, 1, seconds=1, status=np.arange(1, 51), statuses=statuses)
    assert measured(samples).errors == {"UNAVAILABLE: N batches": 50}


def test_kinds_of_error_are_bounded_and_none_is_lost():
    names = [f"{a}{b}" for a in "abcde" for b in "vwxyz"]
    statuses = (Status(OK), *(Status("INTERNAL", name) for name in names))
    status = np.concatenate([np.arange(1, 26), [25] * 5])
    samples = columns(np.arange(30) / 30, 1, seconds=1, status=status, statuses=statuses)
    errors = measured(samples).errors
    assert len(errors) == ERROR_KINDS + 1
    assert next(iter(errors.items())) == ("INTERNAL: ez", 6)
    assert sum(errors.values()) == 30
    assert errors[OTHER_ERRORS] == 5


def test_windows_add_up():
    """10 requests in 1 s and 30 in 3 s, each window after a second of warm-up."""
    first = window(columns(np.arange(20) / 10, 20.0, seconds=2), warmup_s=1.0)
    second = window(columns(np.arange(40) / 10, 80.0, seconds=4), warmup_s=1.0)
    found = pooled([first, second], slo=P99_60, host=QUIET, seed=7)
    assert (found.looks, found.requests, found.window_s) == (2, 40, 4.0)
    assert found.warmup_s == 2.0
    assert found.offered_rps == pytest.approx(10.0)
    assert found.over_limit == {"p99_ms": 30}
    assert found.drain_s == pytest.approx(0.0, abs=0.1)
    assert found.mean_ms == pytest.approx((10 * 20 + 30 * 80) / 40)
    assert window_histogram(first, second).count == 40
