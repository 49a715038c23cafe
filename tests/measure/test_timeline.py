import numpy as np
import pytest

from tuner.measure.histogram import HistogramLog, LatencyHistogram, read_log
from tuner.measure.timeline import Timeline
from tuner.measure.total import Total
from tuner.measure.window import measure
from tuner.records import HostEvidence, Samples, Status
from tuner.slo import Slo

SLO = Slo((("p90", 20.0),), max_error_rate=0.5)
HOST = HostEvidence(server_cpu=0.5, generator_cpu=0.1, foreign_cpu=0.0)
SECOND = 1_000_000_000
START = 77 * SECOND
STATUSES = (Status("OK"), Status("UNAVAILABLE", "full"))


def samples(seconds=10, rate=200, *, failing=0.0, seed=1):
    """Requests of a steady server, some slower than the limit, some failing."""
    rng = np.random.default_rng(seed)
    count = seconds * rate
    intended = START + np.sort(rng.integers(0, seconds * SECOND, count))
    done = intended + rng.gamma(2, 4e6, count).astype(np.int64)
    return Samples(
        intended_ns=intended,
        sent_ns=intended + rng.integers(0, 200_000, count),
        done_ns=done,
        status=(rng.random(count) < failing).astype(np.uint16),
        rows=np.ones(count, np.int32),
        statuses=STATUSES,
        started_ns=START,
        ended_ns=START + seconds * SECOND,
        cpu_s=0.0,
    )


def pick(whole, chosen, statuses=STATUSES):
    columns = {
        name: getattr(whole, name)[chosen]
        for name in ("intended_ns", "sent_ns", "done_ns", "status", "rows")
    }
    return Samples(
        **columns, statuses=statuses, started_ns=START, ended_ns=whole.ended_ns, cpu_s=0.0
    )


def timeline(window_s=2):
    return Timeline(started_ns=START, window_ns=window_s * SECOND, slo=SLO)


def spans(line, until_s, *, last=False):
    return list(line.ended(START + round(until_s * SECOND), lambda _: HOST, last=last))


def test_windows_hold_what_was_intended_in_them_whenever_it_came():
    whole = samples()
    line = timeline()
    by_end = np.argsort(whole.done_ns)
    for part in np.array_split(by_end, 30):
        line.add(pick(whole, part))
    found = spans(line, 10)
    assert [span.number for span in found] == [0, 1, 2, 3, 4]
    for span in found:
        inside = (whole.intended_ns - START) // (2 * SECOND) == span.number
        assert span.measurement.requests == np.count_nonzero(inside)
        assert span.measurement.offered_rps == np.count_nonzero(inside) / 2
        assert span.histogram.count == span.measurement.requests
        assert span.measurement.host == HOST


def test_a_window_is_handed_out_once_and_forgotten():
    whole = samples()
    line = timeline()
    held = []
    for second in range(10):
        line.add(pick(whole, (whole.intended_ns - START) // SECOND == second))
        held.append(line.held)
        assert len(spans(line, second + 1)) == (second % 2)
    assert max(held) <= 2.2 * 2 * 200  # never more than two windows' requests
    assert line.held == 0


def test_a_last_window_may_be_cut_short():
    whole = samples(seconds=5)
    line = timeline()
    line.add(whole)
    assert len(spans(line, 5)) == 2
    (rest,) = spans(line, 5, last=True)
    assert rest.cut.length_s == 1.0
    assert spans(line, 5, last=True) == []


def test_throughput_is_that_of_the_answers_that_came_in_it():
    """A stall moves answers to a later window; offered load stays where it was intended."""
    whole = samples(seconds=4, rate=100)
    stalled = pick(whole, slice(None))
    wake = START + 2 * SECOND + SECOND // 2
    np.maximum(stalled.done_ns, wake, out=stalled.done_ns)
    line = timeline()
    line.add(stalled)
    first, second = spans(line, 4)
    assert first.measurement.throughput_rps == 0
    assert second.measurement.throughput_rps == pytest.approx(200, rel=0.05)
    assert first.measurement.offered_rps == pytest.approx(100, rel=0.2)


def test_an_empty_window_is_one_too():
    found = spans(timeline(), 4)
    assert [span.measurement.requests for span in found] == [0, 0]
    assert [span.measurement.percentiles_ms for span in found] == [{}, {}]


def test_statuses_of_several_processes_are_one_table():
    whole = samples(failing=0.2)
    other = pick(whole, slice(0, None, 2), (Status("OK"), Status("CANCELLED", "gone")))
    line = timeline(10)
    line.add(pick(whole, slice(1, None, 2)))
    line.add(other)
    (span,) = spans(line, 10)
    assert span.measurement.errors.keys() == {"UNAVAILABLE: full", "CANCELLED: gone"}
    assert sum(span.measurement.errors.values()) == np.count_nonzero(whole.status)


def test_the_total_of_all_windows_is_the_whole_run():
    whole = samples(failing=0.01, seed=3)
    line, total = timeline(), Total(SLO)
    line.add(whole)
    for span in spans(line, 10):
        total.add(span.cut, span.measurement)
    found = total.measurement(window_s=10.0, ended_ns=whole.ended_ns, seed=1)
    expected = measure(whole, warmup_s=0, slo=SLO, host=HOST, seed=1)
    for name in ("requests", "answered", "over_limit", "errors", "offered_rps", "achieved_share"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("throughput_rps", "goodput_rps", "rows_rps", "mean_ms", "max_ms", "drain_s",
                 "lateness_max_ms"):  # fmt: skip
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    for name in ("lateness_p50_ms", "lateness_p99_ms"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=0.02), name
    assert found.percentiles_ms == pytest.approx(expected.percentiles_ms, rel=2e-3)
    assert found.host == HOST
    assert found.looks == 5


def test_requests_that_come_too_late_for_their_window_are_not_lost():
    whole = samples()
    line, total = timeline(), Total(SLO)
    late = np.arange(len(whole)) == 3
    line.add(pick(whole, ~late))
    for span in spans(line, 10):
        total.add(span.cut, span.measurement)
    line.add(pick(whole, late))
    for stray in line.strays:
        total.add_strays(stray)
    assert total.requests == len(whole)
    assert total.windows == 5


def test_a_total_of_nothing():
    found = Total(SLO).measurement(window_s=2.0, ended_ns=START, seed=1)
    assert (found.requests, found.throughput_rps, found.max_ms) == (0, 0.0, None)


def test_a_log_of_many_intervals_opens_as_one(tmp_path):
    path = tmp_path / "run.hlog"
    parts = [LatencyHistogram.of(np.array([k, 2 * k]) * 1_000_000, failed=k) for k in (1, 5, 9)]
    with HistogramLog(path, start_epoch_s=1.8e9) as log:
        for part in parts:
            log.add(part, length_s=2.0)
    found = read_log(path)
    assert found.count == 6 + 15
    assert found.failed == 15
    intervals = [line for line in path.read_text().splitlines() if line[0].isdigit()]
    assert [float(line.split(",")[0]) for line in intervals] == [1.8e9, 1.8e9 + 2, 1.8e9 + 4]
