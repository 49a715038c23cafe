"""The replays' own parts: reading a surface, the hill climb, a replay, the command over all."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "search"
sys.path.insert(0, str(BENCHMARK))

import one_run  # noqa: E402
import replay as command  # noqa: E402
from figures import median_starts  # noqa: E402
from hill_climb import HillClimb  # noqa: E402
from one_run import RECOMMENDED, SAMPLERS, Task, missing, replay  # noqa: E402
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


def small(folder):
    """A folder of one surface with 15 configurations, the best by far first among them."""
    rates = {4: 100, 8: 200, 16: 300, 32: 390, 64: 395}
    lines = [
        f"{size},{timeout},1,any,{rate - timeout / 100:g},{rate - timeout / 100:g},5,20,0,{at}"
        for size, rate in rates.items()
        for timeout in (0, 1000, 2000)
        for at in (0, 1)
    ]
    lines += ["0,0,0,any,50,50,5,20,0,0", "1000,0,1,any,250,250,5,20,0,0"]
    folder.mkdir(exist_ok=True)
    file = folder / "small.csv"
    file.write_text("# SLO: p99 <= 60 ms, no errors\n" + HEADER + "\n".join(lines) + "\n")
    return folder


def run_command(folder, out, *more):
    command.main([str(folder), "--out", str(out), "--seeds", "2", "--jobs", "1", *more])
    return json.loads((out / "results.json").read_text())


QUICK = ("--samplers", "random", "grid", "hill-climb", "nsga2")


def test_the_command_writes_what_scripts_read(tmp_path):
    results = run_command(small(tmp_path / "in"), tmp_path / "out", *QUICK)
    assert list(results) == list(QUICK[1:])
    for by_surface in results.values():
        assert list(by_surface) == ["small"]
        found = by_surface["small"]
        for name in ("starts_to_5pct", "starts_to_1pct", "regret_percent"):
            assert len(found[name]) == 2
        assert all(start >= 3 for start in found["starts_to_5pct"])
        assert len(found["hypervolume"]) <= RECOMMENDED
    assert results["grid"]["small"]["starts_to_5pct"] == [12, 12]  # in order: 32/0 is the tenth
    assert "| small |" in (tmp_path / "out" / "results.md").read_text()
    assert (tmp_path / "out" / "results.png").read_bytes().startswith(b"\x89PNG")


def test_killed_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    folder, out = small(tmp_path / "in"), tmp_path / "out"
    through = run_command(folder, tmp_path / "through", *QUICK)
    done = []

    def killed(task):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(task)
        return replay(task)

    monkeypatch.setattr(command, "replay", killed)
    with pytest.raises(KeyboardInterrupt):
        run_command(folder, out, *QUICK)
    with (out / "replays.jsonl").open("a") as file:
        file.write('{"replay": "cut sho')
    again = []
    monkeypatch.setattr(command, "replay", lambda task: again.append(task) or replay(task))
    assert run_command(folder, out, *QUICK) == through
    assert len(again) == 2 * len(QUICK[1:]) - 5
    assert not set(again) & set(done)


def test_what_was_replayed_on_another_surface_of_that_name_does_not_count(tmp_path):
    folder, out = small(tmp_path / "in"), tmp_path / "out"
    run_command(folder, out, "--samplers", "grid")
    file = folder / "small.csv"
    file.write_text(file.read_text().replace("4,0,1,any,100,100", "4,0,1,any,900,900"))
    assert run_command(folder, out, "--samplers", "grid")["grid"]["small"]["starts_to_1pct"] == [
        3,
        3,
    ]


def test_a_sampler_that_is_not_installed_is_left_out_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(one_run.NEEDED, "gp", ("a_package_of_nobody",))
    out = tmp_path / "out"
    results = run_command(small(tmp_path / "in"), out, "--samplers", "grid", "gp")
    assert list(results) == ["grid"]
    assert "gp is left out: it needs a_package_of_nobody" in capsys.readouterr().out
    assert "`gp` is left out" in (out / "results.md").read_text()


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if not missing(name)])
def test_every_sampler_searches_a_grid_with_holes(tmp_path, sampler):
    folder = small(tmp_path / "in")
    file = folder / "small.csv"
    kept = [line for line in file.read_text().splitlines(True) if not line.startswith("16,1000")]
    file.write_text("".join(kept))
    found = replay(Task(file, sampler, 1))
    assert found.starts_to_1pct is not None
    assert found.starts_to_1pct <= 16
