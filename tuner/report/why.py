"""Why each configuration of note does what it does, and what one step from it would change."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from tuner.batching import BatchingParameters
from tuner.records import Config, TrialRecord
from tuner.report.curves import Curve, contender_curves, front_curves
from tuner.report.run import Run
from tuner.report.wording import rate, sentence, signed_percent
from tuner.search.evidence import indifferent, reasons
from tuner.search.ranking import by_role, search_trials

APART = frozenset({"max_enqueued_batches", "thread_pool_name"})
"""Fields that no load within the promise feels: the bound of the queue, and a name."""


@dataclass(frozen=True, slots=True)
class Why:
    """One configuration, and sentences made from what was measured of it."""

    name: str
    label: str
    sentences: tuple[str, ...]


def why(run: Run) -> tuple[Why, ...]:
    """The recommended first, then the default, batching off, and the front's other members."""
    default = by_role(run.trials, "default")
    curves = (*reversed(contender_curves(run)), *front_curves(run))
    found = (
        Why(
            "on the front" if curve.look.startswith("front") else curve.name,
            curve.trial.config.label(),
            tuple(
                sentence(text)
                for text in (*_limits(curve), *reasons(curve.trial, default), *_steps(run, curve))
            ),
        )
        for curve in curves
    )
    return tuple(item for item in found if item.sentences)


def without_effect(run: Run) -> tuple[str, ...]:
    """Parameters that made no difference where they alone were changed, in sentences."""
    return tuple(sentence(f"in the search, {text}") for text in indifferent(run.trials))


def _limits(curve: Curve) -> Iterator[str]:
    """What gave way first, as far as the lowest load that missed the promise shows it."""
    missed = [point for point in curve.points if point.level.verdict.feasible is False]
    if not missed:
        return
    first = min(missed, key=lambda point: point.measurement.offered_rps or 0.0)
    measured = first.measurement
    at = f"at {rate(measured.offered_rps)}, where the promise is missed,"
    if measured.errors:
        code = max(measured.errors, key=lambda name: measured.errors[name])
        yield f"{at} {measured.errors[code]:,} of {measured.requests:,} requests fail with {code}"
    if measured.host.generator_cpu > 0.8:
        cores = f"{measured.host.generator_cpu:.2f} cores"
        yield f"{at} the load generator is near its own end ({cores})"
    if measured.host.server_cpu is not None:
        yield f"{at} the server uses {measured.host.server_cpu:.2f} cores"


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
        percent = (trial.sustainable_rps / here.sustainable_rps - 1) * 100
        yield (
            f"with {name} {theirs} instead of {ours} it carried {rate(trial.sustainable_rps)} "
            f"instead of {rate(here.sustainable_rps)} in the search ({signed_percent(percent)})"
        )


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
