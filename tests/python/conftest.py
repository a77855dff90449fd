"""Shared by the tests of the package that need no server."""

from __future__ import annotations

import sys
import types

import pytest

from .fake_builder import FakeBuilder


@pytest.fixture
def replayed():
    """Replays a closed function on a fake builder, as the server would."""
    from redgrease.runtime import run

    def replay(function):
        FakeBuilder.made.clear()
        run(function, FakeBuilder)
        return FakeBuilder.made[-1]

    return replay


class FakeGearsError(Exception):
    """Stands for the server's exception."""


@pytest.fixture
def server(monkeypatch):
    """Makes this process look like the inside of a server, and records the calls of functions."""
    native = types.ModuleType("redisgears")
    native.GearsBuilder = FakeBuilder
    native.GearsError = FakeGearsError
    native.commands = []
    native.replies = {}
    native.logged = []
    native.depth = 0

    def execute(*args):
        native.commands.append(args)
        reply = native.replies.get(args[0].upper(), "OK")
        if isinstance(reply, Exception):
            raise reply
        return reply(*args) if callable(reply) else reply

    class Atomic:
        def __enter__(self):
            native.depth += 1
            native.commands.append(("(",))

        def __exit__(self, *error):
            native.depth -= 1
            native.commands.append((")",))

    native.executeCommand = execute
    native.atomicCtx = Atomic
    native.getMyHashTag = lambda: "06S"
    native.log = lambda message, level: native.logged.append((level, message))
    native.config_get = {"MaxExecutions": "1000"}.get
    native.gearsFutureCtx = type("NativeFuture", (), {})
    monkeypatch.setitem(sys.modules, "redisgears", native)
    return native
