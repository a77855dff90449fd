"""Functions of clients with another Python version than the server's default interpreter."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redgrease

from .waiting import wait_until

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def version_of(python: Path) -> str:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()


def other_pythons() -> list[Path]:
    """Interpreters of other supported versions on this machine, one for each version."""
    names = [f"python3.{minor}" for minor in range(9, 15)]
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    found: dict[str, Path] = {}
    for name in names:
        for folder in folders:
            path = shutil.which(name, path=folder)
            version = name.removeprefix("python")
            if path and version != HERE and version not in found and version_of(Path(path)) == version:
                found[version] = Path(path)
    return list(found.values())


OTHERS = other_pythons()
needs_another = pytest.mark.skipif(not OTHERS, reason="no other supported version of Python is installed")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """What clients need, installed for an interpreter."""

    @functools.cache
    def install(python: Path) -> Path:
        target = tmp_path_factory.mktemp(python.name)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", target]
        done = subprocess.run([*pip, "redis", "cloudpickle", "packaging"], capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            pytest.skip(f"{python} cannot install redis: {done.stderr.strip()[-200:]}")
        return target

    return install


@pytest.fixture
def client(packages: Callable[[Path], Path]) -> Callable[[Path, int, str], str]:
    """Runs a program in another interpreter, as a client of the server on a port; returns what it prints."""

    def run(python: Path, port: int, body: str) -> str:
        places = [str(packages(python)), str(Path(redgrease.__file__).parents[1])]
        script = f"""
import sys
sys.path[:0] = {places!r}
import redgrease
from redgrease import CommandReader, KeysReader, ShardsIDReader, execute
r = redgrease.RedisGears(port={port})
{body}
"""
        done = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=290, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    return run


EXPLORE = """
offset = 40
class Twice:
    def __call__(self, value):
        return 2 * value
def version(_):
    import sys
    return "%d.%d" % sys.version_info[:2]
print(ShardsIDReader().map(version).run(on=r).value)
print(KeysReader("n:*").values().map(int).map(Twice()).map(lambda n: n + offset).run(on=r).value)
"""


@needs_another
@pytest.mark.parametrize("python", OTHERS, ids=lambda path: path.name)
def test_a_function_runs_in_the_version_of_its_client(fresh_server, client, python):
    db = fresh_server(load_args={"Pythons": python})
    db.r.set("n:1", "1")
    printed = client(python, db.server.port, EXPLORE)
    assert printed.splitlines() == [version_of(python), "42"]


@needs_another
def test_interpreters_on_the_path_are_found(fresh_server, client):
    python = OTHERS[0]
    db = fresh_server(env={"PATH": f"{python.parent}:/usr/bin:/bin"})
    db.r.set("n:1", "1")
    assert client(python, db.server.port, EXPLORE).splitlines()[0] == version_of(python)


REGISTER = """
def version(*args):
    import sys
    return "%d.%d" % sys.version_info[:2]
CommandReader().apply(version).register(trigger="version", on=r)
CommandReader().map(lambda _: __import__("os").getpid()).register(trigger="pid", on=r)
KeysReader().foreach(lambda record: execute("INCR", "seen")).register("w:*", eventTypes=["set"], on=r)
print("registered")
"""


@needs_another
def test_registrations_survive_their_worker_and_the_server(fresh_server, client):
    python = OTHERS[0]
    db = fresh_server(load_args={"Pythons": python}, conf={"appendonly": "yes"})
    assert client(python, db.server.port, REGISTER) == "registered"
    assert db.trigger("version") == [version_of(python)]
    pid = int(db.trigger("pid")[0])
    os.kill(pid, signal.SIGKILL)
    db.wait_log(f"(pid {pid}) was killed by signal 9")
    assert db.trigger("version") == [version_of(python)]
    db.server.restart()
    wait_until(lambda: db.trigger("version"), "the command answers", until=lambda reply: reply == [version_of(python)])
    db.r.set("w:1", "x")
    db.wait_value("seen", 1)
    assert len(db.registrations()) == 3


@needs_another
def test_requirements_are_installed_for_the_version_of_the_function(fresh_server, client):
    python = OTHERS[0]
    db = fresh_server(load_args={"Pythons": python})
    body = """
def where(_):
    import six, sys
    return [six.__version__, "%d.%d" % sys.version_info[:2]]
print(ShardsIDReader().map(where, requirements=["six==1.16.0"]).run(on=r).records)
"""
    assert client(python, db.server.port, body) == f"[['1.16.0', '{version_of(python)}']]"


def test_a_version_that_is_not_there_is_an_error_that_names_what_is(fresh_server):
    db = fresh_server(load_args={"Pythons": "/nowhere/python3.9"})
    error = db.refused("GB('ShardsIDReader').run()", "PYTHON", "3.99")
    assert error.startswith("PYTHONVERSION the function was made with Python 3.99"), error
    assert f"run Python {HERE}:" in error and "/nowhere/python3.9: " in error
    assert "PYTHON must be a version such as 3.11, not 'x'" in db.refused("GB().run()", "PYTHON", "x")
    assert "PYTHON is missing" in db.refused("GB().run()", "PYTHON")


def test_a_script_may_name_the_default_version(db):
    assert db.run("GB('ShardsIDReader').run()", "PYTHON", HERE) == (["1"], [])


def test_interpreters_of_other_kinds_are_refused_by_name(fresh_server, tmp_path):
    free_threaded = tmp_path / "python3.13t"
    free_threaded.write_text("#!/bin/sh\nprintf 'CPython\\n3.13\\n1\\n/usr/bin/python3.13t\\n'\n")
    hangs = tmp_path / "broken"
    hangs.write_text("#!/bin/sh\nexit 3\n")
    for path in (free_threaded, hangs):
        path.chmod(0o755)
    db = fresh_server(load_args={"Pythons": f"{free_threaded}:{hangs}"})
    error = db.refused("GB('ShardsIDReader').run()", "PYTHON", "3.88")
    assert f"{free_threaded}: free-threaded builds are not supported" in error
    assert f"{hangs}: it failed without a message" in error


#: What a function does with a package that only the server installs, and what comes of it.
PACKAGES = {
    "numpy": ("int(__import__('numpy').arange(5).sum())", 10),
    "requests": ("__import__('requests').Request('GET', 'http://x', params={'a': 1}).prepare().url", "http://x/?a=1"),
    "SQLAlchemy": ("str(__import__('sqlalchemy').text('SELECT 1'))", "SELECT 1"),
    "gensim": ("__import__('gensim').utils.simple_preprocess('A small text')", ["small", "text"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("python", [Path(sys.executable), *OTHERS], ids=version_of)
def test_functions_use_packages_in_each_version(fresh_server, client, python, package):
    db = fresh_server(load_args={"Pythons": python, "InstallMax": 280_000}, conf={"loglevel": "notice"})
    expression, expected = PACKAGES[package]
    body = f"""
try:
    print(ShardsIDReader().map(lambda _: {expression}, requirements=[{package!r}]).run(on=r).value)
except Exception as error:
    print("no wheel:" if "wheel" in str(error) or "satisfies" in str(error) else "failed:", error)
"""
    printed = client(python, db.server.port, body)
    if printed.startswith("no wheel:"):
        pytest.skip(f"pip finds no wheel of {package} for Python {version_of(python)}")
    assert printed == str(expected)
