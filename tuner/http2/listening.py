"""Sockets to listen on: each is bound by one process alone, and says so where it cannot be."""

import errno
import socket
import stat
from contextlib import suppress
from pathlib import Path


def bind_tcp(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # Lets a restart take a port whose old connections are still in TIME_WAIT. Without
        # SO_REUSEPORT a second server on the port still fails.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def bind_unix(path: str) -> socket.socket:
    _remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale_socket(path: str) -> None:
    """Unlink a socket on which nobody listens any more. Raises OSError where somebody does."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
                return
        raise OSError(errno.EADDRINUSE, "another server listens on this socket", path)
