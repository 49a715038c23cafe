"""Optuna behind one door: the only module that imports it.

The study is a cache of `trials.jsonl`, kept so that optuna-dashboard can show it; it is made anew
from the records at every start. What a trial's outcome means to a sampler:

    ok           its values; constraints at most 0
    infeasible   its values; some constraint above 0
    failed       PRUNED and a constraint above 0: a sampler that is told FAIL forgets the point
                 and asks for the crash again
    invalid      FAIL: nothing was learnt about the configuration
"""

import math
import random
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import StoreError
from tuner.records import TrialRecord
from tuner.search.space import Choice, Point, Space, config_of, point_of

OBJECTIVES = ("sustainable_rps", "latency_ms")
DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")
STARTUP_TRIALS = 4
"""Random points before TPE models anything; the baselines and the guide's points count."""

ASKS = 10
"""How often a sampler may repeat itself before the unmeasured point most like its asks is taken.

Late in a small space it asks for little but the best points, which are measured already."""


class Sampler:
    """Proposes points, given what was measured. Never proposes a point twice."""

    def __init__(self, space: Space, *, name: str, seed: int, database: Path | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._seed = seed
        self._measured: set[str] = set()
        self._study = optuna.create_study(
            directions=list(DIRECTIONS), sampler=_sampler(name, seed)
        )
        # Points that were asked for in vain stay out of what people look at.
        self._database = database
        self._shown = None if database is None else _fresh_study(database)

    def tell(self, records: Iterable[TrialRecord]) -> None:
        """Take in finished trials of the search."""
        for record in records:
            self._measured.add(record.config.id)
            trial = self._frozen(record)
            self._study.add_trial(trial)
            if self._shown is not None:
                with _written(self._database):
                    self._shown.add_trial(trial)

    def ask(self) -> Point | None:
        """Return the next point, or None when every point was measured."""
        left = self._unmeasured()
        if not left:
            return None
        wanted: Counter[tuple[str, Choice]] = Counter()
        for _ in range(ASKS):
            trial = self._study.ask(self._distributions())
            point: Point = dict(trial.params)
            self._study.tell(trial, state=TrialState.FAIL)  # `tell` adds it once it is measured
            if config_of(point).id not in self._measured:
                return point
            wanted.update(point.items())
        # So that equal scores do not favour the corner where the enumeration starts.
        random.Random(self._seed + len(left)).shuffle(left)
        return max(left, key=lambda point: _likeness(point, wanted))

    def _unmeasured(self) -> list[Point]:
        return [
            point for point in self._space.points() if config_of(point).id not in self._measured
        ]

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {
            name: CategoricalDistribution(values) for name, values in self._space.choices.items()
        }

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        point = point_of(record.config, self._space)
        state, values = _outcome(record)
        return create_trial(
            state=state,
            values=values,
            params=point or {},
            distributions=self._distributions() if point else {},
            constraints=_constraints(record),
            user_attrs={
                "number": record.number,
                "role": record.role,
                "config": record.config.id,
                "label": record.config.label(),
                "outcome": record.outcome,
            },
        )


def _likeness(point: Point, wanted: Counter[tuple[str, Choice]]) -> float:
    """Log-likelihood of a point, up to a constant, under the asked values of each parameter."""
    return sum(math.log(1 + wanted[item]) for item in point.items())


def _outcome(record: TrialRecord) -> tuple[TrialState, list[float] | None]:
    if record.outcome == "failed":
        return TrialState.PRUNED, None
    level = record.shown_level
    latency = None if level is None else _latency_ms(record)
    if record.outcome == "invalid" or record.sustainable_rps is None or latency is None:
        return TrialState.FAIL, None
    return TrialState.COMPLETE, [record.sustainable_rps, latency]


def _latency_ms(record: TrialRecord) -> float | None:
    """Return the highest percentile that the shown level carries, in milliseconds."""
    level = record.shown_level
    if level is None:
        return None
    carried = [value for value in level.measurement.percentiles_ms.values() if value is not None]
    return max(carried, default=level.measurement.max_ms)


def _constraints(record: TrialRecord) -> dict[str, float]:
    """Return violations, positive where the SLO is missed: the margins with their sign turned."""
    if record.outcome == "failed":
        return {"started": 1.0}
    level = record.shown_level
    if level is None:
        return {}
    return {name: -margin for name, margin in level.verdict.margins.items()}


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS
    )


def _fresh_study(database: Path) -> optuna.Study:
    with _written(database), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        database.unlink(missing_ok=True)
        study = optuna.create_study(
            study_name="tuner", storage=f"sqlite:///{database}", directions=list(DIRECTIONS)
        )
        study.set_metric_names(list(OBJECTIVES))
    return study


@contextmanager
def _written(database: Path | None) -> Iterator[None]:
    try:
        yield
    except (OSError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise StoreError(
            f"{database}: the study cannot be written: {reason}", hint="make room, then resume"
        ) from None
