"""What all windows of a run come to, of which none is in memory any more."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tuner.clock import NS_PER_MS, NS_PER_S
from tuner.measure.histogram import LatencyHistogram
from tuner.measure.percentiles import samples_for
from tuner.measure.window import Window, pooled, ranked_errors, window, window_histogram
from tuner.records import HostEvidence, Measurement, Samples
from tuner.slo import PERCENTILES, Slo, limit_name


def _nothing() -> LatencyHistogram:
    return LatencyHistogram.of(np.empty(0, np.int64))


@dataclass(slots=True)
class Total:
    """Sums, and histograms of latency and lateness: percentiles are good to three digits.

    `latest` is what the last window showed: a run's slopes are those of its end.
    """

    slo: Slo
    histogram: LatencyHistogram = field(default_factory=_nothing)
    windows: int = 0
    latest: Measurement | None = None
    _lateness: LatencyHistogram = field(default_factory=_nothing)
    _errors: Counter[str] = field(default_factory=Counter)
    _over: Counter[str] = field(default_factory=Counter)
    _sums: Counter[str] = field(default_factory=Counter)
    _effective: float = 0.0
    _length_s: float = 0.0
    _cpu_s: list[float | None] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    _processes: int = 1
    _max_ns: int = 0
    _late_ns: int = 0
    _last_ns: int = 0

    @property
    def requests(self) -> int:
        """Requests counted in."""
        return self._sums["requests"]

    def add(self, cut: Window, measured: Measurement) -> None:
        """Count a window in."""
        self._count(cut, measured)
        self.windows += 1
        self.latest = measured
        self._weigh(measured.host, cut.length_s)

    def add_strays(self, samples: Samples) -> None:
        """Count requests in whose window was closed before they came."""
        cut = window(samples, warmup_s=0)
        nobody = HostEvidence(None, 0.0, None)
        self._count(cut, pooled([cut], slo=self.slo, host=nobody, seed=None))

    def _count(self, cut: Window, measured: Measurement) -> None:
        answered_ns, lateness_ns = cut.answered_ns, cut.samples.lateness_ns[cut.inside]
        self.histogram = self.histogram.merge(window_histogram(cut))
        self._lateness = self._lateness.merge(LatencyHistogram.of(lateness_ns))
        self._errors.update(measured.errors)
        self._over.update(measured.over_limit)
        self._max_ns = max(self._max_ns, int(answered_ns.max(initial=0)))
        self._late_ns = max(self._late_ns, int(lateness_ns.max(initial=0)))
        self._last_ns = max(self._last_ns, int(cut.samples.done_ns[cut.answered].max(initial=0)))
        self._effective += measured.effective_samples
        self._sums.update(
            requests=measured.requests,
            answered=measured.answered,
            useful=int(np.count_nonzero(answered_ns <= self.slo.loosest_ms * NS_PER_MS)),
            rows=int(cut.samples.rows[cut.answered].sum()),
            latency_ns=int(answered_ns.sum()),
            sent=round(measured.achieved_share * measured.requests),
        )

    def measurement(self, *, window_s: float, ended_ns: int, seed: int) -> Measurement:
        """The whole run of `window_s` seconds, whose schedule ended at `ended_ns`."""
        sums, latest = self._sums, self.latest
        requests, answered = sums["requests"], sums["answered"]
        drain_s = max(0, self._last_ns - ended_ns) / NS_PER_S
        names = [name for name in PERCENTILES if requests >= samples_for(name)]
        shares = tuple(PERCENTILES[name] for name in names)
        late_p50_ms, late_p99_ms = self._lateness.percentiles_ms((0.5, 0.99))
        return Measurement(
            loop="open",
            offered_rps=requests / window_s,
            concurrency=None,
            window_s=window_s,
            drain_s=drain_s,
            warmup_s=0.0,
            requests=requests,
            answered=answered,
            throughput_rps=answered / (window_s + drain_s),
            goodput_rps=sums["useful"] / (window_s + drain_s),
            rows_rps=sums["rows"] / (window_s + drain_s),
            mean_ms=sums["latency_ns"] / answered / NS_PER_MS if answered else None,
            max_ms=self._max_ns / NS_PER_MS if answered else None,
            percentiles_ms=dict(zip(names, self.histogram.percentiles_ms(shares), strict=True)),
            over_limit={
                limit_name(name): self._over[limit_name(name)] for name, _ in self.slo.limits_ms
            },
            errors=ranked_errors(self._errors),
            lateness_p50_ms=(late_p50_ms or 0.0) if requests else 0.0,
            lateness_p99_ms=(late_p99_ms or 0.0) if requests else 0.0,
            lateness_max_ms=self._late_ns / NS_PER_MS,
            achieved_share=sums["sent"] / requests if requests else 1.0,
            outstanding_slope_rps=0.0 if latest is None else latest.outstanding_slope_rps,
            effective_samples=self._effective,
            host=self._host(),
            seed=seed,
            latency_slope_ms=None if latest is None else latest.latency_slope_ms,
            littles_gap=None if latest is None else latest.littles_gap,
            looks=max(self.windows, 1),
        )

    def _weigh(self, host: HostEvidence, length_s: float) -> None:
        """Add up who used the processors; what one window does not know nobody does."""
        self._length_s += length_s
        self._processes = host.generator_processes
        used = (host.server_cpu, host.generator_cpu, host.foreign_cpu)
        self._cpu_s = [
            None if total is None or cores is None else total + cores * length_s
            for total, cores in zip(self._cpu_s, used, strict=True)
        ]

    def _host(self) -> HostEvidence:
        length_s = self._length_s or 1.0
        server, generator, foreign = (
            None if total is None else total / length_s for total in self._cpu_s
        )
        return HostEvidence(server, generator or 0.0, foreign, self._processes)
