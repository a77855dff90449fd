"""The file cache over TLS, with a certificate of a private authority and a password."""

from __future__ import annotations

import os
import subprocess

from .caching import COMMAND, clean_environment


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
