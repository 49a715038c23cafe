"""The overload test against servers whose queue is known."""

from dataclasses import replace

import numpy as np
import pytest
from trial.simulated import TEXT, SimulatedServer, exponential, levels
from trials import trial

from tuner.clock import NS_PER_MS, NS_PER_S
from tuner.measure.overload import judge_overload
from tuner.records import OK, Overload, Samples, Status
from tuner.slo import Slo
from tuner.trial.run import measured

CAPACITY = 500.0
SUSTAINABLE = 440.0


def overloaded(folder, queue_limit, shares=(1.2, 1.5)):
    server = SimulatedServer(exponential(CAPACITY), queue_limit=queue_limit)
    trials = levels(folder, server, overload_rps=SUSTAINABLE, overload_shares=shares)
    record = measured(trials, trial(0, "overload", trials.task.config, None))
    assert record.outcome == "ok"
    return record.overload


def test_a_short_queue_sheds_what_is_too_much(tmp_path):
    """At most 20 wait: 40 ms at 500/s, within the limit of 50 ms."""
    some, more = overloaded(tmp_path, 20)
    assert (some.finding, more.finding) == ("sheds", "sheds")
    assert more.shed_share == pytest.approx(1 - CAPACITY / (1.5 * SUSTAINABLE), abs=0.05)
    assert more.goodput_rps == pytest.approx(CAPACITY, rel=0.15)
    assert more.answered_tail_ms < 75
    assert more.recovery_s < 0.3
    assert "at 150 % of the sustainable rate it sheds" in more.describe()


def test_an_endless_queue_stalls_and_takes_its_time_to_recover(tmp_path):
    some, more = overloaded(tmp_path, None)
    assert (some.finding, more.finding) == ("stalls", "stalls")
    assert more.late_share > 0.9
    assert more.shed_share == 0
    assert more.answered_tail_ms > 150
    # 160 requests too many every second for 2 s are drained by the 148 that 80 % leave free.
    assert more.recovery_s is None or more.recovery_s > 1.5


def test_a_queue_that_drains_in_two_limits_collapses_however_fast_it_turns_away(tmp_path):
    """At most 60 wait: 120 ms at 500/s, so that all that is accepted misses the limit of 50 ms."""
    some, more = overloaded(tmp_path, 60)
    assert more.finding == "collapses"
    assert more.shed_share == pytest.approx(1 - CAPACITY / (1.5 * SUSTAINABLE), abs=0.05)
    assert more.kept_share < 0.1
    assert 50 < more.answered_tail_ms < 150
    assert more.fails
    assert not some.recovery_s


def test_a_load_that_holds_is_overloaded_by_nothing(tmp_path):
    """The share at which a queue shows that it is not too short for its own rate."""
    (found,) = overloaded(tmp_path, 20, shares=(0.8,))
    assert (found.finding, found.fails) == ("carries", False)
    assert found.shed_share < 0.01


@pytest.mark.parametrize("stored", ["sheds", "slows"])
def test_what_older_tuners_called_shedding_is_judged_by_goodput_too(stored):
    found = Overload(1.5, 600.0, 100.0, 0.2, 0.6, 140.0, 0.0, stored)
    assert (found.kept_share, found.judged, found.fails) == (0.25, "collapses", True)
    assert (
        "it collapses: it sheds 20 %, answers 60 % late and keeps 25 % of that rate within"
        in found.describe()
    )


def test_what_keeps_three_quarters_sheds_but_fails_whom_it_could_serve():
    found = Overload(1.5, 600.0, 300.0, 0.2, 0.3, 70.0, 0.0, "sheds")
    assert (found.kept_share, found.judged, found.fails) == (0.75, "sheds", True)
    assert "it sheds 20 % at once and keeps 75 % of that rate within" in found.describe()


def test_a_server_with_room_to_spare_carries_it(tmp_path):
    server = SimulatedServer(exponential(4 * CAPACITY))
    trials = levels(tmp_path, server, overload_rps=SUSTAINABLE, overload_shares=(1.2,))
    (found,) = measured(trials, trial(0, "overload", trials.task.config, None)).overload
    assert (found.finding, found.recovery_s) == ("carries", 0.0)
    assert found.share == 1.2
    assert found.offered_rps == pytest.approx(1.2 * SUSTAINABLE, rel=0.1)


def test_requests_arrive_as_in_the_search(tmp_path):
    """A rate that bursts were kept at says nothing of what it does under smoother arrivals."""
    text = f'{TEXT}\n[load]\narrivals = "bursts"\nburst_cv = 3.0\n'
    server = SimulatedServer(exponential(10 * CAPACITY))
    trials = levels(
        tmp_path, server, text=text, overload_rps=10 * SUSTAINABLE, overload_shares=(1.2,)
    )
    measured(trials, trial(0, "overload", trials.task.config, None))
    driven = trials.generator.driven[-1]
    offsets_ns = driven.offsets_ns()
    middle = np.searchsorted(offsets_ns, driven.duration_s * 5e8)
    for gaps in np.split(np.diff(offsets_ns), [middle]):
        assert np.std(gaps) / np.mean(gaps) == pytest.approx(3.0, rel=0.1)


def test_the_last_late_ones_are_not_overlooked_among_many_that_follow():
    """The first 40 of 1,000 requests that follow are late: fewer than a p95 may overlook."""
    intended_ns = np.arange(2_000, dtype=np.int64) * NS_PER_S // 500
    latency_ns = np.full(2_000, 10 * NS_PER_MS)
    latency_ns[:1_040] = 200 * NS_PER_MS
    samples = Samples(
        intended_ns=intended_ns,
        sent_ns=intended_ns,
        done_ns=intended_ns + latency_ns,
        status=np.zeros(2_000, np.uint16),
        rows=np.ones(2_000, np.int32),
        statuses=(Status(OK),),
        started_ns=0,
        ended_ns=4 * NS_PER_S,
        cpu_s=0.0,
        concurrency=None,
    )
    found = judge_overload(samples, share=1.2, end_ns=2 * NS_PER_S, slo=Slo((("p95", 50.0),)))
    assert found.recovery_s == pytest.approx(40 / 500)
    assert "recovers in 0.1 s" in found.describe()
    assert "recovers at once" in replace(found, recovery_s=0.02).describe()


def test_a_queue_beyond_all_bounds_is_given_up(tmp_path):
    server = SimulatedServer(exponential(CAPACITY))
    trials = levels(tmp_path, server, overload_rps=50 * SUSTAINABLE, overload_shares=(1.5,))
    (found,) = measured(trials, trial(0, "overload", trials.task.config, None)).overload
    assert (found.finding, found.recovery_s) == ("stalls", None)
    assert "does not recover in time" in found.describe()


@pytest.mark.parametrize(
    ("every", "finding", "late"), [(5, "slows", "20 % late"), (1, "collapses", "100 % late")]
)
def test_a_server_that_is_merely_late_does_not_stall(tmp_path, every, finding, late):
    """Twice the limit for every fifth or for everything, and no queue that grows."""
    server = SimulatedServer(exponential(4 * CAPACITY))
    trials = levels(tmp_path, server, overload_rps=SUSTAINABLE, overload_shares=(1.2,))
    drive = trials.generator.open_loop

    def delayed(load):
        samples = drive(load)
        delay_ns = np.where(np.arange(len(samples)) % every == 0, 80_000_000, 0)
        return replace(samples, done_ns=samples.done_ns + delay_ns)

    trials.generator.open_loop = delayed
    (found,) = measured(trials, trial(0, "overload", trials.task.config, None)).overload
    assert found.finding == finding
    assert late in found.describe()
    assert found.shed_share == 0
