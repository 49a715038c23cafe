"""The order of a run, with trials that take no time: `measure` is a plain function here."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from trials import DEFAULT, OFF, batched, crashed, trial

from tuner.clock import NS_PER_S
from tuner.errors import HostError
from tuner.records import Overload
from tuner.scenario import parse
from tuner.search.loop import Budget, Tuning
from tuner.search.plan import CLOSING_S
from tuner.search.queue_bound import CARRIED
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
final_blocks = {blocks}
final_contenders = {contenders}
aa_starts = {aa_starts}
reference_every = {reference_every}
overload = {overload}
[search.space]
max_batch_size = {sizes}
batch_timeout_micros = [0, 2000]
num_batch_threads = [1, 2]
"""


def scenario(**search):
    usual = {"blocks": 2, "contenders": 2, "aa_starts": 0, "reference_every": 0, "overload": []}
    usual["sizes"] = [8, 32, 128]
    return parse(TEXT.format(**(usual | search)), Path("/s.toml"))


class Log:
    """Keeps what a watcher is told."""

    def __init__(self):
        self.begun = []
        self.finished = []
        self.said = []

    def begin(self, task, *, done, total, left_s):
        self.begun.append((task, done, total, left_s))

    def finish(self, record):
        self.finished.append(record)

    def say(self, text):
        self.said.append(text)


def rate_of(config):
    if config == OFF:
        return 100.0
    return 200.0 if config == DEFAULT else 200.0 + config.batching.max_batch_size


def measured(task):
    rate = rate_of(task.config)
    found = trial(task.number, task.role, task.config, rate, block=task.block, arm=task.arm)
    return replace(found, overload=tuple(map(shed, task.overload_shares)))


def shed(share, kept=0.95):
    """What a server does that carries 400/s and turns away what is more."""
    turned_away = max(0.0, 1 - 1 / share)
    return Overload(share, 400 * share, 400 * kept, turned_away, 0.01, 70.0, 0.1, "sheds", 2000)


def tuning(
    *,
    records=(),
    trials=7,
    final_blocks=2,
    contenders=2,
    deadline_ns=None,
    measure=measured,
    disk=None,
    **search,
):
    asked = scenario(blocks=final_blocks, contenders=contenders, **search)
    space = Space.of(asked)
    return Tuning(
        scenario=asked,
        slo=asked.limits(),
        sampler=Sampler(space, name="tpe", seed=1, database=None),
        space=space,
        cpus=2,
        budget=Budget(trials, deadline_ns),
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


class Clock:
    """Time that passes only where a trial is measured."""

    def __init__(self, seconds_of):
        self.now_ns = 10**15
        self.seconds_of = seconds_of

    def __call__(self):
        return self.now_ns

    def measure(self, task):
        seconds = self.seconds_of(task)
        self.now_ns += int(seconds * NS_PER_S)
        return replace(measured(task), wall_s=seconds)

    def before(self, seconds):
        return self.now_ns + int(seconds * NS_PER_S)


def timed(seconds_of, *, within_s, **more):
    clock = Clock(seconds_of)
    run = tuning(deadline_ns=clock.before(within_s), measure=clock.measure, **more)
    run.clock = clock
    return run, clock


def test_a_default_that_is_best_by_a_hair_has_to_prove_it():
    def measure(task):
        rate = 350.0 if task.config == DEFAULT and task.role != "final" else rate_of(task.config)
        return trial(task.number, task.role, task.config, rate, block=task.block, arm=task.arm)

    run = tuning(measure=measure)
    run.run()
    assert roles(run.records)[-4:] == ["final"] * 4
    assert {record.arm for record in run.records[-4:]} == {"winner", "default"}


def test_a_deadline_leaves_room_for_the_final():
    """Trials of 20 s each, and 185 s: the baselines, two more, and the final's four."""
    run, _ = timed(lambda _task: 20.0, within_s=185, trials=50)
    run.run()
    assert roles(run.records) == ["off", "default", "guide", "guide", *["final"] * 4]


def blocks_of(run):
    """The arms in each block of the final."""
    finals = [record for record in run.records if record.role == "final"]
    numbers = sorted({record.block for record in finals})
    return [{record.arm for record in finals if record.block == number} for number in numbers]


@pytest.mark.parametrize("longer", [1.0, 1.1, 1.2])
@pytest.mark.parametrize("within_s", [900, 1000, 1110])
def test_the_final_keeps_time_for_its_blocks_though_its_starts_take_longer(within_s, longer):
    run, clock = timed(
        lambda task: 60.0 * longer if task.role == "final" else 60.0,
        within_s=within_s, trials=None, final_blocks=3,
    )  # fmt: skip
    run.run()
    assert len(blocks_of(run)) >= 3
    assert all(arms == {"winner", "default"} for arms in blocks_of(run))
    assert clock.now_ns <= run.budget.deadline_ns


def test_time_that_is_left_over_goes_into_more_blocks():
    run, clock = timed(lambda _task: 20.0, within_s=600, trials=None, final_blocks=3)
    run.run()
    assert len(blocks_of(run)) == 7, "the space was exhausted after 14 starts"
    assert clock.before(0) <= run.budget.deadline_ns < clock.before(10 + 2 * 20)
    asked, _ = timed(lambda _task: 20.0, within_s=900, trials=7, final_blocks=3)
    asked.run()
    assert len(blocks_of(asked)) == 3, "who says how much is measured gets no more"


def test_where_a_block_does_not_fit_winner_and_default_meet_alone():
    run, _ = timed(
        lambda task: 40.0 if task.role == "final" else 20.0,
        within_s=570, trials=7, final_blocks=3, contenders=4,
    )  # fmt: skip
    run.run()
    assert blocks_of(run) == [{"winner", "default", "runner-up", "off"}] * 2 + [
        {"winner", "default"}
    ]


def test_a_final_that_was_cut_off_says_so_and_is_finished_first_on_resume():
    run, _ = timed(
        lambda task: 90.0 if task.role == "final" else 20.0,
        within_s=400, trials=None, final_blocks=3,
    )  # fmt: skip
    run.run()
    assert len(blocks_of(run)) < 3
    assert "of the final's 3 blocks" in run.watcher.said[-1]
    resumed, _ = timed(
        lambda _task: 90.0, within_s=800, trials=None, final_blocks=3, records=run.records
    )
    resumed.run()
    assert {record.role for record in resumed.records[len(run.records) :]} == {"final"}
    assert len(blocks_of(resumed)) >= 3


def test_without_a_number_of_trials_the_search_fills_the_time():
    run, clock = timed(lambda _task: 20.0, within_s=300, trials=None)
    end_ns = run.budget.deadline_ns
    run.run()
    assert roles(run.records)[-4:] == ["final"] * 4
    assert end_ns - 50 * NS_PER_S < clock.now_ns <= end_ns, "less than a block and the page"


@pytest.mark.parametrize(
    ("within_s", "expected"),
    [(1, ["off"]), (30, ["off"]), (45, ["off", "default"]), (75, ["off", "default", "guide"])],
)
def test_a_deadline_too_short_says_what_it_left_out(within_s, expected):
    run, _ = timed(lambda _task: 20.0, within_s=within_s, trials=7)
    run.run()
    assert roles(run.records) == expected
    missing = "defaults were measured" if len(expected) < 2 else "no time for the final"
    assert missing in run.watcher.said[-1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "limit", [{"trials": 30, "within_s": 1e6}, {"trials": None, "within_s": 1300}]
)
def test_from_a_third_of_the_run_on_the_end_is_known_within_15_percent(limit, seed):
    """Starts of 20 s give or take a fifth, and slow baselines, in the final too."""
    rng = random.Random(seed)
    usual = {"off": 60.0, "default": 30.0}

    def seconds_of(task):
        usual_s = usual.get(task.role, 20.0) if task.arm == "" else usual.get(task.arm, 20.0)
        return usual_s * rng.uniform(0.8, 1.2)

    run, clock = timed(seconds_of, final_blocks=4, contenders=4, **limit)
    run.space = wide = Space(run.space.choices | {"batch_timeout_micros": tuple(range(20))})
    run.sampler = Sampler(wide, name="random", seed=seed, database=None)
    begun_ns, foretold = clock.now_ns, []
    begin = run.watcher.begin

    def listen(task, *, done, total, left_s):
        foretold.append((clock.now_ns, left_s))
        begin(task, done=done, total=total, left_s=left_s)

    run.watcher.begin = listen
    run.run()
    whole_s = (clock.now_ns - begun_ns) / NS_PER_S
    assert whole_s > 300
    for at_ns, left_s in foretold:
        elapsed_s = (at_ns - begun_ns) / NS_PER_S
        if elapsed_s > whole_s / 3:
            assert elapsed_s + left_s == pytest.approx(whole_s, rel=0.15)


def test_four_meet_in_the_final_in_an_order_of_its_own_for_each_block():
    run = tuning(final_blocks=4, contenders=4)
    run.run()
    blocks = [
        [record.arm for record in run.records if record.role == "final" and record.block == block]
        for block in range(4)
    ]
    assert all(sorted(b) == ["default", "off", "runner-up", "winner"] for b in blocks)
    assert len({tuple(block) for block in blocks}) > 1


def test_people_are_told_how_far_it_is():
    run = tuning()
    run.run()
    (first, done, total, left_s), *rest = run.watcher.begun
    assert (first.role, done, total, left_s) == ("off", 0, 11, None)
    assert [left for *_, left in rest] == [20.0 * trials for trials in range(10, 0, -1)]


def test_a_longer_run_opens_with_an_aa_test_and_returns_to_the_reference():
    run = tuning(trials=8, aa_starts=2, reference_every=3)
    run.run()
    assert roles(run.records) == [
        "off", "default", "reference", "reference", "guide", "guide", "sampler", "reference",
        "sampler", "sampler", "sampler", "reference", *["final"] * 4,
    ]  # fmt: skip
    assert {record.config for record in run.records if record.role == "reference"} == {DEFAULT}
    assert any(
        "A/A test: equal starts of the default carried 200/s, 200/s, 200/s" in text
        for text in run.watcher.said
    )
    assert run.watcher.said[0].startswith("plan: 10 more starts for the search, then 4 to prove")


@pytest.mark.parametrize("done", range(16))
def test_a_run_with_references_goes_on_where_it_was(done):
    whole = tuning(trials=8, aa_starts=2, reference_every=3)
    whole.run()
    resumed = tuning(records=whole.records[:done], trials=8, aa_starts=2, reference_every=3)
    resumed.run()
    assert Counter(roles(resumed.records)) == Counter(roles(whole.records))


def test_drift_in_mid_run_is_seen_and_what_it_spoilt_is_measured_again():
    """From the eighth start on the machine carries two thirds of what it did."""

    def measure(task):
        slowed = 1.0 if task.number < 8 else 2 / 3
        rate = rate_of(task.config) * slowed
        return trial(task.number, task.role, task.config, rate, block=task.block, arm=task.arm)

    run = tuning(trials=9, aa_starts=2, reference_every=3, measure=measure)
    run.run()
    (found,) = (record.drift for record in run.records if record.drift)
    assert found.percent == pytest.approx(-100 / 3)
    assert len(found.spoils) == 3
    assert any("drift: the default now carries -33 %" in text for text in run.watcher.said)
    for number in found.spoils:
        config = run.records[number].config
        times = [record.number for record in run.records if record.config == config]
        assert len([n for n in times if run.records[n].role != "final"]) == 2
    final = {record.config for record in run.records if record.role == "final"}
    assert len(final) == 2


def test_hopeless_configurations_are_measured_roughly():
    tasks = []

    def measure(task):
        tasks.append(task)
        return measured(task)

    tuning(measure=measure).run()
    bounds = {task.role: task.dominated_rps for task in tasks}
    assert bounds["off"] == bounds["default"] == bounds["final"] == 0
    assert bounds["sampler"] == pytest.approx(0.85 * 328)


def test_winner_and_runner_up_are_overloaded_as_they_are_deployed_before_the_final():
    tasks = []

    def measure(task):
        tasks.append(task)
        return measured(task)

    run = tuning(measure=measure, contenders=3, overload=[1.2, 1.5])
    run.run()
    assert roles(run.records)[7:] == ["overload"] * 3 + ["final"] * 6
    test, other, default = [task for task in tasks if task.role == "overload"]
    assert (test.overload_rps, test.overload_shares) == (328.0, (CARRIED, 1.2, 1.5))
    assert test.config.batching.max_enqueued_batches < 1000
    assert test.config in {task.config for task in tasks if task.role == "final"}
    assert other.config != test.config
    assert (default.config, default.overload_rps) == (DEFAULT, 200.0), "it may be kept"
    assert default.overload_shares == (1.2, 1.5), "its queue is not bounded by us"


def test_trials_end_so_early_that_the_page_is_there_by_the_deadline():
    tasks = []

    def measure(task):
        tasks.append(task)
        return measured(task)

    run = tuning(measure=measure, deadline_ns=500 * NS_PER_S)
    run.clock = lambda: 0
    run.run()
    assert {task.until_ns for task in tasks} == {round((500 - CLOSING_S) * NS_PER_S)}


def test_a_default_that_is_best_is_overloaded_though_it_needs_no_final():
    def measure(task):
        record = measured(task)
        rate = 500.0 if task.config == DEFAULT else 100.0
        return replace(record, sustainable_rps=rate)

    run = tuning(measure=measure, overload=[1.5])
    run.run()
    assert roles(run.records)[7:] == ["overload"]
    assert run.records[-1].config == DEFAULT


def test_an_overload_that_is_carried_contradicts_the_rate_and_is_said():
    def measure(task):
        record = measured(task)
        if task.role != "overload":
            return record
        found = Overload(1.2, 394.0, 390.0, 0.0, 0.02, 40.0, 0.0, "carries")
        return replace(record, overload=(found,))

    run = tuning(measure=measure, overload=[1.2])
    run.run()
    said, default = [text for text in run.watcher.said if "the true rate may be higher" in text]
    assert "at 120 % of what was shown" in said
    assert "394/s" in said
    assert DEFAULT.label() in default


def too_long(finding, *, wins=True):
    """Overload tests whose first queue fails; the shorter one does better where it `wins`."""
    tasks = []

    def measure(task):
        record = measured(task)
        if task.role == "overload":
            tasks.append(task)
            if len(tasks) == 1 or not wins:
                found = [Overload(1.5, 600.0, 0.0, 0.2, 0.8, 130.0, 0.1, finding)]
                record = replace(record, overload=tuple(found))
        return record

    return measure, tasks


SMALL = [2, 4]
"""Batches of which more than one for each thread drains in time."""


def bounds_of(records):
    return [record.config.batching.max_enqueued_batches for record in records]


@pytest.mark.parametrize("finding", ["stalls", "collapses", "sheds"])
def test_a_queue_too_long_is_shortened_and_the_final_measures_that(finding):
    measure, tasks = too_long(finding)
    run = tuning(measure=measure, overload=[1.5], sizes=SMALL)
    run.run()
    long, short, own = bounds_of(tasks)
    assert long > short
    assert own == DEFAULT.batching.max_enqueued_batches
    assert [task.overload_shares for task in tasks] == [(CARRIED, 1.5), (CARRIED, 1.5), (1.5,)]
    assert set(bounds_of(r for r in run.records if r.arm == "winner")) == {short}
    trying, told = [text for text in run.watcher.said if "queue" in text]
    assert trying.endswith(f"trying a shorter queue: max_enqueued_batches {short}")
    assert f"a queue of {long} batches was too long under overload and is shortened" in told


def test_where_a_shorter_queue_helps_nothing_the_first_is_kept():
    measure, tasks = too_long("collapses", wins=False)
    run = tuning(measure=measure, overload=[1.5], sizes=SMALL)
    run.run()
    assert 2 <= len([task for task in tasks if task.config != DEFAULT]) <= 3
    assert set(bounds_of(r for r in run.records if r.arm == "winner")) == {bounds_of(tasks)[0]}
    winner, default = [text for text in run.watcher.said if "less than 80 %" in text]
    assert "with a queue of" in winner
    assert default.startswith(DEFAULT.label())
    assert "its queue holds 10 batches of up to 1,000 rows: limit the load before" in default


@pytest.mark.parametrize("done", range(18))
@pytest.mark.parametrize("measure", [measured, "collapses"])
def test_a_run_with_overload_tests_goes_on_where_it_was(done, measure):
    def again():
        return measured if measure is measured else too_long(measure, wins=False)[0]

    whole = tuning(contenders=3, overload=[1.5], measure=again())
    whole.run()
    resumed = tuning(records=whole.records[:done], contenders=3, overload=[1.5], measure=again())
    resumed.run()
    assert roles(resumed.records) == roles(whole.records)


def briefly(starts, finding="sheds"):
    """What is overloaded where the search is over and there is time for so many starts of 20 s."""
    done = [trial(0, "off", OFF, 100.0), trial(1, "default", DEFAULT, 200.0)]
    done.append(trial(2, "sampler", batched(4), 300.0))  # a queue of 3 drains in time
    run, clock = timed(
        lambda _task: 20.0,
        within_s=CLOSING_S + 20 * starts,
        records=done, trials=3, final_blocks=3, overload=[1.5],
    )  # fmt: skip

    def measure(task):
        record = clock.measure(task)
        if task.role == "overload" and finding != "sheds":
            found = Overload(1.5, 600.0, 0.0, 0.2, 0.8, 130.0, 0.1, finding)
            record = replace(record, overload=(found,))
        return record

    run.measure = measure
    run.run()
    assert len(blocks_of(run)) == 3
    return [record for record in run.records if record.role == "overload"], run


@pytest.mark.parametrize(
    ("starts", "finding", "defaults"),
    [
        (8, "sheds", [False, True]),
        (7, "sheds", [False]),
        (8, "collapses", [False, False]),
        (7, "collapses", [False]),
    ],
)
def test_a_second_queue_and_the_default_cost_the_final_no_block(starts, finding, defaults):
    found, _ = briefly(starts, finding)
    assert [test.config == DEFAULT for test in found] == defaults


def test_what_is_kept_is_overloaded_after_the_final_where_there_was_no_time_before():
    _, run = briefly(7)
    equal = [replace(r, sustainable_rps=200.0) if r.arm else r for r in run.records]
    resumed = tuning(records=equal, trials=3, final_blocks=3, overload=[1.5])
    resumed.run()
    (test,) = resumed.records[len(equal) :]
    assert (test.role, test.config) == ("overload", DEFAULT)
    again = tuning(records=resumed.records, trials=3, final_blocks=3, overload=[1.5])
    again.run()
    assert again.records == resumed.records


@pytest.mark.parametrize(("seconds", "starts"), [(200, 6), (100, 4), (45, 0)])
def test_blocks_that_the_deadline_cuts_off_are_not_counted(seconds, starts):
    done = [trial(0, "off", OFF, 100.0), trial(1, "default", DEFAULT, 200.0)]
    done.append(trial(2, "sampler", batched(32), 300.0))
    run = tuning(records=done, trials=3, final_blocks=3, deadline_ns=seconds * NS_PER_S)
    run.clock = lambda: 0
    left = run.plan()
    assert (left.search_starts, left.final_starts) == (0, starts)
    assert left.left_s == pytest.approx(20.0 * starts)
