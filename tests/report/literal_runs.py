"""Runs written down by hand: what a store would hand to a report."""

from dataclasses import replace

from tuner.batching import BatchingParameters
from tuner.records import (
    Config,
    Doubt,
    Failure,
    HostEvidence,
    Level,
    Measurement,
    ServerEvidence,
    ServerIdentity,
    TrialRecord,
    Verdict,
)
from tuner.report.run import Run
from tuner.slo import Slo

EVIL = "<script>window.stolen=1;alert(1)</script> \"q\" 's' &amp; \u202eRTL $x^2$ " + "W" * 10_000
"""What a scenario, a model or a server may call itself."""

OFF = Config(None)
DEFAULT = Config(BatchingParameters())
BEST = Config(
    BatchingParameters(max_batch_size=32, batch_timeout_micros=2000, num_batch_threads=2)
)
OTHER = Config(BatchingParameters(max_batch_size=8, allowed_batch_sizes=(4, 8)))

LATE = Doubt("generator-late", "sent 9 ms late at p99", "add client processes")


def level(
    offered,
    p99,
    *,
    feasible=True,
    valid=True,
    loop="open",
    throughput=None,
    percentiles=None,
    rows=None,
    doubts=(LATE,),
):
    measurement = Measurement(
        loop=loop,
        offered_rps=None if loop == "closed" else offered,
        concurrency=64 if loop == "closed" else None,
        window_s=10.0,
        drain_s=0.1,
        warmup_s=2.0,
        requests=2000,
        answered=2000,
        throughput_rps=offered if throughput is None else throughput,
        goodput_rps=0.99 * offered,
        rows_rps=offered,
        mean_ms=12.0,
        max_ms=90.0,
        percentiles_ms=percentiles or {"p50": 10.0, "p90": 20.0, "p99": p99},
        over_limit={"p99_ms": 3},
        errors={},
        lateness_p50_ms=0.1,
        lateness_p99_ms=0.8,
        lateness_max_ms=4.0,
        achieved_share=1.0,
        outstanding_slope_rps=0.0,
        effective_samples=1500.0,
        host=HostEvidence(1.0, 0.31, 0.05),
        server=rows and ServerEvidence(200, rows, 0.125, 4.5),
        seed=7,
    )
    verdict = Verdict(
        valid=valid,
        feasible=feasible if valid else None,
        margins={"p99_ms": 0.1},
        reasons=() if feasible else ("p99 was over 60 ms",),
        doubts=() if valid else doubts,
    )
    return Level(measurement, verdict)


def trial(number, role, config, levels=(), *, reference=None, outcome="ok", **rest):
    sustainable = levels[reference].measurement.offered_rps if reference is not None else None
    return TrialRecord(
        number,
        role,
        config,
        outcome,
        "2026-03-01T10:00:00Z",
        30.0,
        20.0,
        peak_rps=700.0,
        sustainable_rps=sustainable,
        reference_level=reference,
        levels=tuple(levels),
        **rest,
    )


def figures(rps, p99, rows):
    return {
        "sustainable_rps": rps,
        "p99_ms": p99,
        "throughput_rps": rps,
        "rows_per_batch": rows,
        "valid": True,
    }


def gain_run() -> Run:
    """Off carries 100/s, the default 200/s, the recommended 500/s, another 300/s."""
    return Run(
        name="quickstart",
        directory=None,
        scenario_text="[slo]\np99_ms = 60\n",
        slo=Slo((("p99", 60.0),)),
        server=ServerIdentity("embedded", "0.1.0, TensorFlow 2.21.0"),
        environment={"host": {"cpu_model": "Twin Core", "cpus": 2}},
        trials=(
            trial(
                0, "off", OFF, [level(100, 40.0), level(150, 80.0, feasible=False)], reference=0
            ),
            trial(
                1,
                "default",
                DEFAULT,
                [level(200, 45.0, rows=2.5), level(300, 900.0, feasible=False, throughput=250)],
                reference=0,
            ),
            trial(
                2,
                "guide",
                OTHER,
                [level(300, 30.0, rows=6.0), level(320, 59.0, valid=False)],
                reference=0,
            ),
            trial(
                3,
                "sampler",
                BEST,
                [
                    level(210, 35.0, rows=9.0),
                    level(500, 55.0, rows=24.0),
                    level(600, 75.0, feasible=False),
                    level(700, 20.0, loop="closed"),
                ],
                reference=1,
            ),
        ),
        recommendation={
            "schema_version": 1,
            "scenario": "quickstart",
            "verdict": "gain",
            "parameters": BEST.batching.to_dict(),
            "flags": {"enable_batching": "true", "grpc_max_threads": "256"},
            "recommended": figures(500.0, 55.0, 24.0),
            "default": figures(200.0, 45.0, 2.5),
            "off": figures(100.0, 40.0, None),
            "gain": {"percent": 150.0, "low": 141.0, "high": 160.0},
            "why": "It carried the most load in every block.",
            "config_id": BEST.id,
        },
        batching_text=BEST.batching.to_text(),
    )


def deployed_run() -> Run:
    """As `gain_run`, with a final: the recommended measured again with its queue bounded."""
    run = gain_run()
    bounded = replace(BEST, batching=replace(BEST.batching, max_enqueued_batches=7))
    final = trial(
        4,
        "final",
        bounded,
        [level(480, 50.0, rows=22.0), level(510, 61.0, feasible=False)],
        reference=0,
        block=0,
    )
    recommendation = {
        **run.recommendation,
        "config_id": bounded.id,
        "parameters": bounded.batching.to_dict(),
        "recommended": figures(480.0, 50.0, 22.0),
    }
    return replace(run, trials=(*run.trials, final), recommendation=recommendation)


def without_recommendation(run: Run, *trials: TrialRecord) -> Run:
    nothing = {
        "verdict": "none",
        "recommended": None,
        "default": None,
        "off": None,
        "gain": None,
        "config_id": None,
        "why": "",
        "flags": {},
        "parameters": {},
    }
    return replace(run, trials=trials, recommendation=nothing, batching_text="")


def infeasible_run() -> Run:
    levels = [level(50, 90.0, feasible=False)]
    trials = (
        trial(0, "off", OFF, levels, outcome="infeasible"),
        trial(1, "default", DEFAULT, levels, outcome="infeasible"),
    )
    return without_recommendation(gain_run(), *trials)


def invalid_run() -> Run:
    invalid = trial(0, "off", OFF, [level(50, 9.0, valid=False)] * 2, outcome="invalid")
    return without_recommendation(gain_run(), invalid)


def failed_run(text="the server exited with code 255", log_tail="out of memory") -> Run:
    failure = Failure("config", text, "lower max_batch_size", log_tail)
    return without_recommendation(
        gain_run(), trial(0, "off", OFF, outcome="failed", failure=failure)
    )


def one_trial_run() -> Run:
    """Batching off is all that was measured, so that nothing is recommended yet."""
    run = without_recommendation(gain_run(), gain_run().trials[0])
    only = {"verdict": "undecided", "off": gain_run().recommendation["off"]}
    return replace(run, recommendation={**run.recommendation, **only})


def off_run() -> Run:
    """Batching off has won."""
    run = gain_run()
    off = {"config_id": OFF.id, "recommended": run.recommendation["off"], "parameters": {}}
    return replace(run, recommendation={**run.recommendation, **off}, batching_text="")


def empty_run() -> Run:
    return replace(
        gain_run(),
        trials=(),
        recommendation={},
        batching_text="",
        environment={},
        scenario_text="",
    )


def with_verdict(verdict, **changes) -> Run:
    run = gain_run()
    return replace(run, recommendation={**run.recommendation, "verdict": verdict, **changes})


def evil_run():
    run = failed_run(EVIL, EVIL + "\x00\x1b[31m\udc80")
    batching = BatchingParameters(max_batch_size=7, thread_pool_name=EVIL)
    off, default, other, best = gain_run().trials
    other = replace(other, config=Config(OTHER.batching, (("flag", EVIL),)))
    trials = (off, default, other, best, replace(run.trials[0], number=9, config=Config(batching)))
    return replace(
        gain_run(),
        name=EVIL,
        scenario_text=EVIL,
        server=ServerIdentity("docker", EVIL, EVIL, EVIL),
        environment={EVIL: EVIL, "list": [1, EVIL]},
        trials=(*trials, *invalid_run().trials),
        recommendation={
            **gain_run().recommendation,
            "why": EVIL,
            "flags": {EVIL: EVIL},
        },
        batching_text=EVIL,
    )


def big_run(trials: int) -> Run:
    """A long night: so many configurations with eight loads each."""
    run = gain_run()
    more = tuple(
        trial(
            number,
            "sampler",
            Config(
                BatchingParameters(
                    max_batch_size=1 + number % 128,
                    batch_timeout_micros=100 * (number % 41),
                    num_batch_threads=1 + number % 4,
                )
            ),
            [
                level(
                    (80 + number % 97) * step,
                    (4 + number % 13) * step,
                    rows=1.5 * step,
                    feasible=(4 + number % 13) * step <= 60,
                )
                for step in range(1, 9)
            ],
            reference=2,
        )
        for number in range(4, trials)
    )
    return replace(run, trials=(*run.trials, *more))
