import json
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from trials import DEFAULT, OFF, batched, crashed, trial

from tuner.errors import StoreError, UsageError
from tuner.records import SCHEMA_VERSION
from tuner.store import TRIALS, RunDirectory, create, read_json, read_trials, write_atomically

RECORDS = (
    trial(0, "off", OFF, 120.0),
    trial(1, "default", DEFAULT, 0.0),
    trial(2, "guide", batched(32, timeout=2000), None),
    crashed(3, "sampler", batched(64)),
    trial(4, "final", DEFAULT, 118.5, block=0),
)


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def test_records_come_back_as_they_went(run):
    for record in RECORDS:
        run.append(record)
    assert run.trials() == RECORDS
    lines = (run.path / TRIALS).read_text().splitlines()
    assert [json.loads(line)["schema_version"] for line in lines] == [SCHEMA_VERSION] * 5


def test_a_run_without_trials_is_empty(run):
    assert run.trials() == ()
    assert run.environment() == {}


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_line_is_dropped_and_trimmed_by_the_next_append(run, kept):
    run.append(RECORDS[0])
    run.append(RECORDS[1])
    path = run.path / TRIALS
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + second[:kept])

    assert run.trials() == RECORDS[:1]
    run.append(RECORDS[2])
    assert run.trials() == (RECORDS[0], RECORDS[2])


def test_a_file_that_is_one_torn_line_is_begun_anew(run):
    (run.path / TRIALS).write_bytes(b'{"number": 0, "ro')
    assert run.trials() == ()
    run.append(RECORDS[0])
    assert run.trials() == RECORDS[:1]


def test_a_newer_format_is_refused(run):
    run.append(RECORDS[0])
    path = run.path / TRIALS
    newer = json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1}
    path.write_text(json.dumps(newer) + "\n")
    with pytest.raises(StoreError, match=rf"trials.jsonl:1: format {SCHEMA_VERSION + 1} is newer"):
        run.trials()


@pytest.mark.parametrize(
    "line", ["{}", "[]", "nonsense", '{"number": "x"}', "", '{"schema_version": "new"}']
)
def test_a_broken_line_elsewhere_is_named(run, line):
    run.append(RECORDS[0])
    with (run.path / TRIALS).open("a") as file:
        file.write(f"{line}\n")
    run.append(RECORDS[1])
    with pytest.raises(StoreError, match=r"trials.jsonl:2: not a trial record: .*"):
        run.trials()


FULL = """
    import resource, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from trials import batched, crashed, trial
    from tuner.errors import StoreError
    from tuner.store import RunDirectory
    run = RunDirectory(Path({path!r}))
    run.append(trial(0, "guide", batched(8), 100.0))
    room = (run.path / "trials.jsonl").stat().st_size
    with (run.path / "trials.jsonl").open("ab") as file:
        file.write(b'{{"number": 1, "torn by a cr')
    for share in (0.1, 0.5, 0.9):
        limit = int(room * (1 + share))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            run.append(trial(1, "guide", batched(16), 110.0))
        except StoreError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    run.append(trial(2, "guide", batched(32), 120.0))
"""


def test_a_write_that_is_cut_short_leaves_nothing_behind(run):
    """The kernel refuses the last part of a line, as a full disk does."""
    script = textwrap.dedent(FULL.format(tests=str(Path(__file__).parent), path=str(run.path)))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("the finished trial cannot be written: File too large") == 3
    assert f"tuner tune --resume {run.path}" in done.stdout
    assert [record.number for record in run.trials()] == [0, 2]


def test_a_full_disk_loses_only_the_trial_in_flight(small_disk):
    run = RunDirectory(small_disk)
    records = [trial(number, "guide", batched(8), 100.0) for number in range(200)]
    written = []
    with pytest.raises(StoreError, match="No space left on device"):
        written.extend(run.append(record) or record for record in records)
    assert 0 < len(written) < len(records)
    assert run.trials() == tuple(written)

    with pytest.raises(StoreError, match=r"recommendation.json: cannot be written: No space"):
        run.write("recommendation.json", "x" * 100_000)
    assert sorted(item.name for item in small_disk.iterdir()) == [TRIALS]


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "x.json"
    write_atomically(path, "one")
    write_atomically(path, b'{"two": 2}')
    assert read_json(path) == {"two": 2}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "\xff"])
def test_json_that_is_missing_or_torn_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_text(content, encoding="latin-1")
    assert read_json(tmp_path / "x.json") is None


def test_a_new_run_keeps_the_scenario_as_it_was_written(tmp_path):
    text = '# mine\nname = "x"   # é\n'
    one = create(tmp_path / "results", "x", text)
    other = create(tmp_path / "results", "x", text)
    assert one.path != other.path
    assert one.scenario_text() == text
    assert one.path.name.startswith("20")
    assert one.path.name.split("-")[1] == "x"


def test_results_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"(?s)file.*--out DIR"):
        create(tmp_path / "file", "x", "")
    with pytest.raises(StoreError, match=r"(?s)directory cannot be made.*--out DIR"):
        create(Path("/proc/results"), "x", "")


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a run directory"):
        RunDirectory(tmp_path).scenario_text()


def test_a_run_is_one_tuners_at_a_time(run):
    script = textwrap.dedent(f"""
        from pathlib import Path
        from tuner.store import RunDirectory
        with RunDirectory(Path({str(run.path)!r})).locked():
            print("held", flush=True)
            input()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another tuner is working on this run"), run.locked():
            pass
        other.kill()  # the kernel gives the lock back, whatever happened to its holder
        other.wait()
        with run.locked():
            pass
    with suppress(BrokenPipeError):
        other.stdin.close()


def test_trials_of_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be read: Is a directory"):
        read_trials(tmp_path)
