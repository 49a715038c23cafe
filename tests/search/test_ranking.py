from dataclasses import replace

import pytest
from trials import DEFAULT, OFF, batched, level, trial

from tuner.records import Overload
from tuner.search.ranking import deployable, tightened
from tuner.slo import Slo

SLO = Slo((("p99", 60.0),), max_error_rate=0.001)
BEST = trial(3, "sampler", batched(32), 400.0)


def overloaded(number, bound, finding, tail_ms=100.0):
    config = replace(BEST.config.batching, max_enqueued_batches=bound)
    found = Overload(1.5, 600.0, 300.0, 0.2, 0.1, tail_ms, 0.1, finding)
    record = trial(number, "overload", replace(BEST.config, batching=config), None)
    return replace(record, overload=(found,))


def bound(records, record=BEST):
    return deployable(record, SLO, records).batching.max_enqueued_batches


def test_the_bound_that_was_proven_is_deployed():
    assert bound([]) == 2
    assert bound([overloaded(4, 2, "sheds")]) == 2
    assert bound([overloaded(4, 8, "stalls"), overloaded(5, 3, "sheds")]) == 3
    assert bound([overloaded(4, 8, "sheds"), overloaded(5, 3, "stalls")]) == 8
    assert bound([overloaded(4, 8, "stalls"), overloaded(5, 3, "stalls")]) == 3


def test_a_test_of_another_configuration_proves_nothing():
    other = trial(4, "sampler", batched(16), 380.0)
    assert bound([overloaded(4, 9, "sheds")], other) == 3


def test_baselines_are_deployed_as_they_are():
    for config in (OFF, DEFAULT):
        assert deployable(trial(0, "off", config, 100.0), SLO, []) == config


def test_the_bound_allows_for_waits_that_the_slo_allows():
    """A level that held, one in a hundred of its answers over 60 ms, the longest after 300 ms."""
    held = level(400.0)
    held = replace(held, measurement=replace(held.measurement, max_ms=300.0))
    patient = replace(BEST, levels=(held, *BEST.levels[1:]))
    # 1.25 * 300 ms of 440 rows a second are 165 rows: six batches of 32, and the one that fills.
    assert bound([], patient) == 7


@pytest.mark.parametrize(("tail_ms", "shorter"), [(1800.0, 1), (360.0, 5), (180.0, 8), (None, 8)])
def test_a_queue_that_stalls_is_shortened_by_how_late_it_answers(tail_ms, shorter):
    config = tightened(overloaded(4, 10, "stalls", tail_ms), SLO, 3.0)
    assert config.batching.max_enqueued_batches == shorter


def test_the_shortest_queue_is_one_batch_a_thread():
    assert tightened(overloaded(4, 1, "stalls"), SLO, 3.0) is None
    assert tightened(trial(0, "overload", OFF, None), SLO, 3.0) is None
