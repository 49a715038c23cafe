import resource
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from tuner.http2.socket_loop import SocketLoop


class EchoSession:
    """Sends back what it gets; `!` is a defect, `.` says goodbye."""

    def __init__(self, link):
        self.link = link
        self.out = []
        self.closing = False
        self.gone = False

    def receive(self, data):
        if data == b"!":
            raise ValueError("a defect")
        self.out.append(data)
        if data == b".":
            self.closing = True

    def close_gracefully(self):
        self.out.append(b"goodbye")
        self.closing = True

    def disconnect(self):
        self.gone = True


class Server:
    def __init__(self):
        self.sessions = []
        self.loop = SocketLoop(self.connect)
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.loop.listen(listener)

    def connect(self, link):
        self.sessions.append(EchoSession(link))
        return self.sessions[-1]

    def dial(self):
        return socket.create_connection(self.address, timeout=20)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.loop.serve_forever)
    thread.start()
    yield server
    server.loop.stop()
    thread.join(timeout=20)
    assert not thread.is_alive()


def read(connected, size):
    received = b""
    while len(received) < size and (data := connected.recv(size - len(received))):
        received += data
    return received


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bytes_come_back(server):
    with server.dial() as one, server.dial() as two:
        one.sendall(b"one")
        two.sendall(b"two")
        assert (read(one, 3), read(two, 3)) == (b"one", b"two")


def test_nothing_that_threads_post_is_lost_or_left_lying(server):
    """Each post must wake a sleeping loop by itself: none may wait for the next one."""
    with server.dial() as connected:
        connected.sendall(b"x")
        assert read(connected, 1) == b"x"
        session = server.sessions[0]

        def post(number):
            for _ in range(500):
                session.link.run(session.out.append, b"%d" % number)

        threads = [threading.Thread(target=post, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        received = read(connected, 4_000)
        for thread in threads:
            thread.join()
        assert sorted(received) == sorted(b"01234567" * 500)


def test_lone_posts_wake_a_sleeping_loop(server):
    with server.dial() as connected:
        connected.sendall(b"x")
        assert read(connected, 1) == b"x"
        session = server.sessions[0]
        for _ in range(20):
            time.sleep(0.002)
            session.link.run(session.out.append, b"y")
            assert read(connected, 1) == b"y"


def test_more_than_a_socket_takes_is_sent_as_it_drains(server):
    message = bytes(range(256)) * 40_000
    with server.dial() as connected:
        connected.sendall(b"x")
        assert read(connected, 1) == b"x"
        session = server.sessions[0]
        for at in range(0, len(message), 1_000):
            session.link.run(session.out.append, message[at : at + 1_000])
        assert read(connected, len(message)) == message
        connected.sendall(b"again")
        assert read(connected, 5) == b"again"


def send_until_stuck(connected):
    chunk, sent = bytes(65_536), 0
    with suppress(TimeoutError):
        while sent < 256 * 2**20:
            sent += connected.send(chunk)
    return sent


def test_client_that_never_reads_is_not_read_from_for_ever(server):
    with server.dial() as deaf:
        deaf.settimeout(1.0)
        sent = send_until_stuck(deaf)
        assert sum(map(len, server.sessions[0].out)) < 64 * 2**20
        deaf.settimeout(20)
        assert len(read(deaf, sent)) == sent


def test_defect_closes_one_client_and_spares_the_others(server, caplog):
    with server.dial() as good, server.dial() as bad:
        bad.sendall(b"!")
        assert read(bad, 1) == b""
        good.sendall(b"good")
        assert read(good, 4) == b"good"
    assert "a defect" in caplog.text


def test_defect_in_posted_work_closes_its_client_alone(server, caplog):
    with server.dial() as good, server.dial() as bad:
        for connected in (good, bad):
            connected.sendall(b"x")
            assert read(connected, 1) == b"x"
        link = server.sessions[1].link
        link.run(int, "no number")
        assert read(bad, 1) == b""
        link.run(pytest.fail, "a link that is gone runs nothing")
        good.sendall(b"good")
        assert read(good, 4) == b"good"
    assert "no number" in caplog.text


def test_closing_session_is_heard_out_though_the_client_keeps_sending(server):
    with server.dial() as connected:
        connected.sendall(b".")
        assert read(connected, 1) == b"."
        assert connected.recv(1) == b""
        connected.sendall(b"more")
    with server.dial() as silent:  # never closes its end: given up after a while
        silent.sendall(b".")
        assert read(silent, 2) == b"."
        wait_until(lambda: all(session.gone for session in server.sessions))


def test_stop_says_goodbye(server):
    with server.dial() as connected:
        connected.sendall(b"x")
        assert read(connected, 1) == b"x"
        server.loop.stop()
        assert read(connected, 100) == b"goodbye"
    wait_until(lambda: server.sessions[0].gone)


@contextmanager
def no_more_descriptors():
    """Lower the limit to what is open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        lowest_free = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_client_without_a_descriptor_is_turned_away(server, caplog):
    with socket.socket() as refused:
        refused.settimeout(20)
        with no_more_descriptors():
            refused.connect(server.address)
            assert refused.recv(1) == b""
    assert "ulimit -n" in caplog.text
    with server.dial() as connected:
        connected.sendall(b"x")
        assert read(connected, 1) == b"x"
