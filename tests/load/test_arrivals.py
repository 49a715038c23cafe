import numpy as np
import pytest

from tuner.errors import InputError
from tuner.load import arrivals, traces
from tuner.load.open_loop import OpenLoop


def written(tmp_path, text):
    path = tmp_path / "trace.txt"
    path.write_text(text)
    return path


def test_poisson_is_reproducible_by_its_seed():
    first = arrivals.poisson(200, 10, seed=7)
    assert np.array_equal(first, arrivals.poisson(200, 10, seed=7))
    assert not np.array_equal(first, arrivals.poisson(200, 10, seed=8)[: len(first)])


def test_poisson_statistics():
    offsets = arrivals.poisson(100, 1000, seed=1)  # 100,000 arrivals expected, deviation 316
    gaps_s = np.diff(offsets) / 1e9
    assert offsets.dtype == np.int64
    assert abs(len(offsets) - 100_000) < 5 * 316
    assert np.all(gaps_s >= 0)
    assert offsets[0] >= 0 < offsets[-1] < 1000e9
    # Exponential gaps: mean 1 / rate, deviation equal to the mean, memoryless.
    assert gaps_s.mean() == pytest.approx(0.01, rel=0.02)
    assert gaps_s.std() == pytest.approx(0.01, rel=0.02)
    assert np.mean(gaps_s > 0.01) == pytest.approx(np.exp(-1), rel=0.02)
    # Counts in equal windows: the variance of a Poisson count is its mean.
    counts = np.bincount(offsets // 1_000_000_000)
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("rate", "duration", "expected_ms"),
    [
        (4, 1, [0, 250, 500, 750]),
        (2.5, 1, [0, 400, 800]),  # the next would be due at 1200 ms
        (0.1, 30, [0, 10_000, 20_000]),  # 0.1 * 30 is 3.0000000000000004 in floating point
        (0.1, 1, [0]),
    ],
)
def test_constant(rate, duration, expected_ms):
    assert (arrivals.constant(rate, duration) // 1_000_000).tolist() == expected_ms


def test_trace_as_recorded(tmp_path):
    path = written(tmp_path, "# offsets\n0.5\n\n0.75  # a comment\n0.75\n3\n")
    assert arrivals.trace(path, 2.0).tolist() == [500_000_000, 750_000_000, 750_000_000]


def test_trace_stretched_to_a_rate_keeps_its_shape_and_repeats(tmp_path):
    # Gaps 1 and 3: at 3 arrivals in 1.5 s the mean gap is 0.5 s, so the gaps are 0.25 and 0.75.
    path = written(tmp_path, "10\n11\n14\n")
    offsets = arrivals.trace(path, 3.0, rate_rps=2.0)
    assert (offsets // 1_000_000).tolist() == [0, 250, 1000, 1500, 1750, 2500]


def test_trace_of_one_burst_at_a_rate(tmp_path):
    offsets = arrivals.trace(written(tmp_path, "1\n1\n"), 2.0, rate_rps=2.0)
    assert (offsets // 1_000_000).tolist() == [0, 0, 1000, 1000]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0\nsoon\n", r"trace.txt:2: expected a time in seconds, got 'soon'"),
        ("0\n-1\n", r"trace.txt:2: expected"),
        ("nan\n", r"trace.txt:1: expected"),
        ("# c\n2\n1\n", r"trace.txt:3: 1 comes before the time above it"),
        ("# nothing\n", "holds no arrival"),
        ("5\n", "no arrival before 2 s"),
        ("at\n0\n", "trace.txt:1: expected"),  # a header, but of no CSV
        ("at,who\nat,who\n0,a\n", "trace.txt:2: expected"),
        ("0,a\nat,who\n", "trace.txt:2: expected"),
    ],
)
def test_bad_trace_names_file_and_line(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        arrivals.trace(written(tmp_path, text), 2.0)


def test_missing_and_binary_trace(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        arrivals.trace(tmp_path / "nowhere", 1.0)
    (tmp_path / "trace.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text"):
        arrivals.trace(tmp_path / "trace.bin", 1.0)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_bursts_have_the_rate_and_the_variation_asked_for(cv):
    offsets = arrivals.bursts(1000, 200, cv, seed=3)
    gaps = np.diff(offsets)
    assert len(offsets) == pytest.approx(200_000, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    assert np.all(gaps >= 0)
    assert offsets[0] >= 0
    assert offsets[-1] < 200e9


def test_bursts_are_seeded():
    first, again = arrivals.bursts(50, 10, 2.0, seed=1), arrivals.bursts(50, 10, 2.0, seed=1)
    assert np.array_equal(first, again)
    assert len(arrivals.bursts(50, 10, 2.0, seed=2)) != 0


def test_a_ramp_rises_evenly():
    offsets_s = arrivals.varying([(0, 0), (100, 2000)], seed=5) / 1e9
    assert len(offsets_s) == pytest.approx(100_000, rel=0.02)
    # The cumulative rate of a ramp is a parabola: a quarter of all come in the first half.
    assert np.mean(offsets_s < 50) == pytest.approx(0.25, abs=0.01)
    assert np.all(np.diff(offsets_s) >= 0)


def test_steps_hold_their_rates():
    profile = [(0, 100), (50, 100), (50, 1000), (60, 1000), (60, 10), (160, 10)]
    offsets_s = arrivals.varying(profile, seed=7) / 1e9
    counts, _ = np.histogram(offsets_s, bins=[0, 50, 60, 160])
    assert counts == pytest.approx([5000, 10_000, 1000], rel=0.1)


@pytest.mark.parametrize(
    "profile",
    [[], [(0, 1)], [(1, 1), (2, 1)], [(0, 1), (2, 1), (1, 1)], [(0, 0), (1, 0)], [(0, -1), (1, 2)],
     [(0, 1), (0, 2)], [(0, float("nan")), (1, 1)]],
)  # fmt: skip
def test_profiles_that_are_none(profile):
    with pytest.raises(InputError, match="profile"):
        arrivals.varying(profile, seed=1)


def test_a_trace_at_another_speed(tmp_path):
    path = tmp_path / "trace"
    path.write_text("0.5\n1\n4\n")
    assert (arrivals.trace(path, 1.0, speed=4.0) / 1e6).tolist() == [125, 250]


def test_a_trace_with_times_of_the_calendar_begins_with_its_first(tmp_path):
    path = written(tmp_path, "1764000000.25\n1764000000.5\n1764000001.25\n")
    assert (arrivals.trace(path, 5.0) / 1e6).round().tolist() == [0, 250, 1000]


def test_of_a_csv_the_first_column_counts(tmp_path):
    path = written(tmp_path, "# recorded\nstarted,path\n0.25,/a\n0.5,/b\n")
    assert (arrivals.trace(path, 5.0) / 1e6).tolist() == [250, 500]


def test_a_long_trace_is_read_to_its_end(tmp_path):
    text = "".join(f"{number / 100}\n" for number in range(5 * traces.CHUNK_LINES + 7))
    path = written(tmp_path, text)
    found = traces.look_through(path)
    assert (found.count, found.first_s) == (5 * traces.CHUNK_LINES + 7, 0.0)
    assert len(arrivals.trace(path, 1000.0)) == found.count
    # Two rounds and a half at a rate ten times as high.
    assert len(arrivals.trace(path, 2.5 * found.count / 1000, rate_rps=1000)) == pytest.approx(
        2.5 * found.count, abs=1
    )


def test_a_part_of_a_profile():
    profile = [(0, 100), (50, 100), (50, 1000), (60, 0)]
    assert arrivals.between(profile, 10, 20) == [(0, 100), (10, 100)]
    assert arrivals.between(profile, 40, 50) == [(0, 100), (10, 100)]
    assert arrivals.between(profile, 50, 55) == [(0, 1000), (5, 500)]
    assert arrivals.between(profile, 40, 55) == [(0, 100), (10, 100), (10, 1000), (15, 500)]
    assert arrivals.between(profile, 60, 70) == [(0, 0), (10, 0)]


@pytest.mark.parametrize("kind", ["poisson", "constant", "bursts", "profile", "trace"])
def test_a_schedule_in_pieces(kind, tmp_path):
    load = OpenLoop(
        None if kind == "profile" else 1000.0,
        10.0,
        seed=1,
        arrivals=kind,
        burst_cv=2.0 if kind == "bursts" else None,
        profile=((0, 1000), (10, 1000)) if kind == "profile" else (),
        trace=written(tmp_path, "0\n1\n4\n5\n5.1\n") if kind == "trace" else None,
    )
    ends, pieces = zip(*load.pieces(0.3), strict=True)
    assert len(pieces) == 34
    assert ends[-1] == 10.0
    for end_s, piece in zip(ends, pieces, strict=True):
        assert np.all(piece < end_s * 1e9)
        assert np.all(piece >= (end_s - 0.3 - 1e-6) * 1e9 if end_s < 10 else piece > 0)
    whole = np.concatenate(pieces)
    assert np.all(np.diff(whole) >= 0)
    if kind in {"poisson", "profile"}:
        assert len(whole) == pytest.approx(10_000, rel=0.05)
        gaps = np.diff(whole)
        assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.05)
    else:
        assert np.allclose(whole, load.offsets_ns(), atol=1)
