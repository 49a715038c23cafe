"""From a task to its record: start the server, measure, stop it, whatever happens between."""

import math
from contextlib import ExitStack
from dataclasses import replace

from tuner.clock import NS_PER_S, now_ns, utc_now
from tuner.errors import CandidateError, disk
from tuner.ladder import Rungs
from tuner.load.generator import Generator
from tuner.measure.curve import CLIENT_LIMITED, notes
from tuner.measure.gpu import GpuMeter
from tuner.records import Doubt, Failure, TrialRecord
from tuner.server.launcher import Server
from tuner.trial.asked import generator_for
from tuner.trial.climb import climb, index_of, ladder_from
from tuner.trial.levels import Levels
from tuner.trial.long_load import long_load
from tuner.trial.overload import overload_test
from tuner.trial.session import make_ready, warm
from tuner.trial.task import Bench, Task
from tuner.words import per_second

CUT_SHORT = Doubt(
    "cut-short",
    "the deadline came before the sustainable rate was known as finely as asked",
    "resume the run, or allow more time",
)


def run_trial(bench: Bench, task: Task) -> TrialRecord:
    """Measure one configuration.

    A configuration that the server refuses or dies of gives a record with outcome `failed`.
    Raises HostError, ModelError or LoadError where not the configuration is at fault.
    """
    started, started_ns = utc_now(), now_ns()
    folder = bench.folder / "trials" / f"{task.number:04d}"
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    levels: Levels | None = None
    gpus = GpuMeter()
    record = TrialRecord(
        number=task.number,
        role=task.role,
        config=task.config,
        outcome="failed",
        started=started,
        wall_s=0.0,
        measuring_s=0.0,
        block=task.block,
        arm=task.arm,
        environment_id=bench.environment_id,
    )
    try:
        with ExitStack() as stack:
            bench.notify("starting the server")
            launcher = bench.launcher_for(task.role)
            server = stack.enter_context(launcher.launch(task.config, folder))
            endpoint = server.endpoint
            record = replace(record, start_s=endpoint.start_s, swapped=endpoint.swapped)
            levels = Levels(bench, task, server, _generator(bench, server, stack), folder)
            with gpus:
                record = measured(levels, record)
    except CandidateError as error:
        record = replace(
            record,
            outcome="failed",
            levels=tuple(levels.done) if levels else (),
            failure=Failure("config", error.message, error.hint, error.log_tail),
        )
    return replace(
        record,
        wall_s=(now_ns() - started_ns) / NS_PER_S,
        waited_s=levels.waited_s if levels else 0.0,
        measuring_s=levels.measuring_s if levels else 0.0,
        gpus=gpus.evidence,
    )


def measured(levels: Levels, record: TrialRecord) -> TrialRecord:
    """Warm up, find the peak, climb the ladder, and complete the record."""
    scenario, task = levels.bench.scenario, levels.task
    if task.long is not None:
        warm(levels)
        return long_load(levels, record, task.long)
    peak = make_ready(levels)
    peak_rps = peak.measurement.throughput_rps
    if task.overload_rps is not None:
        return overload_test(levels, replace(record, peak_rps=peak_rps), task.overload_shares)
    resolution, most_rps = scenario.measure.resolution, levels.bench.usable_rps or math.inf
    rungs = (
        Rungs(task.loads_rps)
        if task.loads_rps
        else ladder_from(
            peak,
            resolution=resolution,
            loosest_ms=levels.bench.slo.loosest_ms,
            expected_rps=task.expected_rps,
            dominated_rps=task.dominated_rps,
            most_rps=most_rps,
        )
    )
    found = climb(
        rungs,
        levels.offered,
        slo=levels.bench.slo,
        shares=task.curve_shares,
        time_is_up=lambda: levels.late,
    )
    if not (found.reference or levels.late):  # the curve is worth knowing, from where the peak is
        for share in task.curve_shares:
            if peak_rps * share <= most_rps:
                levels.offered(peak_rps * share)
    done = found.as_decided(levels.done)
    shown = notes(done, levels.bench.slo, next_to=1 + 2 * resolution)
    limited = rungs.limited and all(note.code != CLIENT_LIMITED for note in shown)
    return replace(
        record,
        peak_rps=peak_rps,
        outcome=found.outcome,
        levels=done,
        sustainable_rps=found.sustainable_rps,
        ceiling_rps=found.ceiling_rps,
        reference_level=index_of(found.reference, done),
        dominated=rungs.dominated,
        notes=(
            *shown,
            *found.notes,
            *((CUT_SHORT,) if found.cut_short else ()),
            *((_client_limited(rungs.held_rps),) if limited else ()),
        ),
    )


def _client_limited(held_rps: float) -> Doubt:
    return Doubt(
        CLIENT_LIMITED,
        f"the SLO holds at {per_second(held_rps)}, and no higher load can be trusted: it is half "
        "of what the load generator can send here",
        "give load.cpus more processors and load.processes more than one, or put more rows into "
        "a request",
    )


def _generator(bench: Bench, server: Server, stack: ExitStack) -> Generator:
    return stack.enter_context(
        generator_for(
            bench.scenario,
            server.endpoint.address,
            bench.pool,
            cpus=bench.generator_cpus,
            usable_rps=bench.usable_rps,
        )
    )
