"""Functions act as somebody: the ACL user who ran or registered them."""

from __future__ import annotations

import pytest
import redis


@pytest.fixture
def alice(db):
    """A user who may do everything, but only with keys that begin with `hers:`."""
    db.r.execute_command("ACL", "SETUSER", "alice", "on", ">pw", "~hers:*", "&*", "+@all")
    db.r.set("secret", "s")
    db.r.set("hers:1", "h")
    return db.client(username="alice", password="pw")


def run(client, script):
    return client.execute_command("RG.PYEXECUTE", script)


def test_a_function_may_use_its_user_s_keys(alice):
    assert run(alice, "GB('ShardsIDReader').map(lambda _: execute('get', 'hers:1')).run()") == [[b"h"], []]


def test_a_function_may_not_use_other_keys(alice):
    results, errors = run(alice, "GB('ShardsIDReader').map(lambda _: execute('get', 'secret')).run()")
    assert results == []
    assert b"NOPERM" in errors[0]


def test_a_function_may_not_write_other_keys_while_its_script_is_read(db, alice):
    with pytest.raises(redis.ResponseError, match="NOPERM"):
        run(alice, "execute('set', 'secret', 'stolen')")
    assert db.r.get("secret") == b"s"


def test_a_function_may_not_use_commands_that_its_user_may_not(db):
    db.r.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "&*", "+@all", "-flushall")
    bob = db.client(username="bob", password="pw")
    db.r.set("k", "v")
    assert b"NOPERM" in run(bob, "GB('ShardsIDReader').map(lambda _: execute('flushall')).run()")[1][0]
    assert db.r.get("k") == b"v"


def test_an_atomic_block_acts_as_the_user_too(alice):
    script = """
def step(_):
    with atomic():
        return execute('get', 'secret')
GB('ShardsIDReader').map(step).run()
"""
    assert b"NOPERM" in run(alice, script)[1][0]


@pytest.mark.parametrize("mode", ["async", "async_local", "sync"])
def test_a_registration_acts_as_who_registered_it_whoever_fires_it(db, alice, mode):
    assert run(alice, f"GB('CommandReader').map(lambda x: execute('get', x[1])).register(trigger='t', mode='{mode}')")
    assert db.trigger("t", "hers:1") == ["h"]
    assert "NOPERM" in db.trigger_refused("t", "secret")


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_an_event_function_acts_as_who_registered_it(db, alice, mode):
    run(alice, f"GB().foreach(lambda r: execute('set', 'elsewhere', 1)).register('w:*', mode='{mode}')")
    db.r.set("w:1", "v")
    db.wait_quiet()
    assert "NOPERM" in db.registration().lastError
    assert db.r.get("elsewhere") is None
    assert db.r.ping()


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_after_its_user_is_deleted_a_function_may_do_nothing_more(db, alice, mode):
    run(alice, f"GB('CommandReader').map(lambda x: execute('get', 'hers:1')).register(trigger='t', mode='{mode}')")
    assert db.trigger("t") == ["h"]
    db.r.execute_command("ACL", "DELUSER", "alice")
    message = db.trigger_refused("t")
    assert "alice" in message
    assert db.r.ping()


def test_a_function_that_runs_when_its_user_is_deleted_may_do_nothing_more(db, alice, tmp_path):
    gate = tmp_path / "open"
    script = f"""
import os, time
def step(_):
    execute('set', 'hers:started', 1)
    end = time.monotonic() + 20
    while not os.path.exists({str(gate)!r}) and time.monotonic() < end:
        time.sleep(0.002)
    return execute('get', 'hers:1')
GB('ShardsIDReader').map(step).run()
"""
    execution = alice.execute_command("RG.PYEXECUTE", script, "UNBLOCKING").decode()
    db.wait_key("hers:started")
    db.r.execute_command("ACL", "DELUSER", "alice")
    gate.touch()
    db.wait_status(execution, "done")
    results, errors = db.r.execute_command("RG.GETRESULTS", execution)
    assert results == []
    assert b"NOPERM" in errors[0] and b"alice" in errors[0]


def test_after_its_user_is_deleted_an_event_function_may_do_nothing_more(db, alice):
    run(alice, "GB().foreach(lambda r: execute('incr', 'hers:n')).register('w:*', mode='sync')")
    db.r.set("w:1", "v")
    assert db.r.get("hers:n") == b"1"
    db.r.execute_command("ACL", "DELUSER", "alice")
    db.r.set("w:1", "v")
    assert db.r.get("hers:n") == b"1"
    assert "alice" in db.registration().lastError


def test_a_user_who_lost_a_right_loses_it_in_registered_functions_too(db, alice):
    run(alice, "GB('CommandReader').map(lambda x: execute('get', 'hers:1')).register(trigger='t')")
    assert db.trigger("t") == ["h"]
    db.r.execute_command("ACL", "SETUSER", "alice", "resetkeys", "~nothing")
    assert "NOPERM" in db.trigger_refused("t")


def test_a_user_without_the_right_cannot_run_programs(db):
    db.r.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read")
    reader = db.client(username="reader", password="pw")
    with pytest.raises(redis.ResponseError, match=r"(?i)permission|NOPERM"):
        run(reader, "GB('ShardsIDReader').run()")


def test_a_user_with_the_right_to_trigger_needs_no_other(db):
    db.ok("GB('CommandReader').map(lambda x: execute('get', 'k')).register(trigger='t')")
    db.r.set("k", "v")
    db.r.execute_command("ACL", "SETUSER", "caller", "on", ">pw", "+rg.trigger")
    caller = db.client(username="caller", password="pw")
    assert caller.execute_command("RG.TRIGGER", "t") == [b"v"]
    with pytest.raises(redis.ResponseError):
        caller.get("k")
