"""Simulated requests: they come as the load generator sends them."""

import numpy as np
import pytest

from tuner.load import arrivals
from tuner.simulate.sustain import Workload


def gaps(workload):
    return np.diff(workload.arrivals)


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_gaps_vary_as_asked_around_a_mean_of_one(cv):
    workload = Workload.drawn(100_000, cv=cv, seed=4)
    assert workload.arrivals[-1] == pytest.approx(100_000)
    assert gaps(workload).std() == pytest.approx(cv, rel=0.03)


def test_without_variation_they_are_even_and_one_is_poisson():
    assert gaps(Workload.drawn(50, cv=0.0)) == pytest.approx(1.0)
    assert np.array_equal(
        Workload.drawn(50, seed=2).arrivals, Workload.poisson(50, seed=2).arrivals
    )


def test_bursts_are_those_of_the_generator():
    """Shares of gaps up to some lengths: a coefficient of variation alone says little of them."""
    sent = np.diff(arrivals.bursts(1000, 100, 2.0, seed=5)) / 1e6
    simulated = gaps(Workload.drawn(100_000, cv=2.0, seed=5))
    for most in (0.001, 0.01, 0.1, 1.0, 4.0):
        assert np.mean(sent <= most) == pytest.approx(np.mean(simulated <= most), abs=0.01)
