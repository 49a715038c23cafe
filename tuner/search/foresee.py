"""What one step of each parameter would carry, by the model of the scheduler, unmeasured.

The model is fitted to the run's own curves, as for `tuner plan`; what it says is a prediction and
is shown as one, with how far the model is off where there is a measurement.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

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
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo

FITTED = 8
"""Configurations that the model is fitted to: the one in question, the baselines, the best with
each value that is a step away, the best."""

TRUSTED = 0.2
"""A model further off than this where there is a measurement predicts nothing."""

WELL_FITTED = 2.5

ASKED = 3
"""Measured configurations by which the model is judged at a value, the best of them first."""

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

    `low` and `high` span the fits that explain the measurements about as well. `off_percent` is by
    how far the model overrates configurations that were measured with their value, beyond what
    it does here; 0 where there are none.
    """

    name: str
    ours: int
    theirs: int
    percent: float
    low: float
    high: float
    off_percent: float = 0.0

    @property
    def trusted(self) -> bool:
        """Whether the model agrees with what was measured at their value."""
        return abs(self.off_percent) <= 100 * TRUSTED


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
    most_cores: float = math.inf,
) -> Foreseen | None:
    """Predict one step of each parameter from `config`, which carried `measured_rps`.

    Steps to configurations that were measured are left out; `rows`, `cv`, `in_turn` and
    `most_cores` as in `fit`. None where batching is off or nothing was measured that a model could
    be fitted to.
    """
    if config.batching is None or measured_rps <= 0:
        return None
    neighbours = list(_neighbours(config, space, cpus))
    order = ranked(records)
    with_value = {
        (name, theirs): _measured_with(order, config, name, theirs, cpus)
        for name, _, theirs, _ in neighbours
    }
    curves = curves_of(_telling(records, order, config, with_value.values()), cpus=cpus)
    largest = max((curve.policy.largest_batch for curve in curves), default=1)
    calibration = fit(
        curves,
        largest_batch=min(largest, LARGEST_FITTED),
        rows=rows,
        cv=cv,
        in_turn=in_turn,
        most_cores=most_cores,
    )
    if calibration is None:
        return None
    workload = Workload.drawn(REQUESTS, cv=cv, rows=rows)
    models = (calibration.service, *calibration.plausible)

    def rate(asked: Config, model: ServiceModel, guess_rps: float) -> float:
        policy = Policy.of(_deep(asked), cpus=cpus)
        return sustainable_rps(
            policy, model, slo, workload, resolution=RESOLUTION, guess_rps=guess_rps
        )

    def rates(asked: Config, guess_rps: float) -> list[float]:
        return [rate(asked, model, guess_rps) for model in models]

    here = rates(config, measured_rps)
    off = (here[0] / measured_rps - 1) * 100
    found = Foreseen(config, off, calibration.misfit)
    if not found.trusted or min(here) <= 0:
        return found

    def overrated(name: str, value: int) -> float:
        """How many times as much the model makes of configurations with a value as of ours."""
        errors = [
            rate(record.config, calibration.service, measured) / measured
            for record in with_value[name, value][:ASKED]
            if (measured := record.sustainable_rps)
        ]
        return median(errors) * measured_rps / here[0] if errors else 1.0

    known = {unbounded(record.config) for record in search_trials(records)}
    steps = (
        replace(
            _step(name, ours, theirs, rates(stepped, here[0]), here),
            off_percent=(overrated(name, theirs) - 1) * 100,
        )
        for name, ours, theirs, stepped in neighbours
        if unbounded(stepped) not in known
    )
    return replace(found, steps=tuple(steps))


def _telling(
    records: Sequence[TrialRecord],
    order: Sequence[TrialRecord],
    config: Config,
    steps_away: Iterable[Sequence[TrialRecord]],
) -> list[TrialRecord]:
    """The trials that tell most of a configuration, and of each value that is a step away.

    `order` are the trials ranked, `steps_away` those with each such value. A fit to 500 trials
    would take minutes.
    """
    own = [record for record in records if unbounded(record.config) == unbounded(config)]
    baselines = [record for record in records if record.role in {"off", "default"}]
    there = [record for with_it in steps_away for record in with_it[:1]]
    chosen = [
        *own[:3],
        *baselines,
        *there,
        *(other for other in order if other not in own),
    ]
    unique = [record for at, record in enumerate(chosen) if record not in chosen[:at]]
    return unique[:FITTED]


def _measured_with(
    order: Sequence[TrialRecord], config: Config, name: str, value: int, cpus: int
) -> list[TrialRecord]:
    """Those under the same flags whose parameter `name` is `value`, in the same order."""
    return [
        record
        for record in order
        if record.config.flags == config.flags and _value(record.config, name, cpus) == value
    ]


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
    for name in STEPPED:
        if name == "max_batch_size" and laddered:
            continue
        ours = _value(config, name, cpus)
        assert ours is not None
        choices = sorted(int(value) for value in space.choices.get(name, ()))
        below = [value for value in choices if value < ours]
        above = [value for value in choices if value > ours]
        for theirs in (*below[-1:], *above[:1]):
            yield name, ours, theirs, replace(config, batching=_with(batching, name, theirs))


def _value(config: Config, name: str, cpus: int) -> int | None:
    """What a stepped parameter is, set or not; None with batching off."""
    if config.batching is None:
        return None
    value: int | None = getattr(config.batching, name)
    unset = STEPPED[name]
    return value if value is not None else (cpus if unset is None else unset)


def _with(batching: BatchingParameters, name: str, value: int) -> BatchingParameters:
    return BatchingParameters.from_dict({**batching.to_dict(), name: value})


def _step(
    name: str, ours: int, theirs: int, there: Sequence[float], here: Sequence[float]
) -> Step:
    percents = [(new / old - 1) * 100 for new, old in zip(there, here, strict=True)]
    finite = [value for value in percents if math.isfinite(value)]
    return Step(name, ours, theirs, percents[0], min(finite), max(finite))
