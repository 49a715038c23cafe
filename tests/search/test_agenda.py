"""The order of the search where a running server can take up what differs in little."""

from dataclasses import replace
from itertools import pairwise

import pytest
from search.test_loop import measured, tuning

from tuner.search.model_sampler import Setting
from tuner.search.sampler import Sampler
from tuner.search.space import Space
from tuner.server.keeper import restart_key
from tuner.slo import Slo

SETTING = Setting(Slo((("p99", 60.0),)), cpus=2)


def searched(*, swap, swaps_work=True, seed=1, trials=14, guide_points=4, sampler="random"):
    """The trials of a search whose server is swapped into wherever it can be."""
    run = tuning(trials=trials, final_blocks=0)
    asked = run.scenario.model_copy(
        update={
            "server": run.scenario.server.model_copy(update={"swap": swap}),
            "search": run.scenario.search.model_copy(update={"guide_points": guide_points}),
        }
    )
    run.scenario = asked
    run.sampler = Sampler(Space.of(asked), name=sampler, seed=seed, database=None, setting=SETTING)

    def measure(task):
        before = run.records[-1] if run.records else None
        kept = before is not None and before.role in {"guide", "sampler"}
        same = kept and restart_key(before.config) == restart_key(task.config)
        return replace(measured(task), swapped=swap == "auto" and swaps_work and same)

    run.measure = measure
    run.run()
    return [record for record in run.records if record.role in {"guide", "sampler"}]


def restarts(records):
    return sum(restart_key(a.config) != restart_key(b.config) for a, b in pairwise(records))


def guide_threads(records):
    return [
        record.config.batching.num_batch_threads for record in records if record.role == "guide"
    ]


def test_the_guides_points_are_put_together_by_what_needs_a_restart():
    assert guide_threads(searched(swap="auto")) == [1, 1, 2, 2]


@pytest.mark.parametrize(("sampler", "points"), [("auto", 1), ("tpe", 3)])
def test_the_model_of_the_scheduler_begins_with_one_point_of_the_guide(sampler, points):
    records = searched(swap="never", trials=6, guide_points="auto", sampler=sampler)
    assert [record.role for record in records] == ["guide"] * points + ["sampler"] * (4 - points)


def test_without_swaps_the_guide_keeps_its_order():
    assert guide_threads(searched(swap="never")) == [1, 2, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_no_point_is_lost_or_measured_twice_for_the_sake_of_order(seed):
    records = searched(swap="auto", seed=seed)
    assert len(records) == 12
    assert len({record.config.id for record in records}) == 12


def sampled(**how):
    """How often the server had to be restarted between two proposals of the sampler."""
    runs = (searched(seed=seed, trials=9, guide_points=3, **how) for seed in range(12))
    return sum(
        restarts([record for record in run if record.role == "sampler"][:4]) for run in runs
    )


def test_where_swaps_pay_proposals_that_need_no_restart_go_first():
    assert sampled(swap="auto") < 0.5 * sampled(swap="never")


def test_where_no_trial_was_swapped_in_the_sampler_has_its_way():
    assert sampled(swap="auto", swaps_work=False) == sampled(swap="never")
