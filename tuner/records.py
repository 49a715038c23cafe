"""The values that travel from a scenario to a report. All are frozen; none knows how it was made.

    Config -> Endpoint -> Samples -> Measurement -> Verdict -> Level -> TrialRecord

Times in flight are integer monotonic nanoseconds (`_ns`), rates are per second (`_rps`), and
milliseconds (`_ms`) appear only in what people read.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.batching import BatchingParameters

SCHEMA_VERSION = 1
"""Version of the line format of `trials.jsonl`. 1: first format."""

OK = "OK"
"""The status code of a request that was answered; every other code is a failure."""


@dataclass(frozen=True, slots=True)
class Config:
    """One point of the search: a batching file (or none: batching off) and server flags.

    `flags` are server flags by name, without dashes, ordered by name. `as_it_runs` says that the
    server was running already and nobody named its settings.
    """

    batching: BatchingParameters | None
    flags: tuple[tuple[str, str], ...] = ()
    as_it_runs: bool = False

    @property
    def id(self) -> str:
        """A short stable name: equal configurations have equal ids, on every machine."""
        return _config_id(self)

    def label(self) -> str:
        """Words for tables and plots, such as `max 32, timeout 2000 us, 1 thread`."""
        if self.as_it_runs:
            return "as it runs"
        batching = "batching off" if self.batching is None else self.batching.label()
        return ", ".join([batching, *(f"{name}={value}" for name, value in self.flags)])


@lru_cache(maxsize=4096)  # a report asks for the same few hundred ids 100,000 times
def _config_id(config: Config) -> str:
    batching = None if config.batching is None else config.batching.to_dict()
    what = [batching, config.flags, *(["as it runs"] if config.as_it_runs else [])]
    text = json.dumps(what, sort_keys=True, separators=(",", ":"))
    return "c-" + hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that is ready: where it answers and what it is.

    `metrics_url` is None where the server exports no Prometheus metrics; `pid` is None where the
    server's process is not on this host; `flags` are all flags the server was started with.
    `relays` are processes beside the server that its traffic passes through, such as Docker's
    proxy of a published port. `swapped` says that the server was running already and took up the
    configuration as a new version of the model; `start_s` is then the time of the swap.
    `version` is the version that must answer, where the tuner made it.
    """

    address: str
    metrics_url: str | None
    pid: int | None
    start_s: float
    flags: tuple[tuple[str, str], ...] = ()
    relays: tuple[int, ...] = ()
    swapped: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What was measured, in the words a report shows.

    `through` says what lies between the load generator and a server on another host.
    """

    launcher: Literal["docker", "binary", "embedded", "running"]
    version: str
    image: str | None = None
    digest: str | None = None
    engine: str | None = None
    gpus: tuple[str, ...] = ()
    through: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How a request ended: a gRPC status code name (`OK`, `UNAVAILABLE`) and the server's text."""

    code: str
    text: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Every request of one run of the load generator, in columns of equal length n.

    `intended_ns`, `sent_ns`, `done_ns`: int64 monotonic nanoseconds. A closed loop intends a
    request at the moment it sends it. `status`: uint16 index into `statuses`, whose first entry
    is OK. `rows`: int32 rows (0th dimension) of each request. Ordered by intended time.

    `started_ns` is the origin of the schedule, `ended_ns` the end of the last scheduled second
    (before the drain); `cpu_s` is the CPU the generator's process used between them, and
    `concurrency` the number of requests outstanding in a closed loop, None in an open loop.
    """

    intended_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    status: NDArray[np.uint16]
    rows: NDArray[np.int32]
    statuses: tuple[Status, ...]
    started_ns: int
    ended_ns: int
    cpu_s: float
    concurrency: int | None = None

    def __len__(self) -> int:
        return len(self.intended_ns)

    @property
    def latency_ns(self) -> NDArray[np.int64]:
        """Done minus intended: what a client that kept the schedule waited."""
        return self.done_ns - self.intended_ns

    @property
    def lateness_ns(self) -> NDArray[np.int64]:
        """Sent minus intended: how far the generator itself fell behind."""
        return self.sent_ns - self.intended_ns


@dataclass(frozen=True, slots=True)
class ServerEvidence:
    """What the server's own counters say of one load level (differences of two scrapes).

    `rows_per_batch` counts real rows, `padding_share` is pad rows over executed rows,
    `queue_ms` the mean wait from enqueue to a batch thread. None where nothing was batched.
    `run_ms` is the mean time that a request's batch ran, and `handler_ms` the mean time of a
    request inside the server outside of queue and run.
    """

    batches: int
    rows_per_batch: float | None
    padding_share: float | None
    queue_ms: float | None
    requests: dict[str, int] = field(default_factory=dict)
    run_ms: float | None = None
    handler_ms: float | None = None


@dataclass(frozen=True, slots=True)
class HostEvidence:
    """Who used the processors during one load level, in cores (1.0 = one busy core)."""

    server_cpu: float | None
    generator_cpu: float
    foreign_cpu: float | None
    generator_processes: int = 1


@dataclass(frozen=True, slots=True)
class GpuEvidence:
    """What one GPU of this host did while a trial measured, from readings taken now and then.

    Utilisation, power and clock are means; memory and temperature the highest seen. None where
    the GPU does not tell. `slowed_by` says in words what kept its clock down at times.
    """

    index: int
    name: str
    readings: int
    utilisation_percent: float | None = None
    memory_mib: float | None = None
    memory_total_mib: float | None = None
    power_w: float | None = None
    clock_mhz: float | None = None
    clock_min_mhz: float | None = None
    clock_max_mhz: float | None = None
    temperature_c: float | None = None
    slowed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load level as measured, without judgement.

    Counts concern requests intended inside the window. `offered_rps` is the scheduled arrival
    rate over the window (None in a closed loop); `throughput_rps` is answers over window plus
    drain; `goodput_rps` answers within the SLO's limits over the same time. `percentiles_ms`
    maps names such as `p99` to milliseconds, failures counted as over every limit, and carries
    only the percentiles that the number of samples supports. A value of None there says that
    the percentile falls among failed requests. `over_limit` counts, for every latency limit of
    the SLO (`p99_ms`), requests that were slower than it or failed.

    The window may consist of several, driven one after the other until the SLO is decided;
    `looks` says how many. The slopes concern the last of them: `outstanding_slope_rps` is by how
    many requests the unanswered grew every second, `latency_slope_ms` by how many milliseconds
    latency did; both are 0 where the trend is within its noise. `littles_gap` is X * R / N - 1
    over the whole window, near 0 in a steady state. None in records of older tuners.
    """

    loop: Literal["open", "closed"]
    offered_rps: float | None
    concurrency: int | None
    window_s: float
    drain_s: float
    warmup_s: float
    requests: int
    answered: int
    throughput_rps: float
    goodput_rps: float
    rows_rps: float
    mean_ms: float | None
    max_ms: float | None
    percentiles_ms: dict[str, float | None]
    over_limit: dict[str, int]
    errors: dict[str, int]
    lateness_p50_ms: float
    lateness_p99_ms: float
    lateness_max_ms: float
    achieved_share: float
    outstanding_slope_rps: float
    effective_samples: float
    host: HostEvidence
    server: ServerEvidence | None = None
    seed: int | None = None
    latency_slope_ms: float | None = None
    littles_gap: float | None = None
    looks: int = 1

    @property
    def error_rate(self) -> float:
        """Failed requests over all requests of the window."""
        return (self.requests - self.answered) / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason not to trust a measurement, and what to do about it. `code` is stable."""

    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one measurement.

    `valid` says that it can be trusted; `feasible` that the SLO is met (None: undecided, too few
    samples either way). `margins` are (limit - value) / limit for each limit of the SLO, positive
    when it is kept. `reasons` say in words why the SLO is missed; `doubts` why it is not valid.
    """

    valid: bool
    feasible: bool | None
    margins: dict[str, float]
    reasons: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Level:
    """One load level of a trial: what was measured, and what it means.

    `histogram` names the level's file in HdrHistogram log format, relative to the run directory.
    """

    measurement: Measurement
    verdict: Verdict
    histogram: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial has no measurement. `by` tells a bad configuration from a bad host."""

    by: Literal["config", "host"]
    text: str
    hint: str = ""
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """A change of the machine, seen on the reference configuration: its rate by `percent`.

    `spoils` are the numbers of the trials that were measured while it may have happened.
    """

    percent: float
    spoils: tuple[int, ...]


OverloadFinding = Literal["carries", "slows", "sheds", "collapses", "stalls"]


LOST = 0.8
"""A server that keeps less of its sustainable rate within the limits fails whom it could serve."""

COLLAPSED = 0.5
"""One that keeps less than this share has collapsed, however fast it turns the others away."""

AT_ONCE_S = 0.05
"""A server that recovers sooner after an overload is said to do so at once."""


@dataclass(frozen=True, slots=True)
class Overload:
    """What a server did with `share` of its sustainable rate (1.2: 120 %).

    Counts concern requests intended after the queue had time to fill. `goodput_rps` were answered
    within the loosest latency limit, `shed_share` failed within it, `late_share` were answered or
    failed later than it; `answered_tail_ms` is the highest promised percentile of the answered
    alone. `recovery_s` is the time from the overload's end until the limit held again, None where
    it did not. `finding` is as it was stored; `judged` is what it comes to. `requests` were
    counted, 0 where an older tuner did not say.
    """

    share: float
    offered_rps: float
    goodput_rps: float
    shed_share: float
    late_share: float
    answered_tail_ms: float | None
    recovery_s: float | None
    finding: OverloadFinding
    requests: int = 0

    @property
    def kept_share(self) -> float:
        """The goodput as a share of the sustainable rate; it should stay near 1."""
        return self.goodput_rps * self.share / self.offered_rps

    @property
    def judged(self) -> OverloadFinding:
        """The finding, judged by goodput too, which older tuners left out of account."""
        if self.finding in {"sheds", "slows"} and self.kept_share < COLLAPSED:
            return "collapses"
        return self.finding

    @property
    def fails(self) -> bool:
        """Whether too few of those whom it could serve are answered in time."""
        return self.finding == "stalls" or self.kept_share < LOST

    def describe(self) -> str:
        """Words such as `at 120 % of the sustainable rate it sheds 14 %`."""
        done = {
            "carries": "it still keeps the latency limits",
            "slows": f"it answers {self.late_share * 100:.0f} % late",
            "sheds": f"it sheds {self.shed_share * 100:.0f} % at once",
            "collapses": f"it collapses: it sheds {self.shed_share * 100:.0f} %, answers "
            f"{self.late_share * 100:.0f} % late",
            "stalls": f"it stalls: {self.late_share * 100:.0f} % are late",
        }[self.judged]
        if self.judged not in {"carries", "stalls"} and self.kept_share < LOST:
            done += f" and keeps {self.kept_share * 100:.0f} % of that rate within the limits"
        tail = "" if self.answered_tail_ms is None else f", tail {self.answered_tail_ms:,.0f} ms"
        back = "does not recover in time"
        if self.recovery_s is not None:
            slow = self.recovery_s >= AT_ONCE_S
            back = f"recovers in {self.recovery_s:.1f} s" if slow else "recovers at once"
        return f"at {self.share * 100:.0f} % of the sustainable rate {done}{tail}, and {back}"


Outcome = Literal["ok", "infeasible", "invalid", "failed"]
Role = Literal["off", "default", "guide", "sampler", "reference", "overload", "final", "given"]


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One configuration, from start to judgement; one line of `trials.jsonl`.

    `role` says why it was measured (`given`: the user named it); `block` numbers the randomised
    blocks of the final and is None in the search; `arm` names what it stood for there (`winner`,
    `runner-up`, `default`, `off`, or a file that is compared). `sustainable_rps` is the highest
    offered load at which the SLO held, 0 where it held at none, None where no valid measurement
    decides.
    `ceiling_rps` is the lowest offered load at which it did not hold, None where the SLO held at
    all loads tried. `reference_level` indexes the level that `sustainable_rps` refers to.
    `wall_s` is how long all of it took, of which `waited_s` were spent waiting for another program
    to leave the processors.
    `start_s` is the time from the start of the server to ready or, where `swapped`, the time that
    a running server took to load the configuration. `gpus` is empty where this host has none.
    `dominated` says that the bracket was left wide, since all of it lies below what another
    configuration carries. `notes` are what the curve shows beside its rate: cliffs, collapses,
    odd orders, a client at its end. `drift` stands at a reference that found one.
    `overload` is what an overload test showed, of which a trial consists that has any.
    """

    number: int
    role: Role
    config: Config
    outcome: Outcome
    started: str
    wall_s: float
    measuring_s: float
    start_s: float | None = None
    swapped: bool = False
    peak_rps: float | None = None
    sustainable_rps: float | None = None
    ceiling_rps: float | None = None
    reference_level: int | None = None
    levels: tuple[Level, ...] = ()
    failure: Failure | None = None
    gpus: tuple[GpuEvidence, ...] = ()
    block: int | None = None
    arm: str = ""
    dominated: bool = False
    notes: tuple[Doubt, ...] = ()
    drift: Drift | None = None
    overload: tuple[Overload, ...] = ()
    waited_s: float = 0.0
    environment_id: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def own_s(self) -> float:
        """How long the trial took by itself: what a start like it will take on a quiet machine."""
        return max(0.0, self.wall_s - self.waited_s)

    @property
    def reference(self) -> Level | None:
        """The level at the sustainable rate, or None where there is no such rate."""
        return None if self.reference_level is None else self.levels[self.reference_level]

    @property
    def shown_level(self) -> Level | None:
        """The level that stands for this trial in tables.

        The one at its sustainable rate; without one, its lowest valid open-loop load; else None.
        """
        if self.reference is not None:
            return self.reference
        valid = [
            level
            for level in self.levels
            if level.verdict.valid and level.measurement.loop == "open"
        ]
        return min(valid, key=lambda level: level.measurement.offered_rps or 0.0, default=None)
