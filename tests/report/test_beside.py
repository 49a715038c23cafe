import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from literal_runs import EVIL, deployed_run, figures, gain_run, invalid_run, level, trial

from tuner.cli import main
from tuner.commands.publish import report_run
from tuner.errors import UsageError
from tuner.report.beside import compare
from tuner.report.beside_page import caveat, figure_lines, render_comparison, verdict
from tuner.report.conditions import subject_of, unlike
from tuner.search.unpaired import unpaired_gain
from tuner.store import RunDirectory

EXAMPLE = Path(__file__).parents[2] / "results" / "example"


@pytest.fixture
def two(tmp_path):
    """The example, and the same on another machine."""
    for name in ("cpu", "other"):
        shutil.copytree(EXAMPLE, tmp_path / name)
    path = tmp_path / "other" / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps(environment | {"cpu_model": "Another CPU", "cpus": 4}))
    return tmp_path / "cpu", tmp_path / "other"


def runs_of(paths):
    return [report_run(RunDirectory(path)) for path in paths]


def edit(path, name, old, new):
    text = (path / name).read_text()
    assert old in text
    (path / name).write_text(text.replace(old, new))


def named(name, run=None, **conditions):
    run = run or gain_run()
    return replace(run, directory=Path(name), conditions=conditions)


def with_final(run, *rates):
    """The run with its recommended measured again on fresh starts."""
    best = run.trials[-1].config
    final = [
        trial(10 + block, "final", best, [level(rate, 50.0)], reference=0, block=block)
        for block, rate in enumerate(rates)
    ]
    recommendation = {**run.recommendation, "recommended": figures(rates[0], 50.0, 8.0)}
    return replace(run, trials=(*run.trials, *final), recommendation=recommendation)


def test_two_runs_become_one_page_with_both_fronts(two, tmp_path):
    done = CliRunner().invoke(main, ["report", *map(str, two), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    page, table, fronts, *plots = (Path(line) for line in done.output.splitlines())
    assert page == tmp_path / "out" / "comparison.html"
    assert [plot.name for plot in plots] == ["fronts.svg", "fronts.png"]
    assert list(pd.read_csv(table)["cpu_model"]) == ["AMD EPYC", "Another CPU"]
    assert set(pd.read_csv(fronts)["run"]) == {"cpu", "other"}
    text = page.read_text()
    assert "What differs is the machine." in text
    assert "Another CPU" in text


def test_the_page_goes_beside_the_first_run_unless_told_otherwise(two, tmp_path):
    done = CliRunner().invoke(main, ["report", *map(str, two), "--json"])
    assert json.loads(done.output)[0] == str(tmp_path / "comparison" / "comparison.html")


def test_out_is_for_several_runs(two, tmp_path):
    done = CliRunner().invoke(main, ["report", str(two[0]), "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "--out" in done.output


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("p95_ms = 50", "p95_ms = 40", "slo.p95_ms: 50.0 in cpu, 40.0 in other"),
        ("max_error_rate = 0.001", "max_error_rate = 0.01", "slo.max_error_rate"),
        ("\nrows = 1 ", "\nrows = 4 ", "requests.rows: 1: 1.0 in cpu, 4: 1.0 in other"),
        ('arrivals = "poisson"', 'arrivals = "constant"', "load.arrivals: poisson in cpu"),
        ('"poisson"', '"bursts"\nburst_cv = 2.0', "load.burst_cv"),
        ('launcher = "embedded"', 'launcher = "docker"', "server.kind: embedded in cpu"),
    ],
)
def test_what_would_lie_is_refused_by_the_name_of_its_key(two, old, new, key):
    edit(two[1], "scenario.toml", old, new)
    with pytest.raises(UsageError, match="cannot be compared") as refused:
        compare(runs_of(two))
    assert key in refused.value.message
    assert refused.value.hint


def test_every_key_that_would_lie_is_named(two):
    edit(two[1], "scenario.toml", "p95_ms = 50", "p95_ms = 40")
    edit(two[1], "scenario.toml", '"poisson"', '"constant"')
    done = CliRunner().invoke(main, ["report", *map(str, two)])
    assert done.exit_code == 2
    assert "slo.p95_ms" in done.output
    assert "load.arrivals" in done.output


def test_another_payload_is_refused_where_both_runs_kept_it(two):
    payloads = ({"m": {"x": "DT_FLOAT [?, 64]"}}, {"n": {"y": "DT_FLOAT [?, 128]"}})
    for path, payload in zip(two, payloads, strict=True):
        file = path / "environment.json"
        name = next(iter(payload))
        environment = json.loads(file.read_text()) | {"payload": {"dense-2048x4": payload[name]}}
        file.write_text(json.dumps(environment))
    with pytest.raises(UsageError, match=r"requests\.tensors: DT_FLOAT \[\?, 64\] in cpu"):
        compare(runs_of(two))


def test_a_run_without_an_open_loop_is_refused():
    with pytest.raises(UsageError, match="b: loop: it holds no valid measurement from an open"):
        compare([named("a"), named("b", invalid_run())])


def test_a_run_beside_itself_is_refused(two):
    with pytest.raises(UsageError, match="given twice"):
        compare(runs_of((two[0], two[0])))


def test_what_is_compared_is_named_not_refused(two):
    path = two[1] / "environment.json"
    environment = json.loads(path.read_text())
    environment["models"] = {"dense-2048x4": "another fingerprint"}
    path.write_text(json.dumps(environment))
    found = compare(runs_of(two))
    assert set(found.subjects) == {"the model", "the machine"}
    assert "the model and the machine" in caveat(found)
    assert "cannot be laid on one of them" in caveat(found)


def test_runs_that_differ_in_nothing_differ_by_noise_and_time():
    assert "Nothing that was recorded differs" in caveat(compare([named("a"), named("b")]))


def test_a_difference_of_which_nothing_recorded_tells_the_cause_is_not_laid_on_noise():
    slow = with_final(named("slow"), 500.0, 510.0, 490.0)
    fast = with_final(named("fast"), 700.0, 710.0, 690.0)
    assert "what made the difference was not recorded" in caveat(compare([slow, fast]))
    assert "is noise and time" in caveat(compare([slow, replace(slow, directory=Path("again"))]))


def test_the_means_that_a_difference_is_of_are_told():
    found = compare([with_final(named("a"), 400.0, 625.0), with_final(named("b"), 100.0, 900.0)])
    lines = {line.name: line.texts for line in figure_lines(found)}
    assert lines["on fresh starts"][0] == "400 to 625/s in 2, mean 500/s"
    assert found.figures[1].gain.percent == pytest.approx(100 * (300 / 500 - 1))


def test_what_was_searched_is_a_difference(two):
    edit(two[1], "scenario.toml", "trials = 6", "trials = 7")
    compared = compare(runs_of(two))
    (found,) = (one for one in compared.differences if one.name == "search.trials")
    assert (found.subject, found.by_run) == ("the search", ("6", "7"))
    assert "the search" not in compared.subjects, "the default differs without it too"


def test_what_only_one_run_kept_is_said_to_be_unknown():
    found = compare([named("a", governor="x", seed=1), named("b", seed=1)])
    assert found.untold == ("governor",)
    assert "not known: <code>governor</code>" in render_comparison(found)


def test_a_difference_beyond_the_starts_noise_is_called_so():
    slow = with_final(named("slow"), 500.0, 510.0, 490.0)
    fast = with_final(named("fast"), 700.0, 710.0, 690.0)
    found = compare([slow, fast])
    gain = found.figures[1].gain
    assert gain.percent == pytest.approx(40, abs=1)
    assert gain.low > 30
    assert verdict(found) == (
        "fast carries 40\u00a0% more than slow: a difference beyond the noise of their starts."
    )
    assert verdict(compare([fast, slow])).startswith("fast carries 40\u00a0% more than slow")


def test_a_difference_within_the_noise_is_none():
    one = with_final(named("one"), 400.0, 600.0, 500.0)
    other = with_final(named("other"), 450.0, 650.0, 520.0)
    assert verdict(compare([one, other])).startswith("No difference can be told")


def test_of_many_runs_those_are_named_that_may_be_as_good():
    best = with_final(named("best"), 700.0, 710.0, 690.0)
    near = with_final(named("near"), 680.0, 705.0, 698.0)
    far = with_final(named("far"), 500.0, 510.0, 490.0)
    assert verdict(compare([far, best, with_final(named("last"), 400.0, 410.0, 390.0)])) == (
        "best carries the most, beyond the noise of the runs' starts."
    )
    found = compare([far, near, best])
    assert [item.name for item in found.as_good] == ["near"]
    assert verdict(found).endswith("their starts can tell, near may carry as much.")


def test_single_starts_prove_nothing():
    weaker = with_final(named("weaker"), 300.0)
    assert "is not proven" in verdict(compare([named("a"), weaker]))


def test_the_lucky_start_of_the_search_does_not_count_where_a_final_measured_again():
    assert compare([named("a", deployed_run()), named("b")]).figures[0].starts_rps == (480.0,)


def test_the_tail_is_one_that_every_run_carries():
    lines = {line.name: line.texts for line in figure_lines(compare([named("a"), named("b")]))}
    assert lines["p99 there"] == ("55.0\u00a0ms", "55.0\u00a0ms")
    assert lines["sustainable rate"] == ("500/s", "500/s")


def test_hostile_names_are_text():
    evil = replace(gain_run(), name=EVIL, directory=None, conditions={"cpu_model": EVIL})
    page = render_comparison(compare([evil, named("b", cpu_model="b")]))
    assert "<script>window" not in page
    assert "&lt;script&gt;" in page


def test_a_name_that_an_older_run_did_not_keep_is_no_difference():
    assert unlike({"a": {"governor": "x", "seed": 1}, "b": {"seed": 2}}) == {
        "seed": {"a": 1, "b": 2}
    }


def test_a_limit_that_only_one_run_has_is_a_difference():
    assert "slo.p50_ms" in unlike({"a": {"slo.p50_ms": 5.0}, "b": {}})
    assert subject_of("server.gpus") == "the GPU"


def test_the_unpaired_interval_is_welchs():
    """By hand: logs 0, 2 and 8, 10: means 1 and 9, variances 2, so error sqrt(2/2 + 2/2) = 1.414;
    2 degrees, t = 4.3027: 8 +- 6.085."""
    gain = unpaired_gain([math.exp(8), math.exp(10)], [1.0, math.exp(2)])
    assert gain.percent == pytest.approx((math.exp(8) - 1) * 100)
    assert gain.low == pytest.approx((math.exp(8 - 6.0848) - 1) * 100, rel=1e-3)
    assert gain.high == pytest.approx((math.exp(8 + 6.0848) - 1) * 100, rel=1e-3)
    assert unpaired_gain([math.exp(4), math.exp(6)], [1.0, math.exp(2)]).low is None, (
        "says nothing"
    )


def test_equal_starts_have_an_interval_of_no_width():
    gain = unpaired_gain([20.0, 20.0], [10.0, 10.0])
    assert (gain.low, gain.high) == (pytest.approx(100), pytest.approx(100))


def test_equal_starts_of_coarse_ladders_have_an_interval_all_the_same():
    steps = ([0.1, 0.1], [0.1, 0.1])
    gain = unpaired_gain([20.0, 20.0], [10.0, 10.0], steps=steps)
    assert math.log1p(gain.low / 100) == pytest.approx(
        math.log(2) - 1.96 * 0.1 / math.sqrt(6), rel=1e-4
    )


def test_no_ratio_where_one_carries_nothing():
    assert unpaired_gain([0.0, 1.0], [1.0]) is None
