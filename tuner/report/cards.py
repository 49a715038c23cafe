"""The page's first figures: what each contender carries, how surely, and how fast it answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.records import TrialRecord
from tuner.report.run import Run
from tuner.report.tables import ClosingRow, Contender, closing_rows, contender_ids
from tuner.report.wording import gain_words, milliseconds, number, rate
from tuner.search.ranking import bounded
from tuner.slo import percentile_label

TERMS: dict[Contender, str] = {
    "recommended": "Recommended",
    "default": "Server's default",
    "off": "Batching off",
}

KEPT: dict[Contender, str] = {
    "default": "Recommended: the server's default",
    "off": "Recommended: batching off",
}
"""Where the recommended is a baseline, one card says both."""


@dataclass(frozen=True, slots=True)
class Card:
    """One contender in words: a rate, how surely, and lines of (term, text) below it.

    `look` is the contender's, that of the recommended where it is kept, or `search` for the best
    of the others beside it.
    """

    look: str
    term: str
    rate: str
    label: str
    lines: tuple[tuple[str, str], ...]
    valid: bool | None


def cards(run: Run) -> tuple[Card, ...]:
    """Recommended, default and off, where they carry something or were tried; each once.

    Where a baseline is recommended, the best of the others is what it was held against.
    """
    rows = [row for row in closing_rows(run) if row.sustainable_rps is not None]
    kept = _kept(run) if run.answered else None
    shown = [row for row in rows if row.contender != "recommended"] if kept else rows
    ordered = sorted(shown, key=lambda row: row.contender != kept)
    found = [_card(run, row, kept=row.contender == kept) for row in ordered]
    return (*found[:1], *_best_of_search(run, kept), *found[1:])


def _kept(run: Run) -> Contender | None:
    """The baseline that is recommended, None where a configuration of the search is."""
    names: tuple[Contender, ...] = ("default", "off")
    return next((name for name in names if run.recommended_id in contender_ids(run, name)), None)


def _best_of_search(run: Run, kept: Contender | None) -> Iterator[Card]:
    """The final's candidate that did not prove itself."""
    final = run.recommendation.get("final") or ()
    winner = next((found for found in final if found["arm"] == "winner"), None)
    if kept is None or winner is None or winner.get("sustainable_rps") is None:
        return
    trials = [trial for trial in run.trials if trial.config.id == winner["config_id"]]
    if not trials or winner["config_id"] == run.recommended_id:
        return
    lines = _lines(run, trials, winner["sustainable_rps"], winner.get("rows_per_batch"))
    yield Card(
        look="search",
        term="Best of the others",
        rate=number(winner["sustainable_rps"]),
        label=trials[0].config.label(),
        lines=tuple(lines),
        valid=winner.get("valid"),
    )


def _card(run: Run, row: ClosingRow, *, kept: bool) -> Card:
    term = KEPT[row.contender] if kept else TERMS[row.contender]
    trials = _trials(run, row.contender)
    lines = _lines(run, trials, row.sustainable_rps, row.rows_per_batch)
    if row.contender == "off":
        lines = [*_against_default(run), *lines]
    return Card(
        look="recommended" if kept else row.contender,
        term=term,
        rate=number(row.sustainable_rps),
        label="" if row.label in term.lower() else row.label,
        lines=tuple(lines),
        valid=row.valid,
    )


def _against_default(run: Run) -> Iterator[tuple[str, str]]:
    """Batching off beside the default where the final had both; the headline says all else."""
    for found in run.recommendation.get("final") or ():
        if found["arm"] == "off" and (gain := found.get("gain")):
            words = gain_words(gain["percent"], gain["low"], gain["high"], run.interval_percent)
            yield "beside the default", words


def _lines(
    run: Run, trials: Sequence[TrialRecord], rate_rps: float | None, rows: float | None
) -> list[tuple[str, str]]:
    shown = next((trial for trial in trials if trial.sustainable_rps == rate_rps), None)
    level = shown.shown_level if shown else None
    lines = []
    if sureness := _sureness(trials, shown):
        lines.append(("measured", sureness))
    if level is not None:
        for name, limit_ms in run.slo.limits_ms:
            value = milliseconds(level.measurement.percentiles_ms.get(name))
            lines.append((f"{percentile_label(name)} there", f"{value} (limit {limit_ms:g})"))
    if rows is not None:
        lines.append(("rows per batch", number(rows)))
    return lines


def _trials(run: Run, contender: Contender) -> list[TrialRecord]:
    ids = contender_ids(run, contender)
    return [trial for trial in run.trials if trial.config.id in ids]


def _sureness(trials: Sequence[TrialRecord], shown: TrialRecord | None) -> str:
    """How far the rate may lie off: what the final's blocks gave, else the ladder's bracket."""
    final = [
        trial for trial in trials if trial.role == "final" and trial.sustainable_rps is not None
    ]
    if len(final) > 1:
        blocks = [trial.sustainable_rps or 0.0 for trial in final]
        text = f"{number(min(blocks))} to {rate(max(blocks))} in {len(blocks)} fresh starts"
        lower = sum(not bounded(trial) for trial in final)
        return f"{text}, {lower} undecided above" if lower else text
    if shown is None or not shown.sustainable_rps:
        return ""
    if shown.ceiling_rps is None:
        return f"one start; held at every load tried, up to {rate(shown.sustainable_rps)}"
    above = "missed" if bounded(shown) else "undecided"
    return (
        f"one start; held at {number(shown.sustainable_rps)}, {above} at {rate(shown.ceiling_rps)}"
    )
