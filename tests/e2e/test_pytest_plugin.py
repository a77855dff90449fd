"""The fixtures of the plugin for pytest, in a pytest of their own; and the part of docs/testing.md about them."""

from __future__ import annotations

import os
import re
import signal
import textwrap

import pytest
from redgrease.testing import LocalServer

from .processes import process
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


def test_a_server_that_does_not_end_is_killed(server_kind, monkeypatch):
    monkeypatch.setattr("redgrease.testing.server._STOP_SECONDS", 0.1)
    server = LocalServer(server_kind.binary())
    with server.client() as client:
        pid = client.info("server")["process_id"]
    os.kill(server._process.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert wait_until(lambda: process(pid), "the server ended", until=lambda found: found is None) is None
