"""How far a run can be trusted: what was doubted, how late the generator was, how many samples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tuner.measure.percentiles import samples_for
from tuner.records import Doubt, Measurement
from tuner.report.facts import NARROW, Fact
from tuner.report.noise_floor import noise_floor, steps
from tuner.report.run import Run, load_points
from tuner.report.tables import contender_ids
from tuner.report.wording import MISSING, number, share, signed_percent
from tuner.search.ranking import bounded, search_trials, spoilt, surpassed
from tuner.slo import percentile_label


@dataclass(frozen=True, slots=True)
class DoubtCount:
    """One kind of doubt: how many measurements it touched, an example, and the remedy."""

    doubt: Doubt
    count: int


@dataclass(frozen=True, slots=True)
class NoteCount:
    """One kind of note on curves: the first such note, and the trials that have one."""

    note: Doubt
    trials: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What a reader needs to decide how far to believe the figures."""

    facts: tuple[Fact, ...]
    doubts: tuple[DoubtCount, ...]
    notes: tuple[NoteCount, ...] = ()


def trust(run: Run) -> Trust:
    """Sum up the quality of all measurements of a run."""
    points = list(load_points(run))
    if not points:
        return Trust((), (), ())
    measurements = [point.measurement for point in points]
    valid = sum(point.level.verdict.valid for point in points)
    facts = (
        Fact(
            "Valid measurements",
            f"{valid} of {len(points)} ({share(valid / len(points))})",
            "only valid ones are ranked",
        ),
        *_repeated(run),
        *noise_floor(run),
        *_again(run),
        *_lower_bounds(run),
        *steps(run),
        *_drifts(run),
        *_understated(run),
        _loops(measurements),
        _samples(measurements, run.percentile),
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
    return Trust(facts, _doubts(run), _notes(run))


def _repeated(run: Run) -> Iterator[Fact]:
    """What was measured more than once because the first time did not count."""
    lost = spoilt(run.trials)
    invalid = [trial for trial in run.trials if trial.outcome == "invalid"]
    again = {
        trial.config.id
        for trial in run.trials
        if trial in invalid or trial.number in lost
        for other in run.trials
        if other.number > trial.number and other.config == trial.config
    }
    if invalid or lost:
        yield Fact(
            "Trials that do not count",
            f"{len(invalid)} invalid, {len(lost)} spoilt by drift",
            f"{len(again)} of these configurations were measured again",
        )
    looks = sum(point.measurement.looks > 1 for point in load_points(run))
    if looks:
        yield Fact(
            "Windows prolonged",
            f"{looks} measurements",
            "one window did not decide the promise, so further ones were added to it",
        )


def _notes(run: Run) -> tuple[NoteCount, ...]:
    found: dict[str, list[tuple[int, Doubt]]] = {}
    for trial in run.trials:
        for note in trial.notes:
            found.setdefault(note.code, []).append((trial.number, note))
    return tuple(
        NoteCount(noted[0][1], _listed(list(dict.fromkeys(number for number, _ in noted))))
        for noted in found.values()
    )


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown} and {len(numbers) - 8} more" if len(numbers) > 8 else shown


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
        kept = run.recommended_id in contender_ids(run, "default")
        lucky = "" if kept else "the best of many readings is a lucky one; "
        off = signed_percent((middle / search[0] - 1) * 100)
        yield Fact(
            "Search against final",
            f"{number(search[0])}/s, then {number(middle)}/s ({off})",
            f"{lucky}the final's figure is the one to plan with",
        )


def _lower_bounds(run: Run) -> Iterator[Fact]:
    """Rates of the final that may be higher: the difference counts what was held."""
    final = [trial for trial in run.trials if trial.role == "final" and trial.sustainable_rps]
    lower = [trial.number for trial in final if not bounded(trial)]
    if lower:
        yield Fact(
            "Lower bounds in the final",
            f"{len(lower)} of {len(final)} starts (trial {_listed(lower)})",
            "no load above was seen to miss the promise there; the difference is taken from what "
            "was held",
        )


def _drifts(run: Run) -> Iterator[Fact]:
    for trial in run.trials:
        if trial.drift is not None:
            yield Fact(
                "Drift",
                f"{signed_percent(trial.drift.percent)} seen at trial {trial.number}",
                f"the machine changed; {len(trial.drift.spoils)} trials were measured again",
            )


def _understated(run: Run) -> Iterator[Fact]:
    """Overload tests that contradict the rate they are made of."""
    kept = [
        f"{share(found.share)} in trial {trial.number}"
        for trial in run.trials
        if (found := surpassed(trial)) is not None
    ]
    if kept:
        yield Fact(
            "Carried beyond the rate",
            ", ".join(kept),
            "overload tests kept the latency limits at more than the sustainable rate, so that "
            "the true one may be higher: a rate is stated where enough requests show it; with a "
            "longer measure.max_window_s higher ones are shown too",
        )


def _loops(measurements: list[Measurement]) -> Fact:
    opened = sum(m.loop == "open" for m in measurements)
    return Fact(
        "Loops",
        f"{opened} open, {len(measurements) - opened} closed",
        "latency is from the open loop, the peak throughput from the closed loop",
    )


def _samples(measurements: list[Measurement], percentile: str) -> Fact:
    counts = sorted(m.requests for m in measurements)
    effective = min(m.effective_samples for m in measurements)
    return Fact(
        "Requests a measurement",
        f"{counts[0]:,} to {counts[-1]:,}, median {counts[len(counts) // 2]:,}",
        f"at least {effective:,.0f} of them independent; {percentile_label(percentile)} is "
        f"shown from {samples_for(percentile):,} requests on",
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
