import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from trial.simulated import SimulatedGenerator, SimulatedServer, bench, exponential, levels
from trials import batched

from tuner.clock import now_ns
from tuner.measure.histogram import read_log
from tuner.records import HostEvidence
from tuner.slo import Slo
from tuner.trial import Task, run_trial
from tuner.trial.levels import Levels, doubling, hopeless_outstanding


def offered(folder, capacity_rps, rate_rps, **task):
    measured = levels(folder, SimulatedServer(exponential(capacity_rps)), **task)
    return measured, measured.offered(rate_rps)


def test_a_clear_answer_takes_one_window(tmp_path):
    measured, level = offered(tmp_path, 1000.0, 300.0)
    assert (level.verdict.feasible, level.measurement.looks) == (True, 1)
    assert level.measurement.window_s < 5
    assert len(measured.generator.driven) == 1


def test_a_close_call_takes_all_windows_and_counts_all_requests(tmp_path):
    # 5 % of the answers of an M/M/1 queue take longer than ln 20 / (capacity - load).
    measured, level = offered(tmp_path, 500 + math.log(20) / 0.05, 500.0)
    assert level.verdict.feasible is None
    assert level.measurement.looks == 3
    assert level.measurement.window_s == pytest.approx(8.0, abs=0.2)
    assert level.measurement.requests == pytest.approx(500 * 8.0, rel=0.05)
    seeds = [load.seed for load in measured.generator.driven]
    assert len(set(seeds)) == len(seeds) == 3
    histogram = read_log(tmp_path / level.histogram)
    assert histogram.count == level.measurement.requests
    assert histogram.over(50.0) == pytest.approx(level.measurement.over_limit["p95_ms"], abs=2)


def test_every_request_of_every_window_is_kept(tmp_path):
    measured, level = offered(tmp_path, 500 + math.log(20) / 0.05, 500.0)
    kept = np.load(tmp_path / "level-00.npz")
    assert set(kept["stretch"]) == {0, 1, 2}
    assert len(kept["rows"]) == len(kept["status"]) > level.measurement.requests
    assert kept["intended_ns"].min() >= 0
    assert measured.measuring_s > level.measurement.window_s


@pytest.mark.parametrize("excess", [1.1, 1.3, 2.0])
def test_overload_is_seen_in_one_window(tmp_path, excess):
    _, level = offered(tmp_path, 500.0, 500.0 * excess)
    assert (level.verdict.valid, level.verdict.feasible) == (True, False)
    assert level.measurement.looks == 1
    assert level.measurement.latency_slope_ms > 0
    assert level.verdict.reasons


def test_a_hopeless_load_is_cut_short(tmp_path):
    measured, level = offered(tmp_path, 500.0, 3000.0)
    assert level.verdict.feasible is False
    assert level.measurement.window_s < 1
    assert measured.measuring_s < 4


def test_equal_arrivals_for_equal_replicates(tmp_path):
    first, _ = offered(tmp_path, 1000.0, 300.0, replicate=2)
    second, _ = offered(tmp_path, 900.0, 300.0, replicate=2)
    other, _ = offered(tmp_path, 900.0, 300.0, replicate=3)
    seeds = [item.generator.driven[0].seed for item in (first, second, other)]
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize(
    ("first", "most", "lengths"),
    [
        (2.0, 30.0, (2.0, 2.0, 4.0)),
        (2.0, 8.0, (2.0, 2.0, 4.0)),
        (3.0, 8.0, (3.0, 3.0, 2.0)),
        (5.0, 8.0, (5.0, 3.0)),
        (6.0, 8.0, (6.0,)),
        (8.0, 8.0, (8.0,)),
    ],
)
def test_windows_double_up_to_the_longest(first, most, lengths):
    assert doubling(first, most, 3) == lengths


def test_hopeless_is_what_a_whole_window_could_not_make_good():
    slo = Slo((("p99", 60.0),))
    # 60 of them are within the limit; of the rest twice 1 % of 30,000 may be over.
    assert hopeless_outstanding(slo, 1000.0, 30.0) == 60 + 600 + 2
    assert hopeless_outstanding(Slo((("p50", 10.0), ("p99", 60.0))), 1000.0, 30.0) == 662


@pytest.mark.parametrize("busy", [0.5, 0.8, 0.9])
@pytest.mark.parametrize(("excess", "wrong"), [(1.05, True), (0.9, False)])
def test_correlated_requests_seldom_deceive(tmp_path, busy, excess, wrong):
    """An M/M/1 queue, 5 % beyond what it sustains or 10 % below: its limit is 50 ms at p95.

    `busy` is its utilisation at the sustainable rate; latency is exponential with the rate that
    capacity exceeds load by.
    """
    spare_rps = math.log(20) / 0.05
    capacity = spare_rps / (1 - busy)
    runs = 40
    mistakes = sum(
        offered(tmp_path, capacity, excess * busy * capacity, replicate=seed)[1].verdict.feasible
        is wrong
        for seed in range(runs)
    )
    assert mistakes / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


class Meter:
    """A machine on which somebody else is busy while `busy` holds."""

    def __init__(self, busy):
        self.busy = busy

    def start(self):
        pass

    def stop(self, *, generator_s=None):
        return HostEvidence(1.0, 0.2, 1.5 if self.busy() else 0.0)


@pytest.mark.parametrize(("busy_s", "valid"), [(120.0, True), (1000.0, False)])
def test_a_neighbour_of_two_minutes_is_waited_for(tmp_path, monkeypatch, busy_s, valid):
    measured = levels(tmp_path, SimulatedServer(exponential(1000.0)))
    slept = []
    monkeypatch.setattr("tuner.trial.levels.time.sleep", slept.append)
    monkeypatch.setattr(Levels, "meter", lambda _self: Meter(lambda: sum(slept) < busy_s))
    level = measured.offered(300.0)
    assert level.verdict.valid is valid
    assert sum(slept) == pytest.approx(min(busy_s, 180.0), abs=2.0)
    assert not measured.done[0].verdict.valid
    if not valid:
        assert [doubt.code for doubt in level.verdict.doubts] == ["foreign-cpu"]


def test_the_record_says_how_long_a_neighbour_was_waited_for(tmp_path, monkeypatch):
    class Here:
        @contextmanager
        def launch(self, _config, _folder):
            yield server

    server, slept = SimulatedServer(exponential(1000.0)), []
    at = replace(bench(tmp_path), launcher=Here())
    monkeypatch.setattr("tuner.trial.run._generator", lambda *_: SimulatedGenerator(server))
    monkeypatch.setattr("tuner.trial.levels.time.sleep", slept.append)
    monkeypatch.setattr(Levels, "meter", lambda _self: Meter(lambda: sum(slept) < 120.0))
    record = run_trial(at, Task(number=0, role="sampler", config=batched(32)))
    assert record.outcome == "ok"
    assert record.waited_s == sum(slept) == 120.0
    assert record.own_s == max(0.0, record.wall_s - 120.0)


def test_a_neighbour_is_not_waited_for_beyond_the_deadline(tmp_path, monkeypatch):
    measured = levels(tmp_path, SimulatedServer(exponential(1000.0)), until_ns=now_ns() - 1)
    monkeypatch.setattr("tuner.trial.levels.time.sleep", lambda _s: pytest.fail("it waited"))
    monkeypatch.setattr(Levels, "meter", lambda _self: Meter(lambda: True))
    assert [doubt.code for doubt in measured.offered(300.0).verdict.doubts] == ["foreign-cpu"]
    assert len(measured.done) == 1
