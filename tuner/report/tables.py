"""Figures side by side: the closing table, the trials, and the Pareto front as CSV rows."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tuner.batching import BatchingParameters
from tuner.report.front import pareto_front
from tuner.report.run import LoadPoint, Run
from tuner.slo import PERCENTILES, limit_name
from tuner.store import write_atomically

Contender = Literal["recommended", "default", "off"]

CONTENDERS: tuple[Contender, ...] = ("recommended", "default", "off")
"""The rows of the closing table, in its order."""

PARETO_COLUMNS = (
    *("config_id", "trial", "role", "batching"),
    *(field.name for field in fields(BatchingParameters)),
    *("loop", "offered_rps", "throughput_rps", "goodput_rps"),
    *(limit_name(name) for name in PERCENTILES),
    *("requests", "errors", "rows_per_batch", "padding_share", "valid", "feasible"),
)
"""The columns of `pareto.csv`, in order."""


@dataclass(frozen=True, slots=True)
class ClosingRow:
    """One contender of the closing table; a None figure was not measured.

    `gain_percent` with `low` and `high` is set for the recommended row alone: its gain in
    sustainable rate over the default's, in per cent. `low` and `high` are None until a final
    has confirmed it.
    """

    contender: Contender
    label: str
    sustainable_rps: float | None
    p99_ms: float | None
    throughput_rps: float | None
    rows_per_batch: float | None
    valid: bool | None
    gain_percent: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None


def closing_rows(run: Run) -> tuple[ClosingRow, ...]:
    """Recommended, default and off, as `recommendation.json` has them; absent ones left out."""
    return tuple(
        _closing_row(run, contender, figures)
        for contender in CONTENDERS
        if (figures := run.recommendation.get(contender)) is not None
    )


def _closing_row(run: Run, contender: Contender, figures: Mapping[str, Any]) -> ClosingRow:
    gain: Mapping[str, Any] = {}
    # A gain that was not proven is that of a configuration which is not recommended.
    if contender == "recommended" and run.recommendation.get("verdict") not in {"tie", "none"}:
        gain = run.recommendation.get("gain") or {}
    return ClosingRow(
        contender=contender,
        label=contender_label(run, contender),
        sustainable_rps=figures.get("sustainable_rps"),
        p99_ms=figures.get("p99_ms"),
        throughput_rps=figures.get("throughput_rps"),
        rows_per_batch=figures.get("rows_per_batch"),
        valid=figures.get("valid"),
        gain_percent=gain.get("percent"),
        gain_low=gain.get("low"),
        gain_high=gain.get("high"),
    )


def contenders(run: Run) -> tuple[Contender, ...]:
    """Name those that plots and the table of trials set apart.

    Without an answer the recommended file is a baseline's, kept for want of a better one.
    """
    return CONTENDERS if run.answered else CONTENDERS[1:]


def contender_label(run: Run, contender: Contender) -> str:
    """Words for a contender's configuration, empty where no trial measured it."""
    ids = contender_ids(run, contender)
    return next((trial.config.label() for trial in run.trials if trial.config.id in ids), "")


def contender_ids(run: Run, contender: Contender) -> frozenset[str]:
    """Look up the ids of the configurations that a contender was measured as.

    Baselines go by their role. The recommended file was measured with an unbounded queue in the
    search, and as it is deployed, with `max_enqueued_batches` bounded, in the final.
    """
    if contender != "recommended":
        return frozenset(trial.config.id for trial in run.trials if trial.role == contender)
    if run.recommended_id is None:
        return frozenset()
    baselines = contender_ids(run, "default") | contender_ids(run, "off")
    if run.recommended_id in baselines:
        return frozenset({run.recommended_id})
    deployed = _but_for_queue(run.recommendation.get("parameters") or {})
    alike = {
        trial.config.id
        for trial in run.trials
        if trial.config.batching is not None
        and _but_for_queue(trial.config.batching.to_dict()) == deployed
    }
    return frozenset({run.recommended_id, *(alike - baselines)})


def _but_for_queue(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name != "max_enqueued_batches"}


def front_points(run: Run, percentile: str = "") -> tuple[LoadPoint, ...]:
    """Find the Pareto front over all valid open-loop (configuration, load) points.

    Throughput up against a percentile down, the SLO's unless another is named, by rising
    throughput. Whether a point keeps the SLO is no matter: the front serves other limits too.
    """
    percentile = percentile or run.percentile
    placed = [
        (point, (point.measurement.throughput_rps, latency))
        for point in run.open_points
        if (latency := point.latency_ms(percentile)) is not None
    ]
    return tuple(placed[index][0] for index in pareto_front([at for _, at in placed]))


def pareto_rows(run: Run, percentile: str = "") -> list[dict[str, Any]]:
    """Rows of `pareto.csv`: the front by rising throughput, flat, None where nothing is known.

    Times are in ms, rates per second, `padding_share` is pad rows over executed rows. A batching
    field is None where the file leaves it to the server's default, or batching is off.
    """
    return [_pareto_row(point) for point in front_points(run, percentile)]


def _pareto_row(point: LoadPoint) -> dict[str, Any]:
    measurement, verdict = point.measurement, point.level.verdict
    server = measurement.server
    return {
        "config_id": point.config_id,
        "trial": point.trial.number,
        "role": point.trial.role,
        "batching": point.trial.config.batching is not None,
        **_batching_columns(point.trial.config.batching),
        "loop": measurement.loop,
        "offered_rps": measurement.offered_rps,
        "throughput_rps": measurement.throughput_rps,
        "goodput_rps": measurement.goodput_rps,
        **{limit_name(name): measurement.percentiles_ms.get(name) for name in PERCENTILES},
        "requests": measurement.requests,
        "errors": measurement.requests - measurement.answered,
        "rows_per_batch": server.rows_per_batch if server else None,
        "padding_share": server.padding_share if server else None,
        "valid": verdict.valid,
        "feasible": verdict.feasible,
    }


def _batching_columns(batching: BatchingParameters | None) -> dict[str, Any]:
    """Give every field a column, with lists as text: a spreadsheet has no cell for a list."""
    values = {} if batching is None else batching.to_dict()
    return {
        field.name: " ".join(map(str, value))
        if isinstance(value := values.get(field.name), list)
        else value
        for field in fields(BatchingParameters)
    }


def write_pareto_csv(run: Run, path: Path) -> None:
    """Write `pareto.csv`, at once or not at all. Raises StoreError where that is impossible.

    A run without a front gives a file of column names alone.
    """
    import pandas as pd  # noqa: PLC0415 (half a second, needed only here)

    frame = pd.DataFrame(pareto_rows(run), columns=list(PARETO_COLUMNS), dtype=object)
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n").encode())
