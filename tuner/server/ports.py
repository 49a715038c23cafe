"""Ports of this host: whether something listens, and which are free."""

import socket

from tuner.errors import HostError

PATIENCE_S = 0.5


def listens(port: int) -> bool:
    """Try to connect to the port on 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> tuple[int, ...]:
    """Find ports that nothing listens on. Held together until all are known, so they differ."""
    sockets = []
    try:
        for _ in range(count):
            probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sockets.append(probe)
            probe.bind(("127.0.0.1", 0))
        return tuple(int(probe.getsockname()[1]) for probe in sockets)
    except OSError as error:
        raise HostError(
            f"no free port on 127.0.0.1: {error.strerror}", hint="end what holds the ports"
        ) from None
    finally:
        for probe in sockets:
            probe.close()
