"""Traces of load: both forms, every way to write a time, and what is refused."""

import numpy as np
import pytest

from tuner.errors import UsageError
from tuner.simulate.trace import INTERVAL_S, read_trace


def written(tmp_path, text):
    path = tmp_path / "day.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "times",
    [
        ("0", "900", "1800"),
        ("00:00", "00:15", "00:30"),
        ("06:00:00", "06:15:00", "06:30:00"),
        ("2026-03-01T22:00:00Z", "2026-03-01T22:15:00Z", "2026-03-01T22:30:00Z"),
        ("2026-03-01 22:00", "2026-03-01 22:15", "2026-03-01 22:30"),
    ],
)
def test_rates_by_interval_with_times_of_every_kind(tmp_path, times):
    rows = "\n".join(f"{time},{rate}" for time, rate in zip(times, (100, 400, 250), strict=True))
    trace = read_trace(written(tmp_path, f"time,rate_rps\n{rows}\n"))
    assert [interval.lasts_s for interval in trace.intervals] == [900, 900, 900]
    assert trace.intervals[1].starts_s == 900
    assert trace.peak_rps == 400
    assert trace.mean_rps == 250
    assert trace.cv is None


def test_columns_are_found_by_name_and_others_left_alone(tmp_path):
    trace = read_trace(written(tmp_path, "host,RPS,Time\na,5,0\nb,7,60\n"))
    assert [interval.rate_rps for interval in trace.intervals] == [5, 7]


@pytest.mark.parametrize("cv", [1.0, 2.0])
def test_arrivals_are_counted_and_their_burstiness_is_that_of_their_gaps(tmp_path, cv):
    rng = np.random.default_rng(1)
    halves = [rng.gamma(1 / cv**2, cv**2 / rate, round(600 * rate)) for rate in (20, 60)]
    arrivals = np.cumsum(np.concatenate(halves))
    trace = read_trace(written(tmp_path, "arrival\n" + "\n".join(map(str, arrivals))))
    assert trace.intervals[0].lasts_s == INTERVAL_S
    assert trace.intervals[0].rate_rps == pytest.approx(20, rel=0.1)
    assert trace.peak_rps == pytest.approx(60, rel=0.1)
    assert trace.cv == pytest.approx(cv, rel=0.08)


def test_arrivals_of_a_coarse_clock_tell_no_burstiness(tmp_path):
    seconds = np.sort(np.random.default_rng(1).integers(0, 900, 9000))
    trace = read_trace(written(tmp_path, "arrival\n" + "\n".join(map(str, seconds))))
    assert trace.cv is None
    assert trace.mean_rps == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must name the columns"),
        ("0,10\n60,20\n", "first line must name the columns"),
        ("time,rate_rps\n0,10\n", "needs two intervals"),
        ("time,rate_rps\n0,10\nlater,20\n", "line 3: expected a time, got 'later'"),
        ("time,rate_rps\n0,10\n60,many\n", "line 3: expected a rate, got 'many'"),
        ("time,rate_rps\n0,10\n60\n", "line 3: expected a rate, got ''"),
        ("time,rate_rps\n0,10\n60,nan\n", "line 3: expected a rate"),
        ("time,rate_rps\n60,10\n0,20\n", "line 3: this time is not later"),
        ("time,rate_rps\n0,-1\n60,20\n", "rates must not be below 0"),
        ("time,rate_rps\n0,0\n60,0\n", "one must be above"),
        ("arrival\n1\n2\n", "2 arrivals are too few"),
    ],
)
def test_what_is_no_trace_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_trace(written(tmp_path, text))


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv: cannot be read"):
        read_trace(tmp_path / "none.csv")
    path = tmp_path / "day.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match=r"day\.csv: cannot be read"):
        read_trace(path)
