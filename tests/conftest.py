"""Fixtures that several test modules share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.builtin import ensure

TRIES = 3
"""For tests of what a machine does in time, which others' machines on the same host disturb."""


def pytest_collection_modifyitems(items):
    """Judge such a test by its best try; the summary names each that needed more than one."""
    for item in items:
        if any(item.get_closest_marker(mark) for mark in ("alone", "browser", "docker")):
            item.add_marker(pytest.mark.flaky(reruns=TRIES - 1))


@pytest.fixture(scope="session")
def dense_model(tmp_path_factory) -> Path:
    """The quickstart's network, exported once: seconds of TensorFlow, 70 MB."""
    path = tmp_path_factory.mktemp("models") / "dense-2048x4"
    ensure("dense-2048x4", path, lambda _text: None)
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """SavedModels written by TensorFlow itself: affine (versions 1, 2), lengths, vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).with_name("export_models.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def docker_engine():
    """A real Docker Engine that has the tests' images, or a skip that says why there is none."""
    from containers import engine_or_why_not  # noqa: PLC0415 - the docker package takes a moment

    engine = engine_or_why_not()
    if isinstance(engine, str):
        pytest.skip(engine)
    yield engine
    engine.client.close()


@pytest.fixture(scope="session", autouse=True)
def cache_of_our_own(tmp_path_factory):
    """What tests keep for this machine (calibrations) is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
