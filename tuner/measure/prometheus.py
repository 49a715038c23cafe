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
    queued = grown.get((_BATCHING + "queuing_latency_count", ""), 0.0)
    waited_us = grown.get((_BATCHING + "queuing_latency_sum", ""), 0.0)
    return ServerEvidence(
        batches=round(batches),
        rows_per_batch=(executed - padding) / batches if batches else None,
        padding_share=padding / executed if executed else None,
        queue_ms=waited_us / queued / _US_PER_MS if queued else None,
        requests={
            status: round(value)
            for (name, status), value in sorted(grown.items())
            if name == _SERVING + "request_count" and value
        },
    )


_WANTED = frozenset(
    {
        _SERVING + "request_count",
        _BATCHING + "wrapped_run_count",
        _BATCHING + "processed_batch_size_sum",
        _BATCHING + "padding_size_sum",
        _BATCHING + "queuing_latency_sum",
        _BATCHING + "queuing_latency_count",
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
