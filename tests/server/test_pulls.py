"""Images from a real registry, which Debian's docker-registry serves on this host."""

import io
import os
import re
import secrets
import shutil
import socket
import subprocess
import tarfile
import time
from dataclasses import dataclass

import pytest

from tuner.errors import HostError
from tuner.server.containers import images

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LAYERS, LAYER_BYTES = 2, 4 << 20
PATIENCE_S = 20.0

CONFIG = """
version: 0.1
log: {{ level: error }}
storage: {{ filesystem: {{ rootdirectory: {folder}/data }} }}
http: {{ addr: "127.0.0.1:{port}" }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The address of a registry of our own."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("there is no registry: install Debian's docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    port = free_port()
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    deadline = time.monotonic() + PATIENCE_S
    while not answers(port):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


@dataclass
class Pushed:
    """An image that lies in a registry, and not on the engine."""

    repository: str
    digest: str

    @property
    def name(self):
        return f"{self.repository}:1"


@pytest.fixture
def pushed(docker_engine, registry):
    """An image whose layers do not shrink, so that there is something to pull."""
    client = docker_engine.client
    repository = f"{registry}/tuner-test/pulled-{secrets.token_hex(4)}"
    image, _ = client.images.build(fileobj=context(), custom_context=True, rm=True)
    image.tag(repository, "1")
    told = list(client.api.push(repository, tag="1", stream=True, decode=True))
    digest = next(line["aux"]["Digest"] for line in told if "aux" in line)
    client.images.remove(image.id, force=True)
    found = Pushed(repository, digest)
    yield found
    for name in (found.name, f"{repository}@{digest}"):
        if docker_engine.image(name) is not None:
            client.images.remove(name, force=True)


def context():
    """What is built: two layers of random bytes upon nothing."""
    files = {f"layer{number}": os.urandom(LAYER_BYTES) for number in range(LAYERS)}
    copies = "".join(f"COPY {name} /{name}\n" for name in files)
    files["Dockerfile"] = f"FROM scratch\n{copies}CMD ['x']\n".encode()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    data.seek(0)
    return data


def test_an_absent_image_is_pulled_with_progress(docker_engine, pushed):
    told = []
    image = images.find(docker_engine, pushed.name, told.append)
    assert docker_engine.image(pushed.name).id == image.id
    assert image.digest == pushed.digest
    assert told[0] == f"pulling {pushed.name}"
    total_mb = round(LAYERS * LAYER_BYTES / 1e6)
    bars = [re.search(r"\[(#* *)\] (\d+) of (\d+) MB$", line) for line in told[1:]]
    assert all(bars), told
    done = [int(bar[2]) for bar in bars]
    assert done == sorted(done)
    assert bars[-1][1] == "#" * images.BAR
    assert (done[-1], int(bars[-1][3])) == (total_mb, total_mb)


def test_an_image_that_is_there_is_not_pulled_again(docker_engine, pushed):
    images.find(docker_engine, pushed.name, lambda _text: None)
    told = []
    images.find(docker_engine, pushed.name, told.append)
    assert told == []


def test_an_image_is_pulled_by_its_digest(docker_engine, pushed):
    name = f"{pushed.repository}@{pushed.digest}"
    image = images.find(docker_engine, name, lambda _text: None)
    assert (image.name, image.digest) == (name, pushed.digest)


def test_a_tag_that_the_registry_has_not(docker_engine, registry):
    name = f"{registry}/tuner-test/servng:1"
    with pytest.raises(HostError) as caught:
        images.find(docker_engine, name, lambda _text: None)
    assert f'server.image: "{name}" is not on this engine' in caught.value.message
    assert re.search(r"not found|manifest unknown", caught.value.message)
    assert "correct the name" in caught.value.hint


def test_a_registry_that_does_not_answer(docker_engine):
    name = f"127.0.0.1:{free_port()}/tuner-test/x:1"
    with pytest.raises(HostError) as caught:
        images.find(docker_engine, name, lambda _text: None)
    assert "connection refused" in caught.value.message
    assert "docker load" in caught.value.hint
