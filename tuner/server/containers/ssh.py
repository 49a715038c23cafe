"""The host of an engine that is reached over ssh, and tunnels to it.

Nothing is opened to the network: the engine's socket and the ports that containers publish on
that host's 127.0.0.1 are carried through ssh, each tunnel a process that dies with the tuner.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tuner.clock import NS_PER_S, now_ns
from tuner.errors import HostError
from tuner.server import guarded
from tuner.server.ports import free_ports, listens

SCHEME = "ssh://"
SOCKET = "/var/run/docker.sock"
CONNECT_S = 30
POLL_S = 0.02

OPTIONS = (
    "BatchMode=yes",  # there is nobody to ask for a password
    "ExitOnForwardFailure=yes",
    "ControlPath=none",  # what is measured shares no connection with anything else
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    f"ConnectTimeout={CONNECT_S}",
)


@dataclass(frozen=True, slots=True)
class Remote:
    """Whom ssh asks for, and where the engine's socket lies there."""

    destination: str
    port: int | None = None
    socket: str = SOCKET

    @classmethod
    def of(cls, where: str) -> Self:
        """Read `ssh://[USER@]HOST[:PORT][/PATH/OF/THE.SOCK]`. Raises HostError."""
        try:
            url = urlsplit(where)
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if host is None or url.password or host.startswith("-"):
            raise HostError(
                f"{where}: this names no host",
                hint="write ssh://USER@HOST, or ssh://USER@HOST:PORT",
            )
        user = f"{url.username}@" if url.username else ""
        path = url.path if url.path not in {"", "/"} else SOCKET
        return cls(f"{user}{host}", port, path)

    @property
    def where(self) -> str:
        """Words for reports and errors."""
        return f"{SCHEME}{self.destination}{'' if self.port is None else f':{self.port}'}"

    def argv(self, forwards: Sequence[str]) -> list[str]:
        """The ssh command that forwards and does nothing else."""
        options = [word for option in OPTIONS for word in ("-o", option)]
        carried = [word for forward in forwards for word in ("-L", forward)]
        port = [] if self.port is None else ["-p", str(self.port)]
        return ["ssh", "-N", "-T", *options, *carried, *port, "--", self.destination]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A running ssh, whose forwards work. To be closed."""

    remote: Remote
    process: "subprocess.Popen[bytes]"
    said: Path
    stack: ExitStack

    def check(self) -> None:
        """Raise HostError where it has ended."""
        if self.process.poll() is not None:
            raise _ended(self.remote, self.said)

    def close(self) -> None:
        """End it."""
        self.stack.close()


def to_socket(remote: Remote) -> tuple[Tunnel, Path]:
    """Carry the engine's socket here. Returns the tunnel and the socket's path on this host.

    Raises HostError where ssh cannot connect.
    """
    with ExitStack() as stack:
        # A socket's path must be short, and nobody else's business.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-")))
        path = folder / "engine.sock"
        tunnel = _open(remote, [f"{path}:{remote.socket}"], path.exists, folder, stack)
        return tunnel, path


def to_ports(remote: Remote, ports: Sequence[int]) -> tuple[Tunnel, tuple[int, ...]]:
    """Carry ports of the remote 127.0.0.1 here. Returns the tunnel and their numbers here."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-")))
        here = free_ports(len(ports))
        forwards = [
            f"127.0.0.1:{own}:127.0.0.1:{theirs}" for own, theirs in zip(here, ports, strict=True)
        ]
        tunnel = _open(remote, forwards, lambda: all(map(listens, here)), folder, stack)
        return tunnel, here


def _open(
    remote: Remote,
    forwards: Sequence[str],
    ready: Callable[[], bool],
    folder: Path,
    stack: ExitStack,
) -> Tunnel:
    if shutil.which("ssh") is None:
        raise HostError(
            f"{remote.where}: there is no ssh on this host",
            hint="install it (on Debian the package openssh-client)",
        )
    said = folder / "ssh.log"
    with said.open("wb") as output:
        process = guarded.start(remote.argv(forwards), output)
    stack.callback(guarded.stop, process)
    deadline_ns = now_ns() + CONNECT_S * NS_PER_S
    while not ready():
        if process.poll() is not None or now_ns() > deadline_ns:
            raise _ended(remote, said)
        time.sleep(POLL_S)
    return Tunnel(remote, process, said, stack.pop_all())


def _ended(remote: Remote, said: Path) -> HostError:
    try:
        text = " ".join(said.read_text(errors="replace").split())
    except OSError:
        text = ""
    return HostError(
        f"{remote.where}: the ssh tunnel is not there: {text or 'ssh says nothing'}",
        hint=f"see that `ssh {remote.destination} docker version` works without a password; a run "
        "that was stopped can be resumed",
    )
