"""`tuner recommend`: what the recorded run says for another SLO."""

from collections.abc import Mapping
from typing import Any

from tuner.clock import utc_now
from tuner.commands.publish import describe, identity_of, scenario_of
from tuner.errors import InputError, UsageError
from tuner.search.decide import decide
from tuner.search.recommend import file_text
from tuner.search.rejudge import rejudge
from tuner.slo import Slo
from tuner.store import RunDirectory


def recommend(
    run: RunDirectory, limits_ms: Mapping[str, float], max_error_rate: float | None
) -> tuple[dict[str, Any], str]:
    """Recommend for `limits_ms` (by percentile name), or for the run's own SLO where empty.

    Returns the object of `recommendation.json` and the batching file's text. Raises UsageError
    where the run has measured nothing.
    """
    scenario = scenario_of(run)
    own = scenario.limits()
    try:
        slo = Slo(
            limits_ms=tuple(limits_ms.items()) or own.limits_ms,
            max_error_rate=own.max_error_rate if max_error_rate is None else max_error_rate,
            confidence=own.confidence,
        )
    except InputError as error:
        raise UsageError(error.message, hint=error.hint) from None
    records = [rejudge(record, slo, run.path) for record in run.trials()]
    decision = decide(records, slo)
    if decision is None:
        raise UsageError(
            f"{run.path}: no trial has measured anything yet",
            hint=f"go on with: tuner tune --resume {run.path}",
        )
    server = identity_of(run.environment())
    text = file_text(
        decision, records, scenario=scenario.name, server=server, slo=slo, when=utc_now()
    )
    return describe(decision, records, scenario, server, slo, run), text
