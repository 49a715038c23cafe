"""Whole runs on a recorded grid: the verdicts are judged by the truth, not by the run."""

import sys
from dataclasses import replace
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "search"
sys.path.insert(0, str(BENCHMARK))

from decisions import Run, covered, replayed, summary  # noqa: E402

REAL = BENCHMARK / "surfaces" / "dense-2048x4-real-server.csv"


def test_a_gain_that_is_there_is_proven_and_its_interval_judged():
    found = replayed(Run(REAL, "random", 1, equal=False))
    assert found.verdict == "gain"
    assert found.true_gain > 0
    assert not found.worse
    lost = replace(found, true_gain=-5.0)
    assert covered([lost]) == (0, 1)


def test_where_all_is_equal_the_true_gain_is_none():
    found = [replayed(Run(REAL, "random", seed, equal=True)) for seed in range(2)]
    assert {one.true_gain for one in found} == {0.0}
    assert "false gains in 2 runs" in summary(found, found)
