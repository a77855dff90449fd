"""Functions that are sent as plan and callbacks: `RG.PYEXECUTE text RUN plan callbacks`, and `REGISTER`."""

from __future__ import annotations

import os
import signal

import pytest
import redgrease
from redgrease import _native
from redgrease.gearialization import SerializedFunction
from redgrease.plan.builder import PlanBuilder
from redis.exceptions import ResponseError

from .waiting import wait_until

NO_PICKLE = b"no pickle"


def words(function) -> list:
    """The option that carries a closed function."""
    found = SerializedFunction(function).words()
    assert found is not None
    return found


def plan(**changes: object) -> bytes:
    """A plan that counts keys, with some of its fields changed."""
    spec = _native.loads(PlanBuilder().count().run("*").spec)
    return _native.dumps({**spec, **changes}, pickle=False)


class Slow:
    """A callback that takes a while to load, and is then the identity."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, record):
        return record

    def __reduce__(self):
        return exec, (f"import time; time.sleep({self.seconds})",)


def test_a_plan_without_user_code_needs_no_worker(db):
    db.r.mset({f"k{number}": number for number in range(30)})
    # Callbacks that only a worker would load are not loaded.
    assert db.run("count", "RUN", plan(), NO_PICKLE) == (["30"], [])
    assert db.run("count", "RUN", plan(), NO_PICKLE, "REQUIREMENTS", "no-such-package-anywhere") == (["30"], [])
    identifier = db.r.execute_command("RG.PYEXECUTE", "count", "UNBLOCKING", "RUN", plan(), NO_PICKLE)
    assert db.r.execute_command("RG.GETRESULTSBLOCKING", identifier) == [[b"30"], []]
    db.r.execute_command("RG.DROPEXECUTION", identifier)
    assert db.r.execute_command("RG.DUMPEXECUTIONS") == []


def test_the_text_is_not_run(db):
    function = words(redgrease.KeysReader().map(lambda record: record["key"]).run())
    db.r.set("k", 1)
    assert db.run("execute('set', 'text', 'was run')", *function) == (["k"], [])
    assert db.r.get("text") is None


def test_callbacks_that_cannot_be_loaded_are_the_error_of_the_request(db):
    action, spec, _ = words(redgrease.KeysReader().map(len).run())
    db.r.set("k", 1)
    for _ in range(3):
        with pytest.raises(ResponseError, match="UnpicklingError"):
            db.execute("broken", action, spec, NO_PICKLE)
    assert db.r.execute_command("RG.DUMPEXECUTIONS") == []
    with pytest.raises(ResponseError, match="UnpicklingError"):
        db.execute(
            "broken", "REGISTER", *words(redgrease.CommandReader().apply(len).register(trigger="x"))[1:2], NO_PICKLE
        )
    assert db.r.execute_command("RG.DUMPREGISTRATIONS") == []


@pytest.mark.parametrize(
    ("action", "spec", "error"),
    [
        ("RUN", b"nonsense", "BADPLAN"),
        ("RUN", plan(mode="sync"), "unknown execution mode"),
        ("RUN", plan(reader="CommandReader"), "reader do not support run"),
        ("RUN", plan(steps=[["fly"]]), "unknown step 'fly'"),
        ("REGISTER", plan(reader="PythonReader"), "does not support register"),
        ("REGISTER", plan(), "BADPLAN the plan's field"),
    ],
)
def test_a_wrong_plan_is_refused_before_a_worker_is_asked(db, action, spec, error):
    with pytest.raises(ResponseError, match=error):
        db.execute("wrong", action, spec, NO_PICKLE)
    for missing in ([], [spec]):
        with pytest.raises(ResponseError, match=f"^{action} is missing"):
            db.execute("wrong", action, *missing)
    assert db.r.execute_command("RG.DUMPEXECUTIONS") == db.r.execute_command("RG.DUMPREGISTRATIONS") == []


def test_a_registration_is_verified_before_it_is_loaded(db):
    action, spec, callbacks = words(redgrease.CommandReader().apply(len).register(trigger="x"))
    assert db.execute("first", action, spec, callbacks) == b"OK"
    with pytest.raises(ResponseError, match="trigger already registered"):
        db.execute("second", action, spec, NO_PICKLE)
    assert db.wire()("RG.TRIGGER", "x", "abc") == [3]


def test_a_registered_function_is_rebuilt_when_its_worker_dies(db):
    def pid():
        return os.getpid()

    gears = redgrease.Gears(db.r)
    pid_of = redgrease.CommandReader().apply(pid).register(trigger="pid", on=gears)
    before = pid_of().value
    for _ in range(2):
        os.kill(before, signal.SIGKILL)
        db.wait_log(f"(pid {before}) was killed by signal 9")
        after = wait_until(lambda: _value_of(pid_of), "the function runs again")
        assert after != before
        before = after


def _value_of(function):
    try:
        return function().value
    except ResponseError:
        return None


def test_a_session_can_be_replaced_by_a_function(db):
    def send(id_, *options, answer):
        function = redgrease.CommandReader().apply(lambda: answer).register(trigger="which")
        return db.execute("f", "ID", id_, *options, *words(function))

    assert send("a", answer="first") == b"OK"
    with pytest.raises(ResponseError, match="already exists"):
        send("a", answer="second")
    assert send("a", "UPGRADE", answer="second") == b"OK"
    assert db.wire()("RG.TRIGGER", "which") == [b"second"]
    assert send("b", "REPLACE_WITH", "a", answer="third") == b"OK"
    assert db.wire()("RG.TRIGGER", "which") == [b"third"]
    assert len(db.r.execute_command("RG.DUMPREGISTRATIONS")) == 1


def test_a_run_can_be_aborted_while_its_callbacks_are_loaded(db):
    db.r.set("k", 1)
    waiting = db.wire()
    waiting.send("RG.PYEXECUTE", "slow", *words(redgrease.KeysReader().map(Slow(1)).run()))
    executions = wait_until(lambda: db.r.execute_command("RG.DUMPEXECUTIONS"), "the execution exists")
    assert db.r.execute_command("RG.ABORTEXECUTION", executions[0][1]) == b"OK"
    assert waiting.read() == [[], []]
    assert db.r.execute_command("RG.DUMPEXECUTIONS") == []


def test_the_first_steps_run_in_the_server_and_the_rest_in_a_worker(db):
    db.r.mset({f"k{number}": number for number in range(30)})
    gears = redgrease.Gears(db.r)
    assert redgrease.KeysReader("k*").count().map(lambda number: number * 2).run(on=gears) == 60
    failed = redgrease.KeysReader("k*").count().map(lambda number: number // 0).run(on=gears)
    assert "ZeroDivisionError" in str(failed.errors[0]) and failed.records == []
    assert redgrease.KeysReader("none*").count().map(str).run(on=gears).records == []
