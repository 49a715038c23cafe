"""A thread's place in the scheduler: what decides how soon after it wakes it runs."""

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path
from struct import Struct

SLICE_NS = 100_000
"""The shortest slice that Linux grants, from 6.12 on."""

_SCHED_ATTR = Struct("=IIQiIQQQ")
"""As sched_setattr(2) takes it: size, policy, flags, nice, priority, runtime, and two unused."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


def raise_priority(niceness: int) -> int:
    """Let this thread, and those it will start, run as soon as possible after they wake.

    Returns the niceness reached: raising the priority needs a privilege and is no must.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    with suppress(OSError):
        # A session of its own is a scheduling group of its own (sched(7), autogroup): niceness
        # then counts inside it only, and against other sessions only the group's does.
        Path("/proc/self/autogroup").write_text(str(niceness), encoding="ascii")
    with suppress(OSError):
        # Timers end up to 50 us late by default, to save power: more than all else adds here.
        Path("/proc/self/timerslack_ns").write_text("1", encoding="ascii")
    reached = os.getpriority(os.PRIO_PROCESS, 0)
    _shorten_slice(reached)
    return reached


def _shorten_slice(niceness: int) -> None:
    """Ask for the shortest slice, which no privilege is needed for; older kernels ignore it.

    Whoever runs keeps the processor to the end of his slice, some 3 ms, against all that wake,
    however nice they are, unless their slices are shorter (sched-eevdf in the kernel's
    documentation). A thread of the kernel's that looks over the memory a few times a second is
    enough to send one request in a hundred late by milliseconds.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_OTHER, 0, niceness, 0, SLICE_NS, 0, 0)
    with suppress(AttributeError, OSError):  # a C library without `syscall`
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)
