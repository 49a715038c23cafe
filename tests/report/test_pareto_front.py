from hypothesis import given
from hypothesis import strategies as st

from tuner.report import pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=40)


def test_a_point_that_another_beats_in_both_is_left_out():
    assert pareto_front([(100, 10), (200, 20), (150, 30)]) == (0, 1)


def test_of_equal_points_the_first_is_kept():
    assert pareto_front([(100, 10), (100, 10)]) == (0,)


def test_equal_throughput_keeps_the_faster():
    assert pareto_front([(100, 12), (100, 10)]) == (1,)


def test_no_points_no_front():
    assert pareto_front([]) == ()


def beats(first, second):
    return first != second and first[0] >= second[0] and first[1] <= second[1]


@given(POINTS)
def test_the_front_is_exactly_what_nothing_beats(points):
    front = {points[index] for index in pareto_front(points)}
    assert front == {p for p in points if not any(beats(other, p) for other in points)}


@given(POINTS)
def test_throughput_and_latency_rise_along_the_front(points):
    front = [points[index] for index in pareto_front(points)]
    assert front == sorted(front)
    assert [latency for _, latency in front] == sorted({latency for _, latency in front})
