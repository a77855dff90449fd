"""CLIENT PAUSE, MULTI and Lua: when a server must not be written to, or cannot wait."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from .database import text
from .resp import Err
from .waiting import wait_until

GATE = """
import os, time
def through_gate():
    end = time.monotonic() + 20
    while not os.path.exists({gate!r}) and time.monotonic() < end:
        time.sleep(0.002)
"""


@pytest.fixture
def gate(tmp_path):
    """A file that a function waits for: it can be created while the server accepts no writes."""
    return tmp_path / "open"


def test_an_async_function_that_writes_while_writes_are_paused_does_not_kill_the_server(db, gate):
    script = (
        GATE.format(gate=str(gate))
        + """
def step(_):
    execute('set', 'started', 1)
    through_gate()
    return execute('incr', 'n')
GB('ShardsIDReader').map(step).run()
"""
    )
    execution = db.start(script)
    db.wait_key("started")
    db.r.execute_command("CLIENT", "PAUSE", "600", "WRITE")
    paused = time.monotonic()
    gate.touch()
    while time.monotonic() - paused < 0.4:
        assert db.r.get("n") is None, "a write landed while writes were paused"
    db.wait_status(execution, "done")
    assert text(db.r.execute_command("RG.GETRESULTS", execution)) == [["1"], []]
    assert db.r.get("n") == b"1"


def test_an_event_function_that_writes_while_writes_are_paused_waits(db, gate):
    db.ok(
        GATE.format(gate=str(gate))
        + """
def step(r):
    through_gate()
    execute('incr', 'n')
GB().foreach(step).register('w:*', readValue=False)
"""
    )
    for number in range(3):
        db.r.set(f"w:{number}", "v")
    db.r.execute_command("CLIENT", "PAUSE", "500", "WRITE")
    gate.touch()
    assert db.r.get("n") is None
    db.wait_value("n", 3)


def test_a_stream_function_acknowledges_after_a_pause(db, gate):
    db.ok(
        GATE.format(gate=str(gate))
        + """
def step(r):
    through_gate()
GB('StreamReader').foreach(step).register('s')
"""
    )
    db.r.xadd("s", {"f": "v"})
    wait_until(lambda: [e for e in db.executions() if e.status == "running"], "the function runs")
    db.r.execute_command("CLIENT", "PAUSE", "500", "WRITE")
    gate.touch()
    wait_until(lambda: db.r.xlen("s"), "the entry is acknowledged and trimmed", until=lambda n: n == 0)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_trigger_that_writes_is_postponed_by_the_server(db, mode):
    db.ok(f"GB('CommandReader').map(lambda x: execute('incr', 'n')).register(trigger='t', mode='{mode}')")
    db.r.execute_command("CLIENT", "PAUSE", "400", "WRITE")
    began = time.monotonic()
    assert db.trigger("t") == ["1"]
    assert time.monotonic() - began > 0.2


def test_reading_functions_go_on_while_writes_are_paused(db, gate):
    db.r.set("k", "v")
    script = (
        GATE.format(gate=str(gate))
        + """
def step(_):
    execute('set', 'started', 1)
    through_gate()
    return execute('get', 'k')
GB('ShardsIDReader').map(step).run()
"""
    )
    execution = db.start(script)
    db.wait_key("started")
    db.r.execute_command("CLIENT", "PAUSE", "5000", "WRITE")
    gate.touch()
    began = time.monotonic()
    db.wait_status(execution, "done")
    assert time.monotonic() - began < 3
    db.r.execute_command("CLIENT", "UNPAUSE")
    assert text(db.r.execute_command("RG.GETRESULTS", execution)) == [["v"], []]


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_pause_of_everything_is_survived(db):
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', readValue=False)")
    for number in range(50):
        db.r.set(f"w:{number}", "v")
    db.r.execute_command("CLIENT", "PAUSE", "300", "ALL")
    db.wait_value("n", 50)


# -- busy Lua scripts


def test_writes_of_workers_do_not_land_in_the_middle_of_a_busy_script(db):
    db.r.config_set("busy-reply-threshold", 20)
    try:
        db.r.set("n", 0)
        script = """
import time
def count(_):
    end = time.monotonic() + 10
    while execute('get', 'enough') is None and time.monotonic() < end:
        execute('incr', 'n')
GB('ShardsIDReader').map(count).run()
"""
        execution = db.start(script)
        wait_until(lambda: int(db.r.get("n")), "the function counts", until=lambda n: n > 10)
        before, after = db.r.eval(
            """
            local first = redis.call('get', KEYS[1])
            local function now() local t = redis.call('time'); return t[1] * 1000 + t[2] / 1000 end
            local start = now()
            while now() - start < 300 do end
            return {first, redis.call('get', KEYS[1])}
            """,
            1,
            "n",
        )
        assert before == after
        wait_until(lambda: int(db.r.get("n")), "the function continues to count", until=lambda n: n > int(after))
        db.r.set("enough", 1)
        db.wait_status(execution, "done")
    finally:
        db.r.config_set("busy-reply-threshold", 5000)


def test_a_run_asked_for_while_a_script_is_busy_is_answered_busy_or_later(db):
    db.r.config_set("busy-reply-threshold", 20)
    try:
        spinner = threading.Thread(target=_spin, args=(db,))
        spinner.start()
        began = time.monotonic()
        while time.monotonic() - began < 0.2:
            try:
                assert db.results("GB('ShardsIDReader').run()") == ["1"]
            except redis.ResponseError as error:
                assert "BUSY" in str(error) or "busy" in str(error).lower()
        spinner.join(10)
    finally:
        db.r.config_set("busy-reply-threshold", 5000)
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def _spin(db) -> None:
    with db.server.client() as client:
        client.eval(
            """
            local function now() local t = redis.call('time'); return t[1] * 1000 + t[2] / 1000 end
            local start = now()
            while now() - start < 300 do end
            """,
            0,
        )


# -- MULTI and Lua


NOT_HERE = "Can not run gears inside a multi exec, lua, or when blocking is not allowed"
NOT_SYNC = "can not run a non-sync execution inside a MULTI/LUA (blocking is not allowed) or on loading."


def in_multi(db, *command: object):
    """The reply of one command inside MULTI/EXEC, as on the wire."""
    wire = db.wire()
    wire("MULTI")
    wire(*command)
    return wire("EXEC")


def in_lua(db, *command: object):
    wire = db.wire()
    return wire("EVAL", "return redis.pcall(unpack(ARGV))", 0, *command)


@pytest.mark.parametrize("context", [in_multi, in_lua])
def test_pyexecute_is_refused(db, context):
    reply = context(db, "RG.PYEXECUTE", "GB('ShardsIDReader').run()")
    [error] = reply if isinstance(reply, list) else [reply]
    assert NOT_HERE in error.text


def test_an_async_trigger_is_refused_in_multi(db):
    db.ok("GB('CommandReader').register(trigger='t')")
    assert in_multi(db, "RG.TRIGGER", "t") == [Err("ERR " + NOT_SYNC)]


def test_an_async_trigger_is_refused_in_lua(db):
    db.ok("GB('CommandReader').register(trigger='t')")
    assert NOT_SYNC in in_lua(db, "RG.TRIGGER", "t").text


@pytest.mark.parametrize("context", [in_multi, in_lua])
def test_a_sync_trigger_works(db, context):
    db.ok("GB('CommandReader').map(lambda x: execute('incr', 'n')).register(trigger='t', mode='sync')")
    assert context(db, "RG.TRIGGER", "t") in ([[b"1"]], [b"1"])
    assert db.r.get("n") == b"1"


@pytest.mark.parametrize("context", [in_multi, in_lua])
@pytest.mark.parametrize("command", ["RG.GETRESULTSBLOCKING", "RG.ABORTEXECUTION"])
def test_commands_that_wait_are_refused(db, context, command):
    execution = db.start("import time\nGB('ShardsIDReader').map(lambda _: time.sleep(600)).run()")
    db.wait_status(execution, "running")
    reply = context(db, command, execution)
    [error] = reply if isinstance(reply, list) else [reply]
    assert isinstance(error, Err)
    assert db.r.ping()
    assert db.status(execution) == "running"


@pytest.mark.parametrize("context", [in_multi, in_lua])
def test_looking_things_up_works(db, context):
    execution = db.start("GB('ShardsIDReader').run()")
    db.wait_status(execution, "done")
    assert context(db, "RG.GETRESULTS", execution) in ([[[b"1"], []]], [[b"1"], []])
    assert context(db, "RG.DUMPREGISTRATIONS") in ([[]], [])
