"""From a scenario to a bench: models looked at, requests built, processors and launcher chosen."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner import builtin, environment, model
from tuner.commands.calibrate import calibrated
from tuner.errors import ModelError
from tuner.load.payload import MixPart, build_pool
from tuner.records import ServerIdentity
from tuner.scenario import ModelSection, Scenario
from tuner.server import process
from tuner.server.cpus import Placement, place
from tuner.server.launcher import Launcher
from tuner.store import RunDirectory
from tuner.trial import Bench

Models = Sequence[tuple[ModelSection, model.ModelInfo]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bench, and what is recorded of it. `cpus` is the number of the server's processors."""

    bench: Bench
    server: ServerIdentity
    environment: dict[str, Any]
    cpus: int


def prepare(
    scenario: Scenario, infos: Models, run: RunDirectory, notify: Callable[[str], None]
) -> Prepared:
    """Make ready all that every trial of a run needs, before any server starts.

    Raises InputError or HostError where a night would trip over it.
    """
    placement = place(scenario.server.cpus, scenario.load.cpus)
    launcher = launcher_of(scenario, placement, notify)
    identity = launcher.identify()
    described = environment.describe(
        server=identity,
        models={_version_name(section, info): info.fingerprint for section, info in infos},
        scenario=scenario.model_dump(mode="json"),
        placement=placement.describe(),
    )
    described["server_cpus"] = sorted(placement.server)
    calibration = calibrated(scenario.load.engine, placement, notify)
    described["load_generator"] = asdict(calibration)
    notify("building the requests")
    pool = run.path / "requests.pool"
    build_pool([part(section, info) for section, info in infos], seed=scenario.seed).save(pool)
    bench = Bench(
        scenario=scenario,
        slo=scenario.limits(),
        launcher=launcher,
        pool=pool,
        folder=run.path,
        environment_id=environment.environment_id(described),
        generator_cpus=placement.generator,
        notify=notify,
        usable_rps=calibration.usable_rps,
    )
    return Prepared(bench, identity, described, len(placement.server))


def models(scenario: Scenario, notify: Callable[[str], None]) -> Models:
    """Read every model of a scenario, making the built-in ones that are not there yet.

    Raises ModelError for one that is missing, broken, or cannot be batched.
    """
    infos = []
    for section in scenario.models:
        if section.builtin is not None:
            builtin.ensure(section.builtin, section.path, notify)
        info = model.inspect(section.path, version=asked_version(scenario, section))
        model.require_batchable(section.path, info.signature(section.signature))
        infos.append((section, info))
    for served in scenario.served:
        for version in served.named_versions:
            model.inspect(served.path, version=version)
    return infos


def asked_version(scenario: Scenario, section: ModelSection) -> int | None:
    """The version that a model's requests ask for by number or label; None for the latest."""
    if section.version_label is None:
        return section.version
    served = next(served for served in scenario.served if served.name == section.servable)
    return served.labels[section.version_label]


def _version_name(section: ModelSection, info: model.ModelInfo) -> str:
    """The servable's name, and the version where the scenario names one."""
    named = section.version is not None or section.version_label is not None
    return f"{section.servable}/{info.version}" if named else section.servable


def launcher_of(
    scenario: Scenario, placement: Placement, notify: Callable[[str], None]
) -> Launcher:
    """Choose the scenario's way of running the server. Raises HostError where there is none."""
    if scenario.server.launcher == "docker":
        from tuner.server.containers.launcher import open_docker  # noqa: PLC0415 - 0.3 s

        return open_docker(scenario, placement.server, notify)
    starters = {"embedded": process.embedded, "binary": process.binary}
    return starters[scenario.server.launcher](scenario, placement.server)


def part(section: ModelSection, info: model.ModelInfo) -> MixPart:
    """One model of the load mix. Raises ModelError for sizes of an input that it has not."""
    signature = info.signature(section.signature)
    unknown = sorted(set(section.dims) - set(signature.inputs))
    if unknown:
        raise ModelError(
            f"model.dims: {section.path} has no input {unknown[0]!r}",
            hint=f"its inputs are {', '.join(sorted(signature.inputs))}",
        )
    return MixPart(
        model=section.servable,
        signature=signature,
        version=section.version,
        version_label=section.version_label,
        weight=section.weight,
        rows=section.row_weights,
        inputs=None if section.inputs == "random" else Path(section.inputs),
        dims=section.dims,
    )
