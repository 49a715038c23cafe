"""Starts TensorFlow Serving in a container, and leaves none behind."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from docker.models.containers import Container

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import CandidateError, HostError, TunerError, disk
from tuner.records import Config, Endpoint, ServerIdentity
from tuner.scenario import Scenario
from tuner.server import flags
from tuner.server.containers import images
from tuner.server.containers.copies import Copies, Entry, copy_models, put, tree
from tuner.server.containers.ending import Ending, oom_kills
from tuner.server.containers.engine import Engine, connect, mapped
from tuner.server.containers.gpus import gpu_names
from tuner.server.containers.images import Image
from tuner.server.containers.owner import Owner, remove_orphans
from tuner.server.containers.request import (
    GRPC_PORT,
    REST_PORT,
    container_request,
    volumes_of,
)
from tuner.server.containers.running import (
    Log,
    RunningContainer,
    ended,
    followed,
    stopped_from_outside,
)
from tuner.server.containers.ssh import Tunnel, to_ports
from tuner.server.launcher import Server, log_tail
from tuner.server.readiness import Ports, await_ready, start_failure

POLL_S = 0.05
"""Between two looks at a container that starts: each asks the engine."""

VERSION_S = 120.0


@dataclass(frozen=True, slots=True)
class DockerLauncher:
    """Starts `image` on `engine` with TensorFlow Serving's flags.

    `copies` are the models on the engine's host, where that is another.
    """

    scenario: Scenario
    engine: Engine
    image: Image
    owner: Owner
    cpus: frozenset[int] | None = None
    copies: Copies | None = None

    def close(self) -> None:
        """See `Launcher.close`."""
        if self.copies is not None:
            self.copies.close(self.engine)
        self.engine.close()

    def identify(self) -> ServerIdentity:
        """Name the image, what it holds, the engine and the GPUs.

        The image is started for it as every trial will be, so what the engine refuses is known
        before the night.
        """
        return ServerIdentity(
            launcher="docker",
            version=self._version(),
            image=self.image.name,
            digest=self.image.digest,
            engine=f"Docker {self.engine.version}",
            gpus=gpu_names() if self.engine.local and self.scenario.server.gpus else (),
            through=""
            if self.engine.remote is None
            else f"an ssh tunnel to {self.engine.remote.destination}",
        )

    @contextmanager
    def launch(self, config: Config, folder: Path) -> Iterator[Server]:
        """Start, wait until ready, yield, and remove. See `Launcher.launch`."""
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files = flags.write_files(self.scenario, config, folder)
        inner = (int(port.partition("/")[0]) for port in (GRPC_PORT, REST_PORT))
        given = flags.server_flags(
            self.scenario, config, files, port=next(inner), rest_port=next(inner)
        )
        started_ns, oom_before = now_ns(), oom_kills()
        with (
            self._container(flags.argv(given), folder, files=files) as container,
            followed(container, folder / "server.log") as log,
            self._reached(self._published(container, config, log)) as (ports, tunnel),
        ):

            def over() -> TunerError | None:
                found = ended(container, self.engine, oom_before)
                return None if found is None else self._start_failure(found, log, config)

            await_ready(
                ports,
                log.path,
                over,
                timeout_s=self.scenario.server.start_timeout_s,
                poll_s=POLL_S,
            )
            endpoint = Endpoint(
                address=ports.address,
                metrics_url=ports.metrics_url,
                pid=_pid(container, self.engine),
                start_s=(now_ns() - started_ns) / NS_PER_S,
                flags=tuple(given.items()),
                relays=_relays(ports) if self.engine.local else (),
            )
            yield RunningContainer(
                endpoint,
                container,
                self.engine,
                ports,
                log,
                oom_before,
                self.scenario.server.memory,
                tunnel,
            )

    @contextmanager
    def _container(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        files: flags.Files | None = None,
        **changes: Any,
    ) -> Iterator[Container]:
        """Create and start a container that is gone when the block ends, however it ends.

        On another host it is given `files`, which lie in `folder`, and what else it has to read.
        """
        name = f"tuner-{secrets.token_hex(6)}"
        request = container_request(
            self.scenario,
            self.engine,
            self.image,
            arguments=arguments,
            folders=(folder,),
            labels=self.owner.labels(str(folder.parent.parent), folder.name),
            cpus=self.cpus,
            copies=self.copies,
        )
        try:
            with mapped(self.engine.where):
                container = self.engine.client.containers.create(name=name, **request | changes)
            if files is not None and not self.engine.local:
                self._fill(container, folder, files)
            with mapped(self.engine.where):
                container.start()
            yield container
        finally:
            # By name: what interrupts a call to the engine does not stop the engine.
            with suppress(HostError), mapped(self.engine.where):
                self.engine.client.api.remove_container(name, force=True, v=True)

    def _fill(self, container: Container, folder: Path, files: flags.Files) -> None:
        """Put what a server reads into its own volumes, on a host that has none of it."""
        for path in volumes_of(self.scenario, [folder], self.copies):
            entries = (
                [
                    Entry(file.name, source=file, size=file.stat().st_size)
                    for file in (files.batching, files.monitoring, files.models)
                    if file is not None
                ]
                if path == folder
                else tree(path, follow=False)
            )
            put(self.engine, container, path, entries)

    @contextmanager
    def _reached(self, published: Ports) -> Iterator[tuple[Ports, Tunnel | None]]:
        """Where published ports are reached from this host: there, or through a tunnel."""
        if self.engine.remote is None:
            yield published, None
            return
        tunnel, here = to_ports(self.engine.remote, (published.grpc, published.rest))
        with closing(tunnel):
            yield Ports(*here), tunnel

    def _published(self, container: Container, config: Config, log: Log) -> Ports:
        """Read back which ports of 127.0.0.1 the engine chose."""
        with mapped(self.engine.where):
            container.reload()
        given = container.attrs["NetworkSettings"]["Ports"]
        try:
            numbers = (int(given[port][0]["HostPort"]) for port in (GRPC_PORT, REST_PORT))
            return Ports(*numbers)
        except (KeyError, IndexError, TypeError):  # it has ended already and publishes nothing
            found = ended(container, self.engine, oom_kills())
        if found is not None:
            raise self._start_failure(found, log, config)
        raise HostError(
            "the engine published no port on 127.0.0.1",
            hint="see that its networks work: docker run -p 127.0.0.1::80 IMAGE",
        )

    def _start_failure(self, found: Ending, log: Log, config: Config) -> TunerError:
        log.wait()
        if found.from_outside:
            return stopped_from_outside(found)
        if found.never_began:
            return no_server(self.image, log_tail(log.path))
        if "Read-only file system" in log_tail(log.path):
            return HostError(
                "the server cannot write where it wants to: its root is read-only",
                hint='set server.root = "writable"',
            )
        if hint := found.hint(self.scenario.server.memory):
            return CandidateError(
                f"the server exited before it was ready ({found.text})",
                hint=hint,
                log_tail=log_tail(log.path),
            )
        return start_failure(found.signed, log.path, config)

    def _version(self) -> str:
        """Ask the image's server for its version, `TensorFlow ModelServer: 2.19.0`."""
        folder = self.scenario.served[0].path
        with self._container(["--version"], folder, ports={}) as container:
            with mapped(self.engine.where):
                container.wait(timeout=VERSION_S)
                said = container.logs().decode("utf-8", "replace")
            found = ended(container, self.engine, oom_kills())
        if found is not None and found.never_began:
            raise no_server(self.image, said)
        lines = said.splitlines()
        return next((line.strip() for line in lines if "ModelServer" in line), "unknown version")


def open_docker(
    scenario: Scenario, cpus: frozenset[int] | None, notify: Callable[[str], None]
) -> DockerLauncher:
    """Reach the engine, clear what dead runs left on it, and see that it has the image.

    Raises HostError where there is no engine, or no image.
    """
    engine = connect()
    try:
        require_reachable(engine)
        owner = Owner.this_process()
        for orphan in remove_orphans(engine, owner):
            notify(f"removed the container of a run that has ended: {orphan}")
        image = images.find(engine, scenario.server.image, notify)
        if engine.local:
            return DockerLauncher(scenario, engine, image, owner, cpus)
        labels = owner.labels("models copied to the engine's host", "none")
        copies = copy_models(engine, image, scenario.served, labels, notify)
    except BaseException:
        engine.close()
        raise
    named = None if scenario.server.cpus in {"auto", "all"} else cpus
    return DockerLauncher(scenario, engine, image, owner, named, copies)


def require_reachable(engine: Engine) -> None:
    """Raise HostError for an engine whose containers' ports cannot be reached from here."""
    if not engine.local and engine.remote is None:
        raise HostError(
            f"{engine.where}: the engine is on another host, containers publish on its 127.0.0.1 "
            "alone, and tcp:// carries nothing but the engine's own API",
            hint="name it ssh://USER@HOST instead (DOCKER_HOST, or docker context create), and "
            "ports and files go through ssh; or run tuner on that host",
        )


def no_server(image: Image, said: str) -> HostError:
    """The error for an image that cannot start what every trial starts."""
    return HostError(
        f'server.image: "{image.name}" cannot start tensorflow_model_server: {said.strip()}',
        hint="choose an image of TensorFlow Serving for this machine's processor",
    )


def _pid(container: Container, engine: Engine) -> int | None:
    """The server's process on this host; None where it is not to be seen from here."""
    pid = int(container.attrs["State"]["Pid"])
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
    except OSError:
        return None
    return pid if engine.local and str(container.id) in groups else None


def _relays(ports: Ports) -> tuple[int, ...]:
    """Docker's proxies of the published ports, whose work is the server's, not a stranger's."""
    wanted = {str(ports.grpc), str(ports.rest)}
    return tuple(
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "docker-proxy" and wanted & set(process.info["cmdline"] or ())
    )
