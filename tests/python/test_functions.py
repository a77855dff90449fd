"""Functions as objects: building, representation, closing, and the calls of the server's builder."""

from __future__ import annotations

import operator
import pickle
import warnings

import pytest
import redgrease
from redgrease import (
    ClosedGearFunction,
    CommandReader,
    GearReader,
    GearsBuilder,
    KeysOnlyReader,
    KeysReader,
    OpenGearFunction,
    PythonReader,
    ShardsIDReader,
    StreamReader,
    gears,
)


def plus_one(x):
    return x + 1


def key_value(entries):
    return {entry["key"]: entry["value"] for entry in entries}


# -- model


def test_operations_leave_the_function_as_it_was():
    values = KeysReader("user:*").values()
    first, second = values.count(), values.map(len)
    assert repr(values) == "KeysReader('user:*').map(value_of)"
    assert repr(first) == "KeysReader('user:*').map(value_of).count()"
    assert repr(second) == "KeysReader('user:*').map(value_of).map(len)"
    assert isinstance(first, OpenGearFunction)
    with pytest.raises(AttributeError):
        values.operation = None
    with pytest.raises(AttributeError):
        values.new = None
    with pytest.raises(AttributeError):
        del values._parts


def test_the_chain_is_visible():
    function = KeysReader("a*", desc="d").map(plus_one).limit(3)
    assert [type(each).__name__ for each in function.operations] == ["Reader", "Map", "Limit"]
    assert function.operation == gears.Limit(3, 0)
    assert function.input_function.operation == gears.Map(plus_one)
    assert function.reader == "KeysReader"
    assert KeysReader("a*").default_key_pattern == "a*"


@pytest.mark.parametrize(
    ("function", "batch", "event"),
    [
        (KeysReader(), True, True),
        (KeysOnlyReader(), True, False),
        (StreamReader(), True, True),
        (PythonReader(), True, False),
        (ShardsIDReader(), True, False),
        (CommandReader(), False, True),
        (GearReader("NoSuchReader"), False, False),
    ],
)
def test_readers_know_their_modes(function, batch, event):
    assert (function.supports_batch_mode, function.supports_event_mode) == (batch, event)
    if not batch:
        with pytest.raises(TypeError, match=rf"Batch mode \(run\) is not supported for '{function.reader}'"):
            function.run()
    if not event:
        with pytest.raises(TypeError, match=rf"Event mode \(register\) is not supported for '{function.reader}'"):
            function.register(trigger="x")


def test_requirements_accumulate_along_the_chain():
    function = KeysReader(requirements=["a"]).map(len, requirements=["b"]).count(requirements="c>=1")
    for make in ("limit", "collect", "distinct", "count", "sort", "filter", "avg"):
        args = [1] if make == "limit" else []
        assert "d" in getattr(function, make)(*args, requirements=["d"]).requirements
    assert function.requirements == {"a", "b", "c>=1"}
    assert function.run(requirements=["e"]).requirements == {"a", "b", "c>=1", "e"}


def test_functions_travel_as_plain_data():
    function = KeysReader("a*").values(type="hash").aggregate(0, operator.add, max).run("b*", noScan=True)
    again = pickle.loads(pickle.dumps(function))
    assert repr(again) == repr(function)
    assert isinstance(again, ClosedGearFunction)
    assert again.operations == function.operations
    assert b"ClosedGearFunction" not in pickle.dumps(function)


def test_unknown_operations_name_the_versions_as_the_reason():
    with pytest.raises(ValueError, match=r"'Teleport'.*same version"):
        gears.rebuild([("Reader", {}), ("Teleport", {"op": 1})])


def test_bad_keywords_are_refused_at_once():
    with pytest.raises(TypeError, match="'noscan': did you mean 'noScan'"):
        KeysReader().run(noscan=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'triger'"):
        CommandReader().register(triger="x")
    with pytest.raises(TypeError, match="unexpected keyword"):
        KeysReader().map(len, requirement=["x"])
    with pytest.raises(TypeError, match="trigger="):
        CommandReader().register()
    with pytest.raises(TypeError, match="generator function"):
        PythonReader().run()


# -- calls of the server's builder


def test_reader_arguments_reach_the_builder(replayed):
    builder = replayed(KeysReader("user:*", desc="about").run())
    assert (builder.reader, builder.default, builder.desc) == ("KeysReader", "user:*", "about")
    assert builder.action == ("run", {"arg": None, "convertToStr": False, "collect": True, "reply": "objects"})


def test_run_options_reach_the_builder(replayed):
    builder = replayed(KeysReader().run("x", convertToStr=True, collect=False, noScan=True, readValue=False))
    expected = {"arg": "x", "convertToStr": True, "collect": False, "noScan": True, "readValue": False}
    assert builder.action == ("run", {**expected, "reply": "objects"})


def test_register_passes_only_what_was_given(replayed):
    builder = replayed(KeysReader().register())
    assert builder.action == (
        "register",
        {"prefix": "*", "convertToStr": False, "collect": True, "reply": "objects"},
    )
    builder = replayed(KeysReader().register("a*", mode="sync", eventTypes="hset", keyTypes=("hash",), readValue=False))
    action = builder.action[1]
    assert action["eventTypes"] == ["hset"]
    assert action["keyTypes"] == ["hash"]
    assert action["readValue"] is False
    assert (action["prefix"], action["mode"]) == ("a*", "sync")
    builder = replayed(StreamReader().register("s", batch=10, duration=5, trimStream=False, onFailedPolicy="abort"))
    assert {"batch": 10, "duration": 5, "trimStream": False, "onFailedPolicy": "abort"}.items() <= builder.action[
        1
    ].items()


def test_on_registered_is_called_without_arguments(replayed):
    called = []
    builder = replayed(KeysReader().register(onRegistered=lambda: called.append(1)))
    builder.action[1]["onRegistered"]()
    assert called == [1]


@pytest.mark.parametrize(
    ("function", "shards", "expected"),
    [
        (KeysReader().map(int), [["1"], ["2"]], [1, 2]),
        (KeysReader().map("x"), [[1, 2]], ["x", "x"]),
        (KeysReader().map(None), [[1, 2]], [1, 2]),
        (KeysReader().filter(), [[0, 1, "", "a"]], [1, "a"]),
        (KeysReader().filter(str.isdigit), [["1", "a"]], ["1"]),
        (KeysReader().flatmap(), [[[3, 2, 1]]], [1, 2, 3]),
        (KeysReader().flatmap(str.split), [["a b"]], ["b", "a"]),
        (KeysReader().accumulate(), [["a", "b"], ["c"]], [["a", "b"], ["c"]]),
        (KeysReader().accumulate(lambda a, r: (a or 0) + r), [[1, 2], [3]], [3, 3]),
        (KeysReader().limit(2), [[1, 2, 3], [4, 5, 6]], [1, 2, 4, 5]),
        (KeysReader().collect().limit(2, 1), [[1, 2, 3], [4, 5, 6]], [2, 3]),
        (KeysReader().sort(), [[3, 1], [2]], [1, 2, 3]),
        (KeysReader().sort(reverse=False), [[3, 1], [2]], [3, 2, 1]),
        (KeysReader().count(), [[3, 1], [2]], [3]),
        (KeysReader().distinct().count(), [[1, 1], [1, 2]], [2]),
        (KeysReader().avg(), [["1"], ["2"]], [1.5]),
        (KeysReader().avg(len), [["1"], ["222"]], [2]),
        (KeysReader().aggregate(), [[1, 2], [3]], [[1, 2, 3]]),
        (KeysReader().aggregate(0), [[1, 2], [3]], [6]),
        (KeysReader().aggregate(0, operator.add), [[1, 2], [3]], [6]),
        (KeysReader().aggregate(0, lambda a, r: a + len(r), operator.add), [["a", "bb"], ["ccc"]], [6]),
        (KeysReader().aggregate([], lambda a, r: [*a, r]), [[1, 2], [3]], [[1, 2, 3]]),
        (KeysReader().repartition(str), [[1, 2]], [1, 2]),
        (KeysReader().repartition(), [["a"]], ["a"]),
    ],
)
def test_operations_do_what_they_say(replayed, function, shards, expected):
    assert replayed(function.run()).on(*shards) == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (KeysReader().localgroupby(), None),
        (KeysReader().groupby(), {"a": ["a", "a", "a"], "b": ["b"]}),
        (KeysReader().groupby(str.upper, lambda k, a, r: (a or 0) + 1), {"A": 3, "B": 1}),
        (KeysReader().batchgroupby(), {"a": 3, "b": 1}),
        (KeysReader().batchgroupby(str.upper, lambda k, rs: k + "".join(rs)), {"A": "Aaaa", "B": "Bb"}),
        (KeysReader().countby(), {"a": 3, "b": 1}),
        (KeysReader().countby(len), {"1": 4}),
        (KeysReader().aggregateby(), {"a": ["a", "a", "a"], "b": ["b"]}),
        (KeysReader().aggregateby(len, 0, lambda k, a, r: a + 1, lambda k, a, n: a + n), {"1": 4}),
        (KeysReader().aggregateby(None, [], lambda k, a, r: [*a, k]), {"a": ["a", "a", "a"], "b": ["b"]}),
        (KeysReader().map(lambda r: 2).aggregateby(None, 0), {"2": 8}),
    ],
)
def test_groups_have_text_keys_and_flat_lists(replayed, function, expected):
    result = replayed(function.run()).on(["a", "b", "a"], ["a"])
    if expected is None:
        assert result == [
            {"key": "a", "value": ["a", "a"]},
            {"key": "b", "value": ["b"]},
            {"key": "a", "value": ["a"]},
        ]
    else:
        assert key_value(result) == expected


def test_aggregating_into_something_else_needs_a_function():
    with pytest.raises(ValueError, match="into a dict needs a seqOp"):
        KeysReader().aggregate({})
    with pytest.raises(ValueError, match="into a str needs a seqOp"):
        KeysReader().aggregateby(len, "")


def test_the_zero_of_an_aggregation_is_not_shared(replayed):
    function = KeysReader().aggregate([], lambda a, r: (a.append(r), a)[1]).run()
    assert replayed(function).on([1, 2]) == [[1, 2]]
    assert replayed(function).on([3]) == [[3]]
    assert function.operations[1].zero == []


# -- readers' sugar

RECORDS = [
    {"key": "x", "value": "1", "type": "string", "event": None},
    {"key": "h", "value": {"a": "1"}, "type": "hash", "event": "hset"},
    {"key": "n", "event": "del"},
]


def test_keys_reader_sugar(replayed):
    reader = KeysReader()
    assert replayed(reader.values().run()).on(RECORDS) == ["1", {"a": "1"}, None]
    assert replayed(reader.keys().run()).on(RECORDS) == ["x", "h", "n"]
    assert replayed(reader.keys(type="hash").run()).on(RECORDS) == ["h"]
    assert replayed(reader.keys(type=["hash", "string"]).run()).on(RECORDS) == ["x", "h"]
    assert replayed(reader.keys(event="del").run()).on(RECORDS) == ["n"]
    records = replayed(reader.records(type="hash").run()).on(RECORDS)
    assert [(record.key, record.value, record.event) for record in records] == [("h", {"a": "1"}, "hset")]


def test_stream_reader_sugar(replayed):
    messages = [{"key": "s", "id": "1-0", "value": {"a": "1"}}]
    assert replayed(StreamReader("s").values().run()).on(messages) == [{"a": "1"}]
    assert replayed(StreamReader("s").keys().run()).on(messages) == ["s"]
    assert replayed(StreamReader("s").records().run()).on(messages)[0].id == "1-0"


def test_command_reader_sugar(replayed):
    words = ["test", "this", "is", "a", "test"]

    def on(function):
        return replayed(function.register(trigger="test")).on([words])

    assert on(CommandReader()) == [words]
    assert on(CommandReader().args()) == [words[1:]]
    assert on(CommandReader().args(2)) == [["this", "is"]]
    assert on(CommandReader().args(0)) == [[]]
    assert on(CommandReader().apply(lambda *args: sum(map(len, args)))) == [11]
    assert on(CommandReader().apply(max)) == ["this"]


def test_a_command_registers_its_name_and_no_prefix(replayed):
    action = replayed(CommandReader().register(trigger="test", mode="sync", inorder=True)).action[1]
    assert action == {
        "prefix": "*",
        "convertToStr": False,
        "collect": True,
        "reply": "objects",
        "trigger": "test",
        "mode": "sync",
        "inorder": True,
    }


# -- readers with more features than the server's


def test_python_reader_takes_anything_that_gives_records(replayed):
    def generate():
        yield from (1, 2)

    assert replayed(PythonReader().run(generate)).action[1]["arg"] is generate
    assert list(replayed(PythonReader().run(lambda: [1, 2])).action[1]["arg"]()) == [1, 2]
    assert list(replayed(PythonReader().run(lambda: iter("ab"))).action[1]["arg"]()) == ["a", "b"]
    assert list(replayed(PythonReader().run(lambda: "text")).action[1]["arg"]()) == ["text"]


def test_stream_reader_reads_one_stream_by_its_name(replayed):
    assert replayed(StreamReader("s").run()).reader == "StreamReader"
    assert replayed(StreamReader().run("s", fromId="1-0")).action[1]["fromId"] == "1-0"


def test_stream_reader_reads_all_streams_of_a_pattern(replayed):
    assert "pattern" not in replayed(StreamReader("s").run()).action[1]
    for function in (StreamReader().run(), StreamReader("s:*").run(), StreamReader().run("s[12]", fromId="1-0")):
        builder = replayed(function)
        assert (builder.reader, builder.action[1]["pattern"]) == ("StreamReader", True)
    assert builder.action[1]["arg"] == "s[12]" and builder.action[1]["fromId"] == "1-0"


# -- builder


def test_builder_changes_and_remembers(replayed):
    builder = GearsBuilder("KeysReader", "user:*", requirements=["a"])
    assert builder.map(len) is builder
    snapshot = builder.gearfunction
    builder.count(requirements=["b"])
    assert repr(snapshot) == "KeysReader('user:*').map(len)"
    assert repr(builder.gearfunction) == "KeysReader('user:*').map(len).count()"
    assert builder.requirements == {"a", "b"}
    assert builder.reader == "KeysReader"
    assert isinstance(builder.run("x*"), ClosedGearFunction)
    assert replayed(builder).action[1]["arg"] == "x*"
    builder.sort()
    assert builder.closed is None
    assert "sort" in repr(builder)


def test_builder_refuses_what_it_cannot_use():
    with pytest.raises(TypeError):
        GearsBuilder("KeysReader", "*", None, None, "too many")
    with pytest.raises(TypeError):
        GearsBuilder(regex="x")


# -- decorator


def test_command_decorator_names_the_command():
    @redgrease.command()
    def greet(name="you"):
        return name

    @redgrease.command
    def bare():
        return 1

    @redgrease.command("other", mode="sync", requirements=["requests"])
    def third():
        return 1

    assert isinstance(greet, ClosedGearFunction)
    assert greet.operation.kwargs["trigger"] == "greet"
    assert greet.operation.mode == "async_local"
    assert bare.operation.kwargs["trigger"] == "bare"
    assert third.operation.kwargs["trigger"] == "other"
    assert third.operation.mode == "sync"
    assert third.requirements == {"requests"}
    with pytest.warns(DeprecationWarning, match=r"use redgrease\.command"):
        assert redgrease.trigger("old")(len).operation.kwargs["trigger"] == "old"
    fresh = redgrease.command(...)
    name = fresh(len).operation.kwargs["trigger"]
    assert len(name) == 36
    assert fresh(max).operation.kwargs["trigger"] == name


# -- inside the server


def test_inside_the_server_functions_act_at_once(server):
    result = KeysReader("a*").count().run()
    assert result.calls == [("count",)]
    assert result.action[0] == "run"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CommandReader().apply(len).register(trigger="x", on="ignored", requirements=["y"], replace=True)
    assert "on, requirements, replace has no effect" in str(caught[0].message)


def test_a_decorated_function_of_a_script_is_registered_at_once(server):
    @redgrease.command(mode="sync")
    def greet():
        return "hello"

    assert greet.action[1]["trigger"] == "greet"
    assert greet.on([["greet"]]) == ["hello"]
