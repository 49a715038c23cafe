"""The levels of one trial: drive a load, measure it, judge it, repeat what cannot be trusted."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import disk
from tuner.load.generator import Generator, OpenLoop
from tuner.measure.counting import LOOKS, window_s_for
from tuner.measure.histogram import write_log
from tuner.measure.host import CpuMeter, processes_cpu
from tuner.measure.percentiles import samples_for
from tuner.measure.prometheus import evidence
from tuner.measure.slo import judge
from tuner.measure.window import measure, window, window_histogram
from tuner.records import HostEvidence, Level, Samples, ServerEvidence
from tuner.server.launcher import Server
from tuner.trial.task import Bench, Task

MENDED_BY_TIME = frozenset({"too-few-samples"})
"""Doubts that the same measurement again would not settle, but a longer window would."""

NEIGHBOUR_PAUSE_S = 5.0
"""How much longer to wait before each repeat where somebody else had taken the processors."""

CORRELATED_AT_FIRST = 4.0
"""Requests per independent one, until a level has shown it: batches make neighbours alike."""

SPARE_SAMPLES = 1.5
"""A window holds this many times the samples that could decide it, since some will be over."""


@dataclass(slots=True)
class Levels:
    """One started server with its generator, and what was measured so far."""

    bench: Bench
    task: Task
    server: Server
    generator: Generator
    folder: Path
    done: list[Level] = field(default_factory=list)
    measuring_s: float = 0.0
    samples_per_effective: float = CORRELATED_AT_FIRST

    @property
    def seed(self) -> int:
        """Of the arrivals: equal for all configurations of one block."""
        return self.bench.scenario.seed * 1000 + self.task.replicate

    def closed(self, duration_s: float) -> Samples:
        """Drive the closed loop, judging nothing."""
        samples = self.generator.closed_loop(
            concurrency=self.bench.scenario.load.concurrency,
            duration_s=duration_s,
            seed=self.seed,
        )
        self.server.check()
        return samples

    def peak(self) -> Level:
        """The closed-loop peak. Its figures are throughput's alone, never a latency claim."""
        self.bench.notify("peak throughput")
        return self._level(lambda: self.closed(self.bench.scenario.measure.window_s), warmup_s=0)

    def offered(self, rate_rps: float) -> Level:
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
            seed=self.seed,
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
        self.done.append(level)
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
            seed=self.seed,
            server=server,
        )
        verdict = judge(measured, self.bench.slo, looks=LOOKS)
        name = f"level-{len(self.done):02d}"
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
