"""Registered StreamReader functions: batches, durations, trimming, failure policies."""

from __future__ import annotations

import pytest

from .database import text
from .waiting import wait_until

MODES = ["async", "async_local", "sync"]


def add(db, stream: str, *values: object) -> None:
    pipeline = db.r.pipeline(transaction=False)
    for value in values:
        pipeline.xadd(stream, {"n": value})
    pipeline.execute()


def seen(db) -> list[str]:
    return text(db.r.lrange("seen", 0, -1))  # type: ignore[return-value]


def wait_seen(db, count: int) -> list[str]:
    return wait_until(lambda: seen(db), f"{count} entries were seen", until=lambda entries: len(entries) >= count)


NOTE = "GB('StreamReader').foreach(lambda r: execute('rpush', 'seen', r['value']['n']))"


@pytest.mark.parametrize("mode", MODES)
def test_every_entry_is_handled_in_order_exactly_once(db, mode):
    db.ok(f"{NOTE}.register('s', mode='{mode}')")
    add(db, "s", *range(200))
    assert wait_seen(db, 200) == [str(n) for n in range(200)]
    db.wait_quiet()
    assert len(seen(db)) == 200


@pytest.mark.parametrize("mode", MODES)
def test_the_record_of_an_entry_names_stream_and_id(db, mode):
    db.ok(
        "GB('StreamReader').foreach(lambda r: execute('set', 'n', repr(sorted(r.items()))))"
        f".register('s', mode='{mode}')"
    )
    db.r.xadd("s", {"f": "v"}, id="7-1")
    assert db.wait_key("n") == "[('id', '7-1'), ('key', 's'), ('value', {'f': 'v'})]"


def test_entries_of_a_full_batch_are_taken_from_the_stream(db):
    db.ok(f"{NOTE}.register('s', batch=5)")
    add(db, "s", *range(4))
    db.wait_quiet()
    assert seen(db) == []
    assert db.r.xlen("s") == 4
    add(db, "s", 4)
    wait_seen(db, 5)
    wait_until(lambda: db.r.xlen("s"), "the stream is trimmed", until=lambda n: n == 0)


def test_a_batch_is_one_execution(db):
    db.ok("GB('StreamReader').count().foreach(lambda n: execute('rpush', 'seen', n)).register('s', batch=3)")
    add(db, "s", *range(9))
    wait_until(lambda: sum(map(int, seen(db))), "nine entries were counted", until=lambda n: n == 9)
    assert all(int(size) >= 3 for size in seen(db))


def test_a_smaller_batch_runs_after_its_duration(db):
    db.ok(f"{NOTE}.register('s', batch=100, duration=50)")
    add(db, "s", "a", "b")
    assert wait_seen(db, 2) == ["a", "b"]


def test_a_rest_of_a_batch_runs_by_time(db):
    db.ok(f"{NOTE}.register('s', batch=2, duration=30)")
    add(db, "s", 1, 2, 3)
    assert wait_seen(db, 3) == ["1", "2", "3"]


def test_unregister_with_a_pending_timer_is_harmless(db):
    db.ok(f"{NOTE}.register('s', batch=100, duration=200)")
    add(db, "s", 1)
    db.unregister(db.registration().id)
    db.ok("GB('StreamReader').foreach(lambda r: execute('incr', 'n')).register('t', batch=100, duration=400)")
    add(db, "t", 1)
    db.wait_value("n", 1)
    assert seen(db) == []


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_entries_that_were_there_before_the_registration_are_handled(db):
    add(db, "s:1", 1, 2)
    add(db, "s:2", 3)
    add(db, "other", 4)
    db.ok(f"{NOTE}.register('s:*')")
    assert sorted(wait_seen(db, 3)) == ["1", "2", "3"]
    assert db.r.xlen("other") == 1


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_prefix_matches_streams_that_come_later(db):
    db.ok(f"{NOTE}.register('s:*')")
    for number in range(5):
        add(db, f"s:{number}", number)
    assert sorted(wait_seen(db, 5)) == ["0", "1", "2", "3", "4"]


def test_with_trimming_the_stream_becomes_empty(db):
    db.ok(f"{NOTE}.register('s', trimStream=True)")
    add(db, "s", *range(10))
    wait_until(lambda: db.r.xlen("s"), "the stream is empty", until=lambda n: n == 0)


def test_without_trimming_entries_stay_and_are_not_handled_twice(db):
    db.ok(f"{NOTE}.register('s', trimStream=False)")
    add(db, "s", *range(10))
    wait_seen(db, 10)
    add(db, "s", "last")
    wait_seen(db, 11)
    db.wait_quiet()
    assert db.r.xlen("s") == 11
    assert seen(db) == [*(str(n) for n in range(10)), "last"]


def test_entries_are_read_through_the_documented_consumer_group(db):
    db.ok(f"{NOTE}.register('s', trimStream=False)")
    add(db, "s", 1)
    wait_seen(db, 1)
    [group] = wait_until(lambda: db.r.xinfo_groups("s"), "the group exists")
    assert group["name"] == b"__gears_consumer_group__"
    wait_until(
        lambda: db.r.xpending("s", "__gears_consumer_group__")["pending"], "all acknowledged", until=lambda n: n == 0
    )
    [consumer] = db.r.xinfo_consumers("s", "__gears_consumer_group__")
    assert consumer["name"] == b"__gears_client__"


def test_the_first_entry_counts_a_pending_run_and_a_batch_run(db):
    db.ok(f"{NOTE}.register('s')")
    add(db, "s", 1)
    wait_until(lambda: db.registration().numSuccess, "both runs succeeded", until=lambda n: n >= 2)
    registration = db.registration()
    assert (registration.numTriggered, registration.numSuccess) == (2, 2)


def test_policy_continue_goes_on_after_a_failure(db):
    script = """
def step(r):
    if r['value']['n'] == 'bad':
        raise ValueError('bad entry')
    execute('rpush', 'seen', r['value']['n'])
GB('StreamReader').foreach(step).register('s', onFailedPolicy='CONTINUE')
"""
    db.ok(script)
    add(db, "s", "a", "bad")
    wait_until(lambda: db.registration().numFailures, "the failure is counted", until=lambda n: n == 1)
    assert "bad entry" in db.registration().lastError
    add(db, "s", "c")
    assert wait_seen(db, 2) == ["a", "c"]
    wait_until(lambda: db.registration().lastError, "a success clears the last error", until=lambda e: e is None)
    wait_until(lambda: db.r.xlen("s"), "the bad entry is trimmed too", until=lambda n: n == 0)


def test_policy_abort_stops_the_registration_and_keeps_the_entries(db):
    db.ok("GB('StreamReader').foreach(lambda r: 1 / 0).register('s', onFailedPolicy='abort')")
    add(db, "s", 1)
    wait_until(lambda: db.registration().status, "the registration is aborted", until=lambda s: s == "ABORTED")
    triggered = db.registration().numTriggered
    add(db, "s", 2, 3)
    db.wait_quiet()
    assert db.registration().numTriggered == triggered
    assert db.r.xlen("s") == 3
    assert db.registration().positions[7][25] == "ABORTED"


def test_policy_retry_tries_again_until_it_works(db):
    script = """
def step(r):
    if execute('get', 'repaired') is None:
        execute('incr', 'tries')
        raise ValueError('not yet')
    execute('rpush', 'seen', r['value']['n'])
GB('StreamReader').foreach(step).register('s', onFailedPolicy='retry', onFailedRetryInterval=1)
"""
    db.ok(script)
    add(db, "s", "a", "b")
    statuses = set()

    def look() -> int:
        statuses.add(db.registration().status)
        return int(db.r.get("tries") or 0)

    wait_until(look, "the function was tried twice", until=lambda n: n >= 2)
    assert "WAITING_FOR_RETRY_ON_FAILURE" in statuses
    db.r.set("repaired", 1)
    assert sorted(set(wait_seen(db, 2))) == ["a", "b"]
    wait_until(lambda: db.registration().status, "the status is OK again", until=lambda s: s == "OK")


def test_an_unregistered_stream_function_takes_no_further_entry(db):
    db.ok(f"{NOTE}.register('s')")
    add(db, "s", 1)
    wait_seen(db, 1)
    db.unregister(db.registration().id)
    add(db, "s", 2)
    db.wait_quiet()
    assert seen(db) == ["1"]
    assert text([v for _, v in db.r.xrange("s")][-1][b"n"]) == "2"


def test_unregister_with_many_streams_queued_empties_the_execution_list(db):
    db.ok(f"{NOTE}.register('s:*')")
    for number in range(100):
        add(db, f"s:{number}", number)
    db.unregister(db.registration().id, "ABORTPENDING")
    wait_until(db.executions, "the execution list is empty", until=lambda left: not left)


def test_a_stream_that_is_deleted_and_made_again_is_served_again(db):
    db.ok(f"{NOTE}.register('s')")
    add(db, "s", "before")
    wait_seen(db, 1)
    db.wait_quiet()
    db.r.delete("s")
    add(db, "s", "after")
    assert wait_seen(db, 2) == ["before", "after"]


def test_max_executions_per_registration_keeps_only_the_latest(fresh_server):
    db = fresh_server(load_args={"MaxExecutionsPerRegistration": 1})
    db.ok(f"{NOTE}.register('s')")
    for number in range(20):
        add(db, "s", number)
    wait_seen(db, 20)
    db.wait_quiet()
    assert len([e for e in db.executions() if e.registered]) == 1


def test_entries_added_in_multi_and_lua_are_handled(db):
    db.ok(f"{NOTE}.register('s')")
    with db.r.pipeline(transaction=True) as pipeline:
        pipeline.xadd("s", {"n": 1}).xadd("s", {"n": 2})
        pipeline.execute()
    db.r.eval("redis.call('xadd', KEYS[1], '*', 'n', '3')", 1, "s")
    assert wait_seen(db, 3) == ["1", "2", "3"]


def test_a_sync_function_is_done_when_xadd_answers(db):
    db.ok(f"{NOTE}.register('s', mode='sync')")
    for number in range(10):
        add(db, "s", number)
        assert len(seen(db)) == number + 1


def test_a_sync_keys_function_may_feed_a_sync_stream_function(db):
    db.ok("GB().foreach(lambda r: execute('xadd', 's', '*', 'n', r['key'])).register('w:*', mode='sync')")
    db.ok(f"{NOTE}.register('s', mode='sync')")
    db.r.set("w:1", "v")
    assert wait_seen(db, 1) == ["w:1"]


def test_the_dump_of_a_stream_registration_has_its_fixed_positions(db):
    db.ok(
        "GB('StreamReader').register('s*', batch=7, duration=11, onFailedPolicy='Retry', "
        "onFailedRetryInterval=3, trimStream=False)"
    )
    data = db.registration().positions[7]
    assert len(data) == 26
    assert data[0::2] == [
        "mode",
        "numTriggered",
        "numSuccess",
        "numFailures",
        "numAborted",
        "lastRunDurationMS",
        "totalRunDurationMS",
        "avgRunDurationMS",
        "lastEstimatedLagMS",
        "avgEstimatedLagMS",
        "lastError",
        "args",
        "status",
    ]
    assert data[25] == "OK"
    assert db.registration().args == {
        "batchSize": 7,
        "durationMS": 11,
        "stream": "s*",
        "trimStream": 0,
        "onFailedPolicy": "retry",
        "retryInterval": 3,
    }


@pytest.mark.parametrize(
    ("argument", "fragment"),
    [
        ("batch='many'", "batch argument must be a number"),
        ("duration='long'", "duration argument must be a number"),
        ("onFailedPolicy='panic'", "onFailedPolicy must be Continue/Abort/Retry"),
        ("onFailedPolicy=7", "onFailedPolicy must be a string (Continue/Abort/Retry)"),
        ("onFailedRetryInterval='soon'", "retryInterval argument must be a number"),
        ("trimStream=7", "pyTrimmStream argument must be a boolean"),
        ("mode='sync', onFailedPolicy='retry'", "ExecutionMode sync can only be combined with OnFailedPolicy Continue"),
        ("mode='sync', onFailedPolicy='abort'", "ExecutionMode sync can only be combined with OnFailedPolicy Continue"),
    ],
)
def test_a_wrong_argument_of_a_stream_registration_is_named(db, argument, fragment):
    assert fragment in db.refused(f"GB('StreamReader').register('s', {argument})")
    assert db.registrations() == []


# -- changes of the key


def replace_by_rename(db) -> None:
    db.r.rename("other", "s")


def replace_by_copy(db) -> None:
    db.r.copy("other", "s", replace=True)


def replace_by_restore(db) -> None:
    db.r.restore("s", 0, db.r.dump("other"), replace=True)


def replace_by_move(db) -> None:
    db.r.delete("s")
    elsewhere = db.client(db=3)
    elsewhere.restore("s", 0, db.r.dump("other"))
    elsewhere.move("s", 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("replace", [replace_by_rename, replace_by_copy, replace_by_restore, replace_by_move])
@pytest.mark.single("its commands name keys of several slots")
def test_a_stream_that_takes_the_place_of_a_key_is_read_whole(db, mode, replace):
    db.ok(f"{NOTE}.register('s', mode='{mode}', trimStream=False)")
    add(db, "s", "first")
    wait_seen(db, 1)
    db.wait_quiet()
    add(db, "other", 1, 2, 3, 4, 5)
    replace(db)
    assert wait_seen(db, 6) == ["first", "1", "2", "3", "4", "5"]
    add(db, "s", 6)
    assert wait_seen(db, 7)[6:] == ["6"]
    db.wait_quiet()
    assert len(seen(db)) == 7


@pytest.mark.single("its commands name keys of several slots")
def test_a_stream_under_a_new_name_brings_its_pending_entries(db):
    add(db, "other", 1, 2, 3)
    db.r.xgroup_create("other", "__gears_consumer_group__", "0")
    db.r.xreadgroup("__gears_consumer_group__", "__gears_client__", {"other": ">"}, count=2)
    db.ok(f"{NOTE}.register('s')")
    db.r.rename("other", "s")
    assert wait_seen(db, 3) == ["1", "2", "3"]


@pytest.mark.parametrize("mode", MODES)
def test_after_its_group_was_destroyed_a_stream_is_read_to_its_end(db, mode):
    db.ok(f"{NOTE}.register('s', mode='{mode}', trimStream=False)")
    add(db, "s", *range(5))
    wait_seen(db, 5)
    db.wait_quiet()
    db.r.xgroup_destroy("s", "__gears_consumer_group__")
    add(db, "s", 5)
    assert wait_seen(db, 11)[5:] == ["0", "1", "2", "3", "4", "5"]
    db.wait_quiet()
    add(db, "s", 6)
    assert wait_seen(db, 12)[11:] == ["6"]
    db.wait_quiet()
    assert len(seen(db)) == 12


def test_after_the_position_of_its_group_was_set_back_a_stream_is_read_to_its_end(db):
    db.ok(f"{NOTE}.register('s', batch=2, trimStream=False)")
    add(db, "s", *range(6))
    wait_seen(db, 6)
    db.wait_quiet()
    db.r.execute_command("XGROUP", "SETID", "s", "__gears_consumer_group__", "0")
    add(db, "s", 6, 7)
    assert wait_seen(db, 14)[6:] == [str(n) for n in range(8)]


def held_at(gate) -> str:
    """A script whose function records each entry of the stream ``s`` and blocks at it until the gate opens."""
    return f"""
import os, time
def step(r):
    execute('rpush', 'seen', r['value']['n'])
    end = time.monotonic() + 20
    while not os.path.exists({str(gate)!r}) and time.monotonic() < end:
        time.sleep(0.002)
GB('StreamReader').foreach(step).register('s')
"""


@pytest.mark.single("its commands name keys of several slots")
def test_a_batch_in_work_removes_nothing_from_the_stream_that_took_the_place(db, tmp_path):
    gate = tmp_path / "open"
    script = held_at(gate)
    db.ok(script)
    db.r.xadd("s", {"n": "old"}, id="7-1")
    wait_seen(db, 1)
    db.r.xadd("other", {"n": "new"}, id="7-1")
    db.r.rename("other", "s")
    gate.touch()
    assert wait_seen(db, 2) == ["old", "new"]


def test_entries_that_a_sync_stream_function_adds_reach_async_registrations(db):
    db.ok(
        "GB('StreamReader').foreach(lambda r: execute('xadd', 't', '*', 'n', r['value']['n']))"
        ".register('s', mode='sync')"
    )
    db.ok(f"{NOTE}.register('t')")
    add(db, "s", 1, 2)
    assert wait_seen(db, 2) == ["1", "2"]


# -- several registrations on one stream


def note_to(key: str) -> str:
    return f"GB('StreamReader').foreach(lambda r: execute('rpush', '{key}', r['value']['n']))"


def wait_list(db, key: str, values: list[str]) -> None:
    wait_until(lambda: text(db.r.lrange(key, 0, -1)), f"{key} is {values}", until=lambda seen: seen == values)


def groups(db, stream: str) -> list[str]:
    return sorted(str(text(group["name"])) for group in db.r.xinfo_groups(stream))


@pytest.mark.parametrize("second", ["s", "s*", "*"])
@pytest.mark.parametrize("modes", [("async", "async"), ("sync", "sync"), ("sync", "async_local")])
def test_each_registration_on_a_stream_sees_every_entry_once_and_in_order(db, modes, second):
    add(db, "s", *range(5))
    db.ok(f"{note_to('l:one')}.register('s', mode='{modes[0]}')")
    db.ok(f"{note_to('l:two')}.register('{second}', mode='{modes[1]}', batch=3, duration=20)")
    add(db, "s", *range(5, 25))
    expected = [str(n) for n in range(25)]
    # The second one reads entries that the first one had not yet trimmed when it was registered.
    wait_list(db, "l:one", expected)
    two = wait_until(
        lambda: text(db.r.lrange("l:two", 0, -1)), "the second saw the last entry", until=lambda v: v[-1:] == ["24"]
    )
    assert two == expected[25 - len(two) :]
    assert len(two) >= 20
    wait_until(lambda: db.r.xlen("s"), "entries that both acknowledged are removed", until=lambda n: n == 0)
    db.wait_quiet()
    assert len(db.r.lrange("l:one", 0, -1)) == 25


def test_a_further_registration_has_its_own_group_from_the_beginning_of_the_stream(db):
    db.ok(f"{note_to('l:one')}.register('s', trimStream=False)")
    add(db, "s", 1, 2, 3)
    wait_list(db, "l:one", ["1", "2", "3"])
    db.ok(f"{note_to('l:two')}.register('s', trimStream=False)")
    wait_list(db, "l:two", ["1", "2", "3"])
    first, second = db.registrations()
    assert "group" not in first.args
    name = str(second.args["group"])
    assert second.id in name
    assert list(second.args)[-1] == "group"
    assert groups(db, "s") == ["__gears_consumer_group__", name]
    db.unregister(second.id)
    wait_until(lambda: groups(db, "s"), "the group goes", until=lambda left: left == ["__gears_consumer_group__"])
    add(db, "s", 4)
    wait_list(db, "l:one", ["1", "2", "3", "4"])
    assert text(db.r.lrange("l:two", 0, -1)) == ["1", "2", "3"]


def test_a_registration_that_is_made_again_resumes_where_it_stopped_beside_another(db):
    db.ok(f"{note_to('l:one')}.register('s')")
    db.ok(f"{note_to('l:two')}.register('s')")
    add(db, "s", 1)
    wait_list(db, "l:one", ["1"])
    wait_list(db, "l:two", ["1"])
    db.wait_quiet()
    first, _ = db.registrations()
    db.unregister(first.id)
    # Nothing is lost while there is no first one: entries that only the second one acknowledges may be trimmed.
    add(db, "s", 2)
    wait_list(db, "l:two", ["1", "2"])
    db.ok(f"{note_to('l:one')}.register('s')")
    add(db, "s", 3)
    wait_list(db, "l:two", ["1", "2", "3"])
    wait_until(lambda: text(db.r.lrange("l:one", -1, -1)), "the first continues", until=lambda v: v == ["3"])
    assert "group" not in db.registrations()[1].args
    wait_until(lambda: db.r.xlen("s"), "the stream is trimmed", until=lambda n: n == 0)


def test_an_upgrade_resumes_where_the_old_registration_stopped(db):
    db.ok(f"{note_to('l:one')}.register('s', trimStream=False)")
    db.ok(f"{note_to('l:two')}.register('s', trimStream=False)", "ID", "two")
    add(db, "s", 1, 2)
    wait_list(db, "l:two", ["1", "2"])
    db.wait_quiet()
    before = db.registrations()[1].args["group"]
    db.ok(f"{note_to('l:new')}.register('s', trimStream=False)", "ID", "two", "UPGRADE")
    add(db, "s", 3)
    wait_list(db, "l:new", ["3"])
    assert db.registrations()[1].args["group"] == before
    assert groups(db, "s") == ["__gears_consumer_group__", before]


def test_an_entry_is_trimmed_only_when_all_registrations_have_acknowledged_it(db):
    db.ok("GB('StreamReader').foreach(lambda r: 1 / 0).register('s', onFailedPolicy='abort')")
    db.ok(f"{note_to('l:two')}.register('s')")
    add(db, "s", 1, 2)
    wait_list(db, "l:two", ["1", "2"])
    db.wait_quiet()
    assert db.r.xlen("s") == 2
    failing = db.registrations()[0]
    db.unregister(failing.id)
    wait_until(lambda: db.r.xlen("s"), "what only the failing one held is trimmed", until=lambda n: n == 0)


def test_an_entry_that_one_registration_trims_stays_until_one_that_does_not_has_seen_it(db):
    db.ok(f"{note_to('l:one')}.register('s')")
    db.ok(f"{note_to('l:slow')}.register('s', batch=4, trimStream=False)")
    add(db, "s", 1, 2, 3)
    wait_list(db, "l:one", ["1", "2", "3"])
    db.wait_quiet()
    assert db.r.xlen("s") == 3
    add(db, "s", 4)
    wait_list(db, "l:slow", ["1", "2", "3", "4"])
    wait_until(lambda: db.r.xlen("s"), "both have acknowledged", until=lambda n: n == 0)


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_without_trimming_entries_of_several_registrations_stay(db):
    for name in ("l:one", "l:two", "l:three"):
        db.ok(f"{note_to(name)}.register('s', trimStream=False)")
    add(db, "s", *range(10))
    for name in ("l:one", "l:two", "l:three"):
        wait_list(db, name, [str(n) for n in range(10)])
    db.wait_quiet()
    assert db.r.xlen("s") == 10


def test_a_batch_in_work_when_its_registration_goes_is_acknowledged_and_trimmed(db, tmp_path):
    gate = tmp_path / "open"
    script = held_at(gate)
    db.ok(f"{note_to('l:one')}.register('s')")
    db.ok(script)
    add(db, "s", 1)
    wait_seen(db, 1)
    wait_list(db, "l:one", ["1"])
    db.unregister(db.registrations()[1].id)
    gate.touch()
    wait_until(lambda: db.r.xlen("s"), "the entry is trimmed", until=lambda n: n == 0)
    wait_until(lambda: groups(db, "s"), "the group goes", until=lambda left: left == ["__gears_consumer_group__"])


# -- large batches


def test_a_large_batch_is_read_and_acknowledged_in_slices(db):
    for _ in range(6):
        db.r.eval("for n = 1, 25000 do redis.call('xadd', KEYS[1], '*', 'n', n) end", 1, "s")
    db.ok("GB('StreamReader').count().foreach(lambda n: execute('rpush', 'seen', n)).register('s', batch=1000000)")
    with db.pinging() as pings:
        assert wait_seen(db, 1) == ["150000"]
        wait_until(lambda: db.r.xlen("s"), "the stream is trimmed", until=lambda n: n == 0, deadline=20)
    pings.assert_never_stalled(0.1)
    assert db.r.xpending("s", "__gears_consumer_group__")["pending"] == 0
    assert db.registration().numFailures == 0


def test_many_pending_entries_are_read_again_in_order_exactly_once(db):
    add(db, "s", *range(1000))
    db.r.xgroup_create("s", "__gears_consumer_group__", "0")
    db.r.xreadgroup("__gears_consumer_group__", "__gears_client__", {"s": ">"}, count=700)
    db.ok(f"{NOTE}.register('s', batch=300)")
    assert wait_seen(db, 1000) == [str(n) for n in range(1000)]
    wait_until(lambda: db.r.xlen("s"), "the stream is trimmed", until=lambda n: n == 0)


def test_a_large_batch_of_a_sync_registration_is_one_run(db):
    db.ok(
        "GB('StreamReader').count().foreach(lambda n: execute('rpush', 'seen', n))"
        ".register('s', mode='sync', batch=500)"
    )
    add(db, "s", *range(1000))
    assert seen(db) == ["500", "500"]


def test_a_large_batch_with_a_failure_is_kept_or_acknowledged_as_the_policy_says(db):
    script = """
def step(r):
    if r['value']['n'] == '999':
        raise ValueError('the last one')
GB('StreamReader').foreach(step).register('s', batch=1000, onFailedPolicy='{}')
"""
    db.ok(script.format("abort"))
    add(db, "s", *range(1000))
    wait_until(lambda: db.registration().status, "the registration is aborted", until=lambda s: s == "ABORTED")
    assert db.r.xlen("s") == 1000
    db.unregister(db.registration().id)
    db.ok(script.format("continue"))
    wait_until(lambda: db.r.xlen("s"), "the stream is trimmed", until=lambda n: n == 0)
    assert db.registration().numFailures == 1


def test_a_large_batch_waits_while_clients_are_paused(db):
    add(db, "s", *range(5000))
    db.ok("GB('StreamReader').foreach(lambda r: execute('incr', 'n')).register('s', batch=5000)")
    wait_until(lambda: int(db.r.get("n") or 0), "the batch is in work", until=lambda n: n > 0)
    db.r.execute_command("CLIENT", "PAUSE", 100, "WRITE")
    db.wait_value("n", 5000, deadline=20)
    wait_until(lambda: db.r.xlen("s"), "the stream is trimmed", until=lambda n: n == 0)
    assert db.registration().numFailures == 0


def test_an_error_that_begins_like_one_of_ours_is_a_failure_like_any_other(fresh_server):
    db = fresh_server(load_args={"PythonAttemptTraceback": 0})
    script = """
def fail(record):
    execute('incr', 'runs')
    raise Exception('PAUSED clients are paused')
GB('StreamReader').foreach(fail).register('s', onFailedPolicy='continue')
"""
    db.r.execute_command("RG.PYEXECUTE", script)
    for _ in range(3):
        db.r.xadd("s", {"a": 1})
    wait_until(lambda: int(db.r.get("runs") or 0) >= 3, "all entries were processed")
    wait_until(lambda: db.r.xinfo_groups("s")[0]["pending"] == 0, "all entries were acknowledged")
    [registration] = db.registrations()
    assert (registration.numFailures, int(db.r.get("runs"))) == (3, 3)
    assert "PAUSED clients are paused" in registration.lastError
