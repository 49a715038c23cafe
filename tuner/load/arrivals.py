"""When requests are due: offsets drawn before the clock starts, and never changed by an answer."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_S
from tuner.errors import InputError
from tuner.load import traces

GAPS = 4_096
"""Gaps drawn at once where each arrival depends on the one before."""

Offsets = NDArray[np.int64]
"""Nanoseconds from the start of the run, ascending, all within its duration."""


def poisson(rate_rps: float, duration_s: float, seed: int | Sequence[int]) -> Offsets:
    """Arrivals of many independent users: exponential gaps of mean 1 / rate.

    Given their number, Poisson arrivals are sorted uniforms.
    """
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate_rps * duration_s)
    return _nanoseconds(np.sort(rng.uniform(0.0, duration_s, size=count)))


def constant(rate_rps: float, duration_s: float) -> Offsets:
    """Evenly spaced arrivals, the first at once."""
    # In floating point 0.1 * 30 is a little more than 3, and must not make a fourth arrival.
    count = max(math.ceil(rate_rps * duration_s - 1e-9), 1)
    return _nanoseconds(np.arange(count) / rate_rps)


def bursts(rate_rps: float, duration_s: float, cv: float, seed: int) -> Offsets:
    """Arrivals of `endless_bursts` up to `duration_s`."""
    parts = []
    for times_s in endless_bursts(rate_rps, cv, seed):
        parts.append(times_s[times_s < duration_s])
        if len(parts[-1]) < len(times_s):
            return _nanoseconds(np.concatenate(parts))
    raise AssertionError("endless arrivals have ended")


def endless_bursts(rate_rps: float, cv: float, seed: int) -> Iterator[NDArray[np.float64]]:
    """Arrivals in seconds, GAPS at once, with gamma gaps of mean 1 / rate and variation `cv`.

    1 is Poisson, less is more regular, more comes in bursts. The gamma distribution of shape k
    and scale s has mean k s and coefficient of variation 1 / sqrt(k).
    """
    rng = np.random.default_rng(seed)
    shape = 1 / cv**2
    scale_s = 1 / (rate_rps * shape)
    # The first arrival lies somewhere within its gap, else every run would begin with a burst.
    first_s = rng.gamma(shape, scale_s) * rng.uniform()
    while True:
        times_s = first_s + np.cumsum(rng.gamma(shape, scale_s, size=GAPS))
        yield np.concatenate([[first_s], times_s[:-1]])
        first_s = times_s[-1]


Profile = Sequence[tuple[float, float]]
"""(seconds from the start, requests per second) at the corners of a load that changes."""


def varying(profile: Profile, seed: int | Sequence[int]) -> Offsets:
    """Poisson arrivals whose rate follows straight lines between the corners of `profile`.

    Two corners are a ramp; a step is two corners at the same time. Given their number, such
    arrivals are sorted uniforms put through the inverse of the cumulative rate. Raises
    InputError where the corners are no profile.
    """
    times_s, rates = _corners(profile)
    lengths_s = np.diff(times_s)
    slopes = np.divide(
        np.diff(rates), lengths_s, out=np.zeros(len(lengths_s)), where=lengths_s > 0
    )
    cumulative = np.concatenate([[0.0], np.cumsum(lengths_s * (rates[1:] + rates[:-1]) / 2)])
    rng = np.random.default_rng(seed)
    expected = np.sort(rng.uniform(0, cumulative[-1], size=rng.poisson(cumulative[-1])))
    piece = np.minimum(np.searchsorted(cumulative, expected, side="right") - 1, len(slopes) - 1)
    # Within a piece, y = r x + s x^2 / 2; this root stays exact where the slope vanishes.
    left, rate, slope = expected - cumulative[piece], rates[:-1][piece], slopes[piece]
    root = np.sqrt(np.maximum(rate**2 + 2 * slope * left, 0))
    return _nanoseconds(times_s[:-1][piece] + 2 * left / np.maximum(rate + root, 1e-12))


def between(profile: Profile, start_s: float, end_s: float) -> Profile:
    """The part of a profile from `start_s` to `end_s`, its time counted from `start_s`."""
    times_s, rates = _corners(profile)
    # At a step the part takes the rate behind its start and before its end.
    first = int(np.searchsorted(times_s, start_s, side="right"))
    stop = int(np.searchsorted(times_s, end_s, side="left"))
    inner = list(zip(times_s[first:stop].tolist(), rates[first:stop].tolist(), strict=True))
    ends = [
        _rate_at(times_s, rates, start_s, max(first - 1, 0)),
        _rate_at(times_s, rates, end_s, max(stop - 1, 0)),
    ]
    whole = [(start_s, ends[0]), *inner, (end_s, ends[1])]
    return [(at_s - start_s, rate) for at_s, rate in whole]


def _rate_at(
    times_s: NDArray[np.float64], rates: NDArray[np.float64], at_s: float, corner: int
) -> float:
    """The rate on the line that begins at `corner`; 0 beyond the last."""
    if corner + 1 >= len(times_s):
        return float(rates[-1]) if at_s == times_s[-1] else 0.0
    length_s = times_s[corner + 1] - times_s[corner]
    share = (at_s - times_s[corner]) / length_s if length_s > 0 else 0.0
    return float(rates[corner] + share * (rates[corner + 1] - rates[corner]))


def _corners(profile: Profile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = np.array(profile, dtype=np.float64).reshape(-1, 2)
    times_s, rates = corners[:, 0], corners[:, 1]
    if (
        len(corners) < 2
        or times_s[0] != 0
        or not np.isfinite(corners).all()
        or (np.diff(times_s) < 0).any()
        or (rates < 0).any()
        or not rates.any()
        or times_s[-1] <= 0
    ):
        raise InputError(
            f"a load's profile cannot be {list(profile)}",
            hint="give corners (seconds, requests/s), the first at 0 s, in order of time, such as "
            "[(0, 100), (60, 500)]",
        )
    return times_s, rates


def trace(
    path: Path, duration_s: float, rate_rps: float | None = None, *, speed: float = 1.0
) -> Offsets:
    """Replay a recorded file (see `traces`) up to `duration_s`.

    Without a rate it goes `speed` times as fast as recorded. With one, its time is stretched so
    that its mean rate becomes `rate_rps`, and it repeats until `duration_s`: the bursts keep
    their shape at every load. Raises InputError naming file and line.
    """
    parts = []
    for times_s in traces.replay(path, rate_rps, speed):
        parts.append(times_s[times_s < duration_s])
        if len(parts[-1]) < len(times_s):
            break
    if not any(map(len, parts)):
        raise InputError(
            f"{path}: holds no arrival before {duration_s:g} s",
            hint="times are seconds from the start of the run, one a line",
        )
    return _nanoseconds(np.concatenate(parts))


def _nanoseconds(offsets_s: NDArray[np.float64]) -> Offsets:
    return (offsets_s * NS_PER_S).astype(np.int64)
