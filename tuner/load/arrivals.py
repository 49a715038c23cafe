"""When requests are due: offsets drawn before the clock starts, and never changed by an answer."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_S
from tuner.errors import InputError

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
    """Arrivals with gamma gaps of mean 1 / rate and coefficient of variation `cv`.

    1 is Poisson, less is more regular, more comes in bursts. The gamma distribution of shape k
    and scale s has mean k s and coefficient of variation 1 / sqrt(k).
    """
    rng = np.random.default_rng(seed)
    shape = 1 / cv**2
    scale_s = 1 / (rate_rps * shape)
    gaps_s = np.empty(0)
    while not len(gaps_s) or gaps_s.sum() < duration_s:
        # n gaps last n / rate, give or take sqrt(n) cv / rate.
        count = rate_rps * duration_s
        more = math.ceil(count + 4 * cv * math.sqrt(count)) + 16
        gaps_s = np.concatenate([gaps_s, rng.gamma(shape, scale_s, size=more)])
    # The first arrival lies somewhere within its gap, else every run would begin with a burst.
    offsets_s = np.cumsum(gaps_s) - gaps_s[0] * rng.uniform()
    return _nanoseconds(offsets_s[offsets_s < duration_s])


Profile = Sequence[tuple[float, float]]
"""(seconds from the start, requests per second) at the corners of a load that changes."""


def varying(profile: Profile, seed: int) -> Offsets:
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
    """Replay a text file with one offset in seconds a line; `#` starts a comment.

    Without a rate the trace is replayed `speed` times as fast, up to `duration_s`. With one, its
    time is stretched so that its mean rate becomes `rate_rps`, and it repeats until `duration_s`:
    the bursts keep their shape at every load. Raises InputError naming file and line.
    """
    offsets_s = _read_trace(path)
    if rate_rps is None:
        offsets_s = offsets_s / speed
    else:
        offsets_s = _at_rate(offsets_s, rate_rps, duration_s)
    within = offsets_s[offsets_s < duration_s]
    if not len(within):
        raise InputError(
            f"{path}: holds no arrival before {duration_s:g} s",
            hint="offsets are seconds from the start of the run, one a line",
        )
    return _nanoseconds(within)


def _at_rate(
    offsets_s: NDArray[np.float64], rate_rps: float, duration_s: float
) -> NDArray[np.float64]:
    count = len(offsets_s)
    relative = offsets_s - offsets_s[0]
    period_s = count / rate_rps
    # n arrivals span n - 1 gaps; the gap from the last to the next round's first is a mean one.
    span_s = relative[-1] * count / max(count - 1, 1)
    scaled = relative * (period_s / span_s) if span_s > 0 else relative
    rounds = np.arange(math.ceil(duration_s / period_s)) * period_s
    repeated: NDArray[np.float64] = (rounds[:, None] + scaled[None, :]).ravel()
    return repeated


def _read_trace(path: Path) -> NDArray[np.float64]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"{path}: cannot be read: {reason}",
            hint="name a text file with one arrival offset in seconds a line",
        ) from None
    offsets_s: list[float] = []
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            offsets_s.append(_offset(text, offsets_s[-1] if offsets_s else 0.0, path, number))
    if not offsets_s:
        raise InputError(f"{path}: holds no offset", hint="write one offset in seconds a line")
    return np.array(offsets_s)


def _offset(text: str, previous_s: float, path: Path, line: int) -> float:
    try:
        offset_s = float(text)
    except ValueError:
        offset_s = math.nan
    if not math.isfinite(offset_s) or offset_s < 0:
        raise InputError(
            f"{path}:{line}: expected an offset in seconds, got {text!r}",
            hint="write one number of seconds from the start a line, such as 0.0125",
        )
    if offset_s < previous_s:
        raise InputError(
            f"{path}:{line}: {text} comes before the previous offset {previous_s:g}",
            hint="sort the offsets in ascending order",
        )
    return offset_s


def _nanoseconds(offsets_s: NDArray[np.float64]) -> Offsets:
    return (offsets_s * NS_PER_S).astype(np.int64)
