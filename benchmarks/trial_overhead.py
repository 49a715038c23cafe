"""What share of a trial is not spent measuring: with a restart for each, and with hot swaps.

    make bench-overhead     or: python benchmarks/trial_overhead.py [--rounds 3] [--json FILE]

Restarts and swaps alternate in one run, on the embedded server and on the same server in a
container of the local Docker Engine; without an engine that half is left out. Every trial is the
search's own (`run_trial`): warm-up, the closed-loop peak, one open-loop load well below it. Read
the ratio: the seconds are this machine's, and the share is that of so short a trial. The server
that waits for its next swap stays up, idle, while the one of a restart is measured.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from tuner.batching import BatchingParameters
from tuner.errors import HostError
from tuner.records import Config, TrialRecord
from tuner.scenario import parse
from tuner.server.keeper import ServerKeeper
from tuner.store import create
from tuner.trial import Bench, Task, run_trial
from tuner.wiring import bench as benches

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the image is that of the tests

LAUNCHERS = ("embedded", "docker")
SLOW_START_S = 600.0
"""As a GPU server's: the keeper goes on swapping even where a start here would be quicker."""

MACHINE = ("cpu_model", "cpus", "memory_gib", "kernel", "system", "python", "tuner", "packages",
           "processors", "governor")  # fmt: skip
"""What of a run's environment is kept with the figures."""

SCENARIO = """
name = "overhead"
[model]
path = "{root}/models/dense-2048x4"
builtin = "dense-2048x4"
[slo]
p95_ms = 200
[server]
{server}
[server.flags]
tensorflow_intra_op_parallelism = 1
tensorflow_inter_op_parallelism = 1
[measure]
window_s = {window_s}
max_window_s = {window_s}
warmup_s = 1.0
max_warmup_s = 2.0
repeats = 0
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One trial. `ready_s` is the start, or the swap; `overhead_s` all that is not measuring."""

    launcher: str
    mode: str
    round: int
    ready_s: float
    wall_s: float
    overhead_s: float
    share: float


def main() -> None:
    """Measure, print a table, and keep the result where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="trials of each kind")
    parser.add_argument("--window", type=float, default=3.0, help="seconds of a load")
    parser.add_argument("--rate", type=float, default=100.0, help="requests/s of the open loop")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=LAUNCHERS)
    parser.add_argument("--json", type=Path, help="write the result here")
    asked = parser.parse_args()
    rows: list[Row] = []
    described: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tuner-overhead-") as folder:
        for launcher in asked.launchers:
            try:
                found, described[launcher] = measured(launcher, asked, Path(folder))
            except HostError as error:
                print(f"{launcher}: left out: {error.message}")
                continue
            rows += found
    result = {
        "machine": {
            key: value
            for key, value in next(iter(described.values()), {}).items()
            if key in MACHINE
        },
        "servers": {name: environment["server"] for name, environment in described.items()},
        "window_s": asked.window,
        "rate_rps": asked.rate,
        "summary": summary(rows),
        "trials": [asdict(row) for row in rows],
    }
    print(table(result["summary"]))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measured(
    launcher: str, asked: argparse.Namespace, folder: Path
) -> tuple[list[Row], dict[str, Any]]:
    """Alternate restarts and swaps on one launcher. Raises HostError where it has no engine."""
    text = SCENARIO.format(root=ROOT, server=server_lines(launcher), window_s=asked.window)
    scenario = parse(text, ROOT / "overhead.toml")
    run = create(folder, launcher, text)
    with run.locked():
        prepared = benches.prepare(
            scenario, benches.models(scenario, print), run, lambda _text: None, keep=True
        )
        rows = list(alternated(prepared.bench, launcher, asked.rounds, asked.rate))
    return rows, prepared.environment


def alternated(bench: Bench, launcher: str, rounds: int, rate_rps: float) -> Iterator[Row]:
    """Yield a restart and a swap in turn, after a start that is not counted."""
    assert isinstance(bench.keeper, ServerKeeper)
    bench.keeper.starts_s.append(SLOW_START_S)
    restarting = replace(bench, keeper=None)
    numbers = count()
    try:
        trial(bench, next(numbers), rate_rps)
        for number in range(rounds):
            for mode, place in (("restart", restarting), ("swap", bench)):
                record = trial(place, next(numbers), rate_rps)
                if record.failure is not None or record.start_s is None:
                    raise SystemExit(f"{launcher}, {mode}: {record.failure}")
                assert record.swapped == (mode == "swap")
                yield row(record, launcher, mode, number)
    finally:
        bench.close()


def trial(bench: Bench, number: int, rate_rps: float) -> TrialRecord:
    """One trial of the search, at one load; no two in turn have the same configuration."""
    batching = BatchingParameters(
        max_batch_size=(16, 32)[number % 2],
        batch_timeout_micros=0,
        max_enqueued_batches=1000,
        num_batch_threads=1,
    )
    return run_trial(bench, Task(number, "sampler", Config(batching), loads_rps=(rate_rps,)))


def row(record: TrialRecord, launcher: str, mode: str, number: int) -> Row:
    """What of a trial's time was not measuring."""
    overhead_s = record.wall_s - record.measuring_s
    return Row(
        launcher,
        mode,
        number,
        ready_s=round(record.start_s or 0.0, 3),
        wall_s=round(record.wall_s, 3),
        overhead_s=round(overhead_s, 3),
        share=round(overhead_s / record.wall_s, 4),
    )


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians by launcher and way, and what a swap costs as a share of a restart."""
    found: dict[str, Any] = {}
    for launcher in dict.fromkeys(row.launcher for row in rows):
        of = {
            mode: [row for row in rows if (row.launcher, row.mode) == (launcher, mode)]
            for mode in ("restart", "swap")
        }
        ways = {
            mode: {
                name: round(median(getattr(row, name) for row in group), 3)
                for name in ("ready_s", "overhead_s", "wall_s", "share")
            }
            for mode, group in of.items()
        }
        found[launcher] = ways | {
            "swap_over_restart": {
                name: round(ways["swap"][name] / ways["restart"][name], 3)
                for name in ("ready_s", "overhead_s", "share")
            }
        }
    return found


def server_lines(launcher: str) -> str:
    """The scenario's `[server]` for a launcher; an engine is given the tests' image."""
    if launcher == "embedded":
        return 'launcher = "embedded"'
    from containers import EMBEDDED_IMAGE, engine_or_why_not, scenario_lines  # noqa: PLC0415

    engine = engine_or_why_not()
    if isinstance(engine, str):
        raise HostError(engine)
    engine.client.close()
    return scenario_lines(EMBEDDED_IMAGE)


def table(found: dict[str, Any]) -> str:
    """The medians for people."""
    lines = [f"{'':<10}{'':<10}{'ready s':>9}{'not measuring s':>17}{'of the trial':>14}"]
    for launcher, ways in found.items():
        for mode in ("restart", "swap"):
            way = ways[mode]
            lines.append(
                f"{launcher:<10}{mode:<10}{way['ready_s']:>9.2f}{way['overhead_s']:>17.2f}"
                f"{way['share']:>14.1%}"
            )
        lines.append(f"{launcher:<10}swap / restart: {ways['swap_over_restart']['share']:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
