"""The report: one self-contained page that needs no network and no server.

What must be read is text; scripts add the charts, the choice of another promise, and copying.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tuner.deploy import snippets
from tuner.errors import StoreError
from tuner.records import ServerIdentity, TrialRecord
from tuner.report import wording
from tuner.report.bundle import embedded_json, library, script
from tuner.report.cards import cards
from tuner.report.chart_specs import chart_specs
from tuner.report.charts import Chart, shown_charts
from tuner.report.figures import FIGURE_NAMES, Plot, render_plots
from tuner.report.outlook import steps, weights
from tuner.report.overload import overload_remarks, overload_rows
from tuner.report.points import page_data
from tuner.report.run import Run
from tuner.report.svg import inline_svg
from tuner.report.tables import contender_ids, contenders
from tuner.report.templating import template
from tuner.report.trust import trial_reasons, trust
from tuner.report.why import remarks, why
from tuner.search.ranking import bounded
from tuner.slo import percentile_label
from tuner.store import write_atomically

SERVER_NOTES = {
    "embedded": (
        "Not TensorFlow Serving itself: the project's own stand-in, with the same batch scheduler "
        "behind a front that costs more per request. The order of configurations carries over; "
        "absolute rates on TensorFlow Serving are higher."
    ),
    "docker": "The server people deploy; a container on the measuring host.",
    "binary": "The server people deploy; a tensorflow_model_server on the measuring host.",
    "running": "A server that ran already, measured as it was; the tuner did not set it up.",
}

PRINTED = {"docker": "docker"}
"""The way of starting a server that was measured; a binary's is its flags."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One row of the table of trials, in words."""

    number: int
    role: str
    label: str
    config_id: str
    outcome: str
    mark: str
    sustainable: str
    tail: str
    rows_per_batch: str
    peak: str
    why: str
    hint: str
    log_tail: str


@dataclass(frozen=True, slots=True)
class Way:
    """One thing to copy: its text, whole, and what to know before it is used.

    `printed` ways are on paper too; nobody copies the others from there.
    """

    name: str
    title: str
    text: str
    note: str
    printed: bool = False


def write_report(run: Run, directory: Path) -> tuple[Path, ...]:
    """Write report.html and the plots it shows into `directory`, each whole or not at all.

    Returns the written files, the page first. A plot of an earlier report that this run has no
    data for is removed. Raises StoreError where the directory cannot be written.
    """
    plots = tuple(render_plots(run))
    folder = directory / "plots"
    written = []
    for plot in plots:
        for suffix, content in ((".svg", plot.svg.encode()), (".png", plot.png)):
            written.append(folder / f"{plot.name}{suffix}")
            write_atomically(written[-1], content)
    _remove_stale(folder, {path.name for path in written})
    page = directory / "report.html"
    # A server's log may hold bytes that were no text; a page must still come out.
    write_atomically(page, render_page(run, plots).encode("utf-8", "replace"))
    return (page, *written)


def _remove_stale(folder: Path, current: set[str]) -> None:
    for name in FIGURE_NAMES:
        for suffix in (".svg", ".png"):
            path = folder / f"{name}{suffix}"
            if path.name in current:
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{path}: a plot of an earlier report cannot be removed: {error.strerror}",
                    hint="make the folder writable, then rebuild the report",
                ) from error


def render_page(run: Run, plots: tuple[Plot, ...]) -> str:
    """Render the page as HTML text; everything that comes from the run is escaped."""
    data = page_data(run)
    charts = shown_charts(data)
    ways = ways_to_deploy(run)
    return template("report.html.jinja").render(
        run=run,
        started=tuple(way for way in ways if way.name != "flags"),
        flags=next((way for way in ways if way.name == "flags"), None),
        why=why(run),
        remarks=remarks(run),
        steps=steps(run),
        importance=weights(run),
        overload=(overloaded := overload_rows(run)),
        tested=any(row.deployed for row in overloaded),
        overload_remarks=tuple(overload_remarks(run)),
        data=embedded_json(data),
        charts=charts,
        percentiles=data["percentiles"],
        specs=embedded_json(chart_specs()),
        scripts=_scripts(charts),
        headline=wording.headline(run),
        remark=wording.remark(run),
        promise=wording.promise_of(run),
        launcher=wording.LAUNCHERS[run.server.launcher],
        server_note=_server_note(run.server),
        confidence=wording.share(run.slo.confidence),
        percentile=percentile_label(run.percentile),
        cards=cards(run),
        plots=[
            # The SVG is this program's own drawing; what it quotes was escaped by matplotlib.
            (plot, Markup(inline_svg(plot.svg, plot.name, plot.title)))  # noqa: S704
            for plot in plots
        ],
        trials=(trials := _trial_rows(run)),
        explained=any(row.why for row in trials),
        trust=trust(run),
        machine=machine(run.environment),
        environment=tuple(flatten(run.environment)),
    )


def _scripts(charts: tuple[Chart, ...]) -> tuple[Markup, ...]:
    own = script("page.js")
    return (own, library(), script("drawing.js"), script("charts.js")) if charts else (own,)


def _server_note(server: ServerIdentity) -> str:
    """What to bear in mind about the server; where it is far, that latency has the way in it."""
    if not server.through:
        return SERVER_NOTES[server.launcher]
    return (
        f"The server people deploy, in a container on another host, reached through "
        f"{server.through}: every latency here includes the network and the tunnel, and so does "
        "what was held against the promise."
    )


def ways_to_deploy(run: Run) -> tuple[Way, ...]:
    """Everything that is copied from the page: the file first, then what starts it."""
    flags = run.recommendation.get("flags") or {}
    ways = []
    if run.batching_text:
        note = "The figures hold only together with the flags beside it."
        ways.append(Way("file", "batching_parameters.txt", run.batching_text, note, printed=True))
    if flags:
        text = "".join(f"--{name}={value}\n" for name, value in flags.items())
        note = "The figures hold only with all of these."
        ways.append(Way("flags", "The server's flags", text, note, printed=True))
    started_by = PRINTED.get(run.server.launcher)
    started = (
        Way(way.name, way.title, way.text, way.note, printed=way.name == started_by)
        for way in snippets(run.recommendation)
    )
    return (*ways, *started)


def _trial_rows(run: Run) -> tuple[TrialRow, ...]:
    reasons = trial_reasons(run)
    marks = {
        config_id: contender
        for contender in reversed(contenders(run))
        for config_id in contender_ids(run, contender)
    }
    return tuple(
        _trial_row(run, trial, reasons.get(trial.number, ""), marks.get(trial.config.id, ""))
        for trial in run.trials
    )


def _trial_row(run: Run, trial: TrialRecord, why: str, mark: str) -> TrialRow:
    level = trial.reference
    measurement = level.measurement if level else None
    server = measurement.server if measurement else None
    failure = trial.failure
    return TrialRow(
        number=trial.number,
        role=trial.role if trial.block is None else f"{trial.role}, block {trial.block + 1}",
        label=trial.config.label(),
        config_id=trial.config.id,
        outcome=trial.outcome,
        mark=mark,
        sustainable=_sustainable(trial),
        tail=wording.number(
            measurement.percentiles_ms.get(run.percentile) if measurement else None
        ),
        rows_per_batch=wording.number(server.rows_per_batch if server else None),
        peak=wording.number(trial.peak_rps),
        why=why,
        hint=failure.hint if failure else "",
        log_tail=failure.log_tail if failure else "",
    )


def _sustainable(trial: TrialRecord) -> str:
    """The rate, marked where it is a lower bound."""
    lower = trial.sustainable_rps and not bounded(trial)
    return f"{'≥ ' if lower else ''}{wording.number(trial.sustainable_rps)}"


def machine(environment: Mapping[str, Any]) -> str:
    """Name the host in a line: what it is, what it runs, and when."""
    cpus, memory = environment.get("cpus"), environment.get("memory_gib")
    known = (
        environment.get("cpu_model"),
        cpus and f"{cpus} CPU{'s' if cpus != 1 else ''}",
        memory and f"{memory} GiB",
        environment.get("gpus"),
        environment.get("system"),
        environment.get("started"),
    )
    return ", ".join(str(item) for item in known if item) or "Its host was not named."


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) for everything in nested mappings."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value)) or wording.MISSING
        else:
            yield name, wording.MISSING if value is None else str(value)
