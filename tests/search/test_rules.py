from dataclasses import replace

from trials import trial

from tuner.records import ServerEvidence
from tuner.search.rules import NoOps, is_no_op
from tuner.search.space import Space, config_of

SPACE = Space(
    {
        "max_batch_size": (4, 16, 32, 64, 128),
        "batch_timeout_micros": (0, 1000),
        "num_batch_threads": (1, 2),
        "allowed_batch_sizes": ("any", "linear"),
    }
)


def point(size, ladder="any", timeout=0):
    return {
        "max_batch_size": size,
        "batch_timeout_micros": timeout,
        "num_batch_threads": 1,
        "allowed_batch_sizes": ladder,
    }


def filled(size, rows_per_batch, ladder="any"):
    """A trial whose batches held so many rows in the mean, at every load."""
    record = trial(0, "sampler", config_of(point(size, ladder)), 100.0)
    evidence = ServerEvidence(100, rows_per_batch, 0.0, 1.0)
    levels = tuple(
        replace(level, measurement=replace(level.measurement, server=evidence))
        for level in record.levels
    )
    return replace(record, levels=levels)


def skipped(record, **how):
    no_ops = NoOps(SPACE, **how).among([] if record is None else [record])
    return [size for size in (4, 16, 32, 64, 128) if is_no_op(point(size), no_ops)]


def test_limits_that_no_batch_comes_near_need_no_start():
    assert skipped(filled(64, 6.0)) == [32, 128]  # 6 rows in the mean: hardly ever 26


def test_limits_that_batches_may_reach_are_measured():
    assert skipped(filled(64, 20.0)) == []
    assert skipped(filled(16, 6.0)) == []


def test_other_timeouts_are_other_configurations():
    no_ops = NoOps(SPACE).among([filled(64, 6.0)])
    assert not is_no_op(point(128, timeout=1000), no_ops)


def test_a_linear_ladder_depends_on_its_limit():
    no_ops = NoOps(SPACE).among([filled(64, 6.0, "linear")])
    assert not is_no_op(point(128, "linear"), no_ops)


def test_of_limits_that_the_load_cannot_fill_one_is_enough():
    assert skipped(None, reach=32) == [64, 128]


def test_a_trial_without_the_servers_word_rules_nothing_out():
    record = trial(0, "sampler", config_of(point(64)), 100.0)
    assert skipped(record) == []
