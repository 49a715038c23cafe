"""All plots of a report: which there are, what each says, and why one may be missing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.report.batch_figure import BatchInfo, batch_info, draw_batches
from tuner.report.canvas import style, to_files
from tuner.report.front_figure import FrontInfo, draw_front, front_info
from tuner.report.load_figure import draw_load, load_info
from tuner.report.percentile_figure import draw_percentiles, percentile_info
from tuner.report.run import Run
from tuner.report.timeline_figure import draw_timeline, timeline_info
from tuner.slo import percentile_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_NAMES = ("front", "load", "percentiles", "batches", "timeline")
"""File names, without ending, of all the plots that a report may have."""

_LOAD_CAPTION = (
    "Where a line crosses the SLO, the configuration is at its limit; plan with the load left of "
    "it. A line that leaves the top is overloaded. Latency counts from the moment a request was "
    "due, so queueing in front of a stalled server is part of it."
)

_PERCENTILES_CAPTION = (
    "Recommended and default at the nearest loads that both were measured at, and the recommended "
    "at its own sustainable rate. The axis is stretched to the right, so that the slowest "
    "requests, which a promise is about, can be told apart."
)


_TIMELINE_CAPTION = (
    "Offered is what was due in a window, answered is what came back in it: where answered stays "
    "below, requests wait. Latency belongs to the window in which its request was due."
)


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot in both formats, with the words that go with it."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes


def render_plots(run: Run) -> tuple[Plot, ...]:
    """Draw every plot that the run has data for, in the order of FIGURE_NAMES."""
    with style():
        return tuple(_plots(run))


def _plots(run: Run) -> Iterator[Plot]:
    if (front := front_info(run)) is not None:
        title = f"Throughput against {percentile_label(run.percentile)}"
        yield _plot("front", title, _front_caption(front), draw_front(front))
    if (load := load_info(run)) is not None:
        yield _plot("load", "Latency against offered load", _LOAD_CAPTION, draw_load(load))
    if (percentiles := percentile_info(run)) is not None:
        drawing = draw_percentiles(percentiles)
        yield _plot("percentiles", "Latency by percentile", _PERCENTILES_CAPTION, drawing)
    if (batches := batch_info(run)) is not None:
        title = "Batches as the server counted them"
        yield _plot("batches", title, _batches_caption(batches), draw_batches(batches))
    if (timeline := timeline_info(run)) is not None:
        yield _plot("timeline", "The load over time", _TIMELINE_CAPTION, draw_timeline(timeline))


def _front_caption(info: FrontInfo) -> str:
    count = len(info.off_scale)
    beyond = (
        f" {count} overloaded {'point lies' if count == 1 else 'points lie'} above the axis."
        if count
        else ""
    )
    return (
        "Right is more load, down is faster. The band joins the points that no other beats in "
        f"both; right of and above it lies what was not reached.{beyond} Valid open-loop "
        "measurements only; closed-loop peaks are in the table of trials."
    )


def _batches_caption(info: BatchInfo) -> str:
    shown = (
        f"The {len(info.rows)} best configurations; {info.left_out} more are not shown. "
        if info.left_out
        else ""
    )
    return (
        f"{shown}Full batches with little queueing are what batching is for. A long queue with "
        "small batches says that the timeout, not the load, sets the latency."
    )


def _plot(name: str, title: str, caption: str, figure: "Figure") -> Plot:
    return Plot(name, title, caption, *to_files(figure))
