import pytest

from tuner.measure.prometheus import evidence, parse
from tuner.records import ServerEvidence

BEFORE = """\
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="mlp",status="OK"} 100
"""

AFTER = """\
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="mlp",status="OK"} 700
:tensorflow:serving:request_count{model_name="tiny",status="OK"} 40
:tensorflow:serving:request_count{model_name="mlp",status="UNAVAILABLE"} 25
# TYPE :tensorflow:serving:batching_session:wrapped_run_count counter
:tensorflow:serving:batching_session:wrapped_run_count{} 100
# TYPE :tensorflow:serving:batching_session:queuing_latency histogram
:tensorflow:serving:batching_session:queuing_latency_bucket{thread_pool_name="",le="100"} 0
:tensorflow:serving:batching_session:queuing_latency_bucket{thread_pool_name="",le="+Inf"} 640
:tensorflow:serving:batching_session:queuing_latency_sum{thread_pool_name=""} 1.28e+06
:tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name=""} 640
:tensorflow:serving:batching_session:processed_batch_size_sum{} 800
:tensorflow:serving:batching_session:processed_batch_size_count{} 100
:tensorflow:serving:batching_session:padding_size_sum{execution_batch_size="8"} 100
:tensorflow:serving:batching_session:padding_size_sum{execution_batch_size="16"} 60
:tensorflow:core:graph_runs{} 8
"""


def test_evidence_of_a_level():
    # 800 rows executed in 100 batches, 160 of them padding; 1.28 s of waiting by 640 requests.
    assert evidence(BEFORE, AFTER) == ServerEvidence(
        batches=100,
        rows_per_batch=6.4,
        padding_share=0.2,
        queue_ms=2.0,
        requests={"OK": 640, "UNAVAILABLE": 25},
    )


def test_counters_are_differences():
    later = AFTER.replace("wrapped_run_count{} 100", "wrapped_run_count{} 150").replace(
        "processed_batch_size_sum{} 800", "processed_batch_size_sum{} 1000"
    )
    seen = evidence(AFTER, later)
    assert (seen.batches, seen.rows_per_batch, seen.padding_share) == (50, 4.0, 0.0)
    assert (seen.queue_ms, seen.requests) == (None, {})


def test_the_time_of_a_request_is_told_apart_into_queue_run_and_handler():
    later = (
        AFTER
        + """\
:tensorflow:serving:runtime_latency_sum{model_name="mlp",API="Predict",runtime="TF1"} 8e+06
:tensorflow:serving:runtime_latency_count{model_name="mlp",API="Predict",runtime="TF1"} 640
:tensorflow:serving:request_latency_sum{model_name="mlp",API="Predict",entrypoint="GRPC"} 8.32e+06
:tensorflow:serving:request_latency_count{model_name="mlp",API="Predict",entrypoint="GRPC"} 640
"""
    )
    seen = evidence(BEFORE, later)
    # 12.5 ms in the session, of which 2 ms waiting for a batch thread; 13 ms in the handler.
    assert (seen.queue_ms, seen.run_ms, seen.handler_ms) == (2.0, 10.5, 0.5)


def test_a_server_that_does_not_batch():
    after = BEFORE.replace(" 100", " 180")
    assert evidence(BEFORE, after) == ServerEvidence(0, None, None, None, {"OK": 80})


@pytest.mark.parametrize("after", ["", "<html>404</html>", "python_info 1\n"])
def test_no_metrics_of_the_server(after):
    assert evidence(BEFORE, after) is None


def test_a_restart_between_the_scrapes_is_no_evidence():
    assert evidence(AFTER, BEFORE) is None
    assert evidence(BEFORE.replace(" 100", " 900"), AFTER) is None
    # Started anew and soon ahead of its former count, but it has not batched yet.
    assert (
        evidence(AFTER, AFTER.split("# TYPE :tensorflow:serving:batching", maxsplit=1)[0]) is None
    )


def test_lines_that_are_no_samples_are_passed_over():
    text = '# HELP a b\n\nbroken{\nname not-a-number\ngauge NaN\nok{a="x y",b="q\\"r"} 2 1700\n'
    (sample,) = parse(text)
    assert (sample.name, sample.value) == ("ok", 2.0)
    assert sample.labels == (("a", "x y"), ("b", 'q\\"r'))
