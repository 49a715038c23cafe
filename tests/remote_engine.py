"""An engine behind a real sshd on 127.0.0.1, for which this host is another one."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

PATIENCE_S = 20.0

SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
"""

SSH = """#!/bin/sh
exec {ssh} -F none -i {folder}/key -o IdentitiesOnly=yes -o UserKnownHostsFile={folder}/known "$@"
"""


def why_not():
    """Why there can be no such engine here; empty where there can."""
    missing = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    if shutil.which("sshd") is None and not Path("/usr/sbin/sshd").exists():
        missing.append("sshd")
    return f"{missing[0]} is missing: install Debian's openssh-server" if missing else ""


class SshDaemon:
    """A real sshd with a key made for it. `ssh` in `folder`/bin, first on a PATH, reaches it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("key", "host_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        host_key = (folder / "host_key.pub").read_text()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        (folder / "sshd_config").write_text(SSHD.format(folder=folder, port=self.port))
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "ssh").write_text(SSH.format(folder=folder, ssh=shutil.which("ssh")))
        (binaries / "ssh").chmod(0o755)
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, gives up its rights
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        with (folder / "sshd.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self.process.poll() is None, (folder / "sshd.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def where(self, socket_path):
        return f"ssh://127.0.0.1:{self.port}{socket_path}"

    def close(self):
        self.process.terminate()
        self.process.wait()
