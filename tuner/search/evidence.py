"""Why a configuration does what it does, in sentences made of the server's own counters.

`reasons` speaks of one trial, beside the default's; `indifferent` names parameters that made no
difference where they alone were changed; `sentences` is both, for a recommendation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from tuner.records import Config, Level, ServerEvidence, TrialRecord
from tuner.search.ranking import bounded, unbounded

FULL = 0.9
"""Batches that hold this share of the largest are limited by it."""

EMPTY = 0.5
"""Batches that never hold more than this share of the largest would be the same below it."""

WAITING = 0.3
"""A wait in the batching queue of this share of the mean latency is worth a word."""

WASTE = 0.1
"""So is this share of pad rows."""

BUSY_GPU = 70.0
"""Per cent of the time from which on a GPU counts as used."""

ALIKE = 0.06
"""Sustainable rates that differ by less are equal, as far as one measurement of each can tell."""

PARAMETERS = (
    "max_batch_size",
    "batch_timeout_micros",
    "num_batch_threads",
    "allowed_batch_sizes",
    "max_execution_batch_size",
)


def sentences(
    trial: TrialRecord, records: Sequence[TrialRecord], default: TrialRecord | None
) -> tuple[str, ...]:
    """All that the counters say of a trial beside one of the default, and of the whole search."""
    own = unbounded(trial.config)
    alike = [record for record in records if unbounded(record.config) == own]
    return (*reasons(trial, default, alike), *indifferent(records))


def reasons(
    trial: TrialRecord, default: TrialRecord | None, alike: Sequence[TrialRecord] = ()
) -> tuple[str, ...]:
    """Say what the counters show of a trial at the load that stands for it.

    `alike` are all starts of its configuration: what no load filled, none of theirs did. Empty
    where the server exported no counters.
    """
    level = trial.shown_level
    if level is None or level.measurement.server is None:
        return tuple(_gpus(trial))
    other = None if default is None or default.config == trial.config else default.shown_level
    return (
        *_filling(trial, level.measurement.server, other, alike),
        *_waiting(level, other),
        *_padding(level.measurement.server),
        *_refusals(level.measurement.server),
        *_gpus(trial),
    )


def _filling(
    trial: TrialRecord, server: ServerEvidence, other: Level | None, alike: Sequence[TrialRecord]
) -> Iterator[str]:
    """Whether batches fill, and whether a larger limit could do anything."""
    batching, rows = trial.config.batching, server.rows_per_batch
    if batching is None or rows is None:
        return
    limit = batching.row_limit
    theirs = other.measurement.server if other is not None else None
    beside = (
        ""
        if theirs is None or theirs.rows_per_batch is None
        else f"; with the server's defaults {theirs.rows_per_batch:.1f}"
    )
    yield f"a batch held {rows:.1f} of at most {limit} rows on average{beside}"
    most = max((fill for start in (trial, *alike) for fill in _fills(start)), default=rows)
    if rows >= FULL * limit:
        yield "batches are full: max_batch_size is the limit, a larger one may carry more"
    elif most <= EMPTY * limit:
        yield (
            f"no load filled batches beyond {most:.1f} rows on average, so max_batch_size is a "
            f"no-op from about {_next_power(most)} up"
        )


def _fills(trial: TrialRecord) -> Iterator[float]:
    """Rows per batch of every load of a trial, the closed-loop peak's among them."""
    for level in trial.levels:
        server = level.measurement.server
        if server is not None and server.rows_per_batch is not None:
            yield server.rows_per_batch


def _next_power(rows: float) -> int:
    """The smallest power of two that leaves batches of this mean size room to vary."""
    return 1 << max(0, int(2 * rows - 1)).bit_length()


def _waiting(level: Level, other: Level | None) -> Iterator[str]:
    """How much of the latency is the batching queue's."""
    queue_ms, mean_ms = _queue(level)
    if queue_ms is None or not mean_ms or queue_ms < WAITING * mean_ms:
        return
    theirs, _ = (None, None) if other is None else _queue(other)
    beside = "" if theirs is None else f"; with the server's defaults {theirs:.1f} ms"
    yield (f"{queue_ms:.1f} ms of {mean_ms:.1f} ms are spent waiting for a batch thread{beside}")


def _queue(level: Level) -> tuple[float | None, float | None]:
    server = level.measurement.server
    return (None if server is None else server.queue_ms), level.measurement.mean_ms


def _padding(server: ServerEvidence) -> Iterator[str]:
    if server.padding_share is not None and server.padding_share >= WASTE:
        yield (
            f"{server.padding_share:.0%} of the rows that ran were padding up to an allowed size: "
            "finer sizes would save it"
        )


def _refusals(server: ServerEvidence) -> Iterator[str]:
    refused = {status: count for status, count in server.requests.items() if status != "OK"}
    if refused:
        listed = ", ".join(f"{count:,} {status}" for status, count in sorted(refused.items()))
        yield f"the server refused requests at this load: {listed}"


def _gpus(trial: TrialRecord) -> Iterator[str]:
    for gpu in trial.gpus:
        if gpu.utilisation_percent is not None and gpu.utilisation_percent < BUSY_GPU:
            yield (
                f"GPU {gpu.index} was in use for {gpu.utilisation_percent:.0f} % of the trial: "
                "it waits for work"
            )
        if gpu.slowed_by:
            why = ", ".join(gpu.slowed_by)
            yield f"the clock of GPU {gpu.index} was held down at times: {why}"


def indifferent(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """Name parameters that were changed alone at least once and never changed the rate.

    Rates count as equal within ALIKE; one that is but a lower bound is like no other. Trials of
    equal configurations are averaged first.
    """
    rates = _rates(records)
    names = [*PARAMETERS, *sorted({name for config in rates for name, _ in config.flags})]
    return tuple(
        sentence for name in names if (sentence := _no_difference(name, rates)) is not None
    )


def _rates(records: Iterable[TrialRecord]) -> dict[Config, float]:
    found: dict[Config, list[float]] = {}
    for record in records:
        if record.config.batching is not None and record.sustainable_rps and bounded(record):
            found.setdefault(record.config, []).append(record.sustainable_rps)
    return {config: fmean(rates) for config, rates in found.items()}


def _no_difference(name: str, rates: dict[Config, float]) -> str | None:
    groups = _groups(list(rates), lambda config: _without(config, name))
    compared = [group for group in groups if len({_value(item, name) for item in group}) > 1]
    if not compared:
        return None
    for group in compared:
        found = [rates[config] for config in group]
        if max(found) > (1 + ALIKE) * min(found):
            return None
    values = sorted({_value(config, name) for group in compared for config in group}, key=_order)
    shown = ", ".join("unset" if value in {None, ()} else str(value) for value in values)
    return f"{name} made no difference where it alone was changed ({shown})"


def _groups(configs: Sequence[Config], key: Callable[[Config], str]) -> list[list[Config]]:
    return [list(group) for _, group in groupby(sorted(configs, key=key), key=key)]


def _without(config: Config, name: str) -> str:
    """Everything of a configuration but one parameter, as a text that groups equal ones."""
    values = {} if config.batching is None else config.batching.to_dict()
    values |= {f"flag.{flag}": value for flag, value in config.flags}
    dropped = {name, f"flag.{name}"}
    if name == "max_batch_size":  # the ladder ends with it
        dropped.add("allowed_batch_sizes")
    return repr(sorted((key, value) for key, value in values.items() if key not in dropped))


def _value(config: Config, name: str) -> Any:
    if name in dict(config.flags):
        return dict(config.flags)[name]
    return getattr(config.batching, name, None)


def _order(value: Any) -> tuple[bool, bool, float, str]:
    """Unset values first, then numbers by size, then words."""
    number = float(value) if isinstance(value, int) else 0.0
    return value not in {None, ()}, not isinstance(value, int), number, str(value)
