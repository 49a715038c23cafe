"""A Docker Engine of a test's own, which may be killed: its network is a namespace of its own."""

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import docker

from tuner.server.containers.engine import Engine

PATIENCE_S = 40.0


class PrivateEngine:
    """Runs dockerd where nobody else's containers are. Needs root and Debian's docker.io."""

    def __init__(self) -> None:
        # A socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="tuner-engine-", dir="/tmp"))
        self.host = f"unix://{self.folder}/docker.sock"
        self._network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._daemon = None
        time.sleep(0.2)  # until the namespace is there
        subprocess.run(self.inside("ip", "link", "set", "lo", "up"), check=True)

    def inside(self, *argv: object) -> list[str]:
        """A command line that runs `argv` in the engine's network."""
        network = f"--net=/proc/{self._network.pid}/ns/net"
        return ["nsenter", network, *map(str, argv)]

    def start(self) -> Engine:
        """Start dockerd and wait until it answers."""
        argv = self.inside(
            "dockerd",
            f"--host={self.host}",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/docker.pid",
        )
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._daemon.poll() is None, (self.folder / "dockerd.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "dockerd.log").read_text()
            time.sleep(0.1)
        client = docker.DockerClient(base_url=self.host, version="1.41")
        return Engine(client, self.host, "test", (1, 41), True, False, 2)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.settimeout(2)
            connection.connect(f"{self.folder}/docker.sock")
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False

    def kill(self) -> None:
        """End dockerd as a crash does: containers live on, and nobody answers for them."""
        self._daemon.kill()
        self._daemon.wait()
        # A containerd that has ended, but that nobody has collected yet, would be waited for.
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
        (self.folder / "docker.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End dockerd as `systemctl stop docker` does: its containers end with it."""
        self._daemon.terminate()
        self._daemon.wait(PATIENCE_S)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._daemon is not None:
            if self._daemon.poll() is not None:
                self.start().client.close()  # what a crash left running is its to end
            self.stop()
        self._network.kill()
        self._network.wait()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in sorted((at for at in mounts if str(self.folder) in at), reverse=True):
            subprocess.run(["umount", "--lazy", place], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)
