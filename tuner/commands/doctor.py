"""`tuner doctor`: everything a night would trip over, with how to mend it."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tuner.doctor import host
from tuner.doctor.finding import Finding, Light, Report, caught, worst
from tuner.doctor.live import check_live
from tuner.doctor.models import check_models
from tuner.errors import HostError
from tuner.scenario import Scenario, load
from tuner.server.cpus import Placement, place
from tuner.wiring.bench import placement_of

COLOURS: dict[Light, str] = {"green": "green", "yellow": "yellow", "red": "bold red"}


def doctor(scenario_path: Path, tell: Callable[[Finding], None]) -> list[Finding]:
    """Run every check, telling each finding as it is made; returns them all.

    The server is started only where nothing red was found before. Raises ScenarioError where the
    scenario itself cannot be read.
    """
    scenario = load(scenario_path)
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        tell(finding)

    report(Finding("scenario", "green", f"{scenario_path}: {scenario.name} can be read"))
    with caught("processors", report):
        placement = _placement(scenario)
        cpus = len(placement.server)
        report(host.check_processors(placement))
        # A container of ours gets whole processors, whatever quota this process has.
        inside = scenario.server.launcher == "docker"
        report(host.check_quota(None if inside else host.cpu_quota(), cpus))
        report(host.check_threads(scenario, cpus))
        report(host.check_clocks(min(placement.here.server)))
        if scenario.server.launcher == "docker":
            from tuner.doctor.containers import check_containers  # noqa: PLC0415 - 0.3 s

            check_containers(scenario, placement, report)
    report(host.check_ports())
    report(host.check_gpu(scenario))
    models = check_models(scenario, report)
    if worst(findings) == "red":
        report(
            Finding(
                "server",
                "yellow",
                "the server was not started, for what is red above",
                "mend that, then run doctor again",
            )
        )
        return findings
    with tempfile.TemporaryDirectory(prefix="tuner-doctor-") as folder:
        check_live(scenario, models, placement, Path(folder), report)
    return findings


def _placement(scenario: Scenario) -> Placement:
    """As a run would have it; without an engine, which is a finding of its own, as here."""
    try:
        return placement_of(scenario)
    except HostError:
        return place("auto", scenario.load.cpus)


def print_finding(console: Console, finding: Finding) -> None:
    """Print a finding as lines: a coloured light, what it is, and what to do."""
    line = Text(f"{finding.light:>6}  ", style=COLOURS[finding.light])
    line.append(f"{finding.check}: {finding.what}", style="default")
    console.print(line)
    if finding.remedy:
        console.print(Text(f"        -> {finding.remedy}"))
    for text in finding.detail.splitlines():
        console.print(Text(f"        {text}", style="dim"))


def print_sum(console: Console, findings: list[Finding]) -> None:
    """Print how many there are of each light."""
    counts = {light: sum(f.light == light for f in findings) for light in COLOURS}
    console.print(Text(", ".join(f"{count} {light}" for light, count in counts.items() if count)))


def as_json_text(findings: list[Finding]) -> str:
    """All findings for programs, with the worst light of all."""
    described = [asdict(finding) for finding in findings]
    return json.dumps({"light": worst(findings), "findings": described}, indent=2)


def silent(_finding: Finding) -> None:
    """Tell nobody."""


def teller(console: Console) -> Report:
    """Print findings as they come."""
    return lambda finding: print_finding(console, finding)
