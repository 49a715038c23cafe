"""Fixtures that several test modules share."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tuner.builtin import ensure


@pytest.fixture(scope="session")
def dense_model(tmp_path_factory) -> Path:
    """The quickstart's network, exported once: seconds of TensorFlow, 70 MB."""
    path = tmp_path_factory.mktemp("models") / "dense-2048x4"
    ensure("dense-2048x4", path, lambda _text: None)
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with 64 KiB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
