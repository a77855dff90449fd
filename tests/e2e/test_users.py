"""Functions act as the ACL user who ran or registered them."""

from __future__ import annotations

import pytest
import redis

from .database import text
from .waiting import wait_until


@pytest.fixture
def alice(db):
    """A user who may run all commands, but only on keys that begin with `hers:`."""
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
def test_a_registration_acts_as_the_user_that_registered_it(db, alice, mode):
    assert run(alice, f"GB('CommandReader').map(lambda x: execute('get', x[1])).register(trigger='t', mode='{mode}')")
    assert db.trigger("t", "hers:1") == ["h"]
    assert "NOPERM" in db.trigger_refused("t", "secret")


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_an_event_function_acts_as_who_registered_it(db, alice, mode):
    run(alice, f"GB().foreach(lambda r: execute('set', 'elsewhere', 1)).register('hers:w:*', mode='{mode}')")
    db.r.set("hers:w:1", "v")
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
    run(alice, "GB().foreach(lambda r: execute('incr', 'hers:n')).register('hers:w:*', mode='sync')")
    db.r.set("hers:w:1", "v")
    assert db.r.get("hers:n") == b"1"
    db.r.execute_command("ACL", "DELUSER", "alice")
    db.r.set("hers:w:1", "v")
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


def test_what_a_script_changed_in_its_worker_does_not_reach_another_user(db):
    # A user for this test only: its later scripts may run in the changed worker.
    db.r.execute_command("ACL", "SETUSER", "eve", "on", ">pw", "~hers:*", "&*", "+@all")
    eve = db.client(username="eve", password="pw")
    db.r.set("secret", "s")
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
        run(eve, poison)
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


#: Sends a forged frame to the server: a command on behalf of any session.
FORGE = """
import os, stat
def forge(sessions):
    [carrier] = [int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)
                 and stat.S_ISSOCK(os.fstat(int(n)).st_mode)]
    for session in sessions:
        body = bytes([2, 0, session, 127, 0, 3, 3]) + b'set' + bytes([6]) + b'secret' + bytes([6]) + b'stolen'
        os.write(carrier, len(body).to_bytes(4, 'little') + body)
    return 'sent'
"""


def test_a_frame_that_names_another_user_s_session_is_refused_and_logged(fresh_server):
    db = fresh_server(load_args={"SharedMemory": 0})
    db.r.execute_command("ACL", "SETUSER", "alice", "on", ">pw", "~hers:*", "&*", "+@all")
    alice = db.client(username="alice", password="pw")
    db.ok("GB('CommandReader').map(lambda x: 1).register(trigger='t')")
    script = FORGE + "\nGB('ShardsIDReader').map(lambda _: forge(range(1, 20))).run()"
    assert run(alice, script) == [[b"sent"], []]
    db.wait_log("refused a frame that names session")
    assert db.r.get("secret") is None
    assert db.trigger("t") == ["1"]


# -- a user who is disabled


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_after_its_user_is_disabled_a_function_may_do_nothing_more(db, alice, mode):
    run(alice, f"GB('CommandReader').map(lambda x: execute('get', 'hers:1')).register(trigger='t', mode='{mode}')")
    assert db.trigger("t") == ["h"]
    db.r.execute_command("ACL", "SETUSER", "alice", "off")
    message = db.trigger_refused("t")
    assert "NOPERM" in message and "alice" in message
    db.r.execute_command("ACL", "SETUSER", "alice", "on")
    assert db.trigger("t") == ["h"]


@pytest.mark.parametrize("change", [("SETUSER", "alice", "off"), ("DELUSER", "alice")])
def test_without_its_user_an_event_function_reads_nothing(db, alice, change):
    run(alice, "GB().map(lambda r: r['value']).register('hers:w:*', mode='sync')")
    db.r.set("hers:w:1", "v")
    assert db.registration().numFailures == 0
    db.r.execute_command("ACL", *change)
    db.r.set("hers:w:1", "v")
    assert db.registration().numFailures == 1
    assert "alice" in str(db.registration().lastError)


# -- readers read as the user


@pytest.fixture
def values(db):
    """A key of each type, readable and not readable by alice."""
    for prefix in ("hers:", ""):
        db.r.set(f"{prefix}string", "v")
        db.r.hset(f"{prefix}hash", mapping={"f": "v"})
        db.r.rpush(f"{prefix}list", "v")
        db.r.sadd(f"{prefix}set", "v")
        db.r.zadd(f"{prefix}zset", {"v": 1})
        db.r.xadd(f"{prefix}stream", {"f": "v"})
    return ["string", "hash", "list", "set", "zset", "stream"]


def test_a_run_reads_the_keys_that_its_user_may_read(alice, values):
    results, errors = run(alice, "GB().map(lambda r: r['key']).sort().run('hers:*')")
    assert errors == []
    assert text(results) == sorted(f"hers:{name}" for name in [*values, "1"])


@pytest.mark.parametrize("kind", ["string", "hash", "list", "set", "zset", "stream"])
@pytest.mark.parametrize("arguments", ["'{}'", "'{}', noScan=True"])
def test_a_run_does_not_read_a_key_that_its_user_may_not_read(alice, values, kind, arguments):
    results, errors = run(alice, f"GB().run({arguments.format(kind)})")
    assert results == []
    [error] = text(errors)
    assert "NOPERM" in error and "alice" in error and f"read the key '{kind}'" in error


@pytest.mark.single("each shard has a result or an error of its own")
def test_a_run_over_all_keys_ends_at_the_first_that_its_user_may_not_read(db, alice):
    for number in range(200):
        db.r.set(f"hers:n{number}", "v")
    for number in range(5):
        db.r.set(f"other{number}", "v")
    results, errors = run(alice, "GB().map(lambda r: r['key']).run('*')")
    assert all(key.startswith("hers:") for key in text(results))
    [error] = text(errors)
    assert "NOPERM" in error and "read the key" in error


def test_a_run_over_a_stream_that_its_user_may_not_read_is_refused(alice, values):
    assert text(run(alice, "GB('StreamReader').map(lambda r: r['value']).run('hers:stream')")[0]) == ["{'f': 'v'}"]
    results, errors = run(alice, "GB('StreamReader').run('stream')")
    assert results == []
    assert "read the key 'stream'" in text(errors)[0]


def test_a_reader_needs_the_permission_for_its_commands(db):
    db.r.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-hgetall")
    bob = db.client(username="bob", password="pw")
    db.r.hset("h", mapping={"f": "v"})
    assert "permission to run the command 'hgetall'" in text(run(bob, "GB().run('h')")[1])[0]


def test_a_user_without_mget_reads_strings_one_by_one(db):
    db.r.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-mget")
    bob = db.client(username="bob", password="pw")
    for number in range(100):
        db.r.set(f"k{number}", "v")
    assert run(bob, "GB().map(lambda r: r['value']).count().run('k*')") == [[b"100"], []]


# -- registering for keys that the user may not read


def refused(client, script) -> str:
    with pytest.raises(redis.ResponseError) as caught:
        run(client, script)
    return str(caught.value)


@pytest.mark.parametrize("pattern", ["secret", "secret*"])
def test_a_registration_for_keys_that_the_user_may_not_read_is_refused(db, alice, pattern):
    message = refused(alice, f"GB().register('{pattern}')")
    assert "NOPERM" in message and f"read the key '{pattern}'" in message
    assert db.registrations() == []


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("read_value", [True, False])
def test_an_event_of_a_key_that_the_user_may_not_read_is_an_error(db, alice, mode, read_value):
    script = "GB().foreach(lambda r: execute('rpush', 'hers:seen', r['key']))"
    run(alice, f"{script}.register('*', eventTypes=['set'], mode='{mode}', readValue={read_value})")
    db.r.set("hers:k", "v")
    db.wait_quiet()
    db.r.set("other", "v")
    db.wait_quiet()
    assert text(db.r.lrange("hers:seen", 0, -1)) == ["hers:k"]
    assert "read the key 'other'" in str(db.registration().lastError)


def test_a_user_with_reading_rights_only_cannot_consume_a_stream(db):
    db.r.execute_command("ACL", "SETUSER", "ro", "on", ">pw", "~nothing:*", "+@read", "+rg.pyexecute")
    ro = db.client(username="ro", password="pw")
    for number in range(5):
        db.r.xadd("orders", {"n": number})
    message = refused(ro, "GB('StreamReader').map(lambda x: 1).register('orders')")
    assert "NOPERM" in message and "read the key 'orders'" in message
    run(ro, "GB('StreamReader').map(lambda x: 1).register('*')")
    wait_until(lambda: db.registration().numFailures, "the read is refused", until=lambda n: n >= 1)
    assert "orders" in str(db.registration().lastError)
    assert db.r.xinfo_groups("orders") == []
    assert db.r.xlen("orders") == 5


@pytest.mark.parametrize(
    ("rules", "fragment"),
    [
        (("%R~orders",), "write the key 'orders'"),
        (("~orders", "-xdel"), "run the command 'xdel'"),
        (("~orders", "-xgroup"), "run the command 'xgroup'"),
    ],
)
def test_a_stream_registration_needs_reading_and_writing(db, rules, fragment):
    db.r.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "+@all", *rules)
    bob = db.client(username="bob", password="pw")
    message = refused(bob, "GB('StreamReader').register('orders')")
    assert "NOPERM" in message and fragment in message


def test_a_stream_registration_that_does_not_trim_needs_no_permission_to_delete(db):
    db.r.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "+@all", "~orders", "~seen", "-xdel")
    bob = db.client(username="bob", password="pw")
    note = "GB('StreamReader').foreach(lambda r: execute('rpush', 'seen', r['value']['n']))"
    run(bob, f"{note}.register('orders', trimStream=False)")
    db.r.xadd("orders", {"n": 1})
    wait_until(lambda: db.r.lrange("seen", 0, -1), "the entry was read", until=lambda seen: seen == [b"1"])


# -- objects of other users


@pytest.fixture
def mallory(db):
    """A user who may run functions and end them, and who may not administer."""
    commands = ["+rg.pyexecute", "+rg.unregister", "+rg.abortexecution", "+rg.dropexecution", "+rg.trigger"]
    db.r.execute_command("ACL", "SETUSER", "mallory", "on", ">pw", "~*", *commands)
    return db.client(username="mallory", password="pw")


def refused_command(client, *command) -> str:
    with pytest.raises(redis.exceptions.NoPermissionError) as caught:
        client.execute_command(*command)
    return str(caught.value)


def test_a_registration_of_another_user_needs_the_right_to_administer(db, mallory):
    db.ok("GB('CommandReader').register(trigger='t')", "ID", "mine")
    registration = db.registration().id
    message = refused_command(mallory, "RG.UNREGISTER", registration)
    assert "mallory" in message and "default" in message and "RG.ADMINISTER" in message
    for option in (("ID", "mine", "UPGRADE"), ("ID", "other", "REPLACE_WITH", "mine")):
        command = ("RG.PYEXECUTE", "GB('CommandReader').register(trigger='t')", *option)
        assert "replace the session" in refused_command(mallory, *command)
    assert db.registration().id == registration
    db.r.execute_command("ACL", "SETUSER", "mallory", "+rg.administer")
    assert mallory.execute_command("RG.UNREGISTER", registration) == b"OK"


def test_an_execution_of_another_user_needs_the_right_to_administer(db, mallory):
    execution = db.start("GB('ShardsIDReader').run()")
    db.wait_status(execution, "done")
    for command in ("RG.DROPEXECUTION", "RG.ABORTEXECUTION"):
        assert "execution of the user 'default'" in refused_command(mallory, command, execution)
    # Redis 7.0 has no categories for commands of modules.
    right = "+rg.administer" if db.kind.is_redis_7_0 else "+@admin"
    db.r.execute_command("ACL", "SETUSER", "mallory", right)
    for command in ("RG.ABORTEXECUTION", "RG.DROPEXECUTION"):
        assert mallory.execute_command(command, execution) == b"OK"


def test_what_is_their_own_users_may_end(db, mallory):
    run(mallory, "GB('CommandReader').register(trigger='t')")
    assert mallory.execute_command("RG.UNREGISTER", db.registration().id) == b"OK"
    execution = mallory.execute_command("RG.PYEXECUTE", "GB('ShardsIDReader').run()", "UNBLOCKING")
    db.wait_status(execution.decode(), "done")
    assert mallory.execute_command("RG.DROPEXECUTION", execution) == b"OK"


def test_a_function_has_no_more_right_to_end_things_than_its_user(db, mallory):
    db.ok("GB('CommandReader').register(trigger='t')")
    registration = db.registration().id
    script = f"GB('ShardsIDReader').map(lambda _: execute('RG.UNREGISTER', '{registration}')).run()"
    assert "NOPERM" in text(run(mallory, script)[1])[0]
    assert db.registration().id == registration
