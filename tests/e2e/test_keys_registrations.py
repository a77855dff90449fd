"""Registered KeysReader functions: which events fire them, in which mode, with which record."""

from __future__ import annotations

import random
from ast import literal_eval
from contextlib import suppress

import pytest
import redis

from .database import text
from .waiting import wait_until

MODES = ["async", "async_local", "sync"]

#: Appends a line per event to the list `seen` (which no registration of these tests matches).
RECORD_EVENTS = """
def note(r):
    execute('rpush', 'seen', repr((r['event'], r['key'], r.get('type'), r.get('value'))))
GB().foreach(note).register({arguments})
"""


def seen(db) -> list[tuple]:
    return [literal_eval(item.decode()) for item in db.r.lrange("seen", 0, -1)]


def wait_seen(db, count: int) -> list[tuple]:
    return wait_until(lambda: seen(db), f"{count} events were seen", until=lambda events: len(events) >= count)


@pytest.mark.parametrize("mode", MODES)
def test_an_event_fires_the_function_with_a_record(db, mode):
    db.ok(RECORD_EVENTS.format(arguments=f"'watched:*', mode='{mode}'"))
    db.r.set("watched:1", "v")
    assert wait_seen(db, 1) == [("set", "watched:1", "string", "v")]
    db.r.hset("watched:2", mapping={"f": "v"})
    assert wait_seen(db, 2)[1] == ("hset", "watched:2", "hash", {"f": "v"})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_function_counts_exactly_its_events(db, mode):
    db.ok(f"GB().foreach(lambda r: execute('incr', 'n')).register('watched:*', mode='{mode}', readValue=False)")
    for number in range(100):
        db.r.set(f"watched:{number}", "v")
        db.r.set(f"other:{number}", "v")
    if mode == "sync":
        assert db.r.get("n") == b"100"
    db.wait_value("n", 100)
    db.wait_quiet()
    assert db.r.get("n") == b"100"
    registration = db.registration()
    assert (registration.mode, registration.numTriggered, registration.numSuccess) == (mode, 100, 100)
    assert (registration.numFailures, registration.numAborted, registration.lastError) == (0, 0, None)


def test_a_sync_function_is_done_when_the_command_answers(db):
    db.ok("GB().foreach(lambda r: execute('set', 'last', r['value'])).register('watched:*', mode='sync')")
    for number in range(20):
        db.r.set("watched:1", number)
        assert db.r.get("last") == str(number).encode()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_events_of_one_registration_are_handled_in_their_order(db, mode):
    db.ok(f"GB().foreach(lambda r: execute('rpush', 'seen', r['key'])).register('w:*', mode='{mode}', readValue=False)")
    pipeline = db.r.pipeline(transaction=False)
    for number in range(300):
        pipeline.set(f"w:{number}", 1)
    pipeline.execute()
    wait_until(lambda: db.r.llen("seen"), "all events were handled", until=lambda n: n == 300)
    assert text(db.r.lrange("seen", 0, -1)) == [f"w:{n}" for n in range(300)]


@pytest.mark.parametrize(
    ("prefix", "fires"),
    [
        ("*", True),
        ("person:*", True),
        ("person:1", True),
        ("person:", False),
        ("person", False),
        ("p*1", True),
        ("person:?", True),
        ("person:??", False),
        ("*son*", True),
        ("*:1", True),
        ("*:2", False),
        ("p[aeiou]rson:[0-9]", True),
        ("p[^aeiou]rson:1", False),
        ("person:[^2-9]", True),
        ("person\\\\:1", True),
        ("person:\\\\*", False),
        ("Person:*", False),
    ],
)
def test_a_registration_matches_as_a_run_does(db, prefix, fires):
    function = "lambda r: r['key'] != 'n' and execute('set', 'n', 1)"
    db.ok(f"GB().foreach({function}).register('{prefix}', mode='sync', readValue=False)")
    db.r.set("person:1", "v")
    assert db.results(f"GB().map(lambda r: r['key']).filter(lambda key: key != 'n').run('{prefix}')") == (
        ["person:1"] if fires else []
    )
    assert (db.r.get("n") is not None) == fires


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_generated_patterns_match_the_same_keys_as_the_server_s_keys_command(db):
    dice = random.Random(28)
    patterns = {"".join(dice.choices("ab*?[]^-\\", k=dice.randint(1, 7))) for _ in range(150)}
    keys = sorted({"".join(dice.choices("ab-]^\\", k=dice.randint(1, 5))) for _ in range(100)})
    script = "".join(
        f"GB().foreach(lambda r: execute('sadd', 'seen:{number}', r['key'])).register({pattern!r}, mode='sync', "
        "readValue=False, eventTypes=['set'])\n"
        for number, pattern in enumerate(patterns)
    )
    db.ok(script)
    with db.r.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.set(key, 1)
        pipeline.execute()
    for number, pattern in enumerate(patterns):
        matching = {key for key in text(db.r.keys(pattern)) if key in keys}
        assert set(text(list(db.r.smembers(f"seen:{number}")))) == matching, pattern


def test_a_pattern_of_many_stars_does_not_stall_the_server(db):
    pattern = "*a" * 500 + "b"
    db.ok(f"GB().foreach(lambda r: execute('incr', 'n')).register('{pattern}')")
    with db.pinging() as pings:
        for number in range(20):
            db.r.set("a" * 10_000 + str(number), "v")
    pings.assert_never_stalled(0.5)
    assert db.registration().numTriggered == 0


def test_a_pattern_that_is_too_long_is_named_with_its_length(db):
    message = db.refused("GB().register('?' * 1025)")
    assert "at most 1024 bytes, got 1025" in message
    db.ok("GB().register('x' * 5000 + '*')")


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_stream_registration_reads_streams_that_match_its_pattern(db):
    db.ok(
        "GB('StreamReader').foreach(lambda r: execute('rpush', 'seen', r['key'])).register('*stream[12]', mode='sync')"
    )
    for key in ("my stream1", "stream2", "stream3", "stream"):
        db.r.xadd(key, {"f": "v"})
    wait_until(lambda: db.r.llen("seen"), "two entries were read", until=lambda count: count == 2)
    assert text(db.r.lrange("seen", 0, -1)) == ["my stream1", "stream2"]


def test_only_the_listed_event_types_fire(db):
    db.ok(RECORD_EVENTS.format(arguments="'w:*', mode='sync', eventTypes=['HSET', 'del']"))
    db.r.set("w:1", "v")
    db.r.hset("w:2", "f", "v")
    db.r.expire("w:1", 100)
    db.r.delete("w:1")
    assert [(event, key) for event, key, *_ in seen(db)] == [("hset", "w:2"), ("del", "w:1")]


def test_only_the_listed_key_types_fire(db):
    db.ok(RECORD_EVENTS.format(arguments="'w:*', mode='sync', keyTypes=['hash', 'stream', 'empty']"))
    db.r.set("w:s", "v")
    db.r.hset("w:h", "f", "v")
    db.r.rpush("w:l", 1)
    db.r.xadd("w:x", {"f": "v"})
    db.r.delete("w:s")
    assert [(event, key) for event, key, *_ in seen(db)] == [("hset", "w:h"), ("xadd", "w:x"), ("del", "w:s")]


#: Keeps events in the worker: no write is possible where keys are evicted.
KEEP_EVENTS = """
found = []
def note(r):
    found.append([r['event'], r['key'], r['type'], r['value']])
GB().foreach(note).register({arguments})
GB('CommandReader').flatmap(lambda _: list(map(tuple, found)), inOrder=True).register(trigger='found')
"""


@pytest.mark.parametrize("event", ["del", "expired", "evicted"])
def test_a_key_that_is_gone_passes_the_filter_of_types(db, event):
    db.ok(KEEP_EVENTS.format(arguments=f"'w:*', keyTypes=['hash'], eventTypes=['{event}', 'set', 'hset']"))
    db.r.set("w:string", "v")
    db.r.hset("w:hash", "f", "v")
    if event == "del":
        db.r.delete("w:hash")
    elif event == "expired":
        db.r.pexpire("w:hash", 1)
    else:
        db.r.config_set("maxmemory-policy", "allkeys-random")
        db.r.config_set("maxmemory", "1")
        try:
            with suppress(redis.ResponseError):
                db.r.set("other", "v")
        finally:
            db.r.config_set("maxmemory", "0")
            db.r.config_set("maxmemory-policy", "noeviction")
    found = wait_until(
        lambda: [literal_eval(one) for one in db.trigger("found")],
        "the event was seen",
        until=lambda events: (event, "w:hash", "empty", None) in events,
    )
    assert "set" not in [one[0] for one in found]


@pytest.mark.parametrize(
    ("names", "fragments"),
    [
        ("['get']", ["'get'", "reads make no events"]),
        ("['set', 'LRANGE']", ["'lrange'", "reads make no events"]),
        ("['settt']", ["'settt'", "did you mean 'set'?", "zunionstore", "unknownEvents=True"]),
        ("['incr']", ["'incr'", "whose event is incrby"]),
        ("['json.set']", ["'json.set'", "unknownEvents=True"]),
        ("[]", ["eventTypes is an empty list"]),
        ("'set'", ["eventTypes=['set']"]),
    ],
)
def test_event_types_that_never_fire_are_refused(db, names, fragments):
    message = db.refused(f"GB().register(eventTypes={names})")
    assert [fragment for fragment in fragments if fragment not in message] == []
    assert db.registrations() == []


def test_event_types_of_older_functions_are_accepted_beside_those_that_fire(db):
    db.ok(RECORD_EVENTS.format(arguments="'w:*', mode='sync', eventTypes=['hset', 'hmset', 'del', 'change']"))
    db.r.execute_command("HMSET", "w:1", "f", "v")
    assert [one[:2] for one in seen(db)] == [("hset", "w:1")]


def test_unknown_events_are_accepted_on_request(db):
    db.ok("GB().register(eventTypes=['json.set'], unknownEvents=True)")
    assert db.registration().args["eventTypes"] == ["json.set"]


#: Commands that cause every event that all servers have: each is run with the data that it needs.
EVENTS = """
SET s v; APPEND s v; SETRANGE s 1 x; SETBIT s 1 1; INCRBY n 1; INCR n; DECR n; DECRBY n 1; INCRBYFLOAT n 1;
MSET m 1; SETEX e 100 v; GETEX e PERSIST; EXPIRE s 100; PERSIST s; COPY s s2; RENAME s2 s3; RESTORE_; MOVE s3
1; GETDEL m; GETSET g 1; BITFIELD s SET u8 0 1; BITOP NOT b s; PFADD p 1; PFMERGE p2 p; LPUSH l 1 2 3; RPUSH l
4 5 6; LPUSHX l 7; LINSERT l BEFORE 1 0; LSET l 0 8; LREM l 0 8; LPOP l; RPOP l; RPOPLPUSH l l2; LMOVE l l2
LEFT LEFT; LMPOP 1 l LEFT; LTRIM l2 0 0; SORT l2 STORE l3; HSET h f 1; HINCRBY h f 1; HINCRBYFLOAT h f 1; HDEL
h f; SADD t 1 2 3; SADD t2 2; SREM t 1; SMOVE t t2 2; SINTERSTORE t3 t2 t2; SUNIONSTORE t3 t t2; SDIFFSTORE t3
t t2; SPOP t; ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g; ZINCRBY z 1 a; ZREM z a; ZREMRANGEBYRANK z 0 0;
ZREMRANGEBYSCORE z 3 3; ZUNIONSTORE z2 1 z; ZINTERSTORE z2 1 z; ZDIFFSTORE z2 1 z; ZRANGESTORE z2 z 0 -1;
ZPOPMIN z; ZPOPMAX z; ZMPOP 1 z MIN; ZADD y 0 a 0 b; ZREMRANGEBYLEX y [a [a; GEOADD o 1 1 m; GEOSEARCHSTORE o2
o FROMMEMBER m BYRADIUS 1 m; GEORADIUS o 1 1 10 km STORE o3; XADD x 1-1 f v; XADD x 2-1 f v; XDEL x 1-1; XTRIM
x MAXLEN 0; XSETID x 9-9; XGROUP_; GET absent; UNLINK s; DEL n
"""


@pytest.mark.single("its commands name keys of several slots")
def test_every_event_that_the_commands_of_the_server_make_can_be_listened_to(db):
    db.ok("GB().foreach(lambda r: execute('sadd', '{seen}', r['event'])).register('[^{]*', readValue=False)")
    for command in EVENTS.replace("\n", " ").strip().split(";"):
        words = command.split()
        if words == ["RESTORE_"]:
            db.r.restore("r", 0, db.r.dump("s"))
        elif words == ["XGROUP_"]:
            for rest in ("CREATE x g 0", "SETID x g 0", "CREATECONSUMER x g c", "DELCONSUMER x g c", "DESTROY x g"):
                db.r.execute_command("XGROUP", *rest.split())
        else:
            db.r.execute_command(*words)
    if db.wire()("COMMAND", "INFO", "HPEXPIRE") != [None]:
        db.r.execute_command("HSET", "h2", "a", "1", "b", "1")
        db.r.execute_command("HEXPIRE", "h2", "100", "FIELDS", "2", "a", "b")
        db.r.execute_command("HPERSIST", "h2", "FIELDS", "1", "a")
        db.r.execute_command("HPEXPIRE", "h2", "1", "FIELDS", "1", "b")
        wait_until(lambda: db.r.hlen("h2"), "the field has expired", until=lambda count: count == 1)
    db.wait_quiet()
    found = set(text(list(db.r.smembers("{seen}"))))
    assert len(found) > 55, sorted(found)
    refused = {name: db.execute(f"GB().register('never', eventTypes=[{name!r}])") for name in sorted(found)}
    assert set(refused.values()) == {b"OK"}


def test_without_read_value_the_record_has_only_key_and_event(db):
    function = "lambda r: execute('set', 'n', repr(sorted(r.items())))"
    db.ok(f"GB().foreach({function}).register('w:*', mode='sync', readValue=False)")
    db.r.set("w:1", "v")
    assert literal_eval(db.r.get("n").decode()) == [("event", "set"), ("key", "w:1")]


@pytest.mark.parametrize("mode", MODES)
def test_expiry_fires_when_the_server_removes_the_key(db, mode):
    db.ok(RECORD_EVENTS.format(arguments=f"'w:*', mode='{mode}', eventTypes=['expired']"))
    db.r.set("w:1", "v", px=20)
    assert wait_seen(db, 1) == [("expired", "w:1", "empty", None)]


def test_a_missed_key_fires(db):
    db.ok(RECORD_EVENTS.format(arguments="'w:*', mode='sync', eventTypes=['keymiss']"))
    assert db.r.get("w:absent") is None
    assert seen(db) == [("keymiss", "w:absent", "empty", None)]


@pytest.mark.single("its commands name keys of several slots")
def test_rename_fires_for_both_names(db):
    db.r.set("w:old", "v")
    db.ok(RECORD_EVENTS.format(arguments="'w:*', mode='sync'"))
    db.r.rename("w:old", "w:new")
    assert [(event, key) for event, key, *_ in seen(db)] == [("rename_from", "w:old"), ("rename_to", "w:new")]


def test_the_server_s_own_notification_setting_does_not_matter(db):
    assert db.r.config_get("notify-keyspace-events")["notify-keyspace-events"] == ""
    db.ok(RECORD_EVENTS.format(arguments="'w:*', mode='sync'"))
    db.r.set("w:1", "v")
    assert len(seen(db)) == 1


def test_reading_the_value_for_an_event_fires_no_further_event(db):
    db.ok(RECORD_EVENTS.format(arguments="'w:*', mode='async'"))
    db.r.set("w:1", "v", px=1)
    wait_seen(db, 1)
    db.wait_quiet()
    assert all(event != "keymiss" for event, *_ in seen(db))


def test_a_sync_function_s_own_writes_do_not_fire_it_again(db):
    db.ok(
        "GB().foreach(lambda r: execute('incr', 'w:count')).register('w:*', mode='sync', eventTypes=['SET', 'incrby'])"
    )
    db.r.set("w:1", "v")
    assert db.r.get("w:count") == b"1"
    assert db.registration().numTriggered == 1


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_an_async_function_s_writes_do_fire(db):
    script = """
def step(r):
    level = int(r['key'].split(':')[1])
    if level < 5:
        execute('set', 'w:%d' % (level + 1), 'v')
GB().foreach(step).register('w:*', mode='async')
"""
    db.ok(script)
    db.r.set("w:1", "v")
    db.wait_key("w:5")


def test_all_matching_registrations_fire_in_the_order_of_registration(db):
    for name in ("first", "second", "third"):
        db.ok(f"GB().foreach(lambda r: execute('rpush', 'seen', '{name}')).register('w:*', mode='sync')")
    db.r.set("w:1", "v")
    assert text(db.r.lrange("seen", 0, -1)) == ["first", "second", "third"]


def test_a_failing_function_is_counted_and_its_error_kept(db):
    db.ok("GB().foreach(lambda r: 1 / int(r['value'])).register('w:*', mode='sync')")
    db.r.set("w:1", "0")
    registration = db.registration()
    assert (registration.numTriggered, registration.numSuccess, registration.numFailures) == (1, 0, 1)
    assert "ZeroDivisionError" in registration.lastError
    assert db.r.get("w:1") == b"0"
    db.r.set("w:1", "1")
    registration = db.registration()
    assert (registration.numTriggered, registration.numSuccess, registration.numFailures) == (2, 1, 1)
    assert registration.lastError is None


@pytest.mark.single("its commands name keys of several slots")
def test_events_inside_multi_and_lua_fire(db):
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync', readValue=False)")
    with db.r.pipeline(transaction=True) as pipeline:
        pipeline.set("w:1", 1).set("w:2", 2)
        pipeline.execute()
    assert db.r.get("n") == b"2"
    db.r.eval("redis.call('set', KEYS[1], 'v')", 1, "w:3")
    assert db.r.get("n") == b"3"


@pytest.mark.single("its commands name keys of several slots")
def test_async_events_inside_multi_fire_after_it(db):
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', readValue=False)")
    with db.r.pipeline(transaction=True) as pipeline:
        pipeline.set("w:1", 1).set("w:2", 2)
        pipeline.execute()
    db.wait_value("n", 2)


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_binary_key_names_are_matched_and_delivered(db):
    db.ok("GB().foreach(lambda r: execute('set', 'n', repr(r['key']))).register('w:*', mode='sync')")
    db.r.set(b"w:\xff", "v")
    assert literal_eval(db.r.get("n").decode()) == b"w:\xff"


def test_on_registered_runs_once_at_registration(db):
    db.ok("GB().foreach(lambda r: 0).register('w:*', onRegistered=lambda: execute('incr', 'registered'))")
    db.wait_value("registered", 1)


def test_what_on_registered_sets_up_is_seen_by_the_function(db):
    script = """
state = {}
def setup():
    state['word'] = 'ready'
GB('CommandReader').map(lambda _: state.get('word')).register(trigger='t', onRegistered=setup)
"""
    db.ok(script)
    wait_until(lambda: db.trigger("t"), "onRegistered has run", until=lambda reply: reply == ["ready"])


def test_an_exception_in_on_registered_is_logged_and_nothing_else(db):
    db.ok("GB('CommandReader').register(trigger='t', onRegistered=lambda: 1 / 0)")
    db.wait_log("ZeroDivisionError")
    assert db.trigger("t") == ["['t']"]


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_repartition_and_aggregation_work_in_event_functions(db):
    script = """
GB().map(lambda r: {'k': r['key']}).repartition(lambda d: 'collector').count() \\
    .foreach(lambda n: execute('incrby', 'collector', n)).register('w:*')
"""
    db.ok(script)
    for number in range(5):
        db.r.set(f"w:{number}", "v")
    db.wait_value("collector", 5)


def test_a_retained_execution_shows_its_result(db):
    db.ok("GB().map(lambda r: r['value']).register('w:*')")
    db.r.set("w:1", "result")
    db.wait_quiet()
    [execution] = [e for e in db.executions() if e.registered]
    assert text(db.r.execute_command("RG.GETRESULTS", execution.id)) == [["result"], []]


# -- unregister


def test_after_unregister_nothing_fires(db):
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync')")
    db.r.set("w:1", "v")
    assert db.unregister(db.registration().id) == b"OK"
    db.r.set("w:1", "v")
    assert db.r.get("n") == b"1"
    assert db.registrations() == []


def test_registering_again_after_unregister_fires_again(db):
    for expected in (1, 2):
        db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync')")
        db.r.set("w:1", "v")
        assert db.r.get("n") == str(expected).encode()
        db.unregister(db.registration().id)


@pytest.mark.parametrize("name", ["0" * 40 + "-999999", "nonsense", ""])
def test_unregistering_what_is_not_registered_is_an_error(db, name):
    with pytest.raises(Exception, match="execution is not registered"):
        db.unregister(name)


def test_unregister_with_abortpending_drops_what_did_not_start(db, tmp_path):
    gate = tmp_path / "open"
    script = """
import os, time
def slow(r):
    execute('incr', 'begun')
    end = time.monotonic() + 20
    while not os.path.exists(GATE) and time.monotonic() < end:
        time.sleep(0.005)
    execute('incr', 'n')
GB().foreach(slow).register('w:*', readValue=False)
""".replace("GATE", repr(str(gate)))
    db.ok(script)
    for number in range(3):
        db.r.set(f"w:{number}", "v")
    db.wait_key("begun")
    db.unregister(db.registration().id, "ABORTPENDING")
    gate.touch()
    db.wait_value("n", 1)
    db.wait_quiet()
    assert db.r.get("n") == b"1"


# -- wrong arguments


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ("1", "regex argument must be a string"),
        ("'*', eventTypes=7", "not iterable"),
        ("'*', eventTypes=[7]", "type is not string"),
        ("'*', keyTypes=7", "not iterable"),
        ("'*', keyTypes=[7]", "type is not string"),
        ("'*', keyTypes=['nonsense']", "unknown key type"),
        ("'*', commands=7", "not iterable"),
        ("'*', commands=[7]", "type is not string"),
        ("'*', readValue=7", "readValue is not boolean"),
        ("'*', mode=7", "execution mode must be a string"),
        ("'*', mode='whenever'", "unknown execution mode"),
        ("'*', onRegistered=7", "OnRegistered argument must be a function"),
    ],
)
def test_a_wrong_argument_of_register_is_named(db, arguments, fragment):
    assert fragment in db.refused(f"GB().register({arguments})")
    assert db.registrations() == []


def test_the_old_word_regex_still_works(db):
    db.ok("GB().foreach(lambda r: execute('set', 'n', 1)).register(regex='w:*', mode='sync')")
    db.r.set("w:1", "v")
    assert db.r.get("n") == b"1"


@pytest.mark.parametrize("reader", ["KeysReader", "StreamReader", "CommandReader"])
def test_what_cannot_be_pickled_cannot_be_registered(db, reader):
    arguments = "trigger='t'" if reader == "CommandReader" else ""
    script = f"""
import threading
lock = threading.Lock()
GB('{reader}').map(lambda x, captured=lock: captured).register('*', {arguments})
"""
    assert "Error occured when serialized a python callback" in db.refused(script)
    assert db.registrations() == []


# -- the dump


def test_the_dump_of_a_keys_registration_has_its_fixed_positions(db):
    db.ok(
        "GB('KeysReader', desc='my words').foreach(lambda r: 1 / 0)"
        ".register('w:*', mode='sync', eventTypes=['set'], keyTypes=['string', 'stream', 'empty'])"
    )
    db.r.set("w:1", "v")
    row = db.registration().positions
    assert row[0::2] == ["id", "reader", "desc", "RegistrationData", "PD", "ExecutionThreadPool"]
    assert row[3] == "KeysReader"
    assert row[5] == "my words"
    data = row[7]
    assert len(data) == 20
    assert data[0::2] == [
        "mode",
        "numTriggered",
        "numSuccess",
        "numFailures",
        "numAborted",
        "lastRunDurationMS",
        "totalRunDurationMS",
        "avgRunDurationMS",
        "lastError",
        "args",
    ]
    assert (data[3], data[5], data[7], data[9]) == (1, 0, 1, 0)
    assert "ZeroDivisionError" in data[17]
    assert data[19][0::2] == ["regex", "eventTypes", "keyTypes", "hookCommands"]
    assert data[19][1] == "w:*"
    assert [t.lower() for t in data[19][3]] == ["set"]
    assert data[19][5] == ["string", "stream", "empty"]
    assert data[19][7] is None
    assert row[11] == "DefaultPool"


def test_filters_that_were_not_given_are_nil_in_the_dump(db):
    db.ok("GB().register()")
    registration = db.registration()
    assert registration.desc is None
    assert registration.args == {"regex": "*", "eventTypes": None, "keyTypes": None, "hookCommands": None}
    assert float(registration.avgRunDurationMS) == 0
    assert registration.mode == "async"


def test_the_session_is_shown_in_the_dump(db):
    db.ok("GB().register('w:*')", "ID", "mine", "DESCRIPTION", "about")
    pd = db.registration().pd
    assert "'sessionName':'mine'" in pd
    assert "'sessionDescription':'about'" in pd
    assert "'depsList':[]" in pd
    assert db.registration().id in pd


@pytest.mark.single("it compares identifiers or replies of one server")
def test_registration_ids_are_a_shard_and_a_number_and_are_never_used_twice(db):
    ids = set()
    for _ in range(5):
        db.ok("GB().register('w:*')")
        [registration] = db.registrations()
        shard, _, number = registration.id.rpartition("-")
        assert shard == "0" * 40 and number.isdigit()
        ids.add(registration.id)
        db.unregister(registration.id)
    assert len(ids) == 5


def test_register_gives_the_id_of_the_registration(db):
    db.ok("execute('set', 'id', GB().register('w:*'))")
    assert db.r.get("id").decode() == db.registration().id


def test_the_first_registration_of_a_fresh_server_is_number_one(fresh_server):
    db = fresh_server()
    db.ok("GB().register('w:*')")
    assert db.registration().id == "0" * 40 + "-1"


def test_a_session_may_own_several_registrations(db):
    db.ok(
        """
GB().foreach(lambda r: execute('incr', 'keys')).register('w:*', mode='sync')
GB('StreamReader').foreach(lambda r: execute('incr', 'entries')).register('s', mode='sync')
GB('CommandReader').map(lambda a: 'answered').register(trigger='t')
"""
    )
    assert sorted(r.reader for r in db.registrations()) == ["CommandReader", "KeysReader", "StreamReader"]
    db.r.set("w:1", "v")
    db.r.xadd("s", {"f": "v"})
    assert (db.r.get("keys"), db.r.get("entries")) == (b"1", b"1")
    assert db.trigger("t") == ["answered"]
