"""What a run leaves, opened by other people's tools."""

import copy
import json
import shutil
import subprocess
import threading
import urllib.request
import wsgiref.simple_server
from pathlib import Path

import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from jsonschema import Draft202012Validator, ValidationError

from tuner.cli import main
from tuner.commands.publish import publish_report, scenario_of
from tuner.formats import FORMATS, schema_of
from tuner.search.ranking import search_trials
from tuner.search.sampler import Sampler
from tuner.search.space import Space
from tuner.store import RunDirectory, read_json

EXAMPLE = Path(__file__).parents[2] / "results" / "example"
RUN = RunDirectory(EXAMPLE)
HDR_JAR = Path("/usr/share/java/hdrhistogram.jar")


@pytest.fixture(scope="module")
def study_db(tmp_path_factory):
    """The example's study, as a run writes it."""
    database = tmp_path_factory.mktemp("study") / "study.db"
    sampler = Sampler(Space.of(scenario_of(RUN)), name="tpe", seed=1, database=database)
    sampler.tell(search_trials(RUN.trials()))
    return database


def measured_levels():
    return [
        level
        for trial in RUN.trials()
        for level in trial.levels
        if level.histogram and "p95" in level.measurement.percentiles_ms
    ]


def test_optuna_reads_the_study(study_db):
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{study_db}")
    assert study.metric_names == ["sustainable_rps", "latency_ms"]
    frame = study.trials_dataframe()
    rates = dict(zip(frame["user_attrs_number"], frame["values_sustainable_rps"], strict=True))
    assert rates == {trial.number: trial.sustainable_rps for trial in search_trials(RUN.trials())}
    assert study.best_trials


@pytest.fixture
def dashboard(study_db):
    """optuna-dashboard, serving the study on a port of its own."""
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    app = optuna_dashboard.wsgi(f"sqlite:///{study_db}")

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_args):
            pass

    with wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetched(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def test_optuna_dashboard_shows_the_study(dashboard):
    assert b"<html" in fetched(f"{dashboard}/dashboard").lower()
    (summary,) = json.loads(fetched(f"{dashboard}/api/studies"))["study_summaries"]
    assert summary["study_name"] == "tuner"
    detail = json.loads(fetched(f"{dashboard}/api/studies/{summary['study_id']}"))
    searched = search_trials(RUN.trials())
    assert [trial["values"][0] for trial in detail["trials"]] == [
        trial.sustainable_rps for trial in searched
    ]


def test_the_hdrhistogram_package_reads_every_log():
    for level in measured_levels():
        reader = HistogramLogReader(
            str(EXAMPLE / level.histogram), HdrHistogram(1, 3_600_000_000, 3)
        )
        found = reader.get_next_interval_histogram()
        reader.close()
        assert found.get_total_count() == level.measurement.answered
        at_p95_us = found.get_value_at_percentile(95)
        assert at_p95_us / 1000 == pytest.approx(level.measurement.percentiles_ms["p95"], rel=2e-3)


@pytest.mark.skipif(
    not (shutil.which("java") and HDR_JAR.exists()),
    reason="HdrHistogram's own tool is not here: sudo apt-get install default-jre-headless "
    "libhdrhistogram-java",
)
def test_hdrhistograms_own_log_processor_reads_a_log():
    level = measured_levels()[0]
    command = ["java", "-cp", str(HDR_JAR), "org.HdrHistogram.HistogramLogProcessor"]
    options = ["-i", str(EXAMPLE / level.histogram), "-outputValueUnitRatio", "1000"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    table = [line.split() for line in done.stdout.splitlines() if line.startswith("   ")]
    rows = [row for row in table if row and row[0] != "Value"]
    ms = next(float(row[0]) for row in rows if float(row[1]) >= 0.95)
    assert ms == pytest.approx(level.measurement.percentiles_ms["p95"], rel=0.01)
    assert int(rows[-1][2]) == level.measurement.answered


def test_pandas_reads_the_front():
    front = pd.read_csv(EXAMPLE / "pareto.csv")
    assert front["throughput_rps"].is_monotonic_increasing
    assert front["p95_ms"].is_monotonic_increasing
    assert front["feasible"].isin([True, False]).any()
    assert set(front["trial"]) <= {trial.number for trial in RUN.trials()}


@pytest.mark.parametrize("name", FORMATS)
def test_every_schema_is_one(name):
    Draft202012Validator.check_schema(schema_of(name))
    done = CliRunner().invoke(main, ["schema", name])
    assert json.loads(done.output) == json.loads(json.dumps(schema_of(name)))


def test_every_line_of_the_trials_keeps_its_schema():
    validator = Draft202012Validator(schema_of("trial"))
    lines = (EXAMPLE / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        validator.validate(json.loads(line))
    broken = json.loads(lines[0]) | {"outcome": "splendid"}
    with pytest.raises(ValidationError):
        validator.validate(broken)


def test_a_recommendation_keeps_its_schema():
    validator = Draft202012Validator(schema_of("recommendation"))
    found = read_json(EXAMPLE / "recommendation.json")
    validator.validate(found)
    broken = copy.deepcopy(found)
    broken["final"][0]["gain"]["percent"] = "much"
    with pytest.raises(ValidationError):
        validator.validate(broken)


def test_a_report_leaves_what_other_tools_open_as_it_was(tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(EXAMPLE, copied)
    publish_report(RunDirectory(copied))
    for name in ("trials.jsonl", "recommendation.json", "pareto.csv"):
        assert (copied / name).read_bytes() == (EXAMPLE / name).read_bytes()
