"""How far equal starts lie apart, how finely a rate is known, and the gain told from both."""

import math
from collections.abc import Iterator, Sequence
from statistics import median, stdev

from tuner.report.facts import NARROW, Fact
from tuner.report.run import Run
from tuner.report.wording import number
from tuner.search.noise import Noise, noise_of
from tuner.search.paired import (
    coarseness,
    percent_of,
    spread_at_worst,
    spread_of,
    student_quantile,
    told_apart,
)
from tuner.search.ranking import search_trials, step_of

FEWEST = 3
"""Fewer values say nothing of their scatter: that of two may be sixteen times what it seems."""


def noise_floor(run: Run) -> Iterator[Fact]:
    """The noise floor between equal starts, and the gain that can be told from it."""
    final = _final_rates(run, "default")
    noise = noise_of(run.trials, len(final))
    if len(noise.rates_rps) > 1 and noise.spread_percent is not None:
        rates, spread, where = noise.rates_rps, noise.spread_percent, "A/A test"
    elif (floor := spread_of(final)) is not None:
        rates, spread, where = tuple(final), math.expm1(floor) * 100, "the final's starts"
    else:
        yield Fact(
            "Noise floor",
            "not measured",
            "no configuration was started twice; a longer run begins with an A/A test",
        )
        return
    listed = ", ".join(number(value) for value in rates[:6])
    more = f" and {len(rates) - 6} more" if len(rates) > 6 else ""
    yield Fact(
        "Noise floor",
        f"{spread:.1f}{NARROW}% ({where})",
        f"standard deviation between equal starts of the default: {listed}{more} requests/s",
    )
    yield from _detectable(run, noise)


def _detectable(run: Run, noise: Noise) -> Iterator[Fact]:
    """From the scatter of the final's pairs, in which a block's luck cancels; else of starts."""
    ours, theirs = _final_rates(run, "winner"), _final_rates(run, "default")
    if len(ours) == len(theirs) and len(ours) > 1:
        scatter, coarse = _of_pairs(run, ours, theirs)
        of, count = "pairs", len(ours)
    elif noise.detectable_percent is not None:
        scatter, coarse = math.log1p(noise.detectable_percent / 100), 0.0
        of, count = "equal starts", len(noise.rates_rps)
    else:
        return
    name = "Smallest gain told from noise"
    if count < FEWEST:
        yield Fact(name, "not known", f"{count} {of} say too little of their scatter")
        return
    least = percent_of(max(scatter, coarse))
    worst = percent_of(max(scatter * spread_at_worst(count), coarse))
    yield Fact(
        name,
        f"about {least:.0f}{NARROW}%, at worst {worst:.0f}{NARROW}%",
        "what the final's blocks would prove in four of five runs; a smaller gain may be there "
        f"and go unseen. The scatter of {count} {of} is known no better than that",
    )


def _of_pairs(run: Run, ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """The smallest log gain that the pairs' scatter lets tell, and that their steps do."""
    confidence = run.interval_percent / 100
    logs = [math.log(our / their) for our, their in zip(ours, theirs, strict=True)]
    points = student_quantile(confidence, len(logs) - 1) + student_quantile(0.6, len(logs) - 1)
    coarse = math.hypot(
        coarseness(ours, _final_steps(run, "winner")),
        coarseness(theirs, _final_steps(run, "default")),
    )
    return points * stdev(logs) / math.sqrt(len(logs)), told_apart(1 - confidence) * coarse


def _final_steps(run: Run, arm: str) -> list[float]:
    """The steps in which the ladders of one contender's blocks knew its rates."""
    final = run.recommendation.get("final") or ()
    ids = {found["config_id"] for found in final if found["arm"] == arm}
    return [
        step_of(trial)
        for trial in run.trials
        if trial.role == "final" and trial.config.id in ids and trial.sustainable_rps
    ]


def steps(run: Run) -> Iterator[Fact]:
    """How finely the rates are known that were compared."""
    final = [trial for trial in run.trials if trial.role == "final"] or search_trials(run.trials)
    known = [step for trial in final if (step := step_of(trial))]
    if known:
        yield Fact(
            "Steps between loads",
            f"{percent_of(median(known)):.1f}{NARROW}% (median)",
            "a rate lies between the load that held and the next that was not shown to; no "
            "interval is narrower than that allows, and measure.resolution sets it",
        )


def _final_rates(run: Run, arm: str) -> list[float]:
    """The rates of one contender by block; empty where a block has none."""
    final = run.recommendation.get("final") or ()
    rates = [rate for found in final if found["arm"] == arm for rate in found["rates_rps"]]
    return rates if all(rates) else []
