"""Which server a trial is measured on."""

from pathlib import Path

import pytest

from tuner.slo import Slo
from tuner.trial import Bench

OWN, KEPT = object(), object()


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
    assert bench(KEPT).launcher_for(role) is KEPT
    assert bench(None).launcher_for(role) is OWN


@pytest.mark.parametrize("role", ["off", "final", "given", "overload"])
def test_what_confirms_starts_a_server_of_its_own(role):
    assert bench(KEPT).launcher_for(role) is OWN
