import math

import numpy as np
import pytest
from trials import DEFAULT, batched, trial

from tuner.search.compare import Entrant, compared, measure_blocks

A, B, C = Entrant("a.txt", batched(8)), Entrant("b.txt", batched(32)), Entrant("c.txt", DEFAULT)


def run(entrants, rates_of, blocks=3):
    """Measure blocks in which an entrant's rate is what `rates_of` says of its task."""
    tasks = []

    def measure(task):
        tasks.append(task)
        rate = rates_of(task)
        return trial(
            task.number, task.role, task.config, rate, block=task.block, arm=task.arm, step=1.01
        )

    records = measure_blocks(entrants, blocks, 1, measure)
    return compared(records, entrants), tasks


def test_every_block_measures_everybody_once_with_equal_arrivals():
    _, tasks = run((A, B, C), lambda _task: 100.0, blocks=4)
    for block in range(4):
        ours = [task for task in tasks if task.block == block]
        assert {task.arm for task in ours} == {"a.txt", "b.txt", "c.txt"}
        assert {task.replicate for task in ours} == {block + 1}
    orders = {tuple(task.arm for task in tasks if task.block == block) for block in range(4)}
    assert len(orders) > 1


def test_the_second_start_begins_where_the_first_ended():
    _, tasks = run((A, B), lambda task: 100.0 + 50 * (task.arm == "b.txt"))
    assert [task.expected_rps for task in tasks if task.arm == "b.txt"] == [None, 150.0, 150.0]


@pytest.mark.parametrize(
    ("rates", "word", "said"),
    [
        ((120.0, 121.0, 119.0), "more", "proven to carry more, +20.0 % ["),
        ((80.0, 81.0, 79.0), "less", "proven to carry less, -20.0 % ["),
        ((100.1, 99.9, 100.0), "equal", "equal, -0.0 % ["),
        ((130.0, 80.0, 105.0), "open", "no difference proven, +3.0 % ["),
        ((120.0, None, None), "open", "too few valid blocks to tell"),
        ((0.0, 0.0, 0.0), "less", "the SLO holds at no load with b.txt"),
        ((0.0, 120.0, 120.0), "open", "too few valid blocks to tell"),
    ],
)
def test_the_verdict_in_words(rates, word, said):
    found, _ = run((A, B), lambda task: 100.0 if task.arm == "a.txt" else rates[task.block])
    assert found[1].word == word
    assert found[1].describe("a.txt").startswith(f"b.txt against a.txt: {said}")
    assert found[1].rates_rps == rates


def test_a_first_that_carries_nothing_is_beaten():
    found, _ = run((A, B), lambda task: 0.0 if task.arm == "a.txt" else 120.0)
    assert found[1].word == "more"
    assert "at no load with a.txt" in found[1].describe("a.txt")


def test_of_five_equals_the_best_is_rarely_called_better():
    rng = np.random.default_rng(5)
    five = tuple(Entrant(f"#{number}", batched(8)) for number in range(5))
    runs = 400
    false = sum(
        any(
            item.word == "more"
            for item in run(five, lambda _task: 100 * math.exp(rng.normal(0, 0.05)))[0]
        )
        for _ in range(runs)
    )
    assert false / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
