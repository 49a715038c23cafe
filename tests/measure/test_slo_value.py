import pytest

from tuner.errors import InputError
from tuner.slo import Slo, percentile_label


def test_describe():
    slo = Slo((("p999", 200.0), ("p99", 60.0)), max_error_rate=0.001)
    assert slo.describe() == "p99 <= 60 ms, p99.9 <= 200 ms, errors <= 0.1 %"
    assert Slo((("p50", 2.5),), max_error_rate=0).describe() == "p50 <= 2.5 ms, no errors"


def test_equal_promises_are_equal_values():
    pairs = (("p50", 10.0), ("p99", 60.0))
    assert Slo(pairs) == Slo(pairs[::-1])
    assert hash(Slo(pairs)) == hash(Slo(pairs[::-1]))
    assert (Slo(pairs).tightest_ms, Slo(pairs).loosest_ms) == (10.0, 60.0)


def test_labels():
    assert [percentile_label(name) for name in ("p50", "p99", "p999")] == ["p50", "p99", "p99.9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits_ms": ()}, "no latency limit"),
        ({"limits_ms": (("p98", 5.0),)}, "p98 is not a percentile.*p50_ms, p90_ms"),
        ({"limits_ms": (("p99", 0.0),)}, "p99_ms: .* above 0, got 0"),
        ({"limits_ms": (("p99", float("nan")),)}, "p99_ms: .*got nan"),
        ({"limits_ms": (("p99", 5.0), ("p99", 6.0))}, "p99_ms: set twice"),
        ({"limits_ms": (("p99", 5.0), ("p50", 6.0))}, "p50_ms: 6 ms is above p99_ms, 5 ms"),
        ({"limits_ms": (("p99", 5.0),), "max_error_rate": 1.0}, "max_error_rate: .*got 1"),
        ({"limits_ms": (("p99", 5.0),), "max_error_rate": -0.1}, "max_error_rate: .*got -0.1"),
        ({"limits_ms": (("p99", 5.0),), "confidence": 0.5}, "confidence: .*got 0.5"),
        ({"limits_ms": (("p99", 5.0),), "confidence": 95.0}, "confidence: .*got 95"),
    ],
)
def test_a_senseless_promise_is_refused(arguments, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        Slo(**arguments)
