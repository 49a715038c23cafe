import http.server
import socket
import threading
from pathlib import Path

import pytest
from certificates import self_signed

from tuner.errors import HostError, ScenarioError
from tuner.records import Config
from tuner.scenario import parse
from tuner.server.running import RunningLauncher

PAGE = "# TYPE x counter\nx 1\n"


def launcher(address, *lines):
    text = 'name = "s"\n[model]\npath = "/m"\n[slo]\np99_ms = 50\n[server]\nlauncher = "running"\n'
    return RunningLauncher(parse("\n".join([text, f'address = "{address}"', *lines]), Path("/s")))


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def page():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/metrics?all" else 404)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_running_server_is_taken_as_it_is(listening, tmp_path):
    with launcher(listening).launch(Config(None, as_it_runs=True), tmp_path / "0") as server:
        assert server.endpoint.address == listening
        assert server.endpoint.pid is None
        assert server.scrape() is None
        server.check()
    socket.create_connection(("127.0.0.1", int(listening.rpartition(":")[2]))).close()


def test_it_is_named_by_its_address(listening):
    assert launcher(listening).identify().version == listening
    over = launcher(listening, "[server.tls]").identify()
    assert (over.launcher, over.version) == ("running", f"{listening} over TLS")


def test_a_server_on_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with launcher(f"unix:{path}").launch(Config(None), tmp_path / "0") as server:
            server.check()
    with pytest.raises(HostError, match=f"no connection to unix:{path}: Connection refused"):
        server.check()


def test_its_metrics_are_read_where_it_says(listening, page, tmp_path):
    found = launcher(listening, f'metrics_url = "{page}/metrics?all"')
    with found.launch(Config(None), tmp_path / "0") as server:
        assert server.scrape() == PAGE
    lost = launcher(listening, f'metrics_url = "{page}/elsewhere"')
    with lost.launch(Config(None), tmp_path / "0") as server:
        assert server.scrape() is None


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:8500", "unix:/nowhere/at"])
def test_nobody_listens(address, tmp_path):
    with (
        pytest.raises(
            HostError, match=r"server\.address: no connection to .*\n  is the server up"
        ),
        launcher(address).launch(Config(None), tmp_path / "0"),
    ):
        pass


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ('ca = "/nowhere.pem"', r"server\.tls\.ca: /nowhere\.pem: cannot be read: No such file"),
        ('ca = "{noise}"', r"server\.tls\.ca: .*noise: not usable"),
        (
            'client_cert = "{chain}"\nclient_key = "{noise}"',
            r"server\.tls\.client_cert: .*chain\.pem: not usable",
        ),
        (
            'client_cert = "{chain}"\nclient_key = "/nowhere.key"',
            r"server\.tls\.client_cert: .*cannot be read: No such file",
        ),
    ],
)
def test_files_of_tls_that_are_none(listening, tmp_path, tls, said):
    (tmp_path / "noise").write_text("no certificate")
    _, chain = self_signed(tmp_path)
    text = tls.format(noise=tmp_path / "noise", chain=chain)
    with pytest.raises(ScenarioError, match=said):
        launcher(listening, "[server.tls]", text).identify()
