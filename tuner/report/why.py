"""Why each configuration of note does what it does, and what one step from it would change."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from tuner.batching import BatchingParameters
from tuner.records import Config, TrialRecord
from tuner.report.curves import Curve, contender_curves, front_curves
from tuner.report.limits import limits
from tuner.report.percentile_figure import COMPARABLE
from tuner.report.run import Run
from tuner.report.tables import contender_ids
from tuner.report.wording import rate, sentence, signed_percent
from tuner.search.evidence import indifferent, reasons
from tuner.search.ranking import bounded, by_role, search_trials

FRAGMENTED = 0.8
"""Batches that hold less than this share of what fewer threads gave are split by the threads."""

APART = frozenset({"max_enqueued_batches", "thread_pool_name"})
"""Fields that no load within the promise feels: the bound of the queue, and a name."""


@dataclass(frozen=True, slots=True)
class Why:
    """One configuration, and sentences made from what was measured of it at `load`.

    `front` says that it is shown for its place on the front alone.
    """

    name: str
    label: str
    load: str
    sentences: tuple[str, ...]
    front: bool = False


def why(run: Run) -> tuple[Why, ...]:
    """The recommended first, then the default, batching off, and the front's other members."""
    curves = (*reversed(contender_curves(run)), *front_curves(run))
    ids = contender_ids(run, "default")
    shown = (curve.trial for curve in curves if curve.config_ids & ids)
    default = next(shown, by_role(run.trials, "default"))
    found = (
        Why(
            "on the front" if curve.look.startswith("front") else curve.name,
            curve.trial.config.label(),
            _load(curve.trial),
            tuple(
                sentence(text)
                for text in (
                    *limits(run, curve),
                    *reasons(curve.trial, default, _starts(run, curve)),
                    *_fragmentation(run, curve),
                    *_steps(run, curve),
                )
            ),
            front=curve.look.startswith("front"),
        )
        for curve in curves
    )
    return tuple(item for item in found if item.sentences)


def _starts(run: Run, curve: Curve) -> list[TrialRecord]:
    return [trial for trial in run.trials if trial.config.id in curve.config_ids]


def without_effect(run: Run) -> tuple[str, ...]:
    """Parameters that made no difference where they alone were changed, in sentences."""
    return tuple(sentence(f"in the search, {text}") for text in indifferent(run.trials))


def _load(trial: TrialRecord) -> str:
    """Where a trial's counters were read."""
    level = trial.shown_level
    if level is None:
        return ""
    at = rate(level.measurement.offered_rps)
    return f"at {at}, its sustainable rate" if trial.reference is not None else f"at {at}"


def remarks(run: Run) -> tuple[str, ...]:
    """What holds for all steps above: parameters without effect, and how far starts scatter."""
    found = list(without_effect(run))
    spread = _scatter(run)
    if spread is not None:
        found.append(
            "Steps in the search compare one start with one start; equal starts of one "
            f"configuration lay up to {spread:.0f}\u00a0% apart in this run, so smaller "
            "differences say nothing."
        )
    return tuple(found)


def _scatter(run: Run) -> float | None:
    """How far equal starts lie apart at most, in per cent; None where nothing was repeated."""
    rates: dict[str, list[float]] = {}
    for trial in run.trials:
        if trial.sustainable_rps and trial.role != "overload":
            rates.setdefault(trial.config.id, []).append(trial.sustainable_rps)
    apart = [(max(found) / min(found) - 1) * 100 for found in rates.values() if len(found) > 1]
    return max(apart, default=None)


def _fragmentation(run: Run, curve: Curve) -> Iterator[str]:
    """Whether more batch threads split what would be one batch, where both were measured."""
    here = curve.trial
    batching = here.config.batching
    if batching is None or (batching.num_batch_threads or 0) < 2:
        return
    for trial in run.trials:
        step = _one_step(here.config, trial.config)
        if step is None or step[0] != "num_batch_threads" or not _fewer(step):
            continue
        pair = _nearest_rows(here, trial)
        if pair is not None and pair[0] < FRAGMENTED * pair[1]:
            ours, theirs, load = pair
            yield (
                f"batches fragment over threads: at about {rate(load)} a batch held {ours:.1f} "
                f"rows with {step[1]} threads, and {theirs:.1f} with {step[2]}"
            )
            return


def _fewer(step: tuple[str, object, object]) -> bool:
    _, ours, theirs = step
    return isinstance(ours, int) and isinstance(theirs, int) and theirs < ours


def _nearest_rows(ours: TrialRecord, theirs: TrialRecord) -> tuple[float, float, float] | None:
    """Rows per batch of both at the highest load that both were measured at, and that load."""
    pairs = [
        (first, second)
        for first in _rows(ours)
        for second in _rows(theirs)
        if max(first[0], second[0]) <= COMPARABLE * min(first[0], second[0])
    ]
    if not pairs:
        return None
    (load, rows), (_, other) = max(pairs, key=lambda pair: pair[0][0])
    return rows, other, load


def _rows(trial: TrialRecord) -> Iterator[tuple[float, float]]:
    for level in trial.levels:
        server, offered = level.measurement.server, level.measurement.offered_rps
        if level.verdict.valid and offered and server is not None and server.rows_per_batch:
            yield offered, server.rows_per_batch


def _steps(run: Run, curve: Curve) -> Iterator[str]:
    """What was measured of configurations that differ in one parameter alone."""
    here = _searched(run, curve)
    if here is None or not here.sustainable_rps or here.config.batching is None:
        return
    for trial in search_trials(run.trials):
        step = _one_step(here.config, trial.config)
        if step is None or trial.sustainable_rps is None:
            continue
        name, ours, theirs = step
        if not (bounded(trial) and bounded(here)):
            yield (
                f"with {name} {theirs} instead of {ours} it carried {_at_least(trial)} in the "
                f"search, instead of {_at_least(here)}"
            )
            continue
        percent = (trial.sustainable_rps / here.sustainable_rps - 1) * 100
        yield (
            f"with {name} {theirs} instead of {ours} it carried {rate(trial.sustainable_rps)} "
            f"instead of {rate(here.sustainable_rps)} in the search ({signed_percent(percent)})"
        )


def _at_least(trial: TrialRecord) -> str:
    """A rate, or the lower bound that it is."""
    shown = rate(trial.sustainable_rps)
    return shown if bounded(trial) else f"{shown} or more (undecided above)"


def _searched(run: Run, curve: Curve) -> TrialRecord | None:
    """The search's own start of a curve's configuration: steps are compared among its equals."""
    return next(
        (trial for trial in search_trials(run.trials) if trial.config.id in curve.config_ids), None
    )


def _one_step(first: Config, second: Config) -> tuple[str, object, object] | None:
    """The one parameter in which two batching files differ, with both values."""
    if first.batching is None or second.batching is None or first.flags != second.flags:
        return None
    pairs = [
        (field.name, getattr(first.batching, field.name), getattr(second.batching, field.name))
        for field in fields(BatchingParameters)
        if field.name not in APART
    ]
    different = [pair for pair in pairs if pair[1] != pair[2]]
    return different[0] if len(different) == 1 else None
