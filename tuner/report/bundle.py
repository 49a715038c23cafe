"""Scripts inside the page: the charting library, our own script, and the policy that admits them.

Vega (BSD-3-Clause) comes whole out of the Python package, 0.9 MB of it, and draws SVG: it is
sharp on paper, takes its colours from the page's style sheet, and under the interpreter that
Vega-Embed brings it needs no `eval`. The page's policy can thus name each script by its hash,
and nothing else runs, whatever a run's texts hold.
"""

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from markupsafe import Markup

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_LICENCE = "/* Vega, Vega-Lite, Vega-Embed: BSD-3-Clause, https: vega.github.io */\n"


@cache
def library() -> Markup:
    """The charting library's code. Takes about a second, once in a process."""
    import vl_convert  # noqa: PLC0415 (80 MB, needed only where a page is made)

    return _code(vl_convert.javascript_bundle(_SNIPPET))


@cache
def script(name: str) -> Markup:
    """One of our own scripts, by file name."""
    path = resources.files("tuner.report") / "templates" / name
    return _code(path.read_text(encoding="utf-8"))


def _code(text: str) -> Markup:
    """Mark code as such; what would end a script element early is refused."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("the script holds text that HTML would not leave alone")
    return Markup(text)  # noqa: S704 (a script is no text to be escaped)


def policy_hash(code: Markup) -> str:
    """Name a script in a content security policy: `'sha256-…'` of exactly its text."""
    digest = hashlib.sha256(code.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def embedded_json(value: Any) -> Markup:
    """Render data for a script element of type application/json; it can end no element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 (every character with a meaning in HTML is escaped)
