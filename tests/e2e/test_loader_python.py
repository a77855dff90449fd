"""`redgrease.loader` and `redgrease.cli`: the loader from Python."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from redgrease import cli
from redgrease.loader import GearsLoader, fail

from .loading import DELAY, Loading, Watching, command, seconds_until
from .servers import free_port
from .test_loader import HELLO, registrations, trigger
from .test_requirements import project
from .waiting import wait_until


@pytest.fixture
def loading(db, tmp_path: Path) -> Loading:
    return Loading(tmp_path, db.server.port)


def loader(loading: Loading, **options: object) -> GearsLoader:
    return GearsLoader(server="127.0.0.1", port=loading.port, **options)


def test_files_and_directories(db, loading, caplog):
    caplog.set_level(logging.INFO, "redgrease.loader")
    script = loading.write("hello.py", HELLO)
    loading.write("below/other.py", command("other", 2))
    with loader(loading) as one:
        one.add_file(str(script))
        assert trigger(db) == "one"
        one.add_directory(loading.scripts, recursive=True)
        assert trigger(db, "other") == "2"
        assert one.directories == {loading.scripts}
        assert one.failed == []
        assert one.redis.ping()
        one.unregister_script(script)
        assert trigger(db) is None
        one.register_script(script)
        assert trigger(db) == "one"
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert messages.count(f"{script}: loaded (1 registration)") == 2


def test_patterns_and_prefix(db, loading):
    loading.write("a.gear", command("a", 1))
    loading.write("_b.gear", command("b", 2))
    loading.write("c.gear", command("c", 3))
    with loader(loading, script_pattern="*.gear", ignore_patterns="c*", index_prefix="mine") as one:
        one.add_directory(str(loading.scripts))
        assert (one.script_pattern, one.ignore_patterns, one.index_prefix) == ("*.gear", ["c*"], "mine")
    assert [trigger(db, name) for name in "abc"] == ["1", "2", None]
    assert all(key.startswith(b"mine/") for key in db.r.keys("*"))


@pytest.mark.parametrize("pattern", ["^/.*un.*ed", re.compile("un.*ed")])
def test_scripts_that_are_not_waited_for(loading, caplog, pattern):
    caplog.set_level(logging.INFO, "redgrease.loader")
    script = loading.write("unblocked.py", "GB('ShardsIDReader').run()\n")
    with loader(loading, unblocking_pattern=pattern) as one:
        one.add_file(script)
    assert "loaded (execution " in caplog.text


def test_requirements(db, loading):
    source = project(loading.folder / "source", "ours")
    listed = loading.write("requirements.txt", f"ours @ file://{source}\n")
    script = loading.write(
        "hello.py", "import ours\nGB('CommandReader').map(lambda _: ours.VERSION).register(trigger='hello')\n"
    )
    with loader(loading) as one:
        one.update_dependencies(listed)
        one.register_script(script)
    assert trigger(db) == "of the project"


def test_changed_files_are_loaded_again(db, loading):
    script = loading.write("hello.py", HELLO)
    with loader(loading, observe=DELAY) as one:
        one.add_directory(loading.scripts)
        one.start()
        one.start()
        script.write_text(command("hello", "two"))
        seconds_until(lambda: trigger(db), "two")
        late = loading.folder / "late.py"
        late.write_text(command("late", 1))
        one.add_file(late)
        late.write_text(command("late", 2))
        seconds_until(lambda: trigger(db, "late"), "2")
        script.unlink()
        seconds_until(lambda: registrations(db), 1)
        one.stop()
        one.stop()
    with loader(loading) as one, pytest.raises(RuntimeError, match="observe=SECONDS"):
        one.start()


def test_a_loader_that_is_forgotten_ends(loading):
    one = loader(loading, observe=DELAY)
    one.add_directory(loading.scripts)
    one.start()
    assert "redgrease-loade" in threads()
    del one
    wait_until(threads, "its thread has ended", until=lambda found: "redgrease-loade" not in found)


def threads() -> set[str]:
    """The names of the threads of this process, up to 15 characters."""
    names = set()
    for number in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):  # it has ended
            names.add(Path(f"/proc/self/task/{number}/comm").read_text().strip())
    return names


def test_errors_of_scripts_are_logged(db, loading, caplog):
    broken = loading.write("a.py", "1 / 0\n")
    loading.write("b.py", HELLO)
    with loader(loading) as one:
        one.add_directory(loading.scripts)
        assert one.failed == [broken]
        one.register_script(broken)
    assert trigger(db) == "one"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2 and all("ZeroDivisionError: division by zero" in record.getMessage() for record in errors)


def test_bad_input(loading):
    with loader(loading) as one:
        for method in (one.add_file, one.add_directory, one.register_script, one.update_dependencies):
            with pytest.raises(FileNotFoundError, match="no/such"):
                method("no/such")
    for options in ({"unblocking_pattern": 7}, {"unblocking_pattern": "("}, {"script_pattern": "["}, {"observe": -1}):
        with pytest.raises(ValueError):
            loader(loading, **options)
    with pytest.raises(redis.exceptions.ConnectionError, match="no server answers"):
        GearsLoader(server="127.0.0.1", port=free_port())


def test_fail_logs_and_raises(caplog):
    with pytest.raises(OSError, match=r"^one\. two$"):
        fail(OSError, "one", "two")
    with pytest.raises(KeyError):
        fail(KeyError("x"), "one")
    assert [record.getMessage() for record in caplog.records] == ["one. two", "one"]


def test_main_parses_when_it_is_called(db, loading, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["redgrease", "--no-such-option"])
    loading.write("hello.py", HELLO)
    words = ["--port", str(db.server.port)]
    before = signal.getsignal(signal.SIGTERM)
    root = logging.getLogger()
    state = root.level, list(root.handlers), [handler.formatter for handler in root.handlers]
    try:
        assert cli.main([*words, str(loading.scripts)]) == 0
        assert cli.main([*words, "/no/such.py"]) == 8
        assert cli.main(["--port", "x", "y"]) == 2
        assert cli.main([*words, "-l", "/no/such.ini", str(loading.scripts)]) == 2
        with pytest.raises(SystemExit) as raised:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
        root.setLevel(state[0])
        root.handlers[:] = state[1]
        for handler, formatter in zip(state[1], state[2]):
            handler.setFormatter(formatter)
    assert raised.value.code == 2
    assert trigger(db) == "one"
    said = capsys.readouterr().err
    assert '--port: "x" is not a port\nfix: ' in said and "unexpected argument '--no-such-option'" in said


def test_the_module_is_a_program_that_signals_end(db, loading):
    script = loading.write("hello.py", HELLO)
    for number in (signal.SIGINT, signal.SIGTERM):
        words = [sys.executable, "-m", "redgrease.cli", "-p", str(db.server.port), "-w", str(DELAY), str(script)]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=loading.environment)
        watching = Watching(process)
        try:
            watching.wait_for("watching;")
            script.write_text(command("hello", number.name))
            seconds_until(lambda number=number: trigger(db), number.name)
            assert watching.stop(number) == 0
            line = watching.lines[0].split("\t")
            assert line[1] == "INFO" and line[2].startswith("redgrease.loader.") and line[-1] == "EOL"
        finally:
            watching.end()
