"""Commands whose results are kept, on real servers and with many connections."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from .both_clients import KINDS, open_client
from .database import Database, text
from .resp import Err
from .waiting import wait_until

redgrease = pytest.importorskip("redgrease")
caching = pytest.importorskip("redgrease.caching")
calls = pytest.importorskip("redgrease.calls")
codec = pytest.importorskip("redgrease.codec")


def held(x):
    """Count a run, and end when the key `go` exists."""
    redgrease.cmd.incr(f"runs:{x}")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if redgrease.cmd.exists("go"):
            return f"result {x}"
        time.sleep(0.005)
    raise TimeoutError("nobody set the key go")


def counted(x="x"):
    """Count a run."""
    return redgrease.cmd.incr(f"runs:{x}")


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def client_kind(request):
    """Either kind of client."""
    return request.param


@pytest.fixture
def r(db, client_kind):
    with open_client(client_kind, db.server.port) as client:
        yield client


@pytest.fixture
def cluster(nodes, client_kind):
    with open_client(client_kind, nodes[0].server.port) as client:
        yield client


@pytest.fixture
def together():
    """Calls a function in several threads at once; returns futures."""
    pools = []

    def start(count, function, *arguments):
        pool = ThreadPoolExecutor(count)
        pools.append(pool)
        return [pool.submit(function, *arguments) for _ in range(count)]

    yield start
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)


def results(futures, timeout=30):
    return [future.result(timeout) for future in futures]


def cached(r, function=held, **options):
    return r.command(**{"ttl": 60, **options})(function)


def runs(db, x="x"):
    return int(db.r.get(f"runs:{x}") or 0)


def wait_runs(db, x="x", count=1):
    wait_until(lambda: runs(db, x), f"{x} runs", until=lambda seen: seen >= count, deadline=20)


def arrived(db, count, trigger="held"):
    """Wait until this number of calls have arrived at the server."""

    def seen():
        rows = [found for found in db.registrations() if found.args.get("trigger") == trigger]
        return rows[0].numTriggered if rows else 0

    wait_until(seen, f"{count} calls have arrived", until=lambda number: number >= count, deadline=20)


def joined(command, count):
    """Wait until this number of calls wait for a run."""
    wait_until(lambda: command.stats()["waiting"], f"{count} calls wait", until=lambda n: n == count, deadline=20)


def waiting(command, count):
    """Wait until this number of runs are under way."""
    wait_until(lambda: command.stats()["under_way"], f"{count} runs are under way", until=lambda n: n == count)


# -- main behaviour


def test_a_result_is_made_once_and_then_kept(r, db):
    command = cached(r, counted)
    assert command("a") == 1
    assert command("a") == 1
    assert command("b") == 1
    assert runs(db, "a") == 1
    assert command.stats() == {
        "hit": 1,
        "created": 2,
        "waited": 0,
        "failed": 0,
        "refreshed": 0,
        "under_way": 0,
        "waiting": 0,
    }
    key = command.key_of("a")
    assert key == "cached:{counted('a')}"
    assert 55_000 < db.r.pttl(key) <= 60_000
    assert command.get("a") == (1, "hit")
    assert command.get("c") == caching.Got(1, "created")


def test_two_hundred_clients_and_ten_arguments_are_ten_runs(r, db):
    """All 200 calls, each on its own connection, are in the server before the first run ends."""
    command = cached(r)
    connections = [db.wire() for _ in range(200)]
    for number, connection in enumerate(connections):
        connection.send("RG.TRIGGER", "held", str(number % 10))
    arrived(db, 200)
    db.r.set("go", 1)
    for number, connection in enumerate(connections):
        assert connection.read() == [f"result {number % 10}".encode()]
    assert [runs(db, x) for x in range(10)] == [1] * 10
    stats = command.stats()
    assert stats["created"] == 10
    assert stats["hit"] + stats["waited"] == 190
    assert stats["failed"] == stats["under_way"] == 0


def test_calls_that_wait_keep_no_thread_from_others(fresh_server, client_kind):
    db = fresh_server(load_args={"ExecutionThreads": 1})
    with open_client(client_kind, db.server.port) as r:
        cached(r)
        other = cached(r, counted)
        connections = [db.wire() for _ in range(50)]
        for connection in connections:
            connection.send("RG.TRIGGER", "held", "x")
        wait_runs(db)
        assert other("y") == 1, "a call that waits has the only thread"
        db.r.set("go", 1)
        assert all(connection.read() == [b"result x"] for connection in connections)
        assert runs(db) == 1


def test_many_clients_of_the_package(r, db, together):
    command = cached(r, typed=True)

    def call():
        with r.another(command, held) as other:
            return other(5).value

    futures = together(40, call)
    wait_runs(db, 5)
    arrived(db, 40)
    db.r.set("go", 1)
    assert set(results(futures)) == {"result 5"}
    assert runs(db, 5) == 1


@pytest.mark.parametrize("typed", [False, True])
def test_equal_calls_are_one_however_they_are_written(r, db, typed):
    @r.command(ttl=60, typed=typed)
    def area(width, height=1):
        redgrease.cmd.incr("runs:area")
        return [width, height]

    found = [area(2).value, area(2, 1).value, area(height=1, width=2).value, area(width=2).value]
    assert found in ([[2, 1]] * 4, [["2", 1], ["2", "1"], ["2", "1"], ["2", 1]])
    assert runs(db, "area") == (1 if typed else 2), "a default is a number, and what is sent is a text"


def test_types_arrive(r):
    @r.command(typed=True)
    def types(*args, **kwargs):
        return [type(value).__name__ for value in (*args, *kwargs.values())]

    assert types(None, True, 1, 1.5, "x", b"y", [1], {"a": 1}, last=(2,)) == [
        *("NoneType", "bool", "int", "float", "str", "bytes", "list", "dict"),
        "tuple",
    ]
    assert r.gears.trigger("types", "1", "x") == ["str", "str"]


def test_plain_clients_call_it_with_texts(r, db):
    cached(r, counted, typed=True)
    wire = db.wire()
    assert wire("RG.TRIGGER", "counted", "a") == [1]
    assert wire("RG.TRIGGER", "counted", "a") == [1]
    assert wire("RG.TRIGGER", "counted", "redgrease:cache", "invalidate", "a") == [1]
    assert wire("RG.TRIGGER", "counted", "a") == [2]
    assert wire("RG.TRIGGER", "counted", "redgrease:cache", "get", "a") == [[b"hit", 2]]
    assert wire("RG.TRIGGER", "counted", "redgrease:cache", "invalidate-key", "counted('a')") == [1]
    [stats] = wire("RG.TRIGGER", "counted", "redgrease:cache", "stats")
    assert dict(zip(stats[::2], stats[1::2]))[b"created"] == 2
    for words in ([], ["x"], ["invalidate-key"], ["stats", "x"]):
        answer = wire("RG.TRIGGER", "counted", "redgrease:cache", *words)
        assert isinstance(answer, Err)
        assert answer.text.startswith("CACHED argument")


def test_a_user_who_may_only_trigger_can_use_it(r, db):
    command = cached(r, counted, direct=True)
    command("a")
    db.r.execute_command("ACL", "SETUSER", "app", "on", ">secret", "+rg.trigger", "+rg.withcodec")
    with r.another(command, counted, username="app", password="secret") as app:
        assert app("a") == 1


def test_a_coroutine_function_shares_one_run(r, db, together):
    @r.command(ttl=60)
    async def later(x):
        import asyncio

        redgrease.cmd.incr(f"runs:{x}")
        while not redgrease.cmd.exists("go"):
            await asyncio.sleep(0.005)
        return f"later {x}"

    futures = together(5, later, "x")
    joined(later, 5)
    db.r.set("go", 1)
    assert set(results(futures)) == {"later x"}
    assert runs(db) == 1
    assert later.get("x").outcome == "hit"


# -- values


class Point:
    """A type that the codec does not know."""

    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    "value",
    [None, b"", b"\xff\0", "", "text", 0, 1.5, [], [1, None], (1, "x"), {"a": [b"b"]}, {1, 2}, 1 << 200, float("inf")],
    ids=repr,
)
def test_any_value_is_kept_with_its_type(r, db, value):
    @r.command(ttl=60)
    def give():
        redgrease.cmd.incr("runs:x")
        return value

    for outcome in ("created", "hit"):
        got = give.get()
        assert (got.value, type(got.value), got.outcome) == (value, type(value), outcome)
    assert runs(db) == 1


def test_a_value_of_another_type_is_kept_as_a_pickle_with_a_proof(r, db):
    @r.command(ttl=60)
    def point(x):
        redgrease.cmd.incr("runs:x")
        return Point(x)

    assert [point("7").value.x, point("7").value.x] == ["7", "7"]
    assert runs(db) == 1
    assert len(db.r.hget(point.key_of("7"), "proof")) == 32


class Evil:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_of_another_writer_is_never_loaded(r, db, tmp_path):
    command = cached(r, counted, direct=True)
    trace = tmp_path / "trace"
    forged = codec.dumps(Evil(str(trace)))
    for proof in (b"", b"x" * 32):
        db.r.hset(command.key_of("a"), mapping={"value": forged, "proof": proof, "error": ""})
        command("a")
        assert command.get("a").outcome == "hit", "it was not replaced"
    assert not trace.exists()
    assert runs(db, "a") == 2


def test_what_cannot_be_sent_is_an_error_for_all(r, db, together):
    @r.command(ttl=60)
    def lock():
        held("x")
        return threading.Lock()

    futures = together(3, lock)
    joined(lock, 3)
    db.r.set("go", 1)
    for future in futures:
        with pytest.raises(redis.ResponseError, match="the result of lock, a lock, cannot be sent"):
            future.result(20)
    assert runs(db) == 1


@pytest.mark.parametrize("limit", [{"max_value_bytes": 1000}, {"max_bytes": 1000}])
def test_a_result_above_the_limit_is_answered_and_not_kept(r, db, together, limit):
    @r.command(ttl=60, **limit)
    def large(size):
        held("x")
        return b"x" * int(size)

    futures = together(4, large, 5000)
    joined(large, 4)
    db.r.set("go", 1)
    assert {len(result.value) for result in results(futures)} == {5000}
    assert runs(db) == 1
    assert not db.r.exists(large.key_of(5000))
    db.wait_log("large is not kept: it has 50")
    assert len(large(500).value) == 500
    assert db.r.exists(large.key_of(500))


def test_a_huge_result_is_kept(r):
    @r.command(ttl=60)
    def huge():
        return b"x" * (12 << 20)

    assert len(huge().value) == 12 << 20
    assert huge.get().outcome == "hit"


# -- failures


def failing(x):
    """Fail when the key `go` exists."""
    held(x)
    raise ValueError(f"no {x}")


def test_a_function_that_raises_is_run_once_and_all_get_its_error(r, db, together):
    command = cached(r, failing)
    futures = together(8, command, "x")
    joined(command, 8)
    db.r.set("go", 1)
    for future in futures:
        with pytest.raises(redis.ResponseError) as raised:
            future.result(20)
        assert (raised.value.type, raised.value.message) == ("ValueError", "no x")
        assert "in failing" in str(raised.value)
        assert "caching" not in str(raised.value)
    assert runs(db) == 1
    assert not db.r.exists(command.key_of("x"))
    with pytest.raises(redis.ResponseError, match="no x"):
        command("x")
    assert runs(db) == 2


def test_failures_are_kept_for_a_shorter_time(r, db):
    command = cached(r, failing, negative_ttl=5)
    db.r.set("go", 1)
    for _ in range(3):
        with pytest.raises(redis.ResponseError, match="no x") as raised:
            command("x")
        assert raised.value.type == "ValueError"
    assert runs(db) == 1
    assert 4000 < db.r.pttl(command.key_of("x")) <= 5000
    assert command.stats()["failed"] == 3
    db.r.pexpire(command.key_of("x"), 1)
    wait_until(lambda: not db.r.exists(command.key_of("x")), "the failure has expired")
    with pytest.raises(redis.ResponseError, match="no x"):
        command("x")
    assert runs(db) == 2


def test_a_function_that_takes_too_long_is_given_up_for_all(r, db, together):
    command = cached(r, timeout=0.4, max_running=2)
    began = time.monotonic()
    for future in together(3, command, "x"):
        with pytest.raises(
            caching.CacheError, match=r"held\('x'\) was not finished after 0\.4 s in line \d+ of"
        ) as error:
            future.result(20)
        assert error.value.kind == "timeout"
    assert time.monotonic() - began < 5
    assert runs(db) == 1
    db.r.set("go", 1)
    wait_until(lambda: command("x").value, "the next call runs", until="result x".__eq__)


def test_runs_are_bounded(r, db, together):
    command = cached(r, max_running=1)
    [first] = together(1, command, "x")
    wait_runs(db)
    with pytest.raises(caching.CacheError, match="1 calls are under way, and the limit is 1") as refused:
        command("y")
    assert refused.value.kind == "busy"
    db.r.set("go", 1)
    assert first.result(20) == "result x"
    assert command("y") == "result y"


def test_two_hundred_clients_of_a_killed_worker_get_their_results_for_one_more_run(r, db, together):
    command = cached(r, lease=0.6)

    def call(x):
        with r.another(command, held) as other:
            return other(x).value

    futures = [(x, future) for x in range(10) for future in together(20, call, x)]
    arrived(db, 200)
    for x in range(10):
        wait_runs(db, x)
    for worker in db.server.workers():
        os.kill(worker.pid, signal.SIGKILL)
    for x in range(10):
        wait_runs(db, x, 2)
    db.r.set("go", 1)
    assert all(future.result(30) == f"result {x}" for x, future in futures)
    assert [runs(db, x) for x in range(10)] == [2] * 10
    left = wait_until(lambda: db.r.keys("cached:*"), "no lease is left", until=lambda keys: len(keys) == 10)
    assert sorted(left) == [f"cached:{{held('{x}')}}".encode() for x in range(10)]


def test_plain_clients_of_a_killed_worker_get_an_error_and_the_next_call_works(r, db):
    cached(r, lease=0.6)
    wires = [db.wire() for _ in range(5)]
    for wire in wires:
        wire.send("RG.TRIGGER", "held", "x")
    arrived(db, 5)
    wait_runs(db)
    for worker in db.server.workers():
        os.kill(worker.pid, signal.SIGKILL)
    for wire in wires:
        answer = wire.read()
        assert isinstance(answer, Err)
        assert answer.text.startswith("WORKERDIED")
    db.r.set("go", 1)

    def again():
        answer = wires[0]("RG.TRIGGER", "held", "x")
        return None if isinstance(answer, Err) else answer

    assert wait_until(again, "the next call works", deadline=20) == [b"result x"]
    assert runs(db) == 2


def test_after_a_restart_of_the_server_the_cache_goes_on(fresh_server, client_kind):
    db = fresh_server(conf={"appendonly": "yes", "appendfsync": "always"})
    with open_client(client_kind, db.server.port) as r:
        command = cached(r, lease=0.6)
        done = cached(r, counted)
        assert done("kept") == 1
        wire = db.wire()
        wire.send("RG.TRIGGER", "held", "x")
        wait_runs(db)
        db.server.kill()
        db.server.start_again()
        with contextlib.suppress(ConnectionError, OSError, EOFError):
            wire.read()
        db.r.set("go", 1)
        assert command("x") == "result x"
        assert runs(db) == 2
        assert done.get("kept") == (1, "hit")


def test_a_client_that_disconnects_harms_nobody(r, db):
    cached(r)
    wires = [db.wire() for _ in range(6)]
    for wire in wires:
        wire.send("RG.TRIGGER", "held", "x")
    arrived(db, 6)
    wait_runs(db)
    for wire in wires[:3]:
        wire.close()
    wait_until(
        lambda: sum(client["cmd"] == "rg.trigger" for client in db.r.client_list()),
        "three clients are left",
        until=lambda count: count == 3,
    )
    db.r.set("go", 1)
    assert [wire.read() for wire in wires[3:]] == [[b"result x"]] * 3
    assert runs(db) == 1


def test_an_abort_ends_a_call_and_not_the_run(r, db):
    cached(r)
    first, second = db.wire(), db.wire()
    first.send("RG.TRIGGER", "held", "x")
    wait_runs(db)
    [execution] = [each for each in db.executions() if each.status in ("created", "running")]
    db.r.execute_command("RG.ABORTEXECUTION", execution.id)
    assert first.read() is not None
    second.send("RG.TRIGGER", "held", "x")
    arrived(db, 2)
    db.r.set("go", 1)
    assert second.read() == [b"result x"]
    assert runs(db) == 1


def test_unregistering_does_not_leave_anybody_waiting(r, db, together):
    command = cached(r)
    futures = together(3, command, "x")
    joined(command, 3)
    wait_runs(db)
    command.unregister()
    db.r.set("go", 1)
    assert results(futures) == ["result x"] * 3


# -- calls that wait for themselves


def test_a_function_that_calls_itself_is_an_error_that_says_so(r):
    @redgrease.command(ttl=60)
    def again(x):
        return again_there(x)

    again_there = r.register(again)  # the closure is filled now, and sent with the second `on`
    again_there = r.register(again, replace=True)
    with pytest.raises(redis.ResponseError, match=r"deadlock: again\('x'\) calls itself: .* -> ") as raised:
        again_there("x")
    assert raised.value.type == "redgrease.caching.command.CacheError"


def test_functions_that_call_each_other_in_a_circle_are_an_error_that_says_so(r):
    @redgrease.command(ttl=60)
    def ping(x):
        return pong_there(x).value

    @redgrease.command(ttl=60)
    def pong(x):
        return ping_there(x).value

    ping_there = pong_there = None
    pong_there = r.register(pong)
    ping_there = r.register(ping)
    pong_there = r.register(pong, replace=True)
    ping_there = r.register(ping, replace=True)
    with pytest.raises(redis.ResponseError, match=r"deadlock: ping\('x'\) calls itself"):
        ping_there("x")


def test_two_workers_that_wait_for_each_other_end_with_an_error_that_says_so(r, db, together):
    def meet(name):
        redgrease.cmd.incr("runs:x")
        end = time.monotonic() + 20
        while int(redgrease.cmd.get("runs:x")) < 2 and time.monotonic() < end:
            time.sleep(0.005)
        return name

    @redgrease.command(ttl=60, timeout=1)
    def ping():
        meet("ping")
        return pong_there().value

    @redgrease.command(ttl=60, timeout=1)
    def pong():
        meet("pong")
        return ping_there().value

    ping_there = pong_there = None
    for replace in (None, True):
        ping_there, pong_there = r.register(ping, replace=replace), r.register(pong, replace=replace)
    futures = [*together(1, ping_there), *together(1, pong_there)]
    for future in futures:
        with pytest.raises(redis.ResponseError, match=r"the two calls wait for each other|neither can end"):
            future.result(30)


def test_a_call_of_itself_over_another_connection_ends_with_an_error_that_says_so(r, db):
    port = db.server.port

    @r.command(ttl=60, timeout=1)
    def again(x):
        import redis

        with redis.Redis(port=port, socket_timeout=30) as client:
            return client.execute_command("RG.TRIGGER", "again", x)

    with pytest.raises(caching.CacheError, match="if the function calls itself with the same arguments") as error:
        again("x")
    assert error.value.kind == "timeout"


# -- time


def test_ttl_is_counted_from_the_run_or_slides(r, db):
    for sliding in (False, True):
        command = cached(r, counted, sliding=sliding, replace=True)
        command("a")
        db.r.pexpire(command.key_of("a"), 5000)
        command("a")
        assert (db.r.pttl(command.key_of("a")) > 50_000) is sliding


def test_what_has_expired_is_made_again(r, db):
    command = cached(r, counted, ttl=0.05)
    assert command("a") == 1
    wait_until(lambda: not db.r.exists(command.key_of("a")), "the result has expired")
    assert command("a") == 2


def test_a_ttl_that_ends_while_the_others_wait_gives_them_the_result(r, db, together):
    command = cached(r, ttl=0.001)
    futures = together(10, command, "x")
    joined(command, 10)
    db.r.set("go", 1)
    assert results(futures) == ["result x"] * 10
    assert runs(db) == 1


def test_a_stale_result_is_answered_while_it_is_made_again(r, db):
    command = cached(r, counted, ttl=1, stale=100)
    key = command.key_of("a")
    assert command("a") == 1
    db.r.pexpire(key, 90_000)
    assert command("a") == 1, "the stale result is answered at once"
    wait_until(lambda: command("a").value, "it was made again", until=lambda value: value == 2)
    assert db.r.pttl(key) > 90_000
    assert command.get("a") == (2, "hit")
    assert command.stats()["refreshed"] == 1


def test_a_stale_result_survives_a_failure(r, db):
    @r.command(ttl=1, stale=100, negative_ttl=50)
    def sometimes():
        if redgrease.cmd.incr("runs:x") > 1:
            raise ValueError("not now")
        return "good"

    assert sometimes() == "good"
    db.r.pexpire(sometimes.key_of(), 90_000)
    assert sometimes() == "good"
    wait_runs(db, count=2)
    waiting(sometimes, 0)
    assert [sometimes().value for _ in range(5)] == ["good"] * 5
    assert runs(db) == 2, "after a failure it is not tried with each call"

    def repaired():
        return redgrease.cmd.incr("runs:x")

    assert r.command(ttl=1, stale=100, trigger="sometimes", replace=True)(repaired)() == "good"
    wait_runs(db, count=3)


# -- forgetting


def test_a_result_is_forgotten_by_call_and_by_key(r, db):
    command = cached(r, counted, key="user:{x}")
    assert command("a") == 1
    assert command.invalidate("a") is True
    assert command.invalidate("a") is False
    assert command("a") == 2
    assert command.invalidate_key("user:a") is True
    assert command("a") == 3
    assert command.invalidate_key("cached:{user:a}") is True
    assert command("a") == 4
    assert db.r.delete("cached:{user:a}") == 1
    assert command("a") == 5


def test_what_runs_when_it_is_forgotten_is_not_kept(r, db, together):
    command = cached(r)
    [before] = together(1, command, "x")
    wait_runs(db)
    command.invalidate("x")
    [after] = together(1, command, "x")
    wait_runs(db, count=2)
    db.r.set("go", 1)
    assert results([before, after]) == ["result x"] * 2
    assert runs(db) == 2, "a call after the invalidation got a result from before"
    assert command.get("x").outcome == "hit"


@pytest.mark.parametrize("kind", ["string", "hash", "list"])
def test_what_is_not_of_the_cache_is_refused_and_left_alone(r, db, kind):
    command = cached(r, counted)
    key = command.key_of("a")
    {
        "string": lambda: db.r.set(key, "mine"),
        "hash": lambda: db.r.hset(key, "mine", "x"),
        "list": lambda: db.r.rpush(key, "x"),
    }[kind]()
    before = db.r.dump(key)
    for act in (command, command.invalidate, command.get):
        with pytest.raises(caching.CacheError, match="is not a result of this cache") as error:
            act("a")
        assert error.value.kind == "key"
    assert (db.r.dump(key), runs(db, "a")) == (before, 0)


def test_the_total_is_bounded(r, db):
    @r.command(ttl=60, max_bytes=10_000)
    def some(x):
        return b"x" * 1000

    for x in range(50):
        some(x)
    stats = some.stats()
    assert stats["entries"] == len(db.r.keys("cached:{some*"))
    assert 5 <= stats["entries"] <= 9
    assert stats["bytes"] <= 10_000
    assert some.get(49).outcome == "hit", "the newest expires last"
    assert some.get(0).outcome == "created"
    some.invalidate(0)
    assert some.stats()["entries"] == stats["entries"] - 1
    for x in range(50):
        some.invalidate(x)
    assert (some.stats()["entries"], some.stats()["bytes"]) == (0, 0)


def test_what_has_expired_no_longer_counts(r, db):
    @r.command(ttl=0.05, max_bytes=10_000)
    def some(x):
        return b"x" * 1000

    for x in range(5):
        some(x)
    wait_until(lambda: not db.r.keys("cached:{some*"), "all have expired")
    some("new")
    assert some.stats()["entries"] in (0, 1)


def test_a_full_memory_is_no_reason_not_to_answer(r, db):
    command = cached(r, lambda x: f"made {x}", trigger="made")
    assert command("a") == "made a"
    try:
        db.r.config_set("maxmemory", 1)
        assert command("a") == "made a"
        assert command("b") == "made b"
    finally:
        db.r.config_set("maxmemory", 0)
    db.wait_log("is not kept: OOM")


@pytest.mark.parametrize("lease", [0.1, 60])
def test_refused_writes_are_no_reason_not_to_answer(r, db, together, lease):
    """A short lease cannot be renewed, a long one cannot be released."""

    def made(x):
        redgrease.cmd.incr(f"runs:{x}")
        end = time.monotonic() + 60
        while redgrease.cmd.config_get("min-replicas-to-write") != {"min-replicas-to-write": "1"}:
            assert time.monotonic() < end
            time.sleep(0.005)
        time.sleep(0.3)  # longer than the short lease
        return f"made {x}"

    command = cached(r, made, lease=lease)
    futures = together(5, command, "x")
    try:
        wait_runs(db)
        db.r.config_set("min-replicas-to-write", 1)
        assert results(futures) == ["made x"] * 5
    finally:
        db.r.config_set("min-replicas-to-write", 0)
    assert db.r.hlen(command.key_of("x")) == 0


# -- without keeping, without sharing


def test_calls_can_share_a_run_and_keep_nothing(r, db, together):
    command = r.command(coalesce=True)(held)
    futures = together(10, command, "x")
    joined(command, 10)
    wait_runs(db)
    assert db.r.keys("cached:*") == []
    db.r.set("go", 1)
    assert results(futures) == ["result x"] * 10
    assert runs(db) == 1
    assert command("x") == "result x"
    assert runs(db) == 2


def test_results_can_be_kept_without_sharing_runs(r, db, together):
    command = cached(r, coalesce=False)
    futures = together(2, command, "x")
    wait_runs(db, count=2)
    db.r.set("go", 1)
    assert results(futures) == ["result x"] * 2
    assert command.get("x") == ("result x", "hit")
    assert runs(db) == 2


# -- the client


def test_a_direct_look_needs_no_function(r, db):
    command = cached(r, counted, direct=True)
    assert [command("a").value, command("a").value] == [1, 1]
    arrived(db, 1, "counted")
    assert db.registration().numTriggered == 1
    assert command.stats()["hit"] == 1
    with r.another(command, counted, decode_responses=True) as other:
        assert other("a") == 1


def test_a_command_that_exists_is_refused_kept_or_replaced(r, db):
    assert cached(r, counted)("a") == 1
    with pytest.raises(redgrease.exceptions.DuplicateTriggerError):
        cached(r, counted, ttl=5)
    kept = cached(r, counted, ttl=5, replace=False, namespace="other")
    assert (kept.settings.ttl, kept.settings.namespace) == (60, "cached")
    assert kept.get("a").outcome == "hit"
    replaced = cached(r, counted, ttl=5, replace=True, namespace="other")
    assert replaced.get("a") == (2, "created")
    assert len(db.registrations()) == 1
    replaced.unregister()
    r.command()(counted)
    with pytest.raises(ValueError, match="keeps no results"):
        cached(r, counted, replace=False)


def test_a_script_may_define_it(r, db):
    r.gears.pyexecute(
        """
import redgrease

@redgrease.command(ttl=60)
def hello(name):
    redgrease.execute('incr', 'runs:x')
    return 'hello ' + name
"""
    )
    wire = db.wire()
    assert [wire("RG.TRIGGER", "hello", "you") for _ in range(3)] == [[b"hello you"]] * 3
    assert runs(db) == 1


def test_inside_a_transaction_only_what_is_kept_is_answered(r, db):
    command = cached(r, counted, mode="sync")
    assert command("a") == 1
    pipeline = db.r.pipeline()
    pipeline.execute_command("RG.TRIGGER", "counted", "a")
    pipeline.execute_command("RG.TRIGGER", "counted", "b")
    kept, refused = pipeline.execute(raise_on_error=False)
    assert text(kept) == [1] or text(kept) == ["1"]
    assert "CACHED transaction counted('b') is not there" in str(refused)
    assert runs(db, "b") == 0


def test_the_error_travels_between_processes():
    error = caching.CacheError("busy", "too many")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.kind, copy.text, str(copy)) == (caching.CacheError, "busy", "too many", str(error))


def test_functions_call_cached_commands(r, db: Database):
    inner = cached(r, counted)

    @r.command(ttl=60)
    def outer(x):
        return ["outer", inner(x).value]

    assert outer("a") == ["outer", 1]
    assert inner.get("a") == (1, "hit")
    assert inner("b") == 1
    assert outer("b") == ["outer", 1]
    assert runs(db, "b") == 1


def test_a_function_and_a_client_share_one_run(r, db, together):
    inner = cached(r)

    @r.command(ttl=60)
    def outer(x):
        return inner.get(x)

    [first] = together(1, inner, "x")
    wait_runs(db)
    [second] = together(1, outer, "x")
    waiting(outer, 1)
    db.r.set("go", 1)
    assert first.result(20) == "result x"
    value, outcome = second.result(20).value
    assert value == "result x"
    assert outcome in ("waited", "hit"), "it depends on how far it came"
    assert runs(db) == 1


def test_a_plain_function_and_a_coroutine_call_cached_commands(r, db):
    inner = cached(r, counted)

    @r.command()
    def plain(x):
        return inner(x).value

    @r.command(ttl=60)
    async def later(x):
        import asyncio

        with contextlib.suppress(TypeError):
            return inner(x).value
        return (await asyncio.to_thread(inner, x)).value + 10

    assert plain("a") == 1
    assert inner.invalidate("a")
    assert later("a") == 12


def test_a_function_can_forget_results(r, db):
    inner = cached(r, counted)

    @r.command()
    def forget(x):
        return [inner.invalidate(x), inner.invalidate_key(f"counted('{x}')")]

    inner("a")
    assert forget("a") == [True, False]
    assert inner("a") == 2


def test_the_error_of_a_cached_command_that_a_function_calls_can_be_caught(r, db):
    inner = cached(r, failing)

    @r.command()
    def outer(x):
        try:
            inner(x)
        except redgrease.exceptions.ScriptError as error:
            return [error.type, error.message]

    db.r.set("go", 1)
    assert outer("x") == ["ValueError", "no x"]


# -- clusters


def own_keys(node):
    """Keys of results on a node; each node has its own index."""
    return {key for key in node.r.keys("cached:{*") if not key.endswith(b":lease")}


@pytest.mark.parametrize("options", [{}, {"direct": True}, {"max_bytes": 100_000}], ids=str)
def test_a_cluster_keeps_each_result_on_the_shard_of_its_key(nodes, cluster, options):
    @cluster.command(ttl=60, typed=True, **options)
    def where(x):
        return [x, redgrease.execute("CLUSTER", "MYID")]

    found = [where(x).value for x in range(30)]
    assert [where(x).value for x in range(30)] == found
    assert len({node for _, node in found}) == 3
    assert [len(own_keys(node)) for node in nodes] != [30, 0, 0]
    assert sum(len(own_keys(node)) for node in nodes) == 30
    assert own_keys(nodes[0]).isdisjoint(own_keys(nodes[1]))
    stats = where.stats()
    assert (stats["created"], stats["hit"]) == (30, 30)
    if "max_bytes" in options:
        assert stats["entries"] == 30
    assert [where.invalidate(x) for x in range(30)] == [True] * 30
    assert sum(len(own_keys(node)) for node in nodes) == 0
    where.unregister()
    assert [node.registrations() for node in nodes] == [[], [], []]


def test_a_wrong_shard_says_where_a_call_belongs(nodes, cluster):
    command = cluster.command(ttl=60, trigger="counted")(lambda x: x)
    slot = nodes[0].r.execute_command("CLUSTER", "KEYSLOT", command.key_of("a"))
    answers = [node.wire()("RG.TRIGGER", "counted", "a") for node in nodes]
    moved = [answer.text for answer in answers if isinstance(answer, Err)]
    assert len(moved) == 2
    assert len(set(moved)) == 1
    assert moved[0].startswith(f"MOVED {slot} 127.0.0.1:")
