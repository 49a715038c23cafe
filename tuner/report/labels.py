"""Labels beside the curves they name: placed where they cover the least."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuner.report.canvas import PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_DIRECTIONS = (
    (1, 0),
    (-1, 0),
    (0.7, -0.7),
    (-0.7, 0.7),
    (0.7, 0.7),
    (-0.7, -0.7),
    (0, 1),
    (0, -1),
)
_DISTANCES_PT = (9.0, 16.0, 26.0, 38.0)
_STEP_PX = 4.0
_LATER_ANCHOR = 2.0


class LabelPlacer:
    """Places labels on one axes, each where it covers the fewest marks and no other label.

    Limits, axis labels and legend must be final: the layout is settled here, once, since places
    in pixels mean nothing before. A candidate place costs what it covers and how far it is
    from its anchor; the cheapest wins, with ties broken by order, so that the same data gives
    the same picture.
    """

    def __init__(self, axes: "Axes") -> None:
        figure = axes.figure
        figure.draw_without_rendering()  # type: ignore[union-attr]
        figure.set_layout_engine("none")  # type: ignore[union-attr]
        self._axes = axes
        self._marks: list[NDArray[np.float64]] = []
        self._taken: list[Bbox] = []

    def avoid_points(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Keep labels off these points, given in data coordinates."""
        if len(x):
            self._marks.append(self._axes.transData.transform(np.column_stack([x, y])))

    def avoid_line(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Keep labels off the line through these points, given in data coordinates."""
        if len(x):
            self._marks.append(_densify(self._axes.transData.transform(np.column_stack([x, y]))))

    def avoid_level(self, y: float) -> None:
        """Keep labels off a horizontal line across the axes."""
        low, high = self._axes.get_xlim()
        self.avoid_line([low, high], [y, y])

    def place(self, text: str, anchors: Sequence[tuple[float, float]], color: str) -> None:
        """Write `text` beside one of `anchors` (data coordinates, the best first)."""
        import matplotlib.patheffects as effects  # noqa: PLC0415 (drawing only)

        label: Any = self._axes.annotate(
            text,
            anchors[0],
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=color,
            size=8.5,
            weight="bold",
            linespacing=1.25,
            zorder=7,
            annotation_clip=False,
            path_effects=[effects.withStroke(linewidth=2.5, foreground=PAPER)],
        )
        box = label.get_window_extent()
        pixels = self._axes.figure.dpi / 72
        marks = np.concatenate(self._marks) if self._marks else np.empty((0, 2))
        anchor, offset = min(
            self._candidates(anchors, box.width / pixels, box.height / pixels),
            key=lambda place: self._cost(place, anchors, box, pixels, marks),
        )
        label.xy = anchor
        label.set_position(offset)
        self._taken.append(self._box(anchor, offset, box, pixels))

    @staticmethod
    def _candidates(
        anchors: Sequence[tuple[float, float]], width: float, height: float
    ) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        return [
            (anchor, (dx * (distance + width / 2), dy * (distance + height / 2)))
            for anchor in anchors
            for distance in _DISTANCES_PT
            for dx, dy in _DIRECTIONS
        ]

    def _box(
        self, anchor: tuple[float, float], offset: tuple[float, float], box: "Bbox", pixels: float
    ) -> "Bbox":
        from matplotlib.transforms import Bbox  # noqa: PLC0415 (drawing only)

        x, y = self._axes.transData.transform(anchor) + np.multiply(offset, pixels)
        return Bbox.from_bounds(x - box.width / 2, y - box.height / 2, box.width, box.height)

    def _cost(
        self,
        place: tuple[tuple[float, float], tuple[float, float]],
        anchors: Sequence[tuple[float, float]],
        box: "Bbox",
        pixels: float,
        marks: NDArray[np.float64],
    ) -> float:
        anchor, offset = place
        there = self._box(anchor, offset, box, pixels).padded(3 * pixels)
        frame = self._axes.get_window_extent()
        outside = not (
            frame.x0 <= there.x0
            and there.x1 <= frame.x1
            and frame.y0 <= there.y0
            and there.y1 <= frame.y1
        )
        covered = int(
            np.count_nonzero(
                (marks[:, 0] > there.x0)
                & (marks[:, 0] < there.x1)
                & (marks[:, 1] > there.y0)
                & (marks[:, 1] < there.y1)
            )
        )
        overlaps = sum(there.overlaps(taken) for taken in self._taken)
        distance = float(np.hypot(*offset))
        return (
            1000.0 * outside
            + 500.0 * overlaps
            + 3.0 * covered
            + 0.1 * distance
            + _LATER_ANCHOR * anchors.index(anchor)
        )


def _densify(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put points every few pixels along a line: counting them measures covered length."""
    pieces = [line[:1]]
    for start, end in pairwise(line):
        steps = max(int(np.hypot(*(end - start)) / _STEP_PX), 1)
        pieces.append(start + (end - start) * (np.arange(1, steps + 1) / steps)[:, None])
    return np.concatenate(pieces)
