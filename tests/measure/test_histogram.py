import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tuner.errors import StoreError
from tuner.measure.histogram import HIGHEST_US, LatencyHistogram, read_log, write_log
from tuner.measure.percentiles import nearest_rank

HOUR_NS = HIGHEST_US * 1000
SHARES = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)

latencies = arrays(np.int64, st.integers(0, 300), elements=st.integers(0, 2 * HOUR_NS))
histograms = st.builds(LatencyHistogram.of, latencies, st.integers(0, 20))


def contents(histogram):
    return (histogram.failed, histogram.overflow, list(histogram.answers.counts))


@given(values=arrays(np.int64, st.integers(1, 300), elements=st.integers(1000, HOUR_NS)))
@settings(deadline=None)
def test_percentiles_are_within_a_thousandth_above_the_exact_value(values):
    histogram = LatencyHistogram.of(values)
    ordered = np.sort(values) / 1e6
    for share, read in zip(SHARES, histogram.percentiles_ms(SHARES), strict=True):
        exact = ordered[nearest_rank(share, len(values)) - 1]
        # Rounded up to whole microseconds, then by at most one part in 1,024.
        assert exact <= read <= (exact + 0.001) * (1 + 1 / 1000)


@given(a=histograms, b=histograms, c=histograms)
@settings(deadline=None, max_examples=25)
def test_merging_is_associative_and_commutative(a, b, c):
    assert contents(a.merge(b).merge(c)) == contents(a.merge(b.merge(c)))
    assert contents(a.merge(b)) == contents(b.merge(a))


@given(a=latencies, b=latencies)
@settings(deadline=None, max_examples=25)
def test_merging_equals_recording_together(a, b):
    merged = LatencyHistogram.of(a, 1).merge(LatencyHistogram.of(b, 2))
    assert contents(merged) == contents(LatencyHistogram.of(np.concatenate([a, b]), 3))


@given(histogram=histograms, failed=st.integers(1, 50))
@settings(deadline=None, max_examples=25)
def test_percentiles_rise_and_failures_never_lower_one(histogram, failed):
    worse = histogram.merge(LatencyHistogram.of(np.zeros(0, np.int64), failed))
    before = [np.inf if ms is None else ms for ms in histogram.percentiles_ms(SHARES)]
    after = [np.inf if ms is None else ms for ms in worse.percentiles_ms(SHARES)]
    assert before == sorted(before)
    assert all(high >= low for low, high in zip(before, after, strict=True))


def test_merging_changes_neither_part():
    a, b = LatencyHistogram.of(np.array([1_000_000])), LatencyHistogram.of(np.array([2_000_000]))
    before = contents(a), contents(b)
    a.merge(b)
    assert (contents(a), contents(b)) == before


def test_nothing_is_dropped():
    values = np.array([0, 1, HOUR_NS, HOUR_NS + 1, 100 * HOUR_NS])
    histogram = LatencyHistogram.of(values, failed=2)
    assert histogram.count == 7
    assert histogram.overflow == 2
    assert histogram.percentile_ms(5 / 7) == pytest.approx(3_600_000, rel=1e-3)


def test_a_percentile_among_failures_is_none():
    histogram = LatencyHistogram.of(np.full(98, 1_000_000), failed=2)
    assert histogram.percentile_ms(0.98) == 1.0
    assert histogram.percentile_ms(0.99) is None


def test_an_empty_histogram_has_no_percentile():
    assert LatencyHistogram.of(np.zeros(0, np.int64)).percentile_ms(0.5) is None


def test_log_round_trip(tmp_path):
    values = np.random.default_rng(5).lognormal(16, 1, 5000).astype(np.int64)
    histogram = LatencyHistogram.of(values, failed=3)
    write_log(tmp_path / "level.hlog", histogram, start_epoch_s=1.8e9, length_s=30.0)
    again = read_log(tmp_path / "level.hlog")
    assert contents(again) == contents(histogram)
    assert again.percentiles_ms(SHARES) == histogram.percentiles_ms(SHARES)
    assert again.answers.get_start_time_stamp() == 1.8e12
    assert again.answers.get_end_time_stamp() == 1.8e12 + 30_000


def test_log_of_an_empty_histogram(tmp_path):
    empty = LatencyHistogram.of(np.zeros(0, np.int64), failed=9)
    write_log(tmp_path / "level.hlog", empty, start_epoch_s=1.8e9, length_s=1.0)
    assert contents(read_log(tmp_path / "level.hlog")) == contents(empty)


def test_intervals_of_a_log_are_summed(tmp_path):
    path = tmp_path / "level.hlog"
    histogram = LatencyHistogram.of(np.arange(1, 100) * 1_000_000)
    write_log(path, histogram, start_epoch_s=1.8e9, length_s=1.0)
    lines = path.read_text().splitlines()
    (interval,) = (line for line in lines if line[0].isdigit())
    path.write_text("\n".join([*lines, interval]) + "\n")
    assert contents(read_log(path)) == contents(histogram.merge(histogram))


def test_a_log_written_by_another_implementation_opens(tmp_path):
    # Written by hdr-histogram-js 3.0 from the values 1,000, 1,000, 2,000 and 40,000.
    path = tmp_path / "other.hlog"
    path.write_text(
        "#[Histogram log format version 1.3]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
        "1.000,1.000,40.000,HISTFAAAAC14nJNpmSzMwMDAycDAwMjAwMDMAAEgNsO1yUsYYPzz/Cxn+ZkWujABAHd9Bgo=\n"
    )
    assert read_log(path).percentiles_ms((0.5, 0.75, 1.0)) == [1.0, 2.0, 40.031]


@pytest.mark.parametrize("text", ["", "not a log\n", "0.0,1.0,2.0,HISTFAAAAEV42pNpmSz\n"])
def test_a_broken_log_is_named(tmp_path, text):
    path = tmp_path / "level.hlog"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"level\.hlog"):
        read_log(path)


def test_a_missing_log_or_folder_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"gone\.hlog: cannot read"):
        read_log(tmp_path / "gone.hlog")
    with pytest.raises(StoreError, match=r"cannot write the histogram"):
        write_log(
            tmp_path / "gone" / "x.hlog",
            LatencyHistogram.of(np.array([1])),
            start_epoch_s=1.0,
            length_s=1.0,
        )


@pytest.mark.parametrize("start_epoch_s", [1795406490.96166, 1795406490.9614, 1795406490.0])
def test_a_log_is_read_whatever_the_digits_of_its_start(tmp_path, start_epoch_s):
    path = tmp_path / "level.hlog"
    histogram = LatencyHistogram.of(np.array([2_000_000, 95_000_000]), failed=1)
    write_log(path, histogram, start_epoch_s=start_epoch_s, length_s=2.0)
    assert read_log(path).count == 3


def test_requests_over_a_limit_are_counted_from_the_histogram():
    histogram = LatencyHistogram.of(np.array([10, 20, 30, 40]) * 1_000_000, failed=2)
    assert [histogram.over(limit) for limit in (5, 10.1, 30.1, 50)] == [6, 5, 3, 2]
