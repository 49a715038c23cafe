from pathlib import Path

import pytest

from tuner.scenario import parse
from tuner.search.shape import Shape, shape_of, within

TEXT = """
name = "s"
[model]
path = "m"
[slo]
p99_ms = 60
[search]
"""


def search(text=""):
    return parse(TEXT + text, Path("/s.toml")).search


@pytest.mark.parametrize(
    ("starts", "shape"),
    [
        (4, Shape(2, 3)),
        (12, Shape(3, 3, aa_starts=1, reference_every=6)),
        (30, Shape(4, 5, aa_starts=2, reference_every=8)),
        (200, Shape(4, 10, aa_starts=3, reference_every=10)),
    ],
)
def test_more_starts_buy_more_proof(starts, shape):
    assert shape_of(search(), starts) == shape


def test_what_the_scenario_says_is_done():
    asked = search(
        "final_blocks = 2\nfinal_contenders = 4\naa_starts = 0\n"
        "reference_every = 7\noverload = []\n"
    )
    assert shape_of(asked, 200) == shape_of(asked, 4) == Shape(4, 2, 0, 7, ())


@pytest.mark.parametrize(
    ("starts", "cut"),
    [(40, Shape(4, 5)), (30, Shape(2, 5)), (12, Shape(2, 3)), (9, Shape(2, 3)), (8, Shape(2, 0))],
)
def test_a_final_takes_half_of_the_starts_and_never_fewer_than_three_blocks(starts, cut):
    assert within(Shape(4, 5), starts) == cut


def test_two_blocks_are_kept_where_they_are_asked_for():
    assert within(Shape(4, 2), 7) == Shape(2, 2)
    assert within(Shape(4, 2), 6) == Shape(2, 0)


def test_a_run_says_what_it_does_without():
    assert Shape(4, 5, 2, 8).left_out() == ""
    assert Shape(3, 3, 1, 6, ()).left_out() == (
        "this run does without an overload test, batching off in the final"
    )
    assert Shape(2, 3).left_out() == (
        "this run does without an A/A test of the noise, a watch for drift, runner-up and "
        "batching off in the final"
    )
    assert "nothing it finds is proven" in Shape(2, 0).left_out()
