"""The plugin for pytest: fixtures with a server, for tests of gear functions.

It is loaded by pytest wherever this package is installed, and starts nothing unless a test uses a fixture:

- ``redgrease_server``: a `redgrease.testing.LocalServer`, one for the run (with pytest-xdist one for each process);
- ``redgrease_client``: a client of that server, which is empty when the test begins.

The option ``--redgrease-server=PROGRAM`` and the setting ``redgrease_server`` choose the server's program. Tests that
need other settings define ``redgrease_server`` themselves. A report of a failed test has the server's log.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from redgrease.client import Redis
    from redgrease.testing import LocalServer

_LOG_LINES = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting."""
    text = "program of the server that redgrease_server starts (default: as `redgrease serve` chooses it)"
    parser.getgroup("redgrease").addoption("--redgrease-server", metavar="PROGRAM", help=text)
    parser.addini("redgrease_server", text)


@pytest.fixture(scope="session")
def redgrease_server(pytestconfig: pytest.Config) -> Iterator[LocalServer]:
    """A server with the module `rg` on a free port, stopped at the end of the run."""
    from redgrease.testing import LocalServer

    program = pytestconfig.getoption("redgrease_server") or pytestconfig.getini("redgrease_server")
    with LocalServer(program or None) as server:
        yield server


@pytest.fixture
def redgrease_client(redgrease_server: LocalServer) -> Iterator[Redis]:
    """A client of `redgrease_server`, which has no keys and no registrations before and after the test."""
    redgrease_server.reset()
    with redgrease_server.client() as client:
        yield client
    redgrease_server.reset()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the server's log to the report of a failed test that used it."""
    outcome = yield
    server = getattr(item, "funcargs", {}).get("redgrease_server")
    if server is not None and outcome.get_result().failed:
        lines = server.log().splitlines()[-_LOG_LINES:]
        outcome.get_result().sections.append(("log of redgrease_server", "\n".join(lines)))
