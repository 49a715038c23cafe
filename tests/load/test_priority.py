import ctypes
import os
import platform
import struct
import subprocess
import sys

import pytest

from tuner.load.priority import SLICE_NS

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
_SETTLE = "from tuner.load.priority import raise_priority; print(raise_priority({}), flush=True)"


def settled(niceness):
    """The niceness reached, and the slice, of a process that raised its priority."""
    code = _SETTLE.format(niceness) + "; input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        reached = int(process.stdout.readline())
        assert reached == os.getpriority(os.PRIO_PROCESS, process.pid)
        slice_ns = slice_of(process.pid)
        process.communicate("\n")
    return reached, slice_ns


def slice_of(pid):
    attributes = ctypes.create_string_buffer(48)
    number = _SCHED_GETATTR[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, pid, attributes, 48, 0) == 0
    return struct.unpack("=IIQiIQQQ", attributes.raw)[5]


@pytest.mark.skipif(platform.machine() not in _SCHED_GETATTR, reason="another machine's numbers")
def test_it_waits_for_nobody_to_use_up_a_slice():
    reached, slice_ns = settled(19)  # which everyone may ask for
    assert reached == 19
    if slice_ns == 0:
        pytest.skip("this kernel is older than 6.12")
    assert slice_ns == SLICE_NS < slice_of(os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="raising a priority needs a privilege")
def test_privileged_it_comes_first_too():
    assert settled(-5)[0] == -5
