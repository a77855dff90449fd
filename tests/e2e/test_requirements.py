"""Requirements of scripts: what is accepted, which clients wait, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from .database import text
from .processes import process
from .waiting import wait_until

RUN = "GB('ShardsIDReader').run()"


def project(directory: Path, name: str, setup: str = "") -> Path:
    """A source project that pip builds without the network; ``setup`` runs as it does."""
    directory.mkdir()
    (directory / f"{name}.py").write_text("VERSION = 'of the project'\n")
    (directory / "backend.py").write_text(
        f"""
import os, zipfile
{setup}
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = '{name}-1.0-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(wheel_directory, name), 'w') as archive:
        archive.write('{name}.py')
        info = '{name}-1.0.dist-info/'
        facts = 'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\nProvides-Extra: x\\n'
        archive.writestr(info + 'METADATA', facts)
        archive.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        archive.writestr(info + 'RECORD', '')
    return name
"""
    )
    (directory / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        f"[project]\nname = '{name}'\nversion = '1.0'\n"
    )
    return directory


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "ours @ file://{path}", "ours[x] @ file://{path}"])
def test_paths_and_urls_are_requirements(fresh_server, tmp_path, form):
    db = fresh_server()
    path = project(tmp_path / "source", "ours")
    script = "import ours\nGB('ShardsIDReader').map(lambda _: ours.VERSION).run()"
    assert text(db.execute(script, "REQUIREMENTS", form.format(path=path))) == [["of the project"], []]


def test_markers_and_extras_of_what_is_importable_need_no_installation(db):
    ancient = 'cloudpickle; python_version < "3"'
    for requirement in ("cloudpickle>=1", 'cloudpickle; python_version >= "3"', ancient, "redgrease[runtime]"):
        assert text(db.execute(RUN, "REQUIREMENTS", requirement)) == [["1"], []]


@pytest.mark.parametrize("requirement", ["relative/path", "--index-url=http://x", "-e .", "a b"])
def test_what_is_no_requirement_is_named_in_the_error(db, requirement):
    assert f"not a requirement: {requirement!r}" in db.refused(RUN, "REQUIREMENTS", requirement)


def _hanging(tmp_path: Path) -> tuple[Path, Path]:
    """A project whose installation does not end, and the file with its process id."""
    pid = tmp_path / "pid"
    wait = f"open({str(pid)!r}, 'w').write(str(os.getpid()))\nimport time\nwhile True: time.sleep(1)"
    return project(tmp_path / "hanging", "hanging", wait), pid


def _told(pid: Path) -> int:
    return int(wait_until(lambda: pid.exists() and pid.read_text(), "the installation runs"))


def test_requirements_that_are_installed_do_not_wait_for_installations(fresh_server, tmp_path):
    db = fresh_server()
    path, pid = _hanging(tmp_path)
    for number in range(3):
        assert text(db.execute(RUN, "REQUIREMENTS", f"cloudpickle>=0.{number}")) == [["1"], []]
    db.wire().send("RG.PYEXECUTE", RUN, "REQUIREMENTS", str(path))
    _told(pid)
    for number in range(3):
        assert text(db.execute(RUN, "REQUIREMENTS", f"cloudpickle>=0.{number}")) == [["1"], []]


def test_an_installation_that_takes_too_long_is_ended_with_all_that_it_started(fresh_server, tmp_path):
    db = fresh_server(load_args={"InstallMax": 5000})
    path, pid = _hanging(tmp_path)
    waiting = db.wire()
    waiting.send("RG.PYEXECUTE", RUN, "REQUIREMENTS", str(path))
    running = process(_told(pid))
    second = db.wire()
    second.send("RG.PYEXECUTE", RUN, "REQUIREMENTS", str(project(tmp_path / "other", "other")))
    error = waiting.read().text
    assert "not done within InstallMax (5000 ms)" in error
    assert running is not None
    wait_until(lambda: not running.alive(), "the installation has ended")
    answer = second.read()
    assert text(answer) == [["1"], []] or "InstallMax (5000 ms)" in answer.text


def test_an_installation_ends_with_the_server(fresh_server, tmp_path):
    db = fresh_server()
    path, pid = _hanging(tmp_path)
    db.wire().send("RG.PYEXECUTE", RUN, "REQUIREMENTS", str(path))
    running = process(_told(pid))
    db.server.kill()
    assert running is not None
    wait_until(lambda: not running.alive(), "the installation has ended")


def _is_blocked(db, connection) -> bool:
    return any(client["addr"] == connection.address and "b" in client["flags"] for client in db.r.client_list())


def test_installations_of_clients_that_left_are_not_made(fresh_server, tmp_path):
    db = fresh_server(load_args={"InstallMax": 4000})
    path, pid = _hanging(tmp_path)
    db.wire().send("RG.PYEXECUTE", RUN, "REQUIREMENTS", str(path))
    _told(pid)
    made = tmp_path / "made"
    for number in range(10):
        leaving = db.wire()
        source = project(tmp_path / f"p{number}", f"left{number}", f"open({str(made)!r}, 'a').write('x')")
        leaving.send("RG.PYEXECUTE", RUN, "REQUIREMENTS", str(source))
        wait_until(lambda client=leaving: _is_blocked(db, client), "it is queued")
        leaving.close()
    wait_until(lambda: db.r.info("rg_workers")["rg_sessions"], "no session is left", until=lambda count: count == 0)
    assert not made.exists()


def test_errors_hold_no_progress_bars(db, tmp_path):
    broken = project(tmp_path / "broken", "broken", "raise SystemExit('the reason')")
    message = db.refused(RUN, "REQUIREMENTS", str(broken))
    assert "satisfy requirements" in message
    assert not any(sign in message for sign in ("━", "\x1b", "\r", "%"))
