"""`redgrease.testing.run_local`: functions without a server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import unittest.mock

import pytest
import redgrease
from redgrease import (
    CommandReader,
    GearsBuilder,
    KeysOnlyReader,
    KeysReader,
    PythonReader,
    ShardsIDReader,
    StreamReader,
    cmd,
    runtime,
)
from redgrease.exceptions import ScriptError
from redgrease.testing import run_local
from redgrease.worker import coroutines

DATABASE = {"a:1": "x", "a:2": 7, b"b\xff": b"\xfe", "h": {"f": 1, b"\xff": "y"}, "l": ["1", b"\xff"], "s": {"m"}}


def identity(record):
    return record


# -- readers


def test_a_mapping_is_the_content_of_a_database():
    assert run_local(KeysReader(), DATABASE).records == [
        {"key": "a:1", "value": "x", "type": "string", "event": None},
        {"key": "a:2", "value": "7", "type": "string", "event": None},
        {"key": b"b\xff", "value": b"\xfe", "type": "string", "event": None},
        {"key": "h", "value": {"f": "1", b"\xff": "y"}, "type": "hash", "event": None},
        {"key": "l", "value": ["1", b"\xff"], "type": "list", "event": None},
        {"key": "s", "value": None, "type": "set", "event": None},
    ]


@pytest.mark.parametrize(
    ("function", "keys"),
    [
        (KeysReader("a:*").keys(), ["a:1", "a:2"]),
        (KeysReader("a:*").keys().run("?"), ["h", "l", "s"]),
        (KeysReader().keys().run("h", noScan=True), ["h"]),
        (KeysReader().keys().run("h*", noScan=True), []),
        (KeysOnlyReader("[hl]"), ["h", "l"]),
        (KeysOnlyReader().run("h", noScan=True), ["h"]),
        (KeysOnlyReader("b?"), [b"b\xff"]),
    ],
)
def test_the_reader_selects_keys(function, keys):
    assert run_local(function, DATABASE).records == keys


def test_values_are_read_on_request():
    assert run_local(KeysReader("h").run(readValue=False), DATABASE) == [{"key": "h", "event": None}]


def test_messages_of_streams():
    streams = {"one": [{"a": 1}, {"b": b"\xff"}], "on*": [("5-1", {"c": "3"})]}
    first = {"key": "one", "id": "1-0", "value": {"a": "1"}}
    second = {"key": "one", "id": "2-0", "value": {"b": b"\xff"}}
    third = {"key": "on*", "id": "5-1", "value": {"c": "3"}}
    assert run_local(StreamReader("one"), streams).records == [first, second]
    assert run_local(StreamReader(), streams).records == [first, second, third]
    assert run_local(StreamReader("on*"), streams).records == [third]
    assert run_local(StreamReader().run("one", fromId="1-0"), streams).records == [second]


def test_readers_without_data():
    assert run_local(ShardsIDReader()).records == ["1"]
    assert run_local(PythonReader().map(str).run(lambda: range(2))).records == ["0", "1"]
    assert run_local(PythonReader().map(str), [1, None]).records == ["1", "None"]
    assert run_local(PythonReader().map(str).run(lambda: range(2)), [5]).records == ["5"]


def test_records_are_copies():
    records = [[1], [2]]
    assert run_local(PythonReader().foreach(lambda record: record.append(0)), records).records == [[1, 0], [2, 0]]
    assert records == [[1], [2]]


@pytest.mark.parametrize(
    ("function", "data", "text"),
    [
        (KeysReader(), None, "KeysReader reads from a server: give run_local the records"),
        (KeysOnlyReader().run(patternGenerator=lambda: ("*", False)), None, "KeysOnlyReader reads from a server"),
        (KeysOnlyReader().run(patternGenerator=lambda: ("*", False)), {}, "function that reads from a server"),
        (PythonReader(), None, r"close it by run\(function\)"),
        (PythonReader(), {}, "PythonReader reads no database"),
        (KeysReader(), "text", "data is a mapping, or a list of records, got 'text'"),
        (KeysReader(), 7, "data is a mapping, or a list of records, got 7"),
        (KeysReader(), {"a": None}, "value of the key 'a' is text, bytes, a number, .* got None"),
        (KeysReader(), {"a": {"f": True}}, "a text of a database is text, bytes or a number, got True"),
        (StreamReader(), {"a": ["m"]}, "message of the stream 'a' is a mapping of its fields, got 'm'"),
        (KeysReader().register(), {}, "give a list of records, such as"),
        (KeysReader(), [threading.Lock()], "record 0 cannot be given to a function: cannot pickle"),
        (identity, [], "run_local runs gear functions, such as"),
    ],
)
def test_wrong_data_is_refused(function, data, text):
    with pytest.raises(TypeError, match=text):
        run_local(function, data)


# -- functions


def test_functions_in_all_forms():
    database = {"a": 1, "b": 2}
    builder = GearsBuilder("KeysReader")
    builder.map(lambda record: int(record["value"]))
    for function in (KeysReader().values().map(int), KeysReader().values().map(int).run(), builder):
        assert run_local(function, database) == [1, 2]
    assert run_local(KeysReader().values().map(int).run(convertToStr=True), database) == ["1", "2"]
    assert run_local(KeysReader().count(), {}).value == 0


def test_arguments_of_the_server_are_checked():
    with pytest.raises(ValueError, match="exactMatch value is not boolean"):
        run_local(KeysReader().run(noScan="yes"), {})


def test_results_are_those_of_a_run():
    result = run_local(PythonReader().map(lambda text: {"n": int(text)}), ["1", "x", "3"])
    assert result == [{"n": 1}]
    assert result["n"] == 1
    (error,) = result.errors
    assert (error.type, error.message) == ("ValueError", "invalid literal for int() with base 10: 'x'")
    assert error.traceback[0] == "Traceback (most recent call last):\n"
    assert "test_testing.py" in error.traceback[1] and len(error.traceback) == 3


def test_many_and_large_results():
    assert run_local(PythonReader().run(lambda: range(100_000))).records == list(range(100_000))
    large = "x" * (65 << 20)
    result = run_local(PythonReader().run(lambda: [large]))
    assert result.records == [] and "is longer than MaxRecordBytes" in str(result.errors[0])


def test_registered_functions_get_events():
    function = KeysReader().keys(event="del").register("a*", eventTypes=["del", "set"])
    assert run_local(function, [{"key": "a", "event": "del"}, {"key": "b", "event": "set"}]) == ["a"]


def test_different_records_have_different_default_keys():
    records = [b"\xff", b"\xfe", b"\xff", None, ""]
    keys = {"b'\\xff'": 2, "b'\\xfe'": 1, "None": 1, "": 1}
    for function in (PythonReader().batchgroupby(), PythonReader().countby()):
        assert {group["key"]: group["value"] for group in run_local(function, records).records} == keys


# -- commands


@redgrease.command
def joined(*arguments):
    return list(arguments)


def test_commands_get_texts():
    assert run_local(joined, arguments=["a", 1, 1.5, b"b", b"\xff"]) == ["a", "1", "1.5", "b", b"\xff"]
    assert run_local(joined).value == []
    assert run_local(CommandReader(), arguments=[1]).value == ["command", "1"]
    assert run_local(CommandReader().register(trigger="name")).value == ["name"]
    assert run_local(joined, [["joined", "x"], ["joined"]]).value == [["x"], []]


def test_a_command_raises_as_on_a_server():
    with pytest.raises(ScriptError) as raised:
        run_local(CommandReader().apply(int), arguments=["x"])
    assert (raised.value.type, raised.value.message) == ("ValueError", "invalid literal for int() with base 10: 'x'")


@pytest.mark.parametrize(
    ("function", "arguments"), [(joined, "text"), (joined, [None]), (joined, [True]), (KeysReader(), ["a"])]
)
def test_wrong_arguments_are_refused(function, arguments):
    with pytest.raises(TypeError):
        run_local(function, None if function is joined else [], arguments=arguments)


# -- functions of the server


def test_a_double_stands_in_for_the_server():
    server = unittest.mock.Mock(return_value="reply")
    function = PythonReader().map(lambda key: (redgrease.execute("GET", key), cmd.hset(key, "f", 1)))
    assert run_local(function, ["k"], execute=server) == [("reply", "reply")]
    assert server.mock_calls == [unittest.mock.call("GET", "k"), unittest.mock.call("HSET", "k", "f", "1")]


@pytest.mark.parametrize("call", [lambda key: redgrease.execute("GET", key), lambda key: cmd.get(key)])
def test_a_command_without_a_double_says_how_to_give_one(call):
    (error,) = run_local(PythonReader().map(call), ["k"]).errors
    assert "the function ran the command GET, and run_local has no server: give execute=function" in error.message


def test_configuration():
    function = PythonReader().map(lambda key: (redgrease.configGet(key), redgrease.gearsConfigGet(key, 3)))
    assert run_local(function, ["a", "b"], config={"a": "1"}).records == [("1", "1"), (None, 3)]
    (error,) = run_local(function, ["a"]).errors
    assert "give config={'a': value}" in error.message


def test_the_log_is_that_of_python(caplog):
    caplog.set_level(logging.DEBUG)
    run_local(
        PythonReader().foreach(lambda level: redgrease.log(f"100 %s {level}", level)), ["debug", "notice", "warning"]
    )
    assert caplog.record_tuples == [
        ("redgrease.testing", logging.DEBUG, "100 %s debug"),
        ("redgrease.testing", logging.INFO, "100 %s notice"),
        ("redgrease.testing", logging.WARNING, "100 %s warning"),
    ]
    assert (
        "Log level should be one of"
        in run_local(PythonReader().map(lambda x: redgrease.log(x, "loud")), ["x"]).errors[0].message
    )


def test_atomic_blocks_and_hash_tags():
    def nested(_record):
        with redgrease.atomic(), redgrease.atomic():
            pass

    def plain(_record):
        with redgrease.atomic():
            return redgrease.hashtag3()

    assert run_local(PythonReader().map(plain), [1, 2]).records == ["{06S}", "{06S}"]
    assert run_local(PythonReader().map(nested), [1]).errors[0].message == "Already inside an atomic block"
    assert run_local(PythonReader().map(plain), [1]) == ["{06S}"]


def test_the_stand_in_ends_with_the_run():
    with pytest.raises(runtime.OnlyInServerError):
        redgrease.execute("PING")
    assert run_local(PythonReader().map(lambda _: redgrease.GEARS_RUNTIME), [1]) == [(1, 2)]
    assert redgrease.GEARS_RUNTIME is False
    with pytest.raises(runtime.OnlyInServerError):
        redgrease.hashtag()


def test_a_run_inside_a_run_has_its_own_stand_in():
    inner = PythonReader().map(lambda _: redgrease.execute("X"))

    def outer(_record):
        within = run_local(inner, [1], execute=lambda _: "inner").value
        return within, redgrease.execute("X")

    assert run_local(PythonReader().map(outer), [1], execute=lambda _: "outer") == [("inner", "outer")]


# -- steps that wait


async def doubled(number):
    await asyncio.sleep(0.001 * (5 - number))
    return number * 2


def test_coroutines_keep_the_order_of_records():
    assert run_local(PythonReader().map(doubled).run(lambda: range(5))).records == [0, 2, 4, 6, 8]


def test_coroutines_call_the_stand_in():
    async def ask(key):
        await asyncio.sleep(0)
        return redgrease.execute("GET", key)

    assert run_local(PythonReader().map(ask), ["a"], execute=lambda *words: words) == [("GET", "a")]
    assert run_local(CommandReader().apply(ask), arguments=["a"], execute=lambda *words: words) == [("GET", "a")]


def test_errors_of_coroutines():
    async def fail(_record):
        await asyncio.sleep(0)
        raise ValueError("in a coroutine")

    assert run_local(PythonReader().map(fail), [1]).errors == [b"in a coroutine"]
    (error,) = run_local(PythonReader().groupby(doubled), [1]).errors
    assert "coroutine" in error.message


def test_a_coroutine_that_nobody_waits_for_does_not_begin():
    ended = threading.Event()
    begun = []

    async def begin():
        begun.append(1)

    class Abandoned:
        def _set_task(self, task):
            return False

        def continueFailed(self, _text):  # noqa: N802
            ended.set()

        continueRun = continueFailed  # noqa: N815

    coroutines.spawn(begin(), Abandoned(), None, 0)
    assert ended.wait(30)
    assert begun == []


def test_futures():
    def later(record):
        future = redgrease.gearsFuture()
        threading.Timer(0.001, future.continueRun, (record + 1,)).start()
        return future

    def failed(_record):
        future = redgrease.gearsFuture()
        threading.Timer(0.001, future.continueFailed, ("no",)).start()
        return future

    assert run_local(PythonReader().map(later).accumulate(lambda acc, n: (acc or 0) + n), range(20)) == 210
    assert run_local(PythonReader().map(failed), [1]).errors == [b"no"]


def test_runs_in_several_threads_are_separate():
    def run(number, found):
        function = PythonReader().map(doubled).map(lambda n: redgrease.execute("ADD", n)).run(lambda: range(5))
        found[number] = run_local(function, execute=lambda _, n: n + number).records

    found = {}
    threads = [threading.Thread(target=run, args=(number, found)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {number: [n * 2 + number for n in range(5)] for number in range(8)}


# -- interruption


def test_the_outcome_of_a_test_is_no_error_of_the_function():
    with pytest.raises(pytest.fail.Exception, match="wrong record"):
        run_local(PythonReader().map(lambda _: pytest.fail("wrong record")), [1])
    (error,) = run_local(PythonReader().map(lambda _: sys.exit(3)), [1]).errors
    assert error.type == "SystemExit"


@pytest.mark.parametrize("keyword", ["", "async "])
def test_control_c_ends_a_run(keyword):
    program = f"""
    import asyncio, time
    from redgrease import PythonReader
    from redgrease.testing import run_local
    {keyword}def begin(_record):
        print("begun", flush=True)
        {"await asyncio" if keyword else "time"}.sleep(60)
    try:
        run_local(PythonReader().map(begin), [1])
    except KeyboardInterrupt:
        print("interrupted")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate(timeout=30) == ("interrupted\n", "")


def test_pytest_is_not_needed():
    code = "import sys, redgrease.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
