"""Real models, exported once by TensorFlow, and real server processes."""

import shutil

import pytest
from serving import Server


@pytest.fixture
def model_dir(exported, tmp_path):
    """Copy chosen versions of an exported model to a base path of the test's own."""

    def copy(name, *versions):
        base = tmp_path / name
        for version in versions or (1,):
            shutil.copytree(exported / name / str(version), base / str(version))
        return base

    return copy


@pytest.fixture
def batching_file(tmp_path):
    def write(text):
        path = tmp_path / "batching.txt"
        path.write_text(text)
        return f"--batching_parameters_file={path}"

    return write


@pytest.fixture
def launch(tmp_path):
    """Start servers that are killed when the test ends."""
    servers = []

    def start(*flags, ready=True):
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        server = Server(folder, flags)
        servers.append(server)
        if ready:
            server.wait_for("Entering the event loop")
        return server

    yield start
    for server in servers:
        server.close()
