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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.commands.plan_replica import Ground, ground, model_of_others, starts_of
from tuner.commands.publish import scenario_of
from tuner.measure.histogram import LatencyHistogram, read_log
from tuner.records import Level, TrialRecord
from tuner.report.wording import number
from tuner.search.rejudge import rejudge
from tuner.simulate.curves import Curve, CurvePoint, curve_of
from tuner.simulate.refine import Refined, refine, seen
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
    tell(list(check_loads(run, base, without_load(run, base))))
    print(*check_rates(run, base, without_start(run, base)), sep="\n")
    print(f"\n{proven(base)}")
    for other in map(RunDirectory, asked.against):
        print(f"\n## {other.path.name}, predicted from {run.path.name} alone\n")
        tell(list(check_loads(other, base, lambda _: base.refined.service)))
        print(*check_rates(other, base, lambda _: base.refined.service), sep="\n")


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


def starts(run: RunDirectory, base: Ground) -> tuple[list[TrialRecord], list[Curve]]:
    """The starts of the configuration that came to a load, and their curves."""
    trials = [trial for trial in starts_of(run, base.config) if trial.levels]
    return trials, [curve_of(trial, cpus=base.cpus) for trial in trials]


def check_loads(
    run: RunDirectory, base: Ground, service_of: Callable[[Load], ServiceModel]
) -> Iterator[Checked]:
    """Predict every load that a run measured of the configuration."""
    trials, curves = starts(run, base)
    for load in loads_of(trials, curves):
        yield judged(run, base, load, service_of(load), curves[load.start])


def without_load(run: RunDirectory, base: Ground) -> Callable[[Load], ServiceModel]:
    """The run's own model of a load's start, fitted to all but that load."""
    _, curves = starts(run, base)
    others = model_of_others(run, base.config)

    def service_of(load: Load) -> ServiceModel:
        kept = [without(curve, load.point) for curve in curves]
        return refined(others, kept, base).service_of(load.start)

    return service_of


def without_start(run: RunDirectory, base: Ground) -> Callable[[int], ServiceModel]:
    """The run's own model, fitted to all but one start; to that where there is no other."""
    _, curves = starts(run, base)
    others = model_of_others(run, base.config)

    def service_of(start: int) -> ServiceModel:
        rest = [curve for at, curve in enumerate(curves) if at != start] or curves
        return refined(others, rest, base).service

    return service_of


def refined(others: ServiceModel, kept: Sequence[Curve], base: Ground) -> Refined:
    """The configuration's model from some of what was measured."""
    return refine(others, kept, rows=base.replica.rows, cv=base.cv, draws=0)


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


def check_rates(
    run: RunDirectory, base: Ground, service_of: Callable[[int], ServiceModel]
) -> Iterator[str]:
    """Predict the sustainable rate of every start of a run, with arrivals of its kind."""
    trials, curves = starts(run, base)
    cv = scenario_of(run).load.gap_cv
    arrivals = Workload.drawn(20_000, cv=cv, seed=60, rows=base.replica.rows)
    yield "| start | cv | held/s | failed/s | predicted | off |"
    yield "|---|---|---|---|---|---|"
    for start, (trial, curve) in enumerate(zip(trials, curves, strict=True)):
        known = rejudge(trial, base.slo, run.path)
        if not known.sustainable_rps:
            continue
        rate = sustainable_rps(curve.policy, service_of(start), base.slo, arrivals)
        yield (
            f"| {start} | {cv:g} | {number(known.sustainable_rps)} | "
            f"{number(known.ceiling_rps)} | {number(rate)} | "
            f"{rate / known.sustainable_rps - 1:+.0%} |"
        )


def proven(base: Ground) -> str:
    """What the model of all starts carries, beside what the run proved."""
    off = base.simulated_rps / base.measured_rps - 1
    return (
        f"The run proved {number(base.measured_rps)}/s; the model carries "
        f"{number(base.simulated_rps)}/s ({off:+.0%})."
    )


if __name__ == "__main__":
    main()
