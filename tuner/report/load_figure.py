"""Latency against offered load: how each configuration of the front bends as load rises."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.report.canvas import (
    MUTED,
    OVERLOADED,
    STYLES,
    count_axis,
    limit_line,
    log_scale,
    new_figure,
)
from tuner.report.curves import Curve, contender_curves, front_curves
from tuner.report.run import Run
from tuner.report.wording import server_words
from tuner.slo import percentile_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class LoadInfo:
    """What the plot shows: the same curves in two panels, the median and the SLO's percentile."""

    server: str
    percentiles: tuple[str, str]
    limit_ms: float | None
    curves: tuple[Curve, ...]
    bottom_ms: float
    top_ms: float
    most_rps: float


def load_info(run: Run) -> LoadInfo | None:
    """Collect the plot's data; None where no curve has a point."""
    curves = (*front_curves(run), *contender_curves(run))
    percentiles = ("p50", run.percentile)
    latencies = [
        latency
        for curve in curves
        for point in curve.points
        for percentile in percentiles
        if (latency := point.latency_ms(percentile)) is not None
    ]
    if not latencies:
        return None
    limit = run.limit_ms
    top = 1.3 * max([*latencies, limit or 0.0])
    if limit is not None:
        tails = [point.latency_ms(run.percentile) for curve in curves for point in curve.points]
        nearest = min((latency for latency in tails if latency is not None), default=limit)
        top = min(top, OVERLOADED * max(limit, nearest))
    reached = [
        point.measurement.offered_rps or 0.0
        for curve in curves
        for point in curve.points
        if (latency := point.latency_ms(run.percentile)) is not None and latency <= top
    ]
    return LoadInfo(
        server=server_words(run),
        percentiles=percentiles,
        limit_ms=limit,
        curves=curves,
        bottom_ms=min(latencies) / 1.3,
        top_ms=top,
        most_rps=max(reached, default=1.0),
    )


def draw_load(info: LoadInfo) -> "Figure":
    """Draw the plot."""
    figure = new_figure(
        "Latency against offered load",
        f"{info.server}. Open loop, each line one server start.",
        4.5,
    )
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, percentile in zip(panels, info.percentiles, strict=True):
        log_scale(axes, info.bottom_ms, info.top_ms)
        axes.set_title(
            "p50, the median" if percentile == "p50" else percentile_label(percentile),
            weight="bold",
        )
        count_axis(axes)
        axes.set_xlabel("Offered load (requests/s)")
        for curve in info.curves:
            _draw_curve(axes, curve, percentile)
    panels[0].set_xlim(0, 1.06 * info.most_rps)
    panels[0].set_ylabel("Latency (ms, log scale)")
    panels[1].tick_params(labelleft=False)
    if info.limit_ms is not None:
        limit_line(panels[1], info.limit_ms)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        names[::-1],
        loc="outside lower center",
        ncols=min(3, len(names)),
        labelcolor=MUTED,
        fontsize=8,
        handlelength=3.2,
    )
    return figure


def _plotted(curve: Curve, percentile: str) -> tuple[list[float], list[float]]:
    points = [
        (point.measurement.offered_rps or 0.0, latency)
        for point in curve.points
        if (latency := point.latency_ms(percentile)) is not None
    ]
    return [load for load, _ in points], [latency for _, latency in points]


def _draw_curve(axes: "Axes", curve: Curve, percentile: str) -> None:
    look = STYLES[curve.look]
    axes.plot(
        *_plotted(curve, percentile),
        **look.line(markersize=4.5, edge=0.6),
        zorder=3 if curve.look.startswith("front") else 4,
        label=curve.name,
    )
