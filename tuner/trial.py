"""One configuration, from the start of its server to its record.

start -> probe -> every batch size once -> closed loop until warm -> closed-loop peak -> a ladder
of open-loop loads that brackets the sustainable rate -> stop. One server start serves them all.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tuner.clock import NS_PER_S, now_ns, utc_now
from tuner.errors import CandidateError, ModelError, disk
from tuner.ladder import Ladder
from tuner.load.generator import Generator, OpenLoop
from tuner.measure.counting import window_s_for
from tuner.measure.histogram import write_log
from tuner.measure.host import CpuMeter, processes_cpu
from tuner.measure.percentiles import samples_for
from tuner.measure.prometheus import evidence
from tuner.measure.slo import judge
from tuner.measure.steady import warmed_up
from tuner.measure.window import measure, window, window_histogram
from tuner.records import (
    Config,
    Failure,
    HostEvidence,
    Level,
    Outcome,
    Role,
    Samples,
    ServerEvidence,
    TrialRecord,
)
from tuner.scenario import Scenario
from tuner.server.launcher import Launcher, Server
from tuner.slo import Slo

LOOKS = 2
"""How often one load is judged at most: an open question gets one longer window."""

START_SHARES = (0.6, 0.85)
"""Bounds of the first open-loop load, as a share of the closed-loop peak."""

MENDED_BY_TIME = frozenset({"too-few-samples"})
"""Doubts that the same measurement again would not settle, but a longer window would."""

NEIGHBOUR_PAUSE_S = 5.0
"""How much longer to wait before each repeat where somebody else had taken the processors."""

CORRELATED_AT_FIRST = 4.0
"""Requests per independent one, until a level has shown it: batches make neighbours alike."""

SPARE_SAMPLES = 1.5
"""A window holds this many times the samples that could decide it, since some will be over."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials of a run share.

    `pool` is the file of requests, `folder` the run directory; `notify` is told in a few words
    what is going on, for people who watch. `keeper` may let a server live on from one trial of
    the search to the next; None: every trial starts its own.
    """

    scenario: Scenario
    slo: Slo
    launcher: Launcher
    pool: Path
    folder: Path
    environment_id: str
    generator_cpus: frozenset[int]
    notify: Callable[[str], None]
    keeper: Launcher | None = None

    def launcher_for(self, role: Role) -> Launcher:
        """Choose how a trial gets its server: what confirms or is asked for starts afresh."""
        if self.keeper is None or role in {"off", "final", "given"}:
            return self.launcher
        return self.keeper


@dataclass(frozen=True, slots=True)
class Task:
    """Which configuration is measured, and as what.

    `replicate` chooses the arrivals: equal for all configurations of one block. `expected_rps` is
    a sustainable rate known from before, from where the ladder then starts. `curve_shares` are
    further loads, as shares of the sustainable rate, that complete the curve below it.
    """

    number: int
    role: Role
    config: Config
    block: int | None = None
    replicate: int = 0
    expected_rps: float | None = None
    curve_shares: tuple[float, ...] = ()

    def describe(self) -> str:
        """Words for progress lines."""
        return f"{self.role}: {self.config.label()}"


def run_trial(bench: Bench, task: Task) -> TrialRecord:
    """Measure one configuration.

    A configuration that the server refuses or dies of gives a record with outcome `failed`.
    Raises HostError, ModelError or LoadError where not the configuration is at fault.
    """
    started, started_ns = utc_now(), now_ns()
    folder = bench.folder / "trials" / f"{task.number:04d}"
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    session: _Session | None = None
    record = TrialRecord(
        number=task.number,
        role=task.role,
        config=task.config,
        outcome="failed",
        started=started,
        wall_s=0.0,
        measuring_s=0.0,
        block=task.block,
        environment_id=bench.environment_id,
    )
    try:
        with ExitStack() as stack:
            bench.notify("starting the server")
            launcher = bench.launcher_for(task.role)
            server = stack.enter_context(launcher.launch(task.config, folder))
            session = _Session(bench, task, server, _generator(bench, server, stack), folder)
            endpoint = server.endpoint
            record = replace(record, start_s=endpoint.start_s, swapped=endpoint.swapped)
            record = session.measure_all(record)
    except CandidateError as error:
        record = replace(
            record,
            outcome="failed",
            levels=tuple(session.levels) if session else (),
            failure=Failure("config", error.message, error.hint, error.log_tail),
        )
    return replace(
        record,
        wall_s=(now_ns() - started_ns) / NS_PER_S,
        measuring_s=session.measuring_s if session else 0.0,
    )


def _generator(bench: Bench, server: Server, stack: ExitStack) -> Generator:
    load = bench.scenario.load
    return stack.enter_context(
        Generator(
            server.endpoint.address,
            bench.pool,
            engine=load.engine,
            deadline_s=load.deadline_ms / 1000,
            cpus=bench.generator_cpus,
        )
    )


@dataclass(slots=True)
class _Session:
    """One started server with its generator, and what was measured so far."""

    bench: Bench
    task: Task
    server: Server
    generator: Generator
    folder: Path
    levels: list[Level] = field(default_factory=list)
    measuring_s: float = 0.0
    samples_per_effective: float = CORRELATED_AT_FIRST

    def measure_all(self, record: TrialRecord) -> TrialRecord:
        """Warm up, find the peak, climb the ladder, and complete the record."""
        self._probe()
        self._exercise_batch_sizes()
        self._warm_up()
        peak = self._peak()
        peak_rps = peak.measurement.throughput_rps
        if not peak_rps:
            raise CandidateError(
                "no request was answered in the closed loop",
                hint=", ".join(peak.measurement.errors) or "look into server.log",
            )
        return self._climb(replace(record, peak_rps=peak_rps))

    def _probe(self) -> None:
        """One request of every model must be answered before anything else is worth trying."""
        self.bench.notify("probing")
        statuses = self.generator.exercise([min(self._rows())], repeats=1)
        failed = next((status for status in statuses if status.code != "OK"), None)
        if failed is None:
            return
        self.server.check()
        text = f"the first request failed: {failed.code}: {failed.text}"
        if self.task.config.batching is None:
            raise ModelError(
                text, hint="the model does not answer even unbatched; check model.* and inputs"
            )
        raise CandidateError(
            text, hint="it is answered with batching off, so batching is at fault"
        )

    def _rows(self) -> tuple[int, ...]:
        """Rows per request that the scenario's load uses."""
        return tuple(
            sorted({rows for model in self.bench.scenario.models for rows in model.row_weights})
        )

    def _exercise_batch_sizes(self) -> None:
        """Run every batch size the load can form, twice: the first run of a size is slow."""
        self.bench.notify("running every batch size once")
        rows = self._rows()
        batching = self.task.config.batching
        reach = self.bench.scenario.load.concurrency * max(rows)
        if batching is None:
            sizes = rows
        else:
            limit = min(batching.row_limit, reach)
            doubling = [2**power for power in range(limit.bit_length())]
            sizes = tuple(
                sorted({size for size in (*doubling, limit, *rows) if size <= batching.row_limit})
            )
        self.generator.exercise(sizes, repeats=2)
        self.server.check()

    def _warm_up(self) -> None:
        """Drive the closed loop until its latency is steady, within the scenario's patience."""
        scenario = self.bench.scenario
        chunks: list[Samples] = []
        spent_s = 0.0
        while spent_s < scenario.measure.max_warmup_s:
            self.bench.notify(f"warming up, {spent_s:.0f} s")
            chunks.append(self._closed(scenario.measure.warmup_s))
            spent_s += scenario.measure.warmup_s
            if warmed_up(chunks).steady:
                return

    def _closed(self, duration_s: float) -> Samples:
        samples = self.generator.closed_loop(
            concurrency=self.bench.scenario.load.concurrency,
            duration_s=duration_s,
            seed=self._seed,
        )
        self.server.check()
        return samples

    @property
    def _seed(self) -> int:
        return self.bench.scenario.seed * 1000 + self.task.replicate

    def _peak(self) -> Level:
        """The closed-loop peak. Its figures are throughput's alone, never a latency claim."""
        self.bench.notify("peak throughput")
        return self._level(lambda: self._closed(self.bench.scenario.measure.window_s), warmup_s=0)

    def _climb(self, record: TrialRecord) -> TrialRecord:
        """Bracket the sustainable rate, then complete the record with it."""
        assert record.peak_rps is not None
        expected = self.task.expected_rps
        resolution = self.bench.scenario.measure.resolution
        if expected:  # the final's ladder starts near its end, and can afford finer steps
            resolution /= 2
        ladder = Ladder(
            start_rps=expected or record.peak_rps * self._start_share(),
            resolution=resolution,
            step=1 + 2 * resolution if expected else 1.25,
        )
        at: dict[float, int] = {}
        trusted = True
        while trusted and (rate_rps := ladder.next_rps()) is not None:
            level = self._offered(rate_rps)
            trusted = level.verdict.valid or _open_near_the_limit(level)
            if trusted:
                # What arrived decides, not what was asked: Poisson counts differ by their noise.
                offered_rps = level.measurement.offered_rps or rate_rps
                ladder.tell(offered_rps, held=level.verdict.feasible is True)
                at[offered_rps] = len(self.levels) - 1
        for share in self.task.curve_shares:
            self._offered((ladder.held_rps or record.peak_rps) * share)
        return self._concluded(record, ladder, at, trusted=trusted)

    def _start_share(self) -> float:
        """Guess the sustainable share of the peak: the SLO's limit over the peak's latency.

        Where the peak was bought with twice the latency that is promised, about half of it will
        hold. A good guess saves levels, and a poor one costs some.
        """
        mean_ms = self.levels[-1].measurement.mean_ms or self.bench.slo.tightest_ms
        lowest, highest = START_SHARES
        return min(highest, max(lowest, self.bench.slo.loosest_ms / mean_ms))

    def _concluded(
        self, record: TrialRecord, ladder: Ladder, at: dict[float, int], *, trusted: bool
    ) -> TrialRecord:
        reference = at.get(ladder.held_rps)
        missed = any(self.levels[index].verdict.feasible is False for index in at.values())
        outcome: Outcome = "infeasible" if missed and trusted else "invalid"
        if reference is not None:
            outcome = "ok"
        return replace(
            record,
            outcome=outcome,
            levels=tuple(self.levels),
            sustainable_rps=None if outcome == "invalid" else ladder.held_rps,
            ceiling_rps=ladder.failed_rps if math.isfinite(ladder.failed_rps) else None,
            reference_level=reference,
        )

    def _offered(self, rate_rps: float) -> Level:
        """Measure one open-loop load; an open question gets one longer window."""
        settings = self.bench.scenario.measure
        window_s = self._window_s(rate_rps)
        self.bench.notify(f"{rate_rps:,.0f} requests/s offered")
        level = self._open(rate_rps, window_s)
        if level.verdict.feasible is None:
            longer_s = min(2 * max(window_s, self._window_s(rate_rps)), settings.max_window_s)
            if longer_s > window_s:
                level = self._open(rate_rps, longer_s)
        return level

    def _window_s(self, rate_rps: float) -> float:
        """Seconds that can decide the SLO at this rate and, within reach, show a p99."""
        settings = self.bench.scenario.measure
        needed_s = SPARE_SAMPLES * window_s_for(
            self.bench.slo,
            rate_rps,
            looks=LOOKS,
            samples_per_effective=self.samples_per_effective,
        )
        shown_s = 1.05 * samples_for("p99") / rate_rps  # Poisson counts fall short at times
        if shown_s <= settings.max_window_s:
            needed_s = max(needed_s, shown_s)
        return min(max(settings.window_s, needed_s), settings.max_window_s)

    def _open(self, rate_rps: float, window_s: float) -> Level:
        load = self.bench.scenario.load
        warmup_s = min(1.0, window_s / 3)
        schedule = OpenLoop(
            rate_rps=rate_rps,
            duration_s=warmup_s + window_s,
            seed=self._seed,
            arrivals=load.arrivals,
            trace=load.trace,
            give_up_outstanding=load.outstanding_limit,
        )
        level = self._level(lambda: self._answered(schedule), warmup_s=warmup_s)
        measured = level.measurement
        if measured.effective_samples > 0 and level.verdict.feasible is not False:
            self.samples_per_effective = measured.requests / measured.effective_samples
        return level

    def _answered(self, schedule: OpenLoop) -> Samples:
        samples = self.generator.open_loop(schedule)
        self.server.check()
        return samples

    def _level(self, drive: Callable[[], Samples], *, warmup_s: float) -> Level:
        """Drive a load and judge it; one that cannot be trusted is repeated, bounded."""
        level = self._once(drive, warmup_s=warmup_s)
        for repeat in range(1, self.bench.scenario.measure.repeats + 1):
            doubts = {doubt.code for doubt in level.verdict.doubts}
            if doubts <= MENDED_BY_TIME:
                break
            if "foreign-cpu" in doubts:
                self.bench.notify("another program is busy; waiting before measuring again")
                time.sleep(NEIGHBOUR_PAUSE_S * repeat)
            level = self._once(drive, warmup_s=warmup_s)
        return level

    def _once(self, drive: Callable[[], Samples], *, warmup_s: float) -> Level:
        before = self.server.scrape()
        meter = self._meter()
        meter.start()
        wall_s = time.time()
        samples = drive()
        host = meter.stop(generator_s=samples.cpu_s)
        self.measuring_s += (now_ns() - samples.started_ns) / NS_PER_S
        level = self._judged(samples, host, before, warmup_s=warmup_s, wall_s=wall_s)
        self.levels.append(level)
        return level

    def _meter(self) -> CpuMeter:
        endpoint = self.server.endpoint
        pid = endpoint.pid
        reader = None if pid is None else processes_cpu(lambda: [pid, *endpoint.relays])
        return CpuMeter(reader, self.generator.pid)

    def _judged(
        self,
        samples: Samples,
        host: HostEvidence,
        before: str | None,
        *,
        warmup_s: float,
        wall_s: float,
    ) -> Level:
        after = self.server.scrape()
        server: ServerEvidence | None = None
        if before is not None and after is not None:
            server = evidence(before, after)
        run_s = (samples.ended_ns - samples.started_ns) / NS_PER_S
        warmup_s = min(warmup_s, run_s / 2)  # a level that gave up early keeps half of its run
        measured = measure(
            samples,
            warmup_s=warmup_s,
            slo=self.bench.slo,
            host=host,
            seed=self._seed,
            server=server,
        )
        verdict = judge(measured, self.bench.slo, looks=LOOKS)
        name = f"level-{len(self.levels):02d}"
        self._save(samples, self.folder / f"{name}.npz")
        write_log(
            self.folder / f"{name}.hlog",
            window_histogram(window(samples, warmup_s=warmup_s)),
            start_epoch_s=wall_s + warmup_s,
            length_s=measured.window_s,
        )
        histogram = (self.folder / f"{name}.hlog").relative_to(self.bench.folder)
        return Level(measured, verdict, str(histogram))

    def _save(self, samples: Samples, path: Path) -> None:
        """Keep every request, in columns, so that any figure can be computed again."""
        with disk(path):
            np.savez_compressed(
                path,
                intended_ns=samples.intended_ns - samples.started_ns,
                sent_ns=samples.sent_ns - samples.started_ns,
                done_ns=samples.done_ns - samples.started_ns,
                status=samples.status,
                rows=samples.rows,
                statuses=np.array([f"{item.code}\t{item.text}" for item in samples.statuses]),
            )


def _open_near_the_limit(level: Level) -> bool:
    """Whether only samples are missing, and some requests were over a limit.

    Such a load is not shown to hold, and a lower one may be: queues that overlap less make more
    independent samples. With none over, a lower load has but fewer samples.
    """
    lacking = {doubt.code for doubt in level.verdict.doubts} <= MENDED_BY_TIME
    return lacking and any(level.measurement.over_limit.values())
