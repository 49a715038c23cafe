"""What the overload tests showed, in words."""

from collections.abc import Iterator
from dataclasses import dataclass

from tuner.records import AT_ONCE_S, LOST, Overload, TrialRecord
from tuner.report.run import Run
from tuner.report.wording import Tone, milliseconds, number, sentence, share
from tuner.search.queue_bound import told
from tuner.search.ranking import search_trials


@dataclass(frozen=True, slots=True)
class OverloadRow:
    """One load above the sustainable rate. `deployed` says that the file as recommended had it."""

    trial: int
    label: str
    load: str
    offered: str
    goodput: str
    shed: str
    late: str
    tail: str
    recovery: str
    finding: str
    tone: Tone
    deployed: bool


def overload_rows(run: Run) -> tuple[OverloadRow, ...]:
    """Every load of every overload test, in the order made."""
    return tuple(
        _row(trial, found, deployed=trial.config.id == run.recommended_id)
        for trial in run.trials
        for found in trial.overload
    )


def _row(trial: TrialRecord, found: Overload, *, deployed: bool) -> OverloadRow:
    batching = trial.config.batching
    queue = batching.max_enqueued_batches if batching is not None else None
    finding, tone = _judged(found)
    bound = "" if queue is None else f", a queue of {queue:,} batch{'' if queue == 1 else 'es'}"
    return OverloadRow(
        trial=trial.number,
        label=f"{trial.config.label()}{bound}",
        load=f"{100 * found.share:.0f} % of its sustainable rate",
        offered=number(found.offered_rps),
        goodput=f"{number(found.goodput_rps)} ({share(found.kept_share)})",
        shed=share(found.shed_share),
        late=share(found.late_share),
        tail=milliseconds(found.answered_tail_ms),
        recovery=_recovery(found.recovery_s),
        finding=finding,
        tone=tone,
        deployed=deployed,
    )


def _judged(found: Overload) -> tuple[str, Tone]:
    """What it does, and how good that is: shedding serves only those who are answered in time."""
    judged = found.judged
    if judged in {"stalls", "collapses"}:
        return judged, "bad"
    if found.kept_share >= LOST:
        return judged, "neutral" if judged == "slows" else "good"
    return f"{judged}, many too late", "neutral"


def overload_remarks(run: Run) -> Iterator[str]:
    """What came of bounding each tested configuration's queue, where there is something to say."""
    for config in dict.fromkeys(trial.config for trial in search_trials(run.trials)):
        if text := told(config, run.slo, run.trials):
            yield sentence(f"{config.label()}: {text}")


def _recovery(seconds: float | None) -> str:
    if seconds is None:
        return "not seen"
    return "at once" if seconds < AT_ONCE_S else f"{seconds:.1f} s"
