"""What a report is made of: one run, already read from disk."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tuner.records import Level, Measurement, ServerIdentity, TrialRecord
from tuner.search.foresee import Foreseen
from tuner.search.importance import Importances
from tuner.slo import Slo


@dataclass(frozen=True)  # without slots: what every part of the page asks for is kept
class Run:
    """One tuning run: what was asked, what was measured, what is recommended.

    `directory` is where histogram files are looked up (None: nowhere). `recommendation` is the
    object of `recommendation.json`. `batching_text` is the recommended batching file as it is
    deployed, empty where batching off is recommended or nothing is. `conditions` are what the
    figures depend on, by dotted name, for a comparison with other runs. `foreseen` and
    `importance` are computed where a simulator and optuna may be asked; None where they were not.
    """

    name: str
    directory: Path | None
    scenario_text: str
    slo: Slo
    server: ServerIdentity
    environment: dict[str, Any]
    trials: tuple[TrialRecord, ...]
    recommendation: dict[str, Any]
    batching_text: str
    conditions: dict[str, Any] = field(default_factory=dict)
    foreseen: Foreseen | None = None
    importance: Importances | None = None

    @cached_property
    def open_points(self) -> tuple["LoadPoint", ...]:
        """The levels whose latency can be trusted and compared: valid, from an open loop."""
        return tuple(
            point
            for point in load_points(self)
            if point.level.verdict.valid and point.measurement.loop == "open"
        )

    @cached_property
    def percentile(self) -> str:
        """The percentile that plots and the front judge latency by.

        The highest one that the SLO limits and the samples of some measurement carry, else p99.
        """
        carried = {name for point in self.open_points for name in point.measurement.percentiles_ms}
        promised = (name for name, _ in reversed(self.slo.limits_ms) if name in carried)
        return next(promised, "p99")

    @property
    def limit_ms(self) -> float | None:
        """The SLO's limit on `percentile`, None where it has none."""
        return dict(self.slo.limits_ms).get(self.percentile)

    @property
    def recommended_id(self) -> str | None:
        """Id of the recommended configuration, None while there is none."""
        return self.recommendation.get("config_id") or None

    @property
    def interval_percent(self) -> float:
        """The confidence of the gain's interval, in per cent."""
        return 100 * float(self.recommendation.get("confidence") or 0.95)

    @property
    def answered(self) -> bool:
        """Whether the recommendation rests on a load at which the SLO held."""
        return bool((self.recommendation.get("recommended") or {}).get("sustainable_rps"))


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """One (configuration, load) point: a level, and the trial that it belongs to."""

    trial: TrialRecord
    level: Level

    @property
    def measurement(self) -> Measurement:
        """What was measured at this load."""
        return self.level.measurement

    @property
    def config_id(self) -> str:
        """Id of the configuration that was loaded."""
        return self.trial.config.id

    def latency_ms(self, percentile: str) -> float | None:
        """Look up the percentile in ms; None where too few samples carry it or it is a failure."""
        return self.measurement.percentiles_ms.get(percentile)


def load_points(run: Run) -> Iterator[LoadPoint]:
    """Every level of every trial, in the order measured."""
    for trial in run.trials:
        for level in trial.levels:
            yield LoadPoint(trial, level)
