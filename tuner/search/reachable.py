"""What can be promised where the SLO cannot: the nearest load, and limits that would be kept."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from tuner.measure.counting import LOOKS, chance_of_error, decide, independence
from tuner.measure.doubts import TOLERANCES, saturated
from tuner.records import Level, Measurement, TrialRecord
from tuner.slo import PERCENTILES, Slo, limit_name, percentile_label
from tuner.words import per_second

Found = tuple[float, TrialRecord, Level]
"""How many times its limits a load took, and whose load it is."""


def instead(records: Sequence[TrialRecord], slo: Slo) -> str:
    """Words that follow "no configuration met the SLO"; empty where nothing was measured."""
    return _nearest(records, slo) + _promise(records, slo) or _failures(records, slo)


def provable_ms(measured: Measurement, name: str, slo: Slo) -> float | None:
    """The smallest limit of a percentile that this load is recorded to keep, surely enough.

    A recorded percentile, the maximum or the SLO's own limit is one if the requests above it pass
    the counting test. None where the samples carry none.
    """
    part, chance = independence(measured), chance_of_error(slo, LOOKS)
    failed = measured.requests - measured.answered
    values = [
        (value, (1 - PERCENTILES[other]) * measured.requests)
        for other, value in measured.percentiles_ms.items()
        if value is not None
    ]
    if measured.max_ms is not None:
        values.append((measured.max_ms, failed))
    values += [
        (limit, measured.over_limit[limit_name(other)])
        for other, limit in slo.limits_ms
        if other == name
    ]
    kept = [
        value
        for value, over in values
        if decide(over * part, measured.requests * part, 1 - PERCENTILES[name], chance)
    ]
    return min(kept, default=None)


def _nearest(records: Sequence[TrialRecord], slo: Slo) -> str:
    """Name the load whose percentiles came nearest to the SLO."""
    found: list[Found] = []
    for record, level in _opened(records):
        values = [
            (level.measurement.percentiles_ms.get(name), limit) for name, limit in slo.limits_ms
        ]
        kept = [value / limit for value, limit in values if value is not None]
        if level.verdict.valid and len(kept) == len(values):
            found.append((max(kept), record, level))
    if not found:
        return ""
    _, record, level = min(found, key=lambda item: item[0])
    measured = level.measurement
    shown = ", ".join(
        f"{percentile_label(name)} of {_shown(measured.percentiles_ms[name] or 0)} ms"
        for name, _ in slo.limits_ms
    )
    errors = f" and {measured.error_rate * 100:.2g} % errors" if measured.error_rate else ""
    load = per_second(measured.offered_rps or 0)
    return f"; the nearest is {record.config.label()} with a {shown}{errors} at {load}"


def _promise(records: Sequence[TrialRecord], slo: Slo) -> str:
    """Name limits that some load is recorded to keep, as near to the SLO's as there are."""
    found: list[tuple[Found, tuple[tuple[str, float], ...]]] = []
    for record, level in _opened(records):
        measured = level.measurement
        if saturated(measured, TOLERANCES) or measured.error_rate > slo.max_error_rate:
            continue
        limits = []
        for name, limit in slo.limits_ms:
            value = provable_ms(measured, name, slo)
            if value is None:
                break
            limits.append((name, max(limit, _rounded_up(value))))
        else:
            times = max(
                ours / limit for (_, ours), (_, limit) in zip(limits, slo.limits_ms, strict=True)
            )
            found.append(((times, record, level), tuple(limits)))
    if not found:
        return ""
    (_, record, level), kept = min(found, key=lambda item: item[0][0])
    shown = ", ".join(f"{percentile_label(name)} <= {limit:g} ms" for name, limit in kept)
    options = " ".join(f"--{name} {limit:g}ms" for name, limit in kept)
    return (
        f"; {shown} would be met, by {record.config.label()} at "
        f"{per_second(level.measurement.offered_rps or 0)} (tuner recommend RUN {options} "
        "names the best configuration for it)"
    )


def _failures(records: Sequence[TrialRecord], slo: Slo) -> str:
    """Say so where it is failed requests that no load was without."""
    levels = [level.measurement for _, level in _opened(records)]
    if not levels:
        return _refusals(records)
    if any(measured.error_rate <= slo.max_error_rate for measured in levels):
        return ""
    kinds: Counter[str] = Counter()
    for measured in levels:
        kinds.update(measured.errors)
    often = f", most often with {kinds.most_common(1)[0][0]}" if kinds else ""
    return f"; requests failed at every load{often}"


def _refusals(records: Sequence[TrialRecord]) -> str:
    """Say why no load was tried at all, by the commonest reason."""
    reasons = Counter(
        f"{failure.text} ({failure.hint})" if failure.hint else failure.text
        for record in records
        if (failure := record.failure) is not None
    )
    return f"; no load could be tried: {reasons.most_common(1)[0][0]}" if reasons else ""


def _opened(records: Sequence[TrialRecord]) -> Iterator[tuple[TrialRecord, Level]]:
    for record in records:
        for level in record.levels:
            if level.measurement.loop == "open" and level.measurement.requests:
                yield record, level


def _rounded_up(value_ms: float) -> float:
    """Up to three digits, so that what is said is kept as it is written."""
    unit = 10.0 ** (math.floor(math.log10(value_ms)) - 2) if value_ms > 0 else 1.0
    return round(math.ceil(value_ms / unit) * unit, 6)


def _shown(value_ms: float) -> str:
    return f"{value_ms:,.0f}" if value_ms >= 10 else f"{value_ms:.2g}"
