"""`tuner bench`: one load for as long as asked, on a server of ours or one that runs already."""

import math
import shutil
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tuner import store
from tuner.batching import BatchingParameters
from tuner.commands.check import recommended_rps
from tuner.commands.durations import duration_s
from tuner.commands.interrupting import interruptible
from tuner.commands.progress import Narrator
from tuner.commands.publish import publish_report
from tuner.errors import HostError, UsageError
from tuner.load.generator import OpenLoop, require_usable
from tuner.load.traces import Trace, look_through
from tuner.load.wire import SAMPLE
from tuner.records import Level, TrialRecord
from tuner.scenario import Scenario, load
from tuner.store import RunDirectory
from tuner.trial import LongLoad, Stop, Task, run_trial
from tuner.wiring import bench as benches
from tuner.words import per_second

DEFAULT_S = 60.0
LONGEST_WINDOW_S = 10.0
WINDOWS_AT_LEAST = 20
LINES = 60
"""Windows that are told in a log at most; all are in the run's `windows.jsonl`."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for.

    `params` is None for batching off, or for a running server's own settings.
    """

    scenario: Path
    params: Path | None
    rate_rps: float | None
    duration: str | None
    window: str | None
    keep_samples: bool
    out: Path


def bench(request: Request, narrator: Narrator) -> tuple[RunDirectory, TrialRecord]:
    """Drive the load and write a run of its own. Raises UsageError for a load that is none."""
    batching = None if request.params is None else BatchingParameters.from_file(request.params)
    scenario = load(request.scenario)
    rate_rps = request.rate_rps
    if rate_rps is None and scenario.load.arrivals not in {"trace", "profile"}:
        rate_rps = recommended_rps(request.params, batching)
    trace = None if scenario.load.trace is None else look_through(scenario.load.trace)
    asked = load_of(scenario, rate_rps, seconds("--duration", request.duration), trace)
    window_s = seconds("--window", request.window) or default_window_s(asked.duration_s)
    infos = benches.models(scenario, narrator.say)
    text = request.scenario.read_text(encoding="utf-8")
    run = store.create(request.out, f"{scenario.name}-bench", text)
    with run.locked(), closing(benches.prepare(scenario, infos, run, narrator.note)) as prepared:
        run.keep_environment(prepared.environment, request.scenario)
        expected_rps = mean_rps(asked, trace)
        require_usable(max(expected_rps, asked.highest_rps), prepared.bench.usable_rps)
        if request.keep_samples:
            require_room(run.path, expected_rps * asked.duration_s, narrator)
        stop = Stop()
        task = Task(
            number=0,
            role="given",
            config=benches.given(scenario, batching),
            long=LongLoad(
                asked,
                window_s,
                stop,
                Teller(narrator, asked.duration_s, window_s),
                request.keep_samples,
            ),
        )
        narrator.say(f"results go to {run.path}")
        narrator.begin(task, done=0, total=1, left_s=asked.duration_s)
        with interruptible(narrator, "what was measured is kept", stop):
            record = run_trial(prepared.bench, task)
        run.append(record)
        narrator.finish(record)
        publish_report(run)
    return run, record


def load_of(
    scenario: Scenario, rate_rps: float | None, length_s: float | None, trace: Trace | None
) -> OpenLoop:
    """The load that the scenario and the command line ask for together."""
    asked = scenario.load
    if asked.profile and rate_rps is not None:
        raise UsageError(
            "--rate: the scenario's load.profile says the rate itself",
            hint="leave --rate out, or set another load.arrivals",
        )
    if rate_rps is None and trace is None and not asked.profile:
        raise UsageError(
            "say which load: --rate RPS",
            hint='or set load.arrivals to "profile" or "trace": they say it themselves',
        )
    return OpenLoop(
        rate_rps=rate_rps,
        duration_s=_length_s(scenario, rate_rps, length_s, trace),
        seed=scenario.seed * 1000,
        arrivals=asked.arrivals,
        trace=asked.trace,
        burst_cv=asked.burst_cv,
        trace_speed=asked.trace_speed,
        profile=asked.profile,
    )


def _length_s(
    scenario: Scenario, rate_rps: float | None, length_s: float | None, trace: Trace | None
) -> float:
    """As long as asked; else as long as a profile, or a trace that is replayed as recorded."""
    profile = scenario.load.profile
    if profile and length_s is not None and length_s > profile[-1][0]:
        raise UsageError(
            f"--duration: the scenario's load.profile ends at {profile[-1][0]:g} s",
            hint="give it a further corner, or leave --duration out",
        )
    if length_s is not None:
        return length_s
    if profile:
        return profile[-1][0]
    if trace is not None and rate_rps is None:
        gap_s = trace.period_s / trace.count
        return (trace.last_s + max(gap_s, 1e-3)) / scenario.load.trace_speed
    return DEFAULT_S


def mean_rps(asked: OpenLoop, trace: Trace | None) -> float:
    """Requests per second that are expected of a load, over all of it."""
    if asked.rate_rps is not None:
        return asked.rate_rps
    if trace is not None:
        return trace.count / (max(trace.period_s, 1e-3) / asked.trace_speed)
    corners = asked.profile
    area = sum(
        (until_s - at_s) * (rate + then) / 2 for (at_s, rate), (until_s, then) in pairwise(corners)
    )
    return area / corners[-1][0]


def default_window_s(length_s: float) -> float:
    """Ten seconds, or shorter where that would leave fewer than WINDOWS_AT_LEAST windows."""
    return min(LONGEST_WINDOW_S, max(1.0, length_s / WINDOWS_AT_LEAST))


def seconds(option: str, text: str | None) -> float | None:
    """Parse an option's span of time; None where it was not given."""
    if text is None:
        return None
    found = duration_s(text)
    if not found:
        raise UsageError(
            f"{option}: {text!r} is no span of time", hint="write 8h, 90m, 1h30m or 45s"
        )
    return found


def require_room(folder: Path, requests: float, narrator: Narrator) -> None:
    """Say how much disk the samples will take. Raises HostError where there is less."""
    needed, free = requests * SAMPLE.itemsize, shutil.disk_usage(folder).free
    narrator.say(f"samples will take {needed / 1e9:.2f} GB, of {free / 1e9:.1f} GB free")
    if needed > free:
        raise HostError(
            f"{folder}: {needed / 1e9:.1f} GB of samples do not fit, {free / 1e9:.1f} GB are free",
            hint="leave out --keep-samples: windows and histograms are kept all the same",
        )


class Teller:
    """Tells of each window on a terminal, and of so many that a log stays readable."""

    def __init__(self, narrator: Narrator, length_s: float, window_s: float) -> None:
        self._narrator = narrator
        self._length_s = length_s
        self._every = math.ceil(length_s / window_s / LINES)
        self._told = 0

    def __call__(self, level: Level, passed_s: float) -> None:
        self._told += 1
        if (self._told - 1) % self._every and not self._narrator.live:
            return
        self._narrator.advance(
            words(level),
            done=round(passed_s),
            total=round(self._length_s),
            left_s=max(self._length_s - passed_s, 0.0),
        )


def words(level: Level) -> str:
    """One window in a line."""
    found = level.measurement
    shown = [
        f"{per_second(found.offered_rps or 0.0)} offered, "
        f"{per_second(found.throughput_rps)} answered"
    ]
    shown += [
        f"{name} {value:.2f} ms"
        for name, value in found.percentiles_ms.items()
        if name in {"p50", "p99"} and value is not None
    ]
    shown.append(f"sent {found.lateness_p99_ms:.2f} ms late at p99")
    if failed := found.requests - found.answered:
        shown.append(f"{failed:,} failed ({next(iter(found.errors), '')})")
    shown += [doubt.code for doubt in level.verdict.doubts]
    return ", ".join(shown)
