"""One stretch of load: driven, with who used the processors meanwhile, its window cut, kept."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_S
from tuner.errors import disk
from tuner.measure.histogram import write_log
from tuner.measure.host import CpuMeter
from tuner.measure.window import Window, window, window_histogram
from tuner.records import HostEvidence, Samples


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """One run of the load generator. `wall_s` is when its window began, in seconds since 1970."""

    cut: Window
    host: HostEvidence
    wall_s: float


def drive(load: Callable[[], Samples], meter: CpuMeter, *, warmup_s: float) -> Stretch:
    """Run a load under the meter and cut its window.

    A load that was given up early keeps half of its run.
    """
    meter.start()
    wall_s = time.time()
    samples = load()
    host = meter.stop(generator_s=samples.cpu_s)
    run_s = (samples.ended_ns - samples.started_ns) / NS_PER_S
    warmup_s = min(warmup_s, run_s / 2)
    return Stretch(window(samples, warmup_s=warmup_s), host, wall_s + warmup_s)


def host_of(stretches: Sequence[Stretch]) -> HostEvidence:
    """Who used the processors in all windows together, by their lengths; None where one is."""
    lengths = [stretch.cut.length_s for stretch in stretches]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(lengths):
            return None
        return float(np.average(known, weights=lengths))

    return HostEvidence(
        server_cpu=mean([stretch.host.server_cpu for stretch in stretches]),
        generator_cpu=mean([stretch.host.generator_cpu for stretch in stretches]) or 0.0,
        foreign_cpu=mean([stretch.host.foreign_cpu for stretch in stretches]),
    )


def keep(stretches: Sequence[Stretch], path: Path) -> Path:
    """Keep every request in columns at `path`.npz and the windows' histogram at `path`.hlog.

    Times are nanoseconds from the start of each stretch, which `stretch` numbers. Returns the
    histogram's path. Raises HostError where the disk refuses.
    """
    parts = [stretch.cut.samples for stretch in stretches]
    archive = path.with_suffix(".npz")
    with disk(archive):
        np.savez_compressed(archive, allow_pickle=False, **_columns(parts))
    log = path.with_suffix(".hlog")
    write_log(
        log,
        window_histogram(*(stretch.cut for stretch in stretches)),
        start_epoch_s=stretches[0].wall_s,
        length_s=sum(stretch.cut.length_s for stretch in stretches),
    )
    return log


def _columns(parts: Sequence[Samples]) -> dict[str, NDArray[Any]]:
    """The requests of all stretches one after the other, and the statuses that they index."""
    shifts = np.cumsum([0, *(len(part.statuses) for part in parts)])
    statuses = [f"{item.code}\t{item.text}" for part in parts for item in part.statuses]
    return {
        **{
            name: np.concatenate([getattr(part, name) - part.started_ns for part in parts])
            for name in ("intended_ns", "sent_ns", "done_ns")
        },
        "status": np.concatenate(
            [part.status + shift for part, shift in zip(parts, shifts, strict=False)]
        ),
        "rows": np.concatenate([part.rows for part in parts]),
        "stretch": np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        "statuses": np.array(statuses),
    }
