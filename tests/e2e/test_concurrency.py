"""Concurrency: overlapping triggers, nested calls, sync work during long work, and locks."""

from __future__ import annotations

import threading
import time

import pytest

from .waiting import wait_until

#: A barrier for two executions: each writes its own key and waits for the other's.
MEET = """
import time
def meet(x):
    mine, other = x[1], x[2]
    execute('set', mine, '1')
    end = time.monotonic() + 10
    while execute('get', other) is None:
        if time.monotonic() > end:
            return 'alone'
        time.sleep(0.002)
    return 'met'
"""


def test_two_slow_triggers_of_one_registration_overlap(db):
    db.ok(MEET + "GB('CommandReader').map(meet).register(trigger='meet')")
    first, second = db.wire(), db.wire()
    first.send("RG.TRIGGER", "meet", "a", "b")
    second.send("RG.TRIGGER", "meet", "b", "a")
    assert (first.read(), second.read()) == ([b"met"], [b"met"])


def test_triggers_of_two_sessions_overlap(db):
    for name in ("one", "two"):
        db.ok(MEET + f"GB('CommandReader').map(meet).register(trigger='{name}')")
    first, second = db.wire(), db.wire()
    first.send("RG.TRIGGER", "one", "a", "b")
    second.send("RG.TRIGGER", "two", "b", "a")
    assert (first.read(), second.read()) == ([b"met"], [b"met"])


def test_two_runs_overlap(db):
    first, second = db.wire(), db.wire()
    first.send("RG.PYEXECUTE", MEET + "GB('ShardsIDReader').map(lambda _: meet(['', 'a', 'b'])).run()")
    second.send("RG.PYEXECUTE", MEET + "GB('ShardsIDReader').map(lambda _: meet(['', 'b', 'a'])).run()")
    assert (first.read(), second.read()) == ([[b"met"], []], [[b"met"], []])


def test_with_one_execution_thread_runs_come_one_after_the_other(fresh_server):
    db = fresh_server(load_args={"ExecutionThreads": 1})
    script = """
def step(x):
    inside = execute('incr', 'inside')
    sum(range(200000))
    execute('decr', 'inside')
    return inside
GB('CommandReader').map(step).register(trigger='t')
"""
    db.ok(script)
    connections = [db.wire() for _ in range(5)]
    for connection in connections:
        connection.send("RG.TRIGGER", "t")
    assert [connection.read() for connection in connections] == [[b"1"]] * 5


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_command_may_fire_a_sync_function_of_its_own_session(fresh_server, threads, mode):
    db = fresh_server(load_args={"ExecutionThreads": threads})
    db.ok(
        f"""
total = []
def watch(r):
    total.append(r['key'])
    execute('incr', 'watched')
def go(x):
    execute('set', 'w:1', 'v')
    execute('set', 'w:2', 'v')
    return total
GB().foreach(watch).register('w:*', mode='sync')
GB('CommandReader').map(go).register(trigger='go', mode='{mode}')
"""
    )
    assert db.trigger("go") == ["['w:1', 'w:2']"]
    assert db.r.get("watched") == b"2"


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_command_may_call_a_sync_command_of_its_own_session(db, mode):
    db.ok(
        f"""
GB('CommandReader').map(lambda x: int(x[1]) + 1).register(trigger='inner', mode='sync', convertToStr=False)
GB('CommandReader').map(lambda x: execute('RG.TRIGGER', 'inner', x[1])).register(trigger='outer', mode='{mode}')
"""
    )
    assert db.trigger("outer", 41) == ["[42]"]


def test_calls_nested_many_levels_deep_find_a_thread(db):
    db.ok(
        """
def down(x):
    level = int(x[1])
    return level if level == 0 else execute('RG.TRIGGER', 'down', level - 1)[0]
GB('CommandReader').map(down).register(trigger='down', mode='sync')
"""
    )
    assert db.trigger("down", 8) == ["0"]


def test_an_async_command_called_from_a_function_is_refused_because_it_would_block(db):
    db.ok("GB('CommandReader').register(trigger='inner')")
    db.ok("GB('CommandReader').map(lambda x: execute('RG.TRIGGER', 'inner')).register(trigger='outer')")
    assert "blocking is not allowed" in db.trigger_refused("outer")


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_sync_function_of_another_session_fires_from_a_run(db):
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync', readValue=False)")
    script = "GB('ShardsIDReader').foreach(lambda _: [execute('set', 'w:%d' % i, 1) for i in range(100)]).run()"
    db.results(script)
    assert db.r.get("n") == b"100"


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_busy_step_does_not_hold_up_sync_events_of_its_own_session(db):
    db.ok(
        """
def busy(x):
    execute('set', 'started', '1')
    n = 0
    while execute('get', 'enough') is None:
        n += sum(range(20000))
    return 'done'
GB('CommandReader').map(busy).register(trigger='busy')
GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync', readValue=False)
"""
    )
    waiting = db.wire()
    waiting.send("RG.TRIGGER", "busy")
    db.wait_key("started")
    longest = 0.0
    for number in range(50):
        began = time.monotonic()
        db.r.set(f"w:{number}", 1)
        longest = max(longest, time.monotonic() - began)
    assert db.r.get("n") == b"50"
    assert longest < 1.0
    db.r.set("enough", 1)
    assert waiting.read() == [b"done"]


def test_a_lock_that_makes_two_wait_on_each_other_ends_at_the_deadline(fresh_server):
    db = fresh_server(load_args={"SyncMaxTime": 400})
    db.ok(
        """
import threading
lock = None
def setup():
    global lock
    lock = threading.Lock()
def hold(x):
    with lock:
        return execute('set', 'w:1', 'v')
def want(r):
    with lock:
        execute('incr', 'n')
GB('CommandReader').map(hold).register(trigger='hold', onRegistered=setup)
GB().foreach(want).register('w:*', mode='sync')
"""
    )
    began = time.monotonic()
    with db.pinging() as pings:
        message = db.trigger_refused("hold")
    assert message
    assert time.monotonic() - began < 5
    assert pings.error is None
    assert any("SyncMaxTime" in str(r.lastError) for r in db.registrations()) or "SyncMaxTime" in message


def test_a_sync_command_that_loops_forever_ends_at_the_deadline(fresh_server):
    db = fresh_server(load_args={"SyncMaxTime": 300})
    db.ok("GB('CommandReader').map(lambda x: exec('while True: pass')).register(trigger='loop', mode='sync')")
    began = time.monotonic()
    message = db.trigger_refused("loop")
    assert "SyncMaxTime" in message
    assert "300" in message
    assert time.monotonic() - began < 3
    assert db.r.ping()


def test_a_sync_event_that_loops_forever_lets_the_write_through_at_the_deadline(fresh_server):
    db = fresh_server(load_args={"SyncMaxTime": 300})
    db.ok("GB().foreach(lambda r: exec('while True: pass')).register('w:*', mode='sync')")
    began = time.monotonic()
    assert db.r.set("w:1", "v")
    assert time.monotonic() - began < 3
    assert db.r.get("w:1") == b"v"
    [registration] = db.registrations()
    assert registration.numFailures == 1
    assert "SyncMaxTime" in registration.lastError


def test_after_a_sync_deadline_the_registration_goes_on(fresh_server):
    db = fresh_server(load_args={"SyncMaxTime": 300})
    db.ok(
        """
def step(r):
    if r['value'] == 'loop':
        while True:
            pass
    execute('incr', 'n')
GB().foreach(step).register('w:*', mode='sync')
"""
    )
    db.r.set("w:1", "loop")

    def fires_again() -> bool:
        db.r.set("w:1", "v")
        return db.r.get("n") is not None

    wait_until(fires_again, "the registration fires again on a fresh worker")


def test_a_sync_deadline_does_not_end_the_work_of_other_sessions(fresh_server, tmp_path):
    db = fresh_server(load_args={"SyncMaxTime": 300})
    db.ok(MEET + "GB('CommandReader').map(meet).register(trigger='meet')")
    db.ok("GB('CommandReader').map(lambda x: exec('while True: pass')).register(trigger='loop', mode='sync')")
    waiting = db.wire()
    waiting.send("RG.TRIGGER", "meet", "a", "b")
    db.wait_key("a")
    db.trigger_refused("loop")
    db.r.set("b", 1)
    assert waiting.read() == [b"met"]


def test_many_runs_from_many_clients_all_answer(db):
    db.r.mset({f"k:{i}": i for i in range(100)})
    wrong: list[object] = []

    def work():
        with db.server.client() as client:
            for _ in range(10):
                reply = client.execute_command("RG.PYEXECUTE", "GB().map(lambda r: int(r['value'])).count().run('k:*')")
                if reply != [[b"100"], []]:
                    wrong.append(reply)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_more_sessions_than_workers_share_them(fresh_server):
    db = fresh_server(load_args={"MaxWorkers": 2})
    for number in range(6):
        db.ok(f"GB('CommandReader').map(lambda x: {number}).register(trigger='t{number}')")
    assert [db.trigger(f"t{number}") for number in range(6)] == [[str(number)] for number in range(6)]
    assert db.results("GB('ShardsIDReader').run()") == ["1"]
    assert len(db.server.workers()) <= 3, "two workers, and at most one warm spare"


def test_clients_are_served_during_a_long_scan(db):
    pipeline = db.r.pipeline(transaction=False)
    for number in range(200_000):
        pipeline.set(f"k:{number}", "some words of a value")
    pipeline.execute()
    with db.pinging() as pings:
        assert db.results("GB().map(lambda r: len(r['value'])).count().run()") == ["200000"]
    pings.assert_never_stalled(0.25)
