"""Numbers and verdicts in words, one way of writing them for tables, plots and the page."""

import re
from dataclasses import dataclass
from typing import Literal

from tuner.records import Role
from tuner.report.run import Run
from tuner.words import digits, per_second

MISSING = "–"  # noqa: RUF001
"""What stands where there is no number."""

_FIXED = "\u00a0"
"""A space that no line ends at, between a number and its unit."""

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:ms|µs|s|%)(?!\w))")

REPEATED = (
    "proven gain of",
    "no proven gain:",
    "no configuration tried carries more",
    "the highest sustainable rate of the search, not confirmed",
    "the SLO holds with it and at no load",
    "no measurement could be trusted",
    "no configuration met the SLO",
)
"""How a recommendation's `why` begins where the headline has said it already."""

LAUNCHERS = {
    "embedded": "Embedded server",
    "docker": "TensorFlow Serving in Docker",
    "binary": "TensorFlow Serving binary",
    "running": "Running server",
}
"""The servers, as people call them."""

ROLES: dict[Role, str] = {
    "off": "batching off",
    "default": "the server's default",
    "guide": "from the batching guide",
    "sampler": "from the sampler",
    "reference": "the default again, for drift",
    "overload": "overload test",
    "final": "the final",
    "given": "given by the user",
}
"""Why a trial was measured, in words."""

Tone = Literal["good", "neutral", "bad"]


def number(value: float | None) -> str:
    """Write three significant digits, see `digits`."""
    return MISSING if value is None else digits(value)


def rate(value: float | None) -> str:
    """Write requests per second with their unit."""
    return MISSING if value is None else per_second(value)


def milliseconds(value: float | None) -> str:
    """Write a time in ms with its unit."""
    return MISSING if value is None else f"{number(value)}{_FIXED}ms"


def share(value: float | None) -> str:
    """Write a fraction as per cent, such as `0.2 %`."""
    if value is None:
        return MISSING
    percent = 100 * value
    return f"{percent:.3g}{_FIXED}%"


def signed_percent(value: float | None) -> str:
    """Write a gain, in per cent already, with its sign: `+82 %`."""
    if value is None:
        return MISSING
    text = f"{value:+,.1f}" if abs(value) < 10 else f"{value:+,.0f}"
    return f"{text.replace('-', '−')}{_FIXED}%"  # noqa: RUF001 (a true minus sign, for the eye)


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def gain_words(
    percent: float, low: float | None, high: float | None, confidence_percent: float = 95
) -> str:
    """Write a gain with its interval, or that it has none yet."""
    if low is None or high is None:
        return f"{signed_percent(percent)} (not confirmed)"
    interval = f"{signed_percent(low)} to {signed_percent(high)}"
    return f"{signed_percent(percent)} ({confidence_percent:g}{_FIXED}% interval {interval})"


def clip(text: str, length: int = 160) -> str:
    """Keep at most `length` characters, the cut marked by an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def typeset(text: str) -> str:
    """Write comparisons with their sign, and keep numbers and units on one line."""
    signed = text.replace(" <= ", f"{_FIXED}≤{_FIXED}")
    return _BEFORE_UNIT.sub(_FIXED, signed)


def promise_of(run: Run) -> str:
    """Write the SLO in words, typeset: `p99 ≤ 60 ms, errors ≤ 0.1 %`."""
    return typeset(run.slo.describe())


def server_words(run: Run) -> str:
    """Say which server was measured, for the head of every plot."""
    server = run.server
    return clip(f"{LAUNCHERS[server.launcher]}, {server.image or server.version}", 70)


@dataclass(frozen=True, slots=True)
class Headline:
    """The answer of a run: a sentence, what it rests on, a word or two for it, and its tone."""

    text: str
    detail: str
    tag: str
    tone: Tone


def headline(run: Run) -> Headline:
    """Say the verdict of a run in words that claim no more than was measured."""
    promise = promise_of(run)
    if not run.trials:
        return Headline(
            "Nothing has been measured yet.", "The run holds no trial.", "no data", "neutral"
        )
    if not run.answered:
        return _nothing_to_recommend(run, promise)
    verdict = run.recommendation.get("verdict")
    if verdict == "gain":
        return _gain(run, promise)
    if verdict in {"tie", "none"}:
        return _kept(run, promise)
    return Headline(
        "Provisional: the best so far is not confirmed.",
        f"It carried the most load within {promise} in the search, but was not yet measured "
        "again beside the default on fresh server starts. Resume the run to confirm it."
        f"{_difference(run)}",
        "not proven",
        "neutral",
    )


def remark(run: Run) -> str:
    """What a recommendation's `why` adds to the headline; empty where that is nothing."""
    why = str(run.recommendation.get("why") or "")
    if why.startswith(REPEATED):
        why = why.partition("; ")[2]
    return sentence(why) if why else ""


def _gain(run: Run, promise: str) -> Headline:
    best = rate(run.recommendation["recommended"].get("sustainable_rps"))
    default = run.recommendation.get("default")
    instead = f" instead of {rate(default.get('sustainable_rps'))}" if default else ""
    detail = f"{best}{instead} within {promise}{_interval(run)}{_blocks(run)}."
    gain = run.recommendation.get("gain")
    if gain:
        text = f"{signed_percent(gain['percent'])} load over the server's default."
    elif default and default.get("sustainable_rps") == 0:
        text = "A proven gain: the default keeps the promise at no load that was tried."
    else:
        text = "A proven gain over the server's default."
    return Headline(text, detail, "proven", "good")


def _kept(run: Run, promise: str) -> Headline:
    """The default stays: shown to carry the most, as much as the others, or as far as is known."""
    gain, tie = run.recommendation.get("gain"), run.recommendation.get("verdict") == "tie"
    if not tie and gain and gain["high"] is not None and gain["high"] < 0:
        return Headline(
            "Keep the default: it carries the most.",
            f"The server's default carries more load within {promise} than any other "
            f"configuration that was tried.{_difference(run)}",
            "no gain",
            "neutral",
        )
    detail = (
        "The best of the others and the server's default carry the same load within "
        f"{promise}, as far as the noise of this machine lets anyone tell."
        if tie
        else f"No configuration that was tried proved to carry more load within {promise} than "
        "the server's default."
    )
    return Headline(
        "No proven gain: keep the default.",
        f"{detail}{_difference(run)}",
        "tie" if tie else "no gain",
        "neutral",
    )


def _difference(run: Run) -> str:
    """How far the search's best lies from the default."""
    gain = run.recommendation.get("gain")
    if not gain:
        return ""
    words = gain_words(gain["percent"], gain["low"], gain["high"], run.interval_percent)
    return f" Measured difference: {words}."


def _interval(run: Run) -> str:
    """Where the gain lies that the headline names."""
    gain = run.recommendation.get("gain")
    if not gain or gain["low"] is None:
        return ""
    low, high = signed_percent(gain["low"]), signed_percent(gain["high"])
    return f"; {run.interval_percent:g}{_FIXED}% interval of the gain {low} to {high}"


def _blocks(run: Run) -> str:
    """In how many blocks of the final the recommended met the default."""
    final = run.recommendation.get("final") or ()
    count = sum(
        rate_rps is not None
        for found in final
        if found["config_id"] == run.recommended_id
        for rate_rps in found["rates_rps"]
    )
    return f", from {count} interleaved blocks on fresh starts" if count > 1 else ""


def _nothing_to_recommend(run: Run, promise: str) -> Headline:
    outcomes = {trial.outcome for trial in run.trials}
    if "ok" in outcomes:
        return Headline(
            "No recommendation yet.",
            f"Some configurations met {promise}, but none has been chosen. Resume the run.",
            "not proven",
            "neutral",
        )
    if "infeasible" in outcomes:
        return Headline(
            "No configuration met the promise.",
            f"None of the trials kept {promise} at any load that was tried. Relax the limit, "
            "lower the smallest load, or use a faster model or machine.",
            "no answer",
            "bad",
        )
    if "invalid" in outcomes:
        return Headline(
            "No measurement can be trusted.",
            "Every measurement was disturbed, so nothing is ranked; the doubts below come with "
            "their remedies.",
            "no answer",
            "bad",
        )
    return Headline(
        "No configuration could be measured.",
        "Every trial failed; the table of trials says why and what to do.",
        "no answer",
        "bad",
    )
