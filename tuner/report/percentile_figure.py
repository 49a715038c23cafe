"""The percentile curve: the whole latency distribution of the recommended beside the default's."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import StoreError
from tuner.measure.histogram import LatencyHistogram, read_log
from tuner.report.canvas import INK, LIMIT, PAPER, STYLES, log_scale, new_figure
from tuner.report.curves import Curve, Look, contender_curves
from tuner.report.run import LoadPoint, Run
from tuner.report.wording import rate, server_words
from tuner.slo import PERCENTILES, percentile_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPARABLE = 1.15
"""Two loads within this factor of one another are called comparable."""

_SAMPLES_BEYOND = 10
"""A percentile is shown only where this many samples lie beyond it."""

TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)


@dataclass(frozen=True, slots=True)
class PercentileCurve:
    """One load level's distribution: (share of requests, latency in ms), rising in both.

    `at_limit` says that the load is the configuration's sustainable rate, not the comparable one.
    """

    name: str
    look: Look
    offered_rps: float
    at_limit: bool
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class PercentileInfo:
    """What the plot shows. `limits` are the SLO's, as (share of requests, ms)."""

    server: str
    curves: tuple[PercentileCurve, ...]
    limits: tuple[tuple[float, float], ...]


def percentile_info(run: Run) -> PercentileInfo | None:
    """Collect the plot's data; None where the recommended has no valid level, or there is none."""
    curves = contender_curves(run)
    recommended = next((c for c in curves if run.recommended_id in c.config_ids), None)
    if recommended is None or not run.answered:
        return None
    default = next((curve for curve in curves if curve.look == "default"), None)
    chosen = tuple(
        curve
        for point, owner, at_limit in _chosen(recommended, default)
        if len((curve := _curve(run, point, owner, at_limit=at_limit)).points) > 1
    )
    limits = tuple((PERCENTILES[name], limit) for name, limit in run.slo.limits_ms)
    return PercentileInfo(server_words(run), chosen, limits) if chosen else None


def _chosen(recommended: Curve, default: Curve | None) -> Iterator[tuple[LoadPoint, Curve, bool]]:
    reference = recommended.reference
    if default is None:
        yield reference or recommended.points[-1], recommended, reference is not None
        return
    ours, theirs = comparable_levels(recommended, default)
    yield theirs, default, False
    yield ours, recommended, ours is reference
    if reference is not None and reference is not ours:
        yield reference, recommended, True


def comparable_levels(first: Curve, second: Curve) -> tuple[LoadPoint, LoadPoint]:
    """Pick one level of each at loads within COMPARABLE of one another.

    The highest load at which `second` kept the SLO; without one, the levels whose loads are
    nearest.
    """
    pairs = [(ours, theirs) for ours in first.points for theirs in second.points]
    near = [
        (ours, theirs)
        for ours, theirs in pairs
        if theirs.level.verdict.feasible and _ratio(ours, theirs) <= COMPARABLE
    ]
    if near:
        return max(near, key=lambda pair: (_load(pair[1]), -_ratio(*pair)))
    return min(pairs, key=lambda pair: _ratio(*pair))


def _load(point: LoadPoint) -> float:
    return point.measurement.offered_rps or 0.0


def _ratio(first: LoadPoint, second: LoadPoint) -> float:
    low, high = sorted((_load(first), _load(second)))
    return high / low if low > 0 else float("inf")


def _curve(run: Run, point: LoadPoint, owner: Curve, *, at_limit: bool) -> PercentileCurve:
    return PercentileCurve(
        owner.name, owner.look, _load(point), at_limit, _distribution(run, point)
    )


def _distribution(run: Run, point: LoadPoint) -> tuple[tuple[float, float], ...]:
    """Read the level's histogram, or fall back on the percentiles of its record."""
    histogram = _histogram(run.directory, point.level.histogram)
    if histogram is None or histogram.count <= _SAMPLES_BEYOND:
        return tuple(
            (PERCENTILES[name], latency)
            for name, latency in point.measurement.percentiles_ms.items()
            if latency is not None
        )
    highest = 1 - _SAMPLES_BEYOND / histogram.count
    shares = tuple(float(share) for share in 1 - np.geomspace(1, 1 - highest, 160))
    latencies = histogram.percentiles_ms(shares)
    return tuple(
        (share, latency)
        for share, latency in zip(shares, latencies, strict=True)
        if latency is not None
    )


def _histogram(directory: Path | None, name: str | None) -> LatencyHistogram | None:
    if directory is None or name is None:
        return None
    try:
        return read_log(directory / name)
    except StoreError:
        return None  # a run copied without its histograms still has its recorded percentiles


def draw_percentiles(info: PercentileInfo) -> "Figure":
    """Draw the plot; its x axis gives each further nine the same room."""
    figure = new_figure(
        "Latency by percentile",
        f"{info.server}. Open loop, {_SAMPLES_BEYOND} samples or more beyond each end.",
        4.2,
    )
    axes = figure.add_subplot()
    values = [latency for curve in info.curves for _, latency in curve.points]
    values += [limit for _, limit in info.limits]
    log_scale(axes, min(values) / 1.25, max(values) * 1.35)
    last = max(
        [share for curve in info.curves for share, _ in curve.points]
        + [share for share, _ in info.limits]
    )
    _percentile_axis(axes, last)
    axes.set_ylabel("Latency (ms, log scale)")
    for curve in info.curves:
        _draw_curve(axes, curve)
    for share, limit in info.limits:
        _draw_limit(axes, share, limit)
    # A distribution rises to the right, so this corner is empty whatever was measured.
    axes.legend(loc="lower right", handlelength=3.4, labelcolor=INK, borderaxespad=1.0)
    return figure


def _nines(share: float) -> float:
    return float(-np.log10(1 - share))


def _percentile_name(share: float) -> str:
    return next(percentile_label(name) for name, value in PERCENTILES.items() if value == share)


def _percentile_axis(axes: "Axes", last: float) -> None:
    end = _nines(last)
    ticks = [share for share in TICKS if _nines(share) <= end + 0.1]
    axes.set_xlim(0, end + 0.12)
    axes.set_xticks([_nines(share) for share in ticks], [f"{100 * share:g}" for share in ticks])
    axes.set_xlabel("Percentile of requests (%)")


def _plotted(curve: PercentileCurve) -> tuple[list[float], list[float]]:
    return [_nines(share) for share, _ in curve.points], [ms for _, ms in curve.points]


def _draw_curve(axes: "Axes", curve: PercentileCurve) -> None:
    look = STYLES[curve.look]
    x, y = _plotted(curve)
    axes.plot(
        x,
        y,
        color=look.color,
        linewidth=look.width,
        linestyle=(0, (4, 1.5)) if curve.at_limit else "-",
        marker=look.marker,
        markevery=max(len(x) // 8, 1),
        markersize=5,
        markeredgecolor=PAPER,
        markeredgewidth=0.7,
        zorder=3,
        label=curve_words(curve),
    )


def _draw_limit(axes: "Axes", share: float, limit: float) -> None:
    axes.plot(
        [_nines(share)],
        [limit],
        color=LIMIT,
        marker="v",
        markersize=9,
        linestyle="",
        zorder=5,
        label=f"SLO: {_percentile_name(share)} ≤ {limit:g} ms",
    )


def curve_words(curve: PercentileCurve) -> str:
    if curve.at_limit:
        return f"{curve.name}, {rate(curve.offered_rps)} sustained"
    return f"{curve.name} at {rate(curve.offered_rps)}"
