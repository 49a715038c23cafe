import json
import math

from literal_runs import (
    BEST,
    OTHER,
    deployed_run,
    empty_run,
    gain_run,
    infeasible_run,
    invalid_run,
)

from tuner.report.bundle import embedded_json
from tuner.report.charts import shown_charts
from tuner.report.points import page_data


def ids(data):
    return [config["id"] for config in data["configs"]]


def test_points_are_the_valid_open_ones_and_name_their_configuration():
    data = page_data(gain_run())
    offered = {point["offered"]: ids(data)[point["c"]] for point in data["points"]}
    assert offered[300] in {OTHER.id, "c-default"}
    assert offered[500] == BEST.id
    assert 320 not in offered  # not valid
    assert 700 not in offered  # a closed loop


def test_a_front_is_kept_for_every_percentile():
    data = page_data(gain_run())
    rates = [data["points"][index]["answered"] for index in data["fronts"]["p99"]]
    assert rates == sorted(rates)
    assert rates[-1] == 600
    assert data["fronts"]["p999"] == []
    assert list(data["percentiles"]) == ["p50", "p90", "p99"]


def test_the_recommended_is_named_where_the_front_shows_it():
    data = page_data(gain_run())
    (reference,) = (item for item in data["references"] if item["recommended"])
    assert data["points"][reference["i"]]["offered"] == 500
    assert ids(data)[data["recommended"]] == BEST.id
    assert page_data(deployed_run())["recommended"] is not None
    assert page_data(infeasible_run())["recommended"] is None


def test_waits_split_the_mean_latency():
    waits = page_data(gain_run())["waits"]
    best = [row for row in waits if "recommended" in row["label"]]
    assert [(row["part"], row["ms"]) for row in best] == [
        ("queueing", 4.5),
        ("compute and the rest", 7.5),
    ]


def test_progress_keeps_the_best_rate_so_far_and_leaves_the_final_out():
    progress = page_data(deployed_run())["progress"]
    assert [row["best"] for row in progress] == [100, 200, 300, 500]


def test_each_further_nine_has_the_same_room():
    data = page_data(gain_run())
    assert data["nines"][0] == 0
    assert math.isclose(data["nines"][3], 1)
    assert data["promises"] == [{"name": "99 % ≤ 60 ms", "share": 0.99, "ms": 60.0, "nines": 2.0}]


def test_a_run_without_a_usable_point_has_no_chart():
    for run in (empty_run(), invalid_run()):
        assert shown_charts(page_data(run)) == ()


def test_a_chart_without_data_is_left_out():
    shown = {chart.id for chart in shown_charts(page_data(infeasible_run()))}
    assert shown == {"front", "load"}
    assert "waits" in {chart.id for chart in shown_charts(page_data(gain_run()))}


def test_data_can_end_no_element_of_the_page():
    text = embedded_json({"a": "</script><!--&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"a": "</script><!--&\u2028"}
