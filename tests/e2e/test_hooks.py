"""Functions that replace commands of the server, and clients that wait for the functions of their commands' events."""

from __future__ import annotations

import pytest
import redis

from .database import text
from .resp import Err

APPEND = "GB('CommandReader').map(lambda x: call_next(*x[1:], '{field}', '1')).register({options})"


def hook(db, field: str, options: str, *more: str) -> None:
    db.ok(APPEND.format(field=field, options=options), *more)


def test_a_sync_hook_changes_the_command(db):
    hook(db, "added", "hook='hset', mode='sync', convertToStr=False")
    assert db.r.hset("h", "f", "v") == 2
    assert db.r.hgetall("h") == {b"f": b"v", b"added": b"1"}
    db.unregister(db.registration().id)
    assert db.r.hset("other", "f", "v") == 1


def test_stacked_hooks_of_two_sessions_both_apply_the_last_one_first(db):
    db.ok("GB('CommandReader').map(lambda x: 'first ' + call_next(*x[1:])).register(hook='echo', mode='sync')")
    db.ok("GB('CommandReader').map(lambda x: 'second ' + call_next(*x[1:])).register(hook='ECHO', mode='sync')")
    assert db.wire()("eChO", "x") == b"second first x"


def test_a_hook_with_a_key_prefix_leaves_other_keys_alone(db):
    hook(db, "added", "hook='hset', keyprefix='h', mode='sync', convertToStr=False")
    assert (db.r.hset("h1", "f", "v"), db.r.hset("x1", "f", "v")) == (2, 1)


@pytest.mark.parametrize("mode", ["async", "async_local", "sync"])
def test_a_hook_in_any_mode_answers_with_its_only_result(db, mode):
    db.ok(
        "GB('CommandReader').map(lambda x: [execute('incr', 'calls'), call_next(*x[1:])][1])"
        f".register(hook='set', keyprefix='k', mode='{mode}')"
    )
    assert db.wire()("SET", "k", "v") is not None
    assert (text(db.r.get("calls")), text(db.r.get("k"))) == ("1", "v")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("flatmap(lambda x: [1, 2])", "Command hook must return exactly one result"),
        ("filter(lambda x: False)", "Command hook must return exactly one result"),
        ("map(lambda x: flat_error('mine'))", "mine"),
        ("map(lambda x: call_next('too', 'many'))", "wrong number of arguments"),
    ],
)
def test_what_is_no_single_result_is_an_error(db, step, error):
    db.ok(f"GB('CommandReader').{step}.register(hook='get', mode='sync')")
    assert error in db.wire()("GET", "k").text


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("hook='nosuchcommand'", "Can not override an unexisting command"),
        ("hook='multi'", "Can not override a command which are not allowed inside a script"),
        ("hook='eval'", "Can not override a command which are not allowed inside a script"),
        ("hook='xread', keyprefix='a'", "Can not override a command with moveable keys by key prefix"),
        ("hook='ping', keyprefix='a'", "Can not override a command by key prefix with none positive first key"),
        ("hook='rg.trigger'", "can not be hooked"),
        ("hook='set', trigger='t'", "trigger argument can not be given with keyprefix or hook"),
    ],
)
def test_a_command_that_cannot_be_hooked_is_refused(db, options, error):
    assert error in db.refused(f"GB('CommandReader').register({options}, mode='sync')")


def test_a_hook_in_front_of_one_that_is_not_sync_is_refused(db):
    db.ok("GB('CommandReader').map(lambda x: 1).register(hook='echo')")
    assert "Can not override a none sync registration" in db.refused(
        "GB('CommandReader').map(lambda x: 1).register(hook='echo', mode='sync')"
    )
    both = "GB('CommandReader').map(lambda x: 1).register(hook='ping')\n" * 2
    assert "which already created on this session" in db.refused(both)


def test_call_next_needs_a_hook(db):
    for step in ("map", "filter", "foreach"):
        [error] = db.errors(f"GB('ShardsIDReader').{step}(lambda x: call_next(1)).run()")
        assert "Can not get CommandHook ctx" in error
    assert "Can not get CommandHook ctx" in db.refused("call_next(1)")


def test_commands_of_scripts_transactions_and_functions_are_hooked_too(db):
    hook(db, "added", "hook='hset', mode='sync', convertToStr=False")
    assert db.r.eval("return redis.call('HSET', 'a', 'f', 'v')", 0) == 2
    pipeline = db.r.pipeline()
    pipeline.hset("b", "f", "v")
    pipeline.hlen("b")
    assert pipeline.execute() == [2, 2]
    db.results("GB('ShardsIDReader').map(lambda _: execute('HSET', 'c', 'f', 'v')).run()")
    assert db.r.hlen("c") == 2


def test_an_async_hook_is_refused_where_nobody_can_wait(db):
    db.ok("GB('CommandReader').map(lambda x: call_next(*x[1:])).register(hook='get', convertToStr=False)")
    db.r.set("k", "v")
    assert text(db.r.get("k")) == "v"
    pipeline = db.r.pipeline()
    pipeline.get("k")
    [error] = pipeline.execute(raise_on_error=False)
    assert "can not run a non-sync execution inside a MULTI/LUA" in str(error)
    [error] = db.errors("GB('ShardsIDReader').map(lambda _: execute('get', 'k')).run()")
    assert "blocking is not allowed" in error


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_hook_gives_nobody_more_permissions(db):
    db.r.execute_command("ACL", "SETUSER", "limited", "on", ">p", "~a*", "+get", "+set", "+rg.innerhook")
    db.ok("GB('CommandReader').map(lambda x: call_next('ab') or 'nothing').register(hook='get', mode='sync')")
    db.ok("GB('CommandReader').map(lambda x: call_next('b', '1')).register(hook='set', mode='sync')")
    limited = db.client(username="limited", password="p")
    assert text(limited.get("a")) == "nothing"
    with pytest.raises(redis.exceptions.NoPermissionError):
        limited.get("b")
    with pytest.raises(
        redis.ResponseError, match=r"can.t access at least one of the keys|No permissions to access a key"
    ):
        # The function asks for a key that the user may not use.
        limited.set("a", "1")
    with pytest.raises(redis.exceptions.NoPermissionError):
        limited.execute_command("HSET", "a", "f", "v")


def test_a_hook_that_some_user_could_not_call_is_refused_or_logged(db):
    db.r.execute_command("ACL", "SETUSER", "old", "on", ">p", "~*", "+get")
    script = "GB('CommandReader').map(lambda x: 'hooked').register(hook='get', mode='sync')"
    refused = db.refused(script)
    assert "these users may not call hooked commands: old" in refused and "+rg.innerhook" in refused
    try:
        db.r.execute_command("RG.CONFIGSET", "HooksWithoutPermission", 1)
        db.ok(script)
    finally:
        db.r.execute_command("RG.CONFIGSET", "HooksWithoutPermission", 0)
    db.wait_log("these users cannot call it: old")
    assert text(db.r.get("k")) == "hooked"


def test_an_argument_with_any_bytes_reaches_the_function(db):
    db.ok("GB('CommandReader').map(lambda x: call_next(*x[1:])).register(hook='set', mode='sync')")
    value = bytes(range(256))
    db.r.set("k", value)
    assert db.r.get("k") == value


# -- clients that wait for the functions of events

MISS = """
def miss(record):
    override_reply('%s missed by %s' % (record['key'], get_command()[0]))
GB().foreach(miss).register('test*', eventTypes=['keymiss'], commands=['get', 'MGET'], mode='{}')
"""


@pytest.mark.parametrize("mode", ["sync", "async_local", "async"])
@pytest.mark.single("its commands name keys of several slots")
def test_a_function_gives_the_reply_of_a_command(db, mode):
    db.ok(MISS.format(mode))
    assert text(db.r.get("test1")) == "test1 missed by GET"
    assert text(db.wire()("mget", "other", "test2")) == "test2 missed by mget"
    assert db.r.get("other") is None
    db.r.set("test3", "here")
    assert text(db.r.get("test3")) == "here"
    assert text(db.registration().args["hookCommands"]) == ["get", "mget"]
    db.unregister(db.registration().id)
    assert db.r.get("test1") is None
    db.ok(MISS.format(mode))
    assert text(db.r.get("test1")) == "test1 missed by GET"


@pytest.mark.parametrize(("mode", "expected"), [("sync", ["test1 missed by GET"]), ("async_local", [None])])
def test_in_a_transaction_only_a_sync_function_gives_the_reply(db, mode, expected):
    db.ok(MISS.format(mode))
    pipeline = db.r.pipeline()
    pipeline.get("test1")
    assert text(pipeline.execute()) == expected
    db.wait_quiet()


def test_a_client_waits_until_its_function_has_ended(db):
    db.ok(
        """
import asyncio
async def slow(record):
    await asyncio.sleep(0.05)
    execute('set', 'copy', execute('get', record['key']))
GB().foreach(slow).register('k*', eventTypes=['set'], commands=['set'])
"""
    )
    assert db.r.set("k1", "v") is True
    assert text(db.r.get("copy")) == "v"


def test_the_reply_of_the_command_stays_if_the_function_fails(db):
    db.ok("GB().foreach(lambda x: 1 / 0).register('k*', commands=['set', 'incr', 'hgetall'], mode='sync')")
    assert db.r.set("k", "v") is True
    with pytest.raises(redis.ResponseError, match="not an integer"):
        db.r.incr("k")
    assert db.registration().numFailures == 1
    for protocol in (2, 3):
        client = db.client(protocol=protocol)
        client.hset("kh", mapping={"f": "v"})
        assert client.hgetall("kh") == {b"f": b"v"}


def test_a_reply_is_given_once_and_only_where_a_client_waits(db):
    db.ok(
        """
def twice(_):
    override_reply(1)
    try:
        override_reply(2)
    except Exception as error:
        execute('set', 'error', str(error))
GB().foreach(twice).register('k', eventTypes=['keymiss'], commands=['get'])
"""
    )
    assert db.r.execute_command("GET", "k") == 1
    assert text(db.r.get("error")) == "Can only override reply once"
    for call in ("override_reply(1)", "get_command()"):
        [error] = db.errors(f"GB('ShardsIDReader').map(lambda _: {call}).run()")
        assert "Can not get command ctx" in error


@pytest.mark.parametrize(
    ("commands", "error"),
    [
        ("['multi']", "Can not hook a command which are not allowed inside a script"),
        ("['exec']", "Can not hook a command which are not allowed inside a script"),
        ("['xread']", "Can not hook a command with moveable keys by key prefix"),
        ("['nosuchcommand']", "bad reply"),
        ("1", "not iterable"),
        ("[1]", "type is not string"),
    ],
)
def test_commands_that_cannot_be_waited_for_are_refused(db, commands, error):
    assert error in db.refused(f"GB().register('k*', commands={commands})")


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_events_of_other_commands_do_not_count(db):
    db.ok("GB().foreach(lambda x: execute('incr', 'seen')).register('k*', commands=['set'], mode='sync')")
    db.r.append("k", "v")
    db.r.set("other", "v")
    assert db.r.get("seen") is None
    db.r.set("k", "v")
    assert text(db.r.get("seen")) == "1"


def test_an_unknown_inner_call_is_refused(db):
    assert isinstance(db.wire()("RG.INNERREGISTER", "x"), Err)
