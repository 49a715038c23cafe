"""A loop that wakes on a schedule and sends nothing: how punctual the machine lets anyone be."""

from select import select
from time import monotonic_ns

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_S


def lateness_ns(offsets_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sleep until each instant, given from now on in ns and ascending; return how late it woke.

    It sleeps as the engines do, so that what they add to this is theirs.
    """
    late_ns = []
    for due_ns in (offsets_ns + monotonic_ns()).tolist():
        while (now_ns := monotonic_ns()) < due_ns:
            select((), (), (), (due_ns - now_ns) / NS_PER_S)
        late_ns.append(now_ns - due_ns)
    return np.array(late_ns, dtype=np.int64)
