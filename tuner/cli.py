"""The command line: parse, wire, call, print. Nothing heavy is imported before it is needed."""

# ruff: noqa: PLC0415 - every command imports its own part, so that `--help` answers at once

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from tuner import __version__
from tuner.errors import TunerError, UsageError

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
RESULTS = Path("results")
MOST_PROMISES = 6
"""As many lines as a plot's colours and markers tell apart."""

as_json = click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors into a message, a remedy and an exit code; anything else is our own bug."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TunerError as error:
            _fail(error)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(130)
        except BrokenPipeError:  # the reader of a pipe has gone: nothing is left to say
            sys.stderr.close()
            sys.exit(0)

    return run


def _fail(error: TunerError) -> NoReturn:
    click.echo(f"tuner: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99})
@click.version_option(__version__, message="tuner %(version)s")
def main() -> None:
    """Find TensorFlow Serving's batching parameters: the most load within a latency promise.

    \b
    Start:    tuner init MODEL_DIR > my.toml && tuner tune my.toml
    Example:  tuner tune scenarios/quickstart.toml

    Exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted (the run can be resumed).
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@main.command()
@click.argument("scenario", type=FILE, required=False)
@click.option("--resume", type=DIRECTORY, metavar="RUN", help="Go on with a run that was ended.")
@click.option("--trials", type=click.IntRange(min=1), help="Server starts of the search.")
@click.option("--deadline", metavar="WHEN", help="End by then: 8h, 90m or 07:00.")
@click.option(
    "--out", type=DIRECTORY, default=RESULTS, show_default=True, help="Where runs are kept."
)
@as_json
@guarded
def tune(
    scenario: Path | None,
    resume: Path | None,
    trials: int | None,
    deadline: str | None,
    out: Path,
    json_: bool,
) -> None:
    """Search, record, confirm, recommend and report: the main job.

    \b
    Example:  tuner tune scenarios/quickstart.toml --deadline 07:00
              tuner tune --resume results/20260301T220000Z-quickstart
    """  # noqa: D301
    if (scenario is None) == (resume is None):
        raise UsageError(
            "give a scenario or --resume RUN, one of them", hint="see: tuner tune --help"
        )
    from tuner.commands.closing import print_closing
    from tuner.commands.progress import Narrator
    from tuner.commands.tune import Request
    from tuner.commands.tune import tune as run_tune

    with Narrator() as narrator:
        run = run_tune(Request(scenario, resume, out, trials, deadline), narrator)
    if json_:
        click.echo((run.path / "recommendation.json").read_text(encoding="utf-8"), nl=False)
    else:
        print_closing(run)


@main.command()
@click.option(
    "--engine",
    type=click.Choice(["http2", "grpcio"]),
    default="http2",
    show_default=True,
    help="The load generator's client.",
)
@click.option(
    "--seconds", type=click.FloatRange(0.2, 60), default=3.0, show_default=True, help="Per figure."
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="As load.processes of the scenario it is for.",
)
@click.option("--cpus", default="auto", show_default=True, help="As its load.cpus.")
@as_json
@guarded
def calibrate(engine: str, seconds: float, processes: int, cpus: str, json_: bool) -> None:
    """Measure the load generator itself on this machine, against a server that does nothing.

    Keeps the result for this machine: no load above half of it is measured afterwards. Uses
    nghttpd as the server where it is installed (Debian: nghttp2), else a simple one of its own.

    \b
    Example:  tuner calibrate --json
    """  # noqa: D301
    from tuner.server.cpus import place
    from tuner.wiring import calibration as calibrations

    found = calibrations.calibrate(
        engine,
        placement=place("auto", cpus),
        processes=processes,
        seconds=seconds,
        notify=lambda text: click.echo(text, err=True),
    )
    path = calibrations.keep(found)
    if json_:
        click.echo(calibrations.as_json_text(found))
        return
    click.echo(calibrations.describe(found))
    click.echo(f"kept in {path}")


@main.command()
@click.argument("scenario", type=FILE)
@as_json
@guarded
def doctor(scenario: Path, json_: bool) -> None:
    """Check all that a night of tuning would trip over, and say how to mend it.

    \b
    Example:  tuner doctor scenarios/quickstart.toml

    Starts the server once and loads it for two seconds. Exits with 1 where a finding is red.
    """  # noqa: D301
    from rich.console import Console

    from tuner.commands import doctor as doctors
    from tuner.doctor.finding import worst

    console = Console(highlight=False, soft_wrap=True)
    findings = doctors.doctor(scenario, doctors.silent if json_ else doctors.teller(console))
    if json_:
        click.echo(doctors.as_json_text(findings))
    else:
        doctors.print_sum(console, findings)
    if worst(findings) == "red":
        sys.exit(1)


@main.command()
@click.argument("scenario", type=FILE)
@click.option("--params", type=FILE, help="Batching parameters file; without it, batching is off.")
@click.option(
    "--out", type=DIRECTORY, default=RESULTS, show_default=True, help="Where runs are kept."
)
@as_json
@guarded
def measure(scenario: Path, params: Path | None, out: Path, json_: bool) -> None:
    """Measure the throughput/latency curve of one configuration.

    \b
    Example:  tuner measure scenarios/quickstart.toml --params batching_parameters.txt
    """  # noqa: D301
    from tuner.commands.closing import print_curve
    from tuner.commands.measure import Request, as_json_text
    from tuner.commands.measure import measure as run_measure
    from tuner.commands.progress import Narrator

    with Narrator() as narrator:
        run, record = run_measure(Request(scenario, params, out), narrator)
    if json_:
        click.echo(as_json_text(record))
        return
    print_curve(record)
    click.echo(f"report: {run.path / 'report.html'}")


@main.command()
@click.argument("scenario", type=FILE)
@click.argument("files", nargs=-1, metavar="FILE FILE...")
@click.option("--blocks", type=click.IntRange(min=2), help="Starts of every file.")
@click.option(
    "--out", type=DIRECTORY, default=RESULTS, show_default=True, help="Where runs are kept."
)
@as_json
@guarded
def compare(
    scenario: Path, files: tuple[str, ...], blocks: int | None, out: Path, json_: bool
) -> None:
    """Compare batching files in interleaved blocks on fresh starts, against the first.

    The words `default` and `off` stand for the server's own settings and for no batching.

    \b
    Example:  tuner compare scenarios/quickstart.toml default batching_parameters.txt
    """  # noqa: D301
    from tuner.commands.closing import print_compared
    from tuner.commands.compare import Request, as_object
    from tuner.commands.compare import compare as run_compare
    from tuner.commands.progress import Narrator

    with Narrator() as narrator:
        run, found = run_compare(Request(scenario, files, blocks, out), narrator)
    if json_:
        click.echo(json.dumps(as_object(found), indent=2))
        return
    print_compared(found)
    click.echo(f"report: {run.path / 'report.html'}")


@main.command()
@click.argument("scenario", type=FILE)
@click.option("--params", type=FILE, help="Batching parameters file; without it, batching is off.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="RPS", help="Load to hold it at."
)
@click.option("--starts", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--out", type=DIRECTORY, default=RESULTS, show_default=True, help="Where runs are kept."
)
@as_json
@guarded
def check(
    scenario: Path, params: Path | None, rate: float | None, starts: int, out: Path, json_: bool
) -> None:
    """Check in minutes that a batching file still keeps the SLO. Exits with 1 where not.

    The load is --rate or, for a file that `tuner tune` recommended, nine tenths of what it was
    recommended for; without either, it is enough that the SLO holds at some load.

    \b
    Example:  tuner check scenarios/quickstart.toml --params batching_parameters.txt --rate 400
    """  # noqa: D301
    from tuner.commands.check import Request
    from tuner.commands.check import check as run_check
    from tuner.commands.progress import Narrator

    with Narrator() as narrator:
        run, found = run_check(Request(scenario, params, rate, starts, out), narrator)
    if json_:
        click.echo(json.dumps(found.as_object(), indent=2))
    else:
        click.echo(f"{'kept' if found.kept else 'NOT KEPT'}: {found.why}")
        click.echo(f"report: {run.path / 'report.html'}")
    sys.exit(0 if found.kept else 1)


@main.command()
@click.argument("scenario", type=FILE)
@click.option("--params", type=FILE, help="Batching parameters file; without it, batching is off.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="RPS", help="The load.")
@click.option("--duration", metavar="SPAN", help="How long: 8h, 90m or 45s.  [default: 60s]")
@click.option("--window", metavar="SPAN", help="Length of a window.  [default: 10s, or shorter]")
@click.option("--keep-samples", is_flag=True, help="Keep every request, 30 bytes each.")
@click.option(
    "--out", type=DIRECTORY, default=RESULTS, show_default=True, help="Where runs are kept."
)
@as_json
@guarded
def bench(
    scenario: Path,
    params: Path | None,
    rate: float | None,
    duration: str | None,
    window: str | None,
    keep_samples: bool,
    out: Path,
    json_: bool,
) -> None:
    """Drive one load for minutes or hours, and measure it window by window.

    Memory does not grow with the run. Windows are written as they end; Ctrl-C keeps them. The
    load is --rate, or what the scenario's load.profile (ramps and steps) or load.trace says.
    A server that runs already can be named: server.launcher = "running".

    \b
    Example:  tuner bench scenarios/quickstart.toml --rate 400 --duration 8h
    """  # noqa: D301
    from tuner.commands.bench import Request
    from tuner.commands.bench import bench as run_bench
    from tuner.commands.closing import print_curve
    from tuner.commands.interrupting import INTERRUPTED
    from tuner.commands.measure import as_json_text
    from tuner.commands.progress import Narrator

    with Narrator() as narrator:
        request = Request(scenario, params, rate, duration, window, keep_samples, out)
        run, record = run_bench(request, narrator)
    if json_:
        click.echo(as_json_text(record))
    else:
        print_curve(record)
        click.echo(f"windows: {run.path / 'trials' / '0000' / 'windows.jsonl'}")
        click.echo(f"report: {run.path / 'report.html'}")
    if any(note.code == "interrupted" for note in record.notes):
        sys.exit(INTERRUPTED)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=DIRECTORY, metavar="RUN [RUN...]")
@click.option(
    "--out",
    type=DIRECTORY,
    help="Where the page of several runs goes; `comparison` beside the first by default.",
)
@as_json
@guarded
def report(runs: tuple[Path, ...], out: Path | None, json_: bool) -> None:
    """Rebuild the page, the plots and the Pareto table of a run. Measures nothing.

    Several runs are put side by side on one page, comparison.html: two GPUs, two images, two
    versions of a model. Runs with unlike promises or requests are refused.

    \b
    Example:  tuner report results/20260301T220000Z-quickstart
              tuner report results/*-resnet-a100 results/*-resnet-l4 --out a100-against-l4
    """  # noqa: D301
    from tuner.commands.publish import publish_comparison, publish_report
    from tuner.store import RunDirectory

    if len(runs) == 1:
        if out is not None:
            raise UsageError(
                "--out: the page of one run is kept in the run itself",
                hint="leave --out away, or name a second run",
            )
        paths = [str(path) for path in publish_report(RunDirectory(runs[0]))]
    else:
        out = out or runs[0].parent / "comparison"
        found = publish_comparison([RunDirectory(run) for run in runs], out)
        paths = [str(path) for path in found]
    click.echo(json.dumps(paths, indent=2) if json_ else "\n".join(paths))


@main.command()
@click.argument("run", type=DIRECTORY)
@click.option("--p50", metavar="MS", help="Limit of the median, such as 20ms.")
@click.option("--p90", metavar="MS", help="Limit of the 90th percentile.")
@click.option("--p95", metavar="MS", help="Limit of the 95th percentile.")
@click.option("--p99", metavar="MS", help="Limit of the 99th percentile.")
@click.option("--p999", metavar="MS", help="Limit of the 99.9th percentile.")
@click.option("--max-error-rate", type=click.FloatRange(0, 1, max_open=True), help="A share.")
@as_json
@guarded
def recommend(run: Path, json_: bool, max_error_rate: float | None, **limits: str | None) -> None:
    """Recommend for another SLO from a recorded run. Measures nothing.

    Prints the batching file for that SLO.

    \b
    Example:  tuner recommend results/20260301T220000Z-quickstart --p99 20ms
    """  # noqa: D301
    from tuner.commands.recommend import recommend as run_recommend
    from tuner.store import RunDirectory

    limits_ms = {name: _milliseconds(name, text) for name, text in limits.items() if text}
    found, text = run_recommend(RunDirectory(run), limits_ms, max_error_rate)
    click.echo(json.dumps(found, indent=2) if json_ else text, nl=json_)


@main.command()
@click.argument("run", type=DIRECTORY)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests/s.")
@click.option("--trace", type=FILE, help="CSV of a day's load, instead of --rate: see below.")
@click.option("--p50", metavar="MS", multiple=True, help="Limit of the median, such as 20ms.")
@click.option("--p90", metavar="MS", multiple=True, help="Limit of the 90th percentile.")
@click.option("--p95", metavar="MS", multiple=True, help="Limit of the 95th percentile.")
@click.option("--p99", metavar="MS", multiple=True, help="Limit of the 99th percentile.")
@click.option("--p999", metavar="MS", multiple=True, help="Limit of the 99.9th percentile.")
@click.option(
    "--peak-factor",
    type=click.FloatRange(1),
    default=1.0,
    show_default=True,
    help="Peak over rate.",
)
@click.option(
    "--spare", type=click.IntRange(0), default=0, show_default=True, help="Replicas more."
)
@click.option(
    "--cv",
    type=click.FloatRange(0.1, 10),
    help="How much the gaps between requests vary: 1 is Poisson, 2 (the default) bursty, as "
    "load.burst_cv. A trace of arrivals brings its own.",
)
@click.option(
    "--balancer",
    type=click.Choice(["random", "round-robin", "least-outstanding"]),
    default="random",
    show_default=True,
    help="How requests are spread.",
)
@click.option("--cost-per-hour", type=click.FloatRange(0), help="Of one replica.")
@click.option("--out", type=DIRECTORY, help="Write plan.json, tables (CSV) and plots there.")
@as_json
@guarded
def plan(
    run: Path,
    rate: float | None,
    trace: Path | None,
    peak_factor: float,
    spare: int,
    cv: float | None,
    balancer: Literal["random", "round-robin", "least-outstanding"],
    cost_per_hour: float | None,
    out: Path | None,
    json_: bool,
    **limits: tuple[str, ...],
) -> None:
    """Plan capacity: how many replicas a load takes, by simulation on the run's own data.

    Without a limit the run's own SLO is planned for. A limit given several times is a promise
    each; the first is planned for, the others stand beside it in tables and plots.

    A trace has columns `time,rate_rps`, a rate for every interval, or `arrival`, the time of
    every request. Times are seconds, HH:MM or ISO 8601.

    \b
    Example:  tuner plan results/20260301T220000Z-quickstart --rate 20000 --p99 50ms --spare 1
              tuner plan results/20260301T220000Z-quickstart --trace day.csv --cost-per-hour 0.5
    """  # noqa: D301
    from tuner.commands.plan import Ask
    from tuner.commands.plan import plan as run_plan
    from tuner.commands.plan_print import print_plan, write_plan
    from tuner.simulate.trace import read_trace
    from tuner.store import RunDirectory

    if (rate is None) == (trace is None):
        raise UsageError(
            "a plan needs --rate or --trace, one of them",
            hint="for example --rate 20000, or --trace day.csv",
        )
    ask = Ask(
        rate_rps=rate,
        promises=_promises(limits),
        peak_factor=peak_factor,
        spare=spare,
        cv=cv,
        balancer=balancer,
        cost_per_hour=cost_per_hour,
        trace=None if trace is None else read_trace(trace),
    )
    found = run_plan(RunDirectory(run), ask)
    written = [] if out is None else write_plan(found, out)
    if json_:
        click.echo(json.dumps(found, indent=2))
    else:
        print_plan(found, run)
        for path in written:
            click.echo(path)


def _promises(limits: Mapping[str, Sequence[str]]) -> tuple[dict[str, float], ...]:
    """The promises that repeated limits ask for, the first to be planned for."""
    values = {
        name: [_milliseconds(name, text) for text in texts]
        for name, texts in limits.items()
        if texts
    }
    repeated = [name for name, found in values.items() if len(found) > 1]
    if len(repeated) > 1:
        raise UsageError(
            f"--{repeated[0]} and --{repeated[1]} are both given several times",
            hint="repeat one limit; the others then hold for every promise",
        )
    count = max((len(found) for found in values.values()), default=1)
    if count > MOST_PROMISES:
        raise UsageError(
            f"--{repeated[0]} is given {count} times, and a plan shows {MOST_PROMISES} promises",
            hint="leave some out, or plan twice",
        )
    return tuple(
        {name: found[at if len(found) > 1 else 0] for name, found in values.items()}
        for at in range(count)
    )


def _milliseconds(name: str, text: str) -> float:
    """Parse `20ms`, `20` or `0.5s`."""
    number, factor = text.strip().lower(), 1.0
    if number.endswith("ms"):
        number = number.removesuffix("ms")
    elif number.endswith("s"):
        number, factor = number.removesuffix("s"), 1000.0
    try:
        return float(number) * factor
    except ValueError:
        raise UsageError(
            f"--{name}: expected a time in milliseconds, got {text!r}", hint="write 20ms or 20"
        ) from None


@main.command()
@click.argument("model_dir", type=DIRECTORY)
@click.option("--out", type=FILE, help="File to write; standard output without it.")
@guarded
def init(model_dir: Path, out: Path | None) -> None:
    """Read a SavedModel and write a commented scenario that runs as it is.

    \b
    Example:  tuner init models/resnet --out resnet.toml
    """  # noqa: D301
    from tuner.starter import starter
    from tuner.store import write_atomically

    text = starter(model_dir, out or Path("scenario.toml"))
    if out is None:
        click.echo(text, nl=False)
        return
    if out.exists():
        raise UsageError(f"{out}: exists already", hint="name another file with --out")
    write_atomically(out, text)
    click.echo(f"{out}\nnext: tuner tune {out}")


@main.command()
@click.argument(
    "what",
    type=click.Choice(["scenario", "trial", "recommendation"]),
    default="scenario",
    required=False,
)
@click.option("--out", type=FILE, help="File to write; standard output without it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "markdown"]),
    default="json",
    show_default=True,
    help="JSON Schema for programs, or a page for people.",
)
@guarded
def schema(
    what: Literal["scenario", "trial", "recommendation"], out: Path | None, form: str
) -> None:
    """Write the format of scenario files, for completion in editors or for reading.

    The words `trial` and `recommendation` give those of a line of trials.jsonl and of
    recommendation.json, for programs that read a run.

    \b
    Example:  tuner schema --out scenario.schema.json
              tuner schema trial
    """  # noqa: D301
    from tuner.formats import schema_of
    from tuner.scenario import markdown
    from tuner.store import write_atomically

    if form == "markdown" and what != "scenario":
        raise UsageError(
            "--format markdown: there is a page of scenarios alone", hint="leave --format away"
        )
    text = markdown() if form == "markdown" else json.dumps(schema_of(what), indent=2) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(out, text)
