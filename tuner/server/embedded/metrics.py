"""The server's Prometheus metrics: TensorFlow Serving's names, labels and buckets.

Values are cumulative since the start. Names begin with a colon, which client libraries refuse, so
the text format is written here (util/prometheus_exporter.cc).
"""

import threading
from bisect import bisect_right
from collections.abc import Sequence

_BATCHING = ":tensorflow:serving:batching_session:"


class Counter:
    """A count per combination of label values."""

    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._labels = labels
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str) -> None:
        """Count one."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + 1

    def lines(self) -> list[str]:
        """Render the metric in Prometheus' text format; nothing before its first use."""
        with self._lock:
            values = dict(self._values)
        lines = [f"# TYPE {self._name} counter"] if values else []
        for key, value in values.items():
            lines.append(f"{self._name}{{{_pairs(self._labels, key)}}} {value}")
        return lines


class Histogram:
    """Samples by size, per combination of label values.

    Bucket limits are `scale * growth**k` for k in 0..count-1, and infinity; a sample equal to a
    limit belongs to the next bucket, as in TensorFlow.
    """

    def __init__(
        self, name: str, labels: Sequence[str], *, scale: float, growth: float, count: int
    ) -> None:
        self._name = name
        self._labels = labels
        self._limits = [scale * growth**power for power in range(count)]
        self._cells: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def add(self, value: float, *labels: str) -> None:
        """Record one sample."""
        bucket = bisect_right(self._limits, value)
        with self._lock:
            cell = self._cells.get(labels)
            if cell is None:
                cell = self._cells[labels] = ([0] * (len(self._limits) + 1), [0.0])
            cell[0][bucket] += 1
            cell[1][0] += value

    def lines(self) -> list[str]:
        """Render the metric in Prometheus' text format; nothing before its first use."""
        with self._lock:
            cells = {key: (list(counts), total[0]) for key, (counts, total) in self._cells.items()}
        lines = [f"# TYPE {self._name} histogram"] if cells else []
        for key, (counts, total) in cells.items():
            pairs = _pairs(self._labels, key)
            comma = "," if pairs else ""
            cumulative = 0
            for limit, count in zip([*self._limits, None], counts, strict=True):
                cumulative += count
                bound = "+Inf" if limit is None else f"{limit:g}"
                lines.append(f'{self._name}_bucket{{{pairs}{comma}le="{bound}"}} {cumulative}')
            lines.append(f"{self._name}_sum{{{pairs}}} {total:.15g}")
            lines.append(f"{self._name}_count{{{pairs}}} {cumulative}")
        return lines


def _pairs(names: Sequence[str], values: tuple[str, ...]) -> str:
    return ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _latency(name: str, third_label: str) -> Histogram:
    labels = ("model_name", "API", third_label)
    return Histogram(f":tensorflow:serving:{name}", labels, scale=10, growth=1.8, count=33)


def _rows(name: str, *labels: str) -> Histogram:
    return Histogram(_BATCHING + name, labels, scale=1, growth=2, count=14)


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self.request_count = Counter(":tensorflow:serving:request_count", ("model_name", "status"))
        self.request_latency = _latency("request_latency", "entrypoint")
        self.runtime_latency = _latency("runtime_latency", "runtime")
        self.wrapped_run_count = Counter(_BATCHING + "wrapped_run_count")
        self.input_batch_size = _rows("input_batch_size")
        self.processed_batch_size = _rows("processed_batch_size")
        self.padding_size = _rows("padding_size", "execution_batch_size")
        self.queuing_latency = Histogram(
            _BATCHING + "queuing_latency", ("thread_pool_name",), scale=100, growth=1.2, count=52
        )

    def batch(self, rows: int, padded: int) -> None:
        """Record one executed batch of `rows` real rows, run at the size `padded`."""
        self.wrapped_run_count.add()
        self.processed_batch_size.add(padded)
        self.padding_size.add(padded - rows, str(padded))

    def text(self) -> str:
        """Render everything in Prometheus' text format."""
        metrics: tuple[Counter | Histogram, ...] = (
            self.request_count,
            self.request_latency,
            self.runtime_latency,
            self.wrapped_run_count,
            self.input_batch_size,
            self.processed_batch_size,
            self.padding_size,
            self.queuing_latency,
        )
        return "".join(f"{line}\n" for metric in metrics for line in metric.lines())
