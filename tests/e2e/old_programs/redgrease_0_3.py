"""Checks written for RedGrease 0.3: ``python redgrease_0_3.py PORT [CHECK...]`` prints the failures as a JSON object.

They run with RedGrease 0.3.30 and an old redis-py against our server, and with our package. Each ``check_*`` gets a
client of an empty server. The syntax is that of Python 3.8.
"""

import collections
import json
import os
import sys
import tempfile
import threading
import time
import traceback

import redgrease
import redgrease.client
import redgrease.config
import redgrease.data
import redgrease.exceptions
import redgrease.gearialization
import redgrease.requirements
import redgrease.runtime
import redgrease.utils
import redis
from redgrease import (
    GB,
    ClosedGearFunction,
    CommandReader,
    FailurePolicy,
    GearsBuilder,
    KeysOnlyReader,
    KeysReader,
    KeyType,
    LogLevel,
    OpenGearFunction,
    PythonReader,
    ReaderType,
    ShardsIDReader,
    StreamReader,
    TriggerMode,
    command,
)

DEADLINE_S = 15.0


def until(condition):
    """Poll until a condition holds; its last value otherwise."""
    end = time.monotonic() + DEADLINE_S
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.01)


def clean(result):
    """The value of a result without errors."""
    assert result.errors in ([], None), result.errors
    return result.value


def sorted_list(result):
    return sorted(clean(result))


def fails(error, function, *args, **kwargs):
    """The exception of a call."""
    try:
        made = function(*args, **kwargs)
    except error as raised:
        return raised
    raise AssertionError(f"no {error} but {made!r}")


def three(r):
    r.set("x", 1)
    r.set("y", 2)
    r.set("z", 3)


def four(r):
    for name, value in (("x", 1), ("y", 1), ("z", 2), ("t", 2)):
        r.set(name, value)


def a_stream(r):
    for number in range(3):
        r.xadd("MyStream", {"cnt": number, "say": f"hello {number}"})


LINES = ("a cat and a dog", "of the cat", "the end of the line", "of a")
WORDS = dict(collections.Counter(" ".join(LINES).split()))


def text_lines(r):
    for number, line in enumerate(LINES):
        r.set(f"line:{number}", line)


# -- text scripts of the server's own builder


def check_raw_word_count(r):
    text_lines(r)
    script = """
GearsBuilder().map(lambda x: x['value']).flatmap(lambda x: x.split()).countby(lambda x: x).run('line:*')
"""
    found = [eval(text) for text in clean(r.gears.pyexecute(script))]
    assert {each["key"]: each["value"] for each in found} == WORDS


def check_raw_delete_by_prefix(r):
    for name in ("delete_me:a", "keep_me"):
        r.set(name, "x")
    r.hset("delete_me:b", "f", "v")
    script = """
GB().map(lambda x: x['key']).foreach(lambda k: execute('DEL', k)).count().run('delete_me:*')
"""
    assert r.gears.pyexecute(script).value == b"2"
    assert r.keys() == [b"keep_me"]


def check_raw_results_are_bytes(r):
    three(r)
    assert sorted_list(r.gears.pyexecute("GB().map(lambda x: x['key']).run()")) == [b"x", b"y", b"z"]
    assert len(r.gears.pyexecute("GearsBuilder().run()")) == 3


def check_raw_single_result_is_unwrapped(r):
    three(r)
    result = r.gears.pyexecute("GB().count().run()")
    assert result.value == b"3" and int(result) == 3 and result.errors == []


def check_raw_empty_function_is_true(r):
    assert r.gears.pyexecute("").value is True
    assert r.gears.pyexecute().value is True


def check_raw_registration_is_true(r):
    assert r.gears.pyexecute("GB().foreach(lambda x: x).register('x*')").value is True


def check_raw_stream_to_hash(r):
    script = """
def store(x):
    execute('HSET', x['id'], 'key', x['key'], 'id', x['id'], 'value', str(x['value']))
GearsBuilder('StreamReader').foreach(store).register('mystream')
"""
    assert r.gears.pyexecute(script).value is True
    name = r.xadd("mystream", {"a": 1, "b": 2})
    assert until(lambda: r.exists(name))
    stored = r.hgetall(name)
    assert (stored[b"key"], stored[b"id"]) == (b"mystream", name)
    assert eval(stored[b"value"]) == {"a": "1", "b": "2"}
    assert until(lambda: r.xlen("mystream") == 0)


def check_raw_sync_expiry_of_keys(r):
    script = """
def limit(x):
    execute('EXPIRE', x['key'], 3600)
GB().foreach(limit).register('*', eventTypes=['set'], mode='sync', readValue=False)
"""
    r.gears.pyexecute(script)
    r.set("Foo", "Bar")
    assert 3590 < r.ttl("Foo") <= 3600


def check_raw_command_with_future(r):
    script = """
waiting = {}
def wait(args):
    waiting[args[1]] = gearsFuture()
    return waiting[args[1]]
def release(record):
    future = waiting.pop(record['key'], None)
    if future is not None:
        future.continueRun(record['key'] + ' expired')
GB('CommandReader').map(wait).register(trigger='WaitForKeyExpiration', mode='sync')
GB().foreach(release).register('*', eventTypes=['expired'], readValue=False)
"""
    r.gears.pyexecute(script)
    r.set("Foo", "bar", px=200)
    value = r.gears.trigger("WaitForKeyExpiration", "Foo").value
    assert redgrease.utils.safe_str(value) == "Foo expired"


def check_raw_coroutine(r):
    script = """
import asyncio
async def later(x):
    await asyncio.sleep(0.01)
    return x
GB('ShardsIDReader').map(later).run()
"""
    assert r.gears.pyexecute(script).value == b"1"


def check_raw_atomic(r):
    script = """
def both(x):
    with atomic():
        execute('INCR', 'a')
        execute('INCR', 'b')
    return execute('GET', 'a')
GB('ShardsIDReader').map(both).run()
"""
    assert r.gears.pyexecute(script).value == b"1"


def check_raw_config(r):
    script = "GB('ShardsIDReader').map(lambda _: gearsConfigGet('not_there', 1337)).run()"
    assert r.gears.pyexecute(script).value == b"1337"


def check_raw_pi(r):
    script = """
import random
def throws():
    for _ in range(10000):
        yield random.random() ** 2 + random.random() ** 2 <= 1
GB('PythonReader').map(lambda hit: 4 * hit).avg().map(lambda p: "Pi's estimated value is %.2f" % p).run(throws)
"""
    assert r.gears.pyexecute(script).value.startswith(b"Pi's estimated value is 3.")


def check_raw_syntax_error_is_a_response_error(r):
    fails(Exception, r.gears.pyexecute, "def (")


def check_raw_exception_is_a_response_error_with_traceback_lines(r):
    error = fails(redis.exceptions.ResponseError, r.gears.pyexecute, "raise ValueError('boo')")
    assert "boo" in str(error), error


def check_raw_errors_of_steps_are_in_errors(r):
    three(r)
    result = r.gears.pyexecute("GB().map(lambda x: x['nope']).run()")
    assert result.value == [] and result.errors and isinstance(result.errors[0], bytes)
    assert b"KeyError" in result.errors[0]


def check_raw_duplicate_trigger(r):
    script = "GB('CommandReader').register(trigger='dup')"
    r.gears.pyexecute(script)
    fails(redgrease.exceptions.DuplicateTriggerError, r.gears.pyexecute, script)


def check_script_from_a_path(r):
    three(r)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write("GB().count().run()")
        file.flush()
        assert int(r.gears.pyexecute(file.name)) == 3


def check_raw_trigger_with_arguments(r):
    script = "GB('CommandReader').flatmap(lambda x: x).register(trigger='Bang')"
    assert r.gears.pyexecute(script).value is True
    for args in ((), ("one",), ("one", 2), ("one", 2, b"three")):
        result = r.gears.trigger("Bang", *args)
        got = {redgrease.utils.safe_str(each) for each in (result.value if args else [result.value])}
        assert got == {"Bang", *map(redgrease.utils.safe_str, args)}, got


def check_raw_trigger_registered_unblocking(r):
    script = "GB('CommandReader').flatmap(lambda x: x).register(trigger='Bang')"
    assert r.gears.pyexecute(script, unblocking=True).value is True
    assert len(r.gears.trigger("Bang", "one")) == 2


def check_trigger_unknown_and_failing(r):
    fails(redis.exceptions.ResponseError, r.gears.trigger, "nobody")
    r.gears.pyexecute("GB('CommandReader').map(lambda x: 1 / 0).register(trigger='bad')")
    error = fails(redis.exceptions.ResponseError, r.gears.trigger, "bad")
    assert "ZeroDivisionError" in str(error)


# -- text scripts with the package's objects


def check_script_word_count(r):
    text_lines(r)
    script = """
from redgrease import KeysReader
KeysReader('line:*').values().flatmap(lambda text: text.split()).countby().run()
"""
    assert {each["key"]: each["value"] for each in clean(r.gears.pyexecute(script))} == WORDS


def check_script_one_dict(r):
    r.hset("h", "f", "v")
    result = r.gears.pyexecute("from redgrease import KeysReader\nKeysReader('h').run()")
    assert clean(result) == {"key": "h", "value": {"f": "v"}, "type": "hash", "event": None}, result


def check_script_texts_and_numbers(r):
    r.set("hello", "NUM")
    script = "from redgrease import KeysReader\nKeysReader().{}.run()"
    assert r.gears.pyexecute(script.format("keys()")).value == "hello"
    assert r.gears.pyexecute(script.format("values()")).value == "NUM"
    assert r.gears.pyexecute(script.format("map(lambda _: (1, None, 2.5, b'x', {3}))")).value == (
        1,
        None,
        2.5,
        b"x",
        {3},
    )


def check_script_count_needs_no_worker(r):
    three(r)
    script = "from redgrease import KeysReader\nKeysReader().count().run()"
    assert r.gears.pyexecute(script).value == 3


def check_script_delete_with_cmd(r):
    for name in ("delete_me:a", "delete_me:b", "keep_me"):
        r.set(name, "x")
    script = """
from redgrease import KeysReader, cmd
KeysReader('delete_me:*').keys().map(cmd.delete).count().run()
"""
    assert r.gears.pyexecute(script).value == 2
    assert r.keys() == [b"keep_me"]


def check_script_stream_with_cmd(r):
    script = """
from redgrease import StreamReader, cmd
StreamReader().foreach(lambda x: cmd.hset(x['id'], 'key', x['key'])).register('mystream')
"""
    assert r.gears.pyexecute(script).value is True
    name = r.xadd("mystream", {"a": 1})
    assert until(lambda: r.hgetall(name)) == {b"key": b"mystream"}


def check_script_expiry_with_two_registrations(r):
    script = """
from redgrease import KeysReader, StreamReader, cmd, hashtag, log
KeysReader().foreach(lambda x: cmd.xadd('expired:' + hashtag(), {'key': x['key']})).register(
    '*', mode='sync', eventTypes=['expired'], readValue=False)
StreamReader().foreach(lambda x: cmd.set('seen', x['value']['key'])).register('expired:*', batch=100, duration=1)
"""
    assert r.gears.pyexecute(script).value is True
    r.set("Foo", "Bar", px=100)
    assert until(lambda: r.get("seen")) == b"Foo"


def check_script_command_decorator(r):
    script = """
import redgrease
@redgrease.command(mode='sync')
def describe(name, *rest):
    return {'name': name, 'rest': list(rest)}
"""
    assert r.gears.pyexecute(script).value is True
    assert r.gears.trigger("describe", "x", 1).value == {"name": "x", "rest": ["1"]}


def check_script_command_of_one_record(r):
    r.gears.pyexecute("import redgrease\nredgrease.command('hello')(lambda: 'hello')")
    result = r.gears.trigger("hello")
    assert result.value == "hello" and result.errors is None


def check_script_placeholders(r):
    script = """
from redgrease import ShardsIDReader, execute, hashtag, hashtag3, log, atomic, configGet, gearsConfigGet
def facts(_):
    with atomic():
        execute('SET', 'k', 'v')
    log('one line', level='debug')
    return [execute('GET', 'k'), hashtag(), hashtag3(), gearsConfigGet('missing', 7)]
ShardsIDReader().map(facts).run()
"""
    assert r.gears.pyexecute(script).value == ["v", "06S", "{06S}", 7]


def check_script_star_import(r):
    three(r)
    script = "from redgrease import *\nKeysReader().values().map(int).aggregate(0, lambda a, x: a + x).run()"
    assert r.gears.pyexecute(script).value == 6


def check_script_unblocking_results_later(r):
    three(r)
    script = "from redgrease import KeysReader\nKeysReader().keys().run()"
    execution = r.gears.pyexecute(script, unblocking=True)
    assert isinstance(execution.value, redgrease.data.ExecID)
    assert sorted_list(r.gears.getresultsblocking(execution)) == ["x", "y", "z"]
    assert sorted_list(r.gears.getresults(execution.value)) == ["x", "y", "z"]


def check_script_cmd_values(r):
    script = """
from redgrease import KeysReader, cmd
def double(key):
    value = float(cmd.get(key))
    cmd.set(key, 2 * value)
    return value
KeysReader().keys().map(double).run()
"""
    assert r.gears.pyexecute(script).value == []
    r.set("NUM", 13)
    assert clean(r.gears.pyexecute(script)) == 13.0
    assert r.get("NUM") == b"26.0"


def check_script_cmd_gears(r):
    script = """
from redgrease import ShardsIDReader, cmd
ShardsIDReader().map(lambda _: [cmd.gears.infocluster(), cmd.gears.config.MaxExecutions]).run()
"""
    assert r.gears.pyexecute(script).value == [None, 1000]


# -- function objects


def check_object_values(r):
    three(r)
    assert sorted_list(KeysReader().values().run(on=r)) == ["1", "2", "3"]
    assert sorted_list(KeysReader().keys().run(on=r)) == ["x", "y", "z"]
    assert clean(KeysReader("x").keys().run(on=r)) == "x"


def check_object_keys_contents_are_not_guessed(r):
    for name in ("hello", "NUM", "0"):
        r.set(name, "")
    assert sorted_list(KeysReader().keys().run(on=r)) == ["0", "NUM", "hello"]
    assert list(clean(KeysReader().values().run(on=r))) == ["", "", ""]


def check_object_records(r):
    three(r)
    records = clean(KeysReader().records().run(on=r))
    assert sorted(each.key for each in records) == ["x", "y", "z"]
    assert {each.type for each in records} == {"string"} and not any(each.event for each in records)
    assert all(isinstance(each, redgrease.utils.Record) for each in records)


def check_object_filters_by_type(r):
    three(r)
    r.hset("h", "f", "v")
    r.rpush("l", "a", "b")
    assert clean(KeysReader().keys(type="hash").run(on=r)) == "h"
    assert clean(KeysReader().values(type=["hash", "list"]).count().run(on=r)) == 2
    assert clean(KeysReader().values(type="hash").run(on=r)) == {"f": "v"}
    assert clean(KeysReader().values(type="list").run(on=r)) == ["a", "b"]


def check_object_keys_only(r):
    three(r)
    assert sorted_list(KeysOnlyReader().run(on=r)) == ["x", "y", "z"]
    assert clean(KeysOnlyReader("x*").run(on=r)) == "x"
    r.flushall()
    r.lpush("l", 1, 2, 3)
    ranged = KeysOnlyReader().map(lambda key: redgrease.execute("lrange", key, 0, -1)).flatmap(lambda x: x)
    assert clean(ranged.run(on=r)) == ["1", "2", "3"]


def check_object_streams(r):
    a_stream(r)
    expected = [{"cnt": str(n), "say": f"hello {n}"} for n in range(3)]
    records = clean(StreamReader("MyStream").run(on=r))
    assert [each["value"] for each in records] == expected
    assert all(each["key"] == "MyStream" and isinstance(each["id"], str) for each in records)
    assert clean(StreamReader("MyStream").values().run(on=r)) == expected
    assert clean(StreamReader("MyStream").keys().run(on=r)) == ["MyStream"] * 3
    assert [each.value for each in clean(StreamReader().records().run("MyStream", on=r))] == expected
    from_second = StreamReader("MyStream").values().run(fromId=records[1]["id"], on=r)
    assert len(clean(from_second)) in (1, 2)


def check_object_python_reader(r):
    def numbers():
        yield from range(6379)

    assert clean(PythonReader().run(numbers, on=r)) == list(range(6379))


def check_object_shards_reader(r):
    assert clean(ShardsIDReader().run(on=r)) == "1"
    assert clean(ShardsIDReader().map(lambda _: redgrease.hashtag()).run(on=r)) == "06S"


def check_object_hashtag3(r):
    both = ShardsIDReader().map(lambda _: (redgrease.hashtag(), redgrease.hashtag3()))
    assert clean(both.run(on=r)) == ("06S", "{06S}")


def check_object_command_reader(r):
    test = ("this", "is", "a", "test")
    CommandReader().register(trigger="all", on=r)
    assert r.gears.trigger("all", *test).value == ["all", *test]
    CommandReader().args().register(trigger="args", on=r)
    assert r.gears.trigger("args", *test).value == list(test)
    CommandReader().args(2).register(trigger="two", on=r)
    assert r.gears.trigger("two", *test).value == ["this", "is"]
    CommandReader().apply(lambda *words: sum(map(len, words))).register(trigger="apply", on=r)
    assert r.gears.trigger("apply", *test).value == 11


def check_object_command_is_callable(r):
    shout = CommandReader().args().map(lambda words: [word.upper() for word in words]).register(trigger="shout", on=r)
    assert shout("a", "b").value == ["A", "B"]


def check_object_launch(r):
    launch = CommandReader().flatmap(redgrease.utils.as_is).map(len).register(trigger="launch", on=r)
    assert launch("the", "missiles!").value == [9, 3, 6]


def check_builder_operations(r):
    four(r)

    def gb():
        return GearsBuilder().map(lambda record: record["value"])

    def pairs(builder):
        return builder.map(lambda each: (each["key"], each["value"])).sort()

    run = r.gears.pyexecute
    assert clean(run(gb().sort())) == ["1", "1", "2", "2"]
    assert clean(run(gb().sort(reverse=False))) == ["2", "2", "1", "1"]
    assert clean(run(gb().filter(lambda value: value == "1"))) == ["1", "1"]
    assert clean(run(gb().count())) == 4
    assert clean(run(gb().avg())) == 1.5
    assert clean(run(gb().distinct().count())) == 2
    assert clean(run(gb().map(int).aggregate(0, lambda a, x: a + x, lambda a, x: a + x))) == 6
    assert clean(run(pairs(gb().countby()))) == [("1", 2), ("2", 2)]
    by_value = gb().aggregateby(lambda v: v, 0, lambda k, a, v: a + int(v), lambda k, a, v: a + v)
    assert clean(run(pairs(by_value))) == [("1", 2), ("2", 4)]
    assert run(gb().sort().limit(1)) == "1"
    assert run(gb().sort().limit(2, 1)) == ["1", "2"]


def check_builder_statements(r):
    three(r)
    builder = GB()
    builder.map(lambda record: record["value"])
    builder.map(int)
    builder.sort()
    assert clean(r.gears.pyexecute(builder)) == [1, 2, 3]
    assert isinstance(builder.gearfunction, OpenGearFunction)


def check_builder_plain(r):
    three(r)
    assert len(r.gears.pyexecute(GB().run())) == 3
    assert len(r.gears.pyexecute(GB("KeysReader", "x"))) >= 1


def check_object_state_lives_on_the_server(r):
    three(r)

    def count(_):
        import __main__

        __main__.counted = getattr(__main__, "counted", 0) + 1

    def counted(_):
        import __main__

        return __main__.counted

    assert clean(KeysReader().foreach(count).map(counted).sort().run(on=r))[-1] >= 3


def check_object_callbacks_of_every_kind(r):
    three(r)
    assert sorted_list(KeysReader().values().map(int).run(on=r)) == [1, 2, 3]
    assert sorted_list(KeysReader().keys().map(str.upper).run(on=r)) == ["X", "Y", "Z"]
    assert sorted_list(KeysReader().keys().map("{}!".format).run(on=r)) == ["x!", "y!", "z!"]
    assert clean(KeysReader("x").map("constant").run(on=r)) == "constant"
    factor = 7
    assert sorted_list(KeysReader().values().map(lambda v: int(v) * factor).run(on=r)) == [7, 14, 21]


def check_object_function_of_the_program(r):
    three(r)
    assert sorted_list(KeysReader().values().map(plus_one).run(on=r)) == [2, 3, 4]


def plus_one(value):
    return int(value) + 1


def check_object_coroutine(r):
    three(r)

    async def later(record):
        import asyncio

        await asyncio.sleep(0.001)
        return record["key"]

    assert sorted_list(KeysReader().map(later).run(on=r)) == ["x", "y", "z"]


def check_object_groups(r):
    four(r)
    values = KeysReader().values()

    def as_dict(function):
        return {each["key"]: each["value"] for each in clean(function.run(on=r))}

    assert as_dict(values.groupby(lambda v: v, lambda k, a, v: (a or 0) + 1)) == {"1": 2, "2": 2}
    assert as_dict(values.localgroupby(lambda v: v, lambda k, a, v: (a or "") + v)) == {"1": "11", "2": "22"}
    assert as_dict(values.batchgroupby(lambda v: v, lambda k, records: sorted(records))) == {
        "1": ["1", "1"],
        "2": ["2", "2"],
    }
    assert as_dict(values.batchgroupby(lambda v: v)) == {"1": 2, "2": 2}
    assert clean(values.countby(lambda v: "all").run(on=r)) == {"key": "all", "value": 4}
    assert as_dict(values.countby()) == {"1": 2, "2": 2}


def check_object_accumulate_repartition_collect(r):
    three(r)
    values = KeysReader().values().map(int)
    assert clean(values.accumulate(lambda a, x: (a or 0) + x).run(on=r)) == 6
    assert sorted_list(values.repartition(lambda x: str(x)).collect().run(on=r)) == [1, 2, 3]
    assert clean(values.aggregate(0).run(on=r)) == 6
    assert sorted_list(values.aggregate().run(on=r)) == [1, 2, 3]


def check_object_dict_as_aggregate(r):
    three(r)
    both = KeysReader().aggregate(
        {}, lambda acc, record: {**acc, record["key"]: record["value"]}, lambda acc, other: {**acc, **other}
    )
    result = both.run(on=r)
    assert clean(result) == {"x": "1", "y": "2", "z": "3"} and result["x"] == "1"


def check_object_nothing(r):
    assert clean(KeysReader().values().run(on=r)) == []
    assert clean(KeysReader().count().run(on=r)) in ([], 0)


def check_object_any_value(r):
    values = [None, True, 10**30, 2.5, float("inf"), "", "ü", b"\xff", (1, (2,)), {"a": [1]}, {1}, frozenset([2]), 1j]

    assert clean(ShardsIDReader().map(lambda _: values).run(on=r)) == values
    assert clean(ShardsIDReader().flatmap(lambda _: values[::-1]).run(on=r)) == values


def check_object_four_ways(r):
    three(r)
    opened = KeysReader().values().map(int).aggregate(0, lambda a, x: a + x, lambda a, x: a + x)
    closed = opened.run()
    assert isinstance(opened, OpenGearFunction) and isinstance(closed, ClosedGearFunction)
    results = [r.gears.pyexecute(closed), closed.on(r), r.gears.pyexecute(opened), opened.run(on=r)]
    assert [int(each) for each in results] == [6, 6, 6, 6]
    assert all(each.errors == [] for each in results)


def check_object_on_a_plain_client(r):
    three(r)
    plain = redis.Redis("127.0.0.1", PORT)
    assert clean(KeysReader().count().run(on=plain)) == 3
    assert len(redgrease.Gears(plain).pyexecute(GB().run())) == 3


def check_object_reused_prefix(r):
    three(r)
    numbers = KeysReader().values().map(int)
    even, odd = numbers.filter(lambda x: x % 2 == 0), numbers.filter(lambda x: x % 2)
    assert clean(even.run(on=r)) == 2 and sorted_list(odd.run(on=r)) == [1, 3]
    assert sorted_list(numbers.run(on=r)) == [1, 2, 3]


def check_object_errors(r):
    three(r)
    result = KeysReader().map(lambda record: record["nope"]).run(on=r)
    assert result.value == [] and len(result.errors) >= 1 and b"KeyError" in bytes(result.errors[0])


def check_object_wrong_mode(r):
    fails(TypeError, CommandReader().run)
    fails(TypeError, KeysOnlyReader().register)
    fails(TypeError, r.gears.pyexecute, None)


def check_object_unblocking(r):
    three(r)
    execution = KeysReader().count().run().on(r, unblocking=True)
    assert isinstance(execution.value, redgrease.data.ExecID)
    assert int(r.gears.getresultsblocking(execution)) == 3
    assert int(r.gears.getresults(execution)) == 3
    assert int(r.gears.getresults(str(execution.value))) == 3


def check_object_requirements_of_the_package_itself(r):
    three(r)
    assert clean(r.gears.pyexecute(KeysReader().count(), requirements=["redgrease[runtime]"])) == 3
    assert clean(r.gears.pyexecute(KeysReader().count(), requirements=["redgrease"])) == 3


def check_object_options_of_readers(r):
    three(r)
    assert clean(KeysReader().keys().run("x", noScan=True, on=r)) == "x"
    records = clean(KeysReader().run(readValue=False, on=r))
    assert sorted(each["key"] for each in records) == ["x", "y", "z"] and "value" not in records[0]
    assert sorted_list(KeysOnlyReader().run(count=1, on=r)) == ["x", "y", "z"]
    assert sorted_list(KeysReader().keys().run(collect=False, on=r)) == ["x", "y", "z"]


# -- registrations of objects


def check_register_keys(r):
    assert (
        KeysReader()
        .foreach(lambda x: redgrease.execute("INCR", "counter"))
        .register("person:*", eventTypes=["set"], keyTypes=["string"], on=r)
        .value
        is True
    )
    r.set("person:1", "x")
    r.set("other", "x")
    r.hset("person:2", "f", "v")
    assert until(lambda: r.get("counter") == b"1")


def check_register_sync(r):
    KeysReader().foreach(lambda x: redgrease.execute("EXPIRE", x["key"], 3600)).register(
        "Foo*", mode=TriggerMode.Sync, readValue=False, eventTypes=["set"], on=r
    )
    r.set("Foo", "Bar")
    assert 3590 < r.ttl("Foo") <= 3600


def check_register_async_local(r):
    KeysReader().foreach(lambda x: redgrease.execute("SET", "seen", x["event"])).register(
        "user:*", mode="async_local", eventTypes=["hset", "hmset"], on=r
    )
    r.hset("user:1", "name", "x")
    assert until(lambda: r.get("seen")) == b"hset"


def check_register_stream(r):
    registered = []
    StreamReader().foreach(lambda x: redgrease.execute("HSET", "copy", x["id"], x["value"]["a"])).register(
        "st:*", batch=2, duration=10, onFailedPolicy=FailurePolicy.Continue, trimStream=False, on=r
    )
    for number in range(5):
        registered.append(r.xadd("st:1", {"a": number}))
    assert until(lambda: r.hlen("copy") == 5)
    assert r.hgetall("copy") == {name: str(n).encode() for n, name in enumerate(registered)}
    assert r.xlen("st:1") == 5


def check_register_on_registered(r):
    KeysReader().register("x", onRegistered=lambda: redgrease.execute("SET", "registered", "1"), on=r)
    assert until(lambda: r.get("registered")) == b"1"


def check_register_unblocking(r):
    assert KeysReader().register("x").on(r, unblocking=True).value is True


def check_register_maximum_age(r):
    def keep_maximum(person):
        age = int(person["value"]["age"])
        highest = redgrease.cmd.get("age:maximum")
        if not highest or age > int(highest):
            redgrease.cmd.set("age:maximum", age)

    KeysReader().foreach(keep_maximum).register("person:*", eventTypes=["hset"], keyTypes=["hash"], on=r)
    for number, age in enumerate((7, 42, 12)):
        r.hset(f"person:{number}", "age", age)
    assert until(lambda: r.get("age:maximum") == b"42")


def check_command_decorator(r):
    @command(on=r)
    def add(a, b=10):
        return int(a) + int(b)

    assert add(1, 2).value == 3 and add(1).value == 11
    assert r.gears.trigger("add", 5, 5).value == 10


def check_command_decorator_later(r):
    @command("named", mode=TriggerMode.AsyncLocal)
    def function():
        return {"a": [1, None]}

    assert isinstance(function, ClosedGearFunction)
    registered = function.on(r)
    assert registered().value == {"a": [1, None]}
    assert r.gears.trigger("named").value == {"a": [1, None]}


def check_command_decorator_return_values(r):
    @command("one_list", on=r)
    def one_list():
        return [1, 2]

    @command("none", on=r)
    def none():
        return None

    @command("binary", on=r)
    def binary():
        return b"\x00\xff"

    assert one_list().value == [1, 2]
    assert none().value is None
    assert binary().value == b"\x00\xff"


def check_command_decorator_random_name(r):
    assert command(..., on=r)(lambda: 1)().value == 1


def check_command_error(r):
    @command("divide", on=r)
    def divide(a, b):
        return int(a) / int(b)

    error = fails(redis.exceptions.ResponseError, divide, 1, 0)
    assert "ZeroDivisionError" in str(error)
    fails(Exception, divide, 1)


def check_command_replace(r):
    command("twice", on=r)(lambda: "first")
    fails(redgrease.exceptions.DuplicateTriggerError, command("twice", on=r), lambda: "second")
    assert command("twice", on=r, replace=False)(lambda: "third")().value == "first"
    assert command("twice", on=r, replace=True)(lambda: "fourth")().value == "fourth"
    assert len(r.gears.dumpregistrations()) == 1


def check_command_arguments_are_text(r):
    @command("types", on=r)
    def types(*args):
        return [type(each).__name__ for each in args]

    assert types("a", 1, 2.5, b"x").value == ["str"] * 4


def check_command_in_two_threads(r):
    @command("echo", on=r)
    def echo(word):
        return word

    got = []
    clients = [redgrease.RedisGears(host="127.0.0.1", port=PORT) for _ in range(2)]

    def call(client, word):
        got.extend(client.gears.trigger("echo", word).value == word for _ in range(20))

    threads = [threading.Thread(target=call, args=(client, str(n))) for n, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [True] * 40


# -- inspection


def check_dumpregistrations(r):
    script = "GB('CommandReader').flatmap(lambda x: x).register(trigger='Bang')"
    r.gears.pyexecute(script)
    (found,) = r.gears.dumpregistrations()
    data = found.RegistrationData
    assert isinstance(found.id, redgrease.data.ExecID) and found.reader == "CommandReader" and found.desc is None
    assert (data.mode, data.numTriggered, data.numSuccess, data.numFailures, data.numAborted) == ("async", 0, 0, 0, 0)
    assert data.lastError is None and data.args["trigger"] == b"Bang"
    assert "sessionId" in found.PD and found.PD["depsList"] == []
    r.gears.trigger("Bang")
    (found,) = r.gears.dumpregistrations()
    assert (found.RegistrationData.numTriggered, found.RegistrationData.numSuccess) == (1, 1)
    assert r.gears.unregister(found.id) is True
    assert r.gears.dumpregistrations() == []


def check_dumpregistrations_of_all_readers(r):
    KeysReader(desc="keys").register("a*", eventTypes=["set"], keyTypes=["string", "hash"], on=r)
    StreamReader(desc="stream").register("st:*", batch=3, duration=5, onFailedPolicy="retry", on=r)
    CommandReader(desc="command").register(trigger="name", mode="sync", on=r)
    found = {each.reader: each for each in r.gears.dumpregistrations()}
    assert sorted(found) == ["CommandReader", "KeysReader", "StreamReader"]
    keys, stream = found["KeysReader"].RegistrationData.args, found["StreamReader"].RegistrationData.args
    assert (keys["regex"], keys["eventTypes"], keys["keyTypes"]) == (b"a*", [b"set"], [b"string", b"hash"])
    assert (stream["stream"], stream["batchSize"], stream["durationMS"]) == (b"st:*", 3, 5)
    assert found["StreamReader"].RegistrationData.status is True
    assert found["CommandReader"].RegistrationData.mode == "sync"
    assert [each.desc for each in r.gears.dumpregistrations(reader="KeysReader")] == [b"keys"]
    assert len(r.gears.dumpregistrations(mode="sync")) == 1
    assert r.gears.unregister(found["KeysReader"]) is True


def check_unregister_unknown(r):
    fails(redis.exceptions.ResponseError, r.gears.unregister, redgrease.data.ExecID(sequence=999999))


SLOW_SCRIPT = """
import time
def slow():
    for _ in range(600):
        time.sleep(0.1)
        yield 1
GB('PythonReader').run(slow)
"""


def check_getexecution(r):
    execution = r.gears.pyexecute("GB().map(lambda x: x).filter(lambda x: True).run()", unblocking=True)
    r.gears.getresultsblocking(execution)
    ((shard, plan),) = r.gears.getexecution(execution).items()
    assert isinstance(shard, str) and plan.status == "done"
    numbers = (plan.shards_received, plan.shards_completed, plan.results, plan.total_duration, plan.read_duration)
    assert all(isinstance(each, int) for each in numbers) and plan.errors == []
    assert len(plan.steps) >= 2
    for step in plan.steps:
        assert isinstance(step.type, str) and isinstance(step.name, str) and isinstance(step.arg, str)
        assert isinstance(step.duration, int)
    shard_plan = r.gears.getexecution(execution, redgrease.data.ExecLocality.Shard)
    assert list(shard_plan) == [shard]
    fails(redis.exceptions.ResponseError, r.gears.getexecution, execution, redgrease.data.ExecLocality.Cluster)


def check_getexecution_of_an_object(r):
    three(r)
    execution = KeysReader().values().map(int).run().on(r, unblocking=True)
    r.gears.getresultsblocking(execution)
    (plan,) = r.gears.getexecution(execution).values()
    types = [step.type for step in plan.steps]
    assert plan.results == 3 and types.count("map") >= 2, types


def check_dumpexecutions_abort_drop(r):
    execution = r.gears.pyexecute(SLOW_SCRIPT, unblocking=True)
    assert until(lambda: [each.status for each in r.gears.dumpexecutions()] == ["running"])
    (found,) = r.gears.dumpexecutions(status="running", registered=False)
    assert found.executionId == execution.value and found.registered is False
    assert r.gears.dumpexecutions(registered=True) == []
    fails(redis.exceptions.ResponseError, r.gears.dropexecution, execution)
    fails(redis.exceptions.ResponseError, r.gears.getresults, execution)
    assert r.gears.abortexecution(execution) is True
    assert until(lambda: [each.status for each in r.gears.dumpexecutions()] == ["done"])
    assert r.gears.abortexecution(found) is True
    assert r.gears.dropexecution(found) is True
    assert r.gears.dumpexecutions() == []


def check_unknown_executions(r):
    unknown = redgrease.data.ExecID(sequence=999999)
    for method in (r.gears.abortexecution, r.gears.dropexecution, r.gears.getresults, r.gears.getresultsblocking):
        fails(redis.exceptions.ResponseError, method, unknown)
    fails(redis.exceptions.ResponseError, r.gears.getexecution, unknown)


def check_getresultsblocking_waits(r):
    script = """
import time
def numbers():
    for number in range(3):
        time.sleep(0.1)
        yield number
GB('PythonReader').aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run(numbers)
"""
    execution = r.gears.pyexecute(script, unblocking=True)
    result = r.gears.getresultsblocking(execution)
    assert result.value == b"3" and result.errors == []


def check_pystats(r):
    r.gears.pyexecute("GB('ShardsIDReader').map(lambda x: x).run()")
    stats = r.gears.pystats()
    for value in (stats.TotalAllocated, stats.PeakAllocated, stats.CurrAllocated):
        assert isinstance(value, int) and value > 0


def check_cluster_info(r):
    assert r.gears.infocluster() is None
    assert r.gears.refreshcluster() is True


def check_versions(r):
    version = r.gears.python_version()
    assert version[0] == 3 and isinstance(version[1], int)
    major, minor, build = r.gears.gears_version()
    assert (major, minor) >= (1, 0) and isinstance(build, int)
    assert r.gears._ping() is True
    assert "rg" in [each["name"] for each in r.module_list()]


def check_pydumpreqs(r):
    for info in r.gears.pydumpreqs():
        assert isinstance(info, redgrease.data.PyRequirementInfo)
    assert r.gears.pydumpreqs(name="surely-not-there") == []
    assert r.gears.pyexecute("", requirements=["six==1.16.0"]).value is True
    script = "import six\nGB('CommandReader').map(lambda _: six.__version__).register(trigger='version')"
    assert r.gears.pyexecute(script, requirements=["six==1.16.0"]).value is True
    (info,) = r.gears.pydumpreqs(name="six")
    assert (info.Name, info.IsDownloaded, info.IsInstalled) == ("six==1.16.0", True, True)
    assert info.Wheels and isinstance(info.GearReqVersion, int) and isinstance(info.CompiledOs, str)
    assert r.gears.trigger("version") in (b"1.16.0", [b"1.16.0"])


# -- configuration


def check_config_numbers(r):
    config = r.gears.config
    for name in (
        "MaxExecutions",
        "MaxExecutionsPerRegistration",
        "ExecutionMaxIdleTime",
        "SendMsgRetries",
        "PythonInstallReqMaxIdleTime",
    ):
        old = getattr(config, name)
        assert isinstance(old, int) and not isinstance(old, bool)
        setattr(config, name, old + 1)
        assert getattr(config, name) == old + 1
        assert config.set(**{name: old}) is True
        assert config.get(name) == {name: old}
        assert config.set({name: old}) is True
        assert config.get_single(name) == old


def check_config_booleans(r):
    config = r.gears.config
    for name in ("ProfileExecutions", "PythonAttemptTraceback"):
        old = getattr(config, name)
        assert isinstance(old, bool)
        for value in (not old, old):
            setattr(config, name, value)
            assert getattr(config, name) is value


def check_config_read_only(r):
    config = r.gears.config
    kinds = {
        "DownloadDeps": bool,
        "DependenciesUrl": str,
        "DependenciesSha256": str,
        "PythonInstallationDir": str,
        "CreateVenv": bool,
        "ExecutionThreads": int,
    }
    for name, kind in kinds.items():
        value = getattr(config, name)
        assert isinstance(value, kind), (name, value)
        fails(AttributeError, setattr, config, name, value)
        assert config.set({name: value}) is False
        assert getattr(config, name) == value


def check_config_all_and_own(r):
    config = r.gears.config
    assert len(config.get()) == 13
    assert config.set({"an_option_of_mine": "text"}) is True
    assert config.get_single("an_option_of_mine") == b"text"
    fails(AttributeError, getattr, config, "not_there")
    fails(AttributeError, setattr, config, "not_there", 1)
    script = "GB('ShardsIDReader').map(lambda _: configGet('an_option_of_mine')).run()"
    assert r.gears.pyexecute(script).value == b"text"


def check_config_bad_names(r):
    for name in (None, ..., True, object()):
        fails(redis.exceptions.DataError, r.gears.config.set, {name: 1})
    for name in (None, True):
        fails(KeyError, r.gears.config.get_single, name)


# -- results, constants, helpers


def check_execution_result(r):
    three(r)
    total = KeysReader().values().map(int).aggregate(0, lambda a, x: a + x).run(on=r)
    assert total + 1 == 7 and total == 6 and total == [6] and total[0] == 6 and len(total) == 1 and list(total) == [6]
    assert isinstance(total, int) and bool(total) and f"{total.value}" == "6"
    assert repr(total) == "ExecutionResult[int](6)"
    assert bytes(total) == b"6"


def check_exec_id(r):
    execution = redgrease.data.ExecID.parse(b"abc-7")
    assert (execution.shard_id, execution.sequence, str(execution), bytes(execution)) == ("abc", 7, "abc-7", b"abc-7")
    fails(ValueError, redgrease.data.ExecID.parse, "no id")


def check_constants(r):
    assert (TriggerMode.Async, TriggerMode.AsyncLocal, TriggerMode.Sync) == ("async", "async_local", "sync")
    assert (FailurePolicy.Continue, FailurePolicy.Abort, FailurePolicy.Retry) == ("continue", "abort", "retry")
    assert KeyType.of({}) == "hash" and KeyType.constructor("list") is list
    assert LogLevel.to_logging_level("warning") == 40
    r.hset("h", "f", "v")
    reader = redgrease.GearReader(ReaderType.KeysReader, "*")
    assert clean(reader.filter(lambda x: x["type"] == KeyType.Hash).count().run(on=r)) == 1


def check_function_string(r):
    text, context = redgrease.gearialization.get_function_string(CommandReader().register(trigger="t"))
    assert context["trigger"] == "t" and "GearsBuilder" in text
    assert redgrease.gearialization.get_function_string("GB()") == ("GB()", {})
    assert r.execute_command("RG.PYEXECUTE", text)


def check_log(r):
    three(r)
    logged = KeysReader().keys().foreach(lambda key: redgrease.log("key " + key, level=LogLevel.Notice))
    assert sorted_list(logged.run(on=r)) == ["x", "y", "z"]


def check_genres(r):
    r.hset("movie:1", "genres", "Drama, Crime")
    r.hset("movie:2", "genres", "Crime")
    r.hset("movie:3", "genres", "\\N")
    genres = (
        KeysReader("movie:*")
        .keys(type="hash")
        .map(lambda key: redgrease.cmd.hget(key, "genres"))
        .filter(lambda text: text != "\\N")
        .flatmap(lambda text: text.split(","))
        .map(str.strip)
        .countby()
    )
    assert {each["key"]: each["value"] for each in clean(genres.run(on=r))} == {"Drama": 1, "Crime": 2}


def check_active_users(r):
    for number in range(9):
        r.hset(f"user:{number}", "active", number % 5)
        r.hset(f"user:{number}", "permissions", str(["read", "edit"] if number % 2 else ["read", "root"]))
    users = KeysReader("user:*").values(type="hash").filter(lambda user: int(user["active"]))
    assert r.gears.pyexecute(users.count()) == 7
    permissions = users.flatmap(lambda user: eval(user["permissions"])).distinct().run().on(r)
    assert set(permissions) == {"read", "edit", "root"} and "root" in permissions and permissions.errors == []


def check_transfers(r):
    for number in range(3):
        r.hset(f"account:{number}", "balance", 100)

    def transfer(message):
        amount = int(message["amount"])
        with redgrease.atomic():
            redgrease.execute("HINCRBY", message["from"], "balance", -amount)
            redgrease.execute("HINCRBY", message["to"], "balance", amount)

    StreamReader().values().foreach(transfer).register("transactions:*", batch=10, duration=30, on=r)
    for number in range(30):
        message = {"from": "account:0", "to": f"account:{1 + number % 2}", "amount": 1}
        r.xadd("transactions:0", message)
    assert until(lambda: r.hget("account:0", "balance") == b"70")
    assert until(lambda: sum(int(r.hget(f"account:{n}", "balance")) for n in range(3)) == 300)


def check_first_class_functions(r):
    for number in (0, 1, 42):
        r.hset(f"record:{number}", "status", "new")
    records = KeysReader("record:*").records(type="hash")
    assert clean(records.count().run(on=r)) == 3
    records.foreach(lambda rec: redgrease.cmd.xadd("todo", {"key": rec.key})).register(
        "record:*", eventTypes=["hset"], on=r
    )
    StreamReader().values().foreach(lambda msg: redgrease.cmd.set("done:" + msg["key"], 1)).register("todo", on=r)
    r.hset("record:7", "status", "new")
    assert until(lambda: r.exists("done:record:7"))


def check_cmd_of_many_kinds(r):
    def everything(_):
        cmd = redgrease.cmd
        cmd.set("s", "text")
        cmd.set("b", b"\xff\x00")
        cmd.hset("h", "f", 1)
        cmd.rpush("l", "a", "b")
        cmd.zadd("z", {"m": 1.5})
        cmd.sadd("t", "member")
        return [
            cmd.get("s"),
            bytes(cmd.get("b")),
            cmd.hgetall("h"),
            cmd.lrange("l", 0, -1),
            cmd.zscore("z", "m"),
            cmd.smembers("t"),
            cmd.exists("s"),
            cmd.incr("n"),
            cmd.ttl("s"),
            cmd.delete("s"),
        ]

    expected = ["text", b"\xff\x00", {"f": "1"}, ["a", "b"], 1.5, {"member"}, 1, 1, -1, 1]
    assert clean(ShardsIDReader().map(everything).run(on=r)) == expected


def check_requirements_helpers(r):
    resolve = redgrease.requirements.resolve_requirements
    assert {str(each) for each in resolve(["numpy", "numpy"])} == {"numpy"}
    assert {str(each) for each in resolve([], "1.2.3")} == {"redgrease[runtime]==1.2.3"}
    assert {str(each) for each in resolve(["redgrease==1"], False)} == set()


def main():
    plain = redis.Redis("127.0.0.1", PORT)
    failures = {}
    only = sys.argv[2:]
    checks = {name: check for name, check in globals().items() if name.startswith("check_")}
    for name, check in checks.items():
        if only and name not in only:
            continue
        for row in plain.execute_command("RG.DUMPEXECUTIONS"):
            plain.execute_command("RG.ABORTEXECUTION", row[1])
        for row in plain.execute_command("RG.DUMPREGISTRATIONS"):
            plain.execute_command("RG.UNREGISTER", row[1])
        until(lambda: all(row[3] in (b"done", b"aborted") for row in plain.execute_command("RG.DUMPEXECUTIONS")))
        for row in plain.execute_command("RG.DUMPEXECUTIONS"):
            plain.execute_command("RG.DROPEXECUTION", row[1])
        plain.flushall()
        client = redgrease.RedisGears(host="127.0.0.1", port=PORT)
        try:
            check(client)
        except Exception:
            failures[name] = traceback.format_exc()
        else:
            failures[name] = None
    json.dump(failures, sys.stdout)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    PORT = int(sys.argv[1])
    main()
