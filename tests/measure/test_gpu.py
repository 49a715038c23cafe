"""NVIDIA's library as seen from its Python binding: absent, as here, or answering in C's ways.

The binding (pynvml) is the real one. What stands in is the shared library beneath it: its
functions take pointers, fill them, and return error codes.
"""

# ruff: noqa: N802 - the names are C's

import time
from types import SimpleNamespace

import pynvml
import pytest

from tuner.measure.gpu import GpuMeter, driver

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
MIB = 1 << 20


class Library:
    """`libnvidia-ml.so.1` of a host with GPUs. Counts how often it was started and ended."""

    def __init__(self, gpus=1, **missing):
        self.gpus = gpus
        self.missing = missing
        self.started = self.ended = self.reads = 0

    def __getattr__(self, name):
        if name.startswith("nvml") and name in self.missing:
            return lambda *_: self.missing[name]
        raise AttributeError(name)

    def nvmlInitWithFlags(self, _flags):
        self.started += 1
        return 0

    def nvmlShutdown(self):
        self.ended += 1
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        return fill(count, self.gpus)

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        return 0

    def nvmlDeviceGetName(self, _handle, buffer, _size):
        buffer.value = b"NVIDIA H100"
        return 0

    def nvmlSystemGetDriverVersion(self, buffer, _size):
        buffer.value = b"550.54.15"
        return 0

    def nvmlSystemGetCudaDriverVersion(self, version):
        return fill(version, 12040)

    def nvmlDeviceGetUtilizationRates(self, _handle, rates):
        self.reads += 1
        rates._obj.gpu = 40 if self.reads == 1 else 80
        return self.missing.get("utilisation", 0)

    def nvmlDeviceGetMemoryInfo(self, _handle, memory):
        memory._obj.used, memory._obj.total = 1000 * MIB, 8000 * MIB
        return 0

    def nvmlDeviceGetPowerUsage(self, _handle, milliwatts):
        return fill(milliwatts, 250_000) or self.missing.get("power", 0)

    def nvmlDeviceGetClockInfo(self, _handle, _kind, mhz):
        return fill(mhz, 1980 if self.reads < 2 else 1200)

    def nvmlDeviceGetTemperature(self, _handle, _sensor, degrees):
        return fill(degrees, 60 + min(self.reads, 3))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle, reasons):
        busy = pynvml.nvmlClocksThrottleReasonSwPowerCap
        return fill(reasons, pynvml.nvmlClocksThrottleReasonGpuIdle if self.reads < 2 else busy)


def fill(pointer, value):
    pointer._obj.value = value
    return 0


@pytest.fixture
def library(monkeypatch):
    def use(found):
        monkeypatch.setattr(pynvml, "nvmlLib", found)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return found

    return use


def watched(found, readings=3):
    with GpuMeter(period_s=0.001) as meter:
        deadline = time.monotonic() + 10
        while found.reads < readings * found.gpus and time.monotonic() < deadline:
            time.sleep(0.001)
    return meter.evidence


@pytest.mark.skipif(driver() is not None, reason="this machine has a GPU")
def test_without_a_gpu_there_is_no_evidence_and_no_thread():
    with GpuMeter() as meter:
        assert meter._thread is None
    assert meter.evidence == ()


def test_a_gpu_is_read_while_the_block_runs(library):
    found = library(Library())
    (gpu,) = watched(found)
    assert gpu.name == "NVIDIA H100"
    assert gpu.readings >= 3
    assert 40 < gpu.utilisation_percent < 80
    assert (gpu.memory_mib, gpu.memory_total_mib) == (1000, 8000)
    assert gpu.power_w == 250
    assert (gpu.clock_min_mhz, gpu.clock_max_mhz) == (1200, 1980)
    assert 1200 < gpu.clock_mhz < 1980
    assert gpu.temperature_c == 63
    assert gpu.slowed_by == ("power cap",)
    assert found.started == found.ended == 1


def test_every_gpu_has_its_evidence(library):
    assert [gpu.index for gpu in watched(library(Library(gpus=2)))] == [0, 1]


def test_what_a_gpu_does_not_tell_is_absent_alone(library):
    (gpu,) = watched(library(Library(utilisation=NOT_SUPPORTED, power=NOT_SUPPORTED)))
    assert gpu.utilisation_percent is None
    assert gpu.power_w is None
    assert gpu.temperature_c is not None


def test_a_gpu_that_falls_off_the_bus_ends_no_trial(library):
    found = library(Library())
    with GpuMeter(period_s=0.001) as meter:
        lost = SimpleNamespace(nvmlShutdown=found.nvmlShutdown)  # every other call is unknown now
        library(lost)
        time.sleep(0.05)
    (gpu,) = meter.evidence
    assert gpu.name == "GPU"


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_DRIVER_NOT_LOADED, 999])
def test_a_driver_that_does_not_answer_is_no_gpu(library, code):
    found = Library()
    found.nvmlInitWithFlags = lambda _flags: code
    library(found)
    with GpuMeter() as meter:
        pass
    assert meter.evidence == ()
    assert driver() is None


def test_the_driver_tells_the_newest_cuda_it_runs(library):
    found = library(Library(gpus=2))
    told = driver()
    assert (told.version, told.cuda) == ("550.54.15", (12, 4))
    assert told.gpus == ("NVIDIA H100", "NVIDIA H100")
    assert found.started == found.ended == 1


def test_a_driver_without_gpus_is_none(library):
    found = library(Library(gpus=0))
    assert driver() is None
    assert found.started == found.ended == 1
