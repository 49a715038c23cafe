"""`max_enqueued_batches` by its meaning: derived, tried under overload, corrected by that.

While capacity is sought the queue is unbounded. What is deployed has a bound that follows from
the latency limit and the drain rate: a queue that takes longer to drain than the limit answers
nothing in time once it is full, however fast it turns away what is beyond it. An overload test
shows whether enough is answered in time, and what is turned away just below the sustainable rate,
where a few late answers were allowed and failures are not. What was too long is then shortened,
what was too short made longer, a few times at most.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tuner.batching import DEFAULT_MAX_ENQUEUED_BATCHES
from tuner.measure.counting import decide
from tuner.records import LOST, Config, Overload, TrialRecord
from tuner.search.ranking import by_role, unbounded
from tuner.search.space import UNBOUNDED_QUEUE
from tuner.slo import Slo

ALLOWANCE = 1.25
"""What a longer queue holds beyond the longest wait that was seen at the sustainable rate."""

MOST_TESTS = 3
"""So many bounds of one configuration are tried: the first, one derived from what that did, and
one more, since the tail of a test that was given up early is longer than it looked."""

CARRIED = 0.85
"""Share of the sustainable rate at which a queue must turn away no more than may fail: what
carries less is of no use to a search (`DOMINATED`). In simulated servers whose batch times vary
little, queues that drain in time carried 0.85 to 1 of what longer ones did."""

CONFIDENCE = 0.95
"""With which a queue must be shown to turn away more than may fail."""


TOO_LITTLE = (
    f"less than {LOST * 100:.0f} % of the sustainable rate is answered in time under overload"
)


def deployable(record: TrialRecord, slo: Slo, records: Iterable[TrialRecord] = ()) -> Config:
    """The configuration as it is deployed: its queue bounded by what the bound means.

    What the final has measured stands; else the best of what overload tests tried; else the bound
    that `derived` says.
    """
    batching = record.config.batching
    if batching is None or batching.max_enqueued_batches != UNBOUNDED_QUEUE:
        return record.config
    listed = list(records)
    if measured := [other.config for other in _bounded(record.config, listed, "final")]:
        return measured[-1]
    if tests := overload_tests(record.config, listed):
        return best(tests, slo).config
    return _with_queue(record.config, derived(record, slo))


def derived(record: TrialRecord, slo: Slo) -> int:
    """The bound of a queue that no test has tried, from the latency limit and the drain rate.

    Rows leave at rate D (the closed-loop peak), so B full batches of n rows drain in B * n / D.
    That may take the SLO's loosest limit, and where the longest latency at the sustainable rate
    was beyond it a quarter more than that: failures would count there, and a few late answers may
    not. Never less than one batch per thread, and one more for the batch that is filling.
    """
    longest_ms = 0.0 if record.reference is None else record.reference.measurement.max_ms or 0.0
    drained = _drained(record, max(slo.loosest_ms, ALLOWANCE * longest_ms))
    return max(math.ceil(drained), _threads(record.config)) + 1


def drained_in_time(record: TrialRecord, slo: Slo) -> int:
    """The longest queue whose last place is answered within the loosest limit, in batches.

    What would wait longer should be turned away at once. Of the full batches that are ahead one
    runs on each of m threads; never less than a batch for each of them.
    """
    threads = _threads(record.config)
    return max(threads, math.floor(_drained(record, slo.loosest_ms)) - threads)


def _drained(record: TrialRecord, wait_ms: float) -> float:
    """Full batches that leave within `wait_ms` at the drain rate."""
    batching = record.config.batching
    assert batching is not None
    drain_rows_rps = max((level.measurement.rows_rps for level in record.levels), default=0.0)
    return wait_ms / 1000 * drain_rows_rps / batching.row_limit


def _threads(config: Config) -> int:
    assert config.batching is not None
    return config.batching.num_batch_threads or 1


def _with_queue(config: Config, bound: int) -> Config:
    assert config.batching is not None
    return replace(config, batching=replace(config.batching, max_enqueued_batches=bound))


def overload_tests(config: Config, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Tests of a configuration with its queue bounded one way or another, in order."""
    return list(_bounded(config, list(records), "overload"))


def next_bound(record: TrialRecord, slo: Slo, records: Sequence[TrialRecord]) -> Config | None:
    """The configuration to overload next; None where nothing is left to be learnt.

    Where the queue is not ours to bound, or the final has measured it, once is enough. Else it
    begins with what drains in time; what turns away too much is made as long as an untried one.
    """
    tests = overload_tests(record.config, records)
    fixed = not ours(record.config) or any(_bounded(record.config, records, "final"))
    if not tests:
        if fixed:
            return deployable(record, slo, records)
        return _with_queue(record.config, drained_in_time(record, slo))
    latest = tests[-1]
    if fixed or passes(latest, slo) or len(tests) >= MOST_TESTS:
        return None
    config = (
        _with_queue(record.config, derived(record, slo))
        if too_short(latest, slo)
        else shortened(latest, slo)
    )
    if config is None or config in [test.config for test in tests]:
        return None
    short = [queue_of(test.config) for test in tests if too_short(test, slo)]
    return config if queue_of(config) > max(short, default=0) else None


def shortened(test: TrialRecord, slo: Slo) -> Config | None:
    """The longest queue that drains within the loosest limit L, by the tail T of a test.

    Under overload all batches are full, and the last place of a queue of B batches before m
    threads is answered after (B + m) * n / D, which is T; so B' = (B + m) * L / T - m, and never
    less than a batch for each thread. Where nothing was answered T is taken for two limits. None
    where T is within L, so that it is not the queue that makes answers late, and where the queue
    is as short as it can be.
    """
    batching = test.config.batching
    if batching is None or batching.max_enqueued_batches is None:
        return None
    threads = _threads(test.config)
    late = _tail_ms(test, slo) / slo.loosest_ms
    places = batching.max_enqueued_batches + threads
    bound = max(threads, math.floor(places / max(late, 1.0)) - threads)
    if bound >= batching.max_enqueued_batches:
        return None
    return _with_queue(test.config, bound)


def queue_of(config: Config) -> int:
    """The bound of a configuration's queue in batches, 0 where it has none."""
    return 0 if config.batching is None else config.batching.max_enqueued_batches or 0


def stalls(test: TrialRecord) -> bool:
    """Whether an overload test showed a queue with no end to speak of, or a server that died."""
    return not test.overload or any(found.finding == "stalls" for found in test.overload)


def too_short(test: TrialRecord, slo: Slo) -> bool:
    """Whether a queue was shown to turn away more than may fail, of less than it could carry."""
    return any(_refused(found, slo.max_error_rate) for found in test.overload if found.share < 1)


def _refused(found: Overload, allowed: float) -> bool:
    shed = round(found.shed_share * found.requests)
    return shed > 0 and decide(shed, found.requests, allowed, 1 - CONFIDENCE) is False


def passes(test: TrialRecord, slo: Slo) -> bool:
    """Whether whoever can be served under overload is, without harm at lower loads."""
    beyond = _beyond(test)
    return bool(beyond) and not too_short(test, slo) and not any(found.fails for found in beyond)


def best(tests: Sequence[TrialRecord], slo: Slo) -> TrialRecord:
    """The test whose bound to deploy: the last that passes, else the one that does least harm.

    Harm below the sustainable rate comes before harm beyond it, and a queue without end before one
    that answers late. Where shortening helped nothing the longest is kept, which costs least.
    """
    proven = [test for test in tests if passes(test, slo)]
    if proven:
        return proven[-1]
    by_length = sorted(tests, key=lambda test: queue_of(test.config), reverse=True)

    def worth(test: TrialRecord) -> tuple[bool, bool, float]:
        kept = min((found.kept_share for found in _beyond(test)), default=0.0)
        shorter = -_tail_ms(test, slo) if stalls(test) else round(min(kept, 1.0), 1)
        return not too_short(test, slo), not stalls(test), shorter

    return max(by_length, key=worth)


def retrying(test: TrialRecord, config: Config) -> str:
    """Why a queue follows one that was just tested, in words."""
    bound = queue_of(config)
    why, which = (
        ("too much is turned away below the sustainable rate", "longer")
        if bound > queue_of(test.config)
        else ("too little of the sustainable rate is answered in time", "shorter")
    )
    return f"{why}; trying a {which} queue: max_enqueued_batches {bound}"


def told(config: Config, slo: Slo, records: Sequence[TrialRecord]) -> str:
    """What came of bounding a configuration's queue, in words; empty where the first bound did."""
    tests = overload_tests(config, records)
    if not tests:
        return ""
    if not ours(config):
        return "" if passes(tests[-1], slo) else _as_it_is(config)
    chosen = best(tests, slo)
    if passes(chosen, slo):
        return "" if len(tests) == 1 else _corrected(tests, chosen, slo)
    if too_short(chosen, slo):
        return f"{_turned_away(chosen, slo)}: limit the load before the server"
    long = [test for test in tests if not too_short(test, slo)]
    tried = " or a ".join(map(_queue, long))
    return f"with a {tried} {TOO_LITTLE}{''.join(_reasons(tests, slo))}"


def _corrected(tests: Sequence[TrialRecord], chosen: TrialRecord, slo: Slo) -> str:
    """How the first bound became another that passes."""
    first = tests[0]
    what = (
        "turned away what it should carry and is lengthened"
        if too_short(first, slo)
        else "was too long under overload and is shortened"
    )
    return (
        f"a {_queue(first)} {what} to {queue_of(chosen.config)}, with which enough is answered in "
        "time"
    )


def _queue(test: TrialRecord) -> str:
    """The queue of a test in words: `queue of 3 batches`."""
    bound = queue_of(test.config)
    return f"queue of {bound} {'batch' if bound == 1 else 'batches'}"


def _as_it_is(config: Config) -> str:
    """What to know of a queue that nobody shortens."""
    batching = config.batching
    queue = "without batching no queue is bounded"
    if batching is not None:
        bound = batching.max_enqueued_batches
        bound = DEFAULT_MAX_ENQUEUED_BATCHES if bound is None else bound
        queue = f"its queue holds {bound:,} batches of up to {batching.row_limit:,} rows"
    return f"{TOO_LITTLE}; {queue}: limit the load before the server"


def _reasons(tests: Sequence[TrialRecord], slo: Slo) -> Iterator[str]:
    """Why no bound that was tried passes, and what would help."""
    latest = tests[-1]
    batching = latest.config.batching
    assert batching is not None
    short = [test for test in tests if too_short(test, slo)]
    if short:
        words = _turned_away(max(short, key=lambda test: queue_of(test.config)), slo)
        yield f"; {words}, so the longer one is kept: limit the load before the server"
    elif queue_of(latest.config) <= _threads(latest.config):
        yield (
            f"; a queue cannot be shorter, and full batches of {batching.row_limit} rows take too "
            "long: a smaller max_batch_size may shed, or limit the load before the server"
        )
    elif _tail_ms(latest, slo) <= slo.loosest_ms:
        yield "; what it accepts is answered in time, so that no shorter queue would do better"


def _turned_away(test: TrialRecord, slo: Slo) -> str:
    """What a queue that is too short does below the sustainable rate."""
    found = next(found for found in test.overload if found.share < 1)
    return (
        f"a {_queue(test)} turns away {found.shed_share * 100:.2g} % at "
        f"{found.share * 100:.0f} % of the sustainable rate already, where "
        f"{slo.max_error_rate * 100:g} % may fail"
    )


def ours(config: Config) -> bool:
    """Whether the bound of a configuration's queue is left to us."""
    batching = config.batching
    return batching is not None and batching.max_enqueued_batches == UNBOUNDED_QUEUE


def _bounded(config: Config, records: Sequence[TrialRecord], role: str) -> Iterator[TrialRecord]:
    """Trials of one role of a configuration: where its queue is ours, however that was bounded.

    The server's defaults are then another configuration, though they may differ in nothing else.
    """
    default = by_role(records, "default")
    same = unbounded(config)
    for record in records:
        if record.role != role:
            continue
        theirs = default is not None and record.config == default.config
        alike = not theirs and unbounded(record.config) == same
        if alike if ours(config) else record.config == config:
            yield record


def _beyond(test: TrialRecord) -> list[Overload]:
    """What a test showed above the sustainable rate."""
    return [found for found in test.overload if found.share > 1]


def _tail_ms(test: TrialRecord, slo: Slo) -> float:
    """The longest tail of the answered under overload; two limits where nothing was answered."""
    tails = [found.answered_tail_ms for found in _beyond(test) if found.answered_tail_ms]
    return max(tails, default=2 * slo.loosest_ms)
