"""The package is cheap to import, has no required dependencies, and detects late whether it runs inside a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redgrease

SOURCE = Path(redgrease.__file__).parents[1]

BARE_NAMES = """
command trigger GearFunction OpenGearFunction ClosedGearFunction GearReader KeysReader KeysOnlyReader StreamReader
PythonReader ShardsIDReader CommandReader GearsBuilder GB atomic execute hashtag hashtag3 log configGet gearsConfigGet
gearsFuture GEARS_RUNTIME ReaderType TriggerMode KeyType FailurePolicy LogLevel utils
"""
CLIENT_NAMES = """
Gears Redis RedisCluster RedisMods RedisGears cmd Requirement Version read_requirements resolve_requirements
"""
BARE, CLIENT = set(BARE_NAMES.split()), set(CLIENT_NAMES.split())


def isolated(code: str) -> str:
    """Output of a program that has only the standard library, and our sources."""
    program = f"import sys; sys.path.insert(0, {os.fspath(SOURCE)!r})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_needed_and_nothing_is_loaded():
    loaded = isolated("before = set(sys.modules); import redgrease; print(*sorted(set(sys.modules) - before))").split()
    ours = {name for name in loaded if name.startswith("redgrease")}
    assert ours == {"redgrease"}
    assert not {"redis", "cloudpickle", "packaging", "dataclasses", "asyncio"} & set(loaded)


def test_without_other_packages_the_bare_names_work():
    code = """
import redgrease
from redgrease import *
print(*redgrease.__all__)
assert KeysReader("a*").values(type="hash").count().run().reader == "KeysReader"
assert redgrease.utils.record("x").key == "x"
assert not {"redis", "cloudpickle", "packaging"} & set(sys.modules)
"""
    assert set(isolated(code).split()) == BARE


def test_a_missing_package_is_named():
    code = """
import redgrease
try:
    redgrease.RedisGears
except ModuleNotFoundError as error:
    print(error)
"""
    assert "redgrease.RedisGears needs the package 'redis'" in isolated(code)


def test_all_names_resolve():
    assert set(redgrease.__all__) == BARE | CLIENT
    assert len(redgrease.__all__) == len(set(redgrease.__all__))
    for name in redgrease.__all__:
        getattr(redgrease, name)
    assert set(dir(redgrease)) >= BARE | CLIENT
    with pytest.raises(AttributeError, match="no attribute 'iterators'"):
        redgrease.iterators  # noqa: B018


def test_the_side_is_decided_when_a_name_is_used(server, monkeypatch):
    from redgrease import runtime

    assert redgrease.GEARS_RUNTIME == (1, 2)
    assert redgrease.GearsBuilder is redgrease.GB is server.GearsBuilder
    assert redgrease.execute is server.executeCommand
    assert redgrease.atomic is server.atomicCtx
    assert redgrease.log is runtime.log
    monkeypatch.delitem(sys.modules, "redisgears")
    assert redgrease.GEARS_RUNTIME is False
    assert redgrease.GearsBuilder is redgrease.GB is runtime.GearsBuilder
    assert redgrease.execute is runtime.execute


def test_dunders():
    assert redgrease.__version__ == "1.0.0.dev0"
    assert redgrease.__licence__
    assert redgrease.__author__
