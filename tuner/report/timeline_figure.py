"""One load over time, window by window: what was offered, what was answered, and how late."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.report.canvas import MUTED, STYLES, count_axis, limit_line, log_scale, new_figure
from tuner.report.run import Run
from tuner.report.wording import server_words
from tuner.slo import percentile_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOWS = "windows.jsonl"

_HOUR_S = 3600.0
_IN_HOURS = 3 * _HOUR_S
"""From this length on the axis counts hours."""


@dataclass(frozen=True, slots=True)
class TimelineInfo:
    """What the plot shows, in columns with an entry a window; `middle_s` is its middle.

    Latencies are NaN where a window has too few requests for the percentile.
    """

    server: str
    percentile: str
    limit_ms: float | None
    middle_s: tuple[float, ...]
    offered_rps: tuple[float, ...]
    answered_rps: tuple[float, ...]
    median_ms: tuple[float, ...]
    tail_ms: tuple[float, ...]


def timeline_info(run: Run) -> TimelineInfo | None:
    """Collect the plot's data; None where no trial of the run was one long load."""
    windows = [] if run.directory is None else read_windows(run.directory)
    if len(windows) < 2:
        return None
    measured = [window["measurement"] for window in windows]

    def latencies(name: str) -> tuple[float, ...]:
        found = (one["percentiles_ms"].get(name) for one in measured)
        return tuple(float("nan") if value is None else float(value) for value in found)

    return TimelineInfo(
        server=server_words(run),
        percentile=run.percentile,
        limit_ms=run.limit_ms,
        middle_s=tuple(
            window["from_s"] + window["measurement"]["window_s"] / 2 for window in windows
        ),
        offered_rps=tuple(float(one["offered_rps"] or 0.0) for one in measured),
        answered_rps=tuple(float(one["throughput_rps"]) for one in measured),
        median_ms=latencies("p50"),
        tail_ms=latencies(run.percentile),
    )


def read_windows(directory: Path) -> list[dict[str, Any]]:
    """The windows of the run's long load, in order; one that was cut short by a crash is none."""
    windows: list[dict[str, Any]] = []
    for path in sorted(directory.glob(f"trials/*/{WINDOWS}"))[:1]:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                windows.append(json.loads(line))
            except ValueError:
                break
    return windows


def draw_timeline(info: TimelineInfo) -> "Figure":
    """Draw the plot."""
    figure = new_figure(
        "The load over time", f"{info.server}. Each point is one window of an open loop.", 5.2
    )
    above, below = figure.subplots(2, 1, sharex=True)
    hours = info.middle_s[-1] > _IN_HOURS
    at = [moment / _HOUR_S if hours else moment for moment in info.middle_s]
    offered, answered = STYLES["default"], STYLES["recommended"]
    above.plot(at, info.answered_rps, color=answered.color, linewidth=3.0, label="answered")
    # In dashes on top, since the two lie on each other while the server keeps up.
    dashes = (0, (4, 2))
    above.plot(at, info.offered_rps, color=offered.color, linestyle=dashes, label="offered")
    above.set_ylim(bottom=0)
    above.set_ylabel("Requests/s")
    above.legend(loc="best", labelcolor=MUTED, fontsize=8)
    shown = [value for value in (*info.median_ms, *info.tail_ms) if value == value]  # noqa: PLR0124 - not NaN
    if shown:
        log_scale(below, min(shown) / 1.3, 1.3 * max([*shown, info.limit_ms or 0.0]))
    tail = percentile_label(info.percentile)
    below.plot(at, info.median_ms, color=STYLES["off"].color, label="p50, the median")
    if info.percentile != "p50":
        below.plot(at, info.tail_ms, color=answered.color, linewidth=answered.width, label=tail)
    below.set_ylabel("Latency (ms, log scale)")
    below.set_xlabel("Time from the start (hours)" if hours else "Time from the start (s)")
    below.legend(loc="best", labelcolor=MUTED, fontsize=8)
    count_axis(below)
    if info.limit_ms is not None:
        limit_line(below, info.limit_ms)
    return figure
