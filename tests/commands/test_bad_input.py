"""Every bad input of a user: a clear message, exit code 2, no traceback, no process left."""

import pytest
from commands.models import saved_model
from commands.running import invoked, refused, tuner

GOOD = """
name = "bad"
[model]
path = "model"
[slo]
p99_ms = 50
"""


@pytest.fixture
def scenario(tmp_path):
    """Write a scenario beside a model that can be read, after changing its text."""
    saved_model(tmp_path / "model" / "1")

    def write(old: str = "", new: str = "") -> str:
        path = tmp_path / "bad.toml"
        path.write_text(GOOD.replace(old, new) if old else GOOD)
        return str(path)

    return write


def test_no_such_scenario(tmp_path):
    """In a process of its own, so that the shell's view of a refusal is seen as well."""
    (tmp_path / "quickstart.toml").write_text(GOOD)
    done = tuner("tune", tmp_path / "quikstart.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/quikstart.toml: no such scenario" in done.stderr
    assert f"did you mean {tmp_path}/quickstart.toml?" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "bad"', 'name = "bad', "bad.toml: not valid TOML"),
        ("p99_ms = 50", 'p99_ms = "fifty"', 'slo.p99_ms: expected a number, got "fifty"'),
        ("p99_ms", "p99_msec", "slo.p99_msec: unknown key; did you mean 'p99_ms'?"),
        ("[model]", "[modle]\nx = 1\n[model]", "modle: unknown key; did you mean 'model'?"),
        ("p99_ms = 50", "", "slo: set at least one limit, such as p99_ms = 50"),
        ("p99_ms = 50", "p99_ms = -1", "slo.p99_ms: input should be greater than 0, got -1"),
        ('path = "model"', 'path = "nowhere"', "nowhere: no such directory"),
        (
            'path = "model"',
            'path = "model"\nsignature = "serving_defalt"',
            "did you mean 'serving_default'?",
        ),
    ],
)
def test_scenario_that_says_something_wrong(scenario, old, new, expected):
    assert expected in refused("tune", scenario(old, new), "--out", "/nonexistent")


def test_model_directory_without_a_version(scenario, tmp_path):
    (tmp_path / "model" / "1").rename(tmp_path / "model" / "first")
    said = refused("tune", scenario())
    assert f"{tmp_path}/model" in said
    assert "number" in said


def test_corrupt_model(scenario, tmp_path):
    (tmp_path / "model" / "1" / "saved_model.pb").write_bytes(b"\xff" * 100)
    assert "saved_model.pb" in refused("tune", scenario())


def test_model_with_a_fixed_first_dimension(scenario, tmp_path):
    saved_model(tmp_path / "model" / "2", first=1)
    said = refused("tune", scenario())
    assert "cannot be batched: the first dimension of input 'x' is fixed" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size: 32\n", "write `max_batch_size { value: 32 }`, with braces"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 8 allowed_batch_sizes: 4",
            "list them in increasing order: [4, 8]",
        ),
        ("num_batch_threads { value: 0 }", "num_batch_threads = 0: the server refuses to start"),
    ],
)
def test_batching_file_that_the_server_would_punish(scenario, tmp_path, text, expected):
    params = tmp_path / "params.txt"
    params.write_text(text)
    said = refused("measure", scenario(), "--params", params)
    assert str(params) in said
    assert expected in said


def test_results_directory_that_cannot_be_written(scenario):
    done = invoked("tune", scenario(), "--out", "/proc/results")
    assert done.exit_code == 1
    assert "the run directory cannot be made" in done.stderr
    assert "--out DIR" in done.stderr


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("tune",), "give a scenario or --resume RUN, one of them"),
        (("report", "/nowhere"), "/nowhere: not a run directory"),
        (("recommend", "/nowhere", "--p99", "20ms"), "/nowhere: not a run directory"),
        (("recommend", "/nowhere", "--p99", "soon"), "--p99: expected a time in milliseconds"),
        (("init", "/nowhere"), "/nowhere: no such directory"),
        (("tune", "--resume", "/nowhere"), "/nowhere: not a run directory"),
        (("tune", "x.toml", "--deadline", "tomorrow"), "--deadline: 'tomorrow' is neither"),
    ],
)
def test_command_that_cannot_be_done(argv, expected):
    assert expected in refused(*argv)
