"""From a scenario to a bench: models looked at, requests built, processors and launcher chosen."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuner import builtin, environment, model
from tuner.batching import BatchingParameters
from tuner.errors import ModelError, ScenarioError
from tuner.load.payload import MixPart, build_pool
from tuner.records import Config, ServerIdentity
from tuner.scenario import ModelSection, Scenario
from tuner.server import process
from tuner.server.containers.engine import address, connect
from tuner.server.containers.launcher import DockerLauncher, open_docker
from tuner.server.containers.ssh import SCHEME
from tuner.server.cpus import Placement, place
from tuner.server.keeper import ServerKeeper, kept_scenario
from tuner.server.process import ProcessLauncher
from tuner.server.running import RunningLauncher
from tuner.server.versions import VersionFolders, can_be_versions
from tuner.store import RunDirectory
from tuner.trial import Bench
from tuner.wiring.calibration import calibrated

VERSIONS = "versions"
"""Where in a run the versions lie that a running server takes up."""

Models = Sequence[tuple[ModelSection, model.ModelInfo]]
AnyLauncher = ProcessLauncher | DockerLauncher | RunningLauncher


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bench, and what is recorded of it. `cpus` is the number of the server's processors.

    To be closed: a server may live on, and copies of models may lie on another host.
    """

    bench: Bench
    server: ServerIdentity
    environment: dict[str, Any]
    cpus: int

    def close(self) -> None:
        """Give back what the bench holds."""
        self.bench.close()


def prepare(
    scenario: Scenario,
    infos: Models,
    run: RunDirectory,
    notify: Callable[[str], None],
    *,
    keep: bool = False,
) -> Prepared:
    """Make ready all that every trial of a run needs, before any server starts.

    With `keep`, a server may live on from one trial of a search to the next. Raises InputError or
    HostError where a night would trip over it.
    """
    placement = placement_of(scenario)
    with ExitStack() as opened:
        launcher = launcher_of(scenario, placement, notify)
        opened.callback(launcher.close)
        identity = launcher.identify()
        calibration = calibrated(
            scenario.load.engine, placement.here, notify, processes=scenario.load.processes
        )
        described = _described(scenario, infos, identity, placement)
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
            keeper=_keeper(launcher, run, notify) if keep else None,
        )
        opened.pop_all()  # from here on the bench closes it
    return Prepared(bench, identity, described, len(placement.server))


def _described(
    scenario: Scenario, infos: Models, identity: ServerIdentity, placement: Placement
) -> dict[str, Any]:
    """What is recorded of the environment, but for the load generator."""
    described = environment.describe(
        server=identity,
        models={_version_name(section, info): info.fingerprint for section, info in infos},
        scenario=scenario.model_dump(mode="json"),
        placement=placement.describe(),
    )
    described["server_cpus"] = [] if running(scenario) else sorted(placement.server)
    described["payload"] = {
        section.servable: {
            name: str(spec) for name, spec in info.signature(section.signature).inputs.items()
        }
        for section, info in infos
    }
    return described


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


def running(scenario: Scenario) -> bool:
    """Whether the server runs already, and is not ours to start."""
    return scenario.server.launcher == "running"


def require_startable(scenario: Scenario) -> None:
    """Raise ScenarioError where the server cannot be given a configuration."""
    if running(scenario):
        raise ScenarioError(
            f"server.launcher: the server at {scenario.server.address} runs already, and cannot "
            "be given other batching parameters",
            hint="tuner bench, check and measure take a running server; to tune, let the tuner "
            'start one: launcher = "docker", "binary" or "embedded"',
        )


def require_rates(scenario: Scenario) -> None:
    """Raise ScenarioError where the load says its rate itself, so that there is none to find."""
    if scenario.load.arrivals == "profile":
        raise ScenarioError(
            'load.arrivals: "profile" sets the rate itself, but here rates are tried',
            hint='tuner bench runs it; here set arrivals = "poisson" and remove the profile',
        )


def given(scenario: Scenario, batching: BatchingParameters | None) -> Config:
    """The configuration that the user names; a running server may have one nobody named."""
    return Config(batching, as_it_runs=running(scenario) and batching is None)


def _keeper(
    launcher: AnyLauncher, run: RunDirectory, notify: Callable[[str], None]
) -> ServerKeeper | None:
    """What lets a server live on; None where requests or the scenario forbid it."""
    scenario = launcher.scenario
    if (
        isinstance(launcher, RunningLauncher)
        or scenario.server.swap == "never"
        or not can_be_versions(scenario.served)
    ):
        return None
    folders = VersionFolders((run.path / VERSIONS).resolve(), scenario.served)
    return ServerKeeper(
        cold=launcher,
        warm=replace(
            launcher, scenario=kept_scenario(scenario, folders, elsewhere=elsewhere(launcher))
        ),
        folders=folders,
        timeout_s=scenario.server.start_timeout_s,
        notify=notify,
    )


def elsewhere(launcher: AnyLauncher) -> bool:
    """Whether the servers run on another host."""
    return isinstance(launcher, DockerLauncher) and not launcher.engine.local


def placement_of(scenario: Scenario) -> Placement:
    """Which processors both sides get; the server's are its engine's, where that is remote.

    Raises ScenarioError for processors that there are not, HostError where no engine answers.
    """
    processors = None
    if scenario.server.launcher == "docker" and address().startswith(SCHEME):
        with closing(connect()) as engine:
            processors = engine.cpus
    return place(scenario.server.cpus, scenario.load.cpus, elsewhere=processors)


def launcher_of(
    scenario: Scenario, placement: Placement, notify: Callable[[str], None]
) -> AnyLauncher:
    """Choose the scenario's way of running the server. Raises HostError where there is none."""
    if running(scenario):
        return RunningLauncher(scenario)
    if scenario.server.launcher == "docker":
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
