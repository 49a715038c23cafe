"""Trial records written out by hand, for tests of what is decided from them."""

from tuner.batching import BatchingParameters
from tuner.records import Config, Failure, HostEvidence, Level, Measurement, TrialRecord, Verdict
from tuner.search.space import UNBOUNDED_QUEUE, baselines

OFF, DEFAULT = (config for _, config in baselines(2))


def batched(max_batch_size: int, *, timeout: int = 0, threads: int = 1) -> Config:
    """A configuration as the search measures it, its queue unbounded."""
    return Config(
        BatchingParameters(
            max_batch_size=max_batch_size,
            batch_timeout_micros=timeout,
            max_enqueued_batches=UNBOUNDED_QUEUE,
            num_batch_threads=threads,
        )
    )


def level(
    rate_rps: float, *, p99_ms: float | None = 20.0, held: bool | None = True, valid: bool = True
) -> Level:
    """One open-loop load of one-row requests."""
    measurement = Measurement(
        loop="open",
        offered_rps=rate_rps,
        concurrency=None,
        window_s=2.0,
        drain_s=0.1,
        warmup_s=1.0,
        requests=int(2 * rate_rps),
        answered=int(2 * rate_rps),
        throughput_rps=rate_rps,
        goodput_rps=rate_rps,
        rows_rps=rate_rps,
        mean_ms=5.0,
        max_ms=30.0,
        percentiles_ms={"p50": 4.0, "p99": p99_ms},
        over_limit={"p99_ms": 0},
        errors={},
        lateness_p50_ms=0.1,
        lateness_p99_ms=0.5,
        lateness_max_ms=1.0,
        achieved_share=1.0,
        outstanding_slope_rps=0.0,
        effective_samples=float(int(rate_rps)),
        host=HostEvidence(server_cpu=0.9, generator_cpu=0.2, foreign_cpu=0.0),
    )
    margin = 0.5 if held else -0.5
    return Level(measurement, Verdict(valid, held, {"p99_ms": margin}))


def trial(
    number: int,
    role: str,
    config: Config,
    rate_rps: float | None,
    *,
    block: int | None = None,
    step: float = 1.1,
    **more,
) -> TrialRecord:
    """A measured trial: `rate_rps` sustained, 0 where the SLO held nowhere, None where invalid.

    The load that is `step` times as high missed the SLO.
    """
    outcome = "invalid" if rate_rps is None else "ok" if rate_rps else "infeasible"
    return TrialRecord(
        number=number,
        role=role,
        config=config,
        outcome=outcome,
        started="2026-01-01T00:00:00Z",
        wall_s=more.pop("wall_s", 20.0),
        measuring_s=12.0,
        start_s=3.0,
        peak_rps=(rate_rps or 100.0) * 1.2,
        sustainable_rps=rate_rps,
        ceiling_rps=(rate_rps or 100.0) * step,
        reference_level=0 if rate_rps else None,
        levels=(
            level(rate_rps or 100.0, held=bool(rate_rps), valid=rate_rps is not None),
            level((rate_rps or 100.0) * step, p99_ms=90.0, held=False),
        ),
        block=block,
        environment_id="e-12345678",
        **more,
    )


def crashed(number: int, role: str, config: Config) -> TrialRecord:
    """A trial whose server did not live to be measured."""
    return TrialRecord(
        number=number,
        role=role,
        config=config,
        outcome="failed",
        started="2026-01-01T00:00:00Z",
        wall_s=4.0,
        measuring_s=0.0,
        failure=Failure("config", "the server exited before it was ready (exit code 1)"),
    )
