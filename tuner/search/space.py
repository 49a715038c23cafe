"""The search space: what a point means as a configuration, and where a search starts.

A point maps every parameter's name to one of its choices. Points, not configurations, are what a
sampler sees: `allowed_batch_sizes` is a ladder's name there, `split_requests_of` the rows of the
largest request where requests are split over batches (0: they are not), and flags are prefixed
with `flag.`.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.batching import (
    DEFAULT_BATCH_TIMEOUT_MICROS,
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MAX_ENQUEUED_BATCHES,
    BatchingParameters,
)
from tuner.records import Config
from tuner.scenario import Scenario
from tuner.server.flags import flag_text

Choice = str | bool | int | float
Point = dict[str, Choice]

UNBOUNDED_QUEUE = 1_000_000
"""`max_enqueued_batches` while capacity is sought: no rejection may distort the search."""

FLAG = "flag."
SPLITTING = "split_requests_of"

LINEAR_STEPS = 8
"""Sizes of a linear ladder: steps of an eighth of the largest batch."""


@dataclass(frozen=True, slots=True)
class Space:
    """Parameters by name, each with its choices in order."""

    choices: dict[str, tuple[Choice, ...]]

    @classmethod
    def of(cls, scenario: Scenario) -> "Space":
        """The space a scenario asks for."""
        space = scenario.search.space
        return cls(
            {
                "max_batch_size": space.max_batch_size,
                "batch_timeout_micros": space.batch_timeout_micros,
                "num_batch_threads": space.num_batch_threads,
                "allowed_batch_sizes": space.allowed_batch_sizes,
                **_splitting(scenario),
                **{f"{FLAG}{name}": values for name, values in space.flags.items()},
            }
        )

    @property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(len(values) for values in self.choices.values())

    def points(self) -> Iterator[Point]:
        """Yield every point, in a fixed order."""
        names = list(self.choices)
        for values in itertools.product(*self.choices.values()):
            yield dict(zip(names, values, strict=True))

    def nearest(self, wanted: Point) -> Point:
        """The point closest to `wanted`, parameter by parameter; missing ones take the first.

        Numbers are compared by ratio, since that is how batch sizes and timeouts act.
        """
        return {
            name: min(
                (_distance(value, wanted.get(name)), at, value) for at, value in enumerate(values)
            )[2]
            for name, values in self.choices.items()
        }


def config_of(point: Point) -> Config:
    """The configuration that a point stands for."""
    size = int(point["max_batch_size"])
    split = int(point.get(SPLITTING, 0))
    limit = max(size, split)  # with splitting it bounds the rows of a request, not of a batch
    ladder = LADDERS[str(point.get("allowed_batch_sizes", "any"))](size)
    if ladder and limit > size:
        ladder = (*ladder, limit)  # the server insists, though no batch grows so large
    flags = {
        name.removeprefix(FLAG): flag_text(value)
        for name, value in point.items()
        if name.startswith(FLAG)
    }
    return Config(
        batching=BatchingParameters(
            max_batch_size=limit,
            batch_timeout_micros=int(point["batch_timeout_micros"]),
            max_enqueued_batches=UNBOUNDED_QUEUE,
            num_batch_threads=int(point["num_batch_threads"]),
            allowed_batch_sizes=ladder,
            enable_large_batch_splitting=True if split else None,
            max_execution_batch_size=size if split else None,
        ),
        flags=tuple(sorted(flags.items())),
    )


def point_of(config: Config, space: Space) -> Point | None:
    """The point that stands for a configuration, or None where it lies outside the space."""
    return next((point for point in space.points() if config_of(point) == config), None)


def powers_of_two(limit: int) -> tuple[int, ...]:
    """Batch sizes 1, 2, 4 … ending with `limit`, as the server demands of the last one."""
    return (*(2**power for power in range(limit.bit_length()) if 2**power < limit), limit)


def linear(limit: int) -> tuple[int, ...]:
    """Batch sizes in even steps that end with `limit`; fewer steps where it is small."""
    steps = min(LINEAR_STEPS, limit)
    return tuple(sorted({math.ceil(limit * step / steps) for step in range(1, steps + 1)}))


LADDERS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "any": lambda _limit: (),
    "powers_of_two": powers_of_two,
    "linear": linear,
}


def _splitting(scenario: Scenario) -> dict[str, tuple[Choice, ...]]:
    """Whether to split large requests, as choices; none where the scenario does not ask."""
    asked = scenario.search.space.enable_large_batch_splitting
    if not any(asked):
        return {}
    largest = max(rows for model in scenario.models for rows in model.row_weights)
    return {SPLITTING: tuple(largest if split else 0 for split in asked)}


def baselines(cpus: int) -> tuple[tuple[str, Config], tuple[str, Config]]:
    """What a tuned configuration must beat: batching off, and on with the server's defaults.

    The defaults are written out, `num_batch_threads` as the number of the server's processors.
    """
    default = BatchingParameters(
        max_batch_size=DEFAULT_MAX_BATCH_SIZE,
        batch_timeout_micros=DEFAULT_BATCH_TIMEOUT_MICROS,
        max_enqueued_batches=DEFAULT_MAX_ENQUEUED_BATCHES,
        num_batch_threads=cpus,
    )
    return ("off", Config(None)), ("default", Config(default))


def guide_points(space: Space, *, device: str, cpus: int) -> tuple[Point, ...]:
    """Where TensorFlow Serving's batching guide says to start, as points of this space.

    On a CPU: one thread per core, a really high batch size, timeout 0, then a few milliseconds.
    On a GPU: one thread per core, a high batch size, a few milliseconds, then 0.
    (tensorflow_serving/batching/README.md, "Performance Tuning".) One batch thread is tried
    beside them: several keep batches small where the model's own operators use all cores.
    """
    largest = max(int(size) for size in space.choices["max_batch_size"])
    moderate = 32 if device == "cpu" else 128
    timeouts = (0, 2_000) if device == "cpu" else (5_000, 0)
    wanted: list[Point] = [
        {"max_batch_size": moderate, "batch_timeout_micros": 0, "num_batch_threads": 1},
        {
            "max_batch_size": largest,
            "batch_timeout_micros": timeouts[0],
            "num_batch_threads": cpus,
        },
        {"max_batch_size": moderate, "batch_timeout_micros": timeouts[1], "num_batch_threads": 1},
        {
            "max_batch_size": largest,
            "batch_timeout_micros": timeouts[1],
            "num_batch_threads": cpus,
        },
    ]
    points: list[Point] = []
    for point in map(space.nearest, wanted):
        if point not in points:
            points.append(point)
    return tuple(points)


def server_cpus(cpus: frozenset[int] | None) -> int:
    """How many processors the server sees, hence its default number of batch threads."""
    return len(cpus or os.sched_getaffinity(0))


def device_of(scenario: Scenario) -> str:
    """Whose starting points apply: the scenario's word, or a GPU where the machine has one."""
    if scenario.search.device != "auto":
        return scenario.search.device
    return "gpu" if Path("/dev/nvidia0").exists() else "cpu"


def _distance(value: Choice, wanted: Choice | None) -> float:
    if wanted is None:
        return 0.0
    if isinstance(value, str | bool) or isinstance(wanted, str | bool):
        return 0.0 if value == wanted else 1.0
    return abs(math.log2(value + 1) - math.log2(wanted + 1))
