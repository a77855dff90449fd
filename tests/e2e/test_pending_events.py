"""Events that wait for their executions: their cost, their order, and their isolation."""

from __future__ import annotations

import time

import pytest

from .database import text
from .waiting import wait_until

#: A function that blocks at its first event until the gate opens.
HELD = """
import os, time
def step(r):
    end = time.monotonic() + 30
    while not os.path.exists({gate!r}) and time.monotonic() < end:
        time.sleep(0.002)
    execute('incr', 'done')
GB().foreach(step).register({register})
"""


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "open"


def set_many(r, prefix: str, count: int) -> None:
    for start in range(0, count, 5000):
        r.mset({f"{prefix}{number}": "v" for number in range(start, min(count, start + 5000))})


def info(db) -> dict[str, str]:
    lines = db.r.execute_command("INFO", "rg")
    if isinstance(lines, dict):
        return {str(key): str(value) for key, value in lines.items()}
    return dict(line.split(":", 1) for line in str(text(lines)).split("\r\n") if ":" in line)


def test_a_waiting_event_costs_at_most_200_bytes_beside_its_key(fresh_server, gate):
    db = fresh_server()
    db.ok(HELD.format(gate=str(gate), register="'w:*', readValue=False"))
    set_many(db.r, "w:", 1000)
    set_many(db.r, "x:", 20_000)
    before = db.r.info("memory")["used_memory"]
    events = 20_000
    for start in range(0, events, 5000):
        pipeline = db.r.pipeline(transaction=False)
        for number in range(start, start + 5000):
            pipeline.set(f"w:{number % 1000}", "v")
        pipeline.execute()
    cost = (db.r.info("memory")["used_memory"] - before) / events
    assert cost <= 200 + len("w:999"), f"{cost:.0f} bytes for each event that waits"
    gate.touch()
    db.wait_value("done", events + 1000, deadline=60)


def test_events_that_do_not_fit_are_counted_as_aborted_and_logged_with_the_limit(fresh_server, gate):
    db = fresh_server(load_args={"PendingEventBytesMax": 100_000})
    db.ok(HELD.format(gate=str(gate), register="'w:*', readValue=False"))
    set_many(db.r, "w:", 5000)
    gate.touch()
    registration = wait_until(
        db.registration,
        "all events ended",
        until=lambda r: r.numTriggered == r.numSuccess + r.numAborted,
    )
    assert registration.numTriggered == 5000
    assert 100_000 / 200 < registration.numSuccess < 5000
    assert db.r.get("done") == str(registration.numSuccess).encode()
    assert "PendingEventBytesMax" in db.server.log()


def test_listening_to_evictions_evicts_little_more(fresh_server):
    def evicted(pattern: str) -> int:
        db = fresh_server()
        db.ok(f"GB().foreach(lambda r: None).register({pattern!r}, eventTypes=['evicted'], readValue=False)")
        pipeline = db.r.pipeline(transaction=False)
        for number in range(3000):
            pipeline.set(f"k{number}", "x" * 1000)
        pipeline.execute()
        db.r.config_set("maxmemory-policy", "allkeys-random")
        db.r.config_set("maxmemory", db.r.info("memory")["used_memory"] - 300 * 1024)
        wait_until(
            lambda: db.registration(),
            "the evictions were heard",
            until=lambda r: r.numTriggered == r.numSuccess,
        )
        db.r.set("another", "v")
        return 3000 - db.r.dbsize()

    alone, heard = evicted("none"), evicted("*")
    assert heard < 1.7 * alone, f"{alone} keys went without a listener, {heard} with one"


@pytest.mark.parametrize("mode", ["async", "async_local"])
@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_without_abortpending_what_waits_is_processed_after_unregistering(db, gate, mode):
    db.ok(HELD.format(gate=str(gate), register=f"'w:*', readValue=False, mode={mode!r}"))
    set_many(db.r, "w:", 300)
    wait_until(lambda: [e for e in db.executions() if e.status == "running"], "the first event is at work")
    db.r.execute_command("RG.UNREGISTER", db.registration().id)
    assert db.registrations() == []
    set_many(db.r, "w:later:", 10)
    gate.touch()
    wait_until(db.executions, "nothing is left to be done", until=lambda executions: not executions)
    assert int(db.r.get("done")) == 300
    assert db.r.execute_command("RG.PYDUMPSESSIONS", "DEAD") == []


def test_unregistering_with_abortpending_ends_what_waits_and_nothing_is_written_afterwards(db, gate):
    db.ok(HELD.format(gate=str(gate), register="'w:*', readValue=False"))
    set_many(db.r, "w:", 300)
    wait_until(lambda: [e for e in db.executions() if e.status == "running"], "the first event is at work")
    db.r.execute_command("RG.UNREGISTER", db.registration().id, "ABORTPENDING")
    gate.touch()
    wait_until(db.executions, "nothing is left to be done", until=lambda executions: not executions)
    assert int(db.r.get("done") or 0) == 1
    db.r.flushall()
    assert db.results("GB('ShardsIDReader').count().run()") == ["1"]
    assert db.r.dbsize() == 0


@pytest.mark.parametrize("words", [[], ["ABORTPENDING"]])
def test_unregistering_with_90_000_events_waiting_stalls_nobody(db, gate, words):
    db.ok(HELD.format(gate=str(gate), register="'w:*', readValue=False"))
    set_many(db.r, "w:", 90_000)
    began = time.monotonic()
    db.r.execute_command("RG.UNREGISTER", db.registration().id, *words)
    took = time.monotonic() - began
    gate.touch()
    assert took < 0.5, f"{took:.2f} s"


def test_triggers_that_clients_wait_for_are_run_though_the_command_is_unregistered(db, gate):
    db.ok(
        f"""
import os, time
def step(x):
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.002)
    return x[1]
GB('CommandReader').map(step).register(trigger='t', inorder=True)
"""
    )
    wires = [db.wire() for _ in range(3)]
    for number, wire in enumerate(wires):
        wire.send("RG.TRIGGER", "t", str(number))
    wait_until(lambda: db.registration().numTriggered, "all are accepted", until=lambda n: n == 3)
    db.r.execute_command("RG.UNREGISTER", db.registration().id)
    gate.touch()
    assert [text(wire.read()) for wire in wires] == [["0"], ["1"], ["2"]]


# -- the list of executions


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_running_executions_stay_in_the_list_and_their_results_can_be_asked_for(db, gate):
    script = f"""
import os, time
def wait(x):
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.002)
    return 'result'
GB('ShardsIDReader').map(wait).run()
"""
    runs = [db.start(script) for _ in range(2)]
    for run in runs:
        db.wait_status(run, "running")
    db.ok("GB().foreach(lambda r: execute('incr', 'heard')).register('w:*', readValue=False)")
    set_many(db.r, "w:", 1100)
    db.wait_value("heard", 1100)
    assert {run: db.status(run) for run in runs} == dict.fromkeys(runs, "running")
    gate.touch()
    for run in runs:
        db.wait_status(run, "done")
        assert text(db.r.execute_command("RG.GETRESULTS", run)) == [["result"], []]


def test_a_slow_run_among_quick_ones_keeps_its_results(fresh_server, gate):
    db = fresh_server(load_args={"MaxExecutions": 2})
    slow = db.start(
        "import os, time\n"
        f"def wait(x):\n    while not os.path.exists({str(gate)!r}): time.sleep(0.002)\n    return 'slow'\n"
        "GB('ShardsIDReader').map(wait).run()"
    )
    quick = [db.start("GB('ShardsIDReader').map(lambda _: 'quick').run()") for _ in range(5)]
    db.wait_status(quick[-1], "done")
    gate.touch()
    db.wait_status(slow, "done")
    assert text(db.r.execute_command("RG.GETRESULTS", slow)) == [["slow"], []]
    assert len(db.executions()) == 2
