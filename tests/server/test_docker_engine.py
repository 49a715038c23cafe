"""Which engine is asked, and what its silence and its refusals mean. No engine is needed."""

import gc
import hashlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from tuner.errors import HostError
from tuner.server.containers import images
from tuner.server.containers.ending import ending
from tuner.server.containers.engine import Engine, connect, mapped
from tuner.server.containers.gpus import gpu_names
from tuner.server.containers.images import Progress
from tuner.server.containers.launcher import open_docker

# The docker package leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """No setting of this machine's user counts."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    yield
    gc.collect()


@pytest.fixture
def silent(tmp_path):
    """A socket path that nobody listens on."""
    return f"unix://{tmp_path}/docker.sock"


def refused():
    with pytest.raises(HostError) as caught:
        connect()
    return caught.value


def test_no_engine(monkeypatch, silent):
    monkeypatch.setenv("DOCKER_HOST", silent)
    error = refused()
    assert error.message == f"{silent}: no Docker Engine answers"
    assert "systemctl start docker" in error.hint


def test_a_socket_that_may_not_be_used(monkeypatch, silent):
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    path = silent.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        Path(path).chmod(0o600)
        monkeypatch.setenv("DOCKER_HOST", silent)
        os.seteuid(65534)
        try:
            error = refused()
        finally:
            os.seteuid(0)
    assert "no permission to talk to the Docker Engine" in error.message
    assert "usermod -aG docker" in error.hint


def context(folder, name, host):
    meta = folder / "docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    (meta / "meta.json").write_text(
        json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}})
    )


@pytest.mark.parametrize("chosen_by", ["config", "environment"])
def test_the_context_in_use_is_asked(monkeypatch, tmp_path, silent, chosen_by):
    context(tmp_path, "elsewhere", silent)
    current = {"currentContext": "elsewhere"} if chosen_by == "config" else {}
    (tmp_path / "docker" / "config.json").write_text(json.dumps(current))
    if chosen_by == "environment":
        monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    assert refused().message == f"{silent}: no Docker Engine answers"


def test_docker_host_goes_before_the_context(monkeypatch, tmp_path, silent):
    context(tmp_path, "elsewhere", "unix:///nowhere/docker.sock")
    (tmp_path / "docker" / "config.json").write_text('{"currentContext": "elsewhere"}')
    monkeypatch.setenv("DOCKER_HOST", silent)
    assert refused().message.startswith(silent)


def test_an_engine_on_another_host_is_not_measured(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        replies = [
            b'{"ApiVersion": "1.41", "Version": "20.10.24"}',
            b'{"ApiVersion": "1.41", "Version": "20.10.24"}',
            b'{"NCPU": 2, "SecurityOptions": []}',
        ]

        def answer():
            connection, _ = listener.accept()
            with connection:
                for body in replies:
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                    )

        threading.Thread(target=answer, daemon=True).start()
        where = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("DOCKER_HOST", where)
        with pytest.raises(HostError) as caught:
            open_docker(None, None, lambda _text: None)
    assert caught.value.message.startswith(f"{where}: the engine is on another host")
    assert "run tuner on that host" in caught.value.hint


def test_a_context_that_does_not_exist(monkeypatch, tmp_path):
    (tmp_path / "docker" / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewere")
    error = refused()
    assert "docker context 'elsewere'" in error.message
    assert "docker context ls" in error.hint


@pytest.fixture
def engine_that_says(tmp_path, monkeypatch):
    """Something that answers as an engine does, with one refusal to everything."""
    listener = socket.socket(socket.AF_UNIX)
    path = tmp_path / "says.sock"
    listener.bind(str(path))
    listener.listen()

    def serve(text):
        body = json.dumps({"message": text}).encode()
        head = (
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head.encode() + body)

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")

    yield serve
    listener.close()


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            'could not select device driver "" with capabilities: [[gpu]]',
            "install the NVIDIA container toolkit",
        ),
        ("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.5", "CUDA"),
        (
            "driver failed programming external connectivity on endpoint x: Error starting "
            "userland proxy: listen tcp4 127.0.0.1:8500: bind: address already in use",
            "ip_local_port_range",
        ),
        (
            "driver failed programming external connectivity: all ports are allocated",
            "ip_local_port_range",
        ),
        ("write /var/lib/docker/tmp/x: no space left on device", "make room"),
        ("Requested CPUs are not available - requested 7, available: 0-1", "server.cpus"),
        ("what nobody has seen before", "the engine's log"),
    ],
)
def test_a_refusal_is_quoted_with_its_remedy(engine_that_says, text, remedy):
    engine_that_says(text)
    error = refused()
    assert text in error.message
    assert remedy in error.hint


def test_what_is_no_error_of_the_engine_passes():
    with pytest.raises(ZeroDivisionError), mapped():
        _ = 1 / 0


def test_an_engine_too_old_to_be_spoken_to(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                body = b'{"ApiVersion": "1.20", "Version": "1.8.0"}'
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        error = refused()
    assert "the engine is too old" in error.message
    assert "update the engine" in error.hint


def test_an_engine_too_old_for_a_key():
    engine = Engine(None, "unix:///x", "18.09.1", (1, 39), True, False, 2)
    with pytest.raises(HostError, match=r"server\.gpus: Docker Engine 18\.09\.1 is too old"):
        engine.require_api((1, 40), "gpus")
    engine.require_api((1, 39), "gpus")


def test_a_pull_shows_how_far_it_is():
    progress = Progress("some/image:1")
    progress.told(
        {"id": "a", "status": "Downloading", "progressDetail": {"current": 5e6, "total": 10e6}}
    )
    line = progress.told(
        {"id": "b", "status": "Downloading", "progressDetail": {"current": 0, "total": 10e6}}
    )
    assert line == "pulling some/image:1 [######                  ] 5 of 20 MB"
    line = progress.told({"id": "a", "status": "Download complete"})
    assert line.endswith("10 of 20 MB")


def test_of_an_images_digests_that_of_the_repository_asked_for_counts():
    digests = ["other/place@sha256:0", "127.0.0.1:5000/some/image@sha256:1"]
    assert images.digest_of(digests, "127.0.0.1:5000/some/image:2", "own") == "sha256:1"
    assert images.digest_of(digests, "a/third", "own") == "sha256:0"
    assert images.digest_of([], "a/third", "own") == "own"


@pytest.mark.parametrize(
    ("state", "grown", "text", "outside"),
    [
        ({"ExitCode": 139}, False, "killed by SIGSEGV", False),
        ({"ExitCode": 255}, False, "exit code 255", False),
        ({"ExitCode": 137}, False, "killed by SIGKILL", True),
        ({"ExitCode": 143}, False, "killed by SIGTERM", True),
        ({"ExitCode": 137}, True, "killed by the kernel: this host ran out of memory", False),
        (
            {"ExitCode": 137, "OOMKilled": True},
            True,
            "killed: it needed more memory than server.memory allows",
            False,
        ),
    ],
)
def test_how_a_container_ended(state, grown, text, outside):
    found = ending({"Status": "exited", "Running": False} | state, grown=grown)
    assert found.text == text
    assert found.from_outside == outside


def test_a_running_container_has_not_ended():
    assert ending({"Status": "running", "Running": True, "ExitCode": 0}, grown=False) is None


def test_the_gpus_of_a_host(tmp_path):
    for bus, model in (("0000:01:00.0", "NVIDIA A"), ("0000:02:00.0", "NVIDIA B")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 17\n")
    assert gpu_names(tmp_path) == ("NVIDIA A", "NVIDIA B")
    assert gpu_names(tmp_path / "none") == ()
