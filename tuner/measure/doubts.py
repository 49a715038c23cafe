"""Reasons not to trust a measurement, each with what to do about it.

Overload is none of them: a backlog that grows while a limit is missed is what an infeasible load
looks like.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tuner.measure.counting import independence, needed_samples
from tuner.measure.histogram import HIGHEST_US
from tuner.records import Doubt, Measurement
from tuner.slo import Slo, limit_name


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How much trouble a measurement may have and still be trusted.

    `lateness_share` of the limit is what a late generator may add to a latency, which makes the
    server look worse than it is, never better. It is not asked below `lateness_floor_ms`, where
    ordinary timers lie. `foreign_cpu`, in cores, is what an idle machine's own services stay
    under; `generator_cpu` leaves a single-threaded generator a tenth of its core; below
    `generator_spare` of it requests hardly wait for each other, so that it is not by itself that
    it is late. `backlog_share` of the offered load, growing every second, is no longer a queue
    that wanders. A closed loop may miss `idle_share` of its concurrency.
    """

    lateness_share: float = 0.05
    lateness_floor_ms: float = 0.2
    achieved_share: float = 0.99
    generator_cpu: float = 0.9
    generator_spare: float = 0.25
    foreign_cpu: float = 0.25
    backlog_share: float = 0.01
    idle_share: float = 0.1


TOLERANCES = Tolerances()

DISTURBED = frozenset({"foreign-cpu", "generator-held-up"})
"""Doubts that say that something else than what is measured took the processors."""


def doubts(
    measurement: Measurement,
    slo: Slo,
    feasible: bool | None,
    looks: int,
    tolerances: Tolerances,
) -> Iterator[Doubt]:
    """Yield every doubt about a measurement whose limits were decided as `feasible`."""
    yield from _generator_doubts(measurement, slo, feasible, tolerances)
    yield from _host_doubts(measurement, tolerances)
    yield from _sample_doubts(measurement, slo, feasible, looks)
    yield from _steadiness_doubts(measurement, feasible, tolerances)


def backlog_rps(measurement: Measurement, tolerances: Tolerances) -> float:
    """Growth of the backlog per second, or 0 where it may be a queue that wanders.

    A queue near saturation is a random walk: n arrivals and n departures, were both Poisson,
    move it by sqrt(2 n) in a window. Twice that is no accident.
    """
    if measurement.offered_rps is None:
        return 0.0
    wander_rps = 2 * math.sqrt(2 * measurement.requests) / measurement.window_s
    bound_rps = max(tolerances.backlog_share * measurement.offered_rps, wander_rps)
    slope_rps = measurement.outstanding_slope_rps
    return slope_rps if abs(slope_rps) > bound_rps else 0.0


def saturated(measurement: Measurement, tolerances: Tolerances) -> bool:
    """Whether the load is more than the server can carry, whatever the limits.

    Both have to grow, the unanswered requests beyond what a queue wanders and latency with them:
    then the limits would be missed in a longer window, though they may be kept in this one.
    """
    growing = backlog_rps(measurement, tolerances) > 0
    return growing and (measurement.latency_slope_ms or 0.0) > 0


def _generator_doubts(
    measurement: Measurement, slo: Slo, feasible: bool | None, tolerances: Tolerances
) -> Iterator[Doubt]:
    late = _lateness(measurement, slo, tolerances)
    if late and not (feasible is False and _missed_even_on_time(measurement, slo)):
        yield _late(measurement, late, tolerances)
    if measurement.achieved_share < tolerances.achieved_share:
        yield Doubt(
            "schedule-missed",
            f"only {measurement.achieved_share:.1%} of the scheduled requests were sent in time",
            "lower the offered load or raise load.processes",
        )
    limit = tolerances.generator_cpu * measurement.host.generator_processes
    if measurement.host.generator_cpu > limit:
        yield Doubt(
            "generator-cpu",
            f"the generator used {measurement.host.generator_cpu:.2f} cores",
            "lower the offered load or raise load.processes",
        )
    idle = _idle_share(measurement)
    if idle > tolerances.idle_share:
        yield Doubt(
            "generator-idle",
            f"the closed loop kept {1 - idle:.0%} of its {measurement.concurrency} requests "
            "outstanding (Little's law)",
            "the generator is the bottleneck: lower the concurrency or raise load.processes",
        )


def _late(measurement: Measurement, late: str, tolerances: Tolerances) -> Doubt:
    """Lateness of a generator that had too much to do, or that was kept from running."""
    used, processes = measurement.host.generator_cpu, measurement.host.generator_processes
    if used < tolerances.generator_spare * processes:
        return Doubt(
            "generator-held-up",
            f"{late}, though the generator used {used:.2f} cores only: the machine kept it from "
            "running",
            "stop what else runs, or measure on a machine of its own that no guests share",
        )
    return Doubt(
        "generator-late",
        late,
        "lower the offered load, free a core for the generator or raise load.processes",
    )


def _lateness(measurement: Measurement, slo: Slo, tolerances: Tolerances) -> str:
    """Words for lateness that would bend a limited percentile, or nothing.

    Lateness moves latencies at most as much as its own percentile: the median's limit is held
    against median lateness, a tail's limit against the tail.
    """
    for name, limit_ms in slo.limits_ms:
        at, late_ms = (
            ("p50", measurement.lateness_p50_ms)
            if name == "p50"
            else ("p99", measurement.lateness_p99_ms)
        )
        if late_ms > max(tolerances.lateness_share * limit_ms, tolerances.lateness_floor_ms):
            return (
                f"requests were sent {late_ms:.2f} ms late at {at}, "
                f"{late_ms / limit_ms:.0%} of the limit {limit_name(name)} = {limit_ms:g}"
            )
    return ""


def _missed_even_on_time(measurement: Measurement, slo: Slo) -> bool:
    """Whether a limit would have been missed by a punctual generator too.

    In a first-come first-served system, requests that come at most L later are done at most L
    later; so a punctual generator would have seen latencies at most L shorter than these.
    """
    return any(
        value_ms is not None and value_ms - measurement.lateness_max_ms > limit_ms
        for name, limit_ms in slo.limits_ms
        if name in measurement.percentiles_ms
        for value_ms in (measurement.percentiles_ms[name],)
    )


def _idle_share(measurement: Measurement) -> float:
    """Share of a closed loop's concurrency that was not outstanding, by Little's law N = X * R."""
    if measurement.concurrency is None or measurement.mean_ms is None or measurement.error_rate:
        return 0.0
    number = measurement.requests / measurement.window_s * measurement.mean_ms / 1000
    return 1 - number / measurement.concurrency


def _host_doubts(measurement: Measurement, tolerances: Tolerances) -> Iterator[Doubt]:
    foreign = measurement.host.foreign_cpu
    if foreign is not None and foreign > tolerances.foreign_cpu:
        yield Doubt(
            "foreign-cpu",
            f"other programs, or other guests of this host, used {foreign:.2f} cores",
            "stop them, or measure on a machine of its own",
        )
    if measurement.max_ms is not None and measurement.max_ms > HIGHEST_US / 1000:
        yield Doubt(
            "histogram-overflow",
            "an answer took more than an hour, beyond the histogram's range",
            "set a deadline for requests",
        )


def _sample_doubts(
    measurement: Measurement, slo: Slo, feasible: bool | None, looks: int
) -> Iterator[Doubt]:
    """Doubt an open question only where the samples could not have settled it."""
    needed = math.ceil(needed_samples(slo, looks=looks) / independence(measurement))
    missing = needed - measurement.requests
    if feasible is not None or missing <= 0:
        return
    rate_rps = measurement.requests / measurement.window_s
    remedy = (
        f"a window of {needed / rate_rps:.3g} s at this load" if rate_rps else "a longer window"
    )
    yield Doubt(
        "too-few-samples",
        f"{measurement.requests:,} requests, worth {measurement.effective_samples:.0f} "
        f"independent ones, cannot decide {slo.describe()}: {missing:,} more are needed",
        remedy,
    )


def _steadiness_doubts(
    measurement: Measurement, feasible: bool | None, tolerances: Tolerances
) -> Iterator[Doubt]:
    slope = backlog_rps(measurement, tolerances)
    if slope > 0 and feasible is not False:
        yield Doubt(
            "not-steady",
            f"{slope:.3g} more requests were outstanding every second",
            "measure for longer: latency would still have risen",
        )
    if slope < 0 and feasible is not True:
        yield Doubt(
            "not-steady",
            f"{-slope:.3g} fewer requests were outstanding every second",
            "warm up for longer: the window began with a backlog",
        )
