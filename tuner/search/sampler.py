"""Optuna behind one door: the study, the samplers by name, and what a trial tells them.

The study is a cache of `trials.jsonl`, kept so that optuna-dashboard can show it; it is made anew
from the records at every start. What a trial's outcome means to a sampler:

    ok           its values; constraints at most 0
    infeasible   its values; some constraint above 0
    failed       PRUNED and a constraint above 0: a sampler that is told FAIL forgets the point
                 and asks for the crash again
    invalid      FAIL: nothing was learnt about the configuration

Points that the measurements show to change nothing (`rules`) are never asked for.
"""

import importlib.util
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

from tuner.errors import InputError, StoreError
from tuner.records import TrialRecord
from tuner.search.model_sampler import COST_S, CURVE, ModelSampler, Setting, to_json
from tuner.search.rules import NoOps, is_no_op
from tuner.search.space import Choice, Point, Space, config_of
from tuner.simulate.curves import curve_of

OBJECTIVES = ("sustainable_rps", "latency_ms")
DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")
STARTUP_TRIALS = 4
"""Random points before TPE models anything; the baselines and the guide's points count."""

GUIDED, GUIDED_MODEL = 3, 1
"""The guide's points that a search begins with. One is enough for the model of the scheduler: in
replays two more only put off what it asked for."""

ASKS = 10
"""How often a sampler may repeat itself before the unmeasured point most like its asks is taken.

Late in a small space it asks for little but the best points, which are measured already."""


class Sampler:
    """Proposes points, given what was measured. Never proposes a point twice.

    `name` is one of `auto` (the model of the scheduler, which needs to know its `setting`),
    `tpe`, `gp`, `nsga2`, `random` and `grid`. `reach` is how many rows can wait at once.
    Raises InputError where the sampler is not installed.
    """

    def __init__(
        self,
        space: Space,
        *,
        name: str,
        seed: int,
        database: Path | None,
        setting: Setting | None = None,
        reach: int | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._name = name
        self._seed = seed
        self._setting = setting
        self._measured: set[str] = set()
        self._records: list[TrialRecord] = []
        self._points: dict[str, Point] = {}
        for point in space.points():
            self._points.setdefault(config_of(point).id, point)
        self._no_ops = NoOps(space, reach)
        self._study = optuna.create_study(
            directions=list(DIRECTIONS), sampler=_sampler(name, seed, space, setting)
        )
        # Points that were asked for in vain stay out of what people look at.
        self._database = database
        self._shown = None if database is None else _fresh_study(database)

    @property
    def guided(self) -> int:
        """How many of the guide's points are worth a start before this sampler's own."""
        return GUIDED_MODEL if self._name == "auto" else GUIDED

    def tell(self, records: Iterable[TrialRecord]) -> None:
        """Take in finished trials of the search."""
        for record in records:
            self._measured.add(record.config.id)
            self._records.append(record)
            trial = self._frozen(record)
            # Optuna's samplers search what all trials have in common, so that a baseline outside
            # the space would leave them nothing; the model alone learns from it.
            if trial.params or self._name == "auto":
                self._study.add_trial(trial)
            if self._shown is not None:
                with _written(self._database):
                    self._shown.add_trial(trial)

    def ask(self) -> Point | None:
        """Return the next point, or None when every point was measured."""
        left = self._unmeasured()
        if not left:
            return None
        if self._name == "grid":
            return next(iter(left.values()))
        if isinstance(self._study.sampler, ModelSampler):
            self._study.sampler.skipped = frozenset(self._points.keys() - left.keys())
        wanted: Counter[tuple[str, Choice]] = Counter()
        for _ in range(ASKS):
            trial = self._study.ask(self._distributions())
            point: Point = dict(trial.params)
            self._study.tell(trial, state=TrialState.FAIL)  # `tell` adds it once it is measured
            if config_of(point).id in left:
                return point
            wanted.update(point.items())
        # So that equal scores do not favour the corner where the enumeration starts.
        shuffled = list(left.values())
        random.Random(self._seed + len(left)).shuffle(shuffled)
        return max(shuffled, key=lambda point: _likeness(point, wanted))

    def _unmeasured(self) -> dict[str, Point]:
        """The points that are worth a start, by the ids of their configurations."""
        no_ops = self._no_ops.among(self._records)
        return {
            name: point
            for name, point in self._points.items()
            if name not in self._measured and not is_no_op(point, no_ops)
        }

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {
            name: CategoricalDistribution(values) for name, values in self._space.choices.items()
        }

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        point = self._points.get(record.config.id)
        state, values = _outcome(record)
        learnt: dict[str, object] = {}
        if self._setting is not None and record.levels:
            learnt[CURVE] = to_json(curve_of(record, cpus=self._setting.cpus))
            learnt[COST_S] = record.own_s
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
                **learnt,
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


def _sampler(
    name: str, seed: int, space: Space, setting: Setting | None
) -> optuna.samplers.BaseSampler:
    if name == "auto":
        assert setting is not None, "the model must know what it models"
        return ModelSampler(space, setting, seed=seed)
    if name == "gp":
        return _gaussian_process(seed)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, n_startup_trials=STARTUP_TRIALS
    )


def _gaussian_process(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's own, which computes with torch and scipy: too large to come with every install."""
    missing = [name for name in ("torch", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f'search.sampler: "gp" needs {" and ".join(missing)}, not installed here',
            hint=f'pip install {" ".join(missing)}, or use "auto", which models the scheduler',
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


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
