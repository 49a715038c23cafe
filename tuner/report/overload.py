"""What the overload tests showed, in words."""

from dataclasses import dataclass

from tuner.records import Overload, TrialRecord
from tuner.report.run import Run
from tuner.report.wording import milliseconds, number, share


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
    bound = "" if queue is None else f", a queue of {queue:,} batches"
    return OverloadRow(
        trial=trial.number,
        label=f"{trial.config.label()}{bound}",
        load=f"{100 * found.share:.0f} % of its sustainable rate",
        offered=number(found.offered_rps),
        goodput=number(found.goodput_rps),
        shed=share(found.shed_share),
        late=share(found.late_share),
        tail=milliseconds(found.answered_tail_ms),
        recovery="not seen" if found.recovery_s is None else f"{found.recovery_s:.1f} s",
        finding=found.finding,
        deployed=deployed,
    )
