"""Samples whose truth is known: plain columns, and a single server with random arrivals."""

import numpy as np

from tuner.clock import NS_PER_S
from tuner.records import OK, HostEvidence, Samples, Status
from tuner.slo import Slo

ANSWERED = (Status(OK),)
START_NS = 5_000_000_000_000
QUIET = HostEvidence(server_cpu=1.0, generator_cpu=0.2, foreign_cpu=0.05)
P99_60 = Slo((("p99", 60.0),), max_error_rate=0.001, confidence=0.95)


def columns(
    intended_s,
    latency_ms,
    *,
    seconds,
    late_ms=0.0,
    status=None,
    statuses=ANSWERED,
    rows=1,
    concurrency=None,
):
    """Samples from plain numbers: seconds from the start, milliseconds from intended to done."""
    intended = START_NS + (np.asarray(intended_s, dtype=float) * 1e9).astype(np.int64)
    count = len(intended)
    late = np.broadcast_to(np.asarray(late_ms, dtype=float) * 1e6, count).astype(np.int64)
    latency = np.broadcast_to(np.asarray(latency_ms, dtype=float) * 1e6, count).astype(np.int64)
    return Samples(
        intended_ns=intended,
        sent_ns=intended + late,
        done_ns=intended + latency,
        status=np.zeros(count, np.uint16) if status is None else np.asarray(status, np.uint16),
        rows=np.full(count, rows, np.int32),
        statuses=statuses,
        started_ns=START_NS,
        ended_ns=START_NS + round(seconds * NS_PER_S),
        cpu_s=0.1,
        concurrency=concurrency,
    )


def mm1(rate_rps, service_rps, seconds, seed):
    """Poisson arrivals at one first-come first-served server with exponential service times."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate_rps * seconds)
    arrivals = np.sort(rng.uniform(0, seconds, count))
    service = rng.exponential(1 / service_rps, count)
    # Lindley's recursion done_i = max(arrival_i, done_{i-1}) + service_i, unrolled.
    busy = np.cumsum(service)
    done = busy + np.maximum.accumulate(arrivals - (busy - service))
    return columns(arrivals, (done - arrivals) * 1e3, seconds=seconds)
