"""The page's first figures: what each contender carries, how surely, and how fast it answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.records import TrialRecord
from tuner.report.run import Run
from tuner.report.tables import ClosingRow, Contender, closing_rows, contender_ids
from tuner.report.wording import gain_words, milliseconds, number, rate
from tuner.slo import percentile_label

TERMS: dict[Contender, str] = {
    "recommended": "Recommended",
    "default": "Server's default",
    "off": "Batching off",
}


@dataclass(frozen=True, slots=True)
class Card:
    """One contender in words: a rate, how surely, and lines of (term, text) below it."""

    contender: Contender
    term: str
    rate: str
    label: str
    lines: tuple[tuple[str, str], ...]
    valid: bool | None


def cards(run: Run) -> tuple[Card, ...]:
    """Recommended, default and off, where they carry something or were tried."""
    return tuple(_card(run, row) for row in closing_rows(run) if row.sustainable_rps is not None)


def _card(run: Run, row: ClosingRow) -> Card:
    trials = _trials(run, row.contender)
    shown = next((trial for trial in trials if trial.sustainable_rps == row.sustainable_rps), None)
    level = shown.shown_level if shown else None
    lines = []
    if row.gain_percent is not None:
        gain = gain_words(row.gain_percent, row.gain_low, row.gain_high, run.interval_percent)
        lines.append(("gain over default", gain))
    if sureness := _sureness(trials, shown):
        lines.append(("measured", sureness))
    if level is not None:
        for name, limit_ms in run.slo.limits_ms:
            value = milliseconds(level.measurement.percentiles_ms.get(name))
            lines.append((f"{percentile_label(name)} there", f"{value} (limit {limit_ms:g})"))
    if row.rows_per_batch is not None:
        lines.append(("rows per batch", number(row.rows_per_batch)))
    return Card(
        contender=row.contender,
        term=TERMS[row.contender],
        rate=number(row.sustainable_rps),
        label=row.label,
        lines=tuple(lines),
        valid=row.valid,
    )


def _trials(run: Run, contender: Contender) -> list[TrialRecord]:
    ids = contender_ids(run, contender)
    return [trial for trial in run.trials if trial.config.id in ids]


def _sureness(trials: Sequence[TrialRecord], shown: TrialRecord | None) -> str:
    """How far the rate may lie off: what the final's blocks gave, else the ladder's bracket."""
    blocks = [
        trial.sustainable_rps
        for trial in trials
        if trial.role == "final" and trial.sustainable_rps is not None
    ]
    if len(blocks) > 1:
        return f"{number(min(blocks))} to {rate(max(blocks))} in {len(blocks)} fresh starts"
    if shown is None or not shown.sustainable_rps:
        return ""
    if shown.ceiling_rps is None:
        return f"one start; held at every load tried, up to {rate(shown.sustainable_rps)}"
    return (
        f"one start; held at {number(shown.sustainable_rps)}, missed at {rate(shown.ceiling_rps)}"
    )
