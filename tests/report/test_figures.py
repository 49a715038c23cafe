import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from literal_runs import (
    BEST,
    DEFAULT,
    OFF,
    OTHER,
    deployed_run,
    empty_run,
    gain_run,
    infeasible_run,
    invalid_run,
    level,
    trial,
)

from tuner.measure.histogram import LatencyHistogram, write_log
from tuner.report.batch_figure import MOST_ROWS, batch_info
from tuner.report.curves import contender_curves, front_curves
from tuner.report.figures import render_plots
from tuner.report.front_figure import front_info
from tuner.report.load_figure import load_info
from tuner.report.percentile_figure import comparable_levels, percentile_info
from tuner.slo import Slo

INFOS = (front_info, load_info, percentile_info, batch_info)


def test_importing_the_report_does_not_import_the_drawing_library():
    code = "import sys, tuner.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_front_info_tells_feasible_from_infeasible():
    info = front_info(gain_run())
    assert info.feasible == ((100, 40.0), (200, 45.0), (300, 30.0), (210, 35.0), (500, 55.0))
    assert info.infeasible == ((150, 80.0), (600, 75.0))
    assert info.front == ((300, 30.0), (500, 55.0), (600, 75.0))
    assert info.limit_ms == 60.0


def test_front_info_keeps_overloaded_points_as_off_scale():
    info = front_info(gain_run())
    assert info.off_scale == (250,)
    assert 75.0 < info.top_ms < 900.0


def test_front_info_judges_by_the_highest_promised_percentile_that_is_carried():
    run = replace(gain_run(), slo=Slo((("p50", 15.0), ("p90", 25.0), ("p999", 99.0))))
    info = front_info(run)
    assert (info.percentile, info.limit_ms) == ("p90", 25.0)
    # Every level has the same p90, so the one with the most throughput stands for all.
    assert info.front == ((600, 20.0),)


def test_contenders_are_named_and_sorted_with_the_recommended_on_top():
    curves = contender_curves(gain_run())
    assert [curve.name for curve in curves] == ["batching off", "default", "recommended"]
    assert [curve.reference.measurement.offered_rps for curve in curves] == [100, 200, 500]


def test_a_recommended_baseline_is_one_curve():
    run = gain_run()
    run = replace(run, recommendation={**run.recommendation, "config_id": DEFAULT.id})
    assert [curve.name for curve in contender_curves(run)] == [
        "batching off",
        "default (recommended)",
    ]


def test_without_an_answer_a_baseline_is_not_called_recommended():
    run = gain_run()
    kept = {**run.recommendation, "config_id": DEFAULT.id, "recommended": None}
    run = replace(run, recommendation=kept)
    assert [curve.name for curve in contender_curves(run)] == ["batching off", "default"]
    assert percentile_info(run) is None


def test_a_curve_is_one_server_start():
    run = gain_run()
    final = trial(9, "final", BEST, [level(490, 50.0)], reference=0, block=0)
    curve = contender_curves(replace(run, trials=(*run.trials, final)))[-1]
    assert [point.measurement.offered_rps for point in curve.points] == [210, 500, 600]


def test_the_curve_is_of_the_trial_whose_rate_was_published():
    curve = contender_curves(deployed_run())[-1]
    assert (curve.name, curve.trial.number) == ("recommended", 4)
    assert curve.reference.measurement.offered_rps == 480


def test_a_recommended_measured_twice_is_one_row_of_the_batches():
    rows = batch_info(deployed_run()).rows
    assert [row.rows_per_batch for row in rows] == [22.0, 6.0, 2.5]


def test_other_configurations_of_the_front_are_drawn_too():
    assert [curve.config_ids for curve in front_curves(gain_run())] == [{OTHER.id}]


def test_load_info_spans_all_curves_that_stay_on_the_axis():
    info = load_info(gain_run())
    drawn = [config_id for curve in info.curves for config_id in curve.config_ids]
    assert sorted(drawn) == sorted([OFF.id, DEFAULT.id, BEST.id, OTHER.id])
    assert info.percentiles == ("p50", "p99")
    assert info.most_rps == 600


def test_percentiles_compare_at_the_nearest_loads():
    info = percentile_info(gain_run())
    assert [(curve.name, curve.offered_rps, curve.at_limit) for curve in info.curves] == [
        ("default", 200, False),
        ("recommended", 210, False),
        ("recommended", 500, True),
    ]
    assert info.limits == ((0.99, 60.0),)
    assert info.curves[0].points == ((0.5, 10.0), (0.9, 20.0), (0.99, 45.0))


def test_without_comparable_loads_the_nearest_are_taken():
    off, _, recommended = contender_curves(gain_run())
    ours, theirs = comparable_levels(recommended, off)
    assert (ours.measurement.offered_rps, theirs.measurement.offered_rps) == (210, 150)


def test_percentiles_come_from_the_histogram_as_far_as_it_carries_them(tmp_path):
    latencies = np.arange(1, 1001, dtype=np.int64) * 1_000_000
    write_log(tmp_path / "h.hlog", LatencyHistogram.of(latencies), start_epoch_s=0, length_s=10)
    run = gain_run()
    best = run.trials[3]
    levels = tuple(replace(item, histogram="h.hlog") for item in best.levels)
    run = replace(run, directory=tmp_path, trials=(*run.trials[:3], replace(best, levels=levels)))
    points = percentile_info(run).curves[-1].points
    # 1,000 samples: ten lie beyond the 990th, which took 990 ms.
    assert points[-1] == pytest.approx((0.99, 990), rel=2e-3)
    assert points == tuple(sorted(points))


def test_batch_info_shows_each_configuration_at_its_sustainable_rate():
    info = batch_info(gain_run())
    assert [(row.look, row.rows_per_batch, row.offered_rps) for row in info.rows] == [
        ("recommended", 24.0, 500),
        (None, 6.0, 300),
        ("default", 2.5, 200),
    ]
    assert info.left_out == 0


def test_batch_info_keeps_the_contenders_among_many():
    run = gain_run()
    many = tuple(
        trial(
            10 + size,
            "sampler",
            replace(OTHER, flags=(("size", str(size)),)),
            [level(300 + size, 30.0, rows=3.0)],
            reference=0,
        )
        for size in range(20)
    )
    info = batch_info(replace(run, trials=(*run.trials, *many)))
    assert len(info.rows) == MOST_ROWS
    assert info.left_out == 23 - MOST_ROWS
    assert info.rows[-1].look == "default"


@pytest.mark.parametrize("run", [empty_run(), invalid_run()])
@pytest.mark.parametrize("info", INFOS)
def test_without_valid_measurements_there_is_nothing_to_draw(info, run):
    assert info(run) is None


def test_a_promise_far_out_of_reach_leaves_the_nearest_loads_to_see():
    run = replace(gain_run(), slo=Slo((("p99", 1.0),)))
    info = front_info(run)
    assert info.front
    assert info.limit_ms < info.front[0][1] <= info.top_ms
    assert [plot.name for plot in render_plots(run)][:2] == ["front", "load"]


def test_every_plot_is_drawn_in_both_formats():
    plots = render_plots(gain_run())
    assert [plot.name for plot in plots] == ["front", "load", "percentiles", "batches"]
    for plot in plots:
        assert plot.png.startswith(b"\x89PNG")
        assert len(plot.png) > 10_000
        assert plot.svg.rstrip().endswith("</svg>")


def test_a_small_run_is_drawn_the_same_each_time():
    first, again = render_plots(infeasible_run()), render_plots(infeasible_run())
    assert [plot.name for plot in first] == ["front", "load"]
    assert first == again


def test_a_second_look_at_an_open_load_replaces_the_first():
    looks = [level(400, 30), level(500, 90, feasible=None), level(506, 45), level(600, 80)]
    run = replace(gain_run(), trials=(trial(1, "default", DEFAULT, looks, reference=0),))
    curve = contender_curves(run)[-1]
    assert [point.measurement.offered_rps for point in curve.points] == [400, 506, 600]
