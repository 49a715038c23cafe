import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from trials import DEFAULT, OFF, batched, level, trial

from tuner.batching import BatchingParameters
from tuner.records import Config, Samples, Status

CODE = "from trials import batched, OFF; print(batched(32, timeout=2000).id, OFF.id)"


def test_equal_configurations_have_equal_ids_in_every_process():
    ours = f"{batched(32, timeout=2000).id} {OFF.id}"
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=os.path.dirname(__file__),  # noqa: PTH120  where `trials` lies
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == ours


def test_ids_are_those_of_recorded_runs():
    """A changed id would cut every recorded run off from its configurations."""
    assert OFF.id == "c-97294f05"
    assert Config(BatchingParameters(max_batch_size=8), (("x", "1"),)).id == "c-6004ea8e"


def test_every_field_of_a_configuration_counts():
    plain = BatchingParameters(max_batch_size=32)
    changed = BatchingParameters(
        max_batch_size=64,
        batch_timeout_micros=0,
        max_enqueued_batches=1,
        num_batch_threads=1,
        thread_pool_name="x",
        allowed_batch_sizes=(32,),
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=False,
        max_execution_batch_size=1,
    )
    ids = {Config(plain).id, Config(None).id, Config(plain, (("x", "1"),)).id}
    for field in fields(BatchingParameters):
        value = getattr(changed, field.name)
        ids.add(Config(replace(plain, **{field.name: value})).id)
    assert len(ids) == 3 + len(fields(BatchingParameters))


def test_labels():
    assert OFF.label() == "batching off"
    assert batched(32, timeout=2000).label() == "max 32, timeout 2000 µs, 1 thread"


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        trial(0, "default", DEFAULT, 100.0).number = 1


def test_latency_counts_from_when_a_request_was_due():
    samples = Samples(
        intended_ns=np.array([0, 1000]),
        sent_ns=np.array([10, 4000]),
        done_ns=np.array([500, 5000]),
        status=np.zeros(2, np.uint16),
        rows=np.ones(2, np.int32),
        statuses=(Status("OK"),),
        started_ns=0,
        ended_ns=5000,
        cpu_s=0.0,
    )
    assert len(samples) == 2
    assert samples.latency_ns.tolist() == [500, 4000]
    assert samples.lateness_ns.tolist() == [10, 3000]


def test_error_rate():
    measured = level(100.0).measurement
    assert measured.error_rate == 0
    assert replace(measured, answered=150).error_rate == pytest.approx(0.25)
    assert replace(measured, requests=0, answered=0).error_rate == 0


def test_the_level_at_the_sustainable_rate_is_shown():
    record = trial(0, "default", DEFAULT, 100.0)
    assert record.reference is record.shown_level is record.levels[0]


def test_without_a_sustainable_rate_the_lowest_valid_open_loop_load_is_shown():
    closed = level(10.0)
    closed = replace(closed, measurement=replace(closed.measurement, loop="closed"))
    untrusted, high, low = level(20.0, valid=False), level(90.0), level(60.0, held=False)
    record = replace(trial(0, "default", DEFAULT, 0.0), levels=(closed, untrusted, high, low))
    assert record.reference is None
    assert record.shown_level is low
    assert replace(record, levels=(closed, untrusted)).shown_level is None
