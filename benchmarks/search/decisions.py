"""Replays whole runs on recorded surfaces and holds every verdict against the truth.

    python benchmarks/search/decisions.py
    python benchmarks/search/decisions.py FOLDER --runs 50   surfaces of your own

Each run is the tuner's own loop, from the baselines over A/A test, search and references to the
final and its verdict; only the servers are replaced, by replicates drawn from the surface. The
truth of a configuration is the mean over its replicates. Counted are runs that recommend what is
worse than the default beyond the interval stated with it, and intervals that hold the truth. In
A/A runs every configuration is the default in truth, so that every gain they prove is false.
Figures go to decisions.json.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from surface import Key, Surface, config_of_key

from tuner.records import TrialRecord
from tuner.scenario import Scenario, parse
from tuner.search.decide import decide
from tuner.search.loop import Budget, Tuning
from tuner.search.ranking import unbounded
from tuner.search.sampler import Sampler
from tuner.trial import Task

HERE = Path(__file__).parent
TRIALS = 15
"""Starts of the search: enough for an A/A test, references and a final of three contenders."""

SCENARIO = """
name = "replay"
[model]
path = "none"
[slo]
{limits}
[search]
device = "{device}"
overload = []
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One run to replay; with `equal`, every configuration is the default in truth."""

    surface: Path
    sampler: str
    seed: int
    equal: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it ended, in per cent; `true_gain` is the recommended configuration's over the default.

    `worse` says that what is recommended is worse than the default, and lies below the interval
    that is stated with it.
    """

    surface: str
    seed: int
    verdict: str
    gain: float | None
    low: float | None
    high: float | None
    true_gain: float
    worse: bool


class Silent:
    """A watcher that nobody reads."""

    def begin(self, task: Task, *, done: int, total: int, left_s: float | None) -> None:
        """See `Watcher`."""

    def finish(self, record: TrialRecord) -> None:
        """See `Watcher`."""

    def say(self, text: str) -> None:
        """See `Watcher`."""


def replayed(run: Run) -> Verdict:
    """Replay one run to its verdict."""
    surface = Surface(run.surface)
    keys = {unbounded(config_of_key(key)): key for key in surface.curves}
    default = next(key for role, key in surface.baselines() if role == "default")
    rng = np.random.default_rng((run.seed, 23))
    scenario = _scenario(surface)

    def measure(task: Task) -> TrialRecord:
        key = default if run.equal else keys[unbounded(task.config)]
        record = surface.measure(task.number, task.role, key, rng)
        return replace(record, config=task.config, block=task.block, arm=task.arm)

    tuning = Tuning(
        scenario=scenario,
        slo=surface.slo,
        sampler=Sampler(
            surface.space,
            name=run.sampler,
            seed=run.seed,
            database=None,
            setting=surface.setting,
        ),
        space=surface.space,
        cpus=surface.cpus,
        budget=Budget(TRIALS),
        records=[],
        measure=measure,
        append=lambda _: None,
        watcher=Silent(),
    )
    tuning.run()
    return _judged(run, surface, default, tuning.records, keys)


def _judged(
    run: Run,
    surface: Surface,
    default: Key,
    records: Sequence[TrialRecord],
    keys: dict[object, Key],
) -> Verdict:
    decision = decide(records, surface.slo)
    assert decision is not None
    chosen = keys[unbounded(decision.config)]
    true_gain = 0.0
    if not run.equal and chosen != default:
        base = surface.truth[default]
        true_gain = (surface.truth[chosen] / base - 1) * 100 if base else math.inf
    gain = decision.gain
    low = None if gain is None else gain.low
    return Verdict(
        surface=surface.name,
        seed=run.seed,
        verdict=decision.verdict,
        gain=None if gain is None else gain.percent,
        low=low,
        high=None if gain is None else gain.high,
        true_gain=true_gain,
        worse=chosen != default and true_gain < min(0.0, math.inf if low is None else low),
    )


def _scenario(surface: Surface) -> Scenario:
    limits = "\n".join(f"{name}_ms = {limit:g}" for name, limit in surface.slo.limits_ms)
    return parse(SCENARIO.format(limits=limits, device=surface.device), Path("/replay.toml"))


def covered(found: Sequence[Verdict]) -> tuple[int, int]:
    """How many intervals of proven gains hold the true gain, of how many."""
    stated = [one for one in found if one.verdict == "gain" and one.low is not None]
    held = [one for one in stated if (one.low or 0) <= one.true_gain <= (one.high or math.inf)]
    return len(held), len(stated)


def summary(found: Sequence[Verdict], equal: Sequence[Verdict]) -> str:
    """The figures in words."""
    verdicts = [one.verdict for one in found]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in sorted(set(verdicts)))
    held, stated = covered(found)
    false = sum(one.verdict == "gain" for one in equal)
    return (
        f"{len(found)} runs: {counts}\n"
        f"worse than the default beyond the stated interval: {sum(one.worse for one in found)}\n"
        f"intervals of proven gains that hold the true gain: {held} of {stated}\n"
        f"A/A: {false} false gains in {len(equal)} runs\n"
    )


def main() -> None:
    """Replay, print, and write decisions.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "surfaces")
    parser.add_argument("--runs", type=int, default=200, help="in all, and as many A/A runs")
    parser.add_argument("--sampler", default="auto", choices=("auto", "tpe", "nsga2", "random"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    paths = [path for path in sorted(asked.folder.glob("*.csv")) if _comparable(path)]
    if not paths:
        raise SystemExit(f"{asked.folder}: no surface with the server's defaults in it")
    runs = [
        Run(paths[number % len(paths)], asked.sampler, number, equal=equal)
        for equal in (False, True)
        for number in range(asked.runs)
    ]
    with ProcessPoolExecutor(asked.jobs) as pool:
        verdicts = list(pool.map(replayed, runs, chunksize=4))
    found, equal = verdicts[: asked.runs], verdicts[asked.runs :]
    text = json.dumps(
        {"runs": [asdict(one) for one in found], "aa": [asdict(one) for one in equal]}
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "decisions.json").write_text(text + "\n", encoding="utf-8")
    print(summary(found, equal), end="")


def _comparable(path: Path) -> bool:
    """Whether a gain over the defaults is defined: they carry something there."""
    surface = Surface(path)
    return any(surface.truth[key] for role, key in surface.baselines() if role == "default")


if __name__ == "__main__":
    main()
