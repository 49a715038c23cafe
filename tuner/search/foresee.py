"""What one step of each parameter would carry, by the model of the scheduler, unmeasured.

The model is fitted to the run's own curves, as for `tuner plan`; what it says is a prediction and
is shown as one, with how far the model is off where there is a measurement.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tuner.batching import (
    DEFAULT_BATCH_TIMEOUT_MICROS,
    DEFAULT_MAX_BATCH_SIZE,
    BatchingParameters,
)
from tuner.records import Config, TrialRecord
from tuner.search.ranking import ranked, search_trials, unbounded
from tuner.search.space import UNBOUNDED_QUEUE, Space
from tuner.simulate.calibrate import LARGEST_FITTED, fit
from tuner.simulate.curves import curves_of
from tuner.simulate.policy import Policy
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo

FITTED = 6
"""Configurations that the model is fitted to: the best, and those like the one in question."""

TRUSTED = 0.2
"""A model further off than this where there is a measurement predicts nothing."""

WELL_FITTED = 2.5

REQUESTS, RESOLUTION = 4_000, 0.02

STEPPED = {
    "max_batch_size": DEFAULT_MAX_BATCH_SIZE,
    "batch_timeout_micros": DEFAULT_BATCH_TIMEOUT_MICROS,
    "num_batch_threads": None,
}
"""Parameters that are stepped, with what an unset one means; None: the number of processors."""


@dataclass(frozen=True, slots=True)
class Step:
    """One parameter at its next value: by how many per cent the model's rate changes.

    `low` and `high` span the fits that explain the measurements about as well.
    """

    name: str
    ours: int
    theirs: int
    percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Steps from a configuration; empty where the model is not to be trusted.

    `off_percent` is the model's rate of the configuration itself over the measured one, `misfit`
    about 1 where the model explains the measurements.
    """

    config: Config
    off_percent: float
    misfit: float
    steps: tuple[Step, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether the model agrees with what was measured."""
        return abs(self.off_percent) <= 100 * TRUSTED and self.misfit <= WELL_FITTED


def foresee(
    records: Sequence[TrialRecord],
    config: Config,
    measured_rps: float,
    *,
    space: Space,
    slo: Slo,
    cpus: int,
    rows: tuple[tuple[int, float], ...],
    cv: float = 1.0,
    in_turn: bool = False,
) -> Foreseen | None:
    """Predict one step of each parameter from `config`, which carried `measured_rps`.

    Steps to configurations that were measured are left out; `rows`, `cv` and `in_turn` as in
    `fit`. None where batching is off or nothing was measured that a model could be fitted to.
    """
    if config.batching is None or measured_rps <= 0:
        return None
    curves = curves_of(_telling(records, config), cpus=cpus)
    largest = max((curve.policy.largest_batch for curve in curves), default=1)
    calibration = fit(
        curves, largest_batch=min(largest, LARGEST_FITTED), rows=rows, cv=cv, in_turn=in_turn
    )
    if calibration is None:
        return None
    workload = Workload.drawn(REQUESTS, cv=cv, rows=rows)
    models = (calibration.service, *calibration.plausible)

    def rates(asked: Config, guess_rps: float) -> list[float]:
        policy = Policy.of(_deep(asked), cpus=cpus)
        return [
            sustainable_rps(
                policy, model, slo, workload, resolution=RESOLUTION, guess_rps=guess_rps
            )
            for model in models
        ]

    here = rates(config, measured_rps)
    off = (here[0] / measured_rps - 1) * 100
    found = Foreseen(config, off, calibration.misfit)
    if not found.trusted or min(here) <= 0:
        return found
    known = {unbounded(record.config) for record in search_trials(records)}
    steps = (
        _step(name, ours, theirs, rates(stepped, here[0]), here)
        for name, ours, theirs, stepped in _neighbours(config, space, cpus)
        if unbounded(stepped) not in known
    )
    return replace(found, steps=tuple(steps))


def _telling(records: Sequence[TrialRecord], config: Config) -> list[TrialRecord]:
    """The configuration's own trials, then the best: a fit to 500 trials would take minutes."""
    own = [record for record in records if unbounded(record.config) == unbounded(config)]
    others = [record for record in ranked(records) if record not in own]
    baselines = [record for record in records if record.role in {"off", "default"}]
    chosen = [*own[:3], *baselines, *others]
    unique = [record for at, record in enumerate(chosen) if record not in chosen[:at]]
    return unique[:FITTED]


def _deep(config: Config) -> Config:
    """As the search measures it: with a queue that turns nobody away."""
    assert config.batching is not None
    return replace(config, batching=replace(config.batching, max_enqueued_batches=UNBOUNDED_QUEUE))


def _neighbours(config: Config, space: Space, cpus: int) -> Iterator[tuple[str, int, int, Config]]:
    """The configurations one step away, within the space that was searched."""
    batching = config.batching
    assert batching is not None
    # A ladder ends with the largest batch: a step of that is another ladder.
    laddered = batching.enable_large_batch_splitting or batching.allowed_batch_sizes
    for name, unset in STEPPED.items():
        if name == "max_batch_size" and laddered:
            continue
        ours = getattr(batching, name)
        ours = (cpus if unset is None else unset) if ours is None else ours
        choices = sorted(int(value) for value in space.choices.get(name, ()))
        below = [value for value in choices if value < ours]
        above = [value for value in choices if value > ours]
        for theirs in (*below[-1:], *above[:1]):
            yield name, ours, theirs, replace(config, batching=_with(batching, name, theirs))


def _with(batching: BatchingParameters, name: str, value: int) -> BatchingParameters:
    return BatchingParameters.from_dict({**batching.to_dict(), name: value})


def _step(
    name: str, ours: int, theirs: int, there: Sequence[float], here: Sequence[float]
) -> Step:
    percents = [(new / old - 1) * 100 for new, old in zip(there, here, strict=True)]
    finite = [value for value in percents if math.isfinite(value)]
    return Step(name, ours, theirs, percents[0], min(finite), max(finite))
