"""Which batches form, seen in the model's own outputs and in the server's metrics."""

import time

import numpy as np
import pytest
from serving import outputs_of, request_of, rows_of

pytestmark = pytest.mark.slow


@pytest.fixture
def serve(launch, exported, batching_file):
    def start(text, model="affine"):
        return launch(
            f"--model_name={model}",
            f"--model_base_path={exported / model}",
            "--enable_batching=true",
            "--grpc_max_threads=64",
            batching_file(f"num_batch_threads {{ value: 1 }} {text}"),
        )

    return start


def gather(server, *requests):
    calls = [server.start_predict(request) for request in requests]
    return [outputs_of(call.result()) for call in calls]


def test_a_batch_runs_when_it_is_full_and_answers_go_to_their_requests(serve):
    server = serve("max_batch_size { value: 4 } batch_timeout_micros { value: 60000000 }")
    answers = gather(server, *(request_of("affine", x=rows_of(value)) for value in range(4)))
    for value, answer in enumerate(answers):
        assert answer.rows.tolist() == [4]
        np.testing.assert_array_equal(answer.y, rows_of(3 * value + 1))
    metrics = server.metrics()
    assert metrics["wrapped_run_count"] == 1
    assert metrics["processed_batch_size_sum"] == 4
    assert metrics["input_batch_size_count"] == 4
    assert metrics['queuing_latency_count{thread_pool_name=""}'] == 4

    # Two signatures, and an output filter, have queues of their own: nothing fills up.
    calls = [
        server.start_predict(request, timeout_s=1)
        for request in (
            *(request_of("affine", x=rows_of(1)) for _ in range(2)),
            *(request_of("affine", output_filter=["rows"], x=rows_of(1)) for _ in range(2)),
        )
    ]
    assert {call.code().name for call in calls} == {"DEADLINE_EXCEEDED"}

    too_large = request_of("affine", x=rows_of(*range(5)))
    assert server.failure(too_large) == (
        "INVALID_ARGUMENT",
        "Task size 5 is larger than maximum input batch size 4",
    )
    scalar = request_of("affine", x=np.float32(1))
    assert server.failure(scalar) == (
        "INVALID_ARGUMENT",
        "Batching Run() input tensors must have at least one dimension",
    )
    no_rows = request_of("affine", x=np.ones((0, 4), np.float32))
    assert server.failure(no_rows, timeout_s=0.5)[0] == "DEADLINE_EXCEEDED"


def test_rows_are_padded_to_the_first_allowed_size_that_holds_them(serve):
    server = serve(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 0 } "
        "allowed_batch_sizes: 16 allowed_batch_sizes: 8 allowed_batch_sizes: 32"
    )
    # Out of order: 8 is never the first that holds the rows.
    for rows, padded in ((1, 16), (8, 16), (16, 16), (17, 32)):
        answer = server.predict(request_of("affine", x=rows_of(*range(rows))))
        assert answer.rows.tolist() == [padded] * rows
        np.testing.assert_array_equal(answer.y, rows_of(*(3 * row + 1 for row in range(rows))))
    metrics = server.metrics()
    assert metrics["processed_batch_size_sum"] == 16 + 16 + 16 + 32
    assert metrics['padding_size_sum{execution_batch_size="16"}'] == 15 + 8
    assert metrics['padding_size_sum{execution_batch_size="32"}'] == 15
    assert server.failure(request_of("affine", "first", x=rows_of(1))) == (
        "FAILED_PRECONDITION",
        "Batched output tensor has 0 dimensions",
    )


def test_outputs_of_another_length_than_the_batch_are_refused(serve):
    text = (
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes "
        "of the input tensors"
    )
    for sizes in ("", "allowed_batch_sizes: 8"):
        server = serve(f"max_batch_size {{ value: 8 }} {sizes}")
        request = request_of("affine", "halves", x=rows_of(1, 2))
        assert server.failure(request) == ("FAILED_PRECONDITION", text)


def test_pad_rows_are_copies_of_the_last_requests_first_row(serve):
    server = serve(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 1000000 } "
        "allowed_batch_sizes: 6 allowed_batch_sizes: 8"
    )
    answers = gather(
        server,
        request_of("affine", x=rows_of(1, 2)),
        request_of("affine", x=rows_of(3, 4)),
    )
    assert {tuple(answer.rows) for answer in answers} == {(6, 6)}
    last = {float(answer.last[0, 0]) for answer in answers}
    assert len(last) == 1
    assert last <= {1.0, 3.0}


def test_large_requests_are_split(serve):
    server = serve(
        "max_batch_size { value: 10 } enable_large_batch_splitting { value: true } "
        "max_execution_batch_size { value: 4 }"
    )
    answer = server.predict(request_of("affine", x=rows_of(*range(10))))
    assert answer.rows.tolist() == [4] * 8 + [2] * 2
    np.testing.assert_array_equal(answer.y, rows_of(*(3 * row + 1 for row in range(10))))
    metrics = server.metrics()
    assert metrics["wrapped_run_count"] == 3
    assert metrics["processed_batch_size_sum"] == 10
    assert metrics['queuing_latency_count{thread_pool_name=""}'] == 3


def test_splitting_without_a_size_rejects_everything(serve):
    server = serve("enable_large_batch_splitting { value: true }")
    code, text = server.failure(request_of("affine", x=rows_of(1)))
    assert code == "UNAVAILABLE"
    assert "task size is 1 but scheduling capacity is only 0" in text


def test_a_full_queue_refuses_at_once(serve):
    server = serve("max_batch_size { value: 1 } max_enqueued_batches { value: 1 }")
    server.predict(request_of("affine", "slow", x=rows_of(1)))
    calls = [server.start_predict(request_of("affine", "slow", x=rows_of(50))) for _ in range(6)]
    codes = [call.code().name for call in calls]
    assert set(codes) == {"OK", "UNAVAILABLE"}
    text = calls[codes.index("UNAVAILABLE")].details()
    assert text == (
        "The batch scheduling queue to which this task was submitted is full; currently 1 "
        "batches enqueued and max_enqueued_batches is 1"
    )
    counts = server.metrics()
    refused = counts['request_count{model_name="affine",status="UNAVAILABLE"}']
    assert refused == codes.count("UNAVAILABLE")


def test_a_batch_of_expired_requests_is_not_run(serve):
    server = serve("max_batch_size { value: 4 }")
    server.predict(request_of("affine", "slow", x=rows_of(1)))
    running = server.start_predict(request_of("affine", "slow", x=rows_of(300)))
    time.sleep(0.3)  # let it be taken from the queue: only then does the next one wait
    server.failure(request_of("affine", "slow", x=rows_of(1)), timeout_s=0.2)
    assert running.exception() is None
    server.predict(request_of("affine", "slow", x=rows_of(1)))
    counts = server.metrics()
    assert counts['request_count{model_name="affine",status="RESOURCE_EXHAUSTED"}'] == 1
    assert counts["wrapped_run_count"] == 3


def test_unlike_shapes_fail_the_whole_batch(serve):
    server = serve(
        "max_batch_size { value: 3 } batch_timeout_micros { value: 60000000 }", "lengths"
    )
    shapes = ((1, 2, 2), (1, 2, 2), (1, 2, 3))
    requests = [request_of("lengths", x=np.ones(shape, np.float32)) for shape in shapes]
    calls = [server.start_predict(request) for request in requests]
    for call in calls:
        assert call.code().name == "FAILED_PRECONDITION", call.details()
        assert call.details().startswith(
            "Tensors with name 'serving_default_x:0' from different tasks have different shapes "
            "and padding is turned off."
        )


def test_variable_lengths_are_padded_with_each_requests_first_element(serve):
    server = serve(
        "max_batch_size { value: 3 } batch_timeout_micros { value: 60000000 } "
        "pad_variable_length_inputs: true",
        "lengths",
    )
    wide = np.array([[[1, 2, 3]], [[4, 5, 6]]], np.float32)
    tall = np.array([[[7], [8]]], np.float32)
    first, second = gather(server, request_of("lengths", x=wide), request_of("lengths", x=tall))
    assert first.x.tolist() == [[[1, 2, 3], [1, 1, 1]], [[4, 5, 6], [1, 1, 1]]]
    assert second.x.tolist() == [[[7, 7, 7], [8, 7, 7]]]
    assert second.sum.tolist() == [43]
