import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.batching import BatchingParameters
from tuner.errors import BatchingError

COUNTS = st.none() | st.integers(min_value=-(2**63), max_value=2**63 - 1)
ANY = st.builds(
    BatchingParameters,
    max_batch_size=COUNTS,
    batch_timeout_micros=COUNTS,
    max_enqueued_batches=COUNTS,
    num_batch_threads=COUNTS,
    thread_pool_name=st.none() | st.text(),
    allowed_batch_sizes=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(tuple),
    pad_variable_length_inputs=st.booleans(),
    enable_large_batch_splitting=st.none() | st.booleans(),
    max_execution_batch_size=COUNTS,
)
VALID = BatchingParameters(
    max_batch_size=32,
    batch_timeout_micros=2000,
    max_enqueued_batches=100,
    num_batch_threads=2,
    allowed_batch_sizes=(8, 16, 32),
)


@given(ANY.filter(lambda parameters: parameters != BatchingParameters()))
def test_what_is_written_is_read_back(parameters):
    assert BatchingParameters.from_text(parameters.to_text()) == parameters


@given(ANY)
def test_plain_values_are_read_back_through_json(parameters):
    values = json.loads(json.dumps(parameters.to_dict()))
    assert BatchingParameters.from_dict(values) == parameters


def test_the_text_is_what_the_server_documents():
    assert VALID.to_text() == (
        "max_batch_size { value: 32 }\n"
        "batch_timeout_micros { value: 2000 }\n"
        "max_enqueued_batches { value: 100 }\n"
        "num_batch_threads { value: 2 }\n"
        "allowed_batch_sizes: 8\n"
        "allowed_batch_sizes: 16\n"
        "allowed_batch_sizes: 32\n"
    )


def test_zero_is_a_value_and_not_an_unset_field():
    text = BatchingParameters(batch_timeout_micros=0).to_text()
    assert text == "batch_timeout_micros { value: 0 }\n"
    assert BatchingParameters.from_text(text).batch_timeout_micros == 0


@pytest.mark.parametrize(
    "text",
    [
        "num_batch_threads { value: 4 } max_batch_size { value: 8 }",
        "# why eight\nmax_batch_size: { value: 8 }  # rows\nnum_batch_threads {value:4}",
        "max_batch_size <\n  value: 8\n>\nnum_batch_threads { value: 0x4 }",
    ],
)
def test_order_comments_and_spelling_do_not_matter(text):
    expected = BatchingParameters(max_batch_size=8, num_batch_threads=4)
    assert BatchingParameters.from_text(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file is empty.*write at least one field"),
        (" \n", "file is empty"),
        ("max_batch_size: 32", r"b.txt:1:.*write `max_batch_size \{ value: 32 \}`, with braces"),
        ("\nnum_batch_threads: 2  # two", r"b.txt:2:.*`num_batch_threads \{ value: 2 \}`"),
        ("max_batchsize { value: 8 }", "b.txt:1:.*max_batchsize.*the fields are max_batch_size"),
        ("max_batch_size { value: lots }", "b.txt:1:.*lots"),
        ("max_batch_size { value: 8", "b.txt:1:"),
    ],
)
def test_text_that_is_no_batching_file_is_refused(text, message):
    with pytest.raises(BatchingError) as caught:
        BatchingParameters.from_text(text, source="b.txt")
    assert_matches(message, caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size = 0: the server crashes.*use 1 or more"),
        ({"max_batch_size": -1}, "max_batch_size = -1: .*negative size for a limit without bound"),
        ({"batch_timeout_micros": -5}, "batch_timeout_micros = -5: the server crashes.*0 or more"),
        ({"num_batch_threads": 0}, "num_batch_threads = 0: the server refuses to start.*1 or mo"),
        ({"max_enqueued_batches": -1}, "max_enqueued_batches = -1: .*queue without bound"),
        (
            {"max_enqueued_batches": 0, "enable_large_batch_splitting": True},
            "max_enqueued_batches = 0: with enable_large_batch_splitting the server crashes",
        ),
        ({"allowed_batch_sizes": (0, 32)}, r"allowed_batch_sizes = \[0, 32\]: sizes below 1"),
        (
            {"allowed_batch_sizes": (8, 4, 32)},
            r"allowed_batch_sizes = \[8, 4, 32\]: .*do not increase.*\[4, 8, 32\]",
        ),
        ({"allowed_batch_sizes": (8, 8, 32)}, "do not increase.*wrong size"),
        (
            {"allowed_batch_sizes": (8, 64)},
            r"allowed_batch_sizes = \[8, 64\]: the last size must be max_batch_size = 32; "
            ".*five minutes.*end the list with 32, or set max_batch_size to 64",
        ),
        (
            {"max_batch_size": None},
            "the last size must be max_batch_size = 1000 .the default, since it is unset.",
        ),
        (
            {
                "max_batch_size": None,
                "allowed_batch_sizes": (),
                "enable_large_batch_splitting": True,
            },
            "max_batch_size = None: .*rejects every request.*set max_batch_size",
        ),
        (
            {"enable_large_batch_splitting": True, "max_execution_batch_size": 64},
            "max_execution_batch_size = 64: .*crashes.*1..32.*at most 32",
        ),
        (
            {"enable_large_batch_splitting": True, "max_execution_batch_size": 0},
            "max_execution_batch_size = 0: .*crashes",
        ),
    ],
)
def test_what_the_server_would_punish_is_refused_before_it_starts(change, message):
    with pytest.raises(BatchingError) as caught:
        replace(VALID, **change).check(source="b.txt")
    assert str(caught.value).startswith("b.txt: ")
    assert_matches(message, caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"max_enqueued_batches": 0},  # the server takes it for 1
        {"max_execution_batch_size": 64},  # counts only with splitting
        {"enable_large_batch_splitting": True, "max_execution_batch_size": 32},
        {"batch_timeout_micros": 0},
        {"max_batch_size": None, "allowed_batch_sizes": (500, 1000)},
    ],
)
def test_what_the_server_accepts_passes(change):
    replace(VALID, **change).check()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "b.txt: cannot be read: No such file.*name a batching parameters file"),
        (b"\xff\xfe\x00", "b.txt: cannot be read: it is not text"),
        (b"", "b.txt: the file is empty"),
        (b"num_batch_threads { value: 0 }", "b.txt: num_batch_threads = 0: the server refuses"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "b.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BatchingError) as caught:
        BatchingParameters.from_file(path)
    assert_matches(message, caught.value)
    assert str(path) in caught.value.message


def test_a_file_is_read(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("# recommended\n" + VALID.to_text())
    assert BatchingParameters.from_file(path) == VALID


def test_an_unknown_name_among_plain_values_is_refused():
    with pytest.raises(BatchingError, match="unknown field 'batch_size'"):
        BatchingParameters.from_dict({"batch_size": 8})


def test_limits_are_the_servers():
    assert BatchingParameters().row_limit == 1000
    assert VALID.row_limit == 32
    split = replace(VALID, enable_large_batch_splitting=True, max_execution_batch_size=16)
    assert split.row_limit == 16
    assert replace(split, enable_large_batch_splitting=False).row_limit == 32
    assert BatchingParameters().queue_limit == 10
    assert BatchingParameters(max_enqueued_batches=0).queue_limit == 1


def test_labels_are_short():
    assert VALID.label() == "max 32, timeout 2000 µs, 2 threads, 3 allowed sizes"
    assert BatchingParameters(num_batch_threads=1).label() == "1 thread"
    assert BatchingParameters().label() == "server defaults"


def assert_matches(pattern, error):
    """Search message and hint together."""
    with pytest.raises(type(error), match=f"(?s){pattern}"):
        raise error
