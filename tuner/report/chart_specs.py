"""The run page's interactive charts, as Vega-Lite specifications without their data."""

from tuner.report.vega import (
    COLOURS,
    DASHES,
    ELSEWHERE,
    QUEUEING,
    RUNNING,
    SHAPES,
    TICKS,
    UNSPLIT,
    Spec,
    by_look,
    chart,
    latency,
    limit_line,
    lines,
    quantity,
    where,
)

WAITS = {
    QUEUEING: "var(--off)",
    RUNNING: "var(--recommended)",
    UNSPLIT: "var(--plot-front)",
    ELSEWHERE: "var(--plot-front)",
}
"""Dark is waiting, bright is work, pale is everything around them."""

_STANDINGS = ["keeps the SLO", "undecided", "misses the SLO"]

_APART: Spec = {"scale": {"shape": "independent", "fill": "independent", "color": "independent"}}
"""The standing of a point and the look of a contender are two scales."""


def chart_specs() -> dict[str, Spec]:
    """Every chart by the id of its place in the page."""
    return {
        "front": chart(_front(), 380) | {"resolve": _APART},
        "load": chart(_load(), 340),
        "percentiles": chart(_percentiles(), 340),
        "rows": chart(_rows(), 260),
        "padding": chart(_padding(), 220),
        "waits": chart(_waits(), "{bars}"),
        "progress": chart(_progress(), 260),
    }


def _front() -> list[Spec]:
    x = quantity("answered", "throughput (requests/s)", zero=True)
    y = latency()
    standing = {"field": "standing", "type": "nominal", "sort": None, "title": None}
    at = {"x": x, "y": y}
    return [
        {
            "data": {"name": "front"},
            "mark": {
                "type": "line", "stroke": "var(--plot-front)", "strokeWidth": 9,
                "strokeJoin": "round", "strokeCap": "round", "clip": True,
            },
            "encoding": {**at, "order": {"field": "answered"}},
        },
        *limit_line(),
        {
            "data": {"name": "points"},
            "mark": {"type": "point", "clip": True, "tooltip": {"content": "data"}},
            "encoding": {
                **at,
                "shape": {
                    **standing,
                    "scale": {
                        "domain": _STANDINGS,
                        "range": ["circle", "circle", "M-.8,-.8L.8,.8M-.8,.8L.8,-.8"],
                    },
                },
                "fill": {
                    **standing,
                    "scale": {
                        "domain": _STANDINGS,
                        "range": ["var(--plot-point)", "transparent", "transparent"],
                    },
                },
                "stroke": where("var(--plot-point)", at="var(--ink)", chosen="var(--accent)"),
                "strokeWidth": where(1.6, at=3, chosen=3),
                "size": where(58, at=260, chosen=260),
            },
        },
        {
            "data": {"name": "references"},
            "mark": {"type": "point", "size": 190, "opacity": 1, "stroke": "var(--plot-paper)",
                     "strokeWidth": 1.2, "clip": True, "tooltip": {"content": "data"}},
            "encoding": {
                **at,
                "shape": {**by_look(SHAPES), "legend": None},
                "fill": {**by_look(COLOURS), "legend": None},
            },
        },
        *_names(at),
    ]  # fmt: skip


def _names(at: Spec) -> list[Spec]:
    """The contenders' names where the script found room, on paper of their own to stay legible."""
    mark = {
        "type": "text", "fontWeight": "bold", "lineBreak": "\n", "baseline": "top", "clip": True,
        "dx": {"expr": "datum.dx"}, "dy": {"expr": "datum.dy"}, "tooltip": {"content": "data"},
    }  # fmt: skip
    layer: Spec = {
        "data": {"name": "labels"},
        "encoding": {**at, "text": {"field": "title"}},
    }
    halo = {"stroke": "var(--plot-paper)", "strokeWidth": 5, "strokeJoin": "round"}
    color = {**by_look(COLOURS), "legend": None}
    return [
        {**layer, "mark": {**mark, **halo}},
        {**layer, "mark": mark, "encoding": {**layer["encoding"], "color": color}},
    ]


def _load() -> list[Spec]:
    x = quantity("offered", "offered load (requests/s)", zero=True)
    y = latency()
    return [*limit_line(), *lines("curves", x, y)]


def _rows() -> list[Spec]:
    x = quantity("offered", "offered load (requests/s)", zero=True)
    y = quantity("rows", "rows per batch (mean)", zero=True)
    return lines("batched", x, y)


def _padding() -> list[Spec]:
    x = quantity("offered", "offered load (requests/s)", zero=True)
    y = quantity("padded", "pad rows (% of all that ran)", zero=True)
    return lines("padded", x, y)


def _percentiles() -> list[Spec]:
    x = {
        "field": "nines",
        "type": "quantitative",
        "axis": {
            "title": "percentile of requests (%)",
            "values": "{nines}",
            "labelExpr": "format(100 * (1 - pow(10, -datum.value)), '.5~g')",
        },
    }
    y = {
        "field": "ms",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [{"expr": "least"}, {"expr": "most"}]},
        "axis": {"title": "latency (ms, log scale)", "format": "~r", "tickCount": 6},
    }
    return [
        {
            "data": {"name": "distributions"},
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {
                "x": x,
                "y": y,
                "color": by_look(COLOURS),
                "strokeDash": by_look(DASHES),
            },
        },
        {
            "data": {"name": "promises"},
            "mark": {
                "type": "point", "shape": "triangle-down", "filled": True, "size": 130,
                "color": "var(--plot-limit)", "opacity": 1, "tooltip": {"content": "data"},
            },
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"name": "promises"},
            "mark": {
                "type": "text", "dy": -14, "color": "var(--plot-limit)", "fontWeight": "bold",
            },
            "encoding": {"x": x, "y": y, "text": {"field": "name"}},
        },
        {
            "data": {"name": "distributions"},
            "mark": {
                "type": "point", "size": 120, "strokeWidth": 3, "tooltip": {"content": "data"},
            },
            "encoding": {"x": x, "y": y, "stroke": where("transparent", at="var(--ink)")},
        },
    ]  # fmt: skip


_SHORT = "width < 400 ? replace(datum.label, regexp(': .*'), '') : datum.label"
"""Where there is no room for a contender's settings, its name says which it is."""


def _waits() -> list[Spec]:
    y: Spec = {"field": "label", "type": "nominal", "sort": None, "axis": None}
    return [
        {
            "data": {"name": "waits"},
            "mark": {"type": "bar", "height": 14, "yOffset": 9, "tooltip": {"content": "data"}},
            "encoding": {
                "y": y,
                "x": {
                    "field": "ms", "type": "quantitative", "stack": "zero",
                    "axis": {"title": "mean latency (ms), split", "format": ",~r",
                             "tickCount": TICKS},
                },
                "color": {
                    "field": "part", "type": "nominal", "sort": None,
                    "scale": {
                        "domain": "{parts}",
                        "range": {"byPart": WAITS},
                    },
                },
                "order": {"field": "order"},
            },
        },
        {
            "data": {"name": "waits"},
            "transform": [{"filter": "datum.order === 0"}],
            "mark": {"type": "text", "align": "left", "dx": 3, "dy": -8, "x": 0,
                     "limit": {"expr": "width"}, "text": {"expr": _SHORT}},
            "encoding": {"y": y},
        },
    ]  # fmt: skip


def _progress() -> list[Spec]:
    x = quantity("trial", "trial")
    x["axis"] = {**x["axis"], "tickMinStep": 1}
    y = quantity("sustainable", "sustainable rate (requests/s)", zero=True)
    return [
        {
            "data": {"name": "progress"},
                        "mark": {
                "type": "line", "interpolate": "step-after", "strokeWidth": 2.5,
                "color": "var(--recommended)",
            },
            "encoding": {"x": x, "y": {**y, "field": "best"}},
        },
        {
            "data": {"name": "progress"},
            "mark": {
                "type": "point", "filled": True, "opacity": 1, "tooltip": {"content": "data"},
            },
            "encoding": {
                "x": x,
                "y": y,
                "shape": {"field": "why", "type": "nominal", "sort": None, "title": None},
                "color": {"value": "var(--muted)"},
                "size": where(110, at=280),
                "stroke": where("var(--plot-paper)", at="var(--ink)"),
            },
        },
    ]  # fmt: skip
