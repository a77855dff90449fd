"""A server that accepts TLS only, with a certificate of a private authority and a password."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import free_port


def _openssl(directory: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=directory, capture_output=True, check=True, timeout=60)


def start_tls_server(tmp_path: Path) -> Iterator[int]:
    """The port of a server that accepts TLS only."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None or shutil.which("openssl") is None:
        pytest.skip("no redis-server or no openssl on PATH")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(tmp_path, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    _openssl(tmp_path, "req", *key, "-keyout", "s.key", "-out", "s.csr", "-subj", "/CN=localhost")
    (tmp_path / "names").write_text("subjectAltName=DNS:localhost\n")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    _openssl(tmp_path, "x509", "-req", "-in", "s.csr", "-out", "s.pem", *sign)
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
