"""The Pareto fronts of several runs in one plot."""

from typing import TYPE_CHECKING

from tuner.report.beside import Comparison
from tuner.report.canvas import (
    MUTED,
    OVERLOADED,
    STYLES,
    count_axis,
    limit_line,
    log_scale,
    new_figure,
    plain,
)
from tuner.report.curves import Look
from tuner.report.wording import clip, promise_of
from tuner.slo import percentile_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS: tuple[Look, ...] = ("recommended", "default", "front-1", "off", "front-2", "front-3")
"""How the runs look, in the order given: the looks that are most unlike first."""


def draw_fronts(comparison: Comparison) -> "Figure":
    """Draw every run's front: throughput against the percentile that all of them carry."""
    label = percentile_label(comparison.percentile)
    limit = dict(comparison.runs[0].slo.limits_ms).get(comparison.percentile)
    figure = new_figure(
        f"Throughput against {label} latency, {len(comparison.runs)} runs",
        f"The Pareto front of each. The promise of all: {promise_of(comparison.runs[0])}.",
        4.5,
    )
    axes = figure.add_subplot()
    fronts = [
        [
            (point.measurement.throughput_rps, point.latency_ms(comparison.percentile) or 0.0)
            for point in comparison.front(index)
        ]
        for index in range(len(comparison.runs))
    ]
    low, high = latency_range([at for front in fronts for _, at in front], limit)
    log_scale(axes, low, high)
    count_axis(axes)
    axes.set_xlabel("Throughput (requests/s)")
    axes.set_ylabel(f"{label} latency (ms, log scale)")
    for name, look, front in zip(comparison.names, LOOKS, fronts, strict=False):
        shown = STYLES[look]
        axes.plot(
            *zip(*front, strict=True),
            **shown.line(),
            label=clip(plain(name), 60),
        )
    axes.set_xlim(left=0)
    if limit is not None:
        limit_line(axes, limit)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", labelcolor=MUTED, fontsize=8)
    return figure


def latency_range(latencies: list[float], limit: float | None) -> tuple[float, float]:
    """From where to where the latency axis reaches: the limit and all that lies near it."""
    lowest = min([limit or latencies[0], *latencies])
    highest = max(1.35 * max(latencies), 1.6 * (limit or 0.0))
    return lowest / 1.5, min(highest, OVERLOADED * limit) if limit else highest
