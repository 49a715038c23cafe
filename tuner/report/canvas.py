"""The one visual language of the plots: colours, markers, type, axes, and the two file formats.

matplotlib is imported when something is drawn and not before: it takes half a second. Figures
are built through its object-oriented interface, which has no global state and needs no display.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.report.curves import Look
from tuner.report.wording import clip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2328"
MUTED = "#5b646e"
GRID = "#e4e7eb"
PAPER = "#fffffe"
POINT = "#9aa3ad"
FRONT = "#b9dfd2"
LIMIT = "#a4133c"

OVERLOADED = 6.0
"""Latencies above this multiple of the limit (or of the front's worst, where there is none) say
only `overloaded`, and would flatten the rest."""

WIDTH_IN = 7.6
"""Width of every plot; with its type of 9 points it stays legible at the width of a column."""


@dataclass(frozen=True, slots=True)
class Style:
    """How one curve looks; colour, marker and dash all differ, so that grey print is enough."""

    color: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]] = "-"
    width: float = 1.6

    def line(self, *, markersize: float = 5, edge: float = 0.7) -> dict[str, Any]:
        """How matplotlib draws a curve of this look, with its markers set off by paper."""
        return {
            "color": self.color,
            "linestyle": self.dash,
            "linewidth": self.width,
            "marker": self.marker,
            "markersize": markersize,
            "markeredgecolor": PAPER,
            "markeredgewidth": edge,
        }


STYLES: dict[Look, Style] = {
    "recommended": Style("#d55e00", "D", width=2.2),
    "default": Style("#0072b2", "o", width=1.8),
    "off": Style("#4d4d4c", "s", width=1.8),
    "front-1": Style("#009e73", "^", (0, (5, 1.5))),
    "front-2": Style("#b07aa1", "v", (0, (3, 1.5))),
    "front-3": Style("#c88a00", "P", (0, (1.5, 1))),
}
"""Okabe and Ito's colours, two of them darkened to keep contrast on white."""

_RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw everything inside with the project's look."""
    import matplotlib as mpl  # noqa: PLC0415 (see the module's docstring)

    with mpl.rc_context({**_RC, "svg.hashsalt": "tuner"}):
        yield


def new_figure(title: str, subtitle: str, height_in: float) -> "Figure":
    """Make an empty figure with a heading; axes are laid out in the room below it."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    below = (0.006, 0.01, 0.982, 0.99 - 0.56 / height_in)
    layout = ConstrainedLayoutEngine(rect=below, w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(WIDTH_IN, height_in), layout=layout)
    top = 1 - 0.1 / height_in
    figure.text(0.012, top, plain(title), size=11.5, weight="bold", va="top")
    second = top - 0.235 / height_in
    figure.text(0.012, second, clip(plain(subtitle), 112), size=8.5, color=MUTED, va="top")
    return figure


def log_scale(axes: "Axes", low: float, high: float) -> None:
    """Give the y axis a logarithmic scale from `low` to `high` with ticks in plain digits."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    axes.set_yscale("log")
    axes.set_ylim(low, high)
    subs = (1.0, 2.0, 5.0) if high / low > 20 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def count_axis(axes: "Axes") -> None:
    """Write the x axis in plain digits, thousands apart, as the text around the plot does."""
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def limit_line(axes: "Axes", limit: float) -> None:
    """Draw the SLO's limit across the axes, with its words in the margin to the right."""
    axes.axhline(limit, color=LIMIT, linewidth=1.2, linestyle=(0, (6, 3)), zorder=2.5)
    axes.annotate(
        f"SLO\n{limit:g} ms",
        (1, limit),
        xycoords=axes.get_yaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=LIMIT,
        size=8.5,
        weight="bold",
        annotation_clip=False,
    )


def plain(text: str) -> str:
    """Replace what the plot's font may lack; the page shows every name as it is."""
    shown = text.replace("\u00a0", " ")
    return "".join(
        char if char.isprintable() and (ord(char) < 0x250 or char in "–—…≤≥−·×→µ") else "?"  # noqa: RUF001
        for char in shown
    )


def to_files(figure: "Figure") -> tuple[str, bytes]:
    """Render as SVG text and as PNG sharp enough for print, the same for the same data.

    The layout is settled for the first and kept for the second: one picture, at less cost.
    """
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "tuner"})
    figure.set_layout_engine("none")
    figure.savefig(png, format="png", dpi=200, metadata={"Software": "tuner"})
    return svg.getvalue(), png.getvalue()
