"""The module loads into unmodified servers, finds its interpreter, and cleans up."""

from __future__ import annotations

import signal
import stat
import sys
from pathlib import Path

import pytest

from .database import text
from .processes import workers_of
from .servers import MODULE, DidNotStartError, Server
from .waiting import wait_until


def _modules(db) -> dict[str, dict[str, object]]:
    """MODULE LIST by name."""
    found = {}
    for entry in db.r.execute_command("MODULE LIST"):
        fields = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2]))
        fields = {text(k): text(v) for k, v in fields.items()}
        found[fields["name"]] = fields
    return found


def test_the_module_is_listed_as_rg(db):
    rg = _modules(db)["rg"]
    assert int(rg["ver"]) > 0


def test_a_run_works_right_after_the_server_is_ready(fresh_server):
    db = fresh_server()
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_the_module_can_be_loaded_into_a_running_server(fresh_server):
    db = fresh_server(with_module=False)
    assert "rg" not in _modules(db)
    db.r.execute_command("MODULE", "LOAD", str(MODULE), "Python", sys.executable)
    assert "rg" in _modules(db)
    db.r.set("k", "v")
    assert db.results("GB('KeysOnlyReader').run()") == ["k"]


def test_without_a_python_argument_the_environment_variable_is_used(fresh_server):
    db = fresh_server(python=None, env={"REDGREASE_PYTHON": sys.executable})
    [prefix] = db.results("import sys\nGB('ShardsIDReader').map(lambda _: sys.prefix).run()")
    assert prefix == sys.prefix


def test_texts_of_the_configuration_file_are_settings(fresh_server, tmp_path):
    db = fresh_server(python=None, conf={"rg.Python": sys.executable, "rg.RequirementsDir": str(tmp_path / "Ä b")})
    [prefix] = db.results("import sys\nGB('ShardsIDReader').map(lambda _: sys.prefix).run()")
    assert prefix == sys.prefix
    shown = {text(key).lower(): text(value) for key, value in db.r.config_get("rg.*").items()}
    assert shown["rg.python"] == sys.executable
    assert shown["rg.requirementsdir"] == str(tmp_path / "Ä b")
    assert shown["rg.workeruser"] == ""
    assert text(db.r.execute_command("RG.CONFIGGET", "Python")[0]) == sys.executable


def test_a_load_argument_is_the_default_of_its_setting(fresh_server, tmp_path):
    writable = tmp_path / "%s%n"
    writable.mkdir()
    db = fresh_server(load_args={"WorkerWritable": writable})
    assert [text(value) for value in db.r.config_get("rg.WorkerWritable").values()] == [str(writable)]


def test_without_any_hint_the_environment_beside_the_build_is_used(fresh_server):
    home = MODULE.parents[2] / ".venv"
    if MODULE.parent.name != "release" or not (home / "bin" / "python3").exists():
        pytest.skip(f"no environment at {home}: the module under test does not lie where `make build` leaves it")
    db = fresh_server(python=None)
    [prefix] = db.results("import sys\nGB('ShardsIDReader').map(lambda _: sys.prefix).run()")
    assert Path(prefix).resolve() == home.resolve()


def test_a_missing_interpreter_does_not_stop_the_server_and_the_first_error_names_it(fresh_server):
    db = fresh_server(python="/nowhere/python3")
    assert db.r.ping()
    db.r.set("k", "v")
    assert "/nowhere/python3" in db.server.log()
    for _ in range(2):
        assert "/nowhere/python3" in db.failure("GB().count().run()")
    assert db.r.get("k") == b"v"


def test_an_interpreter_without_the_package_says_so(fresh_server, tmp_path):
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(bare.stat().st_mode | stat.S_IXUSR)
    db = fresh_server(python=str(bare))
    assert db.r.ping()
    message = db.failure("GB().count().run()")
    assert "redgrease" in message
    assert str(bare) in message
    assert db.r.ping()


def test_load_arguments_are_accepted_in_any_case_and_order(fresh_server):
    db = fresh_server(load_args={"maxexecutions": 2, "EXECUTIONTHREADS": 2})
    for _ in range(4):
        db.wait_status(db.start("GB('ShardsIDReader').run()"), "done")
    assert len(db.executions()) == 2


def test_a_bad_value_of_a_load_argument_stops_loading_and_is_named_in_the_log(server_kind):
    with pytest.raises(DidNotStartError, match="ExecutionThreads"):
        Server(server_kind, load_args={"ExecutionThreads": "many"}).start()


def test_commands_that_run_programs_are_for_administrators(db):
    flags = _command_flags(db, "rg.pyexecute")
    assert "admin" in flags
    assert "readonly" not in flags


def test_a_trigger_is_no_read_only_command(db):
    assert "readonly" not in _command_flags(db, "rg.trigger")


def _command_flags(db, name: str) -> set[str]:
    [info] = db.wire()("COMMAND", "INFO", name)
    return {flag.text for flag in info[2]}


def test_a_polite_shutdown_leaves_no_worker_process(fresh_server):
    db = fresh_server()
    db.ok("GB('CommandReader').register(trigger='t')")
    workers = db.server.workers()
    assert workers
    db.r.execute_command("RG.TRIGGER", "t")
    db.server.stop()
    assert not any(w.alive() for w in workers)


def test_a_killed_server_leaves_no_worker_process(fresh_server):
    db = fresh_server()
    db.ok("GB('CommandReader').register(trigger='t')")
    db.start("import time\nGB('ShardsIDReader').map(lambda _: time.sleep(600)).run()")
    workers = workers_of(db.server.pid)
    assert workers
    db.server.process.send_signal(signal.SIGKILL)
    db.server.process.wait(10)
    wait_until(
        lambda: [w.pid for w in workers if w.alive()],
        "the workers noticed that their server is gone",
        until=lambda left: not left,
    )


def test_a_shutdown_in_the_middle_of_a_run_is_prompt_and_clean(fresh_server):
    db = fresh_server()
    db.start("GB('ShardsIDReader').map(lambda _: exec('while True: pass')).run()")
    workers = db.server.workers()
    db.server.stop()
    assert db.server.exit_code() == 0, db.server.log()
    assert not any(w.alive() for w in workers)


def test_the_server_answers_resp3_clients_too(db):
    db.r.set("k", "v")
    reply = db.wire(resp3=True)("RG.PYEXECUTE", "GB('KeysOnlyReader').run()")
    assert reply == [[b"k"], []]


def test_a_clean_stop_is_without_warnings_of_the_module(fresh_server):
    db = fresh_server()
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*')")
    db.r.set("w:1", "v")
    db.wait_value("n", 1)
    process = db.server.process
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    log = db.server.log()
    assert "failed" not in log and "Error unloading" not in log, log
