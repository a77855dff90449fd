"""Coroutines and futures: steps that wait, and executions that others wait for."""

from __future__ import annotations

import os
import signal

import pytest

from .database import text
from .resp import Err
from .waiting import wait_until

SYNC = {
    "map": "def f(record):\n    return record",
    "filter": "def f(record):\n    return record % 3 > 0",
    "foreach": "def f(record):\n    execute('incrby', 'sum', record)",
    "flatmap": "def f(record):\n    return [record, -record]",
    "accumulate": "def f(acc, record):\n    return (acc or 0) * 2 % 1000003 + record",
}


def script(step: str, *, waits: bool, more: str = "") -> str:
    """A function whose step waits for a different time for each record, or does not wait."""
    body = SYNC[step]
    if waits:
        wait = "    await asyncio.sleep((record * 7 % 5) / 1000)\n"
        head, rest = body.split("\n", 1)
        body = f"async {head}\n{wait}{rest}"
    source = "lambda: iter(range(50))"
    return f"import asyncio\n{body}\nGB('PythonReader').{step}(f){more}.run({source}, convertToStr=False)"


@pytest.mark.parametrize("more", ["", ".map(lambda x: x)", ".filter(lambda x: x != 4)", ".count()", ".limit(7, 2)"])
@pytest.mark.parametrize("step", SYNC)
def test_a_step_that_waits_gives_what_it_gives_without_waiting(db, step, more):
    expected = db.run(script(step, waits=False, more=more))
    found = db.run(script(step, waits=True, more=more))
    assert found == expected


def test_many_records_of_a_step_wait_at_the_same_time(db):
    source = """
import asyncio
most = now = 0
async def f(record):
    global most, now
    now += 1
    most = max(most, now)
    await asyncio.sleep(0.05)
    now -= 1
    return most
GB('PythonReader').map(f).map(lambda x: 1000 < x <= 1001).countby().run(lambda: iter(range(3000)), convertToStr=False)
"""
    results, errors = db.run(source)
    assert errors == []
    assert len(results) >= 1


def test_steps_that_wait_one_behind_the_other_keep_the_order(db):
    source = """
import asyncio
async def a(record):
    await asyncio.sleep((record * 3 % 4) / 1000)
    return [record] * (record % 3)
async def b(record):
    await asyncio.sleep((record * 5 % 7) / 1000)
    return record
async def c(acc, record):
    await asyncio.sleep(0)
    return (acc or []) + [record]
GB('PythonReader').flatmap(a).map(b).filter(b).accumulate(c).run(lambda: iter(range(60)), convertToStr=False)
"""
    expected = [number for number in range(60) for _ in range(number % 3)]
    assert db.run(source) == ([[number for number in expected if number]], [])


def test_coroutines_of_groups_see_their_own_accumulators(db):
    source = """
import asyncio
async def f(key, acc, record):
    await asyncio.sleep(0)
    return (acc or 0) + record
GB('PythonReader').groupby(lambda x: x % 3, f).sort().run(lambda: iter(range(10)))
"""
    source = source.replace(".sort()", ".map(lambda x: (x['key'], x['value'])).sort()")
    assert db.results(source) == ["('0', 18)", "('1', 12)", "('2', 15)"]


def test_a_coroutine_that_fails_is_an_error_with_its_text_only(db):
    source = """
async def f(record):
    if record == 3:
        raise ValueError('three is bad')
    return record
GB('PythonReader').map(f).run(lambda: iter(range(5)), convertToStr=False)
"""
    results, errors = db.run(source)
    assert errors == ["three is bad"]
    # The record behind it may be inside already when the error comes; the reader stops then.
    assert results[:3] == [0, 1, 2] and results in ([0, 1, 2], [0, 1, 2, 4])


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        (".countby(f)", "extractor"),
        (".groupby(f, lambda k, a, r: r)", "extractor"),
        (".repartition(f)", "extractor"),
        (".batchgroupby(lambda x: x, f2)", "reduce"),
    ],
)
def test_a_coroutine_where_a_step_cannot_wait_is_an_error(db, steps, place):
    source = "async def f(x):\n    pass\nasync def f2(k, r):\n    pass\n"
    [error] = db.errors(f"{source}GB('ShardsIDReader'){steps}.run()")
    assert f"coroutine are not allow on {place}" in error


def test_a_future_is_completed_by_another_function(db):
    db.ok(
        """
future = None
def wait(_):
    global future
    future = gearsFuture()
    execute('set', 'waits', '1')
    return future
def go(x):
    future.continueRun(x[1])
def fail(x):
    future.continueFailed(x[1])
for mode in ('async', 'async_local', 'sync'):
    GB('CommandReader').map(wait).register(trigger='wait_' + mode, mode=mode)
GB('CommandReader').foreach(go).count().register(trigger='go')
GB('CommandReader').foreach(fail).count().register(trigger='fail')
"""
    )
    for mode in ("async", "async_local", "sync"):
        waiting = db.wire()
        waiting.send("RG.TRIGGER", f"wait_{mode}")
        db.wait_key("waits")
        db.r.delete("waits")
        db.trigger("go", f"hello {mode}")
        assert text(waiting.read()) == [f"hello {mode}"]
        waiting.send("RG.TRIGGER", f"wait_{mode}")
        db.wait_key("waits")
        db.r.delete("waits")
        db.trigger("fail", "bad luck")
        assert waiting.read() == Err("bad luck")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("gearsFuture(); gearsFuture()", "Can not create async record twice on the same step"),
        ("gearsFuture(1)", "Future gets no arguments"),
        ("return gearsFuture()", "Async record did not called continue"),
        ("gearsFuture().continueRun(1)", "Can not handle future untill it returned from the callback"),
        ("gearsFuture().continueRun()", "Continue function expect an object"),
    ],
)
def test_a_misused_future_is_an_error(db, body, error):
    [found] = db.errors(f"def f(x):\n    {body}\nGB('ShardsIDReader').map(f).run()")
    assert error in found


def test_a_future_cannot_be_made_outside_of_a_step(db):
    assert "Future object can only be created inside certain execution steps" in db.refused("gearsFuture()")
    source = "def f(x):\n    gearsFuture()\nGB('ShardsIDReader').countby(f).run()"
    [error] = db.errors(source)
    assert "Step does not support async" in error


@pytest.mark.parametrize(
    ("step", "expected"),
    [("map(f)", ["7"]), ("flatmap(f)", ["7"]), ("accumulate(lambda a, x: f(x))", ["None"])],
)
def test_a_future_that_is_not_returned_is_forgotten(db, step, expected):
    source = f"""
kept = []
def f(_):
    kept.append(gearsFuture())
    return 7
GB('ShardsIDReader').{step}.foreach(lambda _: kept[0].continueRun(1)).run()
"""
    assert db.results(source) == expected


def test_inside_a_transaction_nothing_waits(db):
    db.ok(
        """
async def f(_):
    return 1
GB('CommandReader').map(f).register(trigger='waits', mode='sync')
GB('CommandReader').map(lambda _: isAsyncAllow()).register(trigger='allowed', mode='sync')
"""
    )
    assert db.trigger("waits") == ["1"]
    assert db.trigger("allowed") == ["True"]
    pipeline = db.r.pipeline()
    pipeline.execute_command("RG.TRIGGER", "waits")
    pipeline.execute_command("RG.TRIGGER", "allowed")
    refused, allowed = pipeline.execute(raise_on_error=False)
    assert "Creating async record is not allow" in str(refused)
    assert text(allowed) == ["False"]


def test_an_execution_that_another_one_started_can_be_awaited(db):
    db.ok(
        """
async def f(args):
    found = GB('KeysReader').map(lambda x: {x['key']: x['value']}).run(args[1], convertToStr=False)
    also = GB('ShardsIDReader').map(lambda x: 1 / 0).run()
    return [await found, (await also)[1][0][-20:-4]]
GB('CommandReader').flatmap(f).register(trigger='nested', convertToStr=True)
"""
    )
    db.r.set("a", "1")
    found = db.trigger("nested", "a")
    assert found == ["division by zero", "[[{'a': '1'}], []]"]
    assert db.executions() == []


def test_results_are_kept_until_they_are_awaited_once(db):
    source = """
async def f(_):
    started = GB('ShardsIDReader').run()
    first = await started
    try:
        await started
    except Exception as error:
        return [first, str(error)[:10]]
GB('ShardsIDReader').map(f).run()
"""
    assert db.results(source) == ["[[['1'], []], 'NORESULTS ']"]


@pytest.mark.parametrize("threads", [1, 3])
def test_executions_that_wait_keep_no_thread_from_others(fresh_server, threads):
    db = fresh_server(load_args={"ExecutionThreads": threads})
    source = """
async def f(n):
    if n == 0:
        return 0
    results, errors = await GB('PythonReader').map(f).run(lambda: iter([n - 1]), convertToStr=False)
    return results[0] + 1
GB('PythonReader').map(f).run(lambda: iter([20]), convertToStr=False)
"""
    assert db.results(source) == [20]


@pytest.mark.single("on a cluster an aborted execution has an error")
def test_an_execution_that_waits_is_aborted_at_once(db):
    db.ok(
        """
import asyncio
async def f(_):
    execute('set', 'waits', '1')
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        # Its execution has ended; what is left is code of the session.
        execute('set', 'cancelled', '1')
        raise
GB('CommandReader').map(f).register(trigger='slow')
"""
    )
    waiting = db.wire()
    waiting.send("RG.TRIGGER", "slow")
    db.wait_key("waits")
    [execution] = db.executions()
    assert execution.status == "running"
    db.r.execute_command("RG.ABORTEXECUTION", execution.id)
    assert waiting.read() == []
    db.wait_key("cancelled")
    assert db.registration().numAborted == 1


def test_what_waits_ends_with_its_worker(db):
    waiting = db.wire()
    source = """
import asyncio, os
async def f(_):
    execute('set', 'pid', os.getpid())
    await asyncio.sleep(1000)
GB('ShardsIDReader').map(f).run()
"""
    waiting.send("RG.PYEXECUTE", source)
    pid = int(db.wait_key("pid"))
    os.kill(pid, signal.SIGKILL)
    results, errors = waiting.read()
    assert results == []
    assert "WORKERDIED" in text(errors)[0]


def test_await_inside_an_atomic_block_is_an_error(db):
    source = """
import asyncio
async def f(_):
    with atomic():
        execute('set', 'x', '1')
        await asyncio.sleep(0)
GB('ShardsIDReader').map(f).run()
"""
    assert db.errors(source) == ["await is not allow inside atomic block"]
    assert db.r.get("x") in (b"1", "1")
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_coroutines_run_beside_functions(db):
    source = """
async def work():
    execute('incr', 'runs')
    return execute('get', 'runs')
async def f(_):
    future = createFuture()
    runCoroutine(work(), future, 0.01)
    return await future
def g(_):
    future = gearsFuture()
    async def later():
        future.continueRun('later')
    runCoroutine(later(), delay=0.01)
    return future
async def h(_):
    failing = createFuture()
    setFutureException(failing, 'no')
    try:
        await failing
    except Exception as error:
        return str(error)
GB('ShardsIDReader').map(%s).run()
"""
    assert db.results(source % "f") == ["1"]
    assert db.results(source % "g") == ["later"]
    assert db.results(source % "h") == ["no"]


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_events_of_a_registration_wait_at_the_same_time(db):
    db.ok(
        """
import asyncio
arrived = []
async def f(record):
    arrived.append(record['key'])
    while len(arrived) < 10:
        await asyncio.sleep(0.001)
    execute('rpush', 'done', record['key'])
GB('KeysReader').foreach(f).register('k:*', eventTypes=['set'])
"""
    )
    for number in range(10):
        db.r.set(f"k:{number}", 1)
    wait_until(lambda: db.r.llen("done"), "all events were handled", until=lambda count: count == 10)


def test_a_session_keeps_its_coroutines_until_they_end(db):
    db.ok(
        """
import asyncio
gate = asyncio.Event()
async def f(_):
    execute('set', 'waits', '1')
    while not execute('exists', 'gate'):
        await asyncio.sleep(0.01)
    return 'old'
GB('CommandReader').map(f).register(trigger='slow')
""",
        "ID",
        "mine",
    )
    waiting = db.wire()
    waiting.send("RG.TRIGGER", "slow")
    db.wait_key("waits")
    db.ok("GB('CommandReader').map(lambda _: 'new').register(trigger='slow')", "ID", "mine", "UPGRADE")
    assert db.trigger("slow") == ["new"]
    assert len(db.r.execute_command("RG.PYDUMPSESSIONS", "DEAD")) == 1
    db.r.set("gate", 1)
    assert text(waiting.read()) == ["old"]
    wait_until(lambda: db.r.execute_command("RG.PYDUMPSESSIONS", "DEAD"), "it has ended", until=lambda dead: dead == [])


def test_waiting_clients_may_leave(db):
    db.ok(
        """
import asyncio
async def f(_):
    execute('incr', 'begins')
    while not execute('exists', 'gate'):
        await asyncio.sleep(0.001)
    execute('incr', 'ends')
GB('CommandReader').map(f).register(trigger='slow')
"""
    )
    clients = [db.wire() for _ in range(5)]
    for client in clients:
        client.send("RG.TRIGGER", "slow")
    db.wait_value("begins", "5")
    for client in clients:
        client.close()
    db.r.set("gate", 1)
    db.wait_value("ends", "5")
    db.wait_quiet()


CONTINUED_EARLY = """
from threading import Thread
async def coroutine(future, record):
    future.continueRun(record + '!')
def in_coroutine(record):
    future = gearsFuture()
    runCoroutine(coroutine(future, record))
    return future
def in_thread(record):
    future = gearsFuture()
    thread = Thread(target=lambda: future.continueRun(record + '!'))
    thread.start()
    thread.join()
    return future
GB('PythonReader').map({function}).run(lambda: map(str, range(50)))
"""


@pytest.mark.parametrize("function", ["in_coroutine", "in_thread"])
def test_a_result_that_comes_before_the_callback_returned_is_kept(db, function):
    assert db.results(CONTINUED_EARLY.format(function=function)) == [f"{number}!" for number in range(50)]
