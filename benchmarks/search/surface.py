"""A recorded grid: every configuration's curve, as a table that stands in for a server.

A surface is a CSV file. Comment lines begin with `#`; one of them names the SLO, such as
`SLO ...: p99 <= 60 ms, no errors` or `errors <= 0.1 %`. Columns: the parameters of the
configuration (`max_batch_size`, 0 for batching off; `batch_timeout_micros`;
`num_batch_threads`; any others), then `offered_rps, throughput_rps, p50_ms, p99_ms, error_rate,
replicate`, and optionally `seconds`, what the load cost. One line is one load level of one server
start. The server's defaults are the line with max_batch_size 1000 and timeout 0.
"""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tuner.errors import InputError
from tuner.records import (
    Config,
    HostEvidence,
    Level,
    Measurement,
    Role,
    TrialRecord,
    Verdict,
)
from tuner.search.model_sampler import Setting
from tuner.search.space import FLAG, Choice, Point, Space, config_of
from tuner.slo import Slo, limit_name

MEASURED = ("offered_rps", "throughput_rps", "p50_ms", "p99_ms", "error_rate", "replicate")
REQUIRED = ("max_batch_size", "batch_timeout_micros", "num_batch_threads", *MEASURED)
OWN = ("max_batch_size", "batch_timeout_micros", "num_batch_threads", "allowed_batch_sizes")
DEFAULT_SIZE = 1000
LEVEL_S = 2.3
"""Seconds of one load level where the file does not say."""

WARMUP_S = 0.3
"""Seconds before a load level's window, as recorded."""

START_S = 6.0
"""Seconds of a server start with its warm-up where the file does not say."""

RESTART_NOISE = 0.03
"""Spread between cold starts, where a surface has no replicates at all: 2-7 % were seen."""

FEW = 5
"""Configurations that must be replicated before they tell the noise of the others."""

INTER_OP_OF_ONE = re.compile(r"inter_op_parallelism=1\b|inter op 1/1")
"""In a surface's comments: batches took turns."""

KEPT_UP = 0.9
"""A level whose throughput is below this share of the offered load did not hold."""

Key = tuple[tuple[str, Choice], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One load level."""

    offered_rps: float
    throughput_rps: float
    p50_ms: float
    p99_ms: float
    error_rate: float
    seconds: float = LEVEL_S

    @property
    def window_s(self) -> float:
        """Seconds that were counted: what the load cost without its warm-up."""
        return max(self.seconds - WARMUP_S, WARMUP_S)

    def holds(self, slo: Slo) -> bool:
        """Whether the SLO is met, by the two percentiles there are."""
        kept = {"p50": self.p50_ms, "p99": self.p99_ms}
        return (
            all(kept[name] <= limit for name, limit in slo.limits_ms)
            and self.error_rate <= slo.max_error_rate
            and self.throughput_rps >= KEPT_UP * self.offered_rps
        )


def sustainable(rows: list[Row], slo: Slo) -> float:
    """Highest offered load that holds with none failing below it; 0 where there is none."""
    failed = min((row.offered_rps for row in rows if not row.holds(slo)), default=math.inf)
    held = [row.offered_rps for row in rows if row.holds(slo) and row.offered_rps < failed]
    return max(held, default=0.0)


@dataclass(frozen=True, slots=True)
class Grid(Space):
    """A space of the recorded points alone, where the grid has holes."""

    recorded: tuple[Point, ...] = field(default=())

    @property
    def size(self) -> int:
        """How many points were recorded."""
        return len(self.recorded)

    def points(self) -> Iterator[Point]:
        """Yield every recorded point."""
        yield from self.recorded

    def nearest(self, wanted: Point) -> Point:
        """The recorded point that differs least; of equal ones the first."""
        ideal = Space.nearest(self, wanted)
        return dict(min(self.recorded, key=lambda point: _apart(point, ideal)))


class Surface:
    """All configurations of a grid with all their replicates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        comments, table = _read(path)
        self.slo = _slo(path, comments)
        self.device = "gpu" if "device: gpu" in " ".join(comments) else "cpu"
        self.in_turn = INTER_OP_OF_ONE.search(" ".join(comments)) is not None
        self.curves = _curves(path, table)
        if not self._searchable():
            raise InputError(f"{path}: holds no configuration with batching on")

    @cached_property
    def truth(self) -> dict[Key, float]:
        """Every configuration's rate: the mean over its replicates."""
        return {
            key: float(np.mean([sustainable(rows, self.slo) for rows in replicates]))
            for key, replicates in self.curves.items()
        }

    @cached_property
    def best(self) -> float:
        """The highest rate in the grid."""
        return max(self.truth.values())

    @cached_property
    def space(self) -> Space:
        """The parameters with the values that occur, the defaults and batching off left out."""
        values: dict[str, set[Choice]] = defaultdict(set)
        for key in self._searchable():
            for name, value in key:
                values[name].add(value)
        choices = {name: tuple(sorted(found, key=_order)) for name, found in values.items()}
        return Grid(choices, tuple(self.points))

    @property
    def points(self) -> list[Point]:
        """The configurations that a sampler may ask for."""
        return [dict(key) for key in self._searchable()]

    @property
    def cpus(self) -> int:
        """Batch threads of the server's defaults, which are its processors."""
        threads = [
            dict(key)["num_batch_threads"] for role, key in self.baselines() if role != "off"
        ]
        return max([1, *map(int, threads)])

    @property
    def setting(self) -> Setting:
        """What a model of the server must know."""
        return Setting(self.slo, self.cpus, device=self.device, in_turn=self.in_turn)

    @property
    def replicates(self) -> int:
        """How often the least measured configuration was measured."""
        return min(map(len, self.curves.values()))

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the log rate between starts of one configuration.

        Pooled over those that carried load in every one of several replicates.
        """
        logs = []
        for replicates in self.curves.values():
            rates = [sustainable(rows, self.slo) for rows in replicates]
            if len(rates) > 1 and all(rates):
                logs.append(np.log(rates))
        if len(logs) < FEW:
            return RESTART_NOISE
        squares = sum(float(np.sum((group - group.mean()) ** 2)) for group in logs)
        return math.sqrt(squares / sum(len(group) - 1 for group in logs))

    def baselines(self) -> Iterator[tuple[Role, Key]]:
        """Batching off and the defaults, where they were recorded."""
        for key in self.curves:
            size = dict(key)["max_batch_size"]
            if size == 0:
                yield "off", key
            elif size == DEFAULT_SIZE and _is_default(key, self.curves):
                yield "default", key

    def measure(self, number: int, role: Role, key: Key, rng: np.random.Generator) -> TrialRecord:
        """One server start: a replicate drawn at random, or the only one with a start's noise."""
        replicates = self.curves[key]
        rows = replicates[int(rng.integers(len(replicates)))]
        if len(replicates) == 1:
            factor = math.exp(self.noise * rng.standard_normal())
            rows = [_sped(row, factor) for row in rows]
        return self._record(number, role, key, rows)

    def _record(self, number: int, role: Role, key: Key, rows: list[Row]) -> TrialRecord:
        rate = sustainable(rows, self.slo)
        ordered = sorted(rows, key=lambda row: row.offered_rps)
        levels = tuple(_level(row, self.slo) for row in ordered)
        at = next((i for i, row in enumerate(ordered) if row.offered_rps == rate), None)
        failed = [row.offered_rps for row in ordered if not row.holds(self.slo)]
        spent_s = START_S + sum(row.seconds for row in rows)
        return TrialRecord(
            number=number,
            role=role,
            config=config_of_key(key),
            outcome="ok" if rate else "infeasible",
            started="2026-01-01T00:00:00Z",
            wall_s=spent_s,
            measuring_s=spent_s - START_S,
            start_s=START_S,
            sustainable_rps=rate,
            ceiling_rps=min(failed, default=None),
            reference_level=at,
            levels=levels,
        )

    def _searchable(self) -> list[Key]:
        defaults = {key for _, key in self.baselines()}
        return [key for key in self.curves if key not in defaults]


def _apart(point: Point, other: Point) -> float:
    """Differences of numbers by ratio, as they act; any other counts 1."""
    return sum(
        abs(math.log2(value + 1) - math.log2(theirs + 1))
        if isinstance(value, int | float) and isinstance(theirs, int | float)
        else float(value != theirs)
        for value, theirs in ((value, other[name]) for name, value in point.items())
    )


def point_key(point: Point) -> Key:
    """The order in which a surface names a point's parameters."""
    return tuple(point.items())


def config_of_key(key: Key) -> Config:
    """The configuration behind a line of the grid."""
    point = dict(key)
    if point["max_batch_size"] == 0:
        return Config(None)
    return config_of(point)


def _is_default(key: Key, curves: dict[Key, list[list[Row]]]) -> bool:
    """The one configuration of that size: a grid over sizes up to 1000 has it among others."""
    same = [other for other in curves if dict(other)["max_batch_size"] == DEFAULT_SIZE]
    return len(same) == 1 and dict(key)["batch_timeout_micros"] == 0


def _sped(row: Row, factor: float) -> Row:
    """The same level on a server that is faster by a factor: time runs faster, in all."""
    return Row(
        row.offered_rps * factor,
        row.throughput_rps * factor,
        row.p50_ms,
        row.p99_ms,
        row.error_rate,
        row.seconds,
    )


def _order(value: Choice) -> tuple[bool, float, str]:
    if isinstance(value, str):
        return True, 0.0, value
    return False, float(value), ""


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    table = list(csv.DictReader(line for line in lines if line and not line.startswith("#")))
    missing = [name for name in REQUIRED if not table or name not in table[0]]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]} is missing", hint=f"a surface has {', '.join(REQUIRED)}"
        )
    return comments, table


def _slo(path: Path, comments: list[str]) -> Slo:
    text = " ".join(comments)
    limits = re.findall(r"\b(p50|p99) <= ([\d.]+) ms", text)
    if not limits:
        raise InputError(
            f"{path}: no comment names the SLO", hint="write `# SLO: p99 <= 60 ms, no errors`"
        )
    errors = re.search(r"errors <= ([\d.]+) %", text)
    return Slo(
        tuple((name, float(limit)) for name, limit in dict(limits).items()),
        max_error_rate=float(errors[1]) / 100 if errors else 0.0,
    )


def _curves(path: Path, table: list[dict[str, str]]) -> dict[Key, list[list[Row]]]:
    parameters = [name for name in table[0] if name not in (*MEASURED, "seconds")]
    found: dict[Key, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for number, line in enumerate(table, start=1):
        try:
            key = tuple((_named(name), _value(line[name])) for name in parameters)
            numbers = {name: float(line[name]) for name in MEASURED[:-1]}
            seconds = float(line.get("seconds") or LEVEL_S)
        except (TypeError, ValueError):
            raise InputError(f"{path}: line {number} of the table: not a number") from None
        found[key][line["replicate"]].append(Row(**numbers, seconds=seconds))
    return {key: list(replicates.values()) for key, replicates in found.items()}


def _named(column: str) -> str:
    return column if column in OWN else f"{FLAG}{column}"


def _value(text: str) -> Choice:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _level(row: Row, slo: Slo) -> Level:
    requests = max(1, round(row.offered_rps * row.window_s))
    answered = round(requests * (1 - row.error_rate))
    limits = dict(slo.limits_ms)
    values = {"p50": row.p50_ms, "p99": row.p99_ms}
    held = row.holds(slo)
    measured = Measurement(
        loop="open",
        offered_rps=row.offered_rps,
        concurrency=None,
        window_s=row.window_s,
        drain_s=0.0,
        warmup_s=WARMUP_S,
        requests=requests,
        answered=answered,
        throughput_rps=row.throughput_rps,
        goodput_rps=row.throughput_rps,
        rows_rps=row.throughput_rps,
        mean_ms=row.p50_ms,
        max_ms=row.p99_ms,
        percentiles_ms=dict(values),
        over_limit={limit_name(name): 0 if held else requests for name in limits},
        errors={},
        lateness_p50_ms=0.0,
        lateness_p99_ms=0.0,
        lateness_max_ms=0.0,
        achieved_share=1.0,
        outstanding_slope_rps=0.0,
        effective_samples=requests / 8,
        host=HostEvidence(None, 0.0, None),
    )
    margins = {limit_name(name): 1 - values[name] / limit for name, limit in limits.items()}
    return Level(measured, Verdict(True, held, margins))
