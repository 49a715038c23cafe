import subprocess
import sys

import pytest

from tuner.errors import LoadError
from tuner.http2.answers import OK
from tuner.load.client import Recorder, engine_factory
from tuner.load.generator import OpenLoop
from tuner.load.statuses import MAX_STATUSES


def test_columns_are_ordered_by_intended_time_whatever_ends_first():
    recorder = Recorder()
    recorder.record(20, 21, 22, 5)
    recorder.record(10, 11, 99, 7, ("UNAVAILABLE", "full"))
    columns = recorder.columns(sent=2, started_ns=1, ended_ns=50, cpu_s=0.5)
    assert columns.intended_ns.tolist() == [10, 20]
    assert columns.sent_ns.tolist() == [11, 21]
    assert columns.done_ns.tolist() == [99, 22]
    assert columns.message.tolist() == [7, 5]
    assert [columns.statuses[s] for s in columns.status] == [("UNAVAILABLE", "full"), OK]


@pytest.mark.parametrize("sent", [1, 3])
def test_a_request_without_an_end_or_with_two_is_a_defect(sent):
    recorder = Recorder()
    recorder.record(20, 21, 22, 5)
    recorder.record(20, 21, 22, 5)
    with pytest.raises(LoadError, match=f"{sent} requests were sent, but 2 have an end"):
        recorder.columns(sent=sent, started_ns=1, ended_ns=50, cpu_s=0.5)


def test_a_run_without_requests_has_empty_columns():
    columns = Recorder().columns(sent=0, started_ns=1, ended_ns=2, cpu_s=0.0)
    assert len(columns.intended_ns) == len(columns.status) == 0
    assert columns.statuses == (OK,)


def test_statuses_without_end_are_folded_into_their_code():
    recorder = Recorder()
    for number in range(MAX_STATUSES + 100):
        recorder.record(number, number, number, 0, ("ABORTED", f"attempt {number}"))
    columns = recorder.columns(sent=MAX_STATUSES + 100, started_ns=0, ended_ns=1, cpu_s=0.0)
    assert columns.statuses[0] == OK
    assert len(columns.statuses) == MAX_STATUSES + 1
    assert columns.statuses[columns.status[-1]] == ("ABORTED", "(further texts)")
    assert len(columns.status) == MAX_STATUSES + 100


def test_the_process_is_light():
    code = "import sys, {}; print({{'tensorflow', 'grpc', 'optuna', 'pandas'}} & set(sys.modules))"
    for module in ("tuner.load.worker", "tuner.load.generator"):
        run = [sys.executable, "-c", code.format(module)]
        assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_engine_factory_names_the_engines():
    with pytest.raises(LoadError, match="the engines are http2, grpcio"):
        engine_factory("")


def test_loads_that_contradict_themselves():
    with pytest.raises(ValueError, match="belong together"):
        OpenLoop(1, 1, 1, arrivals="trace")
    with pytest.raises(ValueError, match="belong together"):
        OpenLoop(1, 1, 1, arrivals="bursts")
    with pytest.raises(ValueError, match="belong together"):
        OpenLoop(None, 1, 1, profile=((0, 1), (1, 1)))
    with pytest.raises(ValueError, match="need a rate"):
        OpenLoop(None, 1, 1)
