"""From records to a decision: which configuration to deploy, what it gains, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tuner.measure.curve import CLIENT_LIMITED
from tuner.records import Config, TrialRecord
from tuner.search.final import Finding, ahead, findings
from tuner.search.paired import Gain
from tuner.search.queue_bound import deployable
from tuner.search.ranking import (
    TIE,
    bounded,
    by_role,
    choose,
    search_trials,
    simplicity,
)
from tuner.search.reachable import instead
from tuner.slo import Slo

VerdictName = Literal["gain", "tie", "none", "undecided"]


ALONE = (
    "batching off is all that was measured, so that there is nothing to hold it against; resume "
    "the run with more time"
)
"""Why nothing is recommended where a run ended before the server's defaults were measured."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is recommended, and how it came about.

    `trial` is the search trial behind it; `config` is what is deployed; `findings` are what the
    final showed of every contender. Where `recommends` is false nothing is recommended yet, and
    both are but what is known so far.
    """

    verdict: VerdictName
    trial: TrialRecord
    config: Config
    gain: Gain | None
    findings: tuple[Finding, ...]
    why: str
    recommends: bool = True

    def blocks(self, config: Config) -> tuple[TrialRecord, ...]:
        """The final's measurements of a configuration."""
        return next(
            (found.records for found in self.findings if found.contender.config == config), ()
        )

    def standing_for(self, config: Config, trial: TrialRecord) -> TrialRecord:
        """The start that a configuration is known by: the final's median block, else `trial`."""
        decided = [block for block in self.blocks(config) if block.sustainable_rps is not None]
        ranked = sorted(decided, key=lambda block: block.sustainable_rps or 0.0)
        return ranked[(len(ranked) - 1) // 2] if ranked else trial


def decide(records: Sequence[TrialRecord], slo: Slo) -> Decision | None:
    """Decide on all that was measured so far, and say where the client set the limit."""
    decision = _decided(records, slo)
    if decision is None or not _client_limited(decision.trial):
        return decision
    why = f"{decision.why}; the load generator was at its end there, so it may carry more"
    default = by_role(records, "default")
    if default is not None and _client_limited(default):
        why = (
            "the SLO holds at every load that this load generator can drive, with the server's "
            "defaults too: add generator processes or cores before comparing"
        )
    return replace(decision, why=why)


def _client_limited(trial: TrialRecord) -> bool:
    """Whether the SLO held as far as the load generator went: not where nothing was decided."""
    noted = any(note.code == CLIENT_LIMITED for note in trial.notes)
    return noted and trial.outcome == "ok"


def _decided(records: Sequence[TrialRecord], slo: Slo) -> Decision | None:
    """Decide on all that was measured so far. None while no trial measured anything.

    Before the final the verdict is `undecided`. After it: `gain` where the interval of winner or
    runner-up lies above zero; else the default is kept, as a `tie` where the intervals leave no
    room for a gain beyond TIE, as `none` where they do. `none` too where the search found nothing
    above the default, or the final showed that the default carries more.
    """
    default = by_role(records, "default")
    chosen = choose(records)
    if chosen is None:
        return _nothing_holds(records, default, slo)
    found = findings(records, slo)
    best_is_default = default is not None and chosen.config == default.config
    if best_is_default and not any(item.pairs for item in found):
        why = "no configuration tried carries more within the SLO than the server's defaults"
        return Decision("none", chosen, deployable(chosen, slo, records), None, (), why)
    if _alone(chosen, records):
        return Decision("undecided", chosen, chosen.config, None, (), ALONE, recommends=False)
    candidates = [item for item in found if item.contender.arm in {"winner", "runner-up"}]
    if default is None or not any(item.pairs for item in candidates):
        why = "the highest sustainable rate of the search, not confirmed by a final yet"
        gain = _search_gain(chosen, default)
        return Decision("undecided", chosen, deployable(chosen, slo, records), gain, found, why)
    proven = [item for item in candidates if item.proven]
    if not proven:
        return _kept(default, slo, candidates, found)
    best = _best(proven)
    return Decision(
        "gain", best.contender.trial, best.contender.config, best.gain, found, _proof(best, found)
    )


def _alone(chosen: TrialRecord, records: Sequence[TrialRecord]) -> bool:
    """Whether batching off is all that is known: no configuration with batching came to an end."""
    others = (record for record in search_trials(records) if record.config.batching is not None)
    return chosen.config.batching is None and all(record.outcome == "invalid" for record in others)


def _best(proven: Sequence[Finding]) -> Finding:
    """The one to recommend: the larger gain or, where that is within the noise, the simplest."""
    by_gain = sorted(proven, key=lambda item: item.gain.percent if item.gain else 0, reverse=True)
    if len(by_gain) > 1:
        lead = ahead(by_gain[0], by_gain[1])
        if lead is None or not lead.proven:
            return min(by_gain, key=lambda item: simplicity(item.contender.trial.config))
    return by_gain[0]


def _proof(best: Finding, found: Sequence[Finding]) -> str:
    if best.gain is None or best.gain.low is None:
        return "the SLO holds with it and at no load with the server's defaults"
    text = (
        f"proven gain of {best.gain.describe()} in sustainable rate over the server's defaults, "
        f"in {best.pairs} interleaved blocks on fresh starts"
    )
    others = [item for item in found if item.proven and item is not best]
    if others and others[0].contender.arm != "off":
        text += "; the runner-up" if best.contender.arm == "winner" else "; the search's winner"
        text += " gains as much within the noise, or less, and is not simpler"
    return text


def _kept(
    default: TrialRecord, slo: Slo, candidates: Sequence[Finding], found: tuple[Finding, ...]
) -> Decision:
    """Keep the default: the search's best did not prove itself on fresh starts."""
    config = deployable(default, slo)
    judged = [item for item in candidates if item.gain is not None and item.gain.low is not None]
    if not judged:
        text = _too_few(max((item.pairs for item in candidates), default=0))
        gain = next((item.gain for item in candidates if item.gain is not None), None)
        return Decision("none", default, config, gain, found, text)
    best = max(judged, key=lambda item: item.gain.percent if item.gain else 0.0)
    gain = best.gain
    assert gain is not None
    if gain.refuted:
        text = (
            "no configuration tried carries more within the SLO than the server's defaults: the "
            f"best of the others differs by {gain.describe()} on fresh starts"
        )
        return Decision("none", default, config, gain, found, text)
    text = (
        "no proven gain: the best of the others differs from the server's defaults by "
        f"{gain.describe()} on fresh starts"
    )
    narrow = gain.high is not None and gain.high < TIE * 100
    return Decision("tie" if narrow else "none", default, config, gain, found, text)


def _too_few(blocks: int) -> str:
    """Say that the blocks of a final tell nothing, and what gives more of them."""
    counted = "one block of the final is" if blocks == 1 else f"{blocks} blocks of the final are"
    return (
        f"{counted} too few to tell a gain over the server's defaults from noise; give more time "
        "(tuner tune --resume RUN --deadline 1h) or raise search.final_blocks"
    )


def _nothing_holds(
    records: Sequence[TrialRecord], default: TrialRecord | None, slo: Slo
) -> Decision | None:
    """The SLO held nowhere: keep the default, and say so."""
    measured = [record for record in search_trials(records) if record.levels]
    kept = default if default is not None and default.levels else next(iter(measured), None)
    if kept is None:
        return None
    if all(record.outcome == "invalid" for record in measured):
        why = "no measurement could be trusted; the report says why, with remedies"
        if any(note.code == "cut-short" for record in measured for note in record.notes):
            why = "the deadline came before anything was decided; resume the run with more time"
        return Decision("undecided", kept, kept.config, None, (), why, recommends=False)
    why = f"no configuration met the SLO ({slo.describe()}) at any load tried"
    why += instead(records, slo)
    if default is None or len(measured) < 2:
        return Decision("undecided", kept, kept.config, None, (), why, recommends=False)
    return Decision("none", kept, kept.config, None, (), why)


def _search_gain(chosen: TrialRecord, default: TrialRecord | None) -> Gain | None:
    """The ratio of what the search found; None where either rate is but a lower bound."""
    if default is None or not default.sustainable_rps or not chosen.sustainable_rps:
        return None
    if not (bounded(chosen) and bounded(default)):
        return None
    return Gain((chosen.sustainable_rps / default.sustainable_rps - 1) * 100, None, None)
