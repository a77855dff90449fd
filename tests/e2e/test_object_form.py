"""Gear functions as objects of the Python package, against real servers."""

from __future__ import annotations

import threading

import pytest
import redis

from .database import Database
from .waiting import wait_until

redgrease = pytest.importorskip("redgrease")
utils = pytest.importorskip("redgrease.utils")


@pytest.fixture
def r(db):
    """The package's own client."""
    client = redgrease.RedisGears(host="127.0.0.1", port=db.server.port)
    yield client
    client.close()


@pytest.fixture
def three(r):
    r.mset({"x": 1, "y": 2, "z": 3})
    return r


@pytest.fixture
def four(r):
    r.mset({"x": 1, "y": 1, "z": 2, "t": 2})
    return r


def one(result):
    """The value of a result that had no errors."""
    assert result.errors in ([], None)
    return result.value


# -- readers


def test_keys_reader_values_keys_and_records(three):
    assert sorted(one(redgrease.KeysReader().values().run(on=three))) == ["1", "2", "3"]
    assert sorted(one(redgrease.KeysReader().keys().run(on=three))) == ["x", "y", "z"]
    records = one(redgrease.KeysReader().records().run(on=three))
    assert sorted(rec.key for rec in records) == ["x", "y", "z"]
    assert {rec.type for rec in records} == {"string"}
    assert not any(rec.event for rec in records)


def test_keys_reader_sugar_filters_by_type(three):
    three.hset("h", mapping={"f": "v"})
    assert one(redgrease.KeysReader().keys(type="hash").run(on=three)) in (["h"], "h")
    assert one(redgrease.KeysReader().values(type="hash").count().run(on=three)) == 1


def test_keys_only_reader(three):
    assert sorted(one(redgrease.KeysOnlyReader().run(on=three))) == ["x", "y", "z"]
    assert one(redgrease.KeysOnlyReader("x*").run(on=three)) in (["x"], "x")


def test_stream_reader(r):
    for number in range(3):
        r.xadd("MyStream", {"cnt": number, "say": f"hello {number}"})
    expected = [{"cnt": str(n), "say": f"hello {n}"} for n in range(3)]
    assert list(one(redgrease.StreamReader("MyStream").values().run(on=r))) == expected
    assert list(one(redgrease.StreamReader("MyStream").keys().run(on=r))) == ["MyStream"] * 3
    assert [rec.value for rec in one(redgrease.StreamReader("MyStream").records().run(on=r))] == expected
    records = one(redgrease.StreamReader("MyStream").run(on=r))
    assert [rec["value"] for rec in records] == expected
    assert all(rec["key"] == "MyStream" and rec["id"] for rec in records)


def test_python_reader(r):
    def numbers():
        yield from range(6379)

    assert list(one(redgrease.PythonReader().run(numbers, on=r))) == list(range(6379))


def test_shards_id_reader(r):
    assert redgrease.ShardsIDReader().run(on=r) == ["1"]
    assert redgrease.ShardsIDReader().map(lambda _: redgrease.hashtag()).run(on=r) == "06S"


def test_command_reader_variants(r):
    redgrease.CommandReader().register(trigger="all", on=r)
    assert list(r.gears.trigger("all", "this", "is", "a", "test").value) == ["all", "this", "is", "a", "test"]
    redgrease.CommandReader().args().register(trigger="args", on=r)
    assert list(r.gears.trigger("args", "this", "is", "a", "test").value) == ["this", "is", "a", "test"]
    redgrease.CommandReader().args(2).register(trigger="two", on=r)
    assert list(r.gears.trigger("two", "this", "is", "a", "test").value) == ["this", "is"]
    redgrease.CommandReader().apply(lambda *a: sum(map(len, a))).register(trigger="apply", on=r)
    assert r.gears.trigger("apply", "this", "is", "a", "test") == 11


# -- operations


def test_operations_through_the_builder(four):
    def gb():
        return redgrease.GearsBuilder().map(lambda rec: rec["value"])

    run = four.gears.pyexecute
    assert list(one(run(gb().sort()))) == ["1", "1", "2", "2"]
    assert list(one(run(gb().filter(lambda v: v == "1")))) == ["1", "1"]
    assert run(gb().count()) == 4
    assert run(gb().avg()) == 1.5
    assert run(gb().distinct().count()) == 2
    assert run(gb().map(int).aggregate(0, lambda a, x: a + x, lambda a, x: a + x)) == 6
    assert list(one(run(gb().countby().map(lambda d: (d["key"], d["value"])).sort()))) == [("1", 2), ("2", 2)]
    by_value = gb().aggregateby(lambda v: v, 0, lambda k, a, v: a + int(v), lambda k, a, v: a + v)
    assert list(one(run(by_value.map(lambda d: (d["key"], d["value"])).sort()))) == [("1", 2), ("2", 4)]
    assert run(gb().sort().limit(1)) == "1"


def test_built_in_functions_classes_and_methods_are_accepted(three):
    assert sorted(one(redgrease.KeysReader().values().map(int).run(on=three))) == [1, 2, 3]
    assert sorted(one(redgrease.KeysReader().keys().map(str.upper).run(on=three))) == ["X", "Y", "Z"]
    assert sorted(one(redgrease.KeysReader().keys().map("{}!".format).run(on=three))) == ["x!", "y!", "z!"]


def test_grouping_operations(four):
    reader = redgrease.KeysReader().values()

    def as_dict(result):
        return {d["key"]: d["value"] for d in one(result)}

    grouped = reader.groupby(lambda v: v, lambda k, a, v: (a or 0) + 1)
    assert as_dict(grouped.run(on=four)) == {"1": 2, "2": 2}
    assert as_dict(reader.batchgroupby(lambda v: v, lambda k, vs: sorted(vs)).run(on=four)) == {
        "1": ["1", "1"],
        "2": ["2", "2"],
    }
    assert as_dict(reader.localgroupby(lambda v: v, lambda k, a, v: (a or "") + v).run(on=four)) == {
        "1": "11",
        "2": "22",
    }
    assert as_dict(reader.countby().run(on=four)) == {"1": 2, "2": 2}


def test_functions_share_a_prefix_and_stay_usable(three):
    values = redgrease.KeysReader().values().map(int)
    assert values.count().run(on=three) == 3
    assert values.aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run(on=three) == 6
    assert sorted(one(values.run(on=three))) == [1, 2, 3]


def test_four_ways_to_execute_agree(three):
    opened = redgrease.KeysReader().values().count()
    closed = opened.run()
    assert (
        three.gears.pyexecute(closed) == closed.on(three) == three.gears.pyexecute(opened) == opened.run(on=three) == 3
    )


def test_count_over_nothing_is_an_empty_result(r):
    assert list(redgrease.KeysReader().count().run(on=r)) in ([], [0])


# -- values


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None


VALUES = [
    None,
    True,
    7,
    2**70,
    2.5,
    "text ö\0",
    b"\xff\0",
    [1, [2, "x"]],
    (1, "a"),
    {"k": [1, None], 7: b"v"},
    {1, 2},
    frozenset({"a"}),
    "+not simple",
    "-not an error",
    "",
    b"",
    "hello",
    "NUM",
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_are(r, value):
    result = redgrease.ShardsIDReader().map(lambda _: [value]).run(on=r)
    [back] = one(result)
    back = back[0] if isinstance(back, list) and isinstance(value, list) and back != value else back
    assert back == value or back == [value]


def test_objects_of_classes_of_the_script_come_back(r):
    local = type("Local", (), {"__module__": "__main__", "x": 7})
    result = redgrease.ShardsIDReader().map(lambda _: local()).run(on=r)
    assert result.value.x == 7 if not isinstance(result.value, list) else result.value[0].x == 7


def test_callbacks_close_over_local_data(three):
    wanted = {"2", "3"}
    assert sorted(one(redgrease.KeysReader().values().filter(lambda v: v in wanted).run(on=three))) == ["2", "3"]


def test_errors_do_not_raise_but_are_listed(three):
    result = redgrease.KeysReader().map(lambda rec: 1 / 0).run(on=three)
    assert list(result) == []
    assert result.errors
    assert "ZeroDivisionError" in str(result.errors[0])


def test_a_script_error_raises(r):
    with pytest.raises(redis.ResponseError, match="ZeroDivisionError"):
        r.gears.pyexecute("1/0")


# -- commands of the client


def test_an_empty_function_is_true(r):
    assert r.gears.pyexecute() == True  # noqa: E712 - the result is a proxy


def test_vanilla_scripts_answer_bytes(three):
    result = three.gears.pyexecute("GB().map(lambda x: x['value']).sort().run()")
    assert list(result.value) == [b"1", b"2", b"3"]
    assert int(three.gears.pyexecute("GB().count().run()")) == 3


def test_an_unblocking_run_gives_an_execution_id(r):
    execution = redgrease.ShardsIDReader().run().on(r, unblocking=True)
    result = r.gears.getresultsblocking(execution)
    assert result == ["1"]
    [info] = r.gears.dumpexecutions()
    assert str(info.executionId) == str(execution.value)
    assert info.status == "done"
    assert r.gears.dropexecution(execution)
    assert list(r.gears.dumpexecutions()) == []


def test_pystats_and_registrations(r):
    assert r.gears.pystats().CurrAllocated > 0
    assert list(r.gears.dumpregistrations()) == []
    assert redgrease.KeysReader("w:*").foreach(lambda x: None).register(on=r) == True  # noqa: E712 - a proxy
    [registration] = r.gears.dumpregistrations()
    assert registration.reader == "KeysReader"
    assert r.gears.unregister(registration.id)
    assert list(r.gears.dumpregistrations()) == []


def test_infocluster_of_a_single_server_is_none(r):
    assert r.gears.infocluster() is None
    assert r.gears.refreshcluster()


# -- registrations and server-side commands


def test_registered_keys_function(r, db: Database):
    redgrease.KeysReader("person:*").foreach(
        lambda rec: redgrease.cmd.xadd("seen", {"key": rec["key"], "name": rec["value"]["name"]})
    ).register("person:*", mode="sync", eventTypes=["hset"], on=r)
    r.hset("person:1", mapping={"name": "Ada"})
    [(_, entry)] = r.xrange("seen")
    assert entry == {b"key": b"person:1", b"name": b"Ada"}


def test_registered_stream_function(r, db: Database):
    redgrease.StreamReader().foreach(lambda rec: redgrease.cmd.hset(rec["id"], mapping=rec["value"])).register(
        "mystream", on=r
    )
    entry = r.xadd("mystream", {"a": 1, "b": 2})
    wait_until(lambda: r.hgetall(entry), "the entry was copied", until=lambda h: h == {b"a": b"1", b"b": b"2"})
    wait_until(lambda: r.xlen("mystream"), "the stream is trimmed", until=lambda n: n == 0)


def test_the_command_decorator(r):
    @redgrease.command(on=r)
    def add(a, b=10):
        return int(a) + int(b)

    assert add(1, 2) == 3
    assert add(1) == 11
    assert r.gears.trigger("add", 5, 5) == 10
    with pytest.raises(redis.ResponseError):
        add("x", "y")


@pytest.mark.parametrize("value", [{"a": [1, None]}, (1, 2), [1, 2, 3], "text", b"\xff", 1.5, None, set()], ids=repr)
def test_commands_return_any_value(r, value):
    @redgrease.command(on=r)
    def give():
        return value

    assert give().value == value


def test_a_command_is_plain_for_clients_that_know_nothing_of_us(r, db):
    @redgrease.command(on=r)
    def page(name):
        return b"<h1>" + str(name).encode() + b"</h1>"

    assert db.wire()("RG.TRIGGER", "page", "x") == [b"<h1>x</h1>"]


def test_a_command_may_be_defined_first_and_registered_later(r):
    @redgrease.command(trigger="later")
    def whatever(x):
        return x * 2

    later = whatever.on(r)
    assert later("ab") == "abab"


def test_a_duplicate_command_is_refused_kept_or_replaced(r):
    def define(answer, **options):
        @redgrease.command(trigger="same", on=r, **options)
        def same():
            return answer

        return same

    assert define("first")() == "first"
    with pytest.raises(redgrease.exceptions.DuplicateTriggerError):
        define("second")
    assert define("third", replace=False)() == "first"
    assert define("fourth", replace=True)() == "fourth"


def test_replacing_a_command_leaves_the_others_alone(r):
    @redgrease.command(on=r)
    def other():
        return "other"

    for answer in ("a", "b"):

        @redgrease.command(trigger="same", on=r, replace=True)
        def same(answer=answer):
            return answer

    assert r.gears.trigger("other") == "other"
    assert len(r.gears.dumpregistrations()) == 2


def test_server_side_commands_give_typed_replies(r):
    r.hset("h", mapping={"f": "v"})
    r.zadd("z", {"a": 1.5})
    r.xadd("s", {"k": "v"}, id="1-0")

    def use(_):
        cmd = redgrease.cmd
        return {
            "set": bool(cmd.set("k", "v")),
            "get": cmd.get("k"),
            "hgetall": cmd.hgetall("h"),
            "zrange": cmd.zrange("z", 0, -1, withscores=True),
            "xrange": cmd.xrange("s"),
            "exists": cmd.exists("k"),
            "none": cmd.get("absent"),
        }

    found = one(redgrease.ShardsIDReader().map(use).run(on=r))
    found = found[0] if isinstance(found, list) else found
    assert found["set"] is True
    assert found["get"] == "v"
    assert found["hgetall"] == {"f": "v"}
    assert [list(pair) for pair in found["zrange"]] == [["a", 1.5]]
    assert [[i, dict(e)] for i, e in found["xrange"]] == [["1-0", {"k": "v"}]]
    assert found["exists"] == 1
    assert found["none"] is None


def test_server_side_commands_keep_binary_values(r):
    def use(_):
        redgrease.cmd.set("raw", b"\xff\0")
        return bytes(redgrease.cmd.get("raw"))

    result = redgrease.ShardsIDReader().map(use).run(on=r)
    assert result.value in (b"\xff\0", [b"\xff\0"])


def test_runtime_functions_used_in_callbacks_work_on_the_server(r, db):
    def use(_):
        with redgrease.atomic():
            redgrease.execute("set", "k", "v")
        redgrease.log("logged by a callback")
        return [redgrease.execute("get", "k"), redgrease.hashtag(), redgrease.gearsConfigGet("missing", 7)]

    result = redgrease.ShardsIDReader().map(use).run(on=r)
    assert list(result.value) in (["v", "06S", 7], [["v", "06S", 7]])
    db.wait_log("GEARS: logged by a callback")


def test_a_script_that_imports_the_package_registers_with_its_decorator(r, db):
    script = """
import redgrease

@redgrease.command()
def hello(name):
    return 'hello ' + name
"""
    r.gears.pyexecute(script)
    assert db.wire()("RG.TRIGGER", "hello", "you") == [b"hello you"]
    assert r.gears.trigger("hello", "you") == "hello you"


def test_the_same_command_from_many_threads(r, db):
    @redgrease.command(on=r)
    def double(x):
        return int(x) * 2

    wrong = []

    def call(start):
        client = redgrease.RedisGears(host="127.0.0.1", port=db.server.port)
        for number in range(start, start + 25):
            answer = client.gears.trigger("double", number)
            if answer != number * 2:
                wrong.append(answer)
        client.close()

    threads = [threading.Thread(target=call, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


# -- the codec by itself


def test_with_the_codec_every_record_is_one_bulk_that_only_our_package_reads(db):
    native = pytest.importorskip("redgrease._native")
    script = "GB('ShardsIDReader').map(lambda _: {'a': (1, None, b'x')}).run(convertToStr=False, reply='plain')"
    results, errors = db.wire()("RG.WITHCODEC", "1", "RG.PYEXECUTE", script)
    assert errors == []
    assert [native.loads(record) for record in results] == [{"a": (1, None, b"x")}]


def test_with_the_codec_a_trigger_keeps_its_shape(db):
    native = pytest.importorskip("redgrease._native")
    db.ok("GB('CommandReader').map(lambda x: x[1:]).register(trigger='t', convertToStr=False, reply='plain')")
    [record] = db.wire()("RG.WITHCODEC", "1", "RG.TRIGGER", "t", "a", "b")
    assert native.loads(record) == ["a", "b"]


def test_an_object_is_never_unpickled_by_a_client_that_did_not_ask(db):
    native = pytest.importorskip("redgrease._native")
    script = "class C:\n    pass\nGB('ShardsIDReader').map(lambda _: C()).run(convertToStr=False, reply='plain')"
    [record], _ = db.wire()("RG.WITHCODEC", "1", "RG.PYEXECUTE", script)
    with pytest.raises(Exception, match=r"(?i)pickle"):
        native.loads(record)
    assert type(native.loads(record, allow_pickle=True)).__name__ == "C"


@pytest.mark.parametrize(
    "words",
    [["2", "PING"], ["1"], [], ["x", "RG.TRIGGER", "t"], ["1", "GET", "k"], ["1", "RG.WITHCODEC", "1", "RG.PYSTATS"]],
)
def test_a_wrong_use_of_the_codec_prefix_is_an_error(db, words):
    from .resp import Err

    assert isinstance(db.wire()("RG.WITHCODEC", *words), Err)
