"""What a scenario says of the load reaches the load generator."""

from pathlib import Path

from tuner.load.client import Tls
from tuner.scenario import parse
from tuner.trial.asked import generator_for, tls_for

SHORTEST = 'name = "s"\n[model]\npath = "m"\n[slo]\np99_ms = 50\n'
RUNNING = '[server]\nlauncher = "running"\naddress = "h:1"\n'


def read(*lines):
    return parse("\n".join([SHORTEST, *lines]), Path("/s.toml"))


def settings(*lines, cpus=(0, 1)):
    made = generator_for(read(*lines), "h:1", Path("/pool"), cpus=frozenset(cpus))
    return made._settings


def test_what_is_not_said_has_a_default():
    (found,) = settings()
    assert found["engine"] == "http2"
    assert found["spin"] is False
    assert found["tls"] is None
    assert found["cpus"] == [0, 1]


def test_every_key_of_the_load_reaches_the_generator():
    first, second = settings(
        '[load]\nengine = "grpcio"\nspin = "spare"\nconnections = 3\nprocesses = 2\n'
        "deadline_ms = 250\n"
    )
    assert first["engine"] == "grpcio"
    assert first["spin"] is True
    assert first["connections"] == 3
    assert first["deadline_s"] == 0.25
    assert (first["cpus"], second["cpus"]) == ([0], [1])


def test_tls_reaches_it_too():
    tls = '[server.tls]\nca = "ca.pem"\nserver_name = "models"\n'
    assert tls_for(read(RUNNING)) is None
    assert tls_for(read(RUNNING, "[server.tls]")) == Tls()
    assert tls_for(read(RUNNING, tls)) == Tls(ca=Path("/ca.pem"), server_name="models")
    (found,) = settings(RUNNING, tls)
    assert found["tls"] == {"ca": "/ca.pem", "server_name": "models"}
