"""What the page's charts and its choice of an SLO are made of: every usable point, in short.

The values are rounded to four digits: they are drawn and read, and 500 trials must fit a page
that people mail to each other. `trials.jsonl` has them whole.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuner.records import TrialRecord
from tuner.report.batch_figure import BatchRow, batch_info
from tuner.report.curves import Curve, contender_curves, front_curves
from tuner.report.front import pareto_front
from tuner.report.percentile_figure import TICKS, curve_words, percentile_info
from tuner.report.run import LoadPoint, Run
from tuner.report.vega import AT_LIMIT, ELSEWHERE, QUEUEING, RUNNING, UNSPLIT
from tuner.report.wording import ROLES, clip, number, rate
from tuner.search.queue_bound import deployable
from tuner.search.ranking import TIE, search_trials, simplicity
from tuner.search.space import UNBOUNDED_QUEUE
from tuner.slo import PERCENTILES, percentile_label

STANDINGS = {True: "keeps the SLO", None: "undecided", False: "misses the SLO"}
"""How a point stands to the run's own SLO, in the words of the legend."""


def page_data(run: Run) -> dict[str, Any]:
    """Collect what the page's script needs, as plain JSON values.

    `points` are the valid open-loop measurements, each with the indices of its configuration in
    `configs`; `fronts` lists by percentile the points that no other beats, by rising throughput.
    """
    curves = (*front_curves(run), *contender_curves(run))
    looks = {config_id: curve for curve in curves for config_id in curve.config_ids}
    numbers: dict[str, int] = {}
    configs: list[dict[str, Any]] = []
    for trial in run.trials:
        if trial.config.id not in numbers:
            numbers[trial.config.id] = len(configs)
            configs.append(_config(run, trial, looks))
    points = run.open_points
    return {
        "percentiles": {
            name: percentile_label(name)
            for name in PERCENTILES
            if any(point.latency_ms(name) is not None for point in points)
        },
        "percentile": run.percentile,
        "limit": run.limit_ms,
        "limits": dict(run.slo.limits_ms),
        "maxErrorRate": run.slo.max_error_rate,
        "recommended": numbers.get(run.recommended_id or "") if run.answered else None,
        "configs": configs,
        "points": [
            _point(index, numbers[point.config_id], point) for index, point in enumerate(points)
        ],
        "fronts": {name: _front(points, name) for name in PERCENTILES},
        "tie": TIE,
        "curves": _curves(curves, points),
        "references": _references(run, points),
        "progress": _progress(run),
        "waits": _waits(run),
        **_percentiles(run),
    }


def _config(run: Run, trial: TrialRecord, looks: Mapping[str, Curve]) -> dict[str, Any]:
    curve = looks.get(trial.config.id)
    deployed = deployable(trial, run.slo).batching
    batching = trial.config.batching
    return {
        "id": trial.config.id,
        "label": clip(trial.config.label(), 160),
        "look": curve.look if curve else "other",
        "name": curve.name if curve else "",
        "trial": trial.number,
        "simplicity": rounded(simplicity(trial.config)),
        "file": None if deployed is None else deployed.to_text(),
        "queue": None
        if batching is None or batching.max_enqueued_batches != UNBOUNDED_QUEUE
        else {
            "drain": max((level.measurement.rows_rps for level in trial.levels), default=0.0),
            "rows": batching.row_limit,
            "threads": batching.num_batch_threads or 1,
        },
    }


def _point(index: int, config: int, point: LoadPoint) -> dict[str, Any]:
    measured = point.measurement
    server = measured.server
    queue_ms = server.queue_ms if server else None
    rest_ms = None if queue_ms is None or measured.mean_ms is None else measured.mean_ms - queue_ms
    return {
        "i": index,
        "c": config,
        "trial": point.trial.number,
        "final": point.trial.role == "final",
        "offered": rounded(measured.offered_rps),
        "answered": rounded(measured.throughput_rps),
        **{name: rounded(value) for name, value in measured.percentiles_ms.items()},
        "errors": rounded(measured.error_rate),
        "rows": rounded(server.rows_per_batch if server else None),
        "padding": rounded(server.padding_share if server else None),
        "queue": rounded(queue_ms),
        "rest": rounded(rest_ms),
        "standing": STANDINGS[point.level.verdict.feasible],
    }


def _front(points: Iterable[LoadPoint], percentile: str) -> list[int]:
    placed = [
        (index, (point.measurement.throughput_rps, latency))
        for index, point in enumerate(points)
        if (latency := point.latency_ms(percentile)) is not None
    ]
    return [placed[at][0] for at in pareto_front([where for _, where in placed])]


def _indices(points: Sequence[LoadPoint]) -> dict[int, int]:
    """Where each point's level stands; levels are told apart by identity, not by their values."""
    return {id(point.level): index for index, point in enumerate(points)}


def _curves(curves: Iterable[Curve], points: Sequence[LoadPoint]) -> list[dict[str, Any]]:
    at = _indices(points)
    return [
        {
            "name": curve.name,
            "look": curve.look,
            "points": [at[id(point.level)] for point in curve.points],
        }
        for curve in curves
    ]


def _references(run: Run, points: Sequence[LoadPoint]) -> list[dict[str, Any]]:
    """Where the contenders stand at their sustainable rates: what the front's labels name."""
    at = _indices(points)
    return [
        {
            "i": at[id(curve.reference.level)],
            "name": curve.name,
            "look": curve.look,
            "recommended": run.recommended_id in curve.config_ids,
        }
        for curve in contender_curves(run)
        if curve.reference is not None
    ]


def _progress(run: Run) -> list[dict[str, Any]]:
    """The search in the order it was made, with the best sustainable rate so far."""
    best: float | None = None
    rows = []
    for index, trial in enumerate(search_trials(run.trials)):
        if trial.sustainable_rps is not None:
            best = max(best or 0.0, trial.sustainable_rps)
        rows.append(
            {
                "i": index,
                "trial": trial.number,
                "label": clip(trial.config.label(), 160),
                "why": ROLES[trial.role],
                "outcome": trial.outcome,
                "sustainable": rounded(trial.sustainable_rps),
                "best": rounded(best),
            }
        )
    return rows


def _waits(run: Run) -> list[dict[str, Any]]:
    """Where the mean latency went, for the configurations that carry the most: a bar each."""
    info = batch_info(run)
    rows = [row for row in info.rows if row.queue_ms is not None] if info else []
    return [
        {
            "label": f"{rate(row.offered_rps)} · {row.label}",
            "part": part,
            "order": order,
            "ms": rounded(ms),
            "offered": rounded(row.offered_rps),
            "words": words,
            "rows": rounded(row.rows_per_batch),
            "padding": rounded(row.padding_share),
        }
        for row in rows
        for parts in [_parts(row)]
        for words in [", ".join(f"{number(ms)} ms {part}" for part, ms in parts)]
        for order, (part, ms) in enumerate(parts)
    ]


def _parts(row: BatchRow) -> list[tuple[str, float]]:
    """Queue, run and the rest where the server tells its run time; else queue and all else."""
    queue_ms, rest_ms = row.queue_ms or 0.0, row.rest_ms or 0.0
    if row.run_ms is None or row.run_ms > rest_ms:
        return [(QUEUEING, queue_ms), (UNSPLIT, rest_ms)]
    return [(QUEUEING, queue_ms), (RUNNING, row.run_ms), (ELSEWHERE, rest_ms - row.run_ms)]


def _percentiles(run: Run) -> dict[str, Any]:
    """Whole distributions; the x axis gives each further nine the same room."""
    info = percentile_info(run)
    if info is None:
        return {"distributions": [], "promises": [], "nines": []}
    drawn: list[dict[str, Any]] = [
        {
            "name": curve_words(curve),
            "look": AT_LIMIT if curve.at_limit else curve.look,
            "share": round(share, 6),
            "nines": _nines(share),
            "ms": rounded(ms),
        }
        for curve in info.curves
        for share, ms in curve.points
    ]
    end = max(point["nines"] for point in drawn)
    return {
        "distributions": [{"i": index, **point} for index, point in enumerate(drawn)],
        "promises": [
            {"name": f"{share * 100:g} % ≤ {ms:g} ms", "share": share, "ms": ms,
             "nines": _nines(share)}
            for share, ms in info.limits
        ],
        "nines": [_nines(share) for share in TICKS if _nines(share) <= end + 0.1],
    }  # fmt: skip


def _nines(share: float) -> float:
    return round(-math.log10(1 - share), 7)


def rounded(value: float | None) -> float | None:
    """Keep four significant digits."""
    return None if value is None else float(f"{value:.4g}")
