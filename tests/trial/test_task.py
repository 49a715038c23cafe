"""Which server a trial is measured on."""

from pathlib import Path

import pytest

from tuner.slo import Slo
from tuner.trial import Bench


class Kept:
    """Counts how often it was told to stop its server."""

    closed = 0

    def close(self):
        self.closed += 1


OWN = object()


def bench(keeper):
    return Bench(
        scenario=None,
        slo=Slo(limits_ms=(("p99", 50.0),), max_error_rate=0.0, confidence=0.95),
        launcher=OWN,
        pool=Path("requests.pool"),
        folder=Path("run"),
        environment_id="e-1",
        generator_cpus=frozenset({0}),
        notify=lambda _text: None,
        keeper=keeper,
    )


@pytest.mark.parametrize("role", ["default", "guide", "sampler"])
def test_a_trial_of_the_search_may_use_a_kept_server(role):
    kept = Kept()
    assert bench(kept).launcher_for(role) is kept
    assert not kept.closed
    assert bench(None).launcher_for(role) is OWN


@pytest.mark.parametrize("role", ["off", "final", "given", "overload"])
def test_what_confirms_starts_a_server_of_its_own(role):
    kept = Kept()
    assert bench(kept).launcher_for(role) is OWN
    assert kept.closed
