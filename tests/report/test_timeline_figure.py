import json
import math
from dataclasses import replace

import pytest
from literal_runs import gain_run

from tuner.report.canvas import style, to_files
from tuner.report.figures import render_plots
from tuner.report.timeline_figure import WINDOWS, draw_timeline, timeline_info


def line(number, offered, *, seconds=2.0):
    """One window as a long load writes it."""
    measured = {
        "offered_rps": offered,
        "throughput_rps": offered - 1,
        "window_s": seconds,
        "percentiles_ms": {"p50": 2.0, "p99": 9.0} if number else {"p50": 2.0},
    }
    return json.dumps({"window": number, "from_s": 2.0 * number, "measurement": measured})


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "trials" / "0000"
    folder.mkdir(parents=True)
    lines = [line(0, 100.0), line(1, 300.0), line(2, 300.0, seconds=1.0)]
    (folder / WINDOWS).write_text("\n".join(lines) + "\n")
    return replace(gain_run(), directory=tmp_path)


def test_a_point_lies_in_the_middle_of_its_window(run):
    info = timeline_info(run)
    assert info.middle_s == (1.0, 3.0, 4.5)
    assert info.offered_rps == (100.0, 300.0, 300.0)
    assert info.answered_rps == (99.0, 299.0, 299.0)
    assert info.median_ms == (2.0, 2.0, 2.0)
    assert math.isnan(info.tail_ms[0])


def test_a_line_that_a_crash_cut_short_ends_the_plot(run):
    path = run.directory / "trials" / "0000" / WINDOWS
    path.write_text(path.read_text() + '{"window": 3, "meas')
    assert len(timeline_info(run).middle_s) == 3


def test_runs_without_a_long_load_have_none(run, tmp_path):
    assert timeline_info(replace(run, directory=None)) is None
    assert timeline_info(replace(run, directory=tmp_path / "elsewhere")) is None


def test_it_is_drawn_and_joins_the_other_plots(run):
    with style():
        svg, png = to_files(draw_timeline(timeline_info(run)))
    assert svg.startswith("<?xml")
    assert png.startswith(b"\x89PNG")
    assert render_plots(run)[-1].name == "timeline"
