"""The benchmark's table and plot, made of results.json alone."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib import ticker

Row = dict[str, Any]
PEERS = ("closed", "locust", "perf_analyzer")
SIZES = {174: "174 B", 4_143: "4 KB", 602_171: "600 KB"}
COLOURS = {
    "http2": "#1f6feb",
    "grpcio": "#d1495b",
    "h2load": "#3f7d20",
    "locust": "#8d8d8d",
    "perf_analyzer": "#e08e2b",
}


def table(rows: list[Row]) -> str:
    """Markdown, with ratios to our engine beside the figures."""
    closed = [row for row in rows if row["part"].startswith(PEERS)]
    lines = ["# Load generators side by side", ""]
    if closed:
        machine, null = closed[0]["machine"], closed[0]["null_server"]
        versions = sorted({row["version"] for row in closed})
        lines += [
            f"{machine['cpu_model']}, {machine['cpus']} processors, Linux {machine['kernel']}, "
            f"Python {machine['python']}; null server {null}, alone on one processor, the client "
            f"alone on the other. {', '.join(versions)}. Medians; made by `make bench-loadgen`.",
            "",
            *_conditions(rows),
            "Closed loop: requests/s (processor time per request in us), and the ratio of our "
            "engine's processor time to theirs: above 1, ours is cheaper.",
            "",
        ]
    for size, words in SIZES.items():
        lines += _closed([row for row in closed if row["payload_bytes"] == size], words)
    lines += _paced([row for row in rows if row["part"] == "paced"])
    lines += _stall([row for row in rows if row["part"] == "stall"])
    return "\n".join(lines).rstrip() + "\n"


def _closed(rows: list[Row], words: str) -> list[str]:
    if not rows:
        return []
    found = {(row["engine"], row["concurrency"]): row for row in rows}
    concurrencies = sorted({row["concurrency"] for row in rows})
    head = "".join(f" c={number} |" for number in concurrencies)
    lines = [f"| {words} | latency floor ms |{head}", "|---|---|" + "---|" * len(concurrencies)]
    for engine in dict.fromkeys(row["engine"] for row in rows):
        floor = found[engine, concurrencies[0]]["latency_floor_ms"]
        cells = []
        for number in concurrencies:
            row, ours = found.get((engine, number)), found.get(("http2", number))
            if row is None or ours is None:
                cells.append("-")
                continue
            text = f"{row['requests_per_s']:,.0f} ({row['cpu_us_per_request']:.1f})"
            if engine != "http2":
                text += f" {row['cpu_us_per_request'] / ours['cpu_us_per_request']:.2f}x"
            cells.append(text + _mark(row))
        shown = "-" if floor is None else f"{floor:.3f}"
        lines.append(f"| {engine} | {shown} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _paced(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "Open loop, Poisson, 174 B: lateness (sent - intended) in ms p50 / p99 / max, and cores. "
        "The machine's own is that of a loop that wakes on the same schedule, in the same process "
        "(the http2 engine's), and sends nothing.",
        "",
        "| rate/s | machine | " + " | ".join(dict.fromkeys(row["engine"] for row in rows)) + " |",
        "|---|---|" + "---|" * len({row["engine"] for row in rows}),
    ]
    for rate in sorted({row["rate_rps"] for row in rows}):
        at_rate = [row for row in rows if row["rate_rps"] == rate]
        cells = [f"{_points(row, 'lag')}, {row['cores']:.2f}{_mark(row)}" for row in at_rate]
        own = [_points(row, "machine_lag") for row in at_rate if row["engine"] == "http2"]
        lines.append(f"| {rate:,} | " + " | ".join([*own, *cells]) + " |")
    return [*lines, ""]


def _points(row: Row, name: str) -> str:
    p50, p99, highest = (row[f"{name}_{point}_ms"] for point in ("p50", "p99", "max"))
    return f"{p50:.3f} / {p99:.3f} / {highest:.1f}"


def _mark(row: Row) -> str:
    """A star where a figure was measured while others were busy."""
    return " *" if row.get("rounds_disturbed") else ""


def _conditions(rows: list[Row]) -> list[str]:
    """How quiet the machine was, over all rows that say so."""
    known = [row for row in rows if "rounds_disturbed" in row]
    if not known:
        return []
    rounds = sum(row["rounds"] for row in known)
    repeated = sum(row["rounds_repeated"] for row in known)
    disturbed = sum(row["rounds_disturbed"] for row in known)
    quiet = [row["foreign_cores"] for row in known if not row["rounds_disturbed"]]
    highest = max(quiet, default=0)
    text = (
        f"Of {rounds} measurements, {repeated} were thrown away and made again because other "
        f"programs or other guests of the host were busy meanwhile; {disturbed} stayed disturbed "
        f"(marked *). In all others, other programs used at most {highest:.3f} cores."
    )
    return [text, ""]


def _stall(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "A server that stands still for one second of five (coordinated omission): the open loop "
        "times from when requests were due, the closed loop (8 outstanding) from when it sent.",
        "",
        "| | requests | p50 ms | p99 ms | max ms |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['way']} | {row['requests']:,} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} "
        f"| {row['max_ms']:.0f} |"
        for row in rows
    ]
    return [*lines, ""]


def plot(rows: list[Row], path: Path) -> None:
    """Processor time per request by concurrency, and lateness by rate."""
    closed = [row for row in rows if row["part"].startswith(PEERS)]
    paced = [row for row in rows if row["part"] == "paced"]
    figure, axes = plt.subplots(1, 4, figsize=(15, 4), constrained_layout=True)
    for axis, (size, words) in zip(axes, SIZES.items(), strict=False):
        for engine, colour in COLOURS.items():
            line = [r for r in closed if r["engine"] == engine and r["payload_bytes"] == size]
            axis.plot(
                [row["concurrency"] for row in line],
                [row["cpu_us_per_request"] for row in line],
                "o-",
                color=colour,
                label=engine if line else None,
            )
        axis.set(xscale="log", yscale="log", xlabel="requests outstanding")
        axis.set_title(f"{words}: processor time per request, us", fontsize=10)
        axis.set_xticks([1, 16, 64, 256], ["1", "16", "64", "256"])
    for engine, colour in COLOURS.items():
        line = [row for row in paced if row["engine"] == engine]
        rates, lags = [row["rate_rps"] for row in line], [row["lag_p99_ms"] for row in line]
        axes[3].plot(rates, lags, "o-", color=colour)
    own = [row for row in paced if row["engine"] == "http2"]
    axes[3].plot(
        [row["rate_rps"] for row in own],
        [row["machine_lag_p99_ms"] for row in own],
        "--",
        color="#444444",
        label="a loop that sends nothing",
    )
    axes[3].set(xscale="log", yscale="log", xlabel="requests/s offered")
    axes[3].set_title("lateness p99, ms", fontsize=10)
    axes[3].set_xticks([500, 2_000, 5_000, 20_000], ["500", "2,000", "5,000", "20,000"])
    for axis in axes:
        axis.set_visible(bool(axis.lines and any(len(line.get_xdata()) for line in axis.lines)))
        axis.grid(alpha=0.3, which="both")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1.5, 0.5)))
    lines = {line.get_label(): line for axis in axes for line in axis.lines}
    named = {label: line for label, line in lines.items() if not label.startswith("_")}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named) or 1)
    figure.savefig(path, dpi=110)
    plt.close(figure)
