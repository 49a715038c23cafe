"""The levels of one trial: drive a load, measure it, judge it, repeat what cannot be trusted."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tuner.clock import NS_PER_S, now_ns
from tuner.load.generator import Generator, OpenLoop
from tuner.measure.counting import LOOKS, WINDOWS, window_s_for
from tuner.measure.doubts import DISTURBED, TOLERANCES
from tuner.measure.host import CpuMeter, processes_cpu
from tuner.measure.percentiles import samples_for
from tuner.measure.prometheus import evidence
from tuner.measure.slo import judge
from tuner.measure.together import MENDED_BY_TIME
from tuner.measure.window import pooled
from tuner.records import Level, Measurement, Samples
from tuner.server.launcher import Server
from tuner.slo import PERCENTILES, Slo
from tuner.trial.stretch import Stretch, drive, host_of, keep
from tuner.trial.task import Bench, Task

MAY_PASS = MENDED_BY_TIME | {"not-steady"}
"""Doubts that another window of the same load may lift."""

NEIGHBOUR_PATIENCE_S = 180.0
"""How long a trial waits in all for a machine that somebody else has taken."""

QUIET_S = 2.0
"""How long nobody else may use the processors before they count as free again."""

CORRELATED_AT_FIRST = 4.0
"""Requests per independent one, until a level has shown it: batches make neighbours alike."""

SPARE_SAMPLES = 1.5
"""A window holds this many times the samples that could decide it, since some will be over."""

LOOK_SEEDS = 10**9
"""Distance of the seeds of one level's windows, so that none repeats another's arrivals."""


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
    waited_s: float = 0.0
    samples_per_effective: float = CORRELATED_AT_FIRST
    concurrency: int = field(init=False)

    def __post_init__(self) -> None:
        """Begin with as many requests in the closed loop as the scenario says."""
        self.concurrency = self.bench.scenario.load.concurrency

    @property
    def seed(self) -> int:
        """Of the arrivals: equal for all configurations of one block."""
        return self.bench.scenario.seed * 1000 + self.task.replicate

    @property
    def late(self) -> bool:
        """Whether the time is over in which anything may be begun."""
        return self.task.until_ns is not None and now_ns() >= self.task.until_ns

    def closed(self, duration_s: float) -> Samples:
        """Drive the closed loop, judging nothing."""
        samples = self.generator.closed_loop(
            concurrency=self.concurrency,
            duration_s=duration_s,
            seed=self.seed,
        )
        self.server.check()
        return samples

    def peak(self) -> Level:
        """The closed-loop peak. Its figures are throughput's alone, never a latency claim."""
        self.bench.notify("peak throughput")
        window_s = self.bench.scenario.measure.window_s
        return self._repeated(
            lambda: self._level([lambda: self._drive(lambda: self.closed(window_s), warmup_s=0)])
        )

    def offered(self, rate_rps: float) -> Level:
        """Measure one open-loop load, in as many windows as it takes to decide the SLO."""
        self.bench.notify(f"{rate_rps:,.0f} requests/s offered")
        return self._repeated(lambda: self._level(self._looks(rate_rps)))

    def _repeated(self, measure: Callable[[], Level]) -> Level:
        """Measure a level; one that cannot be trusted is repeated, bounded."""
        level = measure()
        for _ in range(self.bench.scenario.measure.repeats):
            doubts = {doubt.code for doubt in level.verdict.doubts}
            if doubts <= MENDED_BY_TIME or self.late:
                break
            if doubts & DISTURBED:
                self._await_quiet()
            level = measure()
        return level

    def _await_quiet(self) -> None:
        """Wait until nobody else uses the processors, within this trial's patience and time."""
        while self.waited_s < NEIGHBOUR_PATIENCE_S and not self.late:
            self.bench.notify("another program is busy; waiting before measuring again")
            meter = self.meter()
            meter.start()
            time.sleep(QUIET_S)
            self.waited_s += QUIET_S
            if (meter.stop().foreign_cpu or 0.0) <= TOLERANCES.foreign_cpu:
                return

    def _looks(self, rate_rps: float) -> Iterator[Callable[[], Stretch]]:
        """Yield the windows of one load, each to be driven if those before it do not decide."""
        for look, window_s in enumerate(self.windows_s(rate_rps)):
            yield partial(self._open, rate_rps, window_s, self.seed + look * LOOK_SEEDS)

    def windows_s(self, rate_rps: float) -> tuple[float, ...]:
        """Lengths of a load's windows, set before the first: all together double each time.

        The first can decide the SLO at this rate and, within reach, show a p99; the last ends at
        the scenario's longest window.
        """
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
        first_s = min(max(settings.window_s, needed_s), settings.max_window_s)
        return doubling(first_s, settings.max_window_s, WINDOWS)

    def _open(self, rate_rps: float, window_s: float, seed: int) -> Stretch:
        warmup_s = min(1.0, window_s / 3)
        hopeless = hopeless_outstanding(
            self.bench.slo, rate_rps, self.bench.scenario.measure.max_window_s
        )
        schedule = replace(
            self.schedule(rate_rps, warmup_s + window_s, seed),
            give_up_outstanding=min(self.bench.scenario.load.outstanding_limit, hopeless),
        )
        return self._drive(lambda: self.answered(schedule), warmup_s=warmup_s)

    def schedule(self, rate_rps: float, duration_s: float, seed: int) -> OpenLoop:
        """A load whose requests arrive as the scenario says."""
        load = self.bench.scenario.load
        return OpenLoop(
            rate_rps=rate_rps,
            duration_s=duration_s,
            seed=seed,
            arrivals=load.arrivals,
            burst_cv=load.burst_cv,
            trace=load.trace,
        )

    def answered(self, schedule: OpenLoop) -> Samples:
        """Drive an open loop, judging nothing."""
        samples = self.generator.open_loop(schedule)
        self.server.check()
        return samples

    def _drive(self, load: Callable[[], Samples], *, warmup_s: float) -> Stretch:
        stretch = drive(load, self.meter(), warmup_s=warmup_s)
        samples = stretch.cut.samples
        self.measuring_s += (
            max(samples.ended_ns, int(samples.done_ns.max(initial=0))) - samples.started_ns
        ) / NS_PER_S
        return stretch

    def meter(self) -> CpuMeter:
        """A meter of who uses the processors: server, generator, others."""
        endpoint = self.server.endpoint
        pid = endpoint.pid
        reader = None if pid is None else processes_cpu(lambda: [pid, *endpoint.relays])
        return CpuMeter(reader, *self.generator.pids)

    def _level(self, looks: Iterable[Callable[[], Stretch]]) -> Level:
        """Drive window after window until they decide; keep all of them as one level."""
        before = self.server.scrape()
        stretches: list[Stretch] = []
        for look in looks:
            stretches.append(look())
            level = self._judged(stretches, before)
            if settled(level):
                break
        path = keep(stretches, self.folder / f"level-{len(self.done):02d}")
        self.done.append(replace(level, histogram=str(path.relative_to(self.bench.folder))))
        self._learn(level.measurement, held=level.verdict.feasible is not False)
        return self.done[-1]

    def _learn(self, measured: Measurement, *, held: bool) -> None:
        """Remember how alike neighbouring requests are, where the server was not overloaded."""
        if held and measured.loop == "open" and measured.effective_samples > 0:
            self.samples_per_effective = measured.requests / measured.effective_samples

    def _judged(self, stretches: list[Stretch], before: str | None) -> Level:
        after = self.server.scrape()
        measured = pooled(
            [stretch.cut for stretch in stretches],
            slo=self.bench.slo,
            host=host_of(stretches),
            seed=self.seed,
            server=None if before is None or after is None else evidence(before, after),
        )
        return Level(measured, judge(measured, self.bench.slo, looks=LOOKS))


def settled(level: Level) -> bool:
    """Whether another window of the same load has nothing to add: decided, or not to be mended."""
    doubts = {doubt.code for doubt in level.verdict.doubts}
    return not doubts <= MAY_PASS or (not doubts and level.verdict.feasible is not None)


def doubling(first_s: float, most_s: float, number: int) -> tuple[float, ...]:
    """Lengths whose sums are `first_s` and its doubles, at most `number` and `most_s` in all.

    A last one much shorter than the first is left out: it would decide nothing.
    """
    lengths = [first_s]
    while len(lengths) < number and (more_s := min(sum(lengths), most_s - sum(lengths))) > 0:
        if more_s < first_s / 2:
            break
        lengths.append(more_s)
    return tuple(lengths)


def hopeless_outstanding(slo: Slo, rate_rps: float, most_s: float) -> int:
    """How many unanswered requests leave a load no hope, however it goes on for `most_s` seconds.

    First come, first served, the oldest of N unanswered requests at rate r is N / r old; so those
    beyond r * L have missed the limit L already. Twice as many as a whole window may miss decide.
    """
    return min(
        math.ceil(rate_rps * (limit_ms / 1000 + 2 * (1 - PERCENTILES[name]) * most_s)) + 1
        for name, limit_ms in slo.limits_ms
    )
