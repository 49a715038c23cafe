import json
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from tuner import scenario
from tuner.errors import ScenarioError
from tuner.scenario import LoadSection, Scenario, TlsSection, load, parse

HERE = Path("/somewhere/s.toml")
SHORTEST = 'name = "s"\n[model]\npath = "m"\n[slo]\np99_ms = 50\n'
OURS = sorted((Path(__file__).parents[1] / "scenarios").glob("*.toml"))


def complaint(text):
    with pytest.raises(ScenarioError) as caught:
        parse(text, HERE)
    assert caught.value.exit_code == 2
    return str(caught.value)


def with_models(entries):
    """The shortest scenario, its model given as a list and with further keys or entries."""
    return SHORTEST.replace('[model]\npath = "m"', f'[[models]]\npath = "m"\n{entries}')


def test_the_shortest_scenario_has_defaults_for_the_rest():
    read = parse(SHORTEST, HERE)
    assert read.models[0].path == Path("/somewhere/m")
    assert read.models[0].servable == "m"
    assert read.models[0].row_weights == {1: 1.0}
    assert read.limits().describe() == "p99 <= 50 ms, no errors"
    assert read.server.launcher == "embedded"


def test_model_is_short_for_a_list_of_one():
    assert parse(SHORTEST.replace("[model]", "[[models]]"), HERE) == parse(SHORTEST, HERE)


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "s.toml").write_text(
        'name = "s"\n[model]\npath = "../models/m"\ninputs = "rows.npz"\n'
        '[load]\narrivals = "trace"\ntrace = "t.txt"\n[slo]\np99_ms = 50\n'
    )
    read = load(folder / "s.toml")
    assert read.models[0].path == tmp_path / "models" / "m"
    assert read.models[0].inputs == folder / "rows.npz"
    assert read.load.trace == folder / "t.txt"


def test_files_of_tls_are_relative_to_the_file_too():
    text = (
        f'{SHORTEST}[server]\nlauncher = "running"\naddress = "models.local:8500"\n'
        '[server.tls]\nca = "ca.pem"\nserver_name = "models"\n'
        'client_cert = "me.pem"\nclient_key = "/keys/me.key"\n'
    )
    assert parse(text, HERE).server.tls == TlsSection(
        ca=Path("/somewhere/ca.pem"),
        server_name="models",
        client_cert=Path("/somewhere/me.pem"),
        client_key=Path("/keys/me.key"),
    )


@pytest.mark.parametrize("address", ["a.b-c:1", "127.0.0.1:8500", "[::1]:8500", "unix:/run/s"])
def test_addresses_of_running_servers(address):
    text = f'{SHORTEST}[server]\nlauncher = "running"\naddress = "{address}"\n'
    assert parse(text, HERE).server.address == address


def test_a_profile_is_a_list_of_corners():
    text = f'{SHORTEST}[load]\narrivals = "profile"\nprofile = [[0, 100], [60, 500.5]]\n'
    assert parse(text, HERE).load.profile == ((0.0, 100.0), (60.0, 500.5))


@pytest.mark.parametrize(
    ("section", "cv"),
    [
        ("", 1.0),
        ('arrivals = "constant"', 0.0),
        ('arrivals = "bursts"\nburst_cv = 2.5', 2.5),
        ("arrivals = 'profile'\nprofile = [[0, 10], [5, 20]]", 1.0),
    ],
)
def test_how_much_the_gaps_between_requests_vary(section, cv):
    assert parse(f"{SHORTEST}[load]\n{section}\n", HERE).load.gap_cv == cv


def test_a_home_directory_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    read = parse(SHORTEST.replace('"m"', '"~/m"'), HERE)
    assert read.models[0].path == Path("/home/someone/m")


def test_an_unknown_home_directory_is_refused():
    assert "~nobody-of-this-name" in complaint(SHORTEST.replace('"m"', '"~nobody-of-this-name/m"'))


def test_rows_may_be_a_distribution():
    read = parse(SHORTEST.replace("[slo]", 'rows = { "1" = 0.7, "8" = 0.3 }\n[slo]'), HERE)
    assert read.models[0].row_weights == {1: 0.7, 8: 0.3}


def test_choices_are_sorted_and_unique():
    read = parse(SHORTEST + "[search.space]\nmax_batch_size = [8, 4, 8]\n", HERE)
    assert read.search.space.max_batch_size == (4, 8)


def test_a_scenario_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        parse(SHORTEST, HERE).seed = 2


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[slo]", "[slo", "s.toml: not valid TOML: .*line 4"),
        ("p99_ms = 50", 'p99_ms = "fifty"', r's.toml: slo.p99_ms: expected a number, got "fifty"'),
        ("p99_ms = 50", "p99_ms = -1", "slo.p99_ms: .*greater than 0, got -1"),
        ("p99_ms = 50", "p99_ms = inf", "slo.p99_ms: .*finite number, got inf"),
        ("p99_ms = 50", "p99_ms = [50]", r"slo.p99_ms: expected a number, got \[50\]"),
        ("p99_ms = 50", "", "slo: set at least one limit, such as p99_ms = 50"),
        ("p99_ms = 50", "p99ms = 50", "slo.p99ms: unknown key; did you mean 'p99_ms'"),
        ("p99_ms = 50", "p99_ms = 50\np50_ms = 60", "slo.p50_ms: 60 ms is above p99_ms, 50 ms"),
        ("p99_ms = 50", "p99_ms = 5\nconfidence = 0.5", "slo.confidence: .*above 0.5"),
        ("p99_ms = 50", "p99_ms = 5\nmax_error_rate = 1.0", "slo.max_error_rate: .*less than 1"),
        ("[slo]\np99_ms = 50", "", "s.toml: slo: is missing"),
        ("[slo]\np99_ms = 50", "slo = 3", "model.slo: unknown key"),
        ('path = "m"', "", "s.toml: model.path: is missing"),
        ('path = "m"', "path = 3", "model.path: .*got 3"),
        ('[model]\npath = "m"', "", "s.toml: models: is missing"),
        ('path = "m"', 'path = "m"\nsignatur = "x"', "model.signatur: .*did you mean 'signature'"),
        ('path = "m"', 'path = "m"\nrows = 0', "model.rows: .*greater than 0, got 0"),
        ('path = "m"', 'path = "m"\nrows = "many"', 'model.rows: .*got "many"'),
        ('path = "m"', 'path = "m"\nrows = { "0" = 1 }', "model.rows: keys must be row counts"),
        ('path = "m"', 'path = "m"\nrows = { "²" = 1 }', "model.rows: keys must be row counts"),
        ('path = "m"', 'path = "m"\ndims = { x = [0] }', "model.dims.x.0: .*greater than 0"),
        (
            'path = "m"',
            'path = "m"\nversion = 1\nversion_label = "a"',
            "model: give version or version_label, not both",
        ),
        ('path = "m"', 'path = "m"\nbuiltin = "resnet"', "model.builtin: .*'basic_pitch'.*resnet"),
        ('name = "s"', 'name = "a/b"', 'name: .*pattern.*got "a/b"'),
        ('name = "s"', "", "s.toml: name: is missing"),
        ('name = "s"', 'name = "s"\nserver = 3', "s.toml: server: expected a table, got 3"),
        ('name = "s"', 'name = "s"\nsead = 3', "s.toml: sead: unknown key; did you mean 'seed'"),
        ('name = "s"', 'name = "s"\nseed = 1.5', "s.toml: seed: expected a whole number, got 1.5"),
    ],
)
def test_bad_input_names_file_key_value_and_remedy(before, after, message):
    assert before in SHORTEST
    said = complaint(SHORTEST.replace(before, after))
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        raise AssertionError(said)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            '[server]\nlauncher = "docer"',
            "server.launcher: .*'embedded', 'binary', 'docker' or 'running'.*docer",
        ),
        ('[server.flags]\n"--port" = 1', "server.flags: --port: write .* without dashes"),
        ("[server.flags]\nport = 1", "server.flags: port: every start gets a fresh port"),
        (
            '[server.flags]\ngrpc_channel_arguments = "grpc.max_concurrent_streams"',
            'server.flags: grpc_channel_arguments: "grpc.max_concurrent_streams" is no argument',
        ),
        (
            '[search.space.flags]\ngrpc_channel_arguments = ["grpc.a=1,"]',
            'search.space.flags: grpc_channel_arguments: "" is no argument',
        ),
        ('[server.flags]\n"a b" = 1', "server.flags: 'a b': not the name of a flag"),
        (
            "[server.flags]\nx = 1\n[search.space.flags]\nx = [1, 2]",
            "the flag x is fixed in server.flags and searched in search.space.flags",
        ),
        (
            "[server.flags]\ntensorflow_session_parallelism = 2\n"
            "tensorflow_inter_op_parallelism = 1\n"
            "[search.space.flags]\ntensorflow_intra_op_parallelism = [0, 1]",
            "the server refuses tensorflow_session_parallelism, .* together",
        ),
        ("[server.flags]\nmodel_name = 'x'", "server.flags: model_name: set model.name"),
        ('[server]\nmemory = "4g"', 'memory is for containers; set launcher = "docker"'),
        *(
            (f'[server]\nlauncher = "docker"\n{line}', f"server.{said}")
            for line, said in {
                'image = "Tensor Flow"': 'image: expected an image such as .*, got "Tensor Flow"',
                'gpus = "device:0"': 'gpus: expected all, a number .*, got "device:0"',
                "gpus = 0": "gpus: expected all, a number of GPUs, .*, got 0",
                'memory = "lots"': 'memory: expected a limit such as 512m .*, got "lots"',
                'user = "a b"': 'user: expected a user such as 1000:1000, got "a b"',
                'env = { "1A" = "x" }': "env: '1A': not the name of an environment variable",
                'mounts = ["data:/data"]': 'mounts: "data:/data" is no mount; write "/on/this',
                'mounts = ["/data:/data:rx"]': 'mounts: "/data:/data:rx" is no mount',
                'root = "rw"': "root: .*'read-only' or 'writable'.*rw",
                'imag = "x"': "imag: unknown key; did you mean 'image'",
            }.items()
        ),
        *(
            (f"[server]\n{lines}", f"server.*{said}")
            for lines, said in {
                'launcher = "running"': 'launcher = "running" and address = "HOST:PORT" belong',
                'address = "h:1"': 'launcher = "running" and address = "HOST:PORT" belong',
                'launcher = "running"\naddress = "h"': 'address: expected HOST:PORT, .*got "h"',
                'launcher = "running"\naddress = "h:1"\nmetrics_url = "h:2/m"': (
                    'metrics_url: expected http://HOST:PORT/PATH, got "h:2/m"'
                ),
                'launcher = "running"\naddress = "h:1"\nflags = { a = 1 }': (
                    "flags: the server runs already, with flags of its own"
                ),
                "tls = {}": 'tls is for a server that runs already; set launcher = "running"',
                'launcher = "running"\naddress = "h:1"\ntls = { client_cert = "c.pem" }': (
                    "tls: client_cert and client_key belong together"
                ),
                'launcher = "running"\naddress = "h:1"\ntls = { cas = "c.pem" }': (
                    "tls.cas: unknown key; did you mean 'ca'"
                ),
            }.items()
        ),
        ('[load]\narrivals = "trace"', 'load: arrivals = "trace" and trace = "FILE" belong'),
        ('[load]\narrivals = "profile"', r"load: .* and profile = \[\[0, 100\], .* belong"),
        ("[load]\ntrace_speed = 2", 'load: trace_speed is for arrivals = "trace"'),
        ('[load]\nspin = "always"', "load.spin: .*'never' or 'spare'.*always"),
        *(
            (f'[load]\narrivals = "profile"\nprofile = {profile}', f"load.profile{said}")
            for profile, said in {
                "[[1, 100], [60, 100]]": ": give corners .* the first at 0 s",
                "[[0, 100]]": ": give corners",
                "[[0, 100], [9, 1], [5, 1]]": ": give corners .* in order of time",
                "[[0, 0], [60, 0]]": ": give corners",
                '[[0, 100], [60, "x"]]': '.1.1: expected a number, got "x"',
                "[[0, 100], [60, -1]]": ".1.1: .*greater than or equal to 0, got -1",
            }.items()
        ),
        ('[load]\ntrace = "x"', "load: .*belong together"),
        ("[load]\nconcurrency = true", "load.concurrency: "),
        ("[measure]\nwindow_s = 9\nmax_window_s = 5", "measure: max_window_s must be at least"),
        ("[measure]\nwarmup_s = 9\nmax_warmup_s = 5", "measure: max_warmup_s must be at least"),
        ("[search]\ntrials = 0", "search.trials: .*greater than 0, got 0"),
        ("[search.space]\nmax_batch_size = []", "search.space.max_batch_size: list at least one"),
        ("[search.space]\nmax_batch_sizes = [1]", "did you mean 'max_batch_size'"),
        ("[search.space]\nbatch_timeout_micros = [-1]", "batch_timeout_micros.0: .*got -1"),
        ("[search.space.flags]\nx = []", r"search.space.flags.*x"),
        ("[search.space.flags]\nport = [1]", "search.space.flags: port: every start"),
    ],
)
def test_bad_sections_are_refused(section, message):
    said = complaint(f"{SHORTEST}\n{section}\n")
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        raise AssertionError(said)


def test_model_and_models_exclude_each_other():
    assert "not both" in complaint(SHORTEST + '[[models]]\npath = "n"\n')


def test_models_of_one_name_must_be_one_model():
    two = '[[models]]\npath = "a/m"\n[[models]]\npath = "b/m"\n'
    said = complaint(SHORTEST.replace('[model]\npath = "m"\n', two))
    assert "two models are named 'm'; set name on one" in said


@pytest.mark.parametrize(
    ("entries", "served"),
    [
        ("", ("latest", {})),
        ("version = 3", ((3,), {})),
        ('versions = "all"\nversion = 3', ("all", {})),
        ("versions = [3, 1]", ((1, 3), {})),
        ('version_label = "a"\nversion_labels = { a = 2, b = 4 }', ((2, 4), {"a": 2, "b": 4})),
        (
            'version_label = "a"\nversion_labels = { a = 2 }\n[[models]]\npath = "m"\nversion = 1',
            ((1, 2), {"a": 2}),
        ),
    ],
)
def test_versions_that_requests_name_are_served(entries, served):
    text = SHORTEST.replace("[model]", "[[models]]").replace(
        'path = "m"', f'path = "m"\n{entries}'
    )
    (found,) = parse(text, HERE).served
    assert (found.versions, found.labels) == served


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            'version_label = "stabel"\nversion_labels = { stable = 1 }',
            "model 'm' has no version label 'stabel'; did you mean 'stable'?",
        ),
        ('version_label = "x"', r"no version label 'x'; add version_labels = { x = 1 }"),
        ("versions = [1, 2]\nversion = 3", r"version 3 is asked for but not among .*\[1, 2\]"),
        ("versions = [1]\nversion_labels = { a = 2 }", "version 2 is asked for but not among"),
        ("versions = []", "versions: list at least one version"),
        ('versions = "newest"', "versions: .*'latest' or 'all'.*newest"),
        ("version_labels = { a = 0 }", "version_labels.a: .*greater than 0"),
        ('[[models]]\npath = "m"\nversion = 3', 'some requests ask for the latest.*"all"'),
        ('versions = "all"\n[[models]]\npath = "m"\nversions = [1]', "two different versions"),
        (
            'versions = "all"\nversion_labels = { a = 1 }\n'
            '[[models]]\npath = "m"\nversion_labels = { a = 2 }',
            "label 'a' names version 1 and 2",
        ),
    ],
)
def test_versions_and_labels_that_contradict_each_other(entries, message):
    text = SHORTEST.replace("[model]", "[[models]]").replace(
        'path = "m"', f'path = "m"\n{entries}'
    )
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        raise AssertionError(complaint(text))


def test_every_problem_is_named_at_once():
    said = complaint(SHORTEST.replace("p99_ms = 50", 'p99_ms = "x"\np42_ms = 3'))
    assert "slo.p99_ms" in said
    assert "slo.p42_ms" in said


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "quickstart.toml").write_text(SHORTEST)
    with pytest.raises(ScenarioError, match=r"(?s)quikstart.toml: no such scenario.*did you mean "
                       r".*quickstart.toml\?"):  # fmt: skip
        load(tmp_path / "quikstart.toml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s.toml", "no such scenario.*tuner init MODEL_DIR"),
        ("nowhere/s.toml", "no such scenario.*no directory .*nowhere either"),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_is_not_there(tmp_path, name, message):
    with pytest.raises(ScenarioError, match=f"(?s){message}"):
        load(tmp_path / name)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match=r"s\.toml: cannot be read: it is not UTF-8"):
        load(tmp_path / "s.toml")


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_the_projects_own_scenarios_are_valid(path):
    read = load(path)
    assert read.name == path.stem
    assert read.models[0].builtin == read.models[0].path.name
    assert read.models[0].path.parent == path.parents[1] / "models"


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_the_schema_knows_every_key_of_the_projects_own_scenarios(path):
    schema = scenario.json_schema()
    unknown = list(unknown_keys(tomllib.loads(path.read_text()), schema, schema["$defs"]))
    assert unknown == []


def test_the_schema_is_json_and_says_what_is_required():
    schema = json.loads(json.dumps(scenario.json_schema()))
    assert schema["required"] == ["name", "slo"]
    assert schema["oneOf"] == [{"required": ["model"]}, {"required": ["models"]}]
    strict = [schema, *schema["$defs"].values()]
    assert all(section["additionalProperties"] is False for section in strict)
    assert list(unknown_keys({"slo": {"p99ms": 1}}, schema, schema["$defs"])) == ["p99ms"]


def test_every_field_says_what_it_means_or_is_a_limit_by_name():
    for section in (scenario.ModelSection, scenario.ServerSection, LoadSection,
                    TlsSection, scenario.MeasureSection, scenario.SearchSection):  # fmt: skip
        for name, field in section.model_fields.items():
            assert field.description or name == "space", f"{section.__name__}.{name}"
    assert set(Scenario.model_fields) >= {"models", "slo", "server", "load", "measure", "search"}


def unknown_keys(value, schema, definitions):
    """Walk a TOML table along a schema; yield the keys that the schema does not allow."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if not isinstance(value, dict) or "properties" not in schema:
        return
    for key, inner in value.items():
        if key not in schema["properties"]:
            yield key
        else:
            yield from unknown_keys(inner, schema["properties"][key], definitions)


def test_the_reference_page_is_that_of_this_format():
    page = Path(__file__).parents[1] / "docs" / "scenario.md"
    assert page.read_text(encoding="utf-8") == scenario.markdown(), "run: make docs"


@pytest.mark.parametrize(
    "row",
    [
        "| `p99_ms` | number |  | 99 % of the requests are answered within this. |",
        "| `num_batch_threads` | list of whole numbers | `[1, 2, 4]` | Batches",
        "| `flags` | table of values |  | Further flags",
        "| `path` | path | required | Directory",
    ],
)
def test_the_reference_names_what_a_key_takes_and_its_default(row):
    assert row in scenario.markdown()


def test_every_model_and_signature_has_a_queue_of_its_own():
    one = parse(SHORTEST, HERE)
    assert (one.queues, one.row_weights) == (1, {1: 1.0})
    mix = with_models(
        'weight = 3\nrows = { "1" = 0.5, "8" = 0.5 }\n[[models]]\npath = "m"\n'
        'signature = "other"\n[[models]]\npath = "n"\n'
    )
    mixed = parse(mix, HERE)
    assert mixed.queues == 3
    assert mixed.row_weights == {1: 3.5, 8: 1.5}
