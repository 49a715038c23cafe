"""A generator and a server that exist in numbers only: queues simulated, time not spent.

What it returns is what the real generator returns, so everything above runs as it is.
"""

from pathlib import Path

import numpy as np
from trials import batched

from tuner.clock import NS_PER_S
from tuner.records import OK, Endpoint, Samples, Status
from tuner.scenario import parse
from tuner.trial import Bench, Task
from tuner.trial.levels import Levels

TEXT = """
name = "s"
[model]
path = "m"
[slo]
p95_ms = 50
max_error_rate = 0.01
[measure]
window_s = 2.0
max_window_s = 8.0
"""

STATUSES = (Status(OK), Status("UNAVAILABLE", "the batching queue is full"))


class SimulatedServer:
    """One first-come first-served server: `service_s(rng, offered_rps, count)` seconds each.

    `queue_limit` requests may be outstanding; further ones fail at once. None: all wait.
    """

    endpoint = Endpoint("127.0.0.1:1", None, None, 1.0)

    def __init__(self, service_s, *, queue_limit=None):
        self.service_s = service_s
        self.queue_limit = queue_limit

    def check(self):
        pass

    def scrape(self):
        return None


def exponential(capacity_rps):
    return lambda rng, _rps, count: rng.exponential(1 / capacity_rps, count)


class SimulatedGenerator:
    """Draws the real schedules and asks the simulated server when each request is done."""

    pids = (1,)

    def __init__(self, server):
        self.server = server
        self.driven = []
        self.now_ns = 10**15

    def exercise(self, rows, repeats=1):
        return (Status(OK),) * (len(rows) * repeats)

    def open_loop(self, load):
        self.driven.append(load)
        offsets_s = load.offsets_ns() / NS_PER_S
        done_s, refused = self._served(offsets_s, load.rate_rps, load.seed)
        ended_s = load.duration_s
        if load.give_up_outstanding is not None:
            backlog = np.arange(1, len(offsets_s) + 1) - np.searchsorted(
                np.sort(done_s), offsets_s
            )
            over = np.flatnonzero(backlog > load.give_up_outstanding)
            if len(over):
                ended_s = offsets_s[over[0]]
                kept = offsets_s <= ended_s
                offsets_s, done_s, refused = offsets_s[kept], done_s[kept], refused[kept]
        return self._samples(offsets_s, done_s, refused, ended_s, None)

    def closed_loop(self, *, concurrency, duration_s, seed):
        rng = np.random.default_rng(seed)
        count = int(duration_s * 20_000)
        service = self.server.service_s(rng, np.inf, count)
        done_s = np.cumsum(service)
        count = max(int(np.searchsorted(done_s, duration_s)), concurrency + 1)
        done_s = done_s[:count]
        sent_s = np.concatenate([np.zeros(concurrency), done_s])[:count]
        return self._samples(sent_s, done_s, np.zeros(count, bool), duration_s, concurrency)

    def _served(self, arrivals_s, rate_rps, seed):
        rng = np.random.default_rng([seed, 7])
        service = self.server.service_s(rng, rate_rps, len(arrivals_s))
        limit = self.server.queue_limit
        if limit is None:
            busy = np.cumsum(service)
            done = busy + np.maximum.accumulate(arrivals_s - (busy - service))
            return done, np.zeros(len(done), bool)
        done, refused = np.array(arrivals_s, float), np.zeros(len(arrivals_s), bool)
        waiting, free_s = [], 0.0
        for index, (arrival, needed) in enumerate(zip(arrivals_s, service, strict=True)):
            waiting = [end for end in waiting if end > arrival]
            if len(waiting) >= limit:
                refused[index] = True
                continue
            free_s = max(free_s, arrival) + needed
            done[index] = free_s
            waiting.append(free_s)
        return done, refused

    def _samples(self, intended_s, done_s, refused, ended_s, concurrency):
        started = self.now_ns
        intended = started + (np.asarray(intended_s) * 1e9).astype(np.int64)
        done = started + (np.asarray(done_s) * 1e9).astype(np.int64)
        self.now_ns = max(started + int(ended_s * 1e9), int(done.max(initial=0))) + NS_PER_S
        return Samples(
            intended_ns=intended,
            sent_ns=intended,
            done_ns=done,
            status=refused.astype(np.uint16),
            rows=np.ones(len(intended), np.int32),
            statuses=STATUSES,
            started_ns=started,
            ended_ns=started + round(ended_s * NS_PER_S),
            cpu_s=0.0,
            concurrency=concurrency,
        )


def bench(folder, text=TEXT):
    scenario = parse(text, Path("/s.toml"))
    return Bench(
        scenario=scenario,
        slo=scenario.limits(),
        launcher=None,
        pool=folder / "requests.pool",
        folder=folder,
        environment_id="e-1",
        generator_cpus=frozenset({0}),
        notify=lambda _text: None,
    )


def levels(folder, server, *, text=TEXT, **task):
    """The levels of a trial against a simulated server."""
    asked = Task(number=0, role="sampler", config=batched(32), **task)
    return Levels(bench(folder, text), asked, server, SimulatedGenerator(server), folder)
