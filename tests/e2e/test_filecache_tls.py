"""The file cache over TLS, with a certificate of a private authority and a password."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .caching import COMMAND, clean_environment
from .certificates import make_certificates


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[int]:
    """The port of a server that accepts TLS only."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        pytest.skip("no redis-server on PATH")
    make_certificates(tmp_path)
    port = _free_port()
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


def test_a_cache_is_coordinated_over_tls_by_a_server_that_it_can_trust(tls_server, tmp_path):
    trusting = {**clean_environment(), "SSL_CERT_FILE": str(tmp_path / "ca.pem")}

    def run(subcommand, *args, password="pw", environment=trusting, **more):
        url = f"rediss://:{password}@localhost:{tls_server}/0"
        command = [COMMAND, "cache", subcommand, "--dir", tmp_path / "cache", "--url", url, *args]
        return subprocess.run(command, capture_output=True, timeout=60, env=environment, **more)

    assert run("put", "k", "-", input=b"content").returncode == 0
    assert run("get", "k").stdout == b"content"
    stranger = run("get", "k", environment=clean_environment() | {"SSL_CERT_FILE": os.devnull})
    assert stranger.returncode not in (0, 1, 2)
    assert b"certificate" in stranger.stderr
    refused = run("get", "k", password="wrong-s3cret")
    assert refused.returncode not in (0, 1, 2)
    assert b"authentication to" in refused.stderr
    assert b"wrong-s3cret" not in refused.stderr
