"""The page of several runs side by side, and the tables beside it."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.report import wording
from tuner.report.beside import Comparison, Figures
from tuner.report.beside_figure import LOOKS, draw_fronts
from tuner.report.bundle import embedded_json, library, script
from tuner.report.canvas import style, to_files
from tuner.report.conditions import SEARCH
from tuner.report.points import rounded
from tuner.report.run import LoadPoint
from tuner.report.tables import PARETO_COLUMNS, pareto_rows
from tuner.report.templating import template
from tuner.report.vega import chart, latency, limit_line, lines, quantity
from tuner.slo import percentile_label
from tuner.store import write_atomically

PAGE = "comparison.html"
TABLE = "comparison.csv"
FRONTS = "fronts.csv"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table of figures: its name, and a text for every run."""

    name: str
    texts: tuple[str, ...]


def write_comparison(comparison: Comparison, directory: Path) -> tuple[Path, ...]:
    """Write the page, its tables as CSV and its plot, each whole or not at all; the page first.

    Raises StoreError where the directory cannot be written.
    """
    with style():
        svg, png = to_files(draw_fronts(comparison))
    import pandas as pd  # noqa: PLC0415 (half a second, needed only here)

    table = pd.DataFrame(_table(comparison), dtype=object)
    fronts = pd.DataFrame(_fronts(comparison), columns=["run", *PARETO_COLUMNS], dtype=object)
    contents = {
        PAGE: render_comparison(comparison).encode("utf-8", "replace"),
        TABLE: table.to_csv(index=False, lineterminator="\n").encode("utf-8", "replace"),
        FRONTS: fronts.to_csv(index=False, lineterminator="\n").encode("utf-8", "replace"),
        "plots/fronts.svg": svg.encode(),
        "plots/fronts.png": png,
    }
    return tuple(write_atomically(directory / name, text) for name, text in contents.items())


def _table(comparison: Comparison) -> list[dict[str, Any]]:
    """Figures and differing conditions, a row for each run."""
    return [
        {
            "run": item.name,
            "recommended": item.label,
            "verdict": item.verdict,
            "sustainable_rps": item.sustainable_rps,
            "fresh_starts": len(item.starts_rps),
            "difference_percent": item.gain and item.gain.percent,
            "difference_low": item.gain and item.gain.low,
            "difference_high": item.gain and item.gain.high,
            "p50_ms": item.p50_ms,
            f"{comparison.percentile}_ms": item.tail_ms,
            "p99_ms": item.p99_ms,
            "throughput_rps": item.throughput_rps,
            "rows_per_batch": item.rows_per_batch,
            "default_rps": item.default_rps,
            "off_rps": item.off_rps,
            "valid_share": item.valid_share,
            **{found.name: found.by_run[index] for found in comparison.differences},
        }
        for index, item in enumerate(comparison.figures)
    ]


def _fronts(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {"run": name, **row}
        for name, run in zip(comparison.names, comparison.runs, strict=True)
        for row in pareto_rows(run, comparison.percentile)
    ]


def render_comparison(comparison: Comparison) -> str:
    """Render the page as HTML text; everything that comes from a run is escaped."""
    scripts = (library(), script("drawing.js"), script("beside.js"))
    return template("comparison.html.jinja").render(
        comparison=comparison,
        verdict=verdict(comparison),
        caveat=caveat(comparison),
        lines=figure_lines(comparison),
        looks=LOOKS,
        promise=wording.promise_of(comparison.runs[0]),
        launchers=wording.LAUNCHERS,
        number=wording.number,
        percentile=percentile_label(comparison.percentile),
        data=embedded_json(_data(comparison)),
        specs=embedded_json(_specs()),
        scripts=scripts,
    )


def verdict(comparison: Comparison) -> str:
    """What the rates say, and whether that is more than noise."""
    first, *others = comparison.figures
    known = [item for item in others if item.gain is not None]
    if not known:
        return "One of the runs carries no load within the promise, so there is no ratio to give."
    if len(known) > 1:
        return _first_of_many(comparison)
    (other,) = known
    gain = other.gain
    assert gain is not None
    ahead, behind = (other, first) if gain.percent > 0 else (first, other)
    ratio = 1 + gain.percent / 100
    more = wording.share(max(ratio, 1 / ratio) - 1)
    names = f"{wording.clip(ahead.name, 60)} carries {more} more than"
    names += f" {wording.clip(behind.name, 60)}"
    if gain.proven or gain.refuted:
        return f"{names}: a difference beyond the noise of their starts."
    if gain.low is None:
        return f"{names}, by single starts: the difference is not proven."
    return "No difference can be told from the noise of their starts."


def _first_of_many(comparison: Comparison) -> str:
    """Which of more than two runs carries the most, and which of them may be as good."""
    text = f"{wording.clip(comparison.best.name, 60)} carries the most"
    if not comparison.as_good:
        return f"{text}, beyond the noise of the runs' starts."
    rivals = " and ".join(wording.clip(item.name, 60) for item in comparison.as_good)
    return f"{text}; as far as the noise of their starts can tell, {rivals} may carry as much."


def caveat(comparison: Comparison) -> str:
    """What a difference can and cannot be laid on."""
    subjects = comparison.subjects
    if not subjects:
        searched = any(item.subject == SEARCH for item in comparison.differences)
        about = f"Nothing that was recorded differs{' but the search' if searched else ''}, so "
        if any(one.gain and (one.gain.proven or one.gain.refuted) for one in comparison.figures):
            about += (
                f"what made the difference {'is what that found, or ' if searched else ''}was not "
                "recorded: another machine of the same name, what else ran on it, the hour."
            )
        else:
            about += "what lies between the runs is noise and time."
    elif len(subjects) == 1:
        about = f"What differs is {subjects[0]}."
    else:
        listed = f"{', '.join(subjects[:-1])} and {subjects[-1]}"
        about = (
            f"Several things differ at once ({listed}): the difference in load cannot be laid on "
            "one of them."
        )
    return (
        f"{about} The runs were made one after the other, not in interleaved blocks: what else "
        "changed between them is part of the difference, and no interval knows of it."
    )


def figure_lines(comparison: Comparison) -> tuple[Line, ...]:
    """The table of figures: one line a figure, one column a run."""
    tail = percentile_label(comparison.percentile)
    found = [
        Line("recommended", _each(comparison, lambda item: item.label or wording.MISSING)),
        Line("the run's own verdict", _each(comparison, _own_verdict)),
        Line(
            "sustainable rate", _each(comparison, lambda item: wording.rate(item.sustainable_rps))
        ),
        Line("on fresh starts", _each(comparison, _starts)),
        Line("against the first", _each(comparison, _difference)),
        Line("p50 there", _each(comparison, lambda item: wording.milliseconds(item.p50_ms))),
        Line(f"{tail} there", _each(comparison, lambda item: wording.milliseconds(item.tail_ms))),
        Line("p99 there", _each(comparison, lambda item: wording.milliseconds(item.p99_ms))),
        Line(
            "rows per batch", _each(comparison, lambda item: wording.number(item.rows_per_batch))
        ),
        Line("server's default", _each(comparison, lambda one: wording.rate(one.default_rps))),
        Line("batching off", _each(comparison, lambda item: wording.rate(item.off_rps))),
        Line(
            "valid measurements", _each(comparison, lambda item: wording.share(item.valid_share))
        ),
    ]
    return tuple({line.name: line for line in found}.values())  # the tail may be the p99


def _each(comparison: Comparison, words: Callable[[Figures], str]) -> tuple[str, ...]:
    return tuple(words(item) for item in comparison.figures)


def _own_verdict(item: Figures) -> str:
    gain = item.own_gain
    if not gain:
        return item.verdict
    return f"{item.verdict}: {wording.gain_words(gain['percent'], gain['low'], gain['high'])}"


def _starts(item: Figures) -> str:
    if len(item.starts_rps) < 2:
        return "one start"
    low, high = min(item.starts_rps), max(item.starts_rps)
    mean = wording.rate(statistics.geometric_mean(item.starts_rps))
    return f"{wording.number(low)} to {wording.rate(high)} in {len(item.starts_rps)}, mean {mean}"


def _difference(item: Figures) -> str:
    gain = item.gain
    return (
        wording.MISSING if gain is None else wording.gain_words(gain.percent, gain.low, gain.high)
    )


def _data(comparison: Comparison) -> dict[str, Any]:
    """The fronts' points, with what hovering says of each."""
    points = [
        (name, LOOKS[index], point)
        for index, name in enumerate(comparison.names)
        for point in comparison.front(index)
    ]
    return {
        "percentile": percentile_label(comparison.percentile),
        "limit": dict(comparison.runs[0].slo.limits_ms).get(comparison.percentile),
        "points": [
            {"i": index, "name": wording.clip(name, 60), "look": look, **_point(comparison, point)}
            for index, (name, look, point) in enumerate(points)
        ],
    }


def _point(comparison: Comparison, point: LoadPoint) -> dict[str, Any]:
    measured = point.measurement
    return {
        "label": wording.clip(point.trial.config.label(), 160),
        "offered": rounded(measured.offered_rps),
        "answered": rounded(measured.throughput_rps),
        "latency": rounded(point.latency_ms(comparison.percentile)),
        "rows": rounded(measured.server.rows_per_batch if measured.server else None),
        "keeps": point.level.verdict.feasible,
        "trial": point.trial.number,
    }


def _specs() -> dict[str, Any]:
    x = quantity("answered", "throughput (requests/s)", zero=True)
    return {"fronts": chart([*limit_line(), *lines("points", x, latency())], 420)}
