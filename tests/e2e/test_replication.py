"""Writes of functions on replicas and in the append-only file."""

from __future__ import annotations

import random

import pytest

from .database import text
from .waiting import wait_until

#: Changes the key that triggered it, during the command that triggered it.
OWN_KEY = """
GB().foreach(lambda r: execute('set', r['key'], r['value'] + '!')).register('w:*', mode='sync', eventTypes=['set'])
"""


def data(db) -> dict:
    """All string keys and values."""
    keys = sorted(db.r.keys())
    return dict(zip(text(keys), text(db.r.mget(keys)))) if keys else {}


def wait_connected(replica) -> None:
    wait_until(
        lambda: replica.r.info("replication")["master_link_status"],
        "the replica is connected",
        until=lambda status: status == "up",
        deadline=30,
    )


@pytest.fixture
def pair(fresh_server):
    """A master and a replica that has caught up."""
    master = fresh_server(conf={"repl-diskless-sync-delay": 0})
    replica = fresh_server(conf={"replicaof": ("127.0.0.1", master.server.port)})
    wait_connected(replica)
    return master, replica


def wait_same(master, replica) -> None:
    assert master.r.wait(1, 5000) == 1
    wait_until(lambda: data(replica), "the replica has the same data", until=lambda seen: seen == data(master))


def test_the_writes_of_functions_reach_the_replica(pair):
    master, replica = pair
    master.ok("GB().foreach(lambda r: execute('incr', 'async')).register('w:*', mode='async', readValue=False)")
    master.ok("GB().foreach(lambda r: execute('incr', 'sync')).register('w:*', mode='sync', readValue=False)")
    for number in range(20):
        master.r.set(f"w:{number}", "v")
    master.wait_value("async", 20)
    wait_same(master, replica)
    assert replica.r.mget("async", "sync") == [b"20", b"20"]


def test_registrations_do_not_fire_for_writes_that_come_from_the_master(pair):
    master, replica = pair
    master.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync', readValue=False)")
    master.r.set("w:1", "v")
    wait_same(master, replica)
    assert replica.r.get("n") == b"1"


def test_an_atomic_block_reaches_the_replica_whole(pair):
    master, replica = pair
    script = """
def both(_):
    for i in range(100):
        with atomic():
            execute('incr', 'a')
            execute('incr', 'b')
GB('ShardsIDReader').map(both).run()
"""
    execution = master.start(script)
    torn = 0
    while master.status(execution) in ("created", "running"):
        a, b = replica.r.mget("a", "b")
        torn += a != b
    assert torn == 0
    wait_same(master, replica)
    assert replica.r.mget("a", "b") == [b"100", b"100"]


def test_a_write_to_the_fired_key_is_the_same_on_the_replica(pair):
    master, replica = pair
    master.ok(OWN_KEY)
    master.r.set("w:1", "v")
    wait_same(master, replica)
    assert master.r.get("w:1") == b"v!"
    assert master.registration().numSuccess == 1


def test_a_write_to_the_fired_key_survives_a_restart_from_the_append_only_file(fresh_server):
    db = fresh_server(conf={"appendonly": "yes", "appendfsync": "always"})
    db.ok(OWN_KEY)
    for number in range(5):
        db.r.set(f"w:{number}", "v")
    before = data(db)
    db.server.restart()
    again = db.client()
    assert dict(zip(text(sorted(again.keys())), text(again.mget(sorted(again.keys()))))) == before
    assert set(before.values()) == {"v!"}


@pytest.mark.parametrize("source", ["run", "async", "sync", "stream"])
def test_the_server_s_own_ticks_find_no_write_of_a_function_that_is_not_yet_propagated(fresh_server, source):
    # Redis 7.0 aborts on an assertion if a periodic task runs while a module's write waits for propagation.
    db = fresh_server(conf={"appendonly": "yes", "appendfsync": "no", "hz": 250})
    if source == "run":
        db.results("GB('ShardsIDReader').foreach(lambda _: [execute('incr', 'n') for _ in range(30000)]).run()")
        assert db.r.get("n") == b"30000"
        return
    if source == "stream":
        db.ok("GB('StreamReader').foreach(lambda r: execute('incr', 'n')).register('w:*')")
    else:
        db.ok(f"GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='{source}', readValue=False)")
    for _ in range(60):
        pipeline = db.r.pipeline(transaction=False)
        for number in range(50):
            if source == "stream":
                pipeline.xadd(f"w:{number % 7}", {"n": number})
            else:
                pipeline.set(f"w:{number}", "v")
        pipeline.execute()
    db.wait_value("n", 3000, deadline=30)


def test_an_expiry_set_by_a_sync_function_is_the_same_after_a_restart(fresh_server):
    db = fresh_server(conf={"appendonly": "yes", "appendfsync": "always"})
    db.ok("GB().foreach(lambda r: execute('expire', r['key'], 3600)).register('*', mode='sync', readValue=False)")
    db.r.set("Foo", "Bar")
    ttl = db.r.ttl("Foo")
    assert 3590 < ttl <= 3600
    db.server.restart()
    assert 3590 < db.client().ttl("Foo") <= 3600


#: As in public recipes: a function deletes, changes or marks the key that triggered it, and writes others.
RECIPE = """
def change(r):
    key, event = r['key'], r['event']
    if event == 'del':
        return execute('hincrby', 'deleted', key, 1)
    if event == 'hset':
        if execute('hget', key, '#') == '~':
            return execute('del', key)
        execute('hset', key, 'seen', execute('incr', 'count'))
    elif event == 'set':
        execute('append', key, '!')
        if len(execute('get', key)) > 6:
            execute('del', key)
    elif event in ('rpush', 'lpush'):
        execute('rpoplpush', key, 'moved')
    else:
        execute('expire', key, 3600)
GB().foreach(change).register('w:*', mode='sync', readValue=False)
"""


def random_writes(r, seed: int, count: int) -> None:
    """Writes of several kinds over few keys: alone, pipelined, in transactions and in scripts."""
    draw = random.Random(seed)
    done = 0
    while done < count:
        how = draw.choice(["alone", "pipeline", "transaction", "script"])
        commands = []
        for _ in range(1 if how in ("alone", "script") else draw.randint(2, 40)):
            key, n = f"w:{draw.randint(0, 30)}", draw.randint(0, 9)
            commands.append(
                draw.choice(
                    [
                        ["SET", "w:s" + key, f"v{n}"],
                        ["HSET", "w:h" + key, draw.choice(["#", "f"]), draw.choice(["~", "x"])],
                        ["DEL", draw.choice(["w:s", "w:h", "w:l"]) + key],
                        ["RPUSH", "w:l" + key, f"{n}", "b"],
                        ["SADD", "w:z" + key, f"{n}"],
                        ["LMOVE", "w:l" + key, f"w:l:{n}", "LEFT", "RIGHT"],
                        ["RENAME", "w:s" + key, "w:s:renamed"],
                    ]
                )
            )
        if how == "script":
            r.eval("redis.pcall(unpack(ARGV))", 0, *commands[0])
        else:
            pipeline = r.pipeline(transaction=how == "transaction")
            for command in commands:
                pipeline.execute_command(*command)
            pipeline.execute(raise_on_error=False)
        done += len(commands)


@pytest.mark.parametrize("writes", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_master_replica_and_append_only_file_agree_on_what_sync_functions_did(fresh_server, writes):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    master = fresh_server(conf={"repl-diskless-sync-delay": 0, "appendonly": "yes", "appendfsync": "no", "hz": 100})
    replica = fresh_server(conf={"replicaof": ("127.0.0.1", master.server.port)})
    wait_connected(replica)
    master.ok(RECIPE)
    random_writes(master.r, seed, writes)
    registration = master.registration()
    assert registration.numTriggered > writes / 4
    assert registration.numFailures == 0, registration.lastError
    assert master.r.wait(1, 10_000) == 1
    digest = master.r.execute_command("DEBUG", "DIGEST")
    wait_until(
        lambda: replica.r.execute_command("DEBUG", "DIGEST"), "the replica agrees", until=lambda seen: seen == digest
    )
    master.server.restart()
    assert master.client().execute_command("DEBUG", "DIGEST") == digest


def test_a_sync_function_runs_before_the_next_command_of_any_client(db):
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync', readValue=False)")
    pipeline = db.r.pipeline(transaction=False)
    for number in range(50):
        pipeline.set(f"w:{number}", "v")
        pipeline.get("n")
    assert pipeline.execute()[1::2] == [str(n + 1).encode() for n in range(50)]


def test_a_sync_function_may_write_other_keys_on_every_server(fresh_server):
    db = fresh_server(conf={"appendonly": "yes", "appendfsync": "always"})
    db.ok("GB().foreach(lambda r: execute('rpush', 'log', r['key'])).register('w:*', mode='sync', readValue=False)")
    for number in range(10):
        db.r.set(f"w:{number}", "v")
    expected = [f"w:{n}" for n in range(10)]
    assert text(db.r.lrange("log", 0, -1)) == expected
    db.server.restart()
    assert text(db.client().lrange("log", 0, -1)) == expected


def test_a_replica_refuses_to_start_executions(pair):
    _, replica = pair
    message = replica.failure("GB('ShardsIDReader').map(lambda _: execute('set', 'k', 'v')).run()")
    assert "READONLY" in message or "replica" in message.lower()
    assert replica.r.get("k") is None


def test_full_synchronisation_in_the_middle_of_a_run_is_survived(fresh_server):
    master = fresh_server(conf={"repl-diskless-sync-delay": 0})
    execution = master.start(
        """
import time
def count(_):
    end = time.monotonic() + 15
    while execute('get', 'enough') is None and time.monotonic() < end:
        execute('incr', 'n')
GB('ShardsIDReader').map(count).run()
"""
    )
    master.wait_key("n")
    replica = fresh_server(conf={"replicaof": ("127.0.0.1", master.server.port)})
    wait_until(lambda: replica.r.get("n"), "the replica follows", deadline=30)
    master.r.set("enough", 1)
    master.wait_status(execution, "done")
    wait_same(master, replica)


def test_saving_in_the_background_while_workers_start_and_die_is_survived(db):
    db.r.mset({f"k:{i}": i for i in range(5000)})
    for _ in range(5):
        try:
            db.r.bgsave()
        except Exception as error:
            assert "already in progress" in str(error)
        db.failure("import os\nGB('ShardsIDReader').map(lambda _: os._exit(1)).run()")
        assert db.results("GB().count().run('k:*')") == ["5000"]
    wait_until(lambda: db.r.info("persistence")["rdb_bgsave_in_progress"], "the save has ended", until=lambda n: n == 0)
    assert db.r.info("persistence")["rdb_last_bgsave_status"] == "ok"
