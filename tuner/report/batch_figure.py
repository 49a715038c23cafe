"""What the server's own counters say: rows per batch attained, and time spent queueing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.records import TrialRecord
from tuner.report.canvas import GRID, INK, MUTED, PAPER, STYLES, new_figure, plain
from tuner.report.curves import Curve, Look, contender_curves
from tuner.report.run import Run
from tuner.report.wording import clip, number, rate, server_words
from tuner.search.ranking import unbounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 16
"""Configurations shown: those with the highest sustainable rates, and the contenders."""

TICK = 46
"""Characters of a label that leave the plots beside it half of the width."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One configuration at one load. `name` and `look` are those of a contender.

    `rest_ms` is the mean latency without the queueing: compute, and the way there and back;
    `run_ms` is the model's share of it, None where the server does not tell.
    """

    name: str
    config: str
    look: Look | None
    offered_rps: float | None
    sustained: bool
    rows_per_batch: float
    queue_ms: float | None
    rest_ms: float | None = None
    padding_share: float | None = None
    run_ms: float | None = None

    @property
    def label(self) -> str:
        """The role, where it has one, and the configuration."""
        return f"{self.name}: {self.config}" if self.name else self.config


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """What the plot shows, the best configuration first; `left_out` counts those not shown."""

    server: str
    rows: tuple[BatchRow, ...]
    left_out: int


def batch_info(run: Run) -> BatchInfo | None:
    """Collect the plot's data; None where the server exported no counters of batches."""
    shown: dict[frozenset[str], BatchRow] = {}
    curves = contender_curves(run)
    for curve in curves:
        _add(shown, curve.config_ids, curve.trial, curve)
    contenders = frozenset[str]().union(*(curve.config_ids for curve in curves))
    for trial in _published_first(run):
        if trial.config.id not in contenders:
            _add(shown, frozenset({unbounded(trial.config).id}), trial, None)
    if not shown:
        return None
    ranked = sorted(shown.values(), key=lambda row: (row.look is None, *_rank(row)))
    best = sorted(ranked[:MOST_ROWS], key=_rank)
    return BatchInfo(server_words(run), tuple(best), len(ranked) - len(best))


def _published_first(run: Run) -> list[TrialRecord]:
    """The trials as made, but a contender of the final first by the start that speaks for it.

    It was measured with a bounded queue there: in the search it is the same, and no second row.
    """
    published = {arm.get("sustainable_rps") for arm in run.recommendation.get("final") or ()}
    return sorted(
        run.trials,
        key=lambda trial: trial.role != "final" or trial.sustainable_rps not in published,
    )


def _rank(row: BatchRow) -> tuple[bool, float]:
    return not row.sustained, -(row.offered_rps or 0.0)


def _add(
    rows: dict[frozenset[str], BatchRow],
    ids: frozenset[str],
    trial: TrialRecord,
    curve: Curve | None,
) -> None:
    """Add the trial's row, unless the configuration has one or the server told nothing."""
    level = trial.shown_level
    server = level.measurement.server if level else None
    if ids in rows or level is None or server is None or server.rows_per_batch is None:
        return
    config = trial.config.label()
    mean_ms, queue_ms = level.measurement.mean_ms, server.queue_ms
    rows[ids] = BatchRow(
        name=curve.name if curve else "",
        config=clip(config),
        look=curve.look if curve else None,
        offered_rps=level.measurement.offered_rps,
        sustained=trial.reference is not None,
        rows_per_batch=server.rows_per_batch,
        queue_ms=queue_ms,
        rest_ms=None if mean_ms is None or queue_ms is None else max(mean_ms - queue_ms, 0.0),
        padding_share=server.padding_share,
        run_ms=server.run_ms,
    )


def draw_batches(info: BatchInfo) -> "Figure":
    """Draw the plot: one line of dots for each configuration."""
    ticks = [_tick(row) for row in info.rows]
    figure = new_figure(
        "How full batches were, and how long requests queued",
        f"{info.server}. Each at its sustainable rate (*: its lowest load).",
        1.5 + (0.34 if any("\n" in tick for tick in ticks) else 0.27) * max(len(ticks), 2),
    )
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_dots(left, info, [row.rows_per_batch for row in info.rows])
    left.set_xlabel("Rows per batch (mean)")
    _draw_dots(right, info, [row.queue_ms for row in info.rows])
    right.set_xlabel("Queueing time (ms, mean)")
    right.tick_params(labelleft=False)
    left.set_yticks(range(len(ticks)), ticks, size=8)
    left.set_ylim(len(info.rows) - 0.4, -0.6)
    for text, row in zip(left.get_yticklabels(), info.rows, strict=True):
        text.set_color(STYLES[row.look].color if row.look else INK)
        text.set_fontweight("bold" if row.look else "normal")
    return figure


def _tick(row: BatchRow) -> str:
    """The label and the load; on two lines where they are too long for one."""
    load = f"{rate(row.offered_rps)}{'' if row.sustained else '*'}"
    name, config = (row.name, row.config) if len(row.label) > TICK else ("", row.label)
    shown = plain(f"{clip(config, TICK)} · {load}")
    return f"{plain(clip(name, TICK))}\n{shown}" if name else shown


def _draw_dots(axes: "Axes", info: BatchInfo, values: Sequence[float | None]) -> None:
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    present = [value for value in values if value is not None]
    axes.set_xlim(0, 1.22 * max([*present, 1e-3]))
    for position, (row, value) in enumerate(zip(info.rows, values, strict=True)):
        if value is None:
            continue
        look = STYLES[row.look] if row.look else None
        color = look.color if look else MUTED
        axes.plot([0, value], [position, position], color=GRID, linewidth=3, zorder=1)
        axes.plot(
            [value],
            [position],
            color=color,
            marker=look.marker if look else "o",
            markersize=6,
            markeredgecolor=PAPER,
            zorder=3,
        )
        axes.annotate(
            number(value),
            (value, position),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            size=8,
            color=color,
        )
