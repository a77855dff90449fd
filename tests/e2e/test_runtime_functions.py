"""The functions in a script's namespace: execute, atomic, log, hashtag, configGet, gearsConfigGet."""

from __future__ import annotations

import threading
from ast import literal_eval

import pytest


def shard(db, expression: str, before: str = "") -> str:
    """The text of one expression evaluated inside a step."""
    [result] = db.results(f"{before}\nGB('ShardsIDReader').map(lambda _: {expression}).run()")
    return result


def shard_value(db, expression: str, before: str = ""):
    return literal_eval(shard(db, f"repr({expression})", before))


def shard_error(db, expression: str, before: str = "") -> str:
    [error] = db.errors(f"{before}\nGB('ShardsIDReader').map(lambda _: {expression}).run()")
    return error


# -- execute


def test_execute_converts_replies(db):
    db.r.set("s", "text")
    db.r.set("raw", b"\xff\0")
    db.r.rpush("l", "a", b"\xfe")
    assert shard_value(db, "execute('get', 's')") == "text"
    assert bytes(shard_value(db, "bytes(execute('get', 'raw'))")) == b"\xff\0"
    assert shard_value(db, "execute('incr', 'n')") == 1
    assert shard_value(db, "execute('get', 'absent')") is None
    assert shard_value(db, "execute('set', 'k', 'v')") == "OK"
    assert shard_value(
        db, "[bytes(x) if isinstance(x, (bytes, bytearray)) else x for x in execute('lrange', 'l', 0, -1)]"
    ) == [
        "a",
        b"\xfe",
    ]
    assert shard_value(db, "execute('mget', '{t}s', '{t}absent')") == [None, None]


@pytest.mark.parametrize(
    ("argument", "stored"),
    [
        ("b'by\\xfftes'", b"by\xfftes"),
        ("bytearray(b'array')", b"array"),
        ("'text ö'", "text ö".encode()),
        ("7", b"7"),
        ("1.5", b"1.5"),
        ("None", b"None"),
        ("[1]", b"[1]"),
        ("''", b""),
        ("'nul\\0byte'", b"nul\0byte"),
    ],
)
def test_arguments_are_raw_bytes_or_text(db, argument, stored):
    shard(db, f"execute('set', 'k', {argument})")
    assert db.r.get("k") == stored


def test_an_error_reply_is_an_exception_with_the_server_s_text(db):
    db.r.set("s", "text")
    assert "WRONGTYPE Operation against a key holding the wrong kind of value" in shard_error(
        db, "execute('lpush', 's', 1)"
    )
    assert "ERR value is not an integer or out of range" in shard_error(db, "execute('incr', 's')")


def test_an_error_of_execute_can_be_caught(db):
    script = """
def careful(_):
    try:
        execute('incr', 's')
    except Exception as e:
        return type(e).__name__ + ': ' + str(e)
GB('ShardsIDReader').map(careful).run()
"""
    db.r.set("s", "text")
    [result] = db.results(script)
    assert "not an integer" in result


def test_an_unknown_command_is_an_error(db):
    assert shard_error(db, "execute('no-such-command', 'x')")


def test_a_wrong_number_of_arguments_is_an_error(db):
    assert shard_error(db, "execute('get')")


def test_the_command_must_be_text(db):
    assert "the given command must be a string" in shard_error(db, "execute(7)")


def test_execute_works_while_the_script_is_being_read(db):
    db.ok("execute('set', 'k', execute('ping'))")
    assert db.r.get("k") == b"PONG"


def test_blocking_commands_do_not_block(db):
    assert shard_value(db, "execute('blpop', 'absent', '0')") is None


def test_a_large_value_travels_both_ways(db):
    shard(db, "execute('set', 'k', 'x' * 10_000_000)")
    assert db.r.strlen("k") == 10_000_000
    assert shard(db, "len(execute('get', 'k'))") == "10000000"


def test_many_calls_in_one_step(db):
    assert shard(db, "[execute('incr', 'n') for _ in range(5000)][-1]") == "5000"
    assert db.r.get("n") == b"5000"


def test_execute_works_from_threads_of_the_step(db):
    script = """
from concurrent.futures import ThreadPoolExecutor
def many(_):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: execute('incr', 'n'), range(200)))
    return execute('get', 'n')
GB('ShardsIDReader').map(many).run()
"""
    results, errors = db.run(script)
    # a thread must either be able to use execute, or get an error that it is not registered
    assert results == ["200"] or "registered gears thread" in errors[0] or "python created thread" in errors[0]


def test_config_commands_of_two_words_work(db):
    assert shard_value(db, "execute('config', 'get', 'maxclients')")[0] == "maxclients"


def test_a_function_may_not_use_execute_to_shut_its_own_client_out(db):
    assert shard_error(db, "execute('subscribe', 'channel')")
    results, errors = db.run("GB('ShardsIDReader').map(lambda _: [execute('multi'), execute('incr', 'n')]).run()")
    assert errors or results == ["['OK', 1]"], "a MULTI must not swallow what follows"
    assert db.r.ping()


def test_writes_are_refused_when_the_server_is_out_of_memory(fresh_server):
    db = fresh_server()
    db.results("GB('ShardsIDReader').run()")
    db.r.config_set("maxmemory", "1")
    db.r.config_set("maxmemory-policy", "noeviction")
    assert "OOM" in shard_error(db, "execute('set', 'k', 'v')")
    assert shard_value(db, "execute('get', 'k')") is None
    db.r.config_set("maxmemory", "0")
    assert shard_value(db, "execute('set', 'k', 'v')") == "OK"


# -- atomic


def test_nothing_comes_between_the_commands_of_an_atomic_block(db):
    script = """
import time
def both(_):
    torn = 0
    for i in range(50):
        with atomic():
            execute('set', 'a', i)
            before = execute('get', 'a')
            execute('set', 'b', i)
            torn += execute('get', 'a') != before
    return torn
GB('ShardsIDReader').map(both).run()
"""
    stop = threading.Event()

    def disturb():
        with db.server.client() as client:
            while not stop.is_set():
                client.set("a", "disturbed")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert db.results(script) == ["0"]
    finally:
        stop.set()
        thread.join(10)


@pytest.mark.single("its commands name keys of several slots")
def test_readers_never_see_half_of_an_atomic_block(db):
    db.r.mset({"a": 0, "b": 0})
    script = """
def both(_):
    for i in range(200):
        with atomic():
            execute('incr', 'a')
            execute('incr', 'b')
GB('ShardsIDReader').map(both).run()
"""
    execution = db.start(script)
    torn = 0
    while db.status(execution) in ("created", "running"):
        a, b = db.r.mget("a", "b")
        torn += a != b
    assert torn == 0
    assert db.r.mget("a", "b") == [b"200", b"200"]


def test_two_sets_in_a_block_then_mget(db):
    script = """
def fill(_):
    tag = hashtag()
    with atomic():
        execute('set', 'x{%s}' % tag, 1)
        execute('set', 'y{%s}' % tag, 2)
    return execute('mget', 'x{%s}' % tag, 'y{%s}' % tag)
GB('ShardsIDReader').flatmap(fill).distinct().sort().run()
"""
    assert db.run(script) == (["1", "2"], [])


def test_the_state_of_a_block_can_be_asked_for(db):
    script = """
def look(_):
    before = isInAtomicBlock()
    with atomic():
        inside = isInAtomicBlock()
    return [before, inside, isInAtomicBlock()]
GB('ShardsIDReader').map(look).run()
"""
    assert db.results(script) == ["[False, True, False]"]


def test_blocks_cannot_be_nested(db):
    script = """
def twice(_):
    with atomic():
        with atomic():
            pass
GB('ShardsIDReader').map(twice).run()
"""
    assert "Already inside an atomic block" in db.errors(script)[0]
    assert db.r.ping()


def test_an_exception_in_a_block_ends_it_and_rolls_nothing_back(db):
    script = """
def broken(_):
    with atomic():
        execute('set', 'k', 'kept')
        raise ValueError('half way')
GB('ShardsIDReader').map(broken).run()
"""
    assert "half way" in db.errors(script)[0]
    assert db.r.get("k") == b"kept"
    assert shard(db, "isInAtomicBlock()") == "False"


def test_a_block_that_takes_too_long_is_ended_by_the_deadline(fresh_server):
    db = fresh_server(load_args={"SyncMaxTime": 300})
    script = """
def forever(_):
    with atomic():
        execute('set', 'k', 'v')
        while True:
            pass
GB('ShardsIDReader').map(forever).run()
"""
    assert "SyncMaxTime" in db.errors(script)[0]
    assert db.r.ping()
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


# -- log


@pytest.mark.parametrize("level", ["debug", "verbose", "notice", "warning"])
def test_log_writes_a_line_into_the_server_s_log(db, level):
    db.r.config_set("loglevel", "debug")
    try:
        shard(db, f"log('hello from a {level} step', level='{level}')")
        assert "GEARS: hello from a" in db.wait_log(f"hello from a {level} step")
    finally:
        db.r.config_set("loglevel", "notice")


def test_log_is_a_notice_by_default(db):
    shard(db, "log('an ordinary line')")
    assert " * " in db.wait_log("an ordinary line")


@pytest.mark.parametrize("message", ["100% %s %n %d", "ünï 🦀", "nul\\0byte", "two\\nlines", "x" * 20_000])
def test_log_takes_any_text(db, message):
    shard(db, f"log('mark ' + '{message}')")
    line = db.wait_log("GEARS: mark ")
    assert len(line) < 30_000
    assert db.r.ping()


def test_a_log_line_cannot_forge_another_one(db):
    shard(db, "log('first\\n1:M 01 Jan 2020 00:00:00.000 * forged')")
    assert "GEARS: first\\n1:M 01 Jan" in db.wait_log("GEARS: first")
    assert not any(line.startswith("1:M 01 Jan 2020") for line in db.server.new_log().splitlines())


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        ("log()", "log function must get a log message as input"),
        ("log(7)", "Log message must be a string"),
        ("log('x', level=7)", "Log level must be a sting (debug/verbose/notice/warning)"),
        ("log('x', level='loud')", "Log level should be one of the following : debug,verbose,notice,warning"),
    ],
)
def test_wrong_uses_of_log_are_named(db, call, fragment):
    assert fragment in shard_error(db, call)


def test_what_a_script_prints_is_in_the_log_with_its_worker(db):
    shard(db, "print('printed by a step')")
    assert "worker" in db.wait_log("printed by a step").lower()
    shard(db, "__import__('sys').stderr.write('complained by a step\\n')")
    assert "worker" in db.wait_log("complained by a step").lower()


# -- hashtag, configuration


def test_the_hashtag_of_a_single_server_is_that_of_slot_zero(db):
    assert shard(db, "hashtag()") == "06S"


def test_extra_load_arguments_can_be_read_in_functions(fresh_server):
    db = fresh_server(load_args={"TestConfig": "TestVal"})
    assert shard_value(db, "(configGet('TestConfig'), gearsConfigGet('Missing', 'default'))") == ("TestVal", "default")
    assert shard_value(db, "(gearsConfigGet('TestConfig'), gearsConfigGet('Missing'))") == ("TestVal", None)


def test_an_unknown_option_is_none(db):
    assert shard_value(db, "configGet('Missing')") is None
    assert shard_value(db, "gearsConfigGet('Missing', 7)") == 7


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        ("configGet()", "get_config function must get a single key input"),
        ("configGet(7)", "get_config key must be a string"),
    ],
)
def test_wrong_uses_of_config_get_are_named(db, call, fragment):
    assert fragment in shard_error(db, call)


# -- names


@pytest.mark.parametrize(
    "name",
    [
        "GearsBuilder",
        "GB",
        "execute",
        "atomic",
        "hashtag",
        "log",
        "configGet",
        "gearsConfigGet",
        "isInAtomicBlock",
        "redisgears",
    ],
)
def test_a_name_is_available_without_import(db, name):
    db.ok(f"assert {name}")


def test_the_module_redisgears_can_be_imported(db):
    script = """
import redisgears as rg
def use(_):
    with rg.atomicCtx():
        rg.executeCommand('set', 'k', 'v')
    rg.log('from the module', level='notice')
    return [rg.getMyHashTag(), rg.executeCommand('get', 'k'), rg.config_get('Missing'), rg.isInAtomicBlock()]
GB('ShardsIDReader').map(use).run()
"""
    assert db.results(script) == ["['06S', 'v', None, False]"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "from redgrease import *\nfrom redgrease import execute, hashtag, log, atomic, configGet, gearsConfigGet",
        "from redgrease import execute, hashtag, log, atomic, configGet, gearsConfigGet",
        "from redgrease.runtime import execute, hashtag, log, atomic, configGet, gearsConfigGet",
    ],
    ids=["none", "star", "explicit", "runtime"],
)
@pytest.mark.single("its imports replace the builder that reads on one shard")
def test_every_style_of_import_gives_working_functions(db, header):
    script = f"""
{header}
def use(_):
    with atomic():
        execute('set', 'k', 'v')
    log('used')
    return [execute('get', 'k'), hashtag(), configGet('x'), gearsConfigGet('x', 'd')]
GearsBuilder('ShardsIDReader').map(use).run()
"""
    results, errors = db.run(script)
    assert errors == []
    assert literal_eval(str(results[0])) == ["v", "06S", None, "d"]


def test_state_lives_on_the_server(db):
    db.ok(
        """
total = 0
def add(args):
    global total
    total += int(args[1])
    return total
def show(args):
    return total
GB('CommandReader').map(add).register(trigger='add')
GB('CommandReader').map(show).register(trigger='show')
"""
    )
    assert db.trigger("add", 3) == ["3"]
    assert db.trigger("add", 4) == ["7"]
    assert db.trigger("show") == ["7"]


def test_the_module_redisgears_has_all_documented_names(db):
    names = (
        "executeCommand atomicCtx callNext getCommand overrideReply getMyHashTag log config_get registerTimeEvent"
        " flatError isAsyncAllow isInAtomicBlock gearsCtx gearsFutureCtx setGearsSession getGearsSession"
        " registerGearsThread _saveGlobals PyExecutionSession PyFlatExecution PyAtomic PyFuture"
        " GearsError GearsFlatError GearsForceStopped"
    )
    script = f"""
import redisgears
missing = [name for name in {names!r}.split() if not hasattr(redisgears, name)]
session = isinstance(redisgears.getGearsSession(), redisgears.PyExecutionSession)
GB('ShardsIDReader').map(lambda _: [missing, session]).run()
"""
    assert db.results(script) == ["[[], True]"]


def test_the_module_redisai_can_be_imported_and_says_that_it_is_not_there(db):
    script = "import redisAI\nGB('ShardsIDReader').map(lambda _: redisAI.createModelRunner('m')).run()"
    assert "RedisAI is not loaded, it is not possible to use AI interface." in db.errors(script)[0]


@pytest.mark.parametrize("script", ["1defs + GearsGB()", "GB().run(", "if True\n x=1", "print 'hello'", "foo bar"])
def test_every_syntax_error_says_so_in_the_words_that_programs_look_for(db, script):
    error = db.refused(script)
    assert "SyntaxError" in error and error.count("invalid syntax") == 1
