"""The client for Rust: its tests with real servers, its examples, and the program of the README."""

from __future__ import annotations

import calendar
import functools
import importlib.util
import json
import os
import re
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


#: The programs of pages with what they print; each is an example of the crate.
PROGRAM = re.compile(r"```rust\n(?P<program>.*?)```\s*```console\n(?P<output>.*?)```", re.DOTALL)
PAGES = {"README.md": 1, "docs/rust.md": 4}


def weather() -> Path:
    """The data set of the quickstart."""
    package = importlib.util.find_spec("vega_datasets")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "_data" / "seattle-weather.csv"


def example(program: str) -> str:
    """The name of the example that is this program."""
    files = (ROOT / "crates/redgrease/examples").glob("*.rs")
    [name] = [file.stem for file in files if re.sub(r"^//!.*\n", "", file.read_text()) == program]
    return name


@pytest.mark.parametrize(("page", "count"), PAGES.items())
def test_the_programs_of_a_page_are_examples_and_print_what_it_shows(db, page, count):
    found = list(PROGRAM.finditer((ROOT / page).read_text()))
    assert len(found) == count == (ROOT / page).read_text().count("```rust\n")
    for each in found:
        name = example(each["program"])
        words = [build()[name], *([weather()] if name == "weather" else []), address(db.server.port)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr) == (each["output"], "")
        db.r.flushall()


def test_the_program_of_the_readme_is_short_and_answers_as_the_example_in_python(db, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import dataset

    [program] = PROGRAM.findall((ROOT / "README.md").read_text())
    assert program[0].count("\n") < 30
    best = dataset.main(redgrease.RedisGears(port=db.server.port)).months[:3]
    numbers = {f"month {list(calendar.month_name).index(month.name):02}": month.pleasant for month in best}
    # The program counts days; the example in Python divides them by all days of the month.
    lines = dict(line.split(": ") for line in program[1].splitlines())
    assert lines == {month: f"{days} dry and warm days" for month, days in numbers.items()}
