"""The order of a run, with trials that take no time: `measure` is a plain function here."""

from collections import Counter
from pathlib import Path

import pytest
from trials import DEFAULT, OFF, crashed, trial

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import HostError
from tuner.scenario import parse
from tuner.search.loop import Budget, Tuning
from tuner.search.sampler import Sampler
from tuner.search.space import Space

TEXT = """
name = "s"
[model]
path = "m"
[slo]
p99_ms = 60
[search]
device = "cpu"
guide_points = 2
[search.space]
max_batch_size = [8, 32, 128]
batch_timeout_micros = [0, 2000]
num_batch_threads = [1, 2]
"""
SCENARIO = parse(TEXT, Path("/s.toml"))


class Log:
    """Keeps what a watcher is told."""

    def __init__(self):
        self.begun = []
        self.finished = []

    def begin(self, task, *, done, total, left_s):
        self.begun.append((task, done, total, left_s))

    def finish(self, record):
        self.finished.append(record)


def rate_of(config):
    if config == OFF:
        return 100.0
    return 200.0 if config == DEFAULT else 200.0 + config.batching.max_batch_size


def measured(task):
    return trial(task.number, task.role, task.config, rate_of(task.config), block=task.block)


def tuning(*, records=(), trials=7, final_blocks=2, deadline_ns=None, measure=measured, disk=None):
    space = Space.of(SCENARIO)
    return Tuning(
        scenario=SCENARIO,
        slo=SCENARIO.limits(),
        sampler=Sampler(space, name="tpe", seed=1, database=None),
        space=space,
        cpus=2,
        budget=Budget(trials, final_blocks, deadline_ns),
        records=list(records),
        measure=measure,
        append=(disk if disk is not None else []).append,
        watcher=Log(),
    )


def roles(records):
    return [record.role for record in records]


def test_baselines_then_the_guide_then_the_sampler_then_the_final():
    run = tuning()
    run.run()
    assert roles(run.records) == [
        "off", "default", "guide", "guide", "sampler", "sampler", "sampler", *["final"] * 4,
    ]  # fmt: skip
    assert [record.number for record in run.records] == list(range(11))
    search = [record.config.id for record in run.records[:7]]
    assert len(set(search)) == 7
    assert roles(run.watcher.finished) == roles(run.records)


def test_every_block_measures_the_winner_and_the_default_with_equal_arrivals():
    tasks = []

    def measure(task):
        tasks.append(task)
        return measured(task)

    run = tuning(measure=measure, final_blocks=3)
    run.run()
    final = [task for task in tasks if task.role == "final"]
    assert Counter(task.block for task in final) == {0: 2, 1: 2, 2: 2}
    assert len({task.config.id for task in final}) == 2
    assert DEFAULT in {task.config for task in final}
    assert {(task.block, task.replicate) for task in final} == {(0, 1), (1, 2), (2, 3)}
    assert {task.replicate for task in tasks if task.role != "final"} == {0}
    winner = next(task for task in final if task.config != DEFAULT)
    assert winner.expected_rps == 328.0
    assert winner.config.batching.max_batch_size == 128
    assert winner.config.batching.max_enqueued_batches < 1000, (
        "the final measures what is deployed"
    )


@pytest.mark.parametrize("done", range(12))
def test_a_run_that_was_killed_goes_on_where_it_was(done):
    whole = tuning()
    whole.run()
    resumed = tuning(records=whole.records[:done])
    resumed.run()
    assert roles(resumed.records) == roles(whole.records)
    search = [record.config.id for record in resumed.records if record.role != "final"]
    assert len(set(search)) == 7
    final = [(record.block, record.config.id) for record in resumed.records[7:]]
    assert len(set(final)) == 4


def test_a_record_is_on_disk_before_anything_depends_on_it():
    disk = []

    def measure(task):
        assert len(disk) == task.number
        return measured(task)

    tuning(measure=measure, disk=disk).run()
    assert len(disk) == 11


def test_a_host_that_fails_stops_the_run_and_keeps_what_was_measured():
    disk = []

    def measure(task):
        if task.number == 3:
            raise HostError("the disk is full")
        return measured(task)

    with pytest.raises(HostError):
        tuning(measure=measure, disk=disk).run()
    assert roles(disk) == ["off", "default", "guide"]


def test_crashes_are_measured_once_and_the_search_goes_on():
    def measure(task):
        if task.config.batching and task.config.batching.num_batch_threads == 1:
            return crashed(task.number, task.role, task.config)
        return measured(task)

    run = tuning(measure=measure, trials=14)
    run.run()
    search = [record for record in run.records if record.role != "final"]
    assert len(search) == 2 + 12
    assert len({record.config.id for record in search}) == len(search)
    assert roles(run.records)[-4:] == ["final"] * 4


def test_a_space_that_is_exhausted_ends_the_search():
    run = tuning(trials=100)
    run.run()
    assert Counter(roles(run.records)) == {
        "off": 1, "default": 1, "guide": 2, "sampler": 10, "final": 4,
    }  # fmt: skip


def test_a_best_default_needs_no_final():
    def measure(task):
        rate = 500.0 if task.config == DEFAULT else 100.0
        return trial(task.number, task.role, task.config, rate)

    run = tuning(measure=measure)
    run.run()
    assert "final" not in roles(run.records)


def test_a_deadline_leaves_room_for_the_final():
    """Trials of 20 s each, and 170 s: the baselines, a few more, and the final's four."""
    run = tuning(trials=50, deadline_ns=now_ns() + 170 * NS_PER_S)
    elapsed_s = 0.0

    def measure(task):
        nonlocal elapsed_s
        elapsed_s += 20.0
        run.budget = Budget(50, 2, run.budget.deadline_ns - 20 * NS_PER_S)
        return measured(task)

    run.measure = measure
    run.run()
    assert roles(run.records) == ["off", "default", "guide", "guide", *["final"] * 4]
    assert elapsed_s <= 170


def test_people_are_told_how_far_it_is():
    run = tuning()
    run.run()
    (first, done, total, left_s), *rest = run.watcher.begun
    assert (first.role, done, total, left_s) == ("off", 0, 11, None)
    assert [left for *_, left in rest] == [20.0 * trials for trials in range(10, 0, -1)]
