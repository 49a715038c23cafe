"""How well a plan's replica predicts loads that it was not fitted to, on a recorded run.

    python benchmarks/plan_check.py results/example
    python benchmarks/plan_check.py RUN --against BURSTY_RUN OTHER_RUN

Every open-loop load of the recommended configuration is left out in turn and predicted from the
others: the percentile that is promised, or p99 where it was measured. A measured percentile is
one sample of what the server does, so its own 95 % interval stands beside it, from the histogram
and the number of independent requests in it (Wilson's interval of the share, read as latencies).
Then every start is left out in turn, and the sustainable rate predicted from the other starts.

Runs that it is held against measured the same configuration later, or with other arrivals
(`load.burst_cv`): their loads and rates are predicted from RUN alone, as a plan would, with
arrivals of their kind. Starts differ in speed, and theirs is not fitted, so one with RUN's own
arrivals tells what of an error is the machine's.
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.commands.plan_replica import Ground, ground, model_of_others, starts_of
from tuner.commands.publish import scenario_of
from tuner.measure.histogram import LatencyHistogram, read_log
from tuner.records import Level, TrialRecord
from tuner.report.wording import number
from tuner.search.rejudge import rejudge
from tuner.simulate.curves import Curve, CurvePoint, curve_of
from tuner.simulate.refine import refine, seen
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import PERCENTILES, percentile_label
from tuner.store import RunDirectory

CLOSE = 0.2
"""The goal for a percentile; a tenth for a rate."""

Z = 1.96
JUDGES = (50, 51, 52)
"""Seeds of arrivals that no fit has seen."""


@dataclass(frozen=True)
class Load:
    """One load of one start: where it stands among the starts' points, and what was measured."""

    start: int
    point: CurvePoint
    level: Level


@dataclass(frozen=True)
class Checked:
    """A percentile of a load, measured with its interval, and predicted without that load.

    `cv` is the coefficient of variation of the gaps between its requests.
    """

    start: int
    cv: float
    offered_rps: float
    label: str
    measured_ms: float
    between_ms: tuple[float, float]
    predicted_ms: float

    @property
    def off(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_ms / self.measured_ms - 1

    @property
    def inside(self) -> bool:
        """Whether the prediction lies in the measurement's own interval."""
        return self.between_ms[0] <= self.predicted_ms <= self.between_ms[1]


def main() -> None:
    """Check one run and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="RUN")
    asked = parser.parse_args()
    run = RunDirectory(asked.run)
    base = ground(run, {})
    print(f"{run.path.name}: {base.config.label()}, promise {base.slo.describe()}\n")
    tell(list(check_loads(run, base)))
    for line in check_rates(run, base):
        print(line)
    for other in map(RunDirectory, asked.against):
        print(f"\n## {other.path.name}, predicted from {run.path.name} alone\n")
        tell(list(check_loads_of(other, base)))
        for line in check_rates_of(other, base):
            print(line)


def tell(checked: Sequence[Checked]) -> None:
    """Print loads as a table, and what comes of them all."""
    print("| start | cv | offered/s | | measured ms [95 %] | predicted ms | off | |")
    print("|---|---|---|---|---|---|---|---|")
    for row in checked:
        low, high = (number(edge) if math.isfinite(edge) else "" for edge in row.between_ms)
        verdict = "close" if abs(row.off) <= CLOSE else ("inside" if row.inside else "**missed**")
        print(
            f"| {row.start} | {row.cv:g} | {number(row.offered_rps)} | {row.label} | "
            f"{number(row.measured_ms)} [{low}, {high}] | {number(row.predicted_ms)} | "
            f"{row.off:+.0%} | {verdict} |"
        )
    print(f"\n{summary(checked)}\n")


def check_loads(run: RunDirectory, base: Ground) -> Iterator[Checked]:
    """Leave out every load in turn, refit, and predict it."""
    trials = [trial for trial in starts_of(run, base.config) if trial.levels]
    others = model_of_others(run, base.config)
    curves = [curve_of(trial, cpus=base.cpus) for trial in trials]
    for load in loads_of(trials, curves):
        kept = [without(curve, load.point) for curve in curves]
        fitted = refine(others, kept, rows=base.replica.rows, cv=base.cv, draws=0)
        yield judged(run, base, load, fitted.service_of(load.start), curves[load.start])


def check_loads_of(other: RunDirectory, base: Ground) -> Iterator[Checked]:
    """Predict every load that another run measured of the configuration."""
    trials = [trial for trial in starts_of(other, base.config) if trial.levels]
    curves = [curve_of(trial, cpus=base.cpus) for trial in trials]
    for load in loads_of(trials, curves):
        yield judged(other, base, load, base.refined.service, curves[load.start])


def loads_of(trials: Sequence[TrialRecord], curves: Sequence[Curve]) -> Iterator[Load]:
    """The open-loop loads that are good for a fit, with the levels they come from."""
    for start, (trial, curve) in enumerate(zip(trials, curves, strict=True)):
        for level in trial.levels:
            offered = level.measurement.offered_rps
            for point in curve.points:
                same = (
                    point.offered_rps == offered and point.requests == level.measurement.requests
                )
                if offered is not None and same and point.percentiles_ms:
                    yield Load(start, point, level)


def without(curve: Curve, point: CurvePoint) -> Curve:
    """The curve less one of its points."""
    return replace(curve, points=tuple(other for other in curve.points if other != point))


def judged(
    run: RunDirectory, base: Ground, load: Load, service: ServiceModel, curve: Curve
) -> Checked:
    """Hold a prediction against one load's measurement."""
    measured = dict(load.point.percentiles_ms)
    share = 0.99 if 0.99 in measured else max(measured)
    cv = scenario_of(run).load.gap_cv
    judges = [Workload.drawn(6000, cv=cv, seed=seed, rows=base.replica.rows) for seed in JUDGES]
    predicted = seen(curve.policy, load.point, service, judges)
    name = next(name for name, value in PERCENTILES.items() if value == share)
    return Checked(
        start=load.start,
        cv=cv,
        offered_rps=load.point.offered_rps or 0.0,
        label=percentile_label(name),
        measured_ms=measured[share],
        between_ms=between(run, load, share),
        predicted_ms=predicted.percentile_ms(share),
    )


def between(run: RunDirectory, load: Load, share: float) -> tuple[float, float]:
    """The interval of a measured percentile; open where too few requests lie beyond it."""
    if load.level.histogram is None:
        return (0.0, math.inf)
    histogram = read_log(run.path / load.level.histogram)
    low, high = wilson(share, load.point.independent)
    upper = 1 - 0.5 / load.point.independent
    return (
        at_share(histogram, low),
        at_share(histogram, high) if high < upper else math.inf,
    )


def at_share(histogram: LatencyHistogram, share: float) -> float:
    """A percentile, infinite among failures."""
    found = histogram.percentile_ms(share)
    return math.inf if found is None else found


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in so many independent requests."""
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return middle - half, min(1.0, middle + half)


def summary(checked: Sequence[Checked]) -> str:
    """How many predictions are close, how many lie in the interval, and the usual error."""
    close = sum(abs(row.off) <= CLOSE for row in checked)
    either = sum(abs(row.off) <= CLOSE or row.inside for row in checked)
    errors = [abs(row.off) for row in checked]
    bias = statistics.median(row.off for row in checked)
    return (
        f"{close} of {len(checked)} loads within {CLOSE:.0%}; {either} within that or within the "
        f"measurement's own interval; median error {statistics.median(errors):.0%}, "
        f"bias {bias:+.0%}"
    )


def check_rates(run: RunDirectory, base: Ground) -> Iterator[str]:
    """Predict each start's sustainable rate from the other starts, and all from all."""
    trials = [trial for trial in starts_of(run, base.config) if trial.levels]
    curves = [curve_of(trial, cpus=base.cpus) for trial in trials]
    others = model_of_others(run, base.config)
    arrivals = Workload.drawn(20_000, cv=base.cv, seed=60, rows=base.replica.rows)
    yield "| start | held/s | failed/s | predicted from the other starts | off |"
    yield "|---|---|---|---|---|"
    for number_of, trial in enumerate(trials):
        known = rejudge(trial, base.slo, run.path)
        if not known.sustainable_rps:
            continue
        rest = [curve for at, curve in enumerate(curves) if at != number_of] or curves
        fitted = refine(others, rest, rows=base.replica.rows, cv=base.cv, draws=0)
        rate = sustainable_rps(curves[number_of].policy, fitted.service, base.slo, arrivals)
        yield (
            f"| {number_of} | {number(known.sustainable_rps)} | {number(known.ceiling_rps)} | "
            f"{number(rate)} | {rate / known.sustainable_rps - 1:+.0%} |"
        )
    off = base.simulated_rps / base.measured_rps - 1
    yield (
        f"\nThe run proved {number(base.measured_rps)}/s; the model carries "
        f"{number(base.simulated_rps)}/s ({off:+.0%})."
    )


def check_rates_of(other: RunDirectory, base: Ground) -> Iterator[str]:
    """Predict the sustainable rate of every start of another run, with arrivals of its kind."""
    cv = scenario_of(other).load.gap_cv
    arrivals = Workload.drawn(20_000, cv=cv, seed=60, rows=base.replica.rows)
    yield "| start | cv | held/s | failed/s | predicted | off |"
    yield "|---|---|---|---|---|---|"
    for number_of, trial in enumerate(starts_of(other, base.config)):
        known = rejudge(trial, base.slo, other.path)
        if not known.sustainable_rps:
            continue
        policy = curve_of(trial, cpus=base.cpus).policy
        rate = sustainable_rps(policy, base.refined.service, base.slo, arrivals)
        yield (
            f"| {number_of} | {cv:g} | {number(known.sustainable_rps)} | "
            f"{number(known.ceiling_rps)} | {number(rate)} | "
            f"{rate / known.sustainable_rps - 1:+.0%} |"
        )


if __name__ == "__main__":
    main()
