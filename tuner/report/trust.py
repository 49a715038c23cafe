"""How far a run can be trusted: what was doubted, how late the generator was, how many samples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from tuner.records import Doubt, Measurement
from tuner.report.run import Run, load_points
from tuner.report.tables import contender_ids
from tuner.report.wording import MISSING, number, share, signed_percent
from tuner.search.ranking import search_trials

NARROW = "\u00a0"
"""A space that no line ends at."""


@dataclass(frozen=True, slots=True)
class DoubtCount:
    """One kind of doubt: how many measurements it touched, an example, and the remedy."""

    doubt: Doubt
    count: int


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the section: what, how much, and why it matters."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What a reader needs to decide how far to believe the figures."""

    facts: tuple[Fact, ...]
    doubts: tuple[DoubtCount, ...]


def trust(run: Run) -> Trust:
    """Sum up the quality of all measurements of a run."""
    points = list(load_points(run))
    if not points:
        return Trust((), ())
    measurements = [point.measurement for point in points]
    valid = sum(point.level.verdict.valid for point in points)
    facts = (
        Fact(
            "Valid measurements",
            f"{valid} of {len(points)} ({share(valid / len(points))})",
            "only valid ones are ranked",
        ),
        *_again(run),
        *_drifts(run),
        _loops(measurements),
        _samples(measurements),
        Fact(
            "Lateness of the generator",
            f"p99 {_span(m.lateness_p99_ms for m in measurements)} ms",
            "sent minus intended; latency counts from the intended instant, so it is included",
        ),
        Fact(
            "Load generator's CPU",
            f"at most {_most(m.host.generator_cpu for m in measurements)} cores",
            "one process uses one core; near 1.0 it is the bottleneck itself",
        ),
        Fact(
            "CPU used by others",
            f"at most {_most(m.host.foreign_cpu for m in measurements)} cores",
            "work of the host that neither server nor generator did",
        ),
    )
    return Trust(facts, _doubts(run))


def _again(run: Run) -> Iterator[Fact]:
    """The search's figure of the recommended beside the final's: what picking the best adds."""
    ids = contender_ids(run, "recommended")
    alike = [trial for trial in run.trials if trial.config.id in ids and trial.sustainable_rps]
    final = [trial.sustainable_rps or 0.0 for trial in alike if trial.role == "final"]
    search = [trial.sustainable_rps or 0.0 for trial in search_trials(alike)]
    if not final:
        return
    middle = median(final)
    if len(final) > 1:
        spread = (max(final) / min(final) - 1) * 100
        yield Fact(
            "Fresh starts of the recommended",
            f"{number(min(final))} to {number(max(final))}/s ({spread:.0f}{NARROW}% apart)",
            "how much one start differs from the next here; gains are taken within blocks",
        )
    if search:
        off = signed_percent((middle / search[0] - 1) * 100)
        yield Fact(
            "Search against final",
            f"{number(search[0])}/s, then {number(middle)}/s ({off})",
            "the best of many readings is a lucky one; the final's figure is the one to plan with",
        )


def _drifts(run: Run) -> Iterator[Fact]:
    for trial in run.trials:
        if trial.drift is not None:
            yield Fact(
                "Drift",
                f"{signed_percent(trial.drift.percent)} seen at trial {trial.number}",
                f"the machine changed; {len(trial.drift.spoils)} trials were measured again",
            )


def _loops(measurements: list[Measurement]) -> Fact:
    opened = sum(m.loop == "open" for m in measurements)
    return Fact(
        "Loops",
        f"{opened} open, {len(measurements) - opened} closed",
        "latency is from the open loop, the peak throughput from the closed loop",
    )


def _samples(measurements: list[Measurement]) -> Fact:
    counts = sorted(m.requests for m in measurements)
    effective = min(m.effective_samples for m in measurements)
    return Fact(
        "Requests a measurement",
        f"{counts[0]:,} to {counts[-1]:,}, median {counts[len(counts) // 2]:,}",
        f"at least {effective:,.0f} of them independent; a p99 needs 1,000",
    )


def _span(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{number(min(listed))} to {number(max(listed))}"


def _most(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number(max(known)) if known else MISSING


def _doubts(run: Run) -> tuple[DoubtCount, ...]:
    found: dict[str, list[Doubt]] = {}
    for point in load_points(run):
        for doubt in point.level.verdict.doubts:
            found.setdefault(doubt.code, []).append(doubt)
    ranked = sorted(found.values(), key=len, reverse=True)
    return tuple(DoubtCount(doubts[0], len(doubts)) for doubts in ranked)


def trial_reasons(run: Run) -> dict[int, str]:
    """Say for every trial that is not `ok`, by number, why."""
    reasons: dict[int, str] = {}
    for trial in run.trials:
        verdicts = [level.verdict for level in trial.levels]
        if trial.failure is not None:
            who = "" if trial.failure.by == "config" else "host: "
            reasons[trial.number] = f"{who}{trial.failure.text}"
        elif trial.outcome == "invalid":
            doubts = [doubt for verdict in verdicts for doubt in verdict.doubts]
            reasons[trial.number] = _join(doubts) or "no measurement could be trusted"
        elif trial.outcome == "infeasible":
            texts = [text for verdict in verdicts if verdict.valid for text in verdict.reasons]
            reasons[trial.number] = texts[0] if texts else "the SLO held at no load tried"
    return reasons


def _join(doubts: Iterable[Doubt]) -> str:
    """Join one text of each kind: the same doubt touches many levels, each with its number."""
    first: dict[str, str] = {}
    for doubt in doubts:
        first.setdefault(doubt.code, doubt.text)
    return "; ".join(first.values())
