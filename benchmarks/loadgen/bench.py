"""Load generators side by side: the same null server, the same machine, in alternating order.

    make bench-loadgen      or: python benchmarks/loadgen/bench.py [PART...]

Parts: closed-174B, closed-4KB, closed-600KB, paced, stall, locust, perf_analyzer; without one,
all. perf_analyzer is run where PERF_ANALYZER names a command that starts it: its wheel needs a
newer glibc than Debian 12 has. Each part takes a minute or two and renews its own rows of
`results.json`; table and plot are made of all rows. The null server runs alone on one processor
and the client alone on another. What others use of the machine meanwhile is noted, and what they
disturbed is measured again. Read the ratios: absolute figures are this machine's, at this hour.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import figures
from closed import closed
from paced import paced, stall
from peers import locust, perf_analyzer
from stage import NICENESS, SIZES, Row

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PACED_RPS = 2_000


def main() -> None:
    parts = {
        **{f"closed-{words}": partial(closed, size) for size, words in SIZES.items()},
        "paced": paced,
        "stall": stall,
        "locust": locust,
        "perf_analyzer": perf_analyzer,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--seconds", type=float, default=1.0, help="of load per cell and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs two processors: one for the server, one for the client")
    if os.geteuid() == 0:  # what the tuner's generator asks for, and all others inherit
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    for name in arguments.parts or parts:
        rows = parts[name](arguments.seconds, arguments.rounds)
        keep(name, rows, list(parts))
    show()


def keep(part: str, rows: list[Row], order: list[str]) -> None:
    """Put a part's rows into the file, in the place of its earlier ones."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [row for row in known if row["part"] in order and row["part"] != part]
    kept += [{"part": part, **row} for row in rows]
    kept.sort(key=lambda row: order.index(row["part"]))
    # Lateness is a figure of an engine, measured once: at 2,000/s, as `tuner calibrate` does.
    paced_rows = {row["engine"]: row for row in kept if row.get("rate_rps") == PACED_RPS}
    for row in kept:
        if "rate_rps" not in row:
            for key in ("lag_p99_ms", "machine_lag_p99_ms"):
                row[key] = paced_rows.get(row["engine"], {}).get(key)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def show() -> None:
    rows = json.loads(RESULTS.read_text())
    (HERE / "table.md").write_text(figures.table(rows))
    figures.plot(rows, HERE / "plot.png")
    print((HERE / "table.md").read_text())


if __name__ == "__main__":
    main()
