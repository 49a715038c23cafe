"""From a Measurement to a Verdict: whether it can be trusted, and whether the promise is kept.

*Feasible* is decided by counting, not by one noisy percentile: kept, where so few requests over
the limit would be improbable if it were missed; missed, where so many would be improbable if it
were kept; undecided in between. Correlated requests count as the fewer independent ones they are
worth. A load under which queue and latency grow is missed as well: a longer window would show it.
*Valid* is another question, and has no part in the answer to the first.
"""

from collections.abc import Iterable, Sequence

from tuner.measure.counting import chance_of_error, decide, independence
from tuner.measure.doubts import TOLERANCES, Tolerances, backlog_rps, saturated
from tuner.measure.doubts import doubts as doubts_of
from tuner.records import Measurement, Verdict
from tuner.slo import ERROR_RATE, PERCENTILES, Slo, limit_name, percentile_label


def judge(
    measurement: Measurement,
    slo: Slo,
    *,
    looks: int = 1,
    tolerances: Tolerances = TOLERANCES,
) -> Verdict:
    """Judge one measurement; `looks` is how often this load is judged at most, counting this.

    The error rate is judged by counting like a latency limit, with one difference: no failure at
    all is within every limit. A small limit could otherwise be proven only by thousands of
    requests, and failures are over every latency limit already. A limit of 0 allows none.
    """
    chance = chance_of_error(slo, looks)
    decisions = {name: _latency_kept(measurement, name, chance) for name, _ in slo.limits_ms}
    errors_kept = _errors_kept(measurement, slo, chance)
    answers = [*decisions.values(), errors_kept]
    feasible = False if False in answers else (None if None in answers else True)
    if saturated(measurement, tolerances):
        feasible = False
    reasons = [
        _latency_reason(measurement, name, limit_ms, decisions[name])
        for name, limit_ms in slo.limits_ms
        if not decisions[name]
    ]
    if not errors_kept:
        reasons.append(_error_reason(measurement, slo, errors_kept))
    if feasible is False and (growth_rps := backlog_rps(measurement, tolerances)) > 0:
        latency_ms = measurement.latency_slope_ms or 0.0
        slower = f", each second's answered {latency_ms:.3g} ms later" if latency_ms > 0 else ""
        reasons.append(
            f"the server fell behind: {growth_rps:.3g} more requests outstanding every second"
            f"{slower}"
        )
    doubts = tuple(doubts_of(measurement, slo, feasible, looks, tolerances))
    return Verdict(not doubts, feasible, _margins(measurement, slo), tuple(reasons), doubts)


def kept_together(measurements: Sequence[Measurement], slo: Slo, *, looks: int) -> bool:
    """Whether the lowest of several loads is shown to keep the SLO by the counts of all.

    More load makes no request faster. So were the lowest to miss a limit, all would, and of all
    their requests together at least as many would be over it as the limit's own share: that so
    few are then is as improbable as for one load. A load with a server whose requests wait for a
    batch to fill is none to argue so for.
    """
    chance = chance_of_error(slo, looks)
    parts = [independence(measured) for measured in measurements]

    def total(counts: Iterable[int]) -> float:
        return sum(count * part for count, part in zip(counts, parts, strict=True))

    samples = total(measured.requests for measured in measurements)
    for name, _ in slo.limits_ms:
        over = total(measured.over_limit[limit_name(name)] for measured in measurements)
        if not decide(over, samples, 1 - PERCENTILES[name], chance):
            return False
    failed = total(measured.requests - measured.answered for measured in measurements)
    if not failed:
        return True
    return slo.max_error_rate > 0 and bool(decide(failed, samples, slo.max_error_rate, chance))


def _latency_kept(measurement: Measurement, name: str, chance: float) -> bool | None:
    part = independence(measurement)
    over = measurement.over_limit[limit_name(name)]
    return decide(over * part, measurement.requests * part, 1 - PERCENTILES[name], chance)


def _errors_kept(measurement: Measurement, slo: Slo, chance: float) -> bool | None:
    failed = measurement.requests - measurement.answered
    if failed == 0 or slo.max_error_rate == 0:
        return failed == 0
    part = independence(measurement)
    return decide(failed * part, measurement.requests * part, slo.max_error_rate, chance)


def _latency_reason(
    measurement: Measurement, name: str, limit_ms: float, kept: bool | None
) -> str:
    over = measurement.over_limit[limit_name(name)]
    counted = (
        f"{over:,} of {measurement.requests:,} requests took longer or failed, "
        f"{(1 - PERCENTILES[name]) * 100:g} % may"
    )
    promise = f"{percentile_label(name)} <= {limit_ms:g} ms"
    return f"{promise} is {'undecided' if kept is None else 'missed'}: {counted}"


def _error_reason(measurement: Measurement, slo: Slo, kept: bool | None) -> str:
    failed = measurement.requests - measurement.answered
    kinds = ", ".join(
        f"{number:,} x {kind}" for kind, number in list(measurement.errors.items())[:3]
    )
    counted = f"{failed:,} of {measurement.requests:,} requests failed ({kinds})"
    promise = f"errors <= {slo.max_error_rate * 100:g} %"
    return f"{promise} is {'undecided' if kept is None else 'missed'}: {counted}"


def _margins(measurement: Measurement, slo: Slo) -> dict[str, float]:
    """(limit - value) / limit by limit.

    Where the samples do not carry the percentile, or it falls among failures, the share of
    requests over the limit is compared instead: its margin has the same sign.
    """
    margins: dict[str, float] = {}
    requests = max(1, measurement.requests)
    for name, limit_ms in slo.limits_ms:
        value_ms = measurement.percentiles_ms.get(name)
        allowed = 1 - PERCENTILES[name]
        over = measurement.over_limit[limit_name(name)] / requests
        margins[limit_name(name)] = (
            (allowed - over) / allowed if value_ms is None else (limit_ms - value_ms) / limit_ms
        )
    # A limit of 0 is no unit; one failure in a thousand then is.
    unit = slo.max_error_rate or 1e-3
    margins[ERROR_RATE] = (slo.max_error_rate - measurement.error_rate) / unit
    return margins
