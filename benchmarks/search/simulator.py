"""How far the simulator is off on configurations that it was not fitted on.

    python benchmarks/search/simulator.py
    python benchmarks/search/simulator.py FOLDER         surfaces of your own

From every surface TRAINED configurations are drawn at random, the baselines among them; a service
model is fitted to their loads alone, and predicts those of all others: throughput where the
server could not keep up, p99 where it could, the sustainable rate of each configuration. Loads
are simulated for as long as they were measured, on several draws of arrivals. The
committed example run is predicted trial by trial, each from all the others. Errors are ratios
less 1; `beyond` tells their direction. p99 is judged up to NEAR of the sustainable rate: closer to
saturation a rate that is off by 5 % doubles it, and what is off is the rate. Figures go to
simulator.json.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from surface import Surface

from tuner.records import TrialRecord
from tuner.search.model_sampler import Setting
from tuner.simulate.calibrate import fit
from tuner.simulate.curves import Curve, curve_of, curves_of
from tuner.simulate.express import highest_rps
from tuner.simulate.loads import MOST_REQUESTS, shown
from tuner.simulate.policy import most_cores
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload
from tuner.slo import Slo
from tuner.store import RunDirectory

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "results" / "example"
TRAINED = 12
"""What a night's search has measured when its model is asked for advice that matters."""

LARGEST = 256
NEAR = 0.9
WORKLOADS = tuple(Workload.poisson(MOST_REQUESTS, seed=seed) for seed in range(70, 75))
"""Arrivals that no fit has seen."""

RESOLUTION = 0.01

GOALS = {"throughput": 0.10, "p99": 0.20, "sustainable": 0.10}


@dataclass(frozen=True, slots=True)
class Errors:
    """Log ratios of prediction to measurement on what was held out."""

    throughput: tuple[float, ...]
    p99: tuple[float, ...]
    sustainable: tuple[float, ...]
    misfit: float


def of_surface(task: tuple[Path, int]) -> Errors:
    """Fit to a random part of a surface, predict the rest."""
    path, seed = task
    surface = Surface(path)
    rng = np.random.default_rng((seed, 31))
    baselines = [(role, key) for role, key in surface.baselines()]
    others = [key for key in surface.curves if key not in {key for _, key in baselines}]
    order = [others[at] for at in rng.permutation(len(others))]
    drawn = TRAINED - len(baselines)
    records = [
        surface.measure(number, role, key, rng)
        for number, (role, key) in enumerate(
            [*baselines, *(("sampler", key) for key in order[:drawn])]
        )
    ]
    held_out = [
        surface.measure(number, "sampler", key, rng) for number, key in enumerate(order[drawn:])
    ]
    return _errors(records, held_out, surface.setting)


def of_example() -> Errors:
    """Each trial of the example's search is predicted from all the others."""
    run = RunDirectory(EXAMPLE)
    records = [record for record in run.trials() if record.block is None and record.levels]
    setting = Setting(Slo((("p95", 50.0),)), 1, in_turn=True)
    found = [
        _errors([one for one in records if one is not record], [record], setting)
        for record in records
    ]
    return Errors(
        *(tuple(value for one in found for value in getattr(one, name)) for name in GOALS),
        misfit=statistics.median(one.misfit for one in found),
    )


def _errors(
    records: Sequence[TrialRecord],
    held_out: Sequence[TrialRecord],
    setting: Setting,
) -> Errors:
    slo, cpus = setting.slo, setting.cpus
    calibration = fit(
        curves_of(records, cpus=cpus),
        largest_batch=LARGEST,
        in_turn=setting.in_turn,
        most_cores=most_cores(setting.device, cpus),
        thorough=True,
    )
    assert calibration is not None
    throughput: list[float] = []
    p99: list[float] = []
    rates: list[float] = []
    for record in held_out:
        curve = curve_of(record, cpus=cpus)
        _add_loads(curve, calibration.service, slo, throughput, p99)
        if record.sustainable_rps:
            ours = _sustainable(curve, calibration.service, slo)
            rates.append(_log_ratio(ours, record.sustainable_rps))
    return Errors(tuple(throughput), tuple(p99), tuple(rates), calibration.misfit)


def _add_loads(
    curve: Curve, service: ServiceModel, slo: Slo, throughput: list[float], p99: list[float]
) -> None:
    name, _ = slo.limits_ms[-1]
    share = {"p95": 0.95, "p99": 0.99}[name]
    limit_rps = NEAR * (curve.sustainable_rps or 0.0)
    for point in curve.points:
        if point.saturated or point.concurrency is not None:
            ours = shown(curve.policy, point, service, WORKLOADS)
            throughput.append(_log_ratio(ours.throughput_rps, point.throughput_rps))
        elif (point.offered_rps or math.inf) <= limit_rps:
            ours = shown(curve.policy, point, service, WORKLOADS)
            for (at, measured_ms), ours_ms in zip(
                point.percentiles_ms, ours.percentiles_ms, strict=True
            ):
                if at == share:
                    p99.append(_log_ratio(ours_ms, measured_ms))


def _sustainable(curve: Curve, service: ServiceModel, slo: Slo) -> float:
    """The rate that a window as long as the one at the measured rate would find."""
    at_rate = min(
        curve.points,
        key=lambda point: abs((point.offered_rps or 0) - (curve.sustainable_rps or 0)),
    )
    count = at_rate.before + at_rate.requests or MOST_REQUESTS
    return statistics.median(
        highest_rps(workload.first(count), curve.policy, service, slo, RESOLUTION)
        for workload in WORKLOADS
    )


def _log_ratio(ours: float, theirs: float) -> float:
    if not (ours > 0 and theirs > 0):
        return math.log(0.1)
    return max(-3.0, min(3.0, math.log(ours / theirs)))


def figures(errors: Sequence[float]) -> dict[str, float]:
    """Median error, the share within the goal's reach, and the direction, in per cent."""
    sizes = [math.expm1(abs(error)) for error in errors]
    return {
        "number": len(sizes),
        "median_percent": round(100 * statistics.median(sizes), 1),
        "p90_percent": round(100 * float(np.quantile(sizes, 0.9)), 1),
        "beyond_percent": round(100 * math.expm1(statistics.median(errors)), 1),
    }


def main() -> None:
    """Predict, print, and write simulator.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "surfaces")
    parser.add_argument("--seeds", type=int, default=5, help="draws of what is fitted to")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    found: dict[str, list[Errors]] = {}
    with ProcessPoolExecutor(asked.jobs) as pool:
        for path in sorted(asked.folder.glob("*.csv")):
            found[path.stem] = list(
                pool.map(of_surface, [(path, seed) for seed in range(asked.seeds)])
            )
    found["example run"] = [of_example()]
    table = {
        name: {
            kind: figures(pooled)
            for kind in GOALS
            if (pooled := [value for one in errors for value in asdict(one)[kind]])
        }
        | {"misfit": round(statistics.median(one.misfit for one in errors), 2)}
        for name, errors in found.items()
    }
    for name, kinds in table.items():
        for kind, goal in GOALS.items():
            if kind in kinds:
                shown = kinds[kind]
                print(
                    f"{name:28} {kind:12} median {shown['median_percent']:5.1f} %, 90 % within "
                    f"{shown['p90_percent']:5.1f} % (goal {goal:.0%}, n {shown['number']})"
                )
    (asked.out / "simulator.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
