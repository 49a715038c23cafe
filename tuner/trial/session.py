"""A started server, made ready to be measured: it answers, has run every size, and is warm."""

from tuner.errors import CandidateError, HostError, ModelError
from tuner.load.pool import RequestPool
from tuner.load.probe import ask
from tuner.measure.steady import warmed_up
from tuner.records import Level, Samples
from tuner.trial.levels import Levels


def warm(levels: Levels) -> None:
    """Let a server that was started answer its first requests before any is measured.

    Raises CandidateError where the configuration keeps it from answering, ModelError where the
    model itself does, HostError where a server does that ran already: it gets one request.
    """
    _probe(levels)
    if levels.bench.scenario.server.launcher != "running":
        _exercise_batch_sizes(levels)
        _warm_up(levels)


def make_ready(levels: Levels) -> Level:
    """Warm a server up and find its peak, which answers at least something. Raises as `warm`."""
    _probe(levels)
    _exercise_batch_sizes(levels)
    _warm_up(levels)
    peak = levels.peak()
    if not peak.measurement.throughput_rps:
        raise CandidateError(
            "no request was answered in the closed loop",
            hint=", ".join(peak.measurement.errors) or "look into server.log",
        )
    return peak


def _probe(levels: Levels) -> None:
    """One request of every model must be answered before anything else is worth trying."""
    levels.bench.notify("probing")
    statuses = levels.generator.exercise([min(_rows(levels))], repeats=1)
    failed = next((status for status in statuses if status.code != "OK"), None)
    if failed is None:
        _prove_version(levels)
        return
    levels.server.check()
    text = f"the first request failed: {failed.code}: {failed.text}"
    if levels.bench.scenario.server.launcher == "running":
        raise HostError(
            text, hint="check server.address and [server.tls], and the model's name and version"
        )
    if levels.task.config.batching is None:
        raise ModelError(
            text, hint="the model does not answer even unbatched; check model.* and inputs"
        )
    raise CandidateError(text, hint="it is answered with batching off, so batching is at fault")


def _prove_version(levels: Levels) -> None:
    """Where a running server took a version up, it is that version which must answer."""
    expected = levels.server.endpoint.version
    if expected is None:
        return
    for message in RequestPool.load(levels.bench.pool).of_rows(min(_rows(levels))):
        answered = ask(levels.server.endpoint.address, message, receive_limit=-1).version
        if answered != expected:
            raise HostError(
                f"version {answered} answers, but the configuration is version {expected}",
                hint='set server.swap = "never"; the run can be resumed',
            )


def _rows(levels: Levels) -> tuple[int, ...]:
    """Rows per request that the scenario's load uses."""
    return tuple(
        sorted({rows for model in levels.bench.scenario.models for rows in model.row_weights})
    )


def _exercise_batch_sizes(levels: Levels) -> None:
    """Run every batch size the load can form, twice: the first run of a size is slow."""
    levels.bench.notify("running every batch size once")
    rows = _rows(levels)
    batching = levels.task.config.batching
    reach = levels.bench.scenario.load.concurrency * max(rows)
    if batching is None:
        sizes = rows
    else:
        limit = min(batching.row_limit, reach)
        doubling = [2**power for power in range(limit.bit_length())]
        sizes = tuple(
            sorted({size for size in (*doubling, limit, *rows) if size <= batching.row_limit})
        )
    levels.generator.exercise(sizes, repeats=2)
    levels.server.check()


def _warm_up(levels: Levels) -> None:
    """Drive the closed loop until its latency is steady, within the scenario's patience.

    Where it answers nothing, half as many requests at once are tried: so many wait for each other
    beyond their deadline, though a lower load may keep the SLO.
    """
    scenario = levels.bench.scenario
    chunks: list[Samples] = []
    spent_s = 0.0
    while spent_s < scenario.measure.max_warmup_s:
        levels.bench.notify(f"warming up, {spent_s:.0f} s")
        chunk = levels.closed(scenario.measure.warmup_s)
        if levels.concurrency > 1 and chunk.status.all() and not levels.late:
            levels.concurrency //= 2
            continue
        chunks.append(chunk)
        spent_s += scenario.measure.warmup_s
        if warmed_up(chunks).steady or levels.late:
            return
