"""Functions use the database of their caller; registrations belong to the database they were made in."""

from __future__ import annotations

import pytest

from .database import Database, text
from .waiting import wait_until

MODES = ["async", "async_local", "sync"]

SET_ON_EVENT = "GB('KeysReader').foreach(lambda x: execute('RPUSH', 'log', x['key']))"
NOTE_ENTRIES = "GB('StreamReader').foreach(lambda r: execute('RPUSH', 'seen', r['value']['n']))"


@pytest.fixture
def three(db: Database) -> Database:
    """A client of the same server that has selected database 3."""
    selected = Database(db.server)
    selected.r = db.client(db=3)
    return selected


def values(client, key: str) -> list[str]:
    return text(client.lrange(key, 0, -1))  # type: ignore[return-value]


def wait_values(client, key: str, expected: list[str]) -> None:
    wait_until(lambda: values(client, key), f"the list {key!r} is {expected}", until=lambda seen: seen == expected)


def test_a_run_reads_the_database_of_its_caller(db, three):
    db.r.mset({"k0": "zero", "both": "0"})
    three.r.mset({"k3": "three", "both": "3"})
    three.r.hset("h3", mapping={"f": "v"})
    script = "GB().map(lambda x: (x['key'], str(x['value']))).sort().map(lambda x: '='.join(x)).run()"
    assert three.results(script) == ["both=3", "h3={'f': 'v'}", "k3=three"]
    assert db.results(script) == ["both=0", "k0=zero"]


@pytest.mark.parametrize("pattern", ["*", "k*"])
def test_a_count_counts_the_database_of_its_caller(db, three, pattern):
    db.r.mset({f"k{n}": n for n in range(10)})
    three.r.mset({f"k{n}": n for n in range(3)})
    assert three.results(f"GB().count().run('{pattern}')") == ["3"]
    assert db.results(f"GB().count().run('{pattern}')") == ["10"]


def test_a_run_over_a_stream_reads_the_database_of_its_caller(db, three):
    db.r.xadd("s", {"n": "zero"})
    three.r.xadd("s", {"n": "three"})
    assert three.results("GB('StreamReader').map(lambda r: r['value']['n']).run('s')") == ["three"]


def test_commands_of_a_script_and_of_its_steps_act_in_the_database_of_its_caller(db, three):
    three.ok("execute('SET', 'top', 1)")
    three.results("GB('ShardsIDReader').foreach(lambda _: execute('SET', 'step', 1)).run()")
    assert sorted(three.r.keys()) == [b"step", b"top"]
    assert db.r.keys() == []


def test_an_atomic_block_acts_in_the_database_of_its_caller(db, three):
    script = """
def step(_):
    with atomic():
        execute('SET', 'a', 1)
        execute('INCR', 'a')
GB('ShardsIDReader').foreach(step).run()
"""
    three.results(script)
    assert three.r.get("a") == b"2"
    assert db.r.keys() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_trigger_acts_in_the_database_of_its_caller(db, three, mode):
    db.ok(f"GB('CommandReader').map(lambda x: execute('INCR', 'n')).register(trigger='t', mode='{mode}')")
    assert three.trigger("t") == ["1"]
    assert three.trigger("t") == ["2"]
    assert db.trigger("t") == ["1"]
    assert (db.r.get("n"), three.r.get("n")) == (b"1", b"2")


def test_a_trigger_with_codec_and_in_a_transaction_acts_in_the_database_of_its_caller(db, three):
    db.ok("GB('CommandReader').map(lambda x: execute('INCR', 'n')).register(trigger='t', mode='sync')")
    three.r.execute_command("RG.WITHCODEC", 1, "RG.TRIGGER", "t")
    with db.r.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("SELECT", 3).execute_command("RG.TRIGGER", "t").execute_command("SELECT", 0)
        pipeline.execute()
    three.r.eval("return redis.call('RG.TRIGGER', 't')", 0)
    assert three.r.get("n") == b"3"
    assert db.r.get("n") is None


def test_a_run_inside_a_function_acts_in_the_database_of_its_execution(db, three):
    script = """
def step(_):
    GB().foreach(lambda x: execute('SET', 'found:' + x['key'], x['value'])).run('in*')
GB('CommandReader').foreach(step).register(trigger='t')
"""
    db.ok(script)
    db.r.set("in0", "zero")
    three.r.set("in3", "three")
    three.trigger("t")
    wait_until(lambda: three.r.get("found:in3"), "the inner run wrote", until=lambda value: value == b"three")
    db.wait_quiet()
    assert sorted(db.r.keys()) == [b"in0"]


@pytest.mark.parametrize("mode", MODES)
def test_a_keys_registration_hears_the_events_of_its_database_only_and_acts_in_it(db, three, mode):
    three.ok(f"{SET_ON_EVENT}.register('k*', mode='{mode}')")
    db.r.set("k:zero", 1)
    three.r.set("k:three", 1)
    wait_values(three.r, "log", ["k:three"])
    db.wait_quiet()
    assert values(three.r, "log") == ["k:three"]
    assert db.r.exists("log") == 0
    assert db.registration().args["database"] == 3


def test_an_event_of_another_database_never_deletes_here(db, three):
    db.r.set("tmp1", "important")
    db.ok("GB('KeysReader').foreach(lambda x: execute('DEL', x['key'])).register('tmp*', eventTypes=['expire'])")
    three.r.set("tmp1", "x")
    three.r.expire("tmp1", 1000)
    db.wait_quiet()
    assert db.r.get("tmp1") == b"important"
    db.r.expire("tmp1", 1000)
    wait_until(lambda: db.r.exists("tmp1"), "the function deleted its key", until=lambda n: n == 0)
    assert three.r.exists("tmp1") == 1


def test_the_value_of_an_event_is_read_in_the_database_of_the_event(db, three):
    db.r.set("k", "zero")
    three.ok("GB().foreach(lambda x: execute('SET', 'copy', x['value'])).register('k', keyTypes=['string'])")
    three.r.set("k", "three")
    wait_until(lambda: three.r.get("copy"), "the function wrote", until=lambda value: value == b"three")


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_registration_reads_and_trims_the_streams_of_its_database_only(db, three, mode):
    for client, value in ((db.r, "zero"), (three.r, "before")):
        client.xadd("s", {"n": value})
    three.ok(f"{NOTE_ENTRIES}.register('s*', mode='{mode}')")
    db.r.xadd("s", {"n": "zero"})
    three.r.xadd("s", {"n": "after"})
    wait_values(three.r, "seen", ["before", "after"])
    wait_until(lambda: three.r.xlen("s"), "the stream is trimmed", until=lambda n: n == 0)
    db.wait_quiet()
    assert db.r.xlen("s") == 2
    assert db.r.xinfo_groups("s") == []
    assert db.r.exists("seen") == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_registration_made_by_a_function_belongs_to_the_database_of_its_execution(db, three, mode):
    script = f"""
def step(_):
    {SET_ON_EVENT}.register('k*', mode='{mode}')
GB('CommandReader').foreach(step).register(trigger='t')
"""
    db.ok(script)
    three.trigger("t")
    db.r.set("k:zero", 1)
    three.r.set("k:three", 1)
    wait_values(three.r, "log", ["k:three"])
    assert db.r.exists("log") == 0


def test_registrations_of_two_databases_for_the_same_names_do_not_meet(db, three):
    for database in (db, three):
        database.ok(f"{SET_ON_EVENT}.register('k*', mode='sync')")
        database.ok(f"{NOTE_ENTRIES}.register('s', mode='sync')")
    for database, name in ((db, "zero"), (three, "three")):
        database.r.set(f"k:{name}", 1)
        database.r.xadd("s", {"n": name})
    for database, name in ((db, "zero"), (three, "three")):
        assert values(database.r, "log") == [f"k:{name}"]
        assert values(database.r, "seen") == [name]


def test_moved_and_copied_keys_are_events_of_the_database_they_came_to(db, three):
    db.ok(f"{SET_ON_EVENT}.register('k*', eventTypes=['move_from', 'copy_to', 'move_to'])")
    three.ok(
        "GB().foreach(lambda x: execute('RPUSH', 'log', x['event'])).register('k*', eventTypes=['move_to', 'copy_to'])"
    )
    db.r.set("k", "v")
    db.r.copy("k", "k", destination_db=3)
    wait_values(three.r, "log", ["copy_to"])
    three.r.delete("k")
    db.r.move("k", 3)
    wait_values(three.r, "log", ["copy_to", "move_to"])
    wait_values(db.r, "log", ["k"])


@pytest.mark.single("there is no SWAPDB on a cluster")
def test_after_a_swap_of_databases_a_registration_keeps_its_number(db, three):
    three.ok(f"{SET_ON_EVENT}.register('k*', mode='sync')")
    db.r.swapdb(0, 3)
    db.r.set("k:zero", 1)
    three.r.set("k:three", 1)
    assert values(three.r, "log") == ["k:three"]
    assert db.r.exists("log") == 0


@pytest.mark.single("there is no SWAPDB on a cluster")
def test_after_a_swap_of_databases_a_stream_registration_reads_what_came_into_its_database(db, three):
    db.r.xadd("s", {"n": "old"})
    three.ok(f"{NOTE_ENTRIES}.register('s', trimStream=False)")
    three.r.xadd("s", {"n": "first"})
    wait_values(three.r, "seen", ["first"])
    db.wait_quiet()
    db.r.swapdb(0, 3)
    wait_values(three.r, "seen", ["old"])
    three.r.xadd("s", {"n": "new"})
    wait_values(three.r, "seen", ["old", "new"])
    assert values(db.r, "seen") == ["first"]
    db.r.swapdb(0, 3)
    db.wait_quiet()
    assert values(three.r, "seen") == ["first"]


@pytest.mark.single("there is no SWAPDB on a cluster")
def test_a_batch_that_is_in_work_during_a_swap_touches_no_entry_of_the_other_database(db, three, tmp_path):
    gate = tmp_path / "open"
    script = f"""
import os, time
def step(r):
    execute('RPUSH', 'started', r['id'])
    end = time.monotonic() + 20
    while not os.path.exists({str(gate)!r}) and time.monotonic() < end:
        time.sleep(0.002)
GB('StreamReader').foreach(step).register('s')
"""
    three.ok(script)
    three.r.xadd("s", {"n": "three"}, id="7-1")
    wait_values(three.r, "started", ["7-1"])
    db.r.xadd("s", {"n": "zero"}, id="7-1")
    db.r.xgroup_create("s", "__gears_consumer_group__", "$")
    db.r.swapdb(0, 3)
    gate.touch()
    wait_until(
        lambda: db.r.xpending("s", "__gears_consumer_group__")["pending"],
        "the batch is acknowledged where its entries are",
        until=lambda n: n == 0,
    )
    db.wait_quiet()
    assert three.r.xlen("s") == 1


def test_calls_that_wait_while_clients_are_paused_keep_their_database(db, three, tmp_path):
    gate, calling = tmp_path / "open", tmp_path / "calling"
    script = f"""
import os, time
def step(_):
    execute('SET', 'before', 1)
    end = time.monotonic() + 20
    while not os.path.exists({str(gate)!r}) and time.monotonic() < end:
        time.sleep(0.002)
    open({str(calling)!r}, 'w').close()
    execute('SET', 'late', 1)
    with atomic():
        execute('INCR', 'late')
GB('ShardsIDReader').foreach(step).run()
"""
    execution = three.start(script)
    wait_until(lambda: three.r.get("before"), "the function runs")
    db.r.execute_command("CLIENT", "PAUSE", 20_000, "WRITE")
    gate.touch()
    wait_until(calling.exists, "the function calls")
    assert three.r.get("late") is None
    db.r.execute_command("CLIENT", "UNPAUSE")
    db.wait_status(execution, "done")
    assert three.r.get("late") == b"2"
    assert db.r.exists("late") == 0


def test_a_function_cannot_select_another_database(db):
    assert "acts on a connection" in db.errors("GB('ShardsIDReader').map(lambda _: execute('SELECT', 3)).run()")[0]


@pytest.mark.single("there is no SWAPDB on a cluster")
def test_a_command_that_swaps_databases_inside_a_function_leaves_its_number(db, three):
    script = """
def step(_):
    execute('SET', 'a', 1)
    execute('SWAPDB', 0, 3)
    execute('SET', 'b', 1)
GB('ShardsIDReader').foreach(step).run()
"""
    db.results(script)
    assert (db.r.keys(), three.r.keys()) == ([b"b"], [b"a"])
