"""What this host's GPUs did, through NVIDIA's management library; nothing where there is none.

Every value may be missing by itself: a virtual GPU tells no power, a MIG slice no utilisation.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean
from types import TracebackType
from typing import Any, Self

import pynvml

from tuner.records import GpuEvidence

PERIOD_S = 0.5
"""Between readings. The library itself averages utilisation over up to a second."""

_MIB = 1 << 20

SLOWED_BY = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "temperature",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "temperature",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
    pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting: "clocks set by an administrator",
}
"""Why a GPU may run below its clock. Idleness is no reason: it is told by utilisation."""


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver of this host; `cuda` is the newest CUDA it runs, as (major, minor)."""

    version: str
    cuda: tuple[int, int] | None
    gpus: tuple[str, ...]


def driver() -> Driver | None:
    """Ask for the driver and the GPUs' names; None where there is no driver or no GPU."""
    handles = _open()
    if not handles:
        return None
    try:
        cuda = _told(pynvml.nvmlSystemGetCudaDriverVersion)
        return Driver(
            version=str(_told(pynvml.nvmlSystemGetDriverVersion) or "unknown"),
            cuda=None if cuda is None else (cuda // 1000, cuda % 1000 // 10),
            gpus=tuple(str(_told(pynvml.nvmlDeviceGetName, item) or "GPU") for item in handles),
        )
    finally:
        _close()


@dataclass(slots=True)
class _Readings:
    """One GPU's readings so far."""

    handle: Any
    utilisation: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    clock_mhz: list[float] = field(default_factory=list)
    temperature_c: list[float] = field(default_factory=list)
    slowed_by: set[str] = field(default_factory=set)
    count: int = 0

    def read(self) -> None:
        """Take one reading of all that this GPU tells."""
        self.count += 1
        _keep(self.utilisation, lambda: pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu)
        _keep(self.memory, lambda: pynvml.nvmlDeviceGetMemoryInfo(self.handle).used / _MIB)
        _keep(self.power_w, lambda: pynvml.nvmlDeviceGetPowerUsage(self.handle) / 1000)
        _keep(
            self.clock_mhz,
            lambda: pynvml.nvmlDeviceGetClockInfo(self.handle, pynvml.NVML_CLOCK_SM),
        )
        _keep(
            self.temperature_c,
            lambda: pynvml.nvmlDeviceGetTemperature(self.handle, pynvml.NVML_TEMPERATURE_GPU),
        )
        reasons = _told(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, self.handle) or 0
        self.slowed_by |= {text for bit, text in SLOWED_BY.items() if reasons & bit}

    def evidence(self, index: int) -> GpuEvidence:
        """Sum the readings up."""
        memory = _told(pynvml.nvmlDeviceGetMemoryInfo, self.handle)
        return GpuEvidence(
            index=index,
            name=str(_told(pynvml.nvmlDeviceGetName, self.handle) or "GPU"),
            readings=self.count,
            utilisation_percent=_mean(self.utilisation),
            memory_mib=max(self.memory, default=None),
            memory_total_mib=None if memory is None else memory.total / _MIB,
            power_w=_mean(self.power_w),
            clock_mhz=_mean(self.clock_mhz),
            clock_min_mhz=min(self.clock_mhz, default=None),
            clock_max_mhz=max(self.clock_mhz, default=None),
            temperature_c=max(self.temperature_c, default=None),
            slowed_by=tuple(sorted(self.slowed_by)),
        )


class GpuMeter:
    """Reads all GPUs now and then between `with` and its end; `evidence` then sums it up.

    The readings take a thread of their own, about a millisecond each. Without a GPU, a driver or
    the library nothing happens and there is no evidence.
    """

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._readings: list[_Readings] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self.evidence: tuple[GpuEvidence, ...] = ()
        """One entry a GPU, from the end of the block on."""

    def __enter__(self) -> Self:
        self._readings = [_Readings(handle) for handle in _open()]
        if self._readings:
            self._thread = threading.Thread(target=self._watch, name="gpus", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        self._done.set()
        self._thread.join()
        self.evidence = tuple(
            readings.evidence(index) for index, readings in enumerate(self._readings)
        )
        _close()

    def _watch(self) -> None:
        while True:
            for readings in self._readings:
                readings.read()
            if self._done.wait(self._period_s):
                return


def _open() -> list[Any]:
    """Start the library and find the GPUs; none where there is no driver. `_close` ends it."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    handles = [
        handle
        for index in range(_told(pynvml.nvmlDeviceGetCount) or 0)
        if (handle := _told(pynvml.nvmlDeviceGetHandleByIndex, index)) is not None
    ]
    if not handles:
        _close()
    return handles


def _close() -> None:
    with suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()


def _told(ask: Callable[..., Any], *arguments: Any) -> Any:
    """What the library answers; None where it or the GPU does not know."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError:
        return None


def _keep(values: list[float], ask: Callable[[], float]) -> None:
    with suppress(pynvml.NVMLError):
        values.append(ask())


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None
