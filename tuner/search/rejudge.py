"""A recorded run under another SLO: nothing is measured again, everything is judged again."""

import math
from dataclasses import replace
from pathlib import Path

from tuner.measure.counting import LOOKS
from tuner.measure.histogram import read_log
from tuner.measure.slo import judge
from tuner.measure.together import decided_together
from tuner.records import Level, Outcome, TrialRecord
from tuner.search.ranking import patient
from tuner.slo import Slo, limit_name


def rejudge(record: TrialRecord, slo: Slo, folder: Path) -> TrialRecord:
    """Judge every level of a trial by `slo`, from its histogram below `folder`.

    The sustainable rate is then the highest recorded load that holds with none below it failing,
    so it lies on a load that was measured, not between two.
    """
    if record.failure is not None or not record.levels:
        return record
    levels = tuple(_rejudged(level, slo, folder) for level in record.levels)
    if not patient(record.config, slo):
        levels = _together(levels, slo)
    open_levels = [
        (level.measurement.offered_rps or 0.0, number, level)
        for number, level in enumerate(levels)
        if level.measurement.loop == "open"
        and (level.verdict.valid or level.verdict.feasible is None)
    ]
    failed_rps = min(
        (rate for rate, _, level in open_levels if level.verdict.feasible is False),
        default=math.inf,
    )
    held = [
        (rate, number)
        for rate, number, level in open_levels
        if level.verdict.feasible is True and rate < failed_rps
    ]
    sustainable_rps, reference = max(held, default=(0.0, None))
    outcome: Outcome = "ok" if held else ("infeasible" if open_levels else "invalid")
    return replace(
        record,
        outcome=outcome,
        levels=levels,
        sustainable_rps=sustainable_rps if open_levels else None,
        ceiling_rps=failed_rps if math.isfinite(failed_rps) else None,
        reference_level=reference,
    )


def _rejudged(level: Level, slo: Slo, folder: Path) -> Level:
    """Count requests over the new limits; a level whose histogram is gone keeps its verdict."""
    if level.histogram is None or not (folder / level.histogram).is_file():
        return level
    histogram = read_log(folder / level.histogram)
    over = {limit_name(name): histogram.over(limit_ms) for name, limit_ms in slo.limits_ms}
    measurement = replace(level.measurement, over_limit=over)
    return replace(level, measurement=measurement, verdict=judge(measurement, slo, looks=LOOKS))


def _together(levels: tuple[Level, ...], slo: Slo) -> tuple[Level, ...]:
    opened = [level for level in levels if level.measurement.loop == "open"]
    decided = [(before, after) for before, after, _ in decided_together(opened, slo)]
    return tuple(next((b for a, b in decided if a is level), level) for level in levels)
