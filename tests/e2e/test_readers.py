"""All six readers with `run`: the records that they make from the keys of the server."""

from __future__ import annotations

from ast import literal_eval

import pytest

from .waiting import wait_until

#: A step that adds up numbers.
SUM = ".aggregate(0, lambda a, x: a + x, lambda a, x: a + x)"


def _records(db, script: str) -> list:
    """Results that are texts of Python literals, as Python values."""
    return [literal_eval(text) for text in db.results(script)]


# -- KeysReader


def test_the_keys_reader_makes_a_record_of_every_key(db):
    db.r.set("text", "value")
    db.r.hset("h", mapping={"f": "v", "g": "1"})
    db.r.rpush("l", "1", "2")
    found = {r["key"]: r for r in _records(db, "GB().run()")}
    assert found == {
        "text": {"key": "text", "value": "value", "type": "string", "event": None},
        "h": {"key": "h", "value": {"f": "v", "g": "1"}, "type": "hash", "event": None},
        "l": {"key": "l", "value": ["1", "2"], "type": "list", "event": None},
    }


def test_sets_sorted_sets_and_streams_have_a_type_but_no_value(db):
    db.r.sadd("s", "a")
    db.r.zadd("z", {"a": 1})
    db.r.xadd("x", {"f": "v"})
    found = {r["key"]: (r["type"], r["value"]) for r in _records(db, "GB().run()")}
    assert found == {"s": ("set", None), "z": ("zset", None), "x": ("stream", None)}


def test_big_hashes_and_lists_arrive_whole(db):
    db.r.hset("h", mapping={f"f{i}": i for i in range(2000)})
    db.r.rpush("l", *range(5000))
    script = "GB().map(lambda r: [r['key'], len(r['value'])]).run()"
    assert sorted(_records(db, script)) == [["h", 2000], ["l", 5000]]


def test_a_glob_pattern_selects_keys(db):
    db.r.mset({f"pref{i}": i for i in range(2000)})
    db.r.set("x1", "1")
    assert db.results("GB().count().run('pref*')") == ["2000"]
    assert db.results("GB().count().run('x*')") == ["1"]
    assert db.results("GB('KeysReader', 'pref1?').count().run()") == ["10"]
    assert db.results("GB().count().run('pref[12]')") == ["2"]
    assert db.results("GB('KeysReader', 'x*').count().run('')") == ["1"]


def test_patterns_are_case_sensitive(db):
    db.r.mset({"Key": 1, "key": 2})
    assert db.results("GB('KeysOnlyReader').run('K*')") == ["Key"]


def test_a_count_over_nothing_gives_no_result(db):
    assert db.results("GB().count().run('nothing*')") == []


def test_keys_of_other_databases_are_not_read(db):
    other = db.client(db=1)
    other.set("elsewhere", 1)
    db.r.set("here", 1)
    assert db.results("GB('KeysOnlyReader').run()") == ["here"]
    assert db.results("GB().map(lambda r: r['key']).run()") == ["here"]


def test_without_read_value_a_record_has_only_key_and_event(db):
    db.r.set("k", "v")
    assert _records(db, "GB().run(readValue=False)") == [{"key": "k", "event": None}]


def test_no_scan_takes_the_pattern_as_the_key(db):
    db.r.mset({"a*": 1, "ab": 2})
    assert db.results("GB().map(lambda r: r['key']).run('a*', noScan=True)") == ["a*"]


@pytest.mark.parametrize("options", ["", ", readValue=False"])
def test_no_scan_makes_one_record_whether_the_key_exists_or_not(db, options):
    (record,) = _records(db, f"GB().run('absent', noScan=True{options})")
    assert record["key"] == "absent" and record.get("value") is None
    assert options or record["type"] == "empty"
    assert db.results(f"GB().count().run('absent', noScan=True{options})") == ["1"]
    db.r.set("present", 1)
    assert len(_records(db, f"GB().run('present', noScan=True{options})")) == 1
    assert db.results(f"GB().count().run('present', noScan=True{options})") == ["1"]


@pytest.mark.parametrize("pattern", ["*", "k*", "k?*"])
def test_keys_that_have_expired_and_are_still_there_are_not_read(db, pattern):
    """Only an access removes them while active expiry is off."""
    db.r.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    try:
        with db.r.pipeline(transaction=False) as pipeline:
            for number in range(300):
                pipeline.set(f"k:{number}", "v", px=1)
            pipeline.execute()
        db.r.set("k:last", "v", px=1)
        for number in range(10):
            db.r.set(f"k:stays:{number}", "v")
        wait_until(lambda: db.r.exists("k:last"), "the last key has expired", until=lambda count: count == 0)
        assert db.results(f"GB().count().run('{pattern}')") == ["10"]
        for reader in ("GB().map(lambda r: r['key'])", "GB('KeysOnlyReader')"):
            found = db.results(f"{reader}.run('{pattern}')")
            assert sorted(found) == [f"k:stays:{number}" for number in range(10)]
        for number in range(300, 310):
            db.r.set(f"k:{number}", "v", px=1)
        wait_until(lambda: db.r.exists("k:309"), "the last key has expired", until=lambda count: count == 0)
        found = db.results(f"GB().map(lambda r: r['key']).run('{pattern}', readValue=False)")
        assert len(found) == 10
        db.r.set("k:one", "v", px=1)
        db.r.set("k:two", "v", px=1)
        wait_until(lambda: db.r.exists("k:two"), "the last key has expired", until=lambda count: count == 0)
        assert [record["type"] for record in _records(db, "GB().run('k:one', noScan=True)")] == ["empty"]
    finally:
        db.r.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_values_that_are_not_text_arrive_as_bytes(db):
    db.r.set("s", b"\xff\xfe")
    db.r.rpush("l", b"\xff", "text")
    db.r.hset("h", mapping={b"f": b"\x80"})
    found = dict(_records(db, "GB().map(lambda r: (r['key'], r['value'])).run()"))
    assert found == {"s": b"\xff\xfe", "l": [b"\xff", "text"], "h": {"f": b"\x80"}}


def test_keys_that_are_not_text_arrive_as_bytes_and_can_be_used_in_commands(db):
    db.r.set(b"\xffkey", "v")
    assert _records(db, "GB().map(lambda r: repr(r['key'])).run()") == [b"\xffkey"]
    assert db.results("GB().map(lambda r: execute('get', r['key'])).run()") == ["v"]
    assert db.results("GB('KeysOnlyReader').map(lambda k: execute('get', k)).run()") == ["v"]


def test_values_with_nul_bytes_survive_in_both_directions(db):
    db.r.set("k", b"a\0b")
    script = "GB().foreach(lambda r: execute('set', 'copy\\0', r['value'])).map(lambda r: len(r['value'])).run('k')"
    assert db.results(script) == ["3"]
    assert db.r.get(b"copy\0") == b"a\0b"


def test_hash_fields_with_nul_bytes_or_no_text_survive(db):
    db.r.hset("h", mapping={b"a\0b": b"1", b"\xff": b"2"})
    assert _records(db, "GB().map(lambda r: r['value']).run()") == [{"a\0b": "1", b"\xff": "2"}]


def test_unicode_keys_and_values_are_text(db):
    db.r.set("ключ", "värde 🦀")
    assert _records(db, "GB().map(lambda r: (r['key'], r['value'])).run()") == [("ключ", "värde 🦀")]


def test_expired_keys_are_not_read_and_reading_is_no_access_of_a_client(db):
    db.r.set("gone", 1, px=1)
    db.r.set("here", 1)
    db.wait_value("gone", None)
    misses = int(db.r.info("stats")["keyspace_misses"])
    assert db.results("GB().map(lambda r: r['key']).run()") == ["here"]
    assert int(db.r.info("stats")["keyspace_misses"]) == misses


def test_a_large_key_space_is_read_completely_while_it_changes(db):
    db.r.mset({f"stay:{i}": i for i in range(20_000)})
    execution = db.start(
        "GB().map(lambda r: r['key']).filter(lambda k: k.startswith('stay:')).distinct().count().run()"
    )
    pipeline = db.r.pipeline(transaction=False)
    for i in range(5000):
        pipeline.set(f"new:{i}", i)
        pipeline.delete(f"new:{i - 1}")
    pipeline.execute()
    db.wait_status(execution, "done")
    assert db.r.execute_command("RG.GETRESULTS", execution) == [[b"20000"], []]


@pytest.mark.parametrize(
    ("argument", "fragment"),
    [
        ("noScan=1", "exactMatch value is not boolean"),
        ("readValue='yes'", "readValue value is not boolean"),
        ("mode=7", "execution mode must be a string"),
        ("mode='whenever'", "unknown execution mode"),
        ("mode='sync'", "unknown execution mode"),
    ],
)
def test_a_wrong_argument_of_a_keys_run_is_named(db, argument, fragment):
    assert fragment in db.refused(f"GB().run('*', {argument})")


def test_a_run_argument_must_be_text(db):
    assert "regex argument must be a string" in db.refused("GB().run(12)")


def test_unknown_keyword_arguments_are_refused(db):
    assert "run of the KeysReader has no keyword 'whatever'" in db.refused("GB().count().run('*', whatever=1)")
    assert "did you mean 'readValue'?" in db.refused("GB().run('*', readvalue=False)")


def test_async_local_runs_too(db):
    db.r.set("k", "v")
    assert db.results("GB().count().run(mode='async_local')") == ["1"]


# -- KeysOnlyReader


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("GB('KeysOnlyReader').run()", ["xx", "xy", "y"]),
        ("GB('KeysOnlyReader').run('*')", ["xx", "xy", "y"]),
        ("GB('KeysOnlyReader').run('x*')", ["xx", "xy"]),
        ("GB('KeysOnlyReader').run('xx')", ["xx"]),
        ("GB('KeysOnlyReader', 'x*').run()", ["xx", "xy"]),
        ("GB('KeysOnlyReader', defaultArg='xx*').run()", ["xx"]),
        ("GB('KeysOnlyReader', 'y').run('x*')", ["xx", "xy"]),
        ("GB('KeysOnlyReader').run('x*', count=1)", ["xx", "xy"]),
        ("GB('KeysOnlyReader').run('xx', noScan=True)", ["xx"]),
        ("GB('KeysOnlyReader').run('x*', noScan=True)", []),
        ("GB('KeysOnlyReader').run('absent', noScan=True)", []),
        ("GB('KeysOnlyReader').run(patternGenerator=lambda: ('x*', False))", ["xx", "xy"]),
        ("GB('KeysOnlyReader').run('ignored', patternGenerator=lambda: ('y', True))", ["y"]),
    ],
)
def test_the_keys_only_reader_selects_names(db, script, expected):
    db.r.mset({"xx": 1, "xy": 2, "y": 3})
    assert sorted(db.results(script)) == expected


def test_the_keys_only_reader_sees_keys_of_every_type(db):
    db.r.set("a", 1)
    db.r.xadd("b", {"f": 1})
    db.r.sadd("c", 1)
    assert db.results("GB('KeysOnlyReader').sort().run()") == ["a", "b", "c"]


def test_no_scan_of_the_keys_only_reader_ignores_longer_names(db):
    db.r.mset({"name": 1, "name1": 2, "name2": 3})
    assert db.results("GB('KeysOnlyReader').run('name', noScan=True)") == ["name"]


@pytest.mark.parametrize("count", ["'many'", "None", "True", "[]", "'-1'"])
@pytest.mark.single("each shard has a result or an error of its own")
def test_a_count_that_is_no_number_is_the_server_s_error(db, count):
    (error,) = db.errors(f"GB('KeysOnlyReader').run('*', count={count})")
    assert "value is not an integer" in error or "syntax error" in error


def test_a_count_may_be_a_text(db):
    db.r.set("k", "v")
    assert db.results("GB('KeysOnlyReader').run('*', count='10')") == ["k"]


@pytest.mark.single("each shard has a result or an error of its own")
def test_a_pattern_generator_that_cannot_be_called_is_an_error(db):
    (error,) = db.errors("GB('KeysOnlyReader').run(patternGenerator='adasd')")
    assert "'str' object is not callable" in error


def test_a_pattern_generator_of_a_wrong_shape_is_an_error(db):
    assert db.errors("GB('KeysOnlyReader').run(patternGenerator=lambda: 7)")


# -- PythonReader


def test_the_python_reader_makes_records_of_what_a_generator_yields(db):
    script = """
def numbers():
    for i in range(6379):
        yield i
GB('PythonReader').run(numbers)
"""
    assert db.results(script) == [str(i) for i in range(6379)]


def test_a_generator_may_execute_commands(db):
    db.r.rpush("l", *"abc")
    script = "def items():\n    yield from execute('lrange', 'l', '0', '-1')\nGB('PythonReader').run(items)"
    assert db.results(script) == ["a", "b", "c"]


def test_a_generator_that_raises_keeps_what_it_gave_and_ends_with_an_error(db):
    script = "def items():\n    yield 1\n    yield 2\n    raise ValueError('dry')\nGB('PythonReader').run(items)"
    results, errors = db.run(script)
    assert results == ["1", "2"]
    assert len(errors) == 1
    assert "ValueError: dry" in errors[0]


def test_a_generator_may_be_the_builder_s_default_argument(db):
    script = "def items():\n    yield 'x'\nGB('PythonReader', defaultArg=items).run()"
    assert db.results(script) == ["x"]


def test_a_function_that_is_no_generator_does_not_loop_silently(db):
    results, errors = db.run("GB('PythonReader').map(lambda x: x).run(lambda: 7)")
    assert results in (["7"], [])
    assert results or errors


@pytest.mark.parametrize(
    "script",
    [
        "GB('PythonReader').run('text')",
        "GB('PythonReader').run()",
        "GB('PythonReader', 'text').run()",
        "def g():\n    yield 1\nGB('PythonReader', defaultArg=g).run('text')",
    ],
)
def test_the_python_reader_wants_a_function(db, script):
    assert "pyreader argument must be a functio" in db.refused(script)


def test_an_endless_generator_ends_with_the_limit(db):
    script = """
def numbers():
    i = 0
    while True:
        yield i
        i += 1
GB('PythonReader').limit(3).run(numbers)
"""
    assert db.results(script) == ["0", "1", "2"]


# -- ShardsIDReader


def test_the_shards_id_reader_makes_one_record_per_shard(db):
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


@pytest.mark.single("each shard has a result or an error of its own")
def test_one_function_per_shard_can_sum_up_sizes(db):
    db.r.mset({i: i for i in range(100)})
    script = f"GB('ShardsIDReader').map(lambda x: execute('dbsize')){SUM}.run()"
    assert db.results(script) == ["100"]


def test_a_set_is_read_through_a_command(db):
    db.r.sadd("s", 1, 2, 3)
    assert db.results("GB().flatmap(lambda r: execute('smembers', r['key'])).sort().run()") == ["1", "2", "3"]


# -- StreamReader


def test_the_stream_reader_makes_a_record_of_every_entry_in_order(db):
    db.r.xadd("s", {"f": "v", "g": "1"}, id="1-0")
    db.r.xadd("s", {"f": "w"}, id="2-0")
    assert _records(db, "GB('StreamReader').run('s')") == [
        {"key": "s", "id": "1-0", "value": {"f": "v", "g": "1"}},
        {"key": "s", "id": "2-0", "value": {"f": "w"}},
    ]


def test_the_stream_s_name_may_be_the_default_argument(db):
    db.r.xadd("s", {"f": "v"}, id="1-0")
    assert db.results("GB('StreamReader', 's').map(lambda r: r['id']).run()") == ["1-0"]


def test_from_id_is_exclusive(db):
    for number in (1, 2, 3):
        db.r.xadd("s", {"n": number}, id=f"{number}-0")
    assert db.results("GB('StreamReader').map(lambda r: r['value']['n']).run('s', fromId='1-0')") == ["2", "3"]


def test_a_stream_run_takes_no_entry_away_and_makes_no_group(db):
    db.r.xadd("s", {"f": "v"})
    for _ in range(2):
        assert len(db.results("GB('StreamReader').run('s')")) == 1
    assert db.r.xlen("s") == 1
    assert db.r.xinfo_groups("s") == []


def test_a_long_stream_is_read_whole(db):
    pipeline = db.r.pipeline(transaction=False)
    for number in range(10_000):
        pipeline.xadd("s", {"n": number})
    pipeline.execute()
    assert db.results(f"GB('StreamReader').map(lambda r: int(r['value']['n'])){SUM}.run('s')") == [
        str(sum(range(10_000)))
    ]


def test_a_missing_stream_gives_no_records(db):
    assert db.results("GB('StreamReader').run('absent')") == []


def test_a_malformed_stream_id_is_the_server_s_own_error(db):
    db.r.xadd("s", {"f": "v"})
    reply = db.wire()("RG.PYEXECUTE", "GB('StreamReader').run('s', fromId='nonsense')")
    assert reply == [[], [b"ERR Invalid stream ID specified as stream command argument"]]


def test_a_from_id_that_is_no_text_is_refused(db):
    assert "fromId argument must be a string" in db.refused("GB('StreamReader').run('s', fromId=1)")


def test_a_key_of_another_type_is_the_server_s_own_error(db):
    db.r.set("s", "no stream")
    assert "WRONGTYPE" in db.errors("GB('StreamReader').run('s')")[0]


def test_entries_that_are_not_text_arrive_as_bytes(db):
    db.r.xadd("s", {b"f\0g": b"\xff"}, id="1-0")
    assert _records(db, "GB('StreamReader').map(lambda r: r['value']).run('s')") == [{"f\0g": b"\xff"}]


@pytest.fixture
def streams(db):
    """Three streams whose names match `s*`, and other keys."""
    db.r.set("s:text", "no stream")
    for name in ("s:a", "s:b", "t"):
        for number in range(1, 4):
            db.r.xadd(name, {"n": number}, id=f"{number}-0")
    for number in range(250):
        db.r.xadd("s:long", {"n": number}, id=f"{number + 1}-0")
    return db


def test_a_pattern_reads_streams_one_after_the_other(streams):
    records = _records(streams, "GB('StreamReader').map(lambda r: [r['key'], r['id']]).run('s:*', pattern=True)")
    by_stream = {}
    for key, entry in records:
        by_stream.setdefault(key, []).append(entry)
    three = [f"{number}-0" for number in range(1, 4)]
    assert by_stream == {"s:a": three, "s:b": three, "s:long": [f"{number + 1}-0" for number in range(250)]}
    keys = [key for key, _ in records]
    assert sum(before != after for before, after in zip(keys, keys[1:])) == 2, "streams are mixed"


def test_a_pattern_begins_behind_an_id_in_each_stream(streams):
    script = "GB('StreamReader').map(lambda r: r['key'] + r['id']).run('s:[ab]', pattern=True, fromId='2-0')"
    assert sorted(streams.results(script)) == ["s:a3-0", "s:b3-0"]


@pytest.mark.single("other shards do not know whether there is a stream of that name")
def test_a_stream_with_the_very_name_of_the_pattern_is_read_alone(streams):
    streams.r.xadd("s:*", {"n": 9}, id="9-0")
    assert streams.results("GB('StreamReader').map(lambda r: r['id']).run('s:*', pattern=True)") == ["9-0"]
    assert streams.results("GB('StreamReader').run('x:*', pattern=True)") == []
    assert "pattern value is not boolean" in streams.refused("GB('StreamReader').run('s:*', pattern='yes')")


# -- Steps that run in the server


def test_the_entries_of_streams_are_counted(streams):
    assert streams.results("GB('StreamReader').count().run('s:a')") == ["3"]
    assert streams.results("GB('StreamReader').count().run('s:*', pattern=True)") == ["256"]
    assert streams.results("GB('StreamReader').count().run('absent')") == []


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("count()", ["7"]),
        ("count().count()", ["1"]),
        ("count().map(lambda n: n + 1)", ["8"]),
        ("count().collect().map(type)", ["<class 'int'>"]),
        ("count().filter(lambda n: n > 100)", []),
        ("count().flatmap(lambda n: [n, -n])", ["-7", "7"]),
        ("collect().count().limit(1)", ["7"]),
        ("count().countby(lambda n: 'a').map(lambda r: r['value'])", ["1"]),
        ("count().map(lambda n: 1 // 0)", None),
    ],
)
@pytest.mark.parametrize("reader", ["GB()", "GB('KeysOnlyReader')"])
def test_steps_behind_a_count_get_the_number(db, reader, steps, expected):
    db.r.mset({f"k{number}": number for number in range(7)})
    results, errors = db.run(f"{reader}.{steps}.run('k*')")
    assert (results, bool(errors)) == (expected or [], expected is None)
    assert db.run(f"{reader}.{steps}.run('nothing*')") == ([], [])


# -- CommandReader and the builder itself


def test_the_command_reader_has_no_run(db):
    assert "reader do not support run" in db.refused("GB('CommandReader').run()")


@pytest.mark.parametrize("reader", ["PythonReader", "KeysOnlyReader", "ShardsIDReader"])
def test_readers_without_events_have_no_register(db, reader):
    assert "does not support register" in db.refused(f"GB('{reader}').register()")


@pytest.mark.parametrize(
    ("script", "fragment"),
    [
        ("GB(7)", "reader argument must be a string"),
        ("GB('KeysReader', '*', desc=7)", "desc argument must be a string"),
        ("GB('NoSuchReader').run()", "reader does not exists"),
        ("GB('keysreader').run()", "reader does not exists"),
        ("GB().no_such_operation()", "no_such_operation"),
    ],
)
def test_a_wrong_builder_is_refused(db, script, fragment):
    assert fragment in db.refused(script)


def test_the_builder_has_two_names(db):
    assert db.results("GearsBuilder('ShardsIDReader').run()") == db.results("GB('ShardsIDReader').run()") == ["1"]
