"""Functions act as somebody: the ACL user who ran or registered them."""

from __future__ import annotations

import pytest
import redis

from .database import text


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


# -- workers belong to one user

#: The process that runs a function.
PID = "import os\nGB('ShardsIDReader').map(lambda _: os.getpid()).run()"


def test_what_a_script_changed_in_its_worker_does_not_reach_another_user(db, alice):
    poison = """
import sys
builder = type(GB('ShardsIDReader'))
run = builder.run
def evil(self, *args, **options):
    try:
        sys._getframe(1).f_globals['execute']('set', 'secret', 'stolen')
    except BaseException:
        pass
    return run(self, *args, **options)
builder.run = evil
"""
    for _ in range(3):
        run(alice, poison)
    for _ in range(3):
        assert db.results("GB('ShardsIDReader').run()") == ["1"]
    assert db.r.get("secret") == b"s"


def test_two_users_have_two_workers_also_where_only_one_may_run(fresh_server):
    db = fresh_server(load_args={"MaxWorkers": 1})
    db.r.execute_command("ACL", "SETUSER", "alice", "on", ">pw", "~*", "&*", "+@all")
    alice = db.client(username="alice", password="pw")
    seen = set()
    for _ in range(2):
        mine, hers = db.results(PID)[0], run(alice, PID)[0][0].decode()
        assert mine != hers
        assert not {mine, hers} & seen
        seen |= {mine, hers}
    assert db.r.info("rg_workers")["rg_workers"] == 1


def test_a_session_waits_while_all_workers_serve_another_user(fresh_server, tmp_path):
    db = fresh_server(load_args={"MaxWorkers": 1})
    db.r.execute_command("ACL", "SETUSER", "alice", "on", ">pw", "~*", "&*", "+@all")
    gate = tmp_path / "open"
    script = f"""
import os, time
def wait(_):
    execute('incr', 'waiting')
    while not os.path.exists({str(gate)!r}): time.sleep(0.002)
    return os.getpid()
GB('ShardsIDReader').map(wait).run()
"""
    first, second, other = db.wire(), db.wire(), db.wire()
    first.send("RG.PYEXECUTE", script)
    db.wait_value("waiting", 1)
    other.send("AUTH", "alice", "pw")
    assert other.read().text == "OK"
    other.send("RG.PYEXECUTE", PID)
    second.send("RG.PYEXECUTE", script)  # shares the worker of its own user
    db.wait_value("waiting", 2)
    assert db.r.info("rg_workers")["rg_workers_shared"] == 1
    gate.touch()
    mine = {text(wire.read())[0][0] for wire in (first, second)}
    hers = text(other.read())[0][0]
    assert len(mine) == 1 and hers not in mine


#: Sends a frame of its own making to the server: a command, as whatever session is named.
FORGE = """
import os, stat
def forge(sessions):
    [carrier] = [int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)
                 and stat.S_ISSOCK(os.fstat(int(n)).st_mode)]
    for session in sessions:
        body = bytes([67, 127, 0, session, 1, 3, 3]) + b'set' + bytes([6]) + b'secret' + bytes([6]) + b'stolen'
        os.write(carrier, len(body).to_bytes(4, 'little') + body)
    return 'sent'
"""


def test_a_frame_that_names_another_user_s_session_is_refused_and_logged(fresh_server):
    db = fresh_server()
    db.r.execute_command("ACL", "SETUSER", "alice", "on", ">pw", "~hers:*", "&*", "+@all")
    alice = db.client(username="alice", password="pw")
    db.ok("GB('CommandReader').map(lambda x: 1).register(trigger='t')")
    script = FORGE + "\nGB('ShardsIDReader').map(lambda _: forge(range(1, 20))).run()"
    assert run(alice, script) == [[b"sent"], []]
    db.wait_log("refused a frame that names session")
    assert db.r.get("secret") is None
    assert db.trigger("t") == ["1"]
