import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ladder import LOWEST_SHARE, MOST_LEVELS, Ladder, Rungs


def climb(ladder, holds, *, arrives=lambda rate: rate):
    """Drive a ladder against a server that keeps its promise where `holds(offered)` says so."""
    asked = []
    while (rate := ladder.next_rps()) is not None:
        assert rate > 0
        asked.append(rate)
        offered = arrives(rate)
        ladder.tell(offered, held=holds(offered))
    return asked


@given(
    capacity=st.floats(12.0, 800.0),
    resolution=st.floats(0.05, 0.5),
    step=st.sampled_from([1.25, 1.5]),
)
def test_the_capacity_of_a_steady_server_is_bracketed(capacity, resolution, step):
    ladder = Ladder(start_rps=100.0, resolution=resolution, step=step)
    asked = climb(ladder, lambda rate: rate <= capacity)
    assert ladder.held_rps <= capacity < ladder.failed_rps
    assert ladder.failed_rps <= ladder.held_rps * (1 + resolution)
    assert len(asked) == len(set(asked)) <= MOST_LEVELS


@given(
    capacity=st.floats(50.0, 200.0),
    shares=st.lists(st.floats(0.9, 1.1), min_size=MOST_LEVELS, max_size=MOST_LEVELS),
)
def test_what_arrived_decides_and_not_what_was_asked(capacity, shares):
    noise = iter(shares)
    ladder = Ladder(start_rps=100.0, resolution=0.05)
    climb(ladder, lambda rate: rate <= capacity, arrives=lambda rate: rate * next(noise))
    assert ladder.held_rps <= capacity < ladder.failed_rps


def test_a_good_first_guess_takes_two_loads():
    ladder = Ladder(start_rps=100.0, resolution=0.1, step=1.1)
    assert climb(ladder, lambda rate: rate < 105) == [100.0, pytest.approx(110.0)]


def test_a_server_that_holds_nowhere_is_given_up():
    ladder = Ladder(start_rps=1000.0, resolution=0.05)
    asked = climb(ladder, lambda _rate: False)
    assert ladder.held_rps == 0
    assert ladder.failed_rps == min(asked) >= 1000 * LOWEST_SHARE
    assert len(asked) < MOST_LEVELS


def test_a_server_that_holds_everywhere_ends_without_a_ceiling():
    ladder = Ladder(start_rps=100.0, resolution=0.05)
    asked = climb(ladder, lambda _rate: True)
    assert len(asked) == MOST_LEVELS
    assert ladder.held_rps == max(asked)
    assert math.isinf(ladder.failed_rps)


def test_nothing_that_is_called_sustainable_has_a_failing_load_under_it():
    """A server that misses its promise in a band under one where it keeps it."""
    ladder = Ladder(start_rps=100.0, resolution=0.05)
    ladder.tell(100.0, held=True)
    ladder.tell(125.0, held=True)
    ladder.tell(90.0, held=False)  # asked for more, but fewer arrived
    assert ladder.held_rps == 0
    climb(ladder, lambda rate: rate <= 70 or 95 <= rate <= 130)
    assert 0 < ladder.held_rps <= 70 < ladder.failed_rps <= ladder.held_rps * 1.05


def test_a_load_that_holds_above_a_failing_one_proves_nothing():
    ladder = Ladder(start_rps=100.0, resolution=0.05)
    ladder.tell(100.0, held=True)
    ladder.tell(120.0, held=False)
    ladder.tell(121.0, held=True)
    assert (ladder.held_rps, ladder.failed_rps) == (100.0, 120.0)


def test_a_load_that_teaches_nothing_is_not_asked_again():
    """Equal seeds draw equal arrivals, so the same load would show the same thing again."""
    ladder = Ladder(start_rps=100.0, resolution=0.05)
    ladder.tell(100.0, held=True)
    ladder.tell(108.0, held=False)
    asked = ladder.next_rps()
    ladder.tell(109.0, held=True)
    assert asked == pytest.approx(math.sqrt(100 * 108))
    assert ladder.next_rps() is None


def test_given_loads_are_climbed_to_the_first_that_fails():
    rungs = Rungs((100.0, 200.0, 300.0, 400.0))
    assert climb(rungs, lambda rate: rate <= 200) == [100.0, 200.0, 300.0]
    assert (rungs.held_rps, rungs.failed_rps) == (200.0, 300.0)
    assert climb(Rungs((50.0,)), lambda _rate: True) == [50.0]


@given(most=st.floats(80.0, 600.0), arriving=st.floats(0.95, 1.05))
def test_a_load_that_cannot_be_offered_is_not_asked_for(most, arriving):
    ladder = Ladder(start_rps=100.0, resolution=0.06, most_rps=most)
    asked = climb(ladder, lambda rate: True, arrives=lambda rate: rate * arriving)
    assert max(asked) <= most
    assert ladder.limited
    assert ladder.held_rps >= 0.85 * most


def test_a_server_at_its_end_below_the_highest_load_is_not_limited_by_it():
    ladder = Ladder(start_rps=100.0, resolution=0.06, most_rps=500.0)
    climb(ladder, lambda rate: rate <= 440.0)
    assert not ladder.limited
    assert ladder.failed_rps <= 500.0


def test_an_undecided_load_is_climbed_over_and_not_called_failed():
    ladder = Ladder(start_rps=100.0, resolution=0.2)
    ladder.tell(100.0, held=True)
    ladder.tell(125.0, held=None)
    assert ladder.next_rps() == pytest.approx(125 * 1.25)
    ladder.tell(156.0, held=True)
    assert (ladder.held_rps, ladder.open_rps) == (156.0, []), "what holds above settles it"


def test_two_undecided_loads_end_the_climb():
    ladder = Ladder(start_rps=100.0, resolution=0.1)
    asked = climb(ladder, lambda rate: True if rate <= 110 else None)
    assert asked[:3] == [100.0, 125.0, 156.25]
    assert max(asked) == 156.25
    assert 110 / 1.1 < ladder.held_rps <= 110
    assert math.isinf(ladder.failed_rps), "nothing was refuted"


def test_the_bracket_above_what_holds_ends_at_the_lowest_load_that_did_not():
    ladder = Ladder(start_rps=100.0, resolution=0.2)
    asked = climb(ladder, lambda rate: None if 110 < rate < 140 else rate <= 110)
    assert ladder.failed_rps > 140
    assert ladder.held_rps <= 110
    assert min(ladder.open_rps) <= ladder.held_rps * 1.2
    assert len(asked) == len(set(asked))


def test_an_undecided_load_that_is_settled_later_holds():
    ladder = Ladder(start_rps=100.0, resolution=0.2)
    ladder.tell(100.0, held=None)
    ladder.tell(125.0, held=None)
    ladder.settle(100.0)
    assert (ladder.held_rps, ladder.open_rps) == (100.0, [125.0])
    assert ladder.next_rps() == pytest.approx(125 * 1.25)


def test_of_loads_that_somebody_chose_an_undecided_one_does_not_hold():
    rungs = Rungs((100.0, 200.0, 300.0))
    assert climb(rungs, lambda rate: True if rate < 200 else None) == [100.0, 200.0]
    assert rungs.failed_rps == 200.0
