"""The bound of the queue: derived, tried under overload, shortened where it helps."""

from dataclasses import replace
from pathlib import Path

import pytest
from trials import DEFAULT, OFF, batched, level, trial

from tuner.records import Overload
from tuner.search.queue_bound import (
    MOST_TESTS,
    best,
    deployable,
    next_bound,
    overload_tests,
    passes,
    queue_of,
    shortened,
    told,
    too_short,
)
from tuner.search.space import UNBOUNDED_QUEUE
from tuner.slo import Slo
from tuner.store import read_trials

SLO = Slo((("p99", 60.0),), max_error_rate=0.001)
BEST = trial(3, "sampler", batched(32), 400.0)
EXAMPLE = Path(__file__).parents[2] / "results" / "example" / "trials.jsonl"


def at(bound, record=BEST):
    return replace(
        record.config, batching=replace(record.config.batching, max_enqueued_batches=bound)
    )


def overloaded(number, bound, finding, tail_ms=100.0, *, kept=None, shed_at_rate=None):
    """A test at 150 % of 400/s, after one at 85 % where `shed_at_rate` is given."""
    if kept is None:
        kept = {"sheds": 0.95, "collapses": 0.1, "stalls": 0.0}[finding]
    found = [Overload(1.5, 600.0, 400.0 * kept, 0.2, 0.1, tail_ms, 0.1, finding)]
    if shed_at_rate is not None:
        found.insert(
            0, Overload(0.85, 340.0, 330.0, shed_at_rate, 0.0, 50.0, 0.0, "carries", 2000)
        )
    return replace(trial(number, "overload", at(bound), None), overload=tuple(found))


def waiting(longest_ms):
    """The best, 440 rows a second at its peak, with the longest wait at the rate it carried."""
    held = level(400.0)
    held = replace(held, measurement=replace(held.measurement, max_ms=longest_ms))
    return replace(BEST, levels=(held, *BEST.levels[1:]))


def bound(records, record=BEST):
    return queue_of(deployable(record, SLO, records))


@pytest.mark.parametrize(
    ("tests", "deployed"),
    [
        ([], 2),
        ([overloaded(4, 9, "sheds")], 9),
        ([overloaded(4, 8, "stalls"), overloaded(5, 3, "sheds")], 3),
        ([overloaded(4, 8, "sheds"), overloaded(5, 3, "stalls")], 8),
        ([overloaded(4, 8, "stalls", 400.0), overloaded(5, 3, "stalls", 200.0)], 3),
        ([overloaded(4, 8, "collapses"), overloaded(5, 3, "sheds")], 3),
        # Shortening helped nothing, so that the longer one, which costs least, is kept.
        ([overloaded(4, 8, "collapses"), overloaded(5, 3, "collapses", kept=0.12)], 8),
        ([overloaded(4, 8, "collapses"), overloaded(5, 3, "collapses", kept=0.4)], 3),
        ([overloaded(4, 8, "stalls"), overloaded(5, 3, "collapses")], 3),
        # What older tuners called shedding, though next to nothing was answered in time.
        ([overloaded(4, 8, "sheds", kept=0.0), overloaded(5, 3, "sheds")], 3),
    ],
)
def test_the_bound_that_was_shown_to_do_least_harm_is_deployed(tests, deployed):
    assert bound(tests) == deployed


@pytest.mark.parametrize("first", ["collapses", "stalls"])
def test_a_queue_that_costs_the_sustainable_rate_itself_is_too_short(first):
    long, short = overloaded(4, 8, first), overloaded(5, 3, "sheds", shed_at_rate=0.012)
    assert too_short(short, SLO)
    assert not passes(short, SLO)
    assert bound([long, short]) == 8
    assert next_bound(BEST, SLO, [long, short]) is None
    words = told(BEST.config, SLO, [long, short])
    assert "with a queue of 8 batches less than 80 %" in words
    assert "a queue of 3 batches turns away 1.2 % at 85 % of the sustainable rate" in words


@pytest.mark.parametrize(("shed", "enough"), [(0, True), (4, True), (7, False)])
def test_a_few_that_are_turned_away_may_be_chance(shed, enough):
    """Two of 2,000 may fail; 5 or more do in one of twenty such tests."""
    test = overloaded(5, 3, "sheds", shed_at_rate=shed / 2000)
    assert passes(test, SLO) is enough


def test_what_the_final_measured_is_deployed():
    """Also of a run whose tests would choose another bound by today's rule."""
    tests = [overloaded(4, 8, "stalls"), overloaded(5, 3, "sheds")]
    final = trial(6, "final", at(8), 390.0, block=0)
    assert bound([*tests, final]) == 8
    assert next_bound(BEST, SLO, [overloaded(4, 8, "stalls"), final]) is None


def test_the_defaults_are_no_other_bound_of_a_configuration_like_them():
    default = trial(0, "default", DEFAULT, 200.0)
    like = trial(1, "sampler", at(UNBOUNDED_QUEUE, default), 210.0)
    test = replace(overloaded(5, 1, "stalls"), config=DEFAULT)
    records = [default, like, test]
    assert overload_tests(DEFAULT, records) == [test]
    assert not overload_tests(like.config, records)
    assert next_bound(default, SLO, records[:2]) == DEFAULT
    assert next_bound(default, SLO, records) is None, "it is tested once, as it is"


def test_a_test_of_another_configuration_proves_nothing():
    other = trial(4, "sampler", batched(16), 380.0)
    assert bound([overloaded(4, 9, "sheds")], other) == 3


def test_baselines_are_deployed_as_they_are():
    for config in (OFF, DEFAULT):
        assert deployable(trial(0, "off", config, 100.0), SLO, []) == config


def test_the_bound_allows_for_waits_that_the_slo_allows():
    """A level that held, one in a hundred of its answers over 60 ms, the longest after 300 ms."""
    # 1.25 * 300 ms of 440 rows a second are 165 rows: six batches of 32, and the one that fills.
    assert bound([], waiting(300.0)) == 7


@pytest.mark.parametrize(
    ("tail_ms", "shorter"),
    [
        (600.0, 1),  # 11 batches take 600 ms to answer, so one takes 55
        (180.0, 2),  # 60 ms answer 3.67 of them, one of which runs
        (65.0, 9),
        (60.0, None),  # in time: it is not the queue
        (None, 4),
    ],
)
def test_a_queue_is_shortened_to_what_drains_within_the_limit(tail_ms, shorter):
    config = shortened(overloaded(4, 10, "collapses", tail_ms), SLO)
    assert (config and queue_of(config)) == shorter


def test_batches_that_run_side_by_side_are_ahead_of_the_queue():
    """Of 10 + 4 batches that take 120 ms to answer 60 ms answer 7, and 4 of them run."""
    four = trial(0, "sampler", batched(32, threads=4), 400.0)
    test = replace(overloaded(4, 10, "collapses", 120.0), config=at(10, four))
    assert queue_of(shortened(test, SLO)) == 4, "a batch for each thread at least"
    assert queue_of(shortened(replace(test, config=at(20, four)), SLO)) == 8


def test_the_shortest_queue_is_one_batch_a_thread():
    assert shortened(overloaded(4, 1, "collapses"), SLO) is None
    assert shortened(trial(0, "overload", OFF, None), SLO) is None
    words = told(BEST.config, SLO, [overloaded(4, 1, "collapses")])
    assert "a queue cannot be shorter, and full batches of 32 rows take too long" in words


def test_a_few_bounds_are_tried_and_no_more():
    """A tail that is always longer than the last one let expect."""
    records = [BEST]
    while (config := next_bound(BEST, SLO, records)) is not None:
        test = overloaded(
            len(records), max(queue_of(config), 30 - len(records)), "collapses", 66.0
        )
        records.append(test)
    assert len(records) == 1 + MOST_TESTS


def test_the_first_queue_that_is_tried_drains_within_the_limit():
    """Of 440 rows a second 60 ms answer 26: three batches of 8, of which one runs."""
    small = trial(3, "sampler", batched(8), 400.0)
    assert queue_of(next_bound(small, SLO, [small])) == 2
    assert queue_of(next_bound(BEST, SLO, [BEST])) == 1, "a batch for each thread at least"


def test_a_first_queue_that_turns_away_what_it_should_carry_is_made_longer():
    patient = waiting(300.0)
    short = overloaded(4, 1, "sheds", shed_at_rate=0.012)
    longer = next_bound(patient, SLO, [patient, short])
    assert queue_of(longer) == bound([], patient) == 7
    sheds = overloaded(5, 7, "sheds", shed_at_rate=0.0)
    assert next_bound(patient, SLO, [patient, short, sheds]) is None
    assert bound([short, sheds], patient) == 7
    words = told(BEST.config, SLO, [short, sheds])
    assert "a queue of 1 batch turned away what it should carry and is lengthened to 7" in words


def test_a_queue_too_short_that_no_other_followed_is_told_as_that():
    short = overloaded(4, 1, "sheds", shed_at_rate=0.012)
    assert told(BEST.config, SLO, [short]) == (
        "a queue of 1 batch turns away 1.2 % at 85 % of the sustainable rate already, where 0.1 % "
        "may fail: limit the load before the server"
    )


def test_between_a_queue_too_short_and_one_too_long_one_more_is_tried():
    patient = waiting(300.0)
    short = overloaded(4, 1, "sheds", shed_at_rate=0.012)
    long = overloaded(5, 7, "collapses", 100.0, shed_at_rate=0.0)
    assert queue_of(next_bound(patient, SLO, [patient, short, long])) == 3
    hopeless = overloaded(5, 7, "collapses", 240.0, shed_at_rate=0.0)
    assert next_bound(patient, SLO, [patient, short, hopeless]) is None, "1 was too short"


def test_what_passes_is_tried_no_further():
    assert next_bound(BEST, SLO, [overloaded(4, 9, "sheds")]) is None
    assert told(BEST.config, SLO, [overloaded(4, 9, "sheds")]) == ""
    words = told(BEST.config, SLO, [overloaded(4, 9, "collapses"), overloaded(5, 4, "sheds")])
    assert "a queue of 9 batches was too long under overload and is shortened to 4" in words


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (DEFAULT, "its queue holds 10 batches of up to 1,000 rows: limit the load"),
        (OFF, "without batching no queue is bounded: limit the load"),
    ],
)
def test_a_queue_that_is_not_ours_is_told_of_where_it_fails(config, said):
    test = replace(overloaded(4, 9, "stalls"), config=config)
    assert said in told(config, SLO, [test])
    assert told(config, SLO, [replace(overloaded(4, 9, "sheds"), config=config)]) == ""


def test_a_server_that_dies_of_overload_passes_nothing():
    died = replace(overloaded(4, 9, "sheds"), outcome="failed", overload=())
    assert not passes(died, SLO)
    assert queue_of(next_bound(BEST, SLO, [died])) == 4
    assert best([died, overloaded(5, 4, "collapses")], SLO).number == 5


def test_a_recorded_run_keeps_the_queue_that_its_final_measured():
    """Its tests say `sheds` of a queue with which nothing was answered in time."""
    records = read_trials(EXAMPLE)
    tests = [record for record in records if record.role == "overload"]
    assert {found.finding for test in tests for found in test.overload} >= {"sheds", "stalls"}
    assert not any(passes(test, SLO) for test in tests)
    finals = {record.config for record in records if record.arm == "winner"}
    searched = next(r for r in records if r.role in {"guide", "sampler"}
                    and overload_tests(r.config, records))  # fmt: skip
    assert {deployable(searched, SLO, records)} == finals
