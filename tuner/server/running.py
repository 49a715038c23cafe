"""A server that somebody else runs: measured as it is, never started, stopped or changed."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tuner.errors import HostError, ScenarioError, disk
from tuner.records import Config, Endpoint, ServerIdentity
from tuner.scenario import Scenario, TlsSection
from tuner.server.launcher import Server
from tuner.server.readiness import fetch

CONNECT_S = 5.0
HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class AttachedServer:
    """A running server at its address."""

    endpoint: Endpoint

    def check(self) -> None:
        """Raise HostError where nobody accepts connections there."""
        address = self.endpoint.address
        try:
            _connect(address).close()
        except OSError as error:
            raise HostError(
                f"server.address: no connection to {address}: {error.strerror or error}",
                hint="is the server up, and may this host reach it?",
            ) from None

    def scrape(self) -> str | None:
        """Read the Prometheus page; None where none is named or it cannot be had just now."""
        if self.endpoint.metrics_url is None:
            return None
        url = urlsplit(self.endpoint.metrics_url)
        path = url.path + (f"?{url.query}" if url.query else "")
        return fetch(url.port or HTTP_PORT, path, host=url.hostname or "")

    def show(self, folders: Sequence[Path]) -> None:
        """See `Server.show`: it is given no configurations."""


@dataclass(frozen=True, slots=True)
class RunningLauncher:
    """Implements `Launcher` for `server.address`; launching is making sure that it is there."""

    scenario: Scenario

    def close(self) -> None:
        """See `Launcher.close`: it holds nothing."""

    def identify(self) -> ServerIdentity:
        """Name the server by its address. Raises ScenarioError for TLS files that are none."""
        asked = self.scenario.server
        if asked.tls is not None:
            check_tls(asked.tls)
        over = " over TLS" if asked.tls is not None else ""
        return ServerIdentity(launcher="running", version=f"{asked.address}{over}")

    @contextmanager
    def launch(self, config: Config, folder: Path) -> Iterator[Server]:  # noqa: ARG002
        """Yield the server as it is, whatever `config` says; see `Launcher.launch`."""
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
        asked = self.scenario.server
        server = AttachedServer(
            Endpoint(asked.address, asked.metrics_url or None, pid=None, start_s=0.0)
        )
        server.check()
        yield server


def check_tls(tls: TlsSection) -> None:
    """Read the files of `[server.tls]`. Raises ScenarioError for one that cannot be used."""
    if tls.ca is not None:
        with _naming("ca", tls.ca, "a PEM file of certificates"):
            ssl.create_default_context(cafile=tls.ca)
    if tls.client_cert is not None:
        with _naming("client_cert", tls.client_cert, "a certificate and its key, both in PEM"):
            ssl.create_default_context().load_cert_chain(tls.client_cert, tls.client_key)


@contextmanager
def _naming(key: str, path: Path, wanted: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        reason = error.reason or "it holds no certificate"
        raise ScenarioError(
            f"server.tls.{key}: {path}: not usable: {reason}", hint=f"name {wanted}"
        ) from None
    except OSError as error:
        raise ScenarioError(
            f"server.tls.{key}: {error.filename or path}: cannot be read: {error.strerror}",
            hint=f"name {wanted}",
        ) from None


def _connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        opened = socket.socket(socket.AF_UNIX)
        try:
            opened.connect(address.removeprefix("unix:").replace("//", "", 1))
        except OSError:
            opened.close()
            raise
        return opened
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S)
