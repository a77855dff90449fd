"""RG.PYEXECUTE: valid scripts, options, and the shapes of the replies."""

from __future__ import annotations

import os
import signal
import zipfile
from pathlib import Path

import pytest

from .database import text
from .resp import Err, Simple

STANDALONE_SHARD = "0" * 40


def test_a_script_that_creates_nothing_answers_ok(db):
    assert db.wire()("RG.PYEXECUTE", "x = 1") == Simple("OK")


@pytest.mark.parametrize("script", ["", " ", "\n\n", "# only a comment", "pass"])
def test_an_empty_script_answers_ok(db, script):
    assert db.wire()("RG.PYEXECUTE", script) == Simple("OK")


def test_an_empty_script_answers_ok_to_unblocking_too(db):
    assert db.wire()("RG.PYEXECUTE", "", "UNBLOCKING") == Simple("OK")


def test_a_run_answers_results_and_errors(db):
    db.r.mset({"a": 1, "b": 2})
    results, errors = db.wire()("RG.PYEXECUTE", "GB().map(lambda x: x['key']).run()")
    assert sorted(results) == [b"a", b"b"]
    assert errors == []


def test_a_failing_step_answers_no_result_and_one_error_with_a_traceback(db):
    db.r.set("a", 1)
    results, errors = db.run("GB().map(lambda x: q).run()")
    assert results == []
    [error] = errors
    assert error.startswith("['Traceback (most recent call last):\\n'")
    assert 'File "<string>", line 1, in <lambda>' in error
    assert "NameError: name 'q' is not defined" in error
    assert "\n" not in error and "\r" not in error


def test_a_script_that_raises_answers_its_traceback_as_error(db):
    reply = db.wire()("RG.PYEXECUTE", "1/0")
    assert isinstance(reply, Err)
    assert reply.text.startswith("['Traceback (most recent call last):\\n'")
    assert "ZeroDivisionError: division by zero" in reply.text


def test_a_syntax_error_is_named(db):
    assert "invalid syntax" in db.refused("GB(.run()")


def test_the_traceback_shows_no_frames_of_ours(db):
    assert "redgrease" not in db.refused("def f():\n    raise ValueError('mine')\nf()")


@pytest.mark.single("it compares identifiers or replies of one server")
def test_unblocking_answers_an_execution_id_at_once(db):
    execution = db.start("GB('ShardsIDReader').map(lambda x: execute('blpop', 'never', '0')).run()")
    shard, _, number = execution.rpartition("-")
    assert shard == STANDALONE_SHARD
    assert number.isdigit()


def test_the_same_script_can_be_run_again_and_again(db):
    db.r.mset({"a": 1, "b": 2, "c": 3})
    for _ in range(20):
        assert db.results("GB().count().run()") == ["3"]


def test_a_blocking_run_leaves_nothing_in_the_execution_list(db):
    db.results("GB('ShardsIDReader').run()")
    assert db.executions() == []


def test_a_second_run_in_a_script_is_refused(db):
    db.r.set("a", 1)
    assert "more then 1" in db.refused("GB().run()\nGB().run()")
    assert db.executions() == []


def test_register_answers_ok_even_to_unblocking(db):
    assert db.wire()("RG.PYEXECUTE", "GB('CommandReader').register(trigger='t')", "UNBLOCKING") == Simple("OK")


def test_a_script_that_registers_and_runs_answers_ok_and_keeps_the_execution(db):
    db.r.set("a", 1)
    db.ok("GB('CommandReader').register(trigger='t')\nGB().count().run()")
    db.wait_quiet()
    [execution] = [e for e in db.executions() if not e.registered]
    assert execution.status == "done"
    assert text(db.r.execute_command("RG.GETRESULTS", execution.id)) == [["1"], []]
    assert db.trigger("t") == ["['t']"]


def test_a_script_that_fails_after_registering_registers_nothing(db):
    db.refused("GB('CommandReader').register(trigger='t')\nraise ValueError('too late')")
    assert db.registrations() == []
    assert "not found" in db.trigger_refused("t")


def test_a_script_that_fails_after_run_leaves_no_execution(db):
    db.refused("GB('ShardsIDReader').run()\nraise ValueError('too late')")
    assert db.executions() == []


def test_globals_of_one_script_are_invisible_to_the_next(db):
    script = "assert 'mine' not in globals()\nmine = 1\nGB('ShardsIDReader').run()"
    for _ in range(5):
        assert db.results(script) == ["1"]


def test_a_script_is_the_main_program(db):
    script = "if __name__ == '__main__':\n    GB('ShardsIDReader').map(lambda _: __name__).run()"
    assert db.results(script) == ["__main__"]


def test_a_script_may_define_functions_classes_and_import_modules(db):
    script = """
import json
from dataclasses import dataclass

@dataclass
class Point:
    x: int
    def doubled(self):
        return Point(self.x * 2)

def convert(record):
    return json.dumps({'x': Point(21).doubled().x})

GB('ShardsIDReader').map(convert).run()
"""
    assert db.results(script) == ['{"x": 42}']


@pytest.mark.parametrize("option", ["ID", "REPLACE_WITH", "DESCRIPTION"])
def test_an_option_without_its_value_is_named(db, option):
    assert db.refused("GB().run()", option) == f"{option} is missing"


def test_an_unknown_option_is_named(db):
    assert db.refused("GB().run()", "UNBLOCKING", "NONSENSE") == "Unknown arguments were given: NONSENSE"


@pytest.mark.parametrize("name", ["with space", "semi;colon", "ünïcode", ""])
def test_a_session_id_of_other_characters_is_refused(db, name):
    assert "must be compose of" in db.refused("GB('ShardsIDReader').run()", "ID", name)


def test_the_options_are_words_in_any_case_and_order(db):
    reply = db.execute("GB('ShardsIDReader').run()", "description", "d", "Id", "some-id_1", "REQUIREMENTS")
    assert text(reply) == [["1"], []]


def test_a_script_is_required(db):
    reply = db.wire()("RG.PYEXECUTE")
    assert isinstance(reply, Err)
    assert "wrong number of arguments" in reply.text


def test_a_session_that_owns_a_registration_occupies_its_id(db):
    db.ok("GB('CommandReader').register(trigger='t')", "ID", "mine")
    assert "Session mine already exists" in db.refused("GB('CommandReader').register(trigger='u')", "ID", "mine")
    assert [r.args["trigger"] for r in db.registrations()] == ["t"]


def test_a_session_that_only_ran_does_not_occupy_its_id(db):
    for _ in range(3):
        assert text(db.execute("GB('ShardsIDReader').run()", "ID", "mine")) == [["1"], []]


def test_a_requirement_that_can_be_imported_already_is_accepted(db):
    script = "import cloudpickle\nGB('ShardsIDReader').map(lambda _: cloudpickle.__name__).run()"
    assert text(db.execute(script, "REQUIREMENTS", "cloudpickle")) == [["cloudpickle"], []]


def test_a_requirement_named_redgrease_is_always_our_own_package(db):
    script = "import redgrease\nGB('ShardsIDReader').map(lambda _: redgrease.__name__).run()"
    assert text(db.execute(script, "REQUIREMENTS", "redgrease[runtime]>=0.3")) == [["redgrease"], []]


def test_a_requirement_that_cannot_be_installed_is_refused_and_nothing_runs(db):
    name = "surely-no-such-distribution-9f3b2c"
    message = db.refused("execute('set', 'ran', '1')", "REQUIREMENTS", name)
    assert "satisfy requirements" in message
    assert db.r.get("ran") is None


@pytest.mark.parametrize("requirement", ["; touch pwned", "$(touch pwned)", "-r /etc/passwd", "not a name at all"])
def test_a_requirement_never_reaches_a_shell(db, requirement):
    db.refused("GB('ShardsIDReader').run()", "REQUIREMENTS", requirement)
    assert not (db.server.directory / "pwned").exists()
    assert db.r.ping()


def wheel(directory: Path, version: str) -> str:
    """Make a wheel of a package that contains its version; return the requirement that names it."""
    path = directory / f"tinything-{version}-py3-none-any.whl"
    info = f"tinything-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tinything.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinything\nVersion: {version}\n")
        facts = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", facts)
        archive.writestr(f"{info}/RECORD", "")
    return f"tinything @ {path.as_uri()}"


def test_two_sets_of_requirements_hold_two_versions_of_a_package(db, tmp_path):
    register = "import tinything\nGB('CommandReader').map(lambda _: tinything.VERSION).register(trigger='%s')"
    for name, version in (("one", "1.0"), ("two", "2.0")):
        assert db.execute(register % name, "REQUIREMENTS", wheel(tmp_path, version)) == b"OK"
    assert (db.trigger("one"), db.trigger("two")) == (["1.0"], ["2.0"])
    assert "No module named 'tinything'" in db.failure("import tinything")
    run = "import tinything\nGB('ShardsIDReader').map(lambda _: tinything.VERSION).run()"
    assert text(db.execute(run, "REQUIREMENTS", wheel(tmp_path, "1.0"))) == [["1.0"], []]


def test_a_session_with_requirements_is_rebuilt_with_them(db, tmp_path):
    script = """
import os, tinything
GB('CommandReader').map(lambda _: tinything.VERSION).register(trigger='t')
GB('CommandReader').map(lambda _: os.getpid()).register(trigger='pid')
"""
    db.execute(script, "REQUIREMENTS", wheel(tmp_path, "3.0"))
    pid = int(db.trigger("pid")[0])
    os.kill(pid, signal.SIGKILL)
    db.wait_log(f"(pid {pid}) was killed by signal 9")
    assert db.trigger("t") == ["3.0"]


@pytest.mark.single("it compares identifiers or replies of one server")
def test_infocluster_answers_no_cluster_mode(db):
    assert db.wire()("RG.INFOCLUSTER") == b"no cluster mode"


def test_refreshcluster_answers_ok(db):
    assert db.wire()("RG.REFRESHCLUSTER") == Simple("OK")


def test_pystats_counts_the_memory_of_the_live_workers(db):
    db.ok("GB('CommandReader').register(trigger='t')")
    names, values = (lambda reply: (reply[::2], reply[1::2]))(db.wire()("RG.PYSTATS"))
    assert names == [b"TotalAllocated", b"PeakAllocated", b"CurrAllocated"]
    assert all(isinstance(v, int) and v > 0 for v in values)


def test_of_two_scripts_with_the_same_id_that_run_together_the_later_one_is_refused_or_replaces(db):
    def script(trigger: str) -> str:
        waits = "while not execute('GET', 'go'):\n    time.sleep(0.01)"
        return f"import time\nexecute('INCR', 'begun')\n{waits}\nGB('CommandReader').register(trigger={trigger!r})"

    wires = [db.wire() for _ in range(3)]
    for number, wire in enumerate(wires):
        wire.send("RG.PYEXECUTE", script(f"t{number}"), "ID", "same", *(["UPGRADE"] if number == 2 else []))
    db.wait_value("begun", 3)
    db.r.set("go", "yes")
    first, second, upgrade = [wire.read() for wire in wires]
    refused = [reply for reply in (first, second) if isinstance(reply, Err)]
    assert refused and all("already exists" in reply.text for reply in refused), (first, second)
    assert upgrade == Simple("OK")
    assert len(db.registrations()) == 1
