"""Mistakes are reported where they are made: on the client, at the line that builds the function."""

from __future__ import annotations

import pytest
from redgrease import (
    CommandReader,
    GearReader,
    GearsBuilder,
    KeysOnlyReader,
    KeysReader,
    PythonReader,
    ShardsIDReader,
    StreamReader,
    codec,
    operations,
)

needs_extension = pytest.mark.skipif(not codec.available(), reason="needs redgrease._native")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        # keywords
        (lambda: KeysReader().run(noscan=True), r"run\(\) of a KeysReader.*'noscan': did you mean 'noScan'\?"),
        (lambda: KeysReader().run(xyz=1), r"'xyz' \(it has noScan, readValue, mode, arg, .* and progress\)"),
        (lambda: KeysReader().run(fromId="1"), "'fromId', an option of StreamReader"),
        (lambda: StreamReader().run(noScan=True), "'noScan', an option of KeysReader and KeysOnlyReader"),
        (lambda: ShardsIDReader().run(count=3), "'count', an option of KeysOnlyReader"),
        (lambda: KeysReader().register(batch=10), r"'batch', an option of StreamReader \(it has eventTypes"),
        (lambda: KeysReader().register(trigger="x"), "'trigger', an option of CommandReader"),
        (lambda: StreamReader().register(keyTypes=["hash"]), "'keyTypes', an option of KeysReader"),
        (lambda: StreamReader().register(readValue=False), "'readValue', an option of KeysReader"),
        (lambda: CommandReader().register(trigger="x", eventTypes=["set"]), "'eventTypes', an option of KeysReader"),
        (lambda: CommandReader().register(triger="x"), "'triger': did you mean 'trigger'"),
        (lambda: KeysReader().register(event_types=["set"]), "'event_types': did you mean 'eventTypes'"),
        (lambda: KeysReader().register(unknown=None), "unexpected keyword argument 'unknown'"),
        (lambda: KeysReader().map(len, requirement=["x"]), "requirement"),
        (lambda: GearsBuilder(regex="x"), "regex"),
        (lambda: GearsBuilder().run(noscan=True), "did you mean 'noScan'"),
        # actions
        (lambda: CommandReader().run(), r"\(run\).*'CommandReader': close it with register; run has KeysReader, "),
        (lambda: ShardsIDReader().register(), r"\(register\).*'ShardsIDReader': close it with run; register has "),
        (lambda: KeysOnlyReader().register(), "close it with run"),
        (lambda: GearReader("KeyReader").run(), "'KeyReader': there is no such reader"),
        (lambda: CommandReader().register(), "trigger='name'"),
        (lambda: PythonReader().run(), "generator function"),
        (lambda: PythonReader().run([1, 2]), "generator function"),
        (lambda: KeysReader().run(on=6379), "executed on a client.*6379"),
        (lambda: KeysReader().run().on(None), "executed on a client.*None"),
    ],
)
def test_wrong_uses_are_type_errors(make, text):
    with pytest.raises(TypeError, match=text):
        make()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: KeysReader().register(mode="asink"), "mode must be 'async', 'async_local' or 'sync', got 'asink'"),
        (lambda: KeysReader().run(mode="sync"), "mode must be 'async' or 'async_local', got 'sync'"),
        (lambda: KeysReader().register(keyTypes=["hash", "hsah"]), "keyTypes must be 'string', .*, got 'hsah'"),
        (lambda: KeysReader().register(keyTypes="hsah"), "keyTypes must be"),
        (lambda: StreamReader().register(onFailedPolicy="ignore"), "onFailedPolicy must be .*, got 'ignore'"),
        (lambda: KeysReader().limit(-1), "length of limit must be a whole number from 0, got -1"),
        (lambda: KeysReader().limit(1, "2"), "start of limit must be a whole number from 0, got '2'"),
        (lambda: KeysReader().limit(True), "length of limit"),
        (lambda: KeysReader().aggregate({}), "seqOp"),
    ],
)
def test_wrong_values_are_value_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()


async def coroutine():
    return 1


@needs_extension
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: StreamReader().register(batch=0), "batch must be a whole number from 1 to 1000000000, got 0"),
        (lambda: StreamReader().register(duration="10"), "duration argument must be a number, got '10'"),
        (lambda: StreamReader().register(trimStream=1), "must be a boolean"),
        (lambda: StreamReader().register(mode="sync", onFailedPolicy="retry"), "sync can only be combined"),
        (lambda: KeysReader().register(5), "regex argument must be a string"),
        (lambda: KeysReader().register(eventTypes=[]), "eventTypes is an empty list"),
        (lambda: KeysReader().register(readValue="no"), "readValue is not boolean"),
        (lambda: KeysReader().run(readValue="no"), "readValue value is not boolean"),
        (lambda: KeysReader(5).run(), "regex argument must be a string"),
        (lambda: CommandReader().register(trigger=5), "trigger argument is not string"),
        (lambda: CommandReader().register(trigger="a", hook="get"), "can not be given with keyprefix or hook"),
        (lambda: PythonReader().run(coroutine), "pyreader got an async function"),
        (lambda: KeysReader().register(onRegistered=coroutine), "onRegistered got an async function"),
    ],
)
def test_values_are_checked_as_by_the_server(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_right_uses_are_accepted():
    CommandReader().register(hook="get", keyprefix="a*")
    CommandReader().register(trigger="x", prefix="ignored", eventTypes=None, hook=None)
    KeysReader().register(keyTypes="HASH", mode="async_local", noScan=True, commands=["get"])
    with pytest.warns(DeprecationWarning, match="prefix"):
        assert KeysReader().register(regex="a*").operation.prefix == "a*"
    StreamReader().register(onFailedPolicy="Retry", onFailedRetryInterval=2)
    KeysOnlyReader().run(count=10, noScan=True)
    StreamReader().run("s", fromId="1-0", pattern=False)


def test_an_open_function_says_how_to_execute_it():
    with pytest.raises(AttributeError, match=r"open, .*close it with run or register"):
        KeysReader().on  # noqa: B018
    with pytest.raises(AttributeError, match="'KeysReader' object has no attribute 'filtered'"):
        KeysReader().filtered  # noqa: B018
    with pytest.raises(AttributeError, match=r"is closed, .* map\(\) cannot be added"):
        KeysReader().run().map  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'filtered'"):
        KeysReader().run().filtered  # noqa: B018
    assert not hasattr(KeysReader(), "on") and not hasattr(GearsBuilder(), "on")


def test_a_refused_action_does_not_change_a_builder():
    builder = GearsBuilder("StreamReader", "s")
    with pytest.raises(ValueError):
        builder.register(onFailedPolicy="ignore")
    with pytest.raises((TypeError, ValueError)):
        builder.run(fromId=5)
        raise ValueError  # without the extension the server refuses it
    assert builder.closed is None or not codec.available()


@needs_extension
def test_the_options_are_those_of_the_server():
    from redgrease import _native

    assert set(operations._CHOICES["keyTypes"]) == set(_native.KEY_TYPES)
    assert set(operations._CHOICES["onFailedPolicy"]) == set(_native.FAILURE_POLICIES)
    assert set(operations.MODES["register"]) == set(_native.MODES)
    assert set(operations.MODES["run"]) == set(_native.RUN_MODES)
