"""Replays samplers on recorded and synthetic surfaces: how many server starts each one needs.

    python benchmarks/search/replay.py                       (or: make bench-search)
    python benchmarks/search/replay.py FOLDER --seeds 10     surfaces of your own

A replay draws a replicate for every start, measures the baselines first as a tuning run does, and
lets the sampler choose the rest. results.json holds, by sampler and surface, lists with an entry
a seed: `starts_to_5pct` and `starts_to_1pct` count server starts, baselines included, until a
configuration within 5 or 1 % of the best of the grid was measured, by the mean over its
replicates; null where the budget ended first. `seconds_to_…` is what these starts took.
`regret_percent` is how far the configuration recommended after 15 starts lies below the best.
`hypervolume` is the median over seeds after each of 15 starts. Beside it a table and a plot are
written.

Every replay is kept in replays.jsonl as soon as it is done: killed, the same command goes on
where it stopped. Seeds are the outermost loop, so that with a smaller `--seeds` what is there
makes a table at once. A surface, or code that a sampler's choices depend on, that has
changed since is replayed anew.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import synthetic
from figures import Results, plot, table
from one_run import SAMPLERS, Replayed, Task, missing, replay, surface_of

from tuner.errors import TunerError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = (
    *(f"tuner/search/{name}.py" for name in ("ranking", "rules", "sampler", "space")),
    *(f"benchmarks/search/{name}.py" for name in ("hill_climb", "one_run", "surface")),
)
SOURCES_OF_AUTO = (
    *(f"tuner/search/{name}.py" for name in ("correction", "model_sampler", "proposing")),
    "tuner/simulate/*.py",
)
"""What a replay's outcome depends on, besides the surface."""

SYNTHETIC_SEED = 101
TOLD_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Journal:
    """The replays that are done, a line each."""

    path: Path

    def read(self, tasks: Sequence[Task]) -> dict[Task, Replayed]:
        """Those of these tasks that are there; a line that a kill cut short is not."""
        wanted = {_name(task): task for task in tasks}
        found: dict[Task, Replayed] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if (task := wanted.get(entry.pop("replay"))) is not None:
                found[task] = Replayed(**{**entry, "hypervolume": tuple(entry["hypervolume"])})
        return found

    def write(self, task: Task, found: Replayed) -> None:
        """Append one replay."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"replay": _name(task), **asdict(found)}) + "\n")


def _name(task: Task) -> str:
    """Changes with the surface's content and with the code."""
    return (
        f"{task.surface.stem} {_identity(task.surface, task.sampler)} {task.sampler} {task.seed}"
    )


@cache
def _identity(surface: Path, sampler: str) -> str:
    sources = (*SOURCES, *(SOURCES_OF_AUTO if sampler == "auto" else ()))
    digest = hashlib.sha256(surface.read_bytes())
    for path in (path for source in sources for path in sorted(ROOT.glob(source))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _surfaces(folders: Sequence[Path], drawn: Path) -> list[Path]:
    if folders:
        paths = [path for folder in folders for path in sorted(folder.glob("*.csv"))]
        if not paths:
            raise SystemExit(f"no .csv in {', '.join(map(str, folders))}")
        return paths
    made = [
        synthetic.write(synthetic.drawn(kind, SYNTHETIC_SEED), drawn) for kind in synthetic.KINDS
    ]
    return [*sorted((HERE / "surfaces").glob("*.csv")), *made]


def _tasks(asked: argparse.Namespace, surfaces: Sequence[Path]) -> list[Task]:
    return [
        Task(surface, sampler, seed)
        for seed in range(asked.seeds)
        for surface in surfaces
        for sampler in asked.samplers
    ]


def _replayed(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Replayed]]:
    """Replay all, in any order."""
    if jobs == 1:
        yield from ((task, replay(task)) for task in tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        going = {pool.submit(replay, task): task for task in tasks}
        try:
            for done in as_completed(going):
                yield going[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _replay_missing(tasks: Sequence[Task], journal: Journal, jobs: int) -> dict[Task, Replayed]:
    found = journal.read(tasks)
    left = [task for task in tasks if task not in found]
    print(f"{len(tasks)} replays, {len(tasks) - len(left)} of them in {journal.path}", flush=True)
    began = told = time.monotonic()
    for number, (task, one) in enumerate(_replayed(left, jobs), start=1):
        found[task] = one
        journal.write(task, one)
        now = time.monotonic()
        if now - told > TOLD_EVERY_S or number == len(left):
            left_s = (now - began) / number * (len(left) - number)
            print(
                f"{number} of {len(left)}, seed {task.seed}; {left_s / 60:.0f} min left",
                flush=True,
            )
            told = now
    return found


def _results(tasks: Sequence[Task], found: dict[Task, Replayed]) -> Results:
    results: Results = {}
    names = [field.name for field in fields(Replayed) if field.name != "hypervolume"]
    for task in tasks:
        one = found[task]
        columns = results.setdefault(task.sampler, {}).setdefault(
            task.surface.stem, {name: [] for name in (*names, "hypervolume")}
        )
        for name in names:
            columns[name].append(getattr(one, name))
        columns["hypervolume"].append(one.hypervolume)
    for by_surface in results.values():
        for columns in by_surface.values():
            volumes = np.median(np.array(columns["hypervolume"]), axis=0)
            columns["hypervolume"] = [round(float(value), 3) for value in volumes]
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, and write results.json, results.md and results.png."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of surfaces")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE, help="where results go")
    asked = parser.parse_args(arguments)
    left_out = {name: missing(name) for name in asked.samplers if missing(name)}
    for name, packages in left_out.items():
        print(f"{name} is left out: it needs {' and '.join(packages)}, not installed here")
    asked.samplers = [name for name in asked.samplers if name not in left_out]
    if not asked.samplers or asked.seeds < 1:
        raise SystemExit("nothing to replay")
    asked.out.mkdir(parents=True, exist_ok=True)
    for known in (surface_of, _identity):  # files may have changed since
        known.cache_clear()
    with tempfile.TemporaryDirectory(prefix="surfaces-") as scratch:
        try:
            surfaces = _surfaces(asked.folders, Path(scratch))
            for path in surfaces:
                surface_of(path)  # a broken file is told of before an hour is spent
        except TunerError as error:
            raise SystemExit(f"{error.message}\n  {error.hint}") from None
        tasks = _tasks(asked, surfaces)
        results = _results(
            tasks, _replay_missing(tasks, Journal(asked.out / "replays.jsonl"), asked.jobs)
        )
        text = table(results, {path.stem: surface_of(path) for path in surfaces}, left_out)
    (asked.out / "results.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    (asked.out / "results.md").write_text(text, encoding="utf-8")
    plot(results, asked.out / "results.png")
    print(text)


if __name__ == "__main__":
    main()
