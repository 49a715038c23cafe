"""Run a server so that it dies with the tuner: `python guard.py CPUS PARENT -- ARGV...`.

Executed as a script without site-packages (a few milliseconds), it asks the kernel for SIGKILL
at its parent's death, moves to the given processors, and becomes the server. A shim, since doing
this between fork and exec of a process with threads can deadlock.

Where the load generator cannot be given a higher priority than the server, which needs a
privilege, the server gets a lower one: on processors that both use, a generator that waits for
the server sends late.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
YIELDING_NICENESS = 10


def yield_to_generator() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, own - 1)
    except PermissionError:
        os.setpriority(os.PRIO_PROCESS, 0, max(own, YIELDING_NICENESS))
    else:  # the generator may raise its own, so the server keeps what it has
        os.setpriority(os.PRIO_PROCESS, 0, own)


def main() -> None:
    cpus, parent, separator, *argv = sys.argv[1:]
    assert separator == "--"
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the request: nobody will stop this server
        sys.exit(1)
    if cpus:
        os.sched_setaffinity(0, [int(cpu) for cpu in cpus.split(",")])
    yield_to_generator()
    os.execvp(argv[0], argv)  # noqa: S606 - an argv list, as it was given


main()
