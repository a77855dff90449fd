"""A server that accepts TLS only, with a certificate of a private authority and a password."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import make_certificates
from .servers import free_port


def start_tls_server(tmp_path: Path) -> Iterator[int]:
    """The port of a server that accepts TLS only."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        pytest.skip("no redis-server on PATH")
    make_certificates(tmp_path)
    port = free_port()
    tls = ["--tls-cert-file", "s.pem", "--tls-key-file", "s.key", "--tls-ca-cert-file", "ca.pem"]
    words = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--save", "", "--requirepass", "pw"]
    process = subprocess.Popen([server, *words, *tls], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.01)
        if process.poll() is not None:
            pytest.skip(f"this server cannot do TLS: {process.stdout.read() if process.stdout else ''}")
        yield port
    finally:
        process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()
