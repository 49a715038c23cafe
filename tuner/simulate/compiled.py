"""The one door to numba, which turns plain loops over arrays into machine code.

A Python loop over events takes some 5 us an event and a search needs 10^8 of them; compiled it
takes about 0.1 us. numba compiles at the first call and keeps the result beside the source, or in
the user's cache where that cannot be written.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function at its first call, keeping the machine code for later processes.

    Nested calls must lie in the same file: numba looks only there for changes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", numba.NumbaWarning)
        try:
            return cast("F", numba.njit(cache=True, nogil=True)(function))
        except RuntimeError:  # nowhere to keep the machine code: compile for this process alone
            return cast("F", numba.njit(nogil=True)(function))
