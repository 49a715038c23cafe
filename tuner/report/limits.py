"""What gave way first at the lowest load that missed the promise, as far as it was counted."""

from collections.abc import Iterator

from tuner.batching import DEFAULT_MAX_ENQUEUED_BATCHES
from tuner.records import Measurement
from tuner.report.curves import Curve
from tuner.report.run import Run
from tuner.report.wording import number, rate, share
from tuner.search.evidence import WASTE

BUSY = 0.9
"""Share of its processors from which on the server counts as limited by them."""

GENERATOR_BUSY = 0.8

CROWDED = 0.9
"""Share of the gRPC threads that are taken from which on they are the limit."""

TURNED_AWAY = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
"""Codes of a queue that is full, and of a server that takes no more requests."""


def limits(run: Run, curve: Curve) -> Iterator[str]:
    """Name what was full there: one sentence each, none where the promise was kept throughout."""
    missed = [point for point in curve.points if point.level.verdict.feasible is False]
    if not missed:
        return
    first = min(missed, key=lambda point: point.measurement.offered_rps or 0.0)
    measured = first.measurement
    found = [*_found(run, curve, measured)]
    at = f"at {rate(measured.offered_rps)}, where the promise is missed,"
    yield from (f"{at} {text}" for text in found)
    if not found:
        yield f"{at} nothing that was counted is full: requests queue behind one another's batches"


def _found(run: Run, curve: Curve, measured: Measurement) -> Iterator[str]:
    yield from _failures(curve, measured)
    host, server = measured.host, measured.server
    if host.generator_cpu > GENERATOR_BUSY * host.generator_processes:
        yield (
            f"the load generator is near its own end ({host.generator_cpu:.2f} cores): the limit "
            "may be the client's"
        )
    cores = server_cores(run)
    if host.server_cpu is not None and cores and host.server_cpu >= BUSY * cores:
        yield _compute(curve, measured, cores)
    threads = dict(curve.trial.config.flags).get("grpc_max_threads")
    inside = measured.throughput_rps * (measured.mean_ms or 0.0) / 1000
    if threads is not None and inside >= CROWDED * int(threads):
        yield (
            f"grpc_max_threads is the limit: {number(inside)} requests are inside, {threads} "
            "threads serve them"
        )
    if server is not None and server.padding_share and server.padding_share >= WASTE:
        yield f"{share(server.padding_share)} of the rows that ran are padding"
    yield from _timeout(curve, measured)


def _compute(curve: Curve, measured: Measurement, cores: int) -> str:
    """That no processor is left, and whether one was at the lowest load: batching fills them."""
    used, least = measured.host.server_cpu or 0.0, curve.points[0].measurement
    text = (
        f"compute is the limit: the server uses {used:.2f} of its {cores} "
        f"core{'s' if cores > 1 else ''}"
    )
    if least is measured or (least.host.server_cpu or 0.0) < BUSY * cores:
        return text
    text += f", as it does at {rate(least.offered_rps)} already"
    rows = [of.server.rows_per_batch if of.server else None for of in (least, measured)]
    if rows[0] and rows[1] and rows[1] > rows[0]:
        text += (
            f"; what grew with the load is the batches, from {rows[0]:.1f} to {rows[1]:.1f} rows"
        )
    return text


def _failures(curve: Curve, measured: Measurement) -> Iterator[str]:
    if not measured.errors:
        return
    code = max(measured.errors, key=lambda name: measured.errors[name])
    text = f"{measured.errors[code]:,} of {measured.requests:,} requests fail with {code}"
    batching = curve.trial.config.batching
    if code in TURNED_AWAY and batching is not None:
        bound = batching.max_enqueued_batches
        bound = DEFAULT_MAX_ENQUEUED_BATCHES if bound is None else bound
        text += f": the queue (max_enqueued_batches, {bound:,}) is full"
    yield text


def _timeout(curve: Curve, measured: Measurement) -> Iterator[str]:
    """Whether requests wait for a batch to fill, not for a thread."""
    batching, server = curve.trial.config.batching, measured.server
    if batching is None or server is None or not batching.batch_timeout_micros:
        return
    timeout_ms = batching.batch_timeout_micros / 1000
    rows = server.rows_per_batch or 0.0
    waits = server.queue_ms is not None and server.queue_ms <= timeout_ms
    if waits and rows < batching.row_limit / 2 and timeout_ms >= 0.2 * (measured.mean_ms or 0.0):
        yield (
            f"the timeout takes {timeout_ms:g} ms at most of {number(measured.mean_ms)} ms, and "
            f"batches leave with {rows:.1f} of {batching.row_limit} rows"
        )


def server_cores(run: Run) -> int:
    """The processors that the server had; 0 where the run does not say."""
    return len(run.environment.get("server_cpus") or ()) or int(run.environment.get("cpus") or 0)
