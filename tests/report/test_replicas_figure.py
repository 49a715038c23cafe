"""Plots of a capacity plan, from a plan's own form."""

import pytest

from tuner.report.canvas import style
from tuner.report.replicas_figure import draw_replicas, draw_trace, plan_plots


def promise(limit_ms, replicas):
    table = [
        {"rate_rps": rate, "replicas": each}
        for rate, each in zip((2e3, 2e4, 2e5), replicas, strict=True)
    ]
    return {"promise": f"p95 <= {limit_ms} ms", "config": "max 32, <b>", "table": table}


PLAN = {
    "scenario": "quick $x$ start",
    "balancer": "least-outstanding",
    "cv": 2.0,
    "spare": 1,
    "planned_rps": 2e4,
    "promises": [
        promise(50, (2, 17, 170)),
        promise(30, (3, 24, 240)),
        {"promise": "p95 <= 1 ms", "config": None, "table": []},
    ],
    "trace": {
        "intervals": [
            {"starts_s": 0.0, "lasts_s": 3600.0, "rate_rps": 5e3, "replicas": 5},
            {"starts_s": 3600.0, "lasts_s": 7200.0, "rate_rps": 2e4, "replicas": 18},
        ],
        "follow": {"replica_hours": 41.0},
        "steady": {"replicas": 18, "replica_hours": 54.0},
    },
}


def test_every_promise_that_is_kept_has_a_line_of_its_own():
    with style():
        [axes] = draw_replicas(PLAN).axes
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert [list(line.get_ydata()) for line in lines] == [[2, 17, 170], [3, 24, 240]]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 2
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith("p95 <= 50 ms")


def test_a_trace_is_drawn_to_its_end_below_the_peak_s_line():
    with style():
        upper, lower = draw_trace(PLAN).axes
    steps, rates = upper.patches[0].get_data(), lower.patches[0].get_data()
    assert list(steps.edges) == [0, 1, 3]
    assert list(steps.values) == [5, 18]
    assert list(rates.values) == [5e3, 2e4]


@pytest.mark.parametrize(("trace", "names"), [(None, 1), (PLAN["trace"], 2)])
def test_files_are_the_same_for_the_same_plan(trace, names):
    plan = {**PLAN, "trace": trace}
    first, again = plan_plots(plan), plan_plots(plan)
    assert len(first) == names
    assert first == again
