"""The replays' own parts: reading a surface, the hill climb, a replay."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "search"
sys.path.insert(0, str(BENCHMARK))

from hill_climb import HillClimb  # noqa: E402
from replay import RECOMMENDED, Task, median_starts, replay  # noqa: E402
from surface import Surface, config_of_key  # noqa: E402

from tuner.errors import InputError  # noqa: E402

REAL = BENCHMARK / "surfaces" / "dense-2048x4-real-server.csv"
HEADER = (
    "max_batch_size,batch_timeout_micros,num_batch_threads,allowed_batch_sizes,"
    "offered_rps,throughput_rps,p50_ms,p99_ms,error_rate,replicate\n"
)


@pytest.fixture(scope="module")
def real():
    return Surface(REAL)


def test_the_recorded_grid_is_read_as_its_comments_say(real):
    assert real.slo.limits_ms == (("p99", 60.0),)
    assert len(real.curves) == 146
    assert real.best == 747.0
    rates = {role: real.truth[key] for role, key in real.baselines()}
    assert rates == {"off": 129.1, "default": 232.3}
    assert len(list(real.space.points())) == 144
    assert real.cpus == 2


def test_a_start_shows_its_configurations_rate_up_to_a_restarts_noise(real):
    key = max(real.truth, key=real.truth.get)
    rng = np.random.default_rng(0)
    rates = [real.measure(0, "sampler", key, rng).sustainable_rps for _ in range(200)]
    assert np.mean(rates) == pytest.approx(747, rel=0.01)
    assert np.std(rates) / 747 == pytest.approx(0.03, rel=0.2)


def test_replicates_of_some_tell_the_noise_of_all(tmp_path, real):
    assert real.noise == 0.03  # one replicate only
    rng = np.random.default_rng(3)
    lines = []
    for size in range(2, 42):
        for replicate, rate in enumerate(200 * np.exp(rng.normal(0, 0.08, 2))):
            lines.append(f"{size},0,1,any,{rate},{rate},5,20,0,{replicate}")
    file = tmp_path / "s.csv"
    file.write_text("# SLO: p99 <= 60 ms, no errors\n" + HEADER + "\n".join(lines) + "\n")
    assert Surface(file).noise == pytest.approx(0.08, rel=0.25)


def test_a_load_that_fails_below_one_that_held_bounds_the_rate(tmp_path):
    file = tmp_path / "s.csv"
    lines = ["8,0,1,any,100,100,5,20,0,0", "8,0,1,any,200,200,5,70,0,0"]
    lines += ["8,0,1,any,300,300,5,50,0,0", "8,0,1,any,50,50,5,20,0.1,1"]
    file.write_text("# SLO: p99 <= 60 ms, no errors\n" + HEADER + "\n".join(lines) + "\n")
    surface = Surface(file)
    (key,) = surface.curves
    assert surface.truth[key] == 50.0  # 100 in one replicate, 0 in the other
    assert config_of_key(key).batching.max_batch_size == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + "8,0,1,any,1,1,1,1,0,0\n", "no comment names the SLO"),
        ("# p99 <= 9 ms\nmax_batch_size\n8\n", "column batch_timeout_micros is missing"),
        ("# p99 <= 9 ms\n" + HEADER + "8,0,1,any,x,1,1,1,0,0\n", "not a number"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, said):
    file = tmp_path / "s.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        Surface(file)


def test_the_hill_climb_reaches_a_single_summit_and_measures_no_point_twice(real):
    climb = HillClimb(real.space, seed=1)
    asked = []
    while (point := climb.ask()) is not None:
        asked.append(tuple(point.values()))
        climb.tell(point, 1000.0 + point["max_batch_size"] - point["batch_timeout_micros"] / 1e3)
    assert len(set(asked)) == len(asked) == 144
    assert asked.index((128, 0, 1)) < 30


def test_a_replay_counts_starts_from_the_baselines_on():
    found = replay(Task(REAL, "random", 3))
    assert found.starts_to_5pct >= 3
    assert found.starts_to_1pct is None or found.starts_to_1pct >= found.starts_to_5pct
    assert 0 <= found.regret_percent < 100
    assert len(found.hypervolume) == RECOMMENDED
    assert list(found.hypervolume) == sorted(found.hypervolume)


def test_null_counts_as_more_than_any_number():
    assert median_starts([3, None, 5]) == 5
    assert median_starts([3, None, None]) == float("inf")
