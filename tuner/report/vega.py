"""The parts that the pages' interactive charts are made of, as Vega-Lite without data.

They speak the visual language of the plots: the colours are variables of the page's style sheet,
so that one drawing serves day, night and paper, and every look differs in shape as well. The
page's script puts the data in, and the words in braces.
"""

from collections.abc import Mapping
from typing import Any

from tuner.report.canvas import STYLES
from tuner.report.curves import Look

Spec = dict[str, Any]

AT_LIMIT = "recommended-at-limit"
"""The recommended once more, at a load of its own: its colour with another dash."""

QUEUEING, RUNNING, ELSEWHERE = "queueing", "running the model", "serving and network"
UNSPLIT = "compute and the rest"
"""What the mean latency of a configuration is made of."""

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

DASHES = {
    AT_LIMIT: [5, 3],
    "recommended": [1, 0],
    "default": [1, 0],
    "off": [1, 0],
    "front-1": [7, 3],
    "front-2": [4, 2],
    "front-3": [2, 2],
}

NAME_WIDTH = "(width < 560 ? width - 20 : width < 900 ? width / 2 - 30 : 420)"
"""Room for a name in a legend, in one column on a phone, two or three elsewhere."""

CHARACTER = 6.6
"""Width in pixels of a character of a legend, on average and rather more."""

WRAPPED = (
    f"length(datum.label) * {CHARACTER} < {NAME_WIDTH} ? datum.label : split(trim(replace("
    f"datum.label, regexp('(.{{1,' + floor({NAME_WIDTH} / {CHARACTER}) + '}})( |$)', 'g'), "
    "'$1\\n')), '\\n')"
)
"""A name in as many lines as it takes: cut, it would no longer tell configurations apart."""

CONFIG: Spec = {
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
        "labelLimit": {"expr": NAME_WIDTH},
        "orient": "bottom",
        "columns": {"expr": "width < 560 ? 1 : width < 900 ? 2 : 3"},
        "symbolStrokeWidth": 2,
        "title": None,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
}

TICKS: Spec = {"expr": "width < 420 ? 4 : 8"}
"""About so many; on a phone labels of thousands would crowd."""

SPARSE = (
    "indexof([1, 2, 3, 5, 7], round(datum.value / pow(10, floor(log(datum.value) / LN10 + 1e-9))))"
    " >= 0 || highest < 8 * lowest ? datum.label : ''"
)
"""On a long log scale, a label for these leading digits alone."""

LATENCY: Spec = {
    "type": "quantitative",
    "scale": {"type": "log", "domain": [{"expr": "lowest"}, {"expr": "highest"}], "clamp": True},
    "axis": {
        "title": "{percentile} latency (ms, log scale)",
        "format": ",~r",
        "labelExpr": SPARSE,
    },
}


def chart(layers: list[Spec], height: int | str) -> Spec:
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 2, "right": 12, "top": 8, "bottom": 2},
        "config": CONFIG,
        "layer": layers,
    }


def quantity(field: str, title: str, **scale: Any) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "axis": {"title": title, "format": ",~r", "tickCount": TICKS},
        "scale": {"nice": True, **scale},
    }


def latency(field: str = "latency") -> Spec:
    return {**LATENCY, "field": field}


def by_look(values: Mapping[Any, Any]) -> Spec:
    """An encoding by the curve's name; the script fills in which names there are."""
    return {
        "field": "name",
        "type": "nominal",
        "scale": {"domain": "{names}", "range": {"byLook": values}},
        "sort": None,
        "title": None,
        "legend": {"labelExpr": WRAPPED},
    }


def limit_line() -> list[Spec]:
    """The limit that is asked for, across the chart; it follows the choice on the page."""
    return [
        {
            "data": {"values": [{}]},
            "mark": {
                "type": "rule", "color": "var(--plot-limit)", "strokeDash": [7, 4],
                "strokeWidth": 1.5, "clip": True,
            },
            "encoding": {"y": {**LATENCY, "datum": {"expr": "limit"}}},
        },
        {
            "data": {"values": [{}]},
            "mark": {
                "type": "text", "align": "left", "baseline": "bottom", "dy": -4, "x": 4,
                "color": "var(--plot-limit)", "fontWeight": "bold", "clip": True,
                "text": {"expr": "'limit ' + format(limit, '.4~g') + ' ms'"},
            },
            "encoding": {"y": {**LATENCY, "datum": {"expr": "limit"}}},
        },
    ]  # fmt: skip


def where(value: Any, **cases: Any) -> Spec:
    """An encoding by constants, `value` but for the cases.

    `at` is the point that the keyboard is on, `chosen` the one for the promise that is asked for.
    """
    tests = {"at": "datum.i === at", "chosen": "datum.i === chosen"}
    found = [{"test": tests[name], "value": case} for name, case in cases.items()]
    return {"condition": found, "value": value}


def lines(data: str, x: Spec, y: Spec) -> list[Spec]:
    """Lines with a mark at every point, told apart by colour, dash and shape."""
    return [
        {
            "data": {"name": data},
            "mark": {"type": "line", "strokeWidth": 2, "clip": True},
            "encoding": {
                "x": x,
                "y": y,
                "order": {"field": x["field"]},
                "color": by_look(COLOURS),
                "strokeDash": by_look(DASHES),
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
                "size": where(90, at=280),
                "stroke": where("var(--plot-paper)", at="var(--ink)"),
                "color": by_look(COLOURS),
                "shape": by_look(SHAPES),
            },
        },
    ]  # fmt: skip
