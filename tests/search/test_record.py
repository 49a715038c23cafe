"""The recorder of grids: what it measures in which order, where it goes on, and one real start."""

import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "search"
sys.path.insert(0, str(BENCHMARK))

import record  # noqa: E402
from surface import Surface  # noqa: E402

from tuner.scenario import load  # noqa: E402
from tuner.scenario import parse as parse_scenario  # noqa: E402

HEADER = (
    "# t\n# SLO: p99 <= 60 ms, no errors\nmax_batch_size,batch_timeout_micros,num_batch_threads,"
    "offered_rps,throughput_rps,p50_ms,p99_ms,error_rate,replicate,seconds\n"
)
TEXT = """
name = "small"
[model]
path = "m"
[slo]
p99_ms = 60
[search.space]
max_batch_size = [4, 8]
batch_timeout_micros = [0]
num_batch_threads = [1, 2]
"""


@pytest.fixture
def scenario():
    return parse_scenario(TEXT, Path("/s.toml"))


@pytest.mark.parametrize("path", sorted((BENCHMARK / "recorded").glob("*.toml")), ids=str)
def test_every_recorded_scenario_can_be_read(path):
    points = list(record.grid(load(path), 1))
    assert [point["max_batch_size"] for point in points[:2]] == [0, 1000]
    assert len(points) == len({tuple(point.values()) for point in points}) >= 26


def test_a_grid_left_half_way_goes_on_with_what_is_missing(tmp_path, scenario):
    points = list(record.grid(scenario, 2))
    file = tmp_path / "s.csv"
    file.write_text(HEADER)
    orders = record.lacking(file, points, 2)
    assert [replicate for _, replicate in orders] == [0] * 6 + [1] * 6
    assert [point for point, _ in orders[2:6]] != [point for point, _ in orders[8:]]
    assert {orders[at][0]["max_batch_size"] for at in (0, 1, 6, 7)} == {0, 1000}
    point, replicate = orders[0]
    record._append(file, point, replicate, [record.Row(100.0, 99.0, 5.0, 20.0, 0.0, 1.0)])
    assert record.lacking(file, points, 2) == orders[1:]


def test_a_refused_configuration_is_recorded_as_one_that_carries_nothing(tmp_path, scenario):
    file = tmp_path / "s.csv"
    file.write_text(HEADER)
    for point in record.grid(scenario, 2):
        record._append(file, point, 0, [])
    assert set(Surface(file).truth.values()) == {0.0}


def test_the_ladder_begins_at_what_neighbours_carry(tmp_path, monkeypatch, scenario):
    file = tmp_path / "s.csv"
    rows = [f"{size},0,1,{10 * size},{10 * size},5,20,0,0,1\n" for size in (2, 16, 32, 64)]
    file.write_text(HEADER + "".join(rows))
    point = {"max_batch_size": 16, "batch_timeout_micros": 0, "num_batch_threads": 1}
    assert record.expected_rps(file, scenario, point) is None
    monkeypatch.setattr(record, "ENOUGH", 4)
    assert 100 < record.expected_rps(file, scenario, point) < 400


def test_the_ladder_falls_by_small_steps_from_a_good_start():
    ladder = record.Steps(100.0, 0.08, step=1.15)
    asked = []
    while (rate := ladder.next_rps()) is not None:
        asked.append(round(rate))
        ladder.tell(rate, held=rate <= 80.0)
    assert asked == [100, 87, 76, 81]


@pytest.mark.slow
def test_a_configuration_and_the_baselines_are_recorded_from_a_real_server(
    tmp_path, monkeypatch, dense_model
):
    monkeypatch.setattr(record, "FOREIGN_CPU", float("inf"))  # it need not be a good figure
    text = TEXT.replace('path = "m"', f'path = "{dense_model}"')
    text = text.replace("[4, 8]", "[8]").replace("[1, 2]", "[1]")
    path = tmp_path / "s.toml"
    path.write_text(text + "[measure]\nwindow_s = 1.0\nwarmup_s = 0.3\nresolution = 0.3\n")
    file = tmp_path / "s.csv"
    record.record(path, file, 1, until_s=float("inf"))
    surface = Surface(file)
    assert len(surface.curves) == 3
    assert {role for role, _ in surface.baselines()} == {"off", "default"}
    assert surface.best > 0
