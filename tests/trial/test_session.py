"""A started server, made ready: what the closed loop shows of it."""

from dataclasses import replace

import numpy as np
import pytest
from trial.simulated import SimulatedGenerator, SimulatedServer, exponential, levels

from tuner.errors import CandidateError
from tuner.trial.session import make_ready


class WithDeadline(SimulatedGenerator):
    """Gives up every request that waits with `most` others or more."""

    def __init__(self, server, most):
        super().__init__(server)
        self.most = most
        self.tried = []

    def closed_loop(self, *, concurrency, duration_s, seed):
        self.tried.append(concurrency)
        samples = super().closed_loop(concurrency=concurrency, duration_s=duration_s, seed=seed)
        if concurrency <= self.most:
            return samples
        return replace(samples, status=np.ones_like(samples.status))


def made(folder, most):
    trials = levels(folder, SimulatedServer(exponential(100.0)))
    trials.generator = WithDeadline(trials.server, most)
    return trials


def test_a_server_too_slow_for_so_many_at_once_is_asked_fewer(tmp_path):
    trials = made(tmp_path, most=9)
    peak = make_ready(trials).measurement
    assert trials.generator.tried[:4] == [64, 32, 16, 8]
    assert set(trials.generator.tried[4:]) == {8}
    assert (peak.concurrency, peak.answered) == (8, peak.requests)
    assert peak.throughput_rps == pytest.approx(100, rel=0.1)


def test_a_server_that_answers_nothing_is_given_up_with_its_reason(tmp_path):
    trials = made(tmp_path, most=0)
    with pytest.raises(
        CandidateError, match="no request was answered in the closed loop"
    ) as found:
        make_ready(trials)
    assert "UNAVAILABLE" in found.value.hint
    assert min(trials.generator.tried) == 1
