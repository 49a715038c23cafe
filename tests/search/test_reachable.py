"""What is said where the SLO held nowhere: the nearest load, and what would be kept."""

from dataclasses import replace

import pytest
from trials import DEFAULT, OFF, crashed, level, trial

from tuner.measure.slo import judge
from tuner.search.decide import decide
from tuner.search.reachable import instead, provable_ms
from tuner.slo import Slo

TIGHT = Slo((("p99", 5.0),), max_error_rate=0.001)


def missed(number, role, config, *levels):
    return replace(trial(number, role, config, 0.0), levels=levels)


def load(rate_rps, p99_ms, *, max_ms, requests=2000, **more):
    found = level(rate_rps, p99_ms=p99_ms, held=False)
    measured = replace(
        found.measurement,
        requests=requests,
        answered=requests,
        effective_samples=float(requests),
        percentiles_ms={"p50": p99_ms / 2, "p99": p99_ms, "p999": 0.9 * max_ms},
        max_ms=max_ms,
        over_limit={"p99_ms": requests},
    )
    return replace(found, measurement=replace(measured, **more))


def test_the_limit_that_would_be_kept_is_named_with_its_load_and_the_command():
    records = [
        missed(0, "off", OFF, load(40.0, 31.0, max_ms=60.0), load(80.0, 44.0, max_ms=90.0)),
        missed(1, "default", DEFAULT, load(40.0, 35.0, max_ms=70.0)),
    ]
    decision = decide(records, TIGHT)
    assert decision.verdict == "none"
    assert "no configuration met the SLO (p99 <= 5 ms" in decision.why
    assert "nearest is batching off with a p99 of 31 ms at 40.0/s" in decision.why
    assert "p99 <= 54 ms would be met, by batching off at 40.0/s" in decision.why
    assert "tuner recommend RUN --p99 54ms" in decision.why


@pytest.mark.parametrize("requests", [500, 2000, 8000])
def test_what_is_called_provable_is_judged_to_hold(requests):
    measured = load(40.0, 31.0, max_ms=60.0, requests=requests).measurement
    limit = provable_ms(measured, "p99", TIGHT)
    asked = Slo((("p99", limit),), max_error_rate=0.001)
    # One in a thousand is above the recorded p99.9, nothing above the maximum.
    over = 0 if limit == 60.0 else requests // 1000
    assert judge(replace(measured, over_limit={"p99_ms": over}), asked, looks=3).feasible


def test_too_few_requests_prove_no_limit():
    records = [missed(0, "off", OFF, load(40.0, 31.0, max_ms=60.0, requests=100))]
    assert "would be met" not in instead(records, TIGHT)
    assert "nearest is batching off" in instead(records, TIGHT)


def test_a_limit_that_was_kept_is_named_as_it_was_asked():
    both = Slo((("p50", 18.0), ("p99", 20.0)), max_error_rate=0.001)
    over = {"p50_ms": 100, "p99_ms": 2000}
    words = instead([missed(0, "off", OFF, load(40.0, 31.0, max_ms=60.0, over_limit=over))], both)
    assert "p50 <= 18 ms, p99 <= 54 ms would be met" in words


def test_failures_are_named_where_no_load_was_without():
    failing = {"answered": 0, "errors": {"RESOURCE_EXHAUSTED: out of room": 2000}}
    one = load(40.0, 31.0, max_ms=60.0, **failing)
    nothing = replace(one.measurement, percentiles_ms={"p99": None}, max_ms=None)
    records = [missed(0, "off", OFF, replace(one, measurement=nothing))]
    said = decide([*records, replace(records[0], number=1, role="default")], TIGHT).why
    assert said.endswith(
        "requests failed at every load, most often with RESOURCE_EXHAUSTED: out of room"
    )


def test_where_no_load_could_be_tried_the_reason_is_named():
    peak = level(100.0, held=False)
    closed = replace(peak, measurement=replace(peak.measurement, loop="closed"))
    records = [replace(crashed(0, "off", OFF), levels=(closed,)), crashed(1, "default", DEFAULT)]
    said = decide(records, TIGHT).why
    assert said.endswith(
        "no load could be tried: the server exited before it was ready (exit code 1)"
    )
