from dataclasses import replace

import pandas as pd
import pytest
from literal_runs import (
    BEST,
    DEFAULT,
    OTHER,
    deployed_run,
    empty_run,
    gain_run,
    level,
    one_trial_run,
    trial,
    with_verdict,
)

from tuner.errors import StoreError
from tuner.report import closing_rows, pareto_rows, write_pareto_csv
from tuner.report.tables import contender_ids, front_points


def test_closing_rows_come_in_order_and_only_the_recommended_has_a_gain():
    rows = closing_rows(gain_run())
    assert [row.contender for row in rows] == ["recommended", "default", "off"]
    assert [row.sustainable_rps for row in rows] == [500.0, 200.0, 100.0]
    assert [row.gain_percent for row in rows] == [150.0, None, None]
    assert rows[0].label == BEST.label()
    assert (rows[0].gain_low, rows[0].gain_high) == (141.0, 160.0)


def test_a_contender_without_figures_has_no_row():
    assert [row.contender for row in closing_rows(one_trial_run())] == ["off"]
    assert closing_rows(empty_run()) == ()


def test_the_front_leaves_out_invalid_and_closed_loop_levels():
    points = [(p.measurement.offered_rps, p.config_id) for p in front_points(gain_run())]
    # 320/s was invalid; the closed loop's 700/s at 20 ms would have beaten everything.
    assert points == [(300, OTHER.id), (500, BEST.id), (600, BEST.id)]


def test_the_front_leaves_out_a_percentile_that_fell_among_failures():
    failing = level(900, None, percentiles={"p50": 10.0, "p99": None})
    run = replace(gain_run(), trials=(trial(0, "sampler", BEST, [failing]),))
    assert front_points(run) == ()


def test_pareto_rows_spell_out_the_batching_file():
    row = pareto_rows(gain_run())[0]
    assert row["config_id"] == OTHER.id
    assert row["allowed_batch_sizes"] == "4 8"
    assert row["max_batch_size"] == 8
    assert row["num_batch_threads"] is None
    assert (row["p99_ms"], row["p999_ms"]) == (30.0, None)
    assert (row["rows_per_batch"], row["padding_share"]) == (6.0, 0.125)
    assert (row["loop"], row["valid"], row["feasible"]) == ("open", True, True)


def test_pareto_csv_reads_back(tmp_path):
    write_pareto_csv(gain_run(), tmp_path / "pareto.csv")
    table = pd.read_csv(tmp_path / "pareto.csv")
    assert list(table["offered_rps"]) == [300, 500, 600]
    assert list(table["feasible"]) == [True, True, False]
    assert list(tmp_path.iterdir()) == [tmp_path / "pareto.csv"]


def test_pareto_csv_of_nothing_is_a_heading(tmp_path):
    write_pareto_csv(empty_run(), tmp_path / "pareto.csv")
    table = pd.read_csv(tmp_path / "pareto.csv")
    assert len(table) == 0
    assert "throughput_rps" in table.columns


def test_pareto_csv_that_cannot_be_written_says_where(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StoreError, match=r"pareto\.csv: cannot be written"):
        write_pareto_csv(gain_run(), blocked / "pareto.csv")


def test_a_gain_that_was_not_proven_is_not_put_to_the_recommended_default():
    assert closing_rows(with_verdict("none"))[0].gain_percent is None
    assert closing_rows(with_verdict("undecided"))[0].gain_percent == 150.0


def test_the_recommended_is_known_under_its_unbounded_and_its_deployed_queue():
    run = deployed_run()
    ids = contender_ids(run, "recommended")
    assert ids == {BEST.id, run.recommended_id}
    assert run.recommended_id != BEST.id
    assert contender_ids(run, "default") == {DEFAULT.id}
    assert closing_rows(run)[0].label == BEST.label()


def test_a_recommended_default_is_the_default_alone():
    run = gain_run()
    run = replace(run, recommendation={**run.recommendation, "config_id": DEFAULT.id})
    assert contender_ids(run, "recommended") == {DEFAULT.id}
