"""What a run has measured, in the form that a fit of the service model needs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.records import Level, Measurement, TrialRecord
from tuner.simulate.policy import Policy
from tuner.slo import PERCENTILES

Traits = tuple[tuple[str, str], ...]

SATURATED = 0.93
"""Throughput below this share of the offered load: the server could not keep up."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One load on one configuration.

    `offered_rps` of an open loop, or `concurrency` of a closed one. `percentiles_ms` are pairs of
    a share and the latency that this share of requests did not exceed. `independent` is how many
    independent requests they are worth. `requests` were counted, after `before` others had come
    while it warmed up; 0 where that is not known. The server's own figures are None where it gave
    none.
    """

    throughput_rps: float
    offered_rps: float | None = None
    concurrency: int | None = None
    percentiles_ms: tuple[tuple[float, float], ...] = ()
    independent: float = 100.0
    rows_per_batch: float | None = None
    run_ms: float | None = None
    requests: int = 0
    before: int = 0

    @property
    def saturated(self) -> bool:
        """Whether the load exceeded what the server could do."""
        return self.offered_rps is not None and (
            self.throughput_rps < SATURATED * self.offered_rps
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured of one configuration; `sustainable_rps` None where that is open.

    `traits` are the flags that may make its batches faster or slower, as names and values.
    """

    policy: Policy
    points: tuple[CurvePoint, ...]
    sustainable_rps: float | None = None
    traits: Traits = ()


def curves_of(records: Iterable[TrialRecord], *, cpus: int) -> list[Curve]:
    """The curves of all trials that measured anything."""
    curves = [curve_of(record, cpus=cpus) for record in records if record.levels]
    return [curve for curve in curves if curve.points]


def curve_of(record: TrialRecord, *, cpus: int) -> Curve:
    """One trial's curve: its closed-loop peak and its open-loop levels, the untrusted left out."""
    return Curve(
        policy=Policy.of(record.config, cpus=cpus),
        points=tuple(_point(level.measurement) for level in record.levels if _trusted(level)),
        sustainable_rps=record.sustainable_rps,
        traits=record.config.flags,
    )


def _trusted(level: Level) -> bool:
    """A level that only lacks samples is worth as much as it has."""
    codes = {doubt.code for doubt in level.verdict.doubts}
    return level.measurement.answered > 0 and codes <= {"too-few-samples", "unsteady"}


def _point(measured: Measurement) -> CurvePoint:
    server = measured.server
    closed = measured.loop == "closed"
    return CurvePoint(
        throughput_rps=measured.throughput_rps,
        offered_rps=None if closed else measured.offered_rps,
        concurrency=measured.concurrency if closed else None,
        percentiles_ms=_percentiles(measured.percentiles_ms),
        independent=max(1.0, measured.effective_samples),
        rows_per_batch=None if server is None else server.rows_per_batch,
        run_ms=None if server is None else server.run_ms,
        requests=measured.requests,
        before=round((measured.offered_rps or 0.0) * measured.warmup_s),
    )


def _percentiles(by_name: Mapping[str, float | None]) -> tuple[tuple[float, float], ...]:
    return tuple(
        (PERCENTILES[name], value)
        for name, value in by_name.items()
        if name in PERCENTILES and value is not None
    )
