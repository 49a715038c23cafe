"""What the server's own counters say: TensorFlow Serving's Prometheus metrics before and after.

Counters run from the start of the process, so a load level is the difference of two scrapes.
Batching counters appear only after their first use and carry no model name; their histograms
are too coarse for percentiles, but their sums are exact.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tuner.records import ServerEvidence

_SERVING = ":tensorflow:serving:"
_BATCHING = _SERVING + "batching_session:"
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a text exposition."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def parse(text: str) -> Iterator[Sample]:
    """Read the samples of a Prometheus text exposition.

    Comments, lines that are no samples and values that are no finite numbers are passed over:
    a server may export more than is asked for here.
    """
    for line in text.splitlines():
        found = _SAMPLE.match(line.strip())
        if found is None:
            continue
        try:
            value = float(found["value"])
        except ValueError:
            continue
        if math.isfinite(value):
            yield Sample(found["name"], tuple(_LABEL.findall(found["labels"] or "")), value)


def evidence(before: str, after: str) -> ServerEvidence | None:
    """Evidence of one load level from a scrape before and one after it.

    None where the second scrape holds no metric of TensorFlow Serving, or where a counter ran
    backwards, that is, where the server started anew in between.
    """
    first, second = _totals(before), _totals(after)
    if not second:
        return None
    grown = {key: value - first.get(key, 0.0) for key, value in second.items()}
    if any(value < 0 for value in grown.values()) or first.keys() - second.keys():
        return None
    batches = grown.get((_BATCHING + "wrapped_run_count", ""), 0.0)
    executed = grown.get((_BATCHING + "processed_batch_size_sum", ""), 0.0)
    padding = grown.get((_BATCHING + "padding_size_sum", ""), 0.0)
    queue_ms = _mean_ms(grown, _BATCHING + "queuing_latency")
    runtime_ms = _mean_ms(grown, _SERVING + "runtime_latency")
    request_ms = _mean_ms(grown, _SERVING + "request_latency")
    return ServerEvidence(
        batches=round(batches),
        rows_per_batch=(executed - padding) / batches if batches else None,
        padding_share=padding / executed if executed else None,
        queue_ms=queue_ms,
        requests={
            status: round(value)
            for (name, status), value in sorted(grown.items())
            if name == _SERVING + "request_count" and value
        },
        # The session's run includes the wait for a batch thread, and the request both.
        run_ms=_less(runtime_ms, queue_ms or 0.0),
        handler_ms=_less(request_ms, runtime_ms),
    )


def _mean_ms(grown: dict[tuple[str, str], float], histogram: str) -> float | None:
    """Mean of what a histogram of microseconds took in between two scrapes."""
    count = grown.get((histogram + "_count", ""), 0.0)
    return grown.get((histogram + "_sum", ""), 0.0) / count / _US_PER_MS if count else None


def _less(whole_ms: float | None, part_ms: float | None) -> float | None:
    return None if whole_ms is None or part_ms is None else max(0.0, whole_ms - part_ms)


_WANTED = frozenset(
    {
        _SERVING + "request_count",
        _BATCHING + "wrapped_run_count",
        _BATCHING + "processed_batch_size_sum",
        _BATCHING + "padding_size_sum",
        _BATCHING + "queuing_latency_sum",
        _BATCHING + "queuing_latency_count",
        _SERVING + "request_latency_sum",
        _SERVING + "request_latency_count",
        _SERVING + "runtime_latency_sum",
        _SERVING + "runtime_latency_count",
    }
)


def _totals(text: str) -> dict[tuple[str, str], float]:
    """Values by metric and status, summed over models, thread pools and execution sizes."""
    totals: dict[tuple[str, str], float] = {}
    for sample in parse(text):
        if sample.name in _WANTED:
            key = (sample.name, dict(sample.labels).get("status", ""))
            totals[key] = totals.get(key, 0.0) + sample.value
    return totals
