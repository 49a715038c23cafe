"""A run of any length, cut into windows as its requests end; only the open ones are in memory.

What a window holds are the requests *intended* in it, as everywhere. Since the run goes on behind
it, its throughput is that of the answers that *came* in it; there is no drain but the last one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.clock import NS_PER_MS
from tuner.measure.histogram import LatencyHistogram
from tuner.measure.window import Window, pooled, window, window_histogram
from tuner.records import HostEvidence, Measurement, Samples, Status
from tuner.slo import Slo

COLUMNS = ("intended_ns", "sent_ns", "done_ns", "rows")


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """One window: its number from 0, what was measured, and the latencies in it."""

    number: int
    cut: Window
    measurement: Measurement
    histogram: LatencyHistogram


class Timeline:
    """Takes samples in any order, and hands out windows in theirs.

    Windows are `window_ns` long from `started_ns` on. `strays` are requests that came when their
    window had been handed out already.
    """

    def __init__(self, *, started_ns: int, window_ns: int, slo: Slo) -> None:
        self._started_ns = started_ns
        self._window_ns = window_ns
        self._slo = slo
        self._numbers: dict[Status, int] = {Status("OK"): 0}
        self._parts: defaultdict[int, list[dict[str, NDArray[Any]]]] = defaultdict(list)
        # By window: how many answers came in it, how many within the limits, and their rows.
        self._came: defaultdict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
        self._next = 0
        self.strays: list[Samples] = []

    @property
    def held(self) -> int:
        """Requests in memory."""
        return sum(len(part["status"]) for parts in self._parts.values() for part in parts)

    def add(self, samples: Samples) -> None:
        """Take further samples; their order does not matter."""
        table = [self._numbers.setdefault(item, len(self._numbers)) for item in samples.statuses]
        status = np.array(table, dtype=np.uint16)[samples.status]
        self._count_answers(samples)
        windows = (samples.intended_ns - self._started_ns) // self._window_ns
        for number in np.unique(windows).tolist():
            inside = windows == number
            part = {name: getattr(samples, name)[inside] for name in COLUMNS}
            part["status"] = status[inside]
            if number >= self._next:
                self._parts[number].append(part)
            else:
                begin = self._started_ns + number * self._window_ns
                self.strays.append(self._samples([part], begin, begin + self._window_ns))

    def ended(
        self, until_ns: int, host_of: Callable[[int], HostEvidence], *, last: bool = False
    ) -> Iterator[Span]:
        """Hand out the windows that end by `until_ns`; with `last`, one that it cuts short too."""
        while True:
            start_ns = self._started_ns + self._next * self._window_ns
            end_ns = min(start_ns + self._window_ns, until_ns)
            if end_ns <= start_ns or (end_ns - start_ns < self._window_ns and not last):
                return
            number, self._next = self._next, self._next + 1
            samples = self._samples(self._parts.pop(number, []), start_ns, end_ns)
            yield self._span(number, samples, host_of(number))

    def _count_answers(self, samples: Samples) -> None:
        answered = samples.status == 0
        came = ((samples.done_ns - self._started_ns) // self._window_ns)[answered]
        useful = samples.latency_ns[answered] <= self._slo.loosest_ms * NS_PER_MS
        rows = samples.rows[answered]
        for number in np.unique(came[came >= self._next]).tolist():
            inside = came == number
            self._came[number] += (inside.sum(), useful[inside].sum(), rows[inside].sum())

    def _samples(
        self, parts: list[dict[str, NDArray[Any]]], start_ns: int, end_ns: int
    ) -> Samples:
        """One Samples of the parts, in order of their intended times."""

        def column(name: str) -> NDArray[Any]:
            found = [part[name] for part in parts]
            return np.concatenate(found) if found else np.empty(0, np.int64)

        order = np.argsort(column("intended_ns"), kind="stable")
        return Samples(
            intended_ns=column("intended_ns")[order],
            sent_ns=column("sent_ns")[order],
            done_ns=column("done_ns")[order],
            status=column("status")[order],
            rows=column("rows")[order],
            statuses=tuple(self._numbers),
            started_ns=start_ns,
            ended_ns=end_ns,
            cpu_s=0.0,
        )

    def _span(self, number: int, samples: Samples, host: HostEvidence) -> Span:
        cut = window(samples, warmup_s=0)
        measured = pooled([cut], slo=self._slo, host=host, seed=None)
        answers, useful, rows = (self._came.pop(number, np.zeros(3)) / cut.length_s).tolist()
        measured = replace(
            measured,
            drain_s=0.0,
            throughput_rps=answers,
            goodput_rps=useful,
            rows_rps=rows,
        )
        return Span(number, cut, measured, window_histogram(cut))
