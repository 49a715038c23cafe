"""Keys and certificates of their own, made by openssl, for servers that speak TLS in tests."""

import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for localhost and 127.0.0.1; skips where openssl is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, chain = folder / "key.pem", folder / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, chain
