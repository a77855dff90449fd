"""The Debian package, in Debian systems whose own units start the server, with their restrictions."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .debian import Suite, System, booted
from .servers import ROOT, UnavailableError

#: The first has Python 3.11 and Redis 7.0, the second Python 3.13 and Valkey 8.1.
SUITES = (Suite("bookworm", "redis"), Suite("trixie", "valkey"))

#: debootstrap included.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]

MODULE = "/usr/lib/redgrease/libredgrease.so"

#: Where pip finds wheels in the system.
INDEX = "/srv/wheels"


def make(directory: Path, **environment: str) -> Path:
    """Make the package of the wheel that `make wheel` has built."""
    command = [sys.executable, ROOT / "tools/make_deb.py", ROOT / "dist", directory]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DEB")}
    subprocess.run(command, check=True, timeout=300, env={**clean, **environment})
    (made,) = directory.glob("*.deb")
    return made


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package."""
    if shutil.which("dpkg-gencontrol") is None:
        pytest.skip("dpkg-gencontrol is missing: apt-get install dpkg-dev")
    return make(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module", params=SUITES, ids=lambda suite: f"{suite.name}-{suite.server}")
def suite(request: pytest.FixtureRequest) -> Suite:
    chosen: Suite = request.param
    return chosen


@pytest.fixture(scope="module")
def system(suite: Suite, package: Path) -> Iterator[System]:
    """A system with the package, whose server has loaded the module."""
    try:
        with booted(suite) as system:
            system.run("dpkg", "--install", system.copy(package, "/srv"))
            system.run("sed", "-i", f"$ a loadmodule {MODULE}", f"/etc/{suite.server}/{suite.server}.conf")
            offer_wheel(system)
            restart(system, suite)
            yield system
    except UnavailableError as reason:
        pytest.skip(str(reason))


def restart(system: System, suite: Suite) -> None:
    """Start the server again; the unit is ready when the server is."""
    unit = f"{suite.server}-server"
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "reset-failed", unit, code=None)
    system.run("systemctl", "restart", unit)


def offer_wheel(system: System) -> None:
    """Make pip find a wheel with a shared library, and nothing else."""
    path = system.root.parent / "compiled-1.0-py3-none-any.whl"
    (library,) = system.run("find", "/usr/lib", "-name", "libz.so.1.*").split()
    system.run("mkdir", "-p", INDEX)
    with zipfile.ZipFile(path, "w") as archive:
        info = "compiled-1.0.dist-info"
        loads = "import ctypes, os\nVERSION = ctypes.CDLL(os.path.join(os.path.dirname(__file__), 'libz.so'))"
        archive.writestr("compiled/__init__.py", f"{loads}.zlibCompileFlags\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: compiled\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        archive.write(f"/proc/{system.pid}/root{library}", "compiled/libz.so")
    system.copy(path, INDEX)
    system.write("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {INDEX}\n")


def call(system: System, *words: str, code: int = 0) -> str:
    return system.run("redgrease", "call", *words, code=code).strip()


def test_the_package_has_manual_pages_and_completions(package):
    listed = subprocess.run(["dpkg", "--contents", package], check=True, capture_output=True, text=True).stdout
    for place in (
        "/usr/share/man/man1/redgrease.1.gz",
        "/usr/share/man/man1/redgrease-serve.1.gz",
        "/usr/share/bash-completion/completions/redgrease",
        "/usr/share/zsh/vendor-completions/_redgrease",
        "/usr/share/fish/vendor_completions.d/redgrease.fish",
    ):
        assert f".{place}\n" in listed, place


def maintainer(package: Path) -> str:
    return subprocess.run(
        ["dpkg", "--field", package, "Maintainer"], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_who_makes_the_package_names_its_maintainer(package, tmp_path):
    assert maintainer(package) == "redgrease maintainers <maintainers@redgrease.invalid>"
    named = make(tmp_path, DEBFULLNAME="Ada \\1 Ex\u00e4mple", DEBEMAIL="ada@example.com")
    assert maintainer(named) == "Ada \\1 Ex\u00e4mple <ada@example.com>"
    for wrong in ({"DEBEMAIL": "ada"}, {"DEBFULLNAME": "Ada\nDepends: x"}):
        with pytest.raises(subprocess.CalledProcessError):
            make(tmp_path, **wrong)


def test_a_function_runs_under_the_restrictions_of_the_unit(system):
    call(system, "SET", "answer", "42")
    assert call(system, "RG.PYEXECUTE", "GB('KeysReader').map(lambda r: r['value']).run()") == "42"
    isolation = call(system, "INFO", "rg_workers")
    assert "no-new-privs landlock" in isolation and "seccomp" in isolation


def test_requirements_with_compiled_modules_are_installed_in_the_directory_of_the_server(system, suite):
    script = "GB('ShardsIDReader').map(lambda _: __import__('compiled').__file__).run()"
    assert call(system, "RG.PYEXECUTE", script, "REQUIREMENTS", "compiled").startswith(
        f"/var/lib/{suite.server}/redgrease-requirements/compiled"
    )


def test_a_function_writes_temporary_files_and_nothing_else(system):
    write = "GB('ShardsIDReader').map(lambda _: open('{}', 'w').write('x')).run()"
    assert call(system, "RG.PYEXECUTE", write.format("/tmp/of-a-function")) == "1"
    # The service has a /tmp of its own.
    system.run("ls", "/tmp/of-a-function", code=2)
    for path in ("/etc/x", "/usr/lib/redgrease/x", "/var/lib/x"):
        assert f": '{path}'" in call(system, "RG.PYEXECUTE", write.format(path))


def test_the_command_starts_a_server_of_its_own(system):
    system.run("redgrease", "serve", "--background", "--port", "7000")
    try:
        script = "import redgrease\nGB('ShardsIDReader').map(lambda _: redgrease.__name__).run()"
        assert call(system, "--port", "7000", "RG.PYEXECUTE", script) == "redgrease"
    finally:
        system.run("redgrease", "stop")


@contextlib.contextmanager
def other_configuration(system: System, suite: Suite, edit: str) -> Iterator[None]:
    """Run the server with an edited configuration file, given as a command of sed."""
    path = f"/etc/{suite.server}/{suite.server}.conf"
    system.run("sed", "-i.saved", edit, path)
    restart(system, suite)
    yield
    system.run("mv", f"{path}.saved", path)
    restart(system, suite)


def test_an_environment_in_opt_is_used_where_the_module_comes_from_there(system, suite):
    system.run("cp", "-a", "/usr/lib/redgrease", "/opt/redgrease")
    with other_configuration(system, suite, "s#^loadmodule /usr/lib#loadmodule /opt#"):
        assert call(system, "RG.PYEXECUTE", "GB('ShardsIDReader').map(lambda _: 6 * 7).run()") == "42"
        assert "rg_python:/opt/redgrease/bin/python3" in call(system, "INFO", "rg_workers")


@contextlib.contextmanager
def other_drop_in(system: System, suite: Suite, text: str) -> Iterator[None]:
    """Run the server with other settings than those of the package."""
    path = f"/etc/systemd/system/{suite.server}-server.service.d/redgrease.conf"
    system.write(path, text)
    restart(system, suite)
    yield
    system.run("rm", path)
    restart(system, suite)


def test_without_the_drop_in_the_server_runs_and_the_error_names_the_interpreter_and_the_setting(system, suite):
    with other_drop_in(system, suite, ""):
        error = call(system, "RG.PYEXECUTE", "GB('ShardsIDReader').run()", code=1)
        assert "WORKERSTART" in error and "/usr/lib/redgrease/bin/python3: Permission denied" in error
        assert "name the interpreter in ExecPaths" in error


def test_a_filter_of_system_calls_that_ends_workers_is_named(system, suite):
    with other_drop_in(
        system, suite, "[Service]\nExecPaths=/usr/bin/python3\nSystemCallFilter=~landlock_create_ruleset\n"
    ):
        error = call(system, "RG.PYEXECUTE", "GB('ShardsIDReader').run()", code=1)
        assert "was killed by signal 31 (SIGSYS: a filter of system calls" in error


def test_a_directory_of_requirements_that_cannot_be_written_is_named_with_its_setting(system, suite):
    with other_configuration(system, suite, "s#^loadmodule.*#& RequirementsDir /srv/requirements#"):
        error = call(system, "RG.PYEXECUTE", "GB().run()", "REQUIREMENTS", "compiled", code=1)
        assert "/srv/requirements cannot be written (Read-only file system)" in error
        assert "set the load argument RequirementsDir" in error
