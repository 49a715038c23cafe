"""The page's interactive charts, as Vega-Lite specifications without their data.

They speak the visual language of the plots: the colours are variables of the page's style sheet,
so that one drawing serves day, night and paper, and every look differs in shape as well. The
page's script puts the data in, and the words in braces.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.report.canvas import STYLES
from tuner.report.curves import Look

Spec = dict[str, Any]

AT_LIMIT = "recommended-at-limit"
"""The recommended once more, at a load of its own: its colour with another dash."""

COLOURS: dict[str, str] = {
    **{str(look): f"var(--{look})" for look in STYLES},
    AT_LIMIT: "var(--recommended)",
}
"""Colours by look, as the style sheet names them."""

SHAPES: dict[Look, str] = {
    "recommended": "M0,-1.2L1.2,0L0,1.2L-1.2,0Z",
    "default": "circle",
    "off": "square",
    "front-1": "triangle-up",
    "front-2": "triangle-down",
    "front-3": "cross",
}

_DASHES = {
    AT_LIMIT: [5, 3],
    "recommended": [1, 0],
    "default": [1, 0],
    "off": [1, 0],
    "front-1": [7, 3],
    "front-2": [4, 2],
    "front-3": [2, 2],
}

_STANDINGS = ["keeps the SLO", "undecided", "misses the SLO"]

_CONFIG: Spec = {
    "aria": False,
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--muted)",
        "gridColor": "var(--plot-grid)",
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "tickColor": "var(--muted)",
        "titleColor": "var(--ink)",
        "titleFontSize": 12.5,
        "titleFontWeight": "normal",
        "labelOverlap": "greedy",
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "labelLimit": {"expr": "width < 560 ? width - 30 : 420"},
        "orient": "bottom",
        "columns": {"expr": "width < 560 ? 1 : 3"},
        "symbolStrokeWidth": 2,
        "title": None,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
}

_APART: Spec = {"scale": {"shape": "independent", "fill": "independent", "color": "independent"}}
"""The standing of a point and the look of a contender are two scales."""

_LATENCY: Spec = {
    "type": "quantitative",
    "scale": {"type": "log", "domain": [{"expr": "lowest"}, {"expr": "highest"}], "clamp": True},
    "axis": {"title": "{percentile} latency (ms, log scale)", "format": "~r"},
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart's place in the page, and the words around it."""

    id: str
    title: str
    caption: str
    walked: bool = True


def shown_charts(data: Mapping[str, Any]) -> tuple[Chart, ...]:
    """The charts that a run's page data can fill, in the order of the page."""
    if not data["points"]:
        return ()
    charts = [
        Chart(
            "front",
            "What load costs in latency: every point that was measured",
            "Right is more load, down is faster. The band joins the points that no other beats "
            "in both. Points at the upper edge are overloaded. The ring marks the configuration "
            "for the promise above. Valid open-loop measurements only.",
        ),
        Chart(
            "load",
            "Latency against offered load",
            "Each line is one server start. Where it crosses the limit, the configuration is at "
            "its end: plan with the load left of it. Latency counts from the moment a request "
            "was due, so queueing in front of a stalled server is part of it.",
        ),
    ]
    if data["distributions"]:
        charts.append(
            Chart(
                "percentiles",
                "Latency by percentile",
                "Recommended and default at the nearest loads that both were measured at, and "
                "the recommended at its own sustainable rate. Each further nine has the same "
                "room, so that the slowest requests, which a promise is about, can be told apart.",
            )
        )
    if any(point["rows"] is not None for point in data["points"]):
        charts.append(
            Chart(
                "rows",
                "How full the batches were",
                "Counted by the server itself. More rows in a batch are more work for one run of "
                "the model; they come with load, or by waiting for the timeout.",
            )
        )
    if data["waits"]:
        charts.append(
            Chart(
                "waits",
                "Where the time went",
                "Mean latency at the sustainable rate, of the configurations that carry the "
                "most. Queueing is the server's own figure; the rest is compute and the way "
                "there and back. Long queues with small batches say that the timeout, not the "
                "load, sets the latency.",
                walked=False,
            )
        )
    if sum(row["sustainable"] is not None for row in data["progress"]) > 1:
        charts.append(
            Chart(
                "progress",
                "What the search found, trial by trial",
                "The line is the best sustainable rate so far. A line that has long been flat "
                "says that more trials would hardly help.",
            )
        )
    return tuple(charts)


def chart_specs() -> dict[str, Spec]:
    """Every chart by the id of its place in the page."""
    return {
        "front": _chart(_front(), 380) | {"resolve": _APART},
        "load": _chart(_load(), 340),
        "percentiles": _chart(_percentiles(), 340),
        "rows": _chart(_rows(), 260),
        "waits": _chart(_waits(), "{bars}"),
        "progress": _chart(_progress(), 260),
    }


def _chart(layers: list[Spec], height: int | str) -> Spec:
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 2, "right": 12, "top": 8, "bottom": 2},
        "config": _CONFIG,
        "layer": layers,
    }


def _quantity(field: str, title: str, **scale: Any) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "axis": {"title": title, "format": ",~r", "tickCount": 8},
        "scale": {"nice": True, **scale},
    }


def _latency(field: str = "latency") -> Spec:
    return {**_LATENCY, "field": field}


def _by_look(values: Mapping[Any, Any]) -> Spec:
    """An encoding by the curve's name; the script fills in which names there are."""
    return {
        "field": "name",
        "type": "nominal",
        "scale": {"domain": "{names}", "range": {"byLook": values}},
        "sort": None,
        "title": None,
    }


def _limit_line() -> list[Spec]:
    """The limit that is asked for, across the chart; it follows the choice on the page."""
    return [
        {
            "data": {"values": [{}]},
            "mark": {
                "type": "rule", "color": "var(--plot-limit)", "strokeDash": [7, 4],
                "strokeWidth": 1.5, "clip": True,
            },
            "encoding": {"y": {**_LATENCY, "datum": {"expr": "limit"}}},
        },
        {
            "data": {"values": [{}]},
            "mark": {
                "type": "text", "align": "left", "baseline": "bottom", "dy": -4, "x": 4,
                "color": "var(--plot-limit)", "fontWeight": "bold", "clip": True,
                "text": {"expr": "'limit ' + format(limit, '.4~g') + ' ms'"},
            },
            "encoding": {"y": {**_LATENCY, "datum": {"expr": "limit"}}},
        },
    ]  # fmt: skip


def _where(value: Any, **cases: Any) -> Spec:
    """An encoding by constants, `value` but for the cases.

    `at` is the point that the keyboard is on, `chosen` the one for the promise that is asked for.
    """
    tests = {"at": "datum.i === at", "chosen": "datum.i === chosen"}
    found = [{"test": tests[name], "value": case} for name, case in cases.items()]
    return {"condition": found, "value": value}


def _front() -> list[Spec]:
    x = _quantity("answered", "throughput (requests/s)", zero=True)
    y = _latency()
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
        *_limit_line(),
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
                "stroke": _where("var(--plot-point)", at="var(--ink)", chosen="var(--accent)"),
                "strokeWidth": _where(1.6, at=3, chosen=3),
                "size": _where(58, at=260, chosen=260),
            },
        },
        {
            "data": {"name": "references"},
            "mark": {"type": "point", "size": 190, "opacity": 1, "stroke": "var(--plot-paper)",
                     "strokeWidth": 1.2, "clip": True, "tooltip": {"content": "data"}},
            "encoding": {
                **at,
                "shape": {**_by_look(SHAPES), "legend": None},
                "fill": {**_by_look(COLOURS), "legend": None},
            },
        },
        *_names(at, "upper", -26, "bottom"),
        *_names(at, "lower", 14, "top"),
    ]  # fmt: skip


def _names(at: Spec, data: str, dy: int, baseline: str) -> list[Spec]:
    """The contenders' names beside their points, on paper of their own to stay legible."""
    mark = {
        "type": "text", "dy": dy, "fontWeight": "bold", "lineBreak": "\n", "baseline": baseline,
        "tooltip": {"content": "data"},
    }  # fmt: skip
    layer: Spec = {
        "data": {"name": data},
        "encoding": {**at, "text": {"field": "title"}},
    }
    halo = {"stroke": "var(--plot-paper)", "strokeWidth": 5, "strokeJoin": "round"}
    color = {**_by_look(COLOURS), "legend": None}
    return [
        {**layer, "mark": {**mark, **halo}},
        {**layer, "mark": mark, "encoding": {**layer["encoding"], "color": color}},
    ]


def _line(data: str, x: Spec, y: Spec) -> list[Spec]:
    """Lines with a mark at every point, told apart by colour, dash and shape."""
    return [
        {
            "data": {"name": data},
            "mark": {"type": "line", "strokeWidth": 2, "clip": True},
            "encoding": {
                "x": x,
                "y": y,
                "order": {"field": x["field"]},
                "color": _by_look(COLOURS),
                "strokeDash": _by_look(_DASHES),
            },
        },
        {
            "data": {"name": data},
            "mark": {
                "type": "point", "filled": True, "opacity": 1, "clip": True,
                "tooltip": {"content": "data"},
            },
            "encoding": {
                "x": x,
                "y": y,
                "size": _where(90, at=280),
                "stroke": _where("var(--plot-paper)", at="var(--ink)"),
                "color": _by_look(COLOURS),
                "shape": _by_look(SHAPES),
            },
        },
    ]  # fmt: skip


def _load() -> list[Spec]:
    x = _quantity("offered", "offered load (requests/s)", zero=True)
    y = _latency()
    return [*_limit_line(), *_line("curves", x, y)]


def _rows() -> list[Spec]:
    x = _quantity("offered", "offered load (requests/s)", zero=True)
    y = _quantity("rows", "rows per batch (mean)", zero=True)
    return _line("batched", x, y)


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
                "color": _by_look(COLOURS),
                "strokeDash": _by_look(_DASHES),
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
            "encoding": {"x": x, "y": y, "stroke": _where("transparent", at="var(--ink)")},
        },
    ]  # fmt: skip


def _waits() -> list[Spec]:
    return [
        {
            "data": {"name": "waits"},
            "mark": {"type": "bar", "tooltip": {"content": "data"}},
            "encoding": {
                "y": {
                    "field": "label", "type": "nominal", "sort": None,
                    "axis": {"title": None, "labelLimit": {"expr": "width < 560 ? 130 : 330"},
                             "domain": False, "ticks": False},
                },
                "x": {
                    "field": "ms", "type": "quantitative", "stack": "zero",
                    "axis": {"title": "mean latency (ms), split", "format": ",~r"},
                },
                "color": {
                    "field": "part", "type": "nominal", "sort": None,
                    "scale": {
                        "domain": ["queueing", "compute and the rest"],
                        "range": ["var(--off)", "var(--plot-front)"],
                    },
                },
                "order": {"field": "order"},
            },
        },
    ]  # fmt: skip


def _progress() -> list[Spec]:
    x = _quantity("trial", "trial")
    y = _quantity("sustainable", "sustainable rate (requests/s)", zero=True)
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
                "size": _where(110, at=280),
                "stroke": _where("var(--plot-paper)", at="var(--ink)"),
            },
        },
    ]  # fmt: skip
