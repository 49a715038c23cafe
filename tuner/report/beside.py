"""Several runs side by side: what differs, what each carries, and when to refuse."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.errors import UsageError
from tuner.records import TrialRecord
from tuner.report.conditions import MEASURING, SEARCH, remedy_of, subject_of, unlike, untold
from tuner.report.run import LoadPoint, Run
from tuner.report.tables import contender_ids, contender_label, front_points
from tuner.report.wording import MISSING, clip, headline
from tuner.search.paired import Gain
from tuner.search.ranking import step_of
from tuner.search.unpaired import unpaired_gain

MOST_RUNS = 6
"""As many looks as the plots can tell apart."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run carries; a None figure was not measured.

    `starts_rps` are the recommended configuration's sustainable rates on fresh starts, known as
    finely as `steps`; `gain` is over the first run, and `verdict` and `own_gain` are the run's
    own, over its default.
    """

    name: str
    label: str
    verdict: str
    sustainable_rps: float | None
    starts_rps: tuple[float, ...]
    steps: tuple[float, ...]
    p50_ms: float | None
    tail_ms: float | None
    p99_ms: float | None
    throughput_rps: float | None
    rows_per_batch: float | None
    default_rps: float | None
    off_rps: float | None
    own_gain: Mapping[str, float] | None
    valid_share: float
    spread_percent: float | None
    gain: Gain | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One condition in which the runs differ: its values in the order of the runs."""

    name: str
    subject: str
    by_run: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs that may be compared, in the order given, and what came of it."""

    runs: tuple[Run, ...]
    names: tuple[str, ...]
    percentile: str
    figures: tuple[Figures, ...]
    differences: tuple[Difference, ...]
    untold: tuple[str, ...] = ()

    @property
    def best(self) -> Figures:
        """The run that carries the most."""
        return max(self.figures, key=lambda item: item.sustainable_rps or 0.0)

    @property
    def as_good(self) -> tuple[Figures, ...]:
        """The others that the best is not shown to surpass; all intervals hold together."""
        best, others = self.best, len(self.figures) - 1
        met = [
            (item, _gain(best, item, comparisons=others))
            for item in self.figures
            if item is not best and item.sustainable_rps
        ]
        return tuple(item for item, gain in met if gain is None or not gain.proven)

    @property
    def subjects(self) -> tuple[str, ...]:
        """What the comparison is about, but for how it was found: `the GPU`, `the model`."""
        found = dict.fromkeys(item.subject for item in self.differences)
        return tuple(name for name in found if name not in {SEARCH, MEASURING})

    def front(self, index: int) -> tuple[LoadPoint, ...]:
        """The Pareto front of a run, by rising throughput, where it carries the percentile."""
        return front_points(self.runs[index], self.percentile)


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs side by side. Raises UsageError, by the key's name, where that would lie."""
    names = _names(runs)
    _refuse_unfit(runs, names)
    named = {name: run.conditions for name, run in zip(names, runs, strict=True)}
    different = unlike(named)
    _refuse_unlike(different)
    percentile = _percentile(runs)
    figures = [_figures(run, name, percentile) for run, name in zip(runs, names, strict=True)]
    return Comparison(
        runs=tuple(runs),
        names=names,
        percentile=percentile,
        figures=tuple(_with_gains(figures)),
        differences=tuple(
            Difference(name, subject_of(name), tuple(map(_text, by_run.values())))
            for name, by_run in different.items()
        ),
        untold=untold(named),
    )


def _names(runs: Sequence[Run]) -> tuple[str, ...]:
    """Directory names, with as much of their path as tells them apart."""
    paths = [(run.directory or Path(run.name)).resolve() for run in runs]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-parts:])) for path in paths]
        if len(set(names)) == len(names):
            return tuple(names)
    twice = Counter(map(str, paths)).most_common(1)[0][0]
    raise UsageError(f"{twice}: given twice", hint="name different runs to compare")


def _refuse_unfit(runs: Sequence[Run], names: Sequence[str]) -> None:
    if len(runs) > MOST_RUNS:
        raise UsageError(
            f"{len(runs)} runs: a page compares at most {MOST_RUNS}",
            hint="leave some out; more lines in one plot tell nobody anything",
        )
    for run, name in zip(runs, names, strict=True):
        if not run.open_points:
            raise UsageError(
                f"{name}: loop: it holds no valid measurement from an open loop",
                hint=f"see its own page first: tuner report {name}",
            )


def _refuse_unlike(different: Mapping[str, Mapping[str, Any]]) -> None:
    """Name every key whose difference would make the comparison lie."""
    wrong = {name: by_run for name, by_run in different.items() if remedy_of(name)}
    if not wrong:
        return
    listed = "\n".join(
        f"  {name}: " + ", ".join(f"{_text(value)} in {run}" for run, value in by_run.items())
        for name, by_run in wrong.items()
    )
    raise UsageError(
        f"these runs cannot be compared, since they differ in\n{listed}",
        hint=remedy_of(next(iter(wrong))) or "",
    )


def _percentile(runs: Sequence[Run]) -> str:
    """The highest promised percentile that every run's samples carry."""
    carried = [
        {
            name
            for point in run.open_points
            for name, value in point.measurement.percentiles_ms.items()
            if value is not None
        }
        for run in runs
    ]
    promised = [name for name, _ in reversed(runs[0].slo.limits_ms)]
    shared = (name for name in promised if all(name in names for names in carried))
    return next(shared, runs[0].percentile)


def _figures(run: Run, name: str, percentile: str) -> Figures:
    found = run.recommendation.get("recommended") or {}
    starts = _starts(run)
    shown = _shown(run, found.get("sustainable_rps"))
    level = shown.shown_level if shown is not None else None
    percentiles = level.measurement.percentiles_ms if level is not None else {}
    return Figures(
        name=name,
        label=contender_label(run, "recommended") if run.answered else MISSING,
        verdict=headline(run).tag,
        sustainable_rps=found.get("sustainable_rps"),
        starts_rps=tuple(trial.sustainable_rps or 0.0 for trial in starts),
        steps=tuple(step_of(trial) for trial in starts),
        p50_ms=percentiles.get("p50"),
        tail_ms=percentiles.get(percentile),
        p99_ms=percentiles.get("p99"),
        throughput_rps=found.get("throughput_rps"),
        rows_per_batch=found.get("rows_per_batch"),
        default_rps=(run.recommendation.get("default") or {}).get("sustainable_rps"),
        off_rps=(run.recommendation.get("off") or {}).get("sustainable_rps"),
        own_gain=run.recommendation.get("gain"),
        valid_share=_valid_share(run),
        spread_percent=(run.recommendation.get("noise") or {}).get("spread_percent"),
    )


def _starts(run: Run) -> list[TrialRecord]:
    """The recommended's starts in the final; without one, the start that chose it.

    Never both: of many starts the search picked the one that read highest.
    """
    ids = contender_ids(run, "recommended")
    alike = [trial for trial in run.trials if trial.config.id in ids and trial.sustainable_rps]
    final = [trial for trial in alike if trial.role == "final"]
    return final or [trial for trial in alike if trial.role != "overload"][:1]


def _shown(run: Run, rate_rps: float | None) -> TrialRecord | None:
    ids = contender_ids(run, "recommended")
    alike = [trial for trial in run.trials if trial.config.id in ids]
    return next((trial for trial in alike if trial.sustainable_rps == rate_rps), None)


def _valid_share(run: Run) -> float:
    verdicts = [level.verdict.valid for trial in run.trials for level in trial.levels]
    return sum(verdicts) / len(verdicts)


def _with_gains(figures: Sequence[Figures]) -> Iterator[Figures]:
    """Each beside the first; all their intervals hold together."""
    first, *others = figures
    yield first
    for item in others:
        yield replace(item, gain=_gain(item, first, comparisons=len(others)))


def _gain(ours: Figures, theirs: Figures, *, comparisons: int) -> Gain | None:
    return unpaired_gain(
        ours.starts_rps,
        theirs.starts_rps,
        comparisons=comparisons,
        steps=(ours.steps, theirs.steps),
    )


def _text(value: Any) -> str:
    if value is None or (isinstance(value, list | Mapping) and not value):
        return MISSING
    if isinstance(value, Mapping):
        return clip(", ".join(f"{key}: {_text(item)}" for key, item in value.items()), 400)
    if isinstance(value, list | tuple):
        return clip(", ".join(map(str, value)), 400)
    return clip(str(value), 400)
