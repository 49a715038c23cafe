"""Run a server so that it dies with the tuner: `python guard.py CPUS PARENT -- ARGV...`.

Executed as a script without site-packages (a few milliseconds), it asks the kernel for SIGKILL
at its parent's death, moves to the given processors, and becomes the server. A shim, since doing
this between fork and exec of a process with threads can deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    cpus, parent, separator, *argv = sys.argv[1:]
    assert separator == "--"
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the request: nobody will stop this server
        sys.exit(1)
    if cpus:
        os.sched_setaffinity(0, [int(cpu) for cpu in cpus.split(",")])
    os.execvp(argv[0], argv)  # noqa: S606 - an argv list, as it was given


main()
