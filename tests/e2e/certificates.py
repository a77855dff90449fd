"""Certificates for servers with TLS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificates(directory: Path) -> None:
    """Make the files of a private authority and of a server named localhost: `ca.pem`, `s.pem` and `s.key`."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(directory, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    _openssl(directory, "req", *key, "-keyout", "s.key", "-out", "s.csr", "-subj", "/CN=localhost")
    (directory / "names").write_text("subjectAltName=DNS:localhost\n")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    _openssl(directory, "x509", "-req", "-in", "s.csr", "-out", "s.pem", *sign)


def encrypt_key(directory: Path, password: str) -> None:
    """Make `e.key`, which is `s.key` encrypted with a password."""
    _openssl(directory, "pkcs8", "-topk8", "-in", "s.key", "-out", "e.key", "-passout", f"pass:{password}")


def hash_authority(directory: Path) -> Path:
    """Make a directory that holds the certificate of the authority under its hash, as OpenSSL looks for it."""
    folder = directory / "authorities"
    folder.mkdir()
    shown = _openssl(directory, "x509", "-hash", "-noout", "-in", "ca.pem")
    shutil.copy(directory / "ca.pem", folder / f"{shown.strip()}.0")
    return folder


def _openssl(directory: Path, *args: str) -> str:
    done = subprocess.run(["openssl", *args], cwd=directory, capture_output=True, check=True, text=True, timeout=60)
    return done.stdout
