"""The Docker Engine: which one, whether it answers, and what its refusals mean.

Every error of the docker package and of its transport enters here, and nowhere else.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.context import ContextAPI
from docker.errors import (
    APIError,
    DockerException,
    ImageNotFound,
    InvalidVersion,
    TLSParameterError,
)
from docker.models.images import Image
from docker.utils import kwargs_from_env

from tuner.errors import HostError
from tuner.server.containers.ssh import SCHEME, Remote, Tunnel, to_socket
from tuner.server.known import ENGINE, named, recognise

TIMEOUT_S = 60
"""How long the engine may think about one request."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answered. `local` says that it runs on this host, with our own paths.

    `remote` is its host where ssh reaches it, through `tunnel`.
    """

    client: docker.DockerClient
    where: str
    version: str
    api: tuple[int, int]
    local: bool
    rootless: bool
    cpus: int
    remote: Remote | None = None
    tunnel: Tunnel | None = None

    def close(self) -> None:
        """End the connection."""
        self.client.close()
        if self.tunnel is not None:
            self.tunnel.close()

    def require_api(self, needed: tuple[int, int], key: str) -> None:
        """Raise HostError where the engine is too old for what a scenario's key asks."""
        if self.api < needed:
            shown = ".".join(map(str, needed))
            raise HostError(
                f"server.{key}: Docker Engine {self.version} is too old for it (it needs API "
                f"{shown})",
                hint=f"update the engine, or remove server.{key}",
            )

    def image(self, name: str) -> Image | None:
        """Find an image by name; None where the engine lacks it. Raises HostError."""
        with mapped(self.where), suppress(ImageNotFound):
            return self.client.images.get(name)
        return None


def connect() -> Engine:
    """Reach the engine that the docker command would use: DOCKER_HOST, or the current context.

    Raises HostError where none answers.
    """
    where = address()
    remote, tunnel, base_url = None, None, None
    if where.startswith(SCHEME):
        remote = Remote.of(where)
        tunnel, socket = to_socket(remote)
        base_url = f"unix://{socket}"
    try:
        with mapped(where):
            client = _client() if base_url is None else _plain_client(base_url)
            told = client.version()
            info = client.info()
    except BaseException:
        if tunnel is not None:
            tunnel.close()
        raise
    major, minor = told["ApiVersion"].split(".")
    return Engine(
        client=client,
        where=where,
        version=told["Version"],
        api=(int(major), int(minor)),
        local=where.startswith("unix://"),
        rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
        cpus=int(info["NCPU"]),
        remote=remote,
        tunnel=tunnel,
    )


@contextmanager
def mapped(where: str = "the Docker Engine") -> Iterator[None]:
    """Map what the engine refuses, and its absence, to HostError."""
    try:
        yield
    except TLSParameterError as error:
        raise HostError(
            f"{where}: its TLS settings cannot be used: {str(error).splitlines()[0]}",
            hint="correct DOCKER_CERT_PATH and DOCKER_TLS_VERIFY, or the docker context",
        ) from None
    except InvalidVersion as error:
        raise HostError(
            f"{where}: the engine is too old: {' '.join(str(error).split())}",
            hint="update the engine, for GPUs to Docker 19.03 or newer",
        ) from None
    except (DockerException, requests.exceptions.RequestException, OSError, ValueError) as error:
        raise _host_error(where, error) from None


def _host_error(where: str, error: BaseException) -> HostError:
    if isinstance(error.__cause__, APIError):  # wrapped where the first request was refused
        error = error.__cause__
    text = " ".join(str(getattr(error, "explanation", None) or error).split())
    answered = getattr(error, "response", None) is not None
    return _refusal(text) if answered else _silence(where, text)


def _refusal(text: str) -> HostError:
    """The error for an engine that said no."""
    if "No such container" in text:
        return HostError(
            "the server's container was removed by somebody else",
            hint="leave containers labelled tuner.run alone; the run can be resumed",
        )
    known = recognise(text, ENGINE)
    if known is None and "permission denied" in text.lower():
        return HostError(
            f"Docker refuses: {text}", hint="see that the engine may read what is mounted"
        )
    return HostError(
        f"Docker refuses: {text}", hint="see the engine's log" if known is None else known.remedy
    )


def _silence(where: str, text: str) -> HostError:
    """The error for an engine that is out of reach."""
    if "Permission denied" in text or "PermissionError" in text:
        return HostError(
            f"{where}: no permission to talk to the Docker Engine",
            hint=named("engine-permission").remedy,
        )
    return HostError(f"{where}: no Docker Engine answers", hint=named("engine").remedy)


def _client() -> docker.DockerClient:
    if os.environ.get("DOCKER_HOST"):
        return docker.DockerClient(version="auto", timeout=TIMEOUT_S, **kwargs_from_env())
    name = _context_name()
    if name == "default":
        return _plain_client(None)
    context = _context(name)
    return docker.DockerClient(
        base_url=context.Host, tls=context.TLSConfig or False, version="auto", timeout=TIMEOUT_S
    )


def _plain_client(base_url: str | None) -> docker.DockerClient:
    return docker.DockerClient(base_url=base_url, version="auto", timeout=TIMEOUT_S)


def address() -> str:
    """Where the docker command would look for its engine. Raises HostError."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    name = _context_name()
    if name == "default":
        return "unix:///var/run/docker.sock"
    return str(_context(name).Host)


def _context(name: str) -> "docker.context.Context":
    context = ContextAPI.get_context(name)
    if context is None:
        raise HostError(
            f"docker context {name!r}: there is none of this name",
            hint="see: docker context ls; choose one with DOCKER_CONTEXT",
        )
    return context


def _context_name() -> str:
    """The context that the docker command would use."""
    if name := os.environ.get("DOCKER_CONTEXT"):
        return name
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        chosen = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "default"
    return str(chosen.get("currentContext") or "default")
