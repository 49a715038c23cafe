"""A capacity plan on the terminal and as files: tables, CSV, JSON, plots."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.report.wording import number
from tuner.slo import percentile_label
from tuner.store import write_atomically

SHOWN = (2, 4, 6, 8, 10, 12)
"""Rows of a promise's table that the terminal has room for."""


def print_plan(plan: Mapping[str, Any], run: Path) -> None:
    """Print a plan to stdout."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    low, high = plan["needed_between"]
    spare = f", {plan['spare']} of them to spare" if plan["spare"] else ""
    console.print(
        Text(
            f"{plan['replicas']} replicas for {number(plan['planned_rps'])}/s{spare} "
            f"(without spare {low} to {high}, by {run.name}'s data)\n"
            f"each: {plan['promises'][0]['config']}; promise: {plan['promises'][0]['promise']}"
        )
    )
    console.print(_loads(plan))
    if plan["cost_per_hour"] is not None:
        console.print(Text(f"cost: {plan['cost_per_hour']:,.2f} an hour"))
    console.print(_by_rate(plan))
    if plan["trace"] is not None:
        console.print(Text(_day(plan["trace"])))
    for promise in plan["promises"]:
        if promise["why"]:
            console.print(Text(f"note: {promise['promise']}: {promise['why']}"))
    for note in plan["notes"]:
        console.print(Text(f"note: {note}"))


def _loads(plan: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    percentiles = list(plan["at_peak"]["percentiles_ms"])
    shown = [f"{percentile_label(name)} ms" for name in percentiles]
    for name in ("replicas", "each/s", "headroom", "utilised", *shown, "shed"):
        table.add_column(name, justify="right")
    table.add_column("promise")
    for name, load in (("as planned", plan["at_peak"]), ("one lost", plan["one_lost"])):
        if load is not None:
            table.add_row(name, *_cells(load, percentiles))
    return table


def _cells(load: Mapping[str, Any], percentiles: Sequence[str]) -> Iterator[str]:
    yield str(load["replicas"])
    yield number(load["rate_rps"])
    yield f"{load['headroom']:+.0%}"
    yield f"{load['utilisation']:.0%}"
    for name in percentiles:
        value = load["percentiles_ms"][name]
        yield "failed" if value is None else number(value)
    yield f"{load['shed_share']:.2%}"
    yield "holds" if load["holds"] else "not proven" if load["kept"] else "missed"


def _by_rate(plan: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Replicas by rate, spare included")
    table.add_column("promise")
    kept = [promise for promise in plan["promises"] if promise["table"]]
    rates = [row["rate_rps"] for row in kept[0]["table"]]
    shown = [rates[at] for at in SHOWN if at < len(rates)]
    for rate in shown:
        table.add_column(f"{number(rate)}/s", justify="right")
    for promise in kept:
        replicas = {row["rate_rps"]: row["replicas"] for row in promise["table"]}
        table.add_row(promise["promise"], *(str(replicas.get(rate, "-")) for rate in shown))
    return table


def _day(trace: Mapping[str, Any]) -> str:
    follow, steady = trace["follow"], trace["steady"]
    costs = ""
    if follow["cost"] is not None:
        costs = f" ({follow['cost']:,.2f} against {steady['cost']:,.2f})"
    return (
        f"trace of {trace['hours']:.1f} h, mean {number(trace['mean_rps'])}/s, peak "
        f"{number(trace['peak_rps'])}/s: following it takes {follow['replica_hours']:,.1f} "
        f"replica-hours, {steady['replicas']} replicas all along "
        f"{steady['replica_hours']:,.1f}{costs}, {trace['saving']:.0%} more\n"
    )


def write_plan(plan: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `plan.json`, the tables as CSV and the plots as PNG and SVG into a folder."""
    from tuner.report.replicas_figure import plan_plots  # noqa: PLC0415 - matplotlib is slow

    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str | bytes] = {"plan.json": json.dumps(plan, indent=2) + "\n"}
    files["replicas.csv"] = _csv(
        {"promise": promise["promise"], "config": promise["config"], **row}
        for promise in plan["promises"]
        for row in promise["table"]
    )
    if plan["trace"] is not None:
        files["trace.csv"] = _csv(plan["trace"]["intervals"])
    for name, (svg, png) in plan_plots(plan).items():
        files |= {f"{name}.svg": svg, f"{name}.png": png}
    return [write_atomically(folder / name, content) for name, content in files.items()]


def _csv(rows: Any) -> str:
    found = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()
