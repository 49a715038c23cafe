"""The run directory: `results/<utc time>-<scenario name>/`.

`trials.jsonl` is the truth: append-only, one record a line, synced before anything depends on it.
A line torn by a crash is dropped by readers and trimmed by the next writer. Everything else can
be rebuilt from it, and is replaced whole, never edited in place.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import RawIOBase
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tuner.clock import utc_now
from tuner.errors import StoreError, UsageError
from tuner.records import SCHEMA_VERSION, TrialRecord

TRIALS = "trials.jsonl"
SCENARIO = "scenario.toml"
ENVIRONMENT = "environment.json"
RECOMMENDATION = "recommendation.json"
BATCHING = "batching_parameters.txt"
PARETO = "pareto.csv"
STUDY = "study.db"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run on disk."""

    path: Path

    def scenario_text(self) -> str:
        """The scenario as the user wrote it. Raises UsageError where this is no run."""
        try:
            return (self.path / SCENARIO).read_text(encoding="utf-8")
        except OSError:
            raise UsageError(
                f"{self.path}: not a run directory: it holds no {SCENARIO}",
                hint="name a directory that `tuner tune` made, such as results/…",
            ) from None

    def environment(self) -> dict[str, Any]:
        """What `keep_environment` wrote; empty where the run ended before."""
        return read_json(self.path / ENVIRONMENT) or {}

    def trials(self) -> tuple[TrialRecord, ...]:
        """All finished trials, in order. Raises StoreError for a file of a newer format."""
        return read_trials(self.path / TRIALS)

    def append(self, record: TrialRecord) -> None:
        """Add a finished trial and wait until the disk has it.

        Raises StoreError where that fails; the file then ends as it did before, or in a torn
        line that the next append trims.
        """
        path = self.path / TRIALS
        line = record_json(record) + b"\n"
        try:
            # Unbuffered: a buffer would write its rest at close, after the line was taken back.
            with path.open("ab", buffering=0) as file:
                _trim_torn_line(file.fileno(), path)
                start = os.fstat(file.fileno()).st_size
                try:
                    _write_all(file, line)
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), start)
                    raise
        except OSError as error:
            raise StoreError(
                f"{path}: the finished trial cannot be written: {error.strerror}",
                hint=f"make room, then: tuner tune --resume {self.path}",
            ) from None

    def keep_environment(self, described: Mapping[str, Any], scenario: Path) -> None:
        """Write where and on what this run is measured.

        The scenario's folder is kept relative to the run, so that both can move together.
        """
        folder = os.path.relpath(scenario.resolve().parent, self.path.resolve())
        environment = {**described, "scenario_folder": folder, "started": utc_now()}
        self.write(ENVIRONMENT, json.dumps(environment, indent=2) + "\n")

    def write(self, name: str, content: str | bytes) -> Path:
        """Replace a file of the run whole. Raises StoreError where the disk refuses."""
        return write_atomically(self.path / name, content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises UsageError where another tuner is at it."""
        with (self.path / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"{self.path}: another tuner is working on this run",
                    hint="wait for it, or start a run of its own without --resume",
                ) from None
            yield


def create(results: Path, name: str, scenario_text: str) -> RunDirectory:
    """Make the directory of a new run. Raises StoreError where it cannot be made."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        path = results / f"{stamp}-{name}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if results.exists() and not results.is_dir():
                break
            continue
        except OSError as error:
            raise StoreError(
                f"{path}: the run directory cannot be made: {error.strerror}",
                hint="choose a directory you may write to with --out DIR",
            ) from None
        run = RunDirectory(path)
        run.write(SCENARIO, scenario_text)
        return run
    raise StoreError(f"{results}: is not a directory", hint="choose another with --out DIR")


def read_trials(path: Path) -> tuple[TrialRecord, ...]:
    """Read a `trials.jsonl`, without an unfinished last line; one broken elsewhere raises."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        _refuse_newer(path, number, line)
        try:
            records.append(_records().validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise StoreError(
                f"{path}:{number}: not a trial record: {where}: {problem['msg']}",
                hint="restore the file from a copy, or start a new run",
            ) from None
    return tuple(records)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or None where the file is missing or torn."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write a file beside its place and rename it in: a reader never sees half of it."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # what failed may be the directory itself
            partial.unlink()
        raise StoreError(
            f"{path}: cannot be written: {error.strerror}", hint="make room or check the rights"
        ) from None
    return path


def record_json(record: TrialRecord) -> bytes:
    """Render a record as one line of JSON."""
    return _records().dump_json(record)


@cache
def _records() -> TypeAdapter[TrialRecord]:
    return TypeAdapter(TrialRecord)


def _refuse_newer(path: Path, number: int, line: bytes) -> None:
    try:
        version = json.loads(line).get("schema_version")
    except (ValueError, AttributeError):
        return  # the validation that follows says what is wrong
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}:{number}: format {version} is newer than this tuner's {SCHEMA_VERSION}",
            hint="read it with the tuner that wrote it, or a newer one",
        )


def _write_all(file: RawIOBase, data: bytes) -> None:
    """Write what one call to the kernel may write only a part of."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]


def _trim_torn_line(descriptor: int, path: Path) -> None:
    """Cut what a crash left after the last newline, so that the next line starts clean."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.ftruncate(descriptor, data.rfind(b"\n") + 1)
