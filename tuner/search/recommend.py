"""A decision as people and programs read it: `recommendation.json`, and the batching file."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuner.batching import BatchingParameters
from tuner.records import Overload, ServerIdentity, TrialRecord
from tuner.search.decide import Decision
from tuner.search.final import Finding
from tuner.search.noise import noise_of
from tuner.search.paired import CONFIDENCE, Gain
from tuner.search.queue_bound import told
from tuner.search.ranking import by_role
from tuner.slo import Slo

SCHEMA_VERSION = 1

HEADER_WIDTH = 78
"""Of the batching file's comments, without their mark."""


def recommendation(
    decision: Decision,
    records: Sequence[TrialRecord],
    *,
    scenario: str,
    server: ServerIdentity,
    slo: Slo,
    flags: Mapping[str, str],
) -> dict[str, Any]:
    """The object of `recommendation.json`; `flags` must be deployed along with the file.

    Where nothing is recommended yet `config_id` and `recommended` are None, and there are neither
    parameters nor flags.
    """
    chosen = decision.config if decision.recommends else None
    batching = None if chosen is None else chosen.batching
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario,
        "config_id": None if chosen is None else chosen.id,
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
        "parameters": {} if batching is None else batching.to_dict(),
        "flags": {} if chosen is None else dict(flags),
        "recommended": None
        if chosen is None
        else _figures(decision.standing_for(chosen, decision.trial)),
        "default": _of_role(records, "default", decision),
        "off": _of_role(records, "off", decision),
        "gain": _gain(decision.gain),
        "overload": [asdict(found) for found in overload_of(decision, records)],
        "final": [_contender(found, decision) for found in decision.findings],
        "noise": _noise(decision, records),
        "confidence": CONFIDENCE,
    }


def overload_of(decision: Decision, records: Sequence[TrialRecord]) -> tuple[Overload, ...]:
    """What the overload test showed of the configuration as it is deployed."""
    tests = [test for test in records if test.overload and test.config == decision.config]
    return tests[-1].overload if tests else ()


def _noise(decision: Decision, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """What equal starts of the default told: their noise, and the drifts of the machine."""
    blocks = max((len(found.records) for found in decision.findings), default=0)
    noise = noise_of(records, blocks)
    return {
        **asdict(noise),
        "rates_rps": list(noise.rates_rps),
        "drifts": [
            {"percent": record.drift.percent, "spoilt": list(record.drift.spoils)}
            for record in records
            if record.drift
        ],
    }


def _gain(gain: Gain | None) -> dict[str, Any] | None:
    if gain is None:
        return None
    return {"percent": gain.percent, "low": gain.low, "high": gain.high}


def _contender(found: Finding, decision: Decision) -> dict[str, Any]:
    """A contender of the final; `rates_rps` by block, None where a block was not valid."""
    config = found.contender.config
    return {
        "arm": found.contender.arm,
        "config_id": config.id,
        "parameters": {} if config.batching is None else config.batching.to_dict(),
        "server_flags": dict(config.flags),
        "rates_rps": [record.sustainable_rps for record in found.records],
        "gain": _gain(found.gain),
        "measuring_s": sum(
            record.measuring_s for record in (found.contender.trial, *found.records)
        ),
        **_figures(decision.standing_for(config, found.contender.trial)),
    }


def _of_role(
    records: Sequence[TrialRecord], role: str, decision: Decision
) -> dict[str, Any] | None:
    trial = by_role(records, role)
    return None if trial is None else _figures(decision.standing_for(trial.config, trial))


def _figures(shown: TrialRecord) -> dict[str, Any]:
    """Figures of the start that stands for a configuration."""
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
    decision: Decision,
    records: Sequence[TrialRecord] = (),
    *,
    scenario: str,
    server: ServerIdentity,
    slo: Slo,
    when: str,
) -> str:
    """The recommended batching file, with a header that says why and where it comes from.

    Always a file the server accepts. Where batching off is recommended, or nothing yet, it holds
    the defaults and says so.
    """
    batching = decision.config.batching if decision.recommends else None
    lines = [
        f"{'Recommended' if decision.recommends else 'Written'} by tuner for {scenario}, {when}.",
        f"Verdict: {decision.verdict}. {decision.why[:1].upper()}{decision.why[1:]}.",
        f"SLO: {slo.describe()}.",
        f"Measured on: {server.launcher} server, {server.image or server.version}"
        f"{server.through and f', through {server.through}'}.",
    ]
    # A gain that the final judged is part of the verdict's reason.
    if decision.verdict == "undecided" and decision.gain is not None:
        lines.append(f"Gain of the search over the defaults: {decision.gain.describe()}.")
    for found in overload_of(decision, records):
        words = found.describe()
        lines.append(f"Overload: {words}.")
    if words := told(decision.trial.config, slo, records):
        lines.append(f"The queue: {words}.")
    if batching is None:
        lines.append(
            "Batching is best left OFF: start the server without --enable_batching."
            if decision.recommends and decision.trial.sustainable_rps
            else "Nothing is recommended yet: this file holds the server's defaults."
        )
        batching = BatchingParameters(num_batch_threads=1)
    header = "".join(
        f"# {line}\n" for text in lines for part in text.splitlines() for line in _folded(part)
    )
    return header + batching.to_text()


def _folded(line: str) -> list[str]:
    """A comment in lines that any editor shows whole; what follows the first is indented."""
    return textwrap.wrap(
        line, HEADER_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
