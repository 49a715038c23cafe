from dataclasses import replace

import pytest
from trials import DEFAULT, OFF, batched, trial

from tuner.records import Config, GpuEvidence, ServerEvidence, Verdict
from tuner.search.evidence import indifferent, reasons, sentences


def evidence(rows, *, padding=0.0, queue_ms=0.1, **refused):
    return ServerEvidence(
        batches=100,
        rows_per_batch=rows,
        padding_share=padding,
        queue_ms=queue_ms,
        requests={"OK": 1000, **refused},
    )


def told(record, *servers):
    """The record with evidence for its levels; the last holds for those that follow too."""
    levels = [
        replace(
            level,
            measurement=replace(level.measurement, server=servers[min(at, len(servers) - 1)]),
        )
        for at, level in enumerate(record.levels)
    ]
    return replace(record, levels=tuple(levels))


DEFAULTS = told(trial(1, "default", DEFAULT, 400.0), evidence(17.0, queue_ms=9.0))


def test_full_batches_ask_for_larger_ones():
    found = reasons(told(trial(2, "guide", batched(32), 600.0), evidence(31.0)), DEFAULTS)
    assert found == (
        "a batch held 31.0 of at most 32 rows on average; with the server's defaults 17.0",
        "batches are full: max_batch_size is the limit, a larger one may carry more",
    )


def test_batches_that_no_load_fills_make_the_limit_a_no_op():
    record = told(trial(2, "guide", batched(128), 600.0), evidence(8.0), evidence(11.0))
    assert reasons(record, None) == (
        "a batch held 8.0 of at most 128 rows on average",
        "no load filled batches beyond 11.0 rows on average, so max_batch_size is a no-op from "
        "about 32 up",
    )


def test_what_another_start_filled_counts_too():
    record = told(trial(2, "guide", batched(128), 600.0), evidence(8.0), evidence(11.0))
    again = told(trial(7, "final", batched(128), 600.0), evidence(8.0), evidence(30.0))
    assert "beyond 30.0 rows" in " ".join(reasons(record, None, [record, again]))
    full = told(trial(7, "final", batched(128), 600.0), evidence(100.0))
    assert "no-op" not in " ".join(reasons(record, None, [record, full]))


def test_starts_count_whatever_their_queues_bound():
    record = told(trial(2, "guide", batched(128), 600.0), evidence(8.0))
    deployed = batched(128)
    deployed = replace(deployed, batching=replace(deployed.batching, max_enqueued_batches=4))
    again = told(trial(7, "final", deployed, 600.0), evidence(30.0))
    assert "beyond 30.0 rows" in " ".join(sentences(record, [record, again], None))


def test_a_limit_that_some_load_needs_is_none():
    record = told(trial(2, "guide", batched(32), 600.0), evidence(8.0), evidence(25.0))
    assert not any("no-op" in text for text in reasons(record, None))


def test_waiting_padding_and_refusals_are_told():
    busy = evidence(20.0, padding=0.25, queue_ms=3.0, UNAVAILABLE=7)
    found = reasons(told(trial(2, "guide", batched(32), 600.0), busy), DEFAULTS)
    assert found[1:] == (
        "3.0 ms of 5.0 ms are spent waiting for a batch thread; with the server's defaults 9.0 ms",
        "25% of the rows that ran were padding up to an allowed size: finer sizes would save it",
        "the server refused requests at this load: 7 UNAVAILABLE",
    )


def test_batching_off_has_no_batches():
    off = told(trial(0, "off", OFF, 100.0), ServerEvidence(0, None, None, None, {"OK": 5}))
    assert reasons(off, DEFAULTS) == ()


def test_the_default_is_not_compared_with_itself():
    assert "with the server's defaults" not in " ".join(reasons(DEFAULTS, DEFAULTS))


def test_without_counters_nothing_is_said_but_of_gpus():
    record = trial(2, "guide", batched(32), 600.0)
    assert reasons(record, None) == ()
    idle = GpuEvidence(0, "H100", 9, utilisation_percent=35.0, slowed_by=("power cap",))
    assert reasons(replace(record, gpus=(idle,)), None) == (
        "GPU 0 was in use for 35 % of the trial: it waits for work",
        "the clock of GPU 0 was held down at times: power cap",
    )


def test_a_parameter_that_changed_nothing_is_named():
    records = [
        trial(1, "guide", batched(32), 600.0),
        trial(2, "guide", batched(64), 610.0),
        trial(3, "guide", batched(32, timeout=1000), 400.0),
        trial(4, "guide", batched(64, timeout=1000), 395.0),
    ]
    assert indifferent(records) == (
        "max_batch_size made no difference where it alone was changed (32, 64)",
    )


def undecided(record):
    """Above its rate no load was seen to miss the promise."""
    held, above = record.levels
    return replace(record, levels=(held, replace(above, verdict=Verdict(True, None, {}))))


@pytest.mark.parametrize(
    "records",
    [
        [],
        [trial(1, "guide", batched(32), 600.0)],
        [trial(1, "guide", batched(32), 600.0), trial(2, "guide", batched(64, threads=2), 600.0)],
        [trial(1, "guide", batched(32), 600.0), trial(2, "guide", batched(64), None)],
        [trial(1, "guide", batched(32), 600.0), trial(2, "guide", batched(64), 700.0)],
        [trial(1, "off", OFF, 600.0), trial(2, "default", DEFAULT, 600.0)],
        [trial(1, "guide", batched(32), 600.0), undecided(trial(2, "guide", batched(64), 600.0))],
    ],
)
def test_nothing_is_claimed_that_was_not_compared(records):
    assert indifferent(records) == ()


def test_flags_are_parameters_too():
    plain = batched(32)
    flagged = [Config(plain.batching, (("x", value),)) for value in ("1", "2")]
    records = [
        trial(at, "guide", config, 600.0 + at) for at, config in enumerate([plain, *flagged])
    ]
    assert indifferent(records) == (
        "x made no difference where it alone was changed (unset, 1, 2)",
    )


def test_equal_configurations_are_averaged():
    records = [
        trial(1, "guide", batched(32), 500.0),
        trial(2, "final", batched(32), 700.0),
        trial(3, "guide", batched(64), 600.0),
    ]
    assert len(indifferent(records)) == 1
