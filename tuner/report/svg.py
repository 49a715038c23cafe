"""Turns a plot's SVG file into markup that many plots can share one page with."""

import html
import re

from tuner.report.canvas import FRONT, GRID, INK, LIMIT, MUTED, PAPER, POINT, STYLES

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--plot-grid",
    PAPER: "--plot-paper",
    POINT: "--plot-point",
    FRONT: "--plot-front",
    LIMIT: "--plot-limit",
    STYLES["recommended"].color: "--recommended",
    STYLES["default"].color: "--default",
    STYLES["off"].color: "--off",
    STYLES["front-1"].color: "--front-1",
    STYLES["front-2"].color: "--front-2",
    STYLES["front-3"].color: "--front-3",
}
"""The page's style sheet gives every colour of a plot a value for light and one for dark."""

_COLOR = re.compile("|".join(map(re.escape, _VARIABLES)))


def inline_svg(svg: str, name: str, title: str) -> str:
    """Make markup for an HTML page: ids of its own, colours of the page, no outside name.

    `name` must be unique in the page and a valid id; `title` is what a screen reader says.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = _COLOR.sub(lambda found: f"var({_VARIABLES[found[0]]})", body)
    label = html.escape(title)
    return re.sub(
        r'<svg\b[^>]*?(viewBox="[^"]*")[^>]*>',
        lambda found: f'<svg {found[1]} role="img" aria-label="{label}">',
        body,
        count=1,
    )
