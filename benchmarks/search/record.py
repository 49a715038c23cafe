"""Records a grid from a real server, as a surface for the replays.

    python benchmarks/search/record.py benchmarks/search/recorded/dense.toml SURFACE.csv

Every configuration of the scenario's space, batching off and the server's defaults are measured on
a cold start each: every batch size once, a short closed loop, then a ladder of short open loops
that brackets the highest load within the SLO. It is much quicker than a trial of a tuning run and
less sure of every single rate; what a rate is worth, the replicates tell. Each replicate is
measured in a random order of its own, with arrivals of its own, so that a grid that was left
half-way is a random part of the whole. A line is on disk as soon as its configuration is done:
killed, or ended by `--seconds`, the same command goes on where it stopped. It wants a machine with
nothing else to do.
"""

import argparse
import csv
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import convolutional
from surface import DEFAULT_SIZE, REQUIRED, Row

from tuner.clock import NS_PER_S
from tuner.errors import CandidateError, HostError, TunerError
from tuner.ladder import LOWEST_SHARE, Ladder
from tuner.load.generator import Generator, OpenLoop
from tuner.load.payload import build_pool
from tuner.measure.host import CpuMeter, processes_cpu
from tuner.measure.percentiles import value_at
from tuner.measure.window import window
from tuner.records import Config
from tuner.scenario import Scenario, load
from tuner.search.space import FLAG, Point, Space, config_of
from tuner.server.cpus import Placement, place
from tuner.server.launcher import Launcher
from tuner.trial.levels import hopeless_outstanding
from tuner.wiring import bench as benches

NUMBERS = ("offered_rps", "throughput_rps", "p50_ms", "p99_ms", "error_rate")
PARAMETERS = REQUIRED[:3]
WARMUP_S = 0.3
"""Of every open loop, left out of its figures."""

REQUESTS, SHORTEST_S = 600, 0.7
"""A level is as long as so many requests take, within these seconds and the scenario's window."""

STEP = 1.15
"""By which the ladder climbs from where neighbours in the grid let it begin."""

FOREIGN_CPU, PATIENCE = 0.12, 20
"""A level is repeated, so often, if other programs used more than this many processors in it."""

NEIGHBOURS = 4
ENOUGH = 12
"""Configurations that must be known before neighbours are asked."""

HOPELESS = 3
"""Windows over which a load must be sure to miss the SLO before it is given up early."""

EDGE = 1e6
"""Written for a percentile that falls among failures: over every limit."""


@dataclass(frozen=True, slots=True)
class Rig:
    """What all starts share."""

    scenario: Scenario
    launcher: Launcher
    placement: Placement
    folder: Path

    @property
    def pool(self) -> Path:
        """The file of requests."""
        return self.folder / "requests.pool"


class Steps(Ladder):
    """A ladder that falls by the step it climbs by: it begins near to where it will end."""

    def next_rps(self) -> float | None:
        """See `Ladder.next_rps`."""
        if self.levels and not self.held_rps and not self.stuck:
            lower = self.failed_rps / self.step
            return lower if lower >= self.start_rps * LOWEST_SHARE else None
        return super().next_rps()


def main() -> None:
    """Record until the grid is complete, or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", type=Path)
    parser.add_argument("surface", type=Path, help="CSV file, made or gone on with")
    parser.add_argument("--replicates", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no start after")
    asked = parser.parse_args()
    began_s = time.monotonic()
    try:
        record(asked.scenario, asked.surface, asked.replicates, began_s + asked.seconds)
    except TunerError as error:
        raise SystemExit(f"{error.message}\n  {error.hint}") from None


def record(scenario_file: Path, surface: Path, replicates: int, until_s: float) -> None:
    """Measure what the surface still lacks."""
    scenario = load(scenario_file)
    convolutional.ensure(scenario.models[0].path)
    infos = benches.models(scenario, print)
    placement = place(scenario.server.cpus, scenario.load.cpus)
    launcher = benches.launcher_of(scenario, placement, print)
    points = list(grid(scenario, len(placement.server)))
    if not surface.exists():
        _begin(surface, scenario, launcher, len(placement.server), points[-1])
    missing = lacking(surface, points, replicates)
    print(f"{len(missing)} of {len(points) * replicates} server starts to go")
    with tempfile.TemporaryDirectory() as scratch:
        rig = Rig(scenario, launcher, placement, Path(scratch))
        parts = [benches.part(section, info) for section, info in infos]
        build_pool(parts, seed=scenario.seed).save(rig.pool)
        for point, replicate in missing:
            if time.monotonic() > until_s:
                break
            began_s = time.monotonic()
            rows = measured(rig, point, replicate, expected_rps(surface, scenario, point))
            _append(surface, point, replicate, rows)
            label = ", ".join(f"{name} {value}" for name, value in point.items())
            print(f"{label}: {len(rows)} loads, {time.monotonic() - began_s:.1f} s", flush=True)


def grid(scenario: Scenario, cpus: int) -> Iterator[Point]:
    """Batching off as a size of 0, the defaults as one of 1000, then the space."""
    space = Space.of(scenario)
    shown = {
        name: values
        for name, values in space.choices.items()
        if name in PARAMETERS or len(values) > 1
    }
    other = {name: values[0] for name, values in shown.items()}
    yield {**other, **dict.fromkeys(PARAMETERS, 0)}
    yield {**other, **dict(zip(PARAMETERS, (DEFAULT_SIZE, 0, cpus), strict=True))}
    for point in space.points():
        yield {name: point[name] for name in shown}


def measured(rig: Rig, point: Point, replicate: int, start_rps: float | None) -> list[Row]:
    """One server start: its open-loop levels; none where the server refuses the configuration."""
    config = Config(None) if point["max_batch_size"] == 0 else config_of(point)
    load = rig.scenario.load
    with ExitStack() as stack:
        try:
            server = stack.enter_context(rig.launcher.launch(config, rig.folder / "server"))
        except CandidateError:
            return []
        generator = stack.enter_context(
            Generator(
                server.endpoint.address,
                rig.pool,
                engine=load.engine,
                deadline_s=load.deadline_ms / 1000,
                cpus=rig.placement.generator,
            )
        )
        generator.exercise(_sizes(config, load.concurrency))
        seed = rig.scenario.seed * 1000 + replicate
        samples = generator.closed_loop(
            concurrency=load.concurrency, duration_s=rig.scenario.measure.warmup_s, seed=seed
        )
        answered = int(np.count_nonzero(samples.status == 0))
        peak_rps = answered / rig.scenario.measure.warmup_s
        meter = CpuMeter(processes_cpu(lambda: [server.endpoint.pid or 0]), *generator.pids)
        return _climbed(rig.scenario, generator, meter, seed, start_rps or 0.6 * peak_rps)


def _climbed(
    scenario: Scenario, generator: Generator, meter: CpuMeter, seed: int, start_rps: float
) -> list[Row]:
    slo, rows = scenario.limits(), []
    ladder = Steps(start_rps, scenario.measure.resolution, step=STEP)
    while (rate_rps := ladder.next_rps()) is not None:
        row = _undisturbed(scenario, generator, meter, rate_rps, seed)
        rows.append(row)
        ladder.tell(row.offered_rps, held=row.holds(slo))
    return rows


def _undisturbed(
    scenario: Scenario, generator: Generator, meter: CpuMeter, rate_rps: float, seed: int
) -> Row:
    """A level during which nobody else used the processors. Raises HostError after PATIENCE."""
    for _ in range(PATIENCE):
        meter.start()
        row = _level(scenario, generator, rate_rps, seed)
        if (meter.stop().foreign_cpu or 0.0) <= FOREIGN_CPU:
            return row
        print("  another program was busy: once more", flush=True)
        time.sleep(1.0)
    raise HostError(
        "another program keeps using the processors", hint="end it; what was recorded is kept"
    )


def _level(scenario: Scenario, generator: Generator, rate_rps: float, seed: int) -> Row:
    window_s = min(scenario.measure.window_s, max(SHORTEST_S, REQUESTS / rate_rps))
    began_s = time.monotonic()
    samples = generator.open_loop(
        OpenLoop(
            rate_rps=rate_rps,
            duration_s=WARMUP_S + window_s,
            seed=seed,
            arrivals=scenario.load.arrivals,
            give_up_outstanding=hopeless_outstanding(
                scenario.limits(), rate_rps, HOPELESS * window_s
            ),
        )
    )
    run_s = (samples.ended_ns - samples.started_ns) / NS_PER_S
    given_up = run_s < WARMUP_S + window_s
    cut = window(samples, warmup_s=0.0 if given_up else WARMUP_S)
    last_ns = int(samples.done_ns[cut.answered].max(initial=cut.end_ns))
    answered = int(np.count_nonzero(cut.answered))
    # Of a load that was given up early the count says little: what was asked is kept.
    offered_rps = rate_rps if given_up else cut.requests / cut.length_s
    return Row(
        offered_rps=round(offered_rps, 2),
        throughput_rps=round(answered / ((last_ns - cut.start_ns) / NS_PER_S), 2),
        p50_ms=_shown_ms(value_at(0.5, cut.latency_ns)),
        p99_ms=_shown_ms(value_at(0.99, cut.latency_ns)),
        error_rate=round(1 - answered / cut.requests, 5),
        seconds=round(time.monotonic() - began_s, 2),
    )


def _shown_ms(latency_ms: float) -> float:
    return round(min(latency_ms, EDGE), 2)


def _sizes(config: Config, reach: int) -> list[int]:
    """Batch sizes whose first run is to be over before anything is timed."""
    limit = 1 if config.batching is None else min(config.batching.row_limit, reach)
    return sorted({*(2**power for power in range(limit.bit_length())), limit})


def expected_rps(surface: Path, scenario: Scenario, point: Point) -> float | None:
    """Where the ladder begins: what the nearest configurations carry, None while few are known."""
    rates = _known_rates(surface, scenario)
    if len(rates) < ENOUGH or point["max_batch_size"] in {0, DEFAULT_SIZE}:
        return None
    here = _place(tuple(int(point[name]) for name in PARAMETERS))
    nearest = sorted((math.dist(here, _place(key)), rate) for key, rate in rates.items())
    near = nearest[:NEIGHBOURS]
    weights = [1 / (0.3 + distance) for distance, _ in near]
    return math.exp(float(np.average([math.log(rate) for _, rate in near], weights=weights)))


def _known_rates(surface: Path, scenario: Scenario) -> dict[tuple[int, ...], float]:
    found: dict[tuple[int, ...], float] = {}
    for line in _lines(surface):
        row = Row(**{name: float(line[name]) for name in NUMBERS})
        key = tuple(int(line[name]) for name in PARAMETERS)
        if row.holds(scenario.limits()):
            found[key] = max(found.get(key, 0.0), row.offered_rps)
    return found


def _place(key: tuple[int, ...]) -> tuple[float, ...]:
    size, timeout_us, threads = key
    return math.log2(size + 1), math.log2(timeout_us / 1000 + 1), math.log2(threads + 1)


def _begin(surface: Path, scenario: Scenario, launcher: Launcher, cpus: int, point: Point) -> None:
    surface.parent.mkdir(parents=True, exist_ok=True)
    server, measure = launcher.identify(), scenario.measure
    flags = " ".join(f"{name}={value}" for name, value in sorted(scenario.server.flags.items()))
    names = [name.removeprefix(FLAG) for name in point]
    with surface.open("w", encoding="utf-8", newline="") as file:
        file.write(
            f"# {scenario.name}: {server.launcher} server ({server.version}) on {cpus} of the "
            f"machine's processors, load from another; {flags or 'no flags'}; 1 row per request.\n"
            f"# Open loop, {scenario.load.arrivals} arrivals; levels of {REQUESTS} requests, at "
            f"most {measure.window_s:g} s, {WARMUP_S:g} s before it; cold start each; bracketed "
            f"to {measure.resolution:.0%}. max_batch_size 0 = batching off, 1000 = the defaults.\n"
            f"# SLO: {_slo(scenario)}\n"
        )
        csv.writer(file, lineterminator="\n").writerow((*names, *NUMBERS, "replicate", "seconds"))


def _slo(scenario: Scenario) -> str:
    slo = scenario.limits()
    limits = ", ".join(f"{name} <= {limit:g} ms" for name, limit in slo.limits_ms)
    errors = f"errors <= {slo.max_error_rate * 100:g} %" if slo.max_error_rate else "no errors"
    return f"{limits}, {errors}"


def lacking(surface: Path, points: list[Point], replicates: int) -> list[tuple[Point, int]]:
    """What is not in the file yet, in a random order for each replicate, the baselines first."""
    names = [name.removeprefix(FLAG) for name in points[0]]
    done = {(*(line[name] for name in names), line["replicate"]) for line in _lines(surface)}
    missing = []
    for replicate in range(replicates):
        ordered = list(points)
        random.Random(replicate).shuffle(ordered)
        ordered.sort(key=lambda point: point["max_batch_size"] not in {0, DEFAULT_SIZE})
        missing += [
            (point, replicate)
            for point in ordered
            if (*map(str, point.values()), str(replicate)) not in done
        ]
    return missing


def _lines(surface: Path) -> list[dict[str, str]]:
    with surface.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _append(surface: Path, point: Point, replicate: int, rows: list[Row]) -> None:
    """One line a load; one that carried nothing where the server refused the configuration."""
    with surface.open("a", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        for row in rows or [Row(1.0, 0.0, EDGE, EDGE, 1.0, 0.0)]:
            numbers = (getattr(row, name) for name in NUMBERS)
            table.writerow((*point.values(), *numbers, replicate, row.seconds))


if __name__ == "__main__":
    main()
