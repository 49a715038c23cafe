"""Batching parameters as the server reads them, refusals and bends included."""

import pytest

from tuner.batching import BatchingParameters
from tuner.server.embedded.queue_options import ServerDiesError, queue_options
from tuner.server.embedded.status import ServingError


def options(**values):
    return queue_options(BatchingParameters(**values), 2)


def test_defaults():
    made = options()
    assert (made.threads, made.row_limit, made.batch_limit) == (2, 1000, 1000)
    assert (made.timeout_micros, made.max_enqueued, made.splitting) == (0, 10, False)
    assert made.op_sizes == []


def test_accepted_silently():
    assert options(max_batch_size=-1).row_limit == 2**31 - 1
    assert options(max_enqueued_batches=0).max_enqueued == 1
    assert options(max_batch_size=8, max_execution_batch_size=99).batch_limit == 8
    assert options(allowed_batch_sizes=(16, 8, 32), max_batch_size=32).allowed_sizes == (16, 8, 32)


def test_splitting_takes_the_execution_size_for_the_batch():
    split = {"max_batch_size": 10, "enable_large_batch_splitting": True}
    assert options(**split).batch_limit == 10
    made = options(**split, max_execution_batch_size=3)
    assert (made.row_limit, made.batch_limit, made.op_sizes) == (10, 3, [1, 2, 3])
    assert options(enable_large_batch_splitting=True).op_sizes == [0]


def test_equal_options_share_a_scheduler_and_padding_is_no_part_of_it():
    padded = options(max_batch_size=8, allowed_batch_sizes=(4, 8))
    assert padded.scheduler == options(max_batch_size=8).scheduler
    assert padded.scheduler != options(max_batch_size=9).scheduler


@pytest.mark.parametrize(
    "values",
    [
        {"max_batch_size": 0},
        {"batch_timeout_micros": -1},
        {"enable_large_batch_splitting": True, "max_batch_size": 4, "max_enqueued_batches": 0},
        {
            "enable_large_batch_splitting": True,
            "max_batch_size": 4,
            "max_execution_batch_size": 5,
        },
    ],
)
def test_what_crashes_the_server(values):
    with pytest.raises(ServerDiesError):
        options(**values)


def test_last_allowed_size():
    with pytest.raises(ServingError, match="last entry was 8; expected 1000"):
        options(allowed_batch_sizes=(4, 8))
