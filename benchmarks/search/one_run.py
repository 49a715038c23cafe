"""One replay: a sampler's run on a surface, from the baselines on, start by start.

Every start draws a replicate of its configuration. What a sampler is told is that replicate; how
near the best it came is judged by the mean over all replicates, which it never sees.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from hill_climb import HillClimb
from surface import Key, Surface, config_of_key, point_key

from tuner.records import TrialRecord
from tuner.search.ranking import choose
from tuner.search.sampler import GUIDED, GUIDED_MODEL, Sampler
from tuner.search.space import Point, guide_points

SAMPLERS = ("auto", "tpe", "tpe-guided", "gp", "nsga2", "hill-climb", "random", "grid")
"""`tpe`, `gp` and `nsga2` are Optuna's after the baselines alone; `tpe-guided` begins with the
guide's points, as `sampler = "tpe"` does in a run."""

GUIDED_BY = {"auto": GUIDED_MODEL, "tpe-guided": GUIDED}
NEEDED = {"gp": ("torch", "scipy")}
RECOMMENDED = 15
"""Starts after which regret and hypervolume are taken."""

BUDGET = 100
BUDGETS = {"auto": 30}
"""Starts before a replay is given up, where not BUDGET: a proposal of `auto` takes a tenth of a
second, one of the others a hundredth."""


def missing(sampler: str) -> list[str]:
    """Packages that a sampler needs and that are not installed."""
    needed = NEEDED.get(sampler, ())
    return [name for name in needed if importlib.util.find_spec(name) is None]


@lru_cache(maxsize=32)
def surface_of(path: Path) -> Surface:
    """A surface, read once in a process."""
    return Surface(path)


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
    run = Replay(surface_of(task.surface), task.seed)
    surface = run.surface
    budget = BUDGETS.get(task.sampler, BUDGET)
    ask, tell = _asker(task.sampler, run, task.seed)
    for record in run.records:
        tell(None, record)
    guided = GUIDED_BY.get(task.sampler, 0)
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
    sampler = Sampler(
        surface.space,
        name=name.partition("-")[0],
        seed=seed,
        database=None,
        setting=surface.setting,
    )
    return sampler.ask, lambda _, record: sampler.tell([record])
