"""Replays samplers on recorded and synthetic surfaces: how many server starts each one needs.

    python benchmarks/search/replay.py                       (or: make bench-search)
    python benchmarks/search/replay.py FOLDER --seeds 10     surfaces of your own

A replay draws a replicate for every start, measures the baselines first as a tuning run does, and
lets the sampler choose the rest. `starts_to_5pct` counts server starts, baselines included, until
a configuration within 5 % of the best of the grid was measured, by the mean over its replicates;
null where the budget ended first. `regret_percent` is how far the configuration recommended after
RECOMMENDED starts lies below the best. `hypervolume` is the median over seeds after each start.
Beside results.json a table and a plot are written.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import synthetic
from hill_climb import HillClimb
from surface import Key, Surface, config_of_key, point_key

from tuner.errors import TunerError
from tuner.records import TrialRecord
from tuner.search.model_sampler import Setting
from tuner.search.ranking import choose
from tuner.search.sampler import Sampler
from tuner.search.space import Point, guide_points

HERE = Path(__file__).parent
SAMPLERS = ("auto", "tpe", "tpe-guided", "nsga2", "random", "grid", "hill-climb")
"""`tpe` is Optuna's TPE after the baselines alone; `tpe-guided` begins with the guide's points,
as `sampler = "tpe"` does in a run."""

GUIDED = {"auto": 3, "tpe-guided": 3}
RECOMMENDED = 15
BUDGET = 100
BUDGET_AUTO = 30
SYNTHETIC_SEED = 101


@dataclass(frozen=True, slots=True)
class Task:
    """One replay."""

    surface: Path
    sampler: str
    seed: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay showed; None where the budget ended first."""

    starts_to_5pct: int | None
    starts_to_1pct: int | None
    seconds_to_5pct: float | None
    seconds_to_1pct: float | None
    regret_percent: float
    hypervolume: tuple[float, ...]


class Replay:
    """One run on a surface, from the baselines on."""

    def __init__(self, surface: Surface, seed: int) -> None:
        self.surface = surface
        self.rng = np.random.default_rng((seed, 11))
        self.records: list[TrialRecord] = []
        self.rates: list[float] = []
        self._by_config = {config_of_key(key).id: key for key in surface.curves}
        for role, key in surface.baselines():
            self._measure(role, key)

    def measure(self, point: Point, *, guide: bool = False) -> TrialRecord:
        """Start a server with this point."""
        return self._measure("guide" if guide else "sampler", self._key(point))

    def known(self, point: Point) -> bool:
        """Whether the surface holds this point, and it was not measured yet."""
        key = self._key(point)
        measured = {record.config.id for record in self.records}
        return key in self.surface.curves and config_of_key(key).id not in measured

    def ended(self, budget: int) -> bool:
        """Whether nothing more can be learnt from going on."""
        found = bool(self.rates) and max(self.rates) >= 0.99 * self.surface.best
        return len(self.rates) >= (RECOMMENDED if found else budget)

    def result(self) -> Replayed:
        """Where it got, and when."""
        at_5, at_1 = self._first(0.95), self._first(0.99)
        chosen = choose(self.records[:RECOMMENDED])
        truth = 0.0 if chosen is None else self.surface.truth[self._by_config[chosen.config.id]]
        return Replayed(
            at_5,
            at_1,
            self._seconds(at_5),
            self._seconds(at_1),
            round((1 - truth / self.surface.best) * 100, 2),
            tuple(self._volumes()),
        )

    def _measure(self, role: str, key: Key) -> TrialRecord:
        record = self.surface.measure(len(self.records), role, key, self.rng)
        self.records.append(record)
        self.rates.append(self.surface.truth[key])
        return record

    def _key(self, point: Point) -> Key:
        return point_key({name: point[name] for name, _ in next(iter(self.surface.curves))})

    def _first(self, share: float) -> int | None:
        enough = share * self.surface.best
        return next((at for at, rate in enumerate(self.rates, 1) if rate >= enough), None)

    def _seconds(self, starts: int | None) -> float | None:
        if starts is None:
            return None
        return round(sum(record.wall_s for record in self.records[:starts]), 1)

    def _volumes(self) -> list[float]:
        """Hypervolume of load against p99 after each start, as a share of best load x limit."""
        limit = self.surface.slo.limits_ms[-1][1]
        points: list[tuple[float, float]] = []
        volumes = []
        for record in self.records[:RECOMMENDED]:
            for level in record.levels:
                p99 = level.measurement.percentiles_ms.get("p99")
                if level.verdict.feasible and p99 is not None:
                    load = (level.measurement.offered_rps or 0.0) / self.surface.best
                    points.append((p99 / limit, load))
            volumes.append(round(_volume(points), 4))
        return volumes


def _volume(points: Sequence[tuple[float, float]]) -> float:
    """Area below the front of (latency, load) pairs up to latency 1."""
    area, highest, last = 0.0, 0.0, 0.0
    for latency, load in sorted(points):
        area += highest * (latency - last)
        highest, last = max(highest, load), latency
    return area + highest * (1 - last)


def replay(task: Task) -> Replayed:
    """Run one replay to its end."""
    surface = Surface(task.surface)
    run = Replay(surface, task.seed)
    budget = BUDGET_AUTO if task.sampler == "auto" else BUDGET
    ask, tell = _asker(task.sampler, run, task.seed)
    for record in run.records:
        tell(None, record)
    guided = GUIDED.get(task.sampler, 0)
    guides = guide_points(surface.space, device=surface.device, cpus=surface.cpus)
    for point in [point for point in guides if run.known(point)][:guided]:
        tell(point, run.measure(point, guide=True))
    while not run.ended(budget) and (point := ask()) is not None:
        tell(point, run.measure(point))
    return run.result()


def _asker(
    name: str, run: Replay, seed: int
) -> tuple[Callable[[], Point | None], Callable[[Point | None, TrialRecord], None]]:
    surface = run.surface
    if name == "hill-climb":
        climb = HillClimb(surface.space, seed)

        def learn(point: Point | None, record: TrialRecord) -> None:
            if point is not None:
                climb.tell(point, record.sustainable_rps or 0.0)

        return climb.ask, learn
    setting = Setting(surface.slo, surface.cpus, device=surface.device)
    sampler = Sampler(
        surface.space, name=name.partition("-")[0], seed=seed, database=None, setting=setting
    )
    return sampler.ask, lambda _, record: sampler.tell([record])


def summary(results: dict[str, dict[str, dict[str, list[float | None]]]]) -> str:
    """Medians by sampler and surface, in Markdown; a dash where the budget ended first."""
    lines = [
        "| surface | sampler | starts to 5 % | to 1 % | seconds to 5 % | regret % | hypervolume |",
        "|---|---|---|---|---|---|---|",
    ]
    surfaces = sorted({name for by_surface in results.values() for name in by_surface})
    for surface in surfaces:
        for sampler, by_surface in results.items():
            if (found := by_surface.get(surface)) is None:
                continue
            cells = [
                _median(found[key])
                for key in ("starts_to_5pct", "starts_to_1pct", "seconds_to_5pct")
            ]
            regret = statistics.median(value or 0.0 for value in found["regret_percent"])
            cells += [f"{regret:.1f}", f"{found['hypervolume'][-1]:.2f}"]
            lines.append(f"| {surface} | {sampler} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + _over_all(results)


def _over_all(results: dict[str, dict[str, dict[str, list[float | None]]]]) -> str:
    """Medians over all replays of all surfaces, in Markdown."""
    lines = ["", "| all surfaces | starts to 5 % | to 1 % | regret %, mean |", "|---|---|---|---|"]
    for sampler, by_surface in results.items():
        pooled = {
            key: [value for found in by_surface.values() for value in found[key]]
            for key in ("starts_to_5pct", "starts_to_1pct", "regret_percent")
        }
        cells = [_median(pooled[key]) for key in ("starts_to_5pct", "starts_to_1pct")]
        regret = statistics.fmean(value or 0.0 for value in pooled["regret_percent"])
        lines.append(f"| {sampler} | {' | '.join(cells)} | {regret:.1f} |")
    return "\n".join(lines) + "\n"


def median_starts(values: Sequence[float | None]) -> float:
    """Median, where null counts as more than any number."""
    return float(np.median([math.inf if value is None else value for value in values]))


def _median(values: Sequence[float | None]) -> str:
    found = median_starts(values)
    return f"{found:g}" if math.isfinite(found) else "-"


def _surfaces(asked: argparse.Namespace, scratch: Path) -> list[Path]:
    if asked.folders:
        paths = [path for folder in asked.folders for path in sorted(folder.glob("*.csv"))]
        if not paths:
            raise SystemExit(f"no .csv in {', '.join(map(str, asked.folders))}")
        return paths
    made = [
        synthetic.write(synthetic.drawn(kind, SYNTHETIC_SEED), scratch) for kind in synthetic.KINDS
    ]
    return [*sorted((HERE / "surfaces").glob("*.csv")), *made]


def _replay_all(tasks: Sequence[Task], jobs: int) -> list[Replayed]:
    if jobs == 1:
        return list(map(replay, tasks))
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(replay, tasks, chunksize=2))


def main() -> None:
    """Replay, and write results.json, results.md and results.png beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of surfaces")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            results = _results(asked, _surfaces(asked, Path(scratch)))
        except TunerError as error:
            raise SystemExit(f"{error.message}\n  {error.hint}") from None
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "results.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    (asked.out / "results.md").write_text(summary(results), encoding="utf-8")
    plot(results, asked.out / "results.png")
    print(summary(results))


def _results(
    asked: argparse.Namespace, surfaces: Sequence[Path]
) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    results: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for surface in surfaces:
        Surface(surface)  # a broken file is told of before an hour is spent
    for sampler in asked.samplers:
        for surface in surfaces:
            began = time.monotonic()
            tasks = [Task(surface, sampler, seed) for seed in range(asked.seeds)]
            found = _replay_all(tasks, asked.jobs)
            columns = {name: [getattr(item, name) for item in found] for name in COLUMNS}
            volumes = np.median([item.hypervolume for item in found], axis=0)
            columns["hypervolume"] = [round(float(value), 3) for value in volumes]
            results.setdefault(sampler, {})[surface.stem] = columns
            print(
                f"{sampler:11} {surface.stem:32} to 5 %: {_median(columns['starts_to_5pct']):>4}"
                f"   to 1 %: {_median(columns['starts_to_1pct']):>4}"
                f"   {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return results


COLUMNS = (
    "starts_to_5pct",
    "starts_to_1pct",
    "seconds_to_5pct",
    "seconds_to_1pct",
    "regret_percent",
)
SHOWN = 60
"""Server starts that the plot covers."""


def plot(results: dict[str, dict[str, dict[str, list[float | None]]]], path: Path) -> None:
    """Share of replays near the best, and hypervolume, against server starts."""
    import matplotlib as mpl  # noqa: PLC0415 - only where something is drawn

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2))
    for sampler, by_surface in results.items():
        style = {"lw": 2.5} if sampler == "auto" else {"lw": 1.3}
        for axis, key in zip(axes, ("starts_to_5pct", "starts_to_1pct"), strict=False):
            starts = [start for found in by_surface.values() for start in found[key]]
            at = np.arange(1, SHOWN + 1)
            reached = [sum(s is not None and s <= n for s in starts) / len(starts) for n in at]
            axis.step(at, reached, where="post", label=sampler, **style)
        volumes = [found["hypervolume"] for found in by_surface.values()]
        mean = np.mean(np.array(volumes, float), axis=0)
        axes[2].plot(np.arange(1, len(mean) + 1), mean, label=sampler, **style)
    for axis, title in zip(
        axes, ("within 5 % of the best", "within 1 % of the best"), strict=False
    ):
        axis.set(title=title, ylabel="share of replays", ylim=(0, 1.02), xlim=(1, SHOWN))
    axes[2].set(title="hypervolume of load against latency", ylabel="share of best load x limit")
    for axis in axes:
        axis.set(xlabel="server starts, baselines included")
        axis.grid(visible=True, alpha=0.3)
    axes[2].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
