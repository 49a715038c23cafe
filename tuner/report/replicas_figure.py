"""Plots of a capacity plan: replicas against rate for each promise, and through a trace's day."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuner.report.canvas import (
    LIMIT,
    MUTED,
    PAPER,
    STYLES,
    Style,
    count_axis,
    log_scale,
    new_figure,
    plain,
    style,
    to_files,
)
from tuner.report.wording import clip, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HOUR_S = 3600.0

LEGEND: dict[str, Any] = {
    "frameon": True,
    "facecolor": PAPER,
    "edgecolor": "none",
    "framealpha": 0.9,
}


def plan_plots(plan: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    """Draw a plan; SVG text and PNG by file name without ending. Takes what `--json` prints."""
    with style():
        plots = {"replicas": to_files(draw_replicas(plan))}
        if plan["trace"] is not None:
            plots["trace"] = to_files(draw_trace(plan))
    return plots


def draw_replicas(plan: Mapping[str, Any]) -> "Figure":
    """Draw a line for every promise that a configuration keeps."""
    balancer = plan["balancer"].replace("-", " ")
    spare = f", {plan['spare']} to spare" if plan["spare"] else ""
    figure = new_figure(
        f"Replicas by rate: {clip(plan['scenario'], 60)}",
        f"Balancer {balancer}, gaps of cv {plan['cv']:g}{spare}. "
        "By simulation on the run's own measurements.",
        4.2,
    )
    axes = figure.subplots()
    kept = [promise for promise in plan["promises"] if promise["table"]]
    for promise, look in zip(kept, STYLES.values(), strict=False):
        _draw_promise(axes, promise, look)
    numbers = [row["replicas"] for promise in kept for row in promise["table"]]
    _rate_axis(axes)
    log_scale(axes, max(0.7, 0.8 * min(numbers)), 1.3 * max(numbers))
    planned: dict[str, Any] = {
        "color": LIMIT,
        "linewidth": 1.2,
        "linestyle": (0, (6, 3)),
        "zorder": 1.5,
    }
    axes.axvline(plan["planned_rps"], **planned)
    axes.annotate(
        f"planned: {number(plan['planned_rps'])}/s",
        (plan["planned_rps"], 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(4, -2),
        textcoords="offset points",
        va="top",
        color=LIMIT,
        size=8.5,
        weight="bold",
    )
    axes.set_xlabel("Requests a second, all replicas together")
    axes.set_ylabel("Replicas")
    axes.legend(loc="lower right", fontsize=8, **LEGEND)
    return figure


def _draw_promise(axes: "Axes", promise: Mapping[str, Any], look: Style) -> None:
    table = promise["table"]
    axes.plot(
        [row["rate_rps"] for row in table],
        [row["replicas"] for row in table],
        color=look.color,
        linestyle=look.dash,
        linewidth=look.width,
        marker=look.marker,
        markersize=4,
        markeredgecolor=PAPER,
        label=plain(clip(f"{promise['promise']} · {promise['config']}", 76)),
    )


def draw_trace(plan: Mapping[str, Any]) -> "Figure":
    """Draw the replicas that follow a trace, those for its peak, and the rate below them."""
    trace = plan["trace"]
    figure = new_figure(
        f"Replicas through the trace: {clip(plan['scenario'], 60)}",
        f"Following the load takes {trace['follow']['replica_hours']:,.0f} replica-hours, "
        f"the peak all along {trace['steady']['replica_hours']:,.0f}.",
        4.2,
    )
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    edges = _edges(trace["intervals"])
    follow, steady = STYLES["recommended"], STYLES["default"]
    numbers = [row["replicas"] for row in trace["intervals"]]
    upper.stairs(
        numbers, edges, baseline=None, color=follow.color, linewidth=2, label="following the load"
    )
    upper.axhline(
        trace["steady"]["replicas"],
        color=steady.color,
        linewidth=1.8,
        linestyle=(0, (5, 1.5)),
        label="for the peak, all along",
    )
    upper.set_ylim(0, 1.18 * max(numbers))
    upper.set_ylabel("Replicas")
    upper.legend(loc="lower right", fontsize=8, **LEGEND)
    rates = [row["rate_rps"] for row in trace["intervals"]]
    lower.stairs(rates, edges, baseline=None, color=MUTED, linewidth=1.6)
    lower.set_ylim(0, 1.1 * max(rates))
    lower.set_ylabel("Requests/s")
    lower.set_xlabel("Hours from the trace's beginning")
    return figure


def _edges(intervals: Sequence[Mapping[str, float]]) -> list[float]:
    last = intervals[-1]
    starts = [row["starts_s"] / HOUR_S for row in intervals]
    return [*starts, (last["starts_s"] + last["lasts_s"]) / HOUR_S]


def _rate_axis(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    count_axis(axes)
