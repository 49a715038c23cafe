"""Checks of this host: processors, quota, threads, clocks, ports, GPUs."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tuner.doctor.finding import Finding
from tuner.measure.gpu import GpuMeter, driver
from tuner.scenario import OP_THREADS, Scenario
from tuner.server.cpus import Placement
from tuner.server.ports import listens

CUSTOMARY_PORTS = (8500, 8501)
"""Where a TensorFlow Serving that somebody else runs would listen."""

UNSTEADY = 0.15
"""Work may take this much longer at its 90th percentile, or lose this share of its time."""

SPINS, SPIN_S = 60, 0.004
"""Pieces of work that are timed, and how long each takes about."""

OVERSUBSCRIBED = 4
"""Threads that compute at once, per processor, from which on they are worth a word."""


def check_processors(placement: Placement) -> Finding:
    """Whether the load generator takes processors from the server."""
    if placement.apart:
        return Finding("processors", "green", placement.describe())
    return Finding(
        "processors",
        "yellow",
        f"server and load generator share processors: {placement.describe()}",
        "use a machine with two processors or more, or set server.cpus and load.cpus apart: the "
        "generator's work is the server's loss",
    )


def check_quota(quota: float | None, cpus: int) -> Finding:
    """Whether a CPU quota is smaller than what TensorFlow will size its threads by."""
    if quota is None or quota >= cpus:
        shown = "no CPU quota" if quota is None else f"a CPU quota of {quota:g} processors"
        return Finding("cpu-quota", "green", f"{shown}; the server sees {cpus}")
    return Finding(
        "cpu-quota",
        "yellow",
        f"the quota is {quota:g} processors, but the server sees {cpus} and starts threads for "
        f"{cpus}: TensorFlow counts the processors of the affinity mask and ignores quotas",
        "give the server whole processors (a cpuset, server.cpus) instead of a quota, or set "
        f"{OP_THREADS[1]} and num_batch_threads to at most {max(1, int(quota))}",
    )


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> (
    float | None
):  # fmt: skip
    """The processors this process may use by quota: the least along its control groups.

    Both versions of control groups are read; None where no quota is set or none can be read.
    """
    quotas = [
        quota
        for line in _lines(own)
        for hierarchy, controllers, place in [line.split(":", 2)]
        for folder in _upwards(root if hierarchy == "0" else root / "cpu", place)
        if (quota := _quota_of(folder)) is not None
        if hierarchy == "0" or "cpu" in controllers.split(",")
    ]
    return min(quotas, default=None)


def _upwards(root: Path, place: str) -> Iterator[Path]:
    folder = root / place.lstrip("/")
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


def _quota_of(folder: Path) -> float | None:
    version2 = next(iter(_lines(folder / "cpu.max")), "max").split()
    quota, period = version2[0], version2[-1]
    if quota == "max":
        quota = next(iter(_lines(folder / "cpu.cfs_quota_us")), "-1")
        period = next(iter(_lines(folder / "cpu.cfs_period_us")), "100000")
    return int(quota) / int(period) if quota.isdigit() and int(quota) > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def check_threads(scenario: Scenario, cpus: int) -> Finding:
    """How many threads the server will start, against the processors it has."""
    batch = max(scenario.search.space.num_batch_threads)
    operator = _operator_threads(scenario) or cpus
    text = (
        f"up to {batch} batch thread{'s' * (batch > 1)}, {operator} thread"
        f"{'s' * (operator > 1)} in an operator, on {cpus} processor{'s' * (cpus > 1)}"
    )
    if batch * operator <= OVERSUBSCRIBED * cpus:
        return Finding("threads", "green", text)
    return Finding(
        "threads",
        "yellow",
        f"{text}: {batch * operator} threads may compute at once",
        f"fix {OP_THREADS[1]} = 1 in server.flags, search it in search.space.flags, or leave out "
        "the largest num_batch_threads: too many threads keep batches small and processors busy "
        "switching",
    )


def _operator_threads(scenario: Scenario) -> int:
    """The largest number of threads in an operator that flags ask for; 0 where none does."""
    searched = scenario.search.space.flags
    values = [value for name in OP_THREADS[:2] for value in searched.get(name, ())]
    values += [scenario.server.flags.get(name, 0) for name in OP_THREADS[:2]]
    return max((int(value) for value in values if str(value).isdigit()), default=0)


def check_clocks(cpu: int) -> Finding:
    """Whether a processor of the server does the same work in the same time."""
    governor = _governor(cpu)
    pace = pace_of(cpu)
    if max(pace.spread, pace.lost) > UNSTEADY:
        return Finding(
            "clocks",
            "yellow",
            f"processor {cpu} is not steady: the same work took up to {pace.spread:.0%} longer, "
            f"and others had the processor for {pace.lost:.0%} of the time",
            "stop what else runs; on your own hardware fix the clock (sudo cpupower "
            "frequency-set -g performance) and turn boost off; on a shared host take dedicated "
            "processors",
        )
    if governor not in {None, "performance"}:
        return Finding(
            "clocks",
            "yellow",
            f"the governor of processor {cpu} is {governor}, so its clock follows the load",
            "sudo cpupower frequency-set -g performance",
        )
    shown = "" if governor is None else f", governor {governor}"
    return Finding("clocks", "green", f"processor {cpu} is steady within {pace.spread:.1%}{shown}")


@dataclass(frozen=True, slots=True)
class Pace:
    """How evenly a processor works.

    `spread` is the 90th percentile of the time that equal pieces of work took over their
    median, less 1; `lost` the share of the time in which somebody else had the processor.
    """

    spread: float
    lost: float


def pace_of(cpu: int) -> Pace:
    """Time equal pieces of work on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        rounds = _rounds_for(SPIN_S)
        begun, used = time.perf_counter(), time.thread_time()
        times = sorted(_timed(rounds) for _ in range(SPINS))
        passed, used = time.perf_counter() - begun, time.thread_time() - used
    finally:
        os.sched_setaffinity(0, before)
    spread = times[int(0.9 * len(times))] / median(times) - 1
    return Pace(spread, max(0.0, 1 - used / passed))


def _rounds_for(seconds: float) -> int:
    best = min(_timed(10_000) for _ in range(5))
    return max(1, int(10_000 * seconds / best))


def _timed(rounds: int) -> float:
    begun = time.perf_counter()
    for _ in range(rounds):
        pass
    return time.perf_counter() - begun


def _governor(cpu: int) -> str | None:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
    return next(iter(_lines(path)), None)


def check_ports(ports: tuple[int, ...] = CUSTOMARY_PORTS) -> Finding:
    """Whether somebody else's server runs here; the tuner's own always get free ports."""
    taken = [port for port in ports if listens(port)]
    shown = " and ".join(map(str, taken or ports))
    if not taken:
        return Finding("ports", "green", f"nothing else listens on {shown}")
    return Finding(
        "ports",
        "yellow",
        f"something listens on {shown}: another model server would share this machine with the "
        "measurement, and `docker run -p` could not publish there",
        f"`ss -ltnp 'sport = :{taken[0]}'` names it; stop it for the night, or publish elsewhere "
        "with -p OTHER:8500",
    )


def check_gpu(scenario: Scenario) -> Finding:
    """The GPUs that the server on this host could use, and whether their clocks are held down."""
    found = driver()
    if found is None:
        wanted = scenario.search.device == "gpu"
        text = "no GPU: there is no NVIDIA driver here, or it finds none"
        if not wanted:
            return Finding("gpu", "green", text)
        return Finding(
            "gpu",
            "red",
            f'search.device = "gpu", but {text}',
            "check `nvidia-smi`; install the driver, or set search.device to cpu",
        )
    with GpuMeter(period_s=0.1) as meter:
        time.sleep(0.3)
    slowed = sorted({reason for gpu in meter.evidence for reason in gpu.slowed_by})
    cuda = "" if found.cuda is None else f", CUDA {found.cuda[0]}.{found.cuda[1]}"
    text = f"{', '.join(found.gpus)}; driver {found.version}{cuda}"
    if not slowed:
        return Finding("gpu", "green", text)
    return Finding(
        "gpu",
        "yellow",
        f"{text}; clocks are held down by: {', '.join(slowed)}",
        "see `nvidia-smi -q -d PERFORMANCE`; cool the host, fix its clocks with nvidia-smi -lgc",
    )
