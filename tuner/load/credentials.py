"""TLS as grpcio wants it said."""

import grpc

from tuner.load.client import Tls


def credentials_of(tls: Tls) -> grpc.ChannelCredentials:
    """Whom to trust, and what this client shows. Raises OSError where a file cannot be read."""
    ca, key, chain = (
        None if path is None else path.read_bytes()
        for path in (tls.ca, tls.client_key, tls.client_cert)
    )
    return grpc.ssl_channel_credentials(ca, key, chain)


def name_options(tls: Tls | None) -> list[tuple[str, str]]:
    """The channel option that names the server, where that is not the address's host."""
    if tls is None or not tls.server_name:
        return []
    return [("grpc.ssl_target_name_override", tls.server_name)]
