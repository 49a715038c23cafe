"""One load for hours: its windows go to disk as they end, and the whole becomes one level."""

import gc
import json
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import LoadError, disk
from tuner.load.spool import Spool
from tuner.measure.histogram import HistogramLog
from tuner.measure.prometheus import evidence
from tuner.measure.slo import judge
from tuner.measure.timeline import Span, Timeline
from tuner.measure.total import Total
from tuner.records import Doubt, HostEvidence, Level, Outcome, Samples, TrialRecord
from tuner.trial.levels import Levels
from tuner.trial.task import LongLoad

WINDOWS = "windows.jsonl"
SAMPLES = "samples"

PIECE_S = 0.5
"""A generator draws so much of the schedule at once, and writes so many samples."""


def long_load(levels: Levels, record: TrialRecord, long: LongLoad) -> TrialRecord:
    """Drive the load to its end, or until it is asked to stop, and complete the record.

    Raises CandidateError where the server dies, HostError where the disk refuses.
    """
    levels.bench.notify("the load has begun")
    before = levels.server.scrape()
    begun_ns = now_ns()
    with ExitStack() as stack:
        follower = _Follower(levels, long, stack)
        long.stop.heeded = True
        try:
            spool = levels.generator.long_run(
                long.load,
                levels.folder / SAMPLES,
                piece_s=PIECE_S,
                keep=long.keep_samples,
                watch=follower,
                stopping=lambda: long.stop.asked,
            )
        finally:
            long.stop.heeded = False
        follower.finish(spool)
    after = levels.server.scrape()
    levels.measuring_s += (now_ns() - begun_ns) / NS_PER_S
    measured = replace(
        follower.total.measurement(
            window_s=(spool.ended_ns - spool.started_ns) / NS_PER_S,
            ended_ns=spool.ended_ns,
            seed=long.load.seed,
        ),
        server=None if before is None or after is None else evidence(before, after),
    )
    histogram = str(follower.log.relative_to(levels.bench.folder))
    level = Level(measured, judge(measured, levels.bench.slo), histogram)
    levels.done.append(level)
    return _completed(record, level, long)


def _completed(record: TrialRecord, level: Level, long: LongLoad) -> TrialRecord:
    valid, feasible = level.verdict.valid, level.verdict.feasible
    outcome: Outcome = "invalid" if not valid or feasible is None else "infeasible"
    if valid and feasible:
        outcome = "ok"
    lasted_s = level.measurement.window_s
    stopped = Doubt(
        "interrupted",
        f"it was stopped after {lasted_s:,.0f} of {long.load.duration_s:,.0f} s",
        "what was measured until then is all here",
    )
    return replace(
        record,
        outcome=outcome,
        levels=(level,),
        sustainable_rps=level.measurement.offered_rps if outcome == "ok" else None,
        reference_level=0 if outcome == "ok" else None,
        notes=(stopped,) if lasted_s < long.load.duration_s - PIECE_S else (),
    )


class _Follower:
    """Takes samples of the run as they come; writes each window once it has ended."""

    def __init__(self, levels: Levels, long: LongLoad, stack: ExitStack) -> None:
        self._levels, self._long = levels, long
        self._window_ns = round(long.window_s * NS_PER_S)
        self.log = levels.folder / f"level-{len(levels.done):02d}.hlog"
        self._log = stack.enter_context(HistogramLog(self.log, start_epoch_s=time.time()))
        self._windows = stack.enter_context(_opened(levels.folder / WINDOWS))
        self._meter = levels.meter()
        self._meter.start()
        self._hosts: dict[int, HostEvidence] = {}
        self._timeline: Timeline | None = None
        self._started_ns = self._border_ns = 0
        self.total = Total(levels.bench.slo)

    def __call__(self, samples: Samples, until_ns: int, settled_ns: int) -> None:
        timeline = self._begun(samples.started_ns)
        timeline.add(samples)
        while until_ns >= self._border_ns:
            self._cross()
        for span in timeline.ended(settled_ns, self._hosts.pop):
            self._write(span, until_ns)
        if self._levels.server.endpoint.pid is not None:
            self._levels.server.check()

    def finish(self, spool: Spool) -> None:
        """Write what is left, and see that no request was lost on the way."""
        timeline = self._begun(spool.started_ns)
        self._cross()
        for span in timeline.ended(spool.ended_ns, self._hosts.pop, last=True):
            self._write(span, spool.ended_ns)
        for samples in timeline.strays:
            self.total.add_strays(samples)
        if self.total.requests != spool.rows:
            raise LoadError(
                f"{spool.rows} requests were sent, but {self.total.requests} are in a window",
                hint="this is a defect of the load generator; please report it",
            )

    def _begun(self, started_ns: int) -> Timeline:
        if self._timeline is None:
            slo = self._levels.bench.slo
            self._timeline = Timeline(started_ns=started_ns, window_ns=self._window_ns, slo=slo)
            self._started_ns, self._border_ns = started_ns, started_ns + self._window_ns
        return self._timeline

    def _cross(self) -> None:
        """Note who used the processors in the window whose schedule has just ended."""
        number = (self._border_ns - self._started_ns) // self._window_ns - 1
        self._hosts[number] = self._meter.stop()
        self._meter.start()
        self._border_ns += self._window_ns

    def _write(self, span: Span, until_ns: int) -> None:
        level = Level(span.measurement, judge(span.measurement, self._levels.bench.slo))
        begin_s = span.number * self._long.window_s
        line = {"window": span.number, "from_s": begin_s, **asdict(level)}
        with disk(self._levels.folder / WINDOWS):
            self._windows.write(json.dumps(line) + "\n")
            self._windows.flush()
        self._log.add(span.histogram, length_s=span.cut.length_s)
        self.total.add(span.cut, span.measurement)
        self._long.told(level, (until_ns - self._started_ns) / NS_PER_S)
        # An HdrHistogram and its encoder refer to each other, with 200 KB of counters: left to
        # themselves, dead ones pile up until the collector looks at its oldest generation.
        gc.collect()


def _opened(path: Path) -> IO[str]:
    with disk(path):
        return path.open("w", encoding="utf-8")
