"""How much each parameter mattered for the rate, by Optuna's PED-ANOVA.

Importance is how far the best fifth of the configurations measured differs, parameter by
parameter, from all of them, on the whole space; shares add up to one. It says what mattered in
this space, not what a parameter can do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.records import Config, TrialRecord
from tuner.search.ranking import search_trials
from tuner.search.space import Choice, Point, Space, config_of

ENOUGH = 10
"""Fewer configurations say nothing: their best fifth is one or two."""

SURE = 30
"""Up to so many the order of parameters often changes with a few more trials."""

BEST = 0.2
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Importance:
    """One parameter's share; `low` and `high` are its range when a fifth of trials is left out."""

    name: str
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Importances:
    """The parameters by falling share, empty where `configurations` are fewer than ENOUGH."""

    configurations: int
    parameters: tuple[Importance, ...] = ()


def importances(records: Iterable[TrialRecord], space: Space) -> Importances:
    """Judge every parameter with more than one choice by the search's measurements."""
    points = {config_of(point): point for point in space.points()}
    measured = _measured(records, points)
    varied = [name for name in space.choices if len({point[name] for point, _ in measured}) > 1]
    if len(measured) < ENOUGH or not varied:
        return Importances(len(measured))
    whole = _shares(measured, space, varied)
    folds = [
        _shares([item for at, item in enumerate(measured) if at % FOLDS != fold], space, varied)
        for fold in range(FOLDS)
    ]
    found = (
        Importance(
            name,
            share,
            min(share, *(fold[name] for fold in folds)),
            max(share, *(fold[name] for fold in folds)),
        )
        for name, share in whole.items()
    )
    return Importances(
        len(measured), tuple(sorted(found, key=lambda item: item.share, reverse=True))
    )


def _measured(
    records: Iterable[TrialRecord], points: dict[Config, Point]
) -> list[tuple[Point, float]]:
    """Points of the space with their rates, the first valid measurement of each."""
    found: dict[Config, tuple[Point, float]] = {}
    for record in search_trials(records):
        point = points.get(record.config)
        if point is not None and record.sustainable_rps is not None:
            found.setdefault(record.config, (point, record.sustainable_rps))
    return list(found.values())


def _shares(
    measured: Sequence[tuple[Point, float]], space: Space, names: Sequence[str]
) -> dict[str, float]:
    import optuna  # noqa: PLC0415 - a second, and reports read the types above without it
    from optuna.distributions import CategoricalDistribution  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    distributions = {name: CategoricalDistribution(space.choices[name]) for name in names}
    for point, rate_rps in measured:
        params: dict[str, Choice] = {name: point[name] for name in names}
        trial = optuna.trial.create_trial(
            value=rate_rps, params=params, distributions=dict(distributions)
        )
        study.add_trial(trial)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=BEST, evaluate_on_local=False
    )
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: found.get(name, 0.0) for name in names}
