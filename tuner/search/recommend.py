"""From records to a recommendation: which file to deploy, what it gains, and how surely.

`choose` ranks the search's configurations by sustainable rate. `paired_gain` puts the final's
blocks into one interval. `recommendation` is the object of `recommendation.json`.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tuner.batching import BatchingParameters
from tuner.records import Config, ServerIdentity, TrialRecord
from tuner.search.space import UNBOUNDED_QUEUE
from tuner.slo import Slo

SCHEMA_VERSION = 1

VerdictName = Literal["gain", "tie", "none", "undecided"]

TIE = 0.03
"""Configurations whose sustainable rates differ by less are told apart by simplicity alone."""

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Two-sided 95 % points of Student's t by degrees of freedom; 1.96 beyond the table's end, 10."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Relative gain in sustainable rate over the default, in per cent, with a 95 % interval.

    `low` and `high` are None where fewer than two blocks were measured.
    """

    percent: float
    low: float | None
    high: float | None


def search_trials(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trials of the search, the final's left out."""
    return [record for record in records if record.role != "final"]


def by_role(records: Iterable[TrialRecord], role: str) -> TrialRecord | None:
    """The first trial with this role."""
    return next((record for record in records if record.role == role), None)


def choose(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial to recommend: the highest sustainable rate, ties to the simplest.

    Among rates within TIE of the best the configuration nearest the default wins. A larger lead
    may still be noise: that is for the final to find out. None where no configuration met the
    SLO.
    """
    proven = [record for record in search_trials(records) if record.sustainable_rps]
    if not proven:
        return None
    best = max(record.sustainable_rps or 0.0 for record in proven)
    near = [record for record in proven if (record.sustainable_rps or 0.0) >= best * (1 - TIE)]
    return min(
        near, key=lambda record: (simplicity(record.config), -(record.sustainable_rps or 0))
    )


def simplicity(config: Config) -> float:
    """How far a configuration lies from the shipped default; less is simpler.

    The default is 0 and batching off is nearest to it; elsewhere each doubling of a parameter
    away from the default counts 1, and every additional setting 2.
    """
    batching = config.batching
    if batching is None:
        return 0.5
    if batching.max_enqueued_batches != UNBOUNDED_QUEUE:
        return 0.0
    steps = abs(math.log2(batching.row_limit / 1000))
    steps += math.log2(1 + (batching.batch_timeout_micros or 0) / 1000)
    added = bool(batching.allowed_batch_sizes) + bool(batching.enable_large_batch_splitting)
    return 1.0 + steps + 2.0 * added + 2.0 * len(config.flags)


def deployable(record: TrialRecord, slo: Slo) -> Config:
    """The configuration as it is deployed: its queue bounded by what the bound means.

    While capacity is sought the queue is unbounded. In production a request that would wait
    longer than the SLO's loosest limit L should be turned away at once. With B full batches of
    `max_batch_size` rows ahead and rows leaving at rate D (the closed-loop peak), the wait is
    B * max_batch_size / D, so B = L * D / max_batch_size; never less than one batch per thread,
    and one more for the batch that is filling.
    """
    batching = record.config.batching
    if batching is None or batching.max_enqueued_batches != UNBOUNDED_QUEUE:
        return record.config
    drain_rows_rps = max((level.measurement.rows_rps for level in record.levels), default=0.0)
    waiting = slo.loosest_ms / 1000 * drain_rows_rps / batching.row_limit
    bound = max(math.ceil(waiting), batching.num_batch_threads or 1) + 1
    return replace(record.config, batching=replace(batching, max_enqueued_batches=bound))


def paired_gain(winner: Sequence[float], default: Sequence[float]) -> Gain | None:
    """The gain from blocks in which both were measured once (Student's t on log ratios).

    The geometric mean of the ratios, with a two-sided 95 % interval. None where there is no
    pair, or the default carried no load at all.
    """
    pairs = [(w, d) for w, d in zip(winner, default, strict=True) if w > 0 and d > 0]
    if not pairs or len(pairs) < len(winner):
        return None
    logs = [math.log(w / d) for w, d in pairs]
    centre = statistics.fmean(logs)
    if len(logs) < 2:
        return Gain(_percent(centre), None, None)
    half = T_95.get(len(logs) - 1, 1.96) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Gain(_percent(centre), _percent(centre - half), _percent(centre + half))


def _percent(log_ratio: float) -> float:
    return (math.exp(log_ratio) - 1) * 100


@dataclass(frozen=True, slots=True)
class Decision:
    """What is recommended, and how it came about.

    `trial` is the search trial behind it; `config` is what is deployed; `blocks` are the final's
    measurements by configuration id.
    """

    verdict: VerdictName
    trial: TrialRecord
    config: Config
    gain: Gain | None
    blocks: Mapping[str, tuple[TrialRecord, ...]]
    why: str


def decide(records: Sequence[TrialRecord], slo: Slo) -> Decision | None:
    """Decide on all that was measured so far. None while no trial measured anything.

    Before the final the verdict is `undecided`. After it: `gain` where the interval lies above
    zero; else the default is kept, as a `tie` where the interval leaves no room for a gain beyond
    TIE, as `none` where it does. `none` too where the search found nothing above the default.
    """
    default = by_role(records, "default")
    chosen = choose(records)
    if chosen is None:
        return _nothing_holds(records, default, slo)
    config = deployable(chosen, slo)
    blocks = final_blocks(records)
    winner_rates, default_rates = _paired(blocks, config, default)
    gain = paired_gain(winner_rates, default_rates)
    if default is not None and chosen.config == default.config:
        why = "no configuration tried carries more within the SLO than the server's defaults"
        return Decision("none", chosen, config, None, blocks, why)
    if not winner_rates or default is None:
        why = "the highest sustainable rate of the search, not confirmed by a final yet"
        return Decision("undecided", chosen, config, _search_gain(chosen, default), blocks, why)
    if not any(default_rates) and all(winner_rates):
        why = "the SLO holds with it and at no load with the server's defaults"
        return Decision("gain", chosen, config, None, blocks, why)
    if gain is not None and gain.low is not None and gain.low > 0:
        why = (
            f"{len(winner_rates)} interleaved blocks on fresh starts put its sustainable rate "
            f"{gain.percent:.0f} % above the default's [{gain.low:.0f}, {gain.high:.0f}]"
        )
        return Decision("gain", chosen, config, gain, blocks, why)
    return _kept(default, slo, gain, blocks)


def _kept(
    default: TrialRecord,
    slo: Slo,
    gain: Gain | None,
    blocks: Mapping[str, tuple[TrialRecord, ...]],
) -> Decision:
    """Keep the default: the search's best did not prove itself on fresh starts."""
    if gain is None or gain.low is None:
        text = "the final has too few blocks to prove a gain over the server's defaults"
        return Decision("none", default, deployable(default, slo), gain, blocks, text)
    text = (
        "no proven gain: the best of the search differs from the server's defaults by "
        f"{gain.percent:+.0f} % [{gain.low:+.0f}, {gain.high:+.0f}] on fresh starts"
    )
    narrow = gain.high is not None and gain.high < TIE * 100
    return Decision(
        "tie" if narrow else "none", default, deployable(default, slo), gain, blocks, text
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
        return Decision("undecided", kept, kept.config, None, {}, why)
    why = f"no configuration met the SLO ({slo.describe()}) at any load tried"
    unfinished = default is None or len(measured) < 2
    return Decision("undecided" if unfinished else "none", kept, kept.config, None, {}, why)


def _search_gain(chosen: TrialRecord, default: TrialRecord | None) -> Gain | None:
    if default is None or not default.sustainable_rps or not chosen.sustainable_rps:
        return None
    return Gain((chosen.sustainable_rps / default.sustainable_rps - 1) * 100, None, None)


def final_blocks(records: Sequence[TrialRecord]) -> dict[str, tuple[TrialRecord, ...]]:
    """The final's measurements by configuration id, in order of blocks."""
    blocks: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.role == "final":
            blocks.setdefault(record.config.id, []).append(record)
    return {
        config_id: tuple(sorted(found, key=lambda record: record.block or 0))
        for config_id, found in blocks.items()
    }


def _paired(
    blocks: Mapping[str, tuple[TrialRecord, ...]], config: Config, default: TrialRecord | None
) -> tuple[list[float], list[float]]:
    """Sustainable rates of both, from the blocks in which both were measured validly."""
    if default is None:
        return [], []
    rates = {
        config_id: {
            record.block: record.sustainable_rps
            for record in found
            if record.sustainable_rps is not None
        }
        for config_id, found in blocks.items()
    }
    winner, other = rates.get(config.id, {}), rates.get(default.config.id, {})
    common = [block for block in winner if block in other]
    return [winner[block] for block in common], [other[block] for block in common]


def recommendation(
    decision: Decision,
    records: Sequence[TrialRecord],
    *,
    scenario: str,
    server: ServerIdentity,
    slo: Slo,
    flags: Mapping[str, str],
) -> dict[str, Any]:
    """The object of `recommendation.json`; `flags` must be deployed along with the file."""
    gain = decision.gain
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario,
        "config_id": decision.config.id,
        "server": {
            "launcher": server.launcher,
            "version": server.version,
            "image": server.image,
            "digest": server.digest,
        },
        "slo": {
            **{f"{name}_ms": limit for name, limit in slo.limits_ms},
            "max_error_rate": slo.max_error_rate,
            "confidence": slo.confidence,
        },
        "verdict": decision.verdict,
        "why": decision.why,
        "parameters": {}
        if decision.config.batching is None
        else decision.config.batching.to_dict(),
        "flags": dict(flags),
        "recommended": _figures(decision.trial, decision.blocks.get(decision.config.id, ())),
        "default": _of_role(records, "default", decision),
        "off": _of_role(records, "off", decision),
        "gain": None
        if gain is None
        else {"percent": gain.percent, "low": gain.low, "high": gain.high},
    }


def _of_role(
    records: Sequence[TrialRecord], role: str, decision: Decision
) -> dict[str, Any] | None:
    trial = by_role(records, role)
    return None if trial is None else _figures(trial, decision.blocks.get(trial.config.id, ()))


def _figures(trial: TrialRecord, blocks: Sequence[TrialRecord]) -> dict[str, Any]:
    """Figures of a configuration: the final's median block, else the search's trial."""
    decided = [record for record in blocks if record.sustainable_rps is not None]
    shown = trial
    if decided:
        ranked = sorted(decided, key=lambda record: record.sustainable_rps or 0.0)
        shown = ranked[(len(ranked) - 1) // 2]
    level = shown.shown_level
    measured = None if level is None else level.measurement
    server = None if measured is None else measured.server
    return {
        "sustainable_rps": shown.sustainable_rps,
        "p99_ms": None if measured is None else measured.percentiles_ms.get("p99"),
        "throughput_rps": None if measured is None else measured.throughput_rps,
        "rows_per_batch": None if server is None else server.rows_per_batch,
        "valid": shown.sustainable_rps is not None,
    }


def file_text(
    decision: Decision, *, scenario: str, server: ServerIdentity, slo: Slo, when: str
) -> str:
    """The recommended batching file, with a header that says why and where it comes from.

    Always a file the server accepts. Where batching off is recommended it holds the defaults and
    says that it should not be deployed.
    """
    batching = decision.config.batching
    gain = decision.gain
    lines = [
        f"Recommended by tuner for {scenario}, {when}.",
        f"Verdict: {decision.verdict}. {decision.why[:1].upper()}{decision.why[1:]}.",
        f"SLO: {slo.describe()}.",
        f"Measured on: {server.launcher} server, {server.image or server.version}.",
    ]
    if gain is not None:
        interval = (
            "not confirmed"
            if gain.low is None
            else f"95 % interval {gain.low:.1f} to {gain.high:.1f} %"
        )
        lines.append(
            f"Gain in sustainable rate over the defaults: {gain.percent:.1f} % ({interval})."
        )
    if batching is None:
        lines.append("Batching is best left OFF: start the server without --enable_batching.")
        batching = BatchingParameters(num_batch_threads=1)
    header = "".join(f"# {line}\n" for text in lines for line in text.splitlines())
    return header + batching.to_text()
