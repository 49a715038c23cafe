"""What the overload tests showed, in words."""

from dataclasses import dataclass

from tuner.records import LOST, Overload, TrialRecord
from tuner.report.run import Run
from tuner.report.wording import Tone, milliseconds, number, share

HALF = 0.5
AT_ONCE = 0.05


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
    bound = "" if queue is None else f", a queue of {queue:,} batches"
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
    if found.finding in {"carries", "stalls"}:
        return found.finding, "good" if found.finding == "carries" else "bad"
    if found.kept_share >= LOST:
        return found.finding, "good" if found.finding == "sheds" else "neutral"
    if found.kept_share >= HALF:
        return f"{found.finding}, many too late", "neutral"
    return f"{found.finding}, {'most' if found.goodput_rps else 'all'} too late", "bad"


def _recovery(seconds: float | None) -> str:
    if seconds is None:
        return "not seen"
    return "at once" if seconds < AT_ONCE else f"{seconds:.1f} s"
