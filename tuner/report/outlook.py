"""What the search did not measure and what it weighed, in words: predicted steps, importance."""

from dataclasses import dataclass

from tuner.report.run import Run
from tuner.report.wording import signed_percent
from tuner.search.foresee import Step
from tuner.search.importance import ENOUGH, SURE, Importance

UNFELT = 1.0
"""Per cent below which a predicted difference is none."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Predicted steps: a sentence on the model first, then a line for each step."""

    lead: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each parameter mattered, and how far that can be believed."""

    parameters: tuple[Importance, ...]
    caveat: str


def steps(run: Run) -> Steps | None:
    """Say what the model foresees; None where there is nothing to foresee."""
    found = run.foreseen
    if found is None:
        return None
    off = signed_percent(found.off_percent)
    if not found.trusted:
        return Steps(
            f"The model of the scheduler, fitted to this run, lies {off} off what was measured of "
            f"this configuration (misfit {found.misfit:.1f}; 1 is a good fit). That is too far to "
            "predict anything from.",
            (),
        )
    if not found.steps:
        return None
    lead = (
        f"Not measured: predicted for {found.config.label()} by simulating the scheduler with run "
        f"times fitted to this run. For the configuration itself the model lies {off} off the "
        "measured rate. In brackets the range of the fits that explain the measurements as well."
    )
    return Steps(lead, tuple(map(_step, found.steps)))


def _step(step: Step) -> str:
    change = f"with {step.name} {step.theirs} instead of {step.ours}"
    if not step.trusted:
        return (
            f"{change}: not foretold, for the model lies {signed_percent(step.off_percent)} off "
            "what was measured of configurations with it"
        )
    if max(abs(step.percent), abs(step.low), abs(step.high)) < UNFELT:
        return f"{change} it would carry as much"
    if step.low < -UNFELT and step.high > UNFELT:
        return (
            f"{change} it may carry less or more: {signed_percent(step.low)} to "
            f"{signed_percent(step.high)}"
        )
    more = "as much" if abs(step.percent) < UNFELT else signed_percent(step.percent)
    return (
        f"{change} it would carry {more} "
        f"({signed_percent(step.low)} to {signed_percent(step.high)})"
    )


def weights(run: Run) -> Weights | None:
    """Say how much each parameter mattered; None where that was not judged."""
    found = run.importance
    if found is None:
        return None
    count = found.configurations
    if not found.parameters:
        return Weights(
            (),
            f"Not told: {count} configurations of the search space are too few to weigh "
            f"parameters by ({ENOUGH} are the least).",
        )
    method = (
        f"Optuna's PED-ANOVA on {count} configurations: how far the best fifth differs from all "
        "in each parameter, in this search space. In brackets the range when a fifth of the "
        "trials is left out."
    )
    rough = f" Below {SURE} configurations the order is a hint, no more." if count < SURE else ""
    return Weights(found.parameters, f"{method}{rough}")
