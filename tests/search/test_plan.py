from dataclasses import replace

import pytest
from trials import DEFAULT, OFF, batched, trial

from tuner.search.lengths import Ahead, Lengths
from tuner.search.plan import CLOSING_S, RESERVE, Plan, plan

RECORDS = [
    trial(0, "off", OFF, 100.0, wall_s=60.0),
    trial(1, "default", DEFAULT, 200.0, wall_s=40.0),
    trial(2, "guide", batched(8), 250.0, wall_s=20.0),
    trial(3, "sampler", batched(16), 250.0, wall_s=30.0),
]


def planned(finalists=(), records=RECORDS, **limits):
    asked = {"trials": None, "time_s": None, "points": 100}
    proof = [Ahead("final", config) for config in finalists]
    return plan(records, proof, **(asked | limits))


def test_starts_of_the_search_take_what_the_searchs_own_took():
    assert planned(trials=10) == Plan(6, 0, 150.0, 150.0)


def test_contenders_take_what_they_took_before():
    found = planned([DEFAULT, OFF, None], trials=4)
    assert (found.search_starts, found.final_starts) == (0, 3)
    assert found.left_s == 40.0 + 60.0 + 40.0
    again = [*RECORDS, trial(4, "final", DEFAULT, 200.0, block=0, wall_s=10.0)]
    assert planned([DEFAULT], again, trials=4).left_s == 10.0, "as in the final so far"


def test_finals_tell_what_those_of_others_will_take():
    """The default's was half as long again as in the search, so batching off's will be too."""
    records = [*RECORDS, trial(4, "final", DEFAULT, 200.0, block=0, wall_s=3.0 + 1.5 * 37.0)]
    assert Lengths(records).of([Ahead("final", OFF)]) == pytest.approx(3.0 + 1.5 * 57.0)


def test_references_tell_before_the_first_final():
    records = [*RECORDS, trial(4, "reference", DEFAULT, 200.0, wall_s=3.0 + 74.0)]
    assert Lengths(records).of([Ahead("final", batched(8))]) == pytest.approx(3.0 + 2 * 17.0)


def test_overload_tests_tell_of_overload_tests():
    assert Lengths(RECORDS).of([Ahead("overload", batched(8))]) == 20.0
    records = [*RECORDS, trial(4, "overload", batched(16), 200.0, wall_s=70.0)]
    assert Lengths(records).of([Ahead("overload", batched(8))]) == 70.0


@pytest.mark.parametrize("role", ["off", "default", "guide", "sampler", "reference", "overload",
                                  "final"])  # fmt: skip
def test_waiting_for_a_neighbour_says_nothing_of_later_starts(role):
    records = [
        *RECORDS,
        trial(4, "reference", DEFAULT, 200.0, wall_s=40.0),
        trial(5, "overload", batched(16), 250.0, wall_s=30.0),
        trial(6, "final", DEFAULT, 200.0, block=0, wall_s=40.0),
    ]
    proof = [Ahead("overload", batched(8)), *(Ahead("final", at) for at in (DEFAULT, OFF, None))]
    limits = {"trials": 10, "time_s": None, "points": 100, "aa_starts": 1, "reference_every": 5}
    late = [
        replace(record, wall_s=record.wall_s + 120.0, waited_s=120.0)
        if record.role == role
        else record
        for record in records
    ]
    assert plan(late, proof, **limits) == plan(records, proof, **limits)


def test_the_search_gets_the_time_that_the_final_leaves():
    reserved_s = RESERVE * 80
    found = planned([DEFAULT] * 2, time_s=180 + reserved_s + CLOSING_S)
    assert (found.search_starts, found.final_in_s, found.left_s) == (4, 100.0, 180.0)
    assert planned([DEFAULT] * 2, time_s=60.0).search_starts == 0


def test_neither_points_nor_trials_are_exceeded():
    assert planned(trials=50, points=3).search_starts == 3
    assert planned(trials=5, time_s=10_000.0).search_starts == 1


def test_references_take_their_share():
    found = planned(trials=10, aa_starts=2, reference_every=3)
    assert found.search_starts == 2 + 6 + 2
    assert found.left_s == (2 + 2) * 40.0 + 6 * 25.0, "references as long as the default"


def test_before_the_first_start_nothing_is_known_of_time():
    assert planned([None] * 4, [], trials=12) == Plan(12, 4, None, None)
    assert "done in" not in Plan(12, 4, None, None).describe()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Plan(6, 4, 300.0, 540.0), "6 more starts for the search, then 4 to prove what it finds, "
         "beginning in about 5 min; done in about 9 min"),
        (Plan(200, 0, 28_800.0, 28_800.0), "200 more starts for the search; done in about "
         "8 h 00 min"),
    ],
)  # fmt: skip
def test_the_plan_in_words(found, said):
    assert found.describe() == f"plan: {said}"
