"""The closing table on the terminal: recommended against both baselines."""

import sys
from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.commands.publish import report_run
from tuner.records import TrialRecord
from tuner.report.tables import closing_rows
from tuner.report.wording import sentence
from tuner.search.compare import Compared
from tuner.store import BATCHING, RunDirectory

VERDICTS = {
    "gain": "Deploy this file.",
    "tie": "A tie: keep the default.",
    "none": "Keep what you have.",
    "undecided": "Undecided: nothing is confirmed yet.",
}


def print_closing(run: RunDirectory) -> None:
    """Print what a run found to stdout."""
    shown = report_run(run)
    console = _console()
    table = Table(box=box.SIMPLE_HEAD, title=f"{shown.name}: {shown.slo.describe()}")
    for name in ("", "configuration"):
        table.add_column(name)
    for name in ("sustainable/s", "p99 ms", "throughput/s", "rows/batch", "gain"):
        table.add_column(name, justify="right")
    if shown.recommendation.get("recommended") is None:
        table.add_row("recommended", "nothing yet", *["-"] * 4, "")
    for row in closing_rows(shown):
        gain = "" if row.gain_percent is None else f"{row.gain_percent:+.0f} %"
        if row.gain_low is not None and row.gain_high is not None:
            gain += f" [{row.gain_low:+.0f}, {row.gain_high:+.0f}]"
        table.add_row(
            row.contender,
            Text(row.label),
            _number(row.sustainable_rps, 0),
            _number(row.p99_ms, 1),
            _number(row.throughput_rps, 0),
            _number(row.rows_per_batch, 1),
            gain,
        )
    console.print(table)
    verdict = VERDICTS.get(shown.recommendation.get("verdict", ""), "")
    console.print(Text(f"{verdict} {sentence(shown.recommendation.get('why', ''))}"))
    for text in shown.recommendation.get("evidence", ()):
        console.print(Text(f"- {text}"))
    server = shown.server
    far = server.through and f", through {server.through}, which every latency includes"
    console.print(Text(f"server measured: {server.launcher} ({server.version}){far}"))
    console.print(Text(f"\n{run.path / BATCHING}"))
    console.print(Text((run.path / BATCHING).read_text(encoding="utf-8")))
    console.print(Text(f"report: {run.path / 'report.html'}"))


def print_curve(record: TrialRecord) -> None:
    """Print the curve of one configuration to stdout, by rising load."""
    console = _console()
    table = Table(box=box.SIMPLE_HEAD, title=record.config.label())
    for name in ("offered/s", "throughput/s", "p50 ms", "p99 ms", "errors", "rows/batch"):
        table.add_column(name, justify="right")
    table.add_column("SLO")
    opened = [level for level in record.levels if level.measurement.loop == "open"]
    for level in sorted(opened, key=lambda level: level.measurement.offered_rps or 0.0):
        measured, verdict = level.measurement, level.verdict
        server = measured.server
        answer = {True: "holds", False: "missed", None: "undecided"}[verdict.feasible]
        table.add_row(
            _number(measured.offered_rps, 1),
            _number(measured.throughput_rps, 1),
            _number(measured.percentiles_ms.get("p50"), 1),
            _number(measured.percentiles_ms.get("p99"), 1),
            str(measured.requests - measured.answered),
            _number(None if server is None else server.rows_per_batch, 1),
            answer if verdict.valid else f"{answer}; {verdict.doubts[0].text}",
        )
    console.print(table)


def print_compared(found: Sequence[Compared]) -> None:
    """Print what blocks showed of batching files to stdout."""
    console = _console()
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("file")
    for name in ("sustainable/s", "by block", "against the first"):
        table.add_column(name, justify="right")
    for item in found:
        rates = [rate for rate in item.rates_rps if rate is not None]
        gain = item.gain
        shown = "" if gain is None else f"{gain.percent:+.1f} % (too few blocks to tell)"
        if gain is not None and gain.low is not None and gain.high is not None:
            shown = f"{gain.percent:+.1f} % [{gain.low:+.1f}, {gain.high:+.1f}]"
        table.add_row(
            Text(item.entrant.arm),
            _number(fmean(rates) if rates else None, 1),
            " ".join(_number(rate, 0) for rate in item.rates_rps),
            shown,
        )
    console.print(table)
    for item in found[1:]:
        console.print(Text(sentence(item.describe(found[0].entrant.arm))))


def _console() -> Console:
    """Print to the terminal's width; wide enough for every column where there is none."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
