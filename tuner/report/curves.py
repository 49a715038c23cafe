"""One configuration's ladder of loads as a curve, and which configurations a plot sets apart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.records import TrialRecord
from tuner.report.run import LoadPoint, Run
from tuner.report.tables import CONTENDERS, contender_ids, contenders, front_points
from tuner.report.wording import clip

Look = Literal["recommended", "default", "off", "front-1", "front-2", "front-3"]

FRONT_LOOKS: tuple[Look, ...] = ("front-1", "front-2", "front-3")
"""How many configurations of the front are drawn beside the contenders, and how they look."""

SAME_LOAD = 0.05
"""Loads that differ by less, measured one after the other, were meant to be the same."""

CONTENDER_NAMES = {"recommended": "recommended", "default": "default", "off": "batching off"}


@dataclass(frozen=True, slots=True)
class Curve:
    """A named configuration and its valid open-loop points, by rising offered load.

    The points are of one trial, that is of one server start: joined by a line they are a curve,
    where points of several starts would zigzag. `config_ids` are all that the configuration was
    measured as.
    """

    name: str
    look: Look
    config_ids: frozenset[str]
    points: tuple[LoadPoint, ...]

    @property
    def trial(self) -> TrialRecord:
        """The trial that the points are of."""
        return self.points[0].trial

    @property
    def reference(self) -> LoadPoint | None:
        """The point at the sustainable rate, None where the SLO held at no load."""
        return next((point for point in self.points if point.level is point.trial.reference), None)


def contender_curves(run: Run) -> tuple[Curve, ...]:
    """Collect batching off, default, recommended, where measured; the recommended is last."""
    curves: dict[frozenset[str], Curve] = {}
    for contender in reversed(contenders(run)):
        ids = contender_ids(run, contender)
        name = CONTENDER_NAMES[contender]
        if ids in curves:
            name = f"{curves.pop(ids).name} (recommended)"
        figures = run.recommendation.get(contender) or {}
        curve = _curve(run, ids, name, contender, figures.get("sustainable_rps"))
        if curve is not None:
            curves[ids] = curve
    return tuple(curves.values())


def front_curves(run: Run) -> tuple[Curve, ...]:
    """Pick the configurations with the most points on the front that are no contenders.

    Points that keep the SLO count; where none does, all do.
    """
    set_apart = frozenset[str]().union(*(contender_ids(run, name) for name in CONTENDERS))
    front = front_points(run)
    kept = [point for point in front if point.level.verdict.feasible]
    shares = Counter(point.config_id for point in kept or front)
    others = [config_id for config_id, _ in shares.most_common() if config_id not in set_apart]
    found = (
        _curve(run, frozenset({config_id}), _name(run, config_id), look)
        for config_id, look in zip(others, FRONT_LOOKS, strict=False)
    )
    return tuple(curve for curve in found if curve is not None)


def _curve(
    run: Run, ids: frozenset[str], name: str, look: Look, published_rps: float | None = None
) -> Curve | None:
    points = [point for point in run.open_points if point.config_id in ids]
    if not points:
        return None
    trial = _shown_trial([point.trial for point in points], published_rps)
    ladder = _settled([point for point in points if point.trial is trial])
    ladder.sort(key=_offered_rps)
    return Curve(name, look, ids, tuple(ladder))


def _settled(points: Sequence[LoadPoint]) -> list[LoadPoint]:
    """Leave out what a second look replaced: an open question, then the same load for longer.

    The loads of both differ by the noise of their arrivals' number only. Joined by a line, the
    pair would look like a cliff.
    """
    return [
        point
        for point, after in zip(points, [*points[1:], None], strict=True)
        if after is None
        or point.level.verdict.feasible is not None
        or abs(_offered_rps(after) / _offered_rps(point) - 1) > SAME_LOAD
    ]


def _offered_rps(point: LoadPoint) -> float:
    return point.measurement.offered_rps or 0.0


def _shown_trial(trials: Sequence[TrialRecord], published_rps: float | None) -> TrialRecord:
    """Pick one of the trials that usable points belong to, each named once for every point.

    The one whose sustainable rate was published, so that plot and table agree, provided that
    it makes a line; else the one with the most points.
    """
    by_number = {trial.number: trial for trial in trials}
    points = Counter(trial.number for trial in trials)

    def rank(number: int) -> tuple[bool, int, int]:
        published = by_number[number].sustainable_rps == published_rps and points[number] > 1
        return published, points[number], -number

    return by_number[max(points, key=rank)]


def _name(run: Run, config_id: str) -> str:
    labels = (trial.config.label() for trial in run.trials if trial.config.id == config_id)
    return clip(next(labels, config_id), 48)
