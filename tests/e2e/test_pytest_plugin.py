"""The fixtures of the plugin for pytest, in a pytest of their own; and the part of docs/testing.md about them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from redgrease.testing import LocalServer, guard

from .processes import process, workers_of
from .servers import ROOT
from .waiting import wait_until

pytest_plugins = ["pytester"]

PAGE = (ROOT / "docs" / "testing.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.partition("## With a server")[2], re.DOTALL)

TESTS = """
import pathlib
import redgrease
from redgrease.testing import LocalServer

def test_first(redgrease_client, redgrease_server):
    pathlib.Path("pid").write_text(str(redgrease_client.info("server")["process_id"]))
    pathlib.Path("port").write_text(str(redgrease_server.port))
    redgrease_client.set("a", 1)
    redgrease.KeysReader().register("*", on=redgrease_client)
    assert redgrease.KeysReader().count().run(on=redgrease_client).value == 1

def test_second(redgrease_client, redgrease_server):
    assert pathlib.Path("port").read_text() == str(redgrease_server.port)
    assert isinstance(redgrease_server, LocalServer)
    assert redgrease_client.gears.dumpregistrations() == []
    assert redgrease_client.gears.dumpexecutions() == []
    assert redgrease_client.keys() == []
    assert redgrease_server.url == f"redis://127.0.0.1:{redgrease_server.port}"
"""


@pytest.fixture
def run(pytester, server_kind):
    """Runs tests with this kind of server; returns the result."""
    pytester.makeini("[pytest]\n")

    def run_tests(source, *options):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess(f"--redgrease-server={server_kind.binary()}", *options)

    return run_tests


def test_tests_share_a_server_that_is_empty_for_each_of_them(run, pytester):
    run(TESTS).assert_outcomes(passed=2)
    pid = int((pytester.path / "pid").read_text())
    assert wait_until(lambda: process(pid), "the server ended", until=lambda found: found is None) is None


def test_a_failed_test_shows_the_log_of_the_server(run):
    source = """
    import redgrease

    def test_fails(redgrease_client):
        function = redgrease.PythonReader().foreach(lambda _: redgrease.log("this is in the log"))
        function.run(lambda: [1], on=redgrease_client)
        assert False
    """
    result = run(textwrap.dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- log of redgrease_server -*", "*GEARS: this is in the log*"])


def test_the_program_is_an_option_and_a_setting(pytester):
    test = "def test_server(redgrease_server): pass"
    pytester.makepyfile(test)
    result = pytester.runpytest_subprocess("--redgrease-server=/no/server")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*RuntimeError: `redgrease serve` did not start a server: *--server-binary /no/server: *"]
    )
    pytester.makeini("[pytest]\nredgrease_server = /no/other\n")
    pytester.runpytest_subprocess().stdout.fnmatch_lines(["*--server-binary /no/other: there is no such program*"])


def test_nothing_is_started_or_imported_without_a_fixture(pytester):
    pytester.makepyfile(
        """
        import sys
        def test_modules():
            assert "redgrease.pytest_plugin" in sys.modules
            assert not {"redis", "redgrease.testing", "redgrease._native"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[-1].strip()[:30])
def test_the_examples_of_the_page(run, snippet):
    # The last one replaces the fixture.
    test = (
        "" if "def test_" in snippet else "\n\ndef test_ping(redgrease_client):\n    assert redgrease_client.ping()\n"
    )
    run(snippet + test).assert_outcomes(passed=1)


def is_gone(pid):
    """Wait until a process has ended."""
    return wait_until(lambda: process(pid), f"process {pid} ended", until=lambda found: found is None) is None


def test_a_server_that_does_not_end_is_killed(server_kind, monkeypatch):
    monkeypatch.setattr("redgrease.testing.server._STOP_SECONDS", 0.1)
    server = LocalServer(server_kind.binary())
    started = guard.descendants(server._process.pid)
    with server.client() as client:
        pid = client.info("server")["process_id"]
    assert pid in started
    for each in started:
        os.kill(each, signal.SIGSTOP)
    server.stop()
    assert all(map(is_gone, started))


def test_a_guard_that_does_not_end_is_killed(server_kind, monkeypatch):
    monkeypatch.setattr("redgrease.testing.server._STOP_SECONDS", 0.1)
    monkeypatch.setattr("redgrease.testing.server._GUARD_SECONDS", 0.1)
    server = LocalServer(server_kind.binary())
    started = [*guard.descendants(server._process.pid), server._process.pid]
    for each in started:
        os.kill(each, signal.SIGSTOP)
    server.stop()
    assert all(map(is_gone, started))


@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with-a-fork"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_server_ends_with_the_process_of_the_tests(server_kind, sent, forks):
    """With its workers, and without files that are left; also if a process that it has forked lives on."""
    program = f"""
import os, time
from redgrease.testing import LocalServer
server = LocalServer({str(server_kind.binary())!r})
with server.client() as client:
    client.gears.pyexecute("GB('ShardsIDReader').map(lambda _: 1).run()")
    pid = client.info("server")["process_id"]
fork = os.fork() if {forks} else 0
if fork or not {forks}:
    print(pid, fork, server._directory, flush=True)
time.sleep(60)
"""
    tests = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pid, fork, directory = tests.stdout.readline().split()
    workers = workers_of(int(pid))
    assert workers
    try:
        tests.send_signal(sent)
        assert tests.wait(10) == -sent
        assert is_gone(int(pid))
        assert all(is_gone(worker.pid) for worker in workers)
        wait_until(lambda: not os.path.exists(directory), "its directory is removed")
    finally:
        tests.stdout.close()
        if int(fork):
            os.kill(int(fork), signal.SIGKILL)


def test_a_server_stops_while_a_forked_process_lives(server_kind):
    server = LocalServer(server_kind.binary())
    with server.client() as client:
        pid = client.info("server")["process_id"]
    fork = os.fork()
    if not fork:
        time.sleep(60)
        os._exit(0)
    try:
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 15
        assert process(pid) is None
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)
