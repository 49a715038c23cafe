"""Throughput against tail latency: every point measured, the front, the contenders, the SLO."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.report.canvas import (
    FRONT,
    MUTED,
    OVERLOADED,
    PAPER,
    POINT,
    STYLES,
    Style,
    count_axis,
    limit_line,
    log_scale,
    new_figure,
)
from tuner.report.curves import Curve, contender_curves
from tuner.report.labels import LabelPlacer
from tuner.report.run import LoadPoint, Run
from tuner.report.tables import front_points
from tuner.report.wording import milliseconds, promise_of, rate, server_words
from tuner.slo import percentile_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class FrontInfo:
    """What the plot shows; points are (throughput in requests/s, latency in ms).

    `off_scale` holds throughputs whose latency lies above `top_ms` or among failed requests.
    """

    percentile: str
    promise: str
    server: str
    limit_ms: float | None
    feasible: Points
    undecided: Points
    infeasible: Points
    front: Points
    off_scale: tuple[float, ...]
    bottom_ms: float
    top_ms: float
    contenders: tuple[Curve, ...]


def front_info(run: Run) -> FrontInfo | None:
    """Collect the plot's data; None where no valid open-loop point exists."""
    percentile, limit = run.percentile, run.limit_ms
    points = run.open_points
    front = _coordinates(front_points(run), percentile)
    if not front:
        return None
    # Where all of it misses the limit by far, its nearest load is shown all the same.
    near = [latency for _, latency in front if _near(latency, limit)]
    worst = max([limit or 0.0, *(near or [min(latency for _, latency in front)])])
    highest = max(latency for _, latency in _coordinates(points, percentile))
    top = min(max(1.35 * highest, 1.6 * (limit or 0.0)), OVERLOADED * (worst or highest))
    lowest = min([limit or front[0][1], front[0][1]])
    by_verdict = {
        verdict: _coordinates(
            (point for point in points if point.level.verdict.feasible is verdict), percentile
        )
        for verdict in (True, None, False)
    }
    return FrontInfo(
        percentile=percentile,
        promise=promise_of(run),
        server=server_words(run),
        limit_ms=limit,
        feasible=_below(by_verdict[True], top),
        undecided=_below(by_verdict[None], top),
        infeasible=_below(by_verdict[False], top),
        front=_below(front, top),
        off_scale=tuple(
            point.measurement.throughput_rps
            for point in points
            if (latency := point.latency_ms(percentile)) is None or latency > top
        ),
        bottom_ms=lowest / 1.5,
        top_ms=top,
        contenders=contender_curves(run),
    )


def _near(latency: float, limit: float | None) -> bool:
    return limit is None or latency <= 2 * limit


def _coordinates(points: Iterable[LoadPoint], percentile: str) -> Points:
    return tuple(
        (point.measurement.throughput_rps, latency)
        for point in points
        if (latency := point.latency_ms(percentile)) is not None
    )


def _below(points: Points, top: float) -> Points:
    return tuple(point for point in points if point[1] <= top)


def draw_front(info: FrontInfo) -> "Figure":
    """Draw the plot."""
    label = percentile_label(info.percentile)
    figure = new_figure(
        f"Throughput against {label} latency",
        f"{info.server}. Each point is one configuration at one load.",
        4.5,
    )
    axes = figure.add_subplot()
    log_scale(axes, info.bottom_ms, info.top_ms)
    count_axis(axes)
    axes.set_xlabel("Throughput (requests/s)")
    axes.set_ylabel(f"{label} latency (ms, log scale)")
    axes.set_xlim(0, 1.08 * _widest(info))
    _draw_points(axes, info)
    _draw_front_line(axes, info)
    curves = _draw_contenders(axes, info)
    if info.limit_ms is not None:
        limit_line(axes, info.limit_ms)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), labelcolor=MUTED, fontsize=8
    )
    _label_contenders(axes, info, curves)
    return figure


def _widest(info: FrontInfo) -> float:
    shown = (*info.feasible, *info.undecided, *info.infeasible)
    return max([*(throughput for throughput, _ in shown), *info.off_scale])


def _draw_points(axes: "Axes", info: FrontInfo) -> None:
    for points, marker, face, name in (
        (info.feasible, "o", POINT, "keeps the SLO"),
        (info.undecided, "o", PAPER, "undecided"),
        (info.infeasible, "x", POINT, "misses the SLO"),
    ):
        if points:
            throughputs, latencies = zip(*points, strict=True)
            axes.scatter(
                throughputs,
                latencies,
                s=15,
                marker=marker,
                c=face if marker == "o" else POINT,
                edgecolors=POINT if marker == "o" else None,
                linewidths=0.9,
                zorder=2,
                label=name,
            )
    if info.off_scale:
        axes.scatter(
            info.off_scale,
            [info.top_ms] * len(info.off_scale),
            s=20,
            marker="^",
            c=PAPER,
            edgecolors=POINT,
            linewidths=0.9,
            clip_on=False,
            zorder=2,
            label="above the axis",
        )


def _draw_front_line(axes: "Axes", info: FrontInfo) -> None:
    axes.plot(
        *zip(*info.front, strict=True),
        color=FRONT,
        linewidth=6,
        solid_capstyle="round",
        solid_joinstyle="round",
        zorder=1.5,
        label="Pareto front",
    )


def _draw_contenders(axes: "Axes", info: FrontInfo) -> list[tuple[Curve, Points]]:
    drawn = []
    for curve in info.contenders:
        look = STYLES[curve.look]
        points = _below(_coordinates(curve.points, info.percentile), info.top_ms)
        if not points:
            continue
        axes.plot(
            *zip(*points, strict=True),
            **look.line(),
            zorder=4,
        )
        _ring_reference(axes, curve, info, look)
        drawn.append((curve, points))
    return drawn


def _ring_reference(axes: "Axes", curve: Curve, info: FrontInfo, look: Style) -> None:
    """Make the point at the sustainable rate, which the label speaks of, the largest."""
    reference = curve.reference
    for point in _below(
        _coordinates([reference] if reference else [], info.percentile), info.top_ms
    ):
        axes.plot(
            *([value] for value in point),
            color=look.color,
            marker=look.marker,
            markersize=8.5,
            markeredgecolor=PAPER,
            markeredgewidth=1.0,
            zorder=5,
        )


def _label_contenders(axes: "Axes", info: FrontInfo, drawn: list[tuple[Curve, Points]]) -> None:
    placer = LabelPlacer(axes)
    for points in (info.feasible, info.undecided, info.infeasible):
        placer.avoid_points([at for at, _ in points], [latency for _, latency in points])
    if info.limit_ms is not None:
        placer.avoid_level(info.limit_ms)
    for line in (info.front, *(points for _, points in drawn)):
        placer.avoid_line(*zip(*line, strict=True))
    for curve, points in reversed(drawn):
        placer.place(_words(curve, info), _anchors(curve, points, info), STYLES[curve.look].color)


def _words(curve: Curve, info: FrontInfo) -> str:
    reference = curve.reference
    if reference is None:
        return curve.name
    latency = reference.latency_ms(info.percentile)
    return f"{curve.name}\n{rate(curve.trial.sustainable_rps)} at {milliseconds(latency)}"


def _anchors(curve: Curve, points: Points, info: FrontInfo) -> list[tuple[float, float]]:
    """Where a label may point: the sustainable rate first, then the curve from its end back."""
    reference = curve.reference
    first = _coordinates([reference], info.percentile) if reference else ()
    return [*_below(first, info.top_ms), *reversed(points)]
