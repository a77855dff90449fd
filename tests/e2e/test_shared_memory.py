"""Shared memory between the server and its workers, and what a hostile worker can do with it."""

from __future__ import annotations

import threading

import pytest
import redis

from .test_isolation import STALL_LIMIT_S, assert_healthy
from .waiting import wait_until

#: Gives a function of a script the memory of its worker. Ring 0 leads from the server to the worker, ring 1 back. The
#: words of each are its head, its tail, "reader sleeps" and "writer waits", 128 bytes apart.
MEMORY = """
import ctypes, os
def memory():
    with open('/proc/self/maps') as maps:
        (line,) = [line for line in maps if 'memfd:redgrease-ring' in line]
    return int(line.split('-')[0], 16)
def put(ring, word, value, size=8):
    ctypes.memmove(memory() + ring * 2048 + word * 128, value.to_bytes(size, 'little'), size)
"""
HEAD, TAIL, READER_SLEEPS, WRITER_WAITS = range(4)
FROM_SERVER, TO_SERVER = range(2)


def test_frames_go_through_shared_memory(db):
    assert db.results(f"{MEMORY}\nGB('ShardsIDReader').map(lambda _: memory() > 0).run()") == ["True"]


@pytest.mark.parametrize("shared", [0, 1])
def test_results_and_arguments_of_any_size_arrive(fresh_server, shared):
    db = fresh_server(load_args={"SharedMemory": shared})
    db.ok("GB('CommandReader').map(lambda r: r[1]).register(trigger='echo')")
    for size in (0, 1, 1000, (1 << 20) - 1, 1 << 20, 5_000_000, 40_000_000):
        value = "ab" * (size // 2) + "c" * (size % 2)
        assert db.r.execute_command("RG.TRIGGER", "echo", value) == [value.encode()], size
    script = (
        "import os\nGB('ShardsIDReader').map(lambda _: 'memfd:redgrease-ring' in open('/proc/self/maps').read()).run()"
    )
    assert db.results(script) == [str(bool(shared))]


#: Overwrites a word of the shared memory without end while the function calls the server. The loop never lets go of the
#: interpreter by itself, so the word is wrong whenever the function goes on after a reply.
WRECK = (
    MEMORY
    + """
import threading
def wreck(ring, word, value):
    place = ctypes.c_uint64.from_address(memory() + ring * 2048 + word * 128)
    def run():
        while True:
            place.value = value
    threading.Thread(target=run, daemon=True).start()
    while True:
        execute('get', 'k')
"""
)


# Not the largest number: a count that is one short of the other one is possible for a long time.
@pytest.mark.parametrize("value", [1 << 63, (1 << 64) - (1 << 40), 12345678901])
@pytest.mark.parametrize(("ring", "word"), [(TO_SERVER, HEAD), (FROM_SERVER, TAIL)], ids=["head", "tail"])
def test_a_count_that_cannot_be_ends_the_worker(db, ring, word, value):
    with db.pinging() as pings:
        db.failure(f"{WRECK}\nGB('ShardsIDReader').map(lambda _: wreck({ring}, {word}, {value})).run()")
    pings.assert_never_stalled(STALL_LIMIT_S)
    db.wait_log("wrong count")
    assert_healthy(db)


@pytest.mark.parametrize(("ring", "word"), [(TO_SERVER, HEAD), (FROM_SERVER, TAIL)], ids=["head", "tail"])
def test_a_count_that_cannot_be_ends_a_sync_wait(db, ring, word):
    trigger = ".register(trigger='wreck', mode='sync')"
    db.ok(f"{WRECK}\nGB('CommandReader').map(lambda _: wreck({ring}, {word}, 1 << 62)){trigger}")
    with pytest.raises(redis.ResponseError, match="WORKERDIED"):
        db.r.execute_command("RG.TRIGGER", "wreck")
    db.wait_log("wrong count")
    assert_healthy(db)


def test_flags_that_always_ask_for_a_bell_cost_nothing_but_bells(db):
    script = (
        MEMORY
        + f"""
import threading, time
def nag(_):
    end = time.monotonic() + 1
    def run():
        while time.monotonic() < end:
            put({FROM_SERVER}, {READER_SLEEPS}, 1, 4)
            put({TO_SERVER}, {WRITER_WAITS}, 1, 4)
    thread = threading.Thread(target=run)
    thread.start()
    count = 0
    while time.monotonic() < end:
        execute('get', 'k')
        count += 1
    thread.join()
    return count > 0
"""
    )
    with db.pinging() as pings:
        assert db.results(script + "GB('ShardsIDReader').map(nag).run()") == ["True"]
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert_healthy(db)


def test_nonsense_in_the_ring_ends_the_worker(db):
    script = (
        MEMORY
        + """
def scream(_):
    start = memory() + 4096 + (1 << 20)
    while True:
        ctypes.memset(start, 0xff, 1 << 20)
        log('x' * 1000)
"""
    )
    with db.pinging() as pings:
        assert db.failure(script + "GB('ShardsIDReader').map(scream).run()")
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert_healthy(db)


def test_a_child_of_a_fork_does_not_have_the_memory(db):
    script = """
import os
def fork(_):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, b'y' if 'memfd:redgrease-ring' in open('/proc/self/maps').read() else b'n')
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(read, 1).decode()
GB('ShardsIDReader').map(fork).run()
"""
    assert db.results(script) == ["n"]


def test_an_idle_server_and_its_workers_sleep(db):
    db.ok("GB('CommandReader').map(lambda r: execute('get', 'k')).register(trigger='get')")
    db.r.execute_command("RG.TRIGGER", "get")
    before = db.r.info("rg_workers")
    threads = [threading.Thread(target=db.client().execute_command, args=("RG.TRIGGER", "get")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = db.r.info("rg_workers")
    looked = sum(after[name] - before[name] for name in ("rg_spin_hits", "rg_spin_misses"))
    assert looked > 0
    # Nothing is owed now: nothing polls, however long it lasts.
    settled = wait_until(lambda: _looks(db), "polling ends", until=lambda now: now == _looks(db))
    assert _looks(db) - settled <= 2


def _looks(db) -> int:
    info = db.r.info("rg_workers")
    return int(info["rg_spin_hits"]) + int(info["rg_spin_misses"])


def test_polling_can_be_turned_off(fresh_server):
    db = fresh_server(load_args={"SpinMicros": 0})
    db.ok("GB('CommandReader').map(lambda r: execute('get', 'k')).register(trigger='get', mode='sync')")
    for _ in range(20):
        db.r.execute_command("RG.TRIGGER", "get")
    assert _looks(db) == 0
