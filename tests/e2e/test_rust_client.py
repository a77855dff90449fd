"""The client for Rust: its tests with real servers, its examples, and the program of the README."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redgrease

from .certificates import make_certificates
from .servers import ROOT, Server, free_port

SECONDS_MAX = 250


@functools.cache
def build() -> dict[str, Path]:
    """Build the tests and examples of the crate; the programs by their names."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not on PATH")
    command = ["cargo", "test", "--quiet", "--no-run", "--message-format=json", "-p", "redgrease"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["target"]["name"]: Path(each["executable"]) for each in made if each.get("executable")}


def run(environment: dict[str, str], *arguments: str) -> None:
    """Run tests of the crate that need servers, one after the other."""
    words = [str(build()["server"]), "--include-ignored", "--test-threads=1", *arguments]
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 passed" not in done.stdout, done.stdout


@pytest.fixture(scope="module")
def bare_server(server_kind) -> Iterator[Server]:
    """A server without the module."""
    server = Server(server_kind, with_module=False).start()
    yield server
    server.stop()


def address(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


@pytest.mark.parametrize("part", ["commands", "functions", "failures", "asynchronous"])
def test_the_client_and_a_server(db, bare_server, part):
    run(
        {"REDGREASE_URL": address(db.server.port), "REDGREASE_BARE_URL": address(bare_server.port)},
        f"{part}::",
    )


def test_the_client_and_a_cluster(nodes):
    run({"REDGREASE_CLUSTER_URLS": ",".join(address(node.server.port) for node in nodes)}, "in_a_cluster::")


def test_the_client_and_a_server_with_tls(fresh_server, tmp_path):
    make_certificates(tmp_path)
    port = free_port()
    files = {"tls-cert-file": "s.pem", "tls-key-file": "s.key", "tls-ca-cert-file": "ca.pem"}
    conf = {option: tmp_path / name for option, name in files.items()}
    try:
        fresh_server(conf={**conf, "tls-port": port, "tls-auth-clients": "no"})
    except Exception as reason:
        pytest.skip(f"this server cannot do TLS: {reason}")
    run({"REDGREASE_TLS_URL": f"rediss://localhost:{port}", "SSL_CERT_FILE": str(tmp_path / "ca.pem")}, "over_tls::")


def test_the_example_answers_the_question_of_the_quickstart(db, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import dataset

    package = importlib.util.find_spec("vega_datasets")
    assert package is not None and package.origin is not None
    days = Path(package.origin).parent / "_data" / "seattle-weather.csv"
    words = [build()["weather"], days, address(db.server.port)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    db.r.flushall()
    months = dataset.main(redgrease.RedisGears(port=db.server.port)).months
    # The program counts days, the Python example divides them by all days of a month: the best three are the same.
    best = {
        f"month {dataset.calendar.month_name[:].index(month.name):02}: {month.pleasant} dry and warm days"
        for month in months[:3]
    }
    assert (set(done.stdout.splitlines()), done.stderr) == (best, "")
