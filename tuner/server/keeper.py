"""A server that lives on from one trial to the next and takes up configurations by hot swap.

Only a change of `num_batch_threads`, or of a flag, needs a restart. What a start and a swap cost
is measured, and swaps go on only while they are the cheaper of the two.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import CandidateError, HostError, disk
from tuner.records import Config, Endpoint, ServerIdentity
from tuner.scenario import Scenario
from tuner.server.launcher import Launcher, Server, log_tail
from tuner.server.versions import VersionFolders, look

PER_MODEL = "enable_per_model_batching_parameters"
POLLING = "file_system_poll_wait_seconds"
POLL_S = 0.02
LOG = "server.log"


@dataclass(frozen=True, slots=True)
class KeptServer:
    """A running server whose only version is the configuration of one trial."""

    endpoint: Endpoint
    server: Server

    def check(self) -> None:
        """See `Server.check`."""
        self.server.check()

    def scrape(self) -> str | None:
        """See `Server.scrape`."""
        return self.server.scrape()

    def show(self, folders: Sequence[Path]) -> None:
        """See `Server.show`."""
        self.server.show(folders)


@dataclass(slots=True)
class _Kept:
    """The server that lives on: what it was started with, and which version it holds."""

    server: Server
    stack: ExitStack
    key: object
    version: int
    log: Path
    logged: int = 0


@dataclass(slots=True)
class ServerKeeper:
    """Implements `Keeper`: `cold` starts a server a trial, `warm` the one that lives on.

    `warm` serves the base paths of `folders`, with per-model batching parameters; see
    `kept_scenario`.
    """

    cold: Launcher
    warm: Launcher
    folders: VersionFolders
    timeout_s: float
    notify: Callable[[str], None]
    starts_s: list[float] = field(default_factory=list)
    swaps_s: list[float] = field(default_factory=list)
    _kept: _Kept | None = None
    _version: int = 0
    _able: bool = True

    def identify(self) -> ServerIdentity:
        """See `Launcher.identify`."""
        return self.cold.identify()

    @contextmanager
    def launch(self, config: Config, folder: Path) -> Iterator[Server]:
        """See `Launcher.launch`; the server may be one that has served other trials."""
        server = self._taken_up(config, folder)
        if server is None:
            self.close()
            with self.cold.launch(config, folder) as started:
                yield started
            return
        try:
            yield server
        except BaseException:
            self.close()
            raise
        finally:
            self._keep_log(folder)

    def close(self) -> None:
        """Stop the server that lives on, and remove its versions."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            kept.stack.close()
        self.folders.clear()

    @property
    def worth_it(self) -> bool:
        """Whether swaps have cost less than starts so far; they get one chance."""
        if not self._able or not self.swaps_s:
            return self._able
        return median(self.swaps_s) < median(self.starts_s)

    def _taken_up(self, config: Config, folder: Path) -> Server | None:
        """Bring a server to this configuration; None where it has to start cold."""
        if config.batching is None or not self.worth_it:
            return None
        config.batching.check()
        if self._kept is not None and self._kept.key == restart_key(config):
            return self._swap(self._kept, config, folder)
        try:
            return self._start(config, folder)
        except HostError as error:
            if PER_MODEL not in error.message:
                raise
            self._able = False
            self.notify("this server is older than 2.11: every trial starts its own")
            return None

    def _start(self, config: Config, folder: Path) -> Server:
        began_ns = now_ns()
        self.close()
        version = self._publish(config)
        with ExitStack() as stack:
            server = stack.enter_context(self.warm.launch(config, folder))
            self.starts_s.append((now_ns() - began_ns) / NS_PER_S)
            log = folder / LOG
            self._kept = _Kept(server, stack.pop_all(), restart_key(config), version, log)
        return KeptServer(replace(server.endpoint, version=version), server)

    def _swap(self, kept: _Kept, config: Config, folder: Path) -> Server:
        began_ns = now_ns()
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "batching_parameters.txt").write_text(_parameters(config))
            kept.logged = kept.log.stat().st_size
        version = self._publish(config)
        try:
            kept.server.show(self.folders.of(version))
            self._await(kept, version)
        except BaseException:
            self._keep_log(folder)
            self.close()
            raise
        self.folders.remove(kept.version)
        kept.version = version
        swap_s = (now_ns() - began_ns) / NS_PER_S
        self.swaps_s.append(swap_s)
        endpoint = replace(kept.server.endpoint, version=version, start_s=swap_s, swapped=True)
        return KeptServer(endpoint, kept.server)

    def _publish(self, config: Config) -> int:
        """Make a version of a number that no server has seen: one that failed is not retried."""
        self._version += 1
        self.folders.publish(self._version, _parameters(config))
        return self._version

    def _await(self, kept: _Kept, version: int) -> None:
        """Wait until the version serves alone. Raises CandidateError where it does not."""
        port = urlsplit(kept.server.endpoint.metrics_url or "").port
        assert port is not None
        deadline_ns = now_ns() + int(self.timeout_s * NS_PER_S)
        while now_ns() < deadline_ns:
            kept.server.check()
            found = look(port, self.folders.models, version)
            if found.failed:
                raise CandidateError(
                    f"the server refused the configuration: {found.failed}",
                    hint=f"its output is in {kept.log}",
                    log_tail=log_tail(kept.log),
                )
            if found.alone:
                return
            time.sleep(POLL_S)
        raise CandidateError(
            f"the server did not take up the configuration within {self.timeout_s:g} s",
            hint="raise server.start_timeout_s, or look into its log for what it waits for",
            log_tail=log_tail(kept.log),
        )

    def _keep_log(self, folder: Path) -> None:
        """Give a trial its part of the log of a server that another trial had started."""
        kept = self._kept
        if kept is None or kept.log == folder / LOG:
            return
        with suppress(OSError), kept.log.open("rb") as log:
            log.seek(kept.logged)
            (folder / LOG).write_bytes(log.read())


def restart_key(config: Config) -> object:
    """What a server cannot change while it runs: batch threads and flags."""
    threads = None if config.batching is None else config.batching.num_batch_threads
    return threads, config.flags


def kept_scenario(
    scenario: Scenario, folders: VersionFolders, *, elsewhere: bool = False
) -> Scenario:
    """The scenario of the server that lives on.

    Its base paths are the tuner's, which it polls every second, the least there is. A container
    sees where the links lead: mounts of this host, or copies where it runs `elsewhere`.
    """
    models = tuple(
        model.model_copy(update={"path": folders.base(model.servable), "name": model.servable})
        for model in scenario.models
    )
    server = scenario.server
    given = {**server.flags, PER_MODEL: True, POLLING: 1}
    sources = () if elsewhere else tuple(f"{path}:{path}" for path in folders.sources())
    server = server.model_copy(update={"flags": given, "mounts": (*server.mounts, *sources)})
    return scenario.model_copy(update={"models": models, "server": server})


def _parameters(config: Config) -> str:
    assert config.batching is not None
    return config.batching.to_text()
