"""Synthetic surfaces: grids that no server was measured for. Clearly so, in name and in file.

Each is drawn by the simulator of the scheduler from a service-time law that the tuner's own
model does not contain: a roofline, a cliff at one batch size, cores that are free until all are
taken, batches that slow each other down by their rows, a hiccup now and then. Every replicate has
a restart's noise of its own. They widen what samplers are tried on beyond this machine's models;
they say nothing about any real server.

    python benchmarks/search/synthetic.py FOLDER [--seed 100] [--anything 16]
    python benchmarks/search/replay.py FOLDER       every sampler on what it was not made on
"""

import argparse
import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.search.space import LADDERS
from tuner.simulate.policy import Policy
from tuner.simulate.scheduler import simulate
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, capacity_rps

Floats = NDArray[np.float64]

REQUESTS = 4000
REPLICATES = 2
RESTART = 0.02
"""Spread of speed between starts of one configuration."""

LEVELS = 8
COLUMNS = (
    "offered_rps",
    "throughput_rps",
    "p50_ms",
    "p99_ms",
    "error_rate",
    "replicate",
    "seconds",
)
SIZES = (4, 8, 16, 32, 64, 128, 256)
TIMEOUTS = (0, 1_000, 2_000, 5_000, 10_000, 20_000)


@dataclass(frozen=True, slots=True)
class Law(ServiceModel):
    """A server's times beyond the tuner's model.

    `floor_ms` and `row_ms` make a roofline, `cliff` multiplies times above `cliff_at` rows,
    `cores` batches run undisturbed, and `thrash` slows all the more of them there are.
    """

    floor_ms: float = 1.0
    row_ms: float = 0.1
    cliff_at: int = 1 << 30
    cliff: float = 1.0
    cliffs: tuple[tuple[int, float], ...] = ()
    thrash: float = 0.0
    step: int = 1

    def run_of(self, rows: NDArray[np.int64]) -> Floats:
        """Milliseconds by rows: a roofline in tiles of `step` rows."""
        tiles = np.ceil(np.asarray(rows) / self.step) * self.step
        run = np.hypot(self.floor_ms, self.row_ms * tiles)
        for at, factor in ((self.cliff_at, self.cliff), *self.cliffs):
            run = np.where(rows > at, run * factor, run)
        return np.asarray(run, np.float64)

    def slowness(self, most: int) -> Floats:
        """Nothing until the cores are taken, then their share."""
        running = np.arange(most + 1, dtype=np.float64)
        shared = np.maximum(1.0, running / self.cores)
        return shared * (1 + self.thrash * np.sqrt(np.maximum(0.0, running - 1)))


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of surfaces: its law, limit and further parameters."""

    name: str
    law: Law
    limit_ms: float
    threads: tuple[int, ...] = (1, 2, 4, 8)
    cpus: int = 8
    flags: tuple[int, ...] = ()
    """Values of a flag that makes operators faster and leaves fewer cores to batches."""
    words: tuple[tuple[str, float], ...] = ()
    """Values of a further parameter with the factor by which each slows every batch."""
    ladders: tuple[str, ...] = ()
    sizes: tuple[int, ...] = SIZES
    timeouts: tuple[int, ...] = TIMEOUTS
    restart: float = RESTART
    """Spread of speed between starts of one configuration."""


KINDS = (
    Kind("gpu-small", Law((1,), (1.0,), floor_ms=1.6, row_ms=0.05, cores=1.3, step=4), 20.0),
    Kind("gpu-large", Law((1,), (1.0,), floor_ms=9.0, row_ms=0.4, cores=1.05), 90.0),
    Kind(
        "gpu-cliff",
        Law((1,), (1.0,), floor_ms=3.0, row_ms=0.12, cliff_at=64, cliff=1.7, cores=1.6),
        40.0,
    ),
    Kind("cpu-cores", Law((1,), (1.0,), floor_ms=4.0, row_ms=1.0, cores=4.0), 60.0),
    Kind("cpu-linear", Law((1,), (1.0,), floor_ms=4.0, row_ms=9.0, cores=2.0), 150.0),
    Kind(
        "cpu-flag",
        Law((1,), (1.0,), floor_ms=3.0, row_ms=0.8, cores=4.0),
        50.0,
        threads=(1, 2, 4),
        cpus=4,
        flags=(1, 2, 4),
    ),
)


def drawn(kind: Kind, seed: int) -> Kind:
    """The family's member of this seed: every constant moved by up to a factor of 1.6."""
    rng = np.random.default_rng((seed, 7))

    def moved(value: float) -> float:
        return value * float(np.exp(rng.uniform(-0.45, 0.45)))

    law = replace(
        kind.law,
        floor_ms=moved(kind.law.floor_ms),
        row_ms=moved(kind.law.row_ms),
        cores=max(1.0, moved(kind.law.cores)),
        thrash=moved(0.03),
        spread=moved(0.12),
        delay_ms=moved(0.5),
        front_ms=moved(0.01),
    )
    return replace(kind, name=f"synthetic-{kind.name}-{seed}", law=law)


def anything(seed: int) -> Kind:
    """A surface of no family: its law, limit, noise and space are all drawn at random."""
    rng = np.random.default_rng((seed, 23))

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))

    def some(values: tuple[int, ...], least: int) -> tuple[int, ...]:
        count = int(rng.integers(least, len(values) + 1))
        return tuple(sorted(int(v) for v in rng.choice(values, count, replace=False)))

    gpu = rng.random() < 0.5
    cpus = int(rng.choice((4, 8, 16)))
    floor = between(0.5, 15.0)
    row = floor * (between(0.005, 0.1) if gpu else between(0.1, 2.0))
    cliffs = tuple(
        (int(rng.choice((8, 16, 32, 64, 128))), between(1.25, 2.5))
        for _ in range(int(rng.choice((0, 1, 2), p=(0.55, 0.35, 0.1))))
    )
    law = Law(
        (1,),
        (1.0,),
        floor_ms=floor,
        row_ms=row,
        cliffs=cliffs,
        cores=between(1.0, 2.0) if gpu else between(1.0, cpus),
        step=int(rng.choice((1, 4, 8))) if gpu else 1,
        thrash=between(0.01, 0.15),
        spread=between(0.05, 0.25),
        delay_ms=between(0.2, 1.0),
        front_ms=between(0.005, 0.03),
    )
    sizes = some((2, 4, 8, 16, 32, 64, 128, 256), 4)
    threads = some((1, 2, 4, 8), 3)
    largest = float(law.run_of(np.array([int(rng.choice(sizes))]))[0])
    kinds_of_further = int(rng.choice(4, p=(0.5, 0.15, 0.2, 0.15)))
    words = tuple((word, float(np.exp(rng.normal(0.0, 0.25)))) for word in ("a", "b", "c"))
    return Kind(
        f"synthetic-{'gpu' if gpu else 'cpu'}-any{seed}",
        law,
        float(f"{max(largest * between(1.3, 6.0), 4 * floor):.2g}"),
        threads=threads,
        cpus=cpus,
        flags=(1, 2, 4) if kinds_of_further == 1 and not gpu else (),
        words=words[: int(rng.integers(2, 4))] if kinds_of_further == 2 else (),
        ladders=("any", "powers_of_two", "linear") if kinds_of_further == 3 else (),
        sizes=sizes,
        timeouts=some(TIMEOUTS, 3),
        restart=float(rng.choice((0.01, 0.02, 0.04, 0.08))),
    )


def write(kind: Kind, folder: Path) -> Path:
    """Write a synthetic surface in the form of a recorded one."""
    path = folder / f"{kind.name}.csv"
    names = (
        *("max_batch_size", "batch_timeout_micros", "num_batch_threads"),
        *(("allowed_batch_sizes",) if kind.ladders else ()),
        *(("tensorflow_intra_op_parallelism",) if kind.flags else ()),
        *(("some_option",) if kind.words else ()),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("# SYNTHETIC: drawn by a simulation, measured on no server.\n")
        file.write(f"# SLO: p99 <= {kind.limit_ms:g} ms, no errors; Poisson arrivals.\n")
        file.write(f"# device: {kind.name.split('-')[1]}\n")
        table = csv.writer(file)
        table.writerow((*names, *COLUMNS))
        for config in _configs(kind):
            for replicate in range(REPLICATES):
                for level in _levels(kind, config, replicate):
                    table.writerow((*config.values(), *level[:-1], replicate, level[-1]))
    return path


Config = dict[str, int | str]


def _configs(kind: Kind) -> Iterator[Config]:
    further: dict[str, tuple[int | str, ...]] = {}
    if kind.ladders:
        further["ladder"] = kind.ladders
    if kind.flags:
        further["flag"] = kind.flags
    if kind.words:
        further["word"] = tuple(word for word, _ in kind.words)
    first = {name: values[0] for name, values in further.items()}
    yield {"size": 0, "timeout": 0, "threads": 0, **first}
    yield {"size": 1000, "timeout": 0, "threads": kind.cpus, **first}
    choices = {"size": kind.sizes, "timeout": kind.timeouts, "threads": kind.threads, **further}
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _levels(kind: Kind, config: Config, replicate: int) -> Iterator[tuple[float, ...]]:
    """A ladder that brackets the sustainable rate, from 0.7 of the capacity on."""
    size, threads = int(config["size"]), int(config["threads"])
    policy = Policy(
        threads=max(threads, 1),
        largest_batch=max(size, 1),
        timeout_ns=int(config["timeout"]) * 1000,
        allowed=LADDERS[str(config.get("ladder", "any"))](size) if size else (),
        batching=size > 0,
    )
    speed = _speed(kind, config, replicate)
    law = _flagged(kind.law, int(config.get("flag", 1)))
    slower = dict(kind.words).get(str(config.get("word")), 1.0)
    law = replace(law, floor_ms=law.floor_ms * slower, row_ms=law.row_ms * slower)
    seeds = _seeds(config)
    low, high = 0.0, math.inf
    rate = 0.7 * capacity_rps(policy, law)
    for _ in range(LEVELS):
        outcome = _measured(policy, law, rate / speed, (*seeds, replicate))
        kept = outcome.percentile_ms(0.99) <= kind.limit_ms
        low, high = (rate, high) if kept else (low, rate)
        seconds = max(2.0, REQUESTS / rate)
        yield tuple(
            float(f"{value:.5g}")
            for value in (
                rate,
                min(rate, outcome.throughput_rps * speed * 1.01),
                outcome.percentile_ms(0.5),
                outcome.percentile_ms(0.99),
                0.0,
                seconds,
            )
        )
        rate = rate * 1.3 if math.isinf(high) else rate * 0.6 if not low else (low + high) / 2


def _seeds(config: Config) -> tuple[int, ...]:
    return tuple(
        value if isinstance(value, int) else sum(value.encode()) for value in config.values()
    )


def _speed(kind: Kind, config: Config, replicate: int) -> float:
    """How fast this start happens to be; a part of it is the configuration's own."""
    own = np.random.default_rng((*map(ord, kind.name), *_seeds(config)))
    start = np.random.default_rng((*map(ord, kind.name), *_seeds(config), replicate + 1))
    return float(np.exp(kind.restart * (own.standard_normal() / 2 + start.standard_normal())))


def _flagged(law: Law, width: int) -> Law:
    """Wider operators run a batch faster, not in proportion, and take the cores for it."""
    return replace(
        law,
        floor_ms=law.floor_ms / width**0.5,
        row_ms=law.row_ms / width**0.75,
        cores=max(1.0, law.cores / width),
    )


def _measured(policy: Policy, law: Law, rate: float, seeds: tuple[int, ...]):  # noqa: ANN202
    rng = np.random.default_rng((*seeds, round(rate)))
    workload = Workload.poisson(REQUESTS, seed=int(rng.integers(1 << 30)))
    noise = law.noise(int(rng.integers(1 << 30))) * (1 + 1.0 * (rng.random(4096) < 0.004))
    return simulate(policy, law, workload.arrivals * 1e9 / rate, noise=noise)


def main() -> None:
    """Write one surface of every kind for a seed, and as many of no kind as asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=100, help="which member of each family")
    parser.add_argument("--anything", type=int, default=0, help="so many drawn wholly at random")
    asked = parser.parse_args()
    random = (anything(asked.seed + number) for number in range(asked.anything))
    for kind in (*(drawn(kind, asked.seed) for kind in KINDS), *random):
        print(write(kind, asked.folder))


if __name__ == "__main__":
    main()
