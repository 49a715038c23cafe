import os

import pytest

from tuner.errors import ScenarioError
from tuner.server.cpus import parse_cpus, place

FOUR = frozenset({0, 1, 2, 3})


@pytest.mark.parametrize(
    ("server", "generator", "usable", "expected"),
    [
        ("auto", "auto", {0, 1, 2, 3}, ({1, 2, 3}, {0})),
        ("auto", "auto", {4, 7}, ({7}, {4})),
        ("auto", "auto", {5}, ({5}, {5})),
        ("0-1", "auto", {0, 1, 2, 3}, ({0, 1}, {2})),
        ("auto", "2-3", {0, 1, 2, 3}, ({0, 1}, {2, 3})),
        ("all", "auto", {0, 1}, ({0, 1}, {0})),
        ("all", "all", {0, 1}, ({0, 1}, {0, 1})),
        ("auto", "all", {0, 1}, ({0, 1}, {0, 1})),
        ("3,0-1", "2", {0, 1, 2, 3}, ({0, 1, 3}, {2})),
    ],
)
def test_placement(server, generator, usable, expected):
    placed = place(server, generator, frozenset(usable))
    assert (placed.server, placed.generator) == expected
    assert placed.apart == (not expected[0] & expected[1])


def test_without_a_choice_it_is_what_this_process_may_use():
    placed = place("auto", "auto")
    assert placed.server | placed.generator == os.sched_getaffinity(0)


def test_words_for_the_report():
    assert place("1-3", "0", FOUR).describe() == "server on 1,2,3, load generator on 0"


@pytest.mark.parametrize("text", ["", "x", "0-", "-1", "1-x", "0,,1", "0.5"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ScenarioError, match=r"server\.cpus: expected `auto`, `all` or a list"):
        parse_cpus(text, "server.cpus", FOUR)


@pytest.mark.parametrize("text", ["4", "0-7", "3-1"])
def test_processors_that_may_not_be_used_are_refused(text):
    with pytest.raises(ScenarioError, match=rf'(?s)load\.cpus: "{text}" names .*here: 0,1,2,3'):
        parse_cpus(text, "load.cpus", FOUR)
