from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.http2.request_head import read_head

# A slow machine is no failure.
robust = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])

POST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/tensorflow.serving.PredictionService/Predict"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]


def test_common_part_is_judged_once_whatever_the_timeout():
    heads = [read_head([*POST, (b"grpc-timeout", b"%dm" % ms)]) for ms in (5, 70)]
    assert [head.timeout_ns for head in heads] == [5_000_000, 70_000_000]
    assert heads[0].route is heads[1].route
    assert read_head(POST).timeout_ns is None


def test_route_names_method_and_encoding():
    route = read_head([*POST, (b"grpc-encoding", b"gzip")]).route
    assert route.method == "/tensorflow.serving.PredictionService/Predict"
    assert route.encoding == "gzip"
    assert route.refusal is None
    assert not route.malformed


@pytest.mark.parametrize("missing", range(3))
def test_each_pseudo_header_is_required(missing):
    assert read_head(POST[:missing] + POST[missing + 1 :]).route.malformed


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [b":method", b":path", b"te", b"grpc-timeout", b"content-type", b"", b"X"]
        ),
        st.one_of(
            st.sampled_from([b"POST", b"trailers", b"10S", b"application/grpc"]), st.binary()
        ),
    )
)


@robust()
@given(FIELDS)
def test_every_header_block_is_judged(fields):
    """With no scheme all are malformed, or their timeout is refused: none passes, none raises."""
    route = read_head(fields).route
    assert route.malformed or route.refusal is not None
