"""Whether something listens on a port of this host."""

import socket

PATIENCE_S = 0.5


def listens(port: int) -> bool:
    """Try to connect to the port on 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0
