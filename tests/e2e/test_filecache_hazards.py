"""The hazards of a file cache with locks in Redis, one by one: what fails in the obvious protocol, but not in ours.

Each test is one scenario, with real processes, servers and file systems. Those marked `hazard` run on our cache, where
they must pass, and on the naive one (`benches/filecache_naive.py`, bounded in `naive_bounded.py`), where they must end
in a `HazardError`: each run shows that the test detects the hazard. `docs/filecache-guarantees.md` lists them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redgrease.filecache import AsyncFileCache, CacheConfigError, CacheError
from redis.exceptions import RedisError

from .caching import Cache, plain_server
from .hazards import DEADLINE, LEASE, LIVE, LONG, Program, World, expect, hazard, new_folder, ours_only, remove
from .servers import ROOT, DidNotStartError, Server, free_port
from .waiting import wait_until as wait_for

_numbers = itertools.count()

#: A master that does not wait for further replicas.
AT_ONCE = {"repl-diskless-sync-delay": 0}


@pytest.fixture(scope="module")
def coordinator() -> Iterator[Server]:
    server = plain_server()
    yield server
    server.kill_and_clean()


@pytest.fixture
def world(request: pytest.FixtureRequest, coordinator: Server) -> Iterator[World]:
    root = new_folder()
    world = World(request.param, coordinator, f"hazard-{os.getpid()}-{next(_numbers)}", root)
    try:
        yield world
    finally:
        world.close()
        remove(root)


def wait_until(look: Callable[[], object], what: str) -> object:
    """A condition that the scenario needs in order to continue."""
    return wait_for(look, what, deadline=DEADLINE)


def pass_time(seconds: float, look: Callable[[], object] = lambda: None) -> None:
    """Lets time pass for other processes, and polls meanwhile."""
    end = time.monotonic() + seconds
    wait_until(lambda: (look(), time.monotonic() > end)[1], f"{seconds} s pass")


def aside(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Runs it in a thread; its result or exception is in the list when the thread has ended."""
    result: list[object] = []

    def run() -> None:
        try:
            result.append(call())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, result


READ_AND_SAY = """
with cache.reading("key") as file:
    say("reading")
    hear()
    say(file.read().decode())
"""


# -- locks and leases


@hazard
def test_h01_a_writer_that_was_stopped_does_not_overwrite_its_successor(world: World) -> None:
    cache = world.open()
    gate = world.gate()
    gate.hold("rename", "key")
    late = world.program('cache.create("key", b"late")', gate=gate, families=["rename"], lease=LEASE)
    held = gate.wait()
    late.stop()
    wait_until(lambda: cache.outcome(lambda: cache.create("key", b"prompt")) == "ok", "its lease ends")
    held.go_on()
    late.go_on()
    said = late.outcome()
    expect(cache.read("key") == b"prompt", "bytes of a published key never change")
    expect(said.startswith("!LeaseLostError"), f"the late writer is told that it lost its lease; it heard {said!r}")
    assert world.open().read("key") == b"prompt"


@ours_only
def test_h01_a_writer_whose_file_was_swept_meanwhile_hears_that_it_lost_its_lease(world: World) -> None:
    cache: Any = world.open()
    proxy = world.proxy()
    apart: Any = world.open(url=proxy.url, lease=LEASE, command_timeout=1.0)
    # From here on the server has the scripts, so that the word below matches a renewal.
    apart.create("first", b"content")
    apart.creating("first-2").abort()
    writer = apart.creating("key")
    writer.write(b"x" * 100_000)
    writer.flush()
    proxy.hold_request(b"renew", times=1000)

    def swept() -> bool:
        cache.maintain()
        return not world.temporaries()

    wait_until(swept, "others take it for dead")
    assert apart.outcome(writer.commit) == "lease-lost"
    cache.create("key", b"content")
    sound(world, cache)


@hazard
def test_h02_a_killed_reader_does_not_hold_a_file_that_is_read_all_the_time(world: World) -> None:
    cache = world.open(lease=1.0)
    cache.create("key", b"content")
    reader = world.program(READ_AND_SAY, lease=1.0)
    reader.expect("reading")
    reader.kill()

    def none_left() -> bool:
        cache.read("key")
        return cache.readers("key") == 0

    world.expect_soon(none_left, "a dead reader is forgotten although others read", naive_deadline=2.5)
    cache.evict_all()
    assert not world.published()


@hazard
def test_h03_a_late_release_takes_no_other_readers_lease(world: World) -> None:
    cache = world.open()
    cache.create("key", b"content")
    late = world.program(READ_AND_SAY, lease=LEASE)
    late.expect("reading")
    late.stop()
    wait_until(lambda: cache.readers("key") == 0, "its lease ends")
    with cache.reading("key"):
        late.go_on()
        late.tell()
        late.expect("content")
        assert late.outcome() == "done"
        expect(cache.readers("key") == 1, "the lease of the second reader is there after the first one's release")
        # Nor does a read that finds no file.
        for path in world.published("key"):
            path.unlink()
        assert world.open().outcome(lambda: cache.read("key")) == "missing"
        expect(cache.readers("key") == 1, "and after a miss")
    world.expect_soon(lambda: cache.readers("key") == 0, "it goes with its reader")


@pytest.mark.parametrize("how", ["directory", "descriptors", "permission"])
@hazard
def test_h04_a_file_that_cannot_be_opened_leaves_no_lease(world: World, how: str) -> None:
    cache = world.open(directory_mode=0o770)
    cache.create("key", b"content")
    (path,) = world.published("key")
    if how == "directory":
        path.unlink()
        path.mkdir()
        assert cache.outcome(lambda: cache.read("key")) != "ok"
        path = path.parent
        cache.create("key-2", b"content")
        (second,) = world.published("key-2")
        second.unlink()
        second.mkdir()
        with contextlib.suppress(Exception), cache.reading("key-2"):
            pytest.fail("a directory was opened as a file")
    elif how == "descriptors":
        # One is opened to create connections; then the process has no descriptor left.
        program = world.program(
            """
import resource
cache.read("key")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
failed = cache.outcome(lambda: cache.reading("key").__enter__())
for descriptor in taken:
    os.close(descriptor)
say(failed)
hear()
""",
        )
        assert program.hear() not in ("ok", "missing")
    else:
        path.chmod(0)
        code = 'say(cache.outcome(lambda: cache.reading("key").__enter__())); hear()'
        program = world.program(code, user=(12345, 0))
        assert program.hear() == world.pick("denied", "PermissionError")
    world.expect_soon(
        lambda: cache.readers("key") == 0 and cache.readers("key-2") == 0,
        "nobody holds a lease after the failure",
    )


@hazard
def test_h05_a_long_read_is_seen_and_protected_all_the_time(world: World) -> None:
    cache = world.open()
    cache.create("key", b"content")
    (path,) = world.published("key")
    reader = world.program(READ_AND_SAY, lease=LIVE)
    reader.expect("reading")
    pass_time(1.5 * LIVE, lambda: expect(cache.readers("key") == 1, "the reader is seen while it reads"))
    cache.evict_all()
    expect(path.exists(), "the file stays where it is while it is read")
    reader.tell()
    reader.expect("content")
    assert reader.outcome() == "done"
    wait_until(lambda: cache.readers("key") == 0, "the lease is released")
    cache.evict_all()
    assert not path.exists()


@ours_only
def test_h05_a_slow_disk_costs_a_live_process_no_lease(world: World) -> None:
    cache = world.open()
    cache.create("key", b"content")
    gate = world.gate()
    reader = world.program(
        """
import threading
with cache.reading("key") as file:
    say(threading.get_native_id())
    hear()
    say(file.lease_lost)
""",
        gate=gate,
        families=["list"],
        from_start=True,
        maintenance=0.1,
        lease=LIVE,
    )
    main = int(reader.hear())
    gate.hold("list", thread=lambda thread: thread != main)
    held = gate.wait()
    # Its maintenance hangs in the file system for longer than a lease.
    pass_time(1.5 * LIVE, lambda: expect(cache.readers("key") == 1, "the reader is alive"))
    held.go_on()
    reader.tell()
    reader.expect("False")


@ours_only
def test_h05_a_reader_that_is_cut_off_learns_that_its_lease_may_be_gone(world: World) -> None:
    cache = world.open()
    cache.create("key", b"content")
    proxy = world.proxy()
    apart: Any = world.open(url=proxy.url, command_timeout=0.5, lease=LIVE)
    with apart.reading("key") as handle, apart.creating("other") as writer:
        path = handle.path
        writer.write(b"...")
        assert not handle.lease_lost
        proxy.cut()
        wait_until(lambda: cache.readers("key") == 0, "others see its lease end")
        cache.evict_all()
        assert not path.exists()
        expect(handle.lease_lost, "it knows, without being told")
        expect(writer.lease_lost, "and so does a writer")
        # An open file is read to its end.
        assert handle.read() == b"content"
        writer.abort()


@hazard
def test_h06_a_lost_reply_to_an_acquire_leaves_no_lease(world: World) -> None:
    cache = world.open()
    cache.create("precious", b"content")
    proxy = world.proxy()
    through = world.open(url=proxy.url)
    through.read("precious")
    proxy.drop_reply(b"precious")
    with contextlib.suppress(OSError, RedisError), through.reading("precious") as file:
        assert cache.readers("precious") == 1, "the same lease was asked for twice"
        assert file.read() == b"content"
    assert proxy.pending() == 0
    world.expect_soon(lambda: cache.readers("precious") == 0, "no lease is left")


@hazard
def test_h07_an_error_of_the_caller_is_not_hidden_by_one_of_the_release(world: World) -> None:
    cache = world.open()
    cache.create("key", b"content")
    proxy = world.proxy()
    through: Any = world.open(url=proxy.url)
    for block in (through.reading("key"), through.creating("new")):
        caught: BaseException | None = None
        try:
            with block:
                proxy.cut()
                raise KeyError("mine")
        except Exception as error:
            caught = error
        expect(isinstance(caught, KeyError), f"the caller's error is raised, not {caught!r}")
        proxy.heal()
    # Releases that failed are repeated later, and were counted.
    world.expect_soon(lambda: cache.readers("key") == 0, "the lease is released when the server is there again")
    world.expect_soon(lambda: cache.outcome(lambda: cache.create("new", b"")) == "ok", "and so is the writer's")
    assert through.cache.stats().index_errors > 0


@ours_only
def test_h07_a_lost_write_lease_is_its_own_outcome(world: World) -> None:
    cache: Any = world.open()
    other: Any = world.open()
    writer = cache.creating("key")
    writer.write(b"first")
    assert other.cache.break_lock("key")
    other.create("key", b"second")
    assert cache.outcome(writer.commit) == "lease-lost"
    assert cache.read("key") == b"second"
    assert cache.cache.stats().lease_losses == 1


@hazard
def test_h08_who_looks_for_a_missing_key_does_not_keep_others_from_making_it(world: World) -> None:
    cache = world.open()
    proxy = world.proxy()
    through = world.open(url=proxy.url)
    assert through.outcome(lambda: through.read("absent")) == "missing"
    proxy.hold_reply(b"absent")
    thread, _ = aside(lambda: through.read("absent"))
    held = proxy.wait()
    try:
        # It has sent its request, and is stopped.
        expect(cache.outcome(lambda: cache.create("absent", b"made")) == "ok", "it can be made")
    finally:
        held.go_on()
        thread.join(DEADLINE)
    assert cache.read("absent") == b"made"


@hazard
def test_h09_a_missing_key_is_missing_at_once_however_long_one_would_wait(world: World) -> None:
    cache = world.open()
    # A key without a writer is missing at once, regardless of the timeout.
    began = time.monotonic()
    assert cache.outcome(lambda: cache.read_waiting("never", 2.0)) == "missing"
    expect(time.monotonic() - began < 1.5, "a missing key is missing at once")


@ours_only
def test_h09_waiters_are_woken_in_turn(world: World) -> None:
    caches: list[Any] = [world.open() for _ in range(8)]
    server = world.redis()

    def asked() -> int:
        return sum(
            int(stats["calls"])
            for name, stats in server.info("commandstats").items()
            if name.startswith("cmdstat_eval")
        )

    writer = caches[0].creating("slow")
    writer.write(b"content")
    threads = [aside(lambda cache=cache: (cache.read_waiting("slow", 30), time.monotonic())) for cache in caches[1:]]
    wait_until(lambda: all(cache.cache.stats().waits for cache in caches[1:]), "all wait")
    before = asked()
    pass_time(1.0)
    per_waiter = (asked() - before) / len(threads)
    expect(per_waiter < 12, f"a waiter asks seldom: {per_waiter} times in a second; polling each 10 ms would be 100")
    writer.commit()
    committed = time.monotonic()
    for thread, result in threads:
        thread.join(DEADLINE)
        content, at = result[0]  # type: ignore[misc]
        assert content == b"content"
        expect(at - committed < 5.0, "all are woken")
    # Writers get their turns in the order of arrival.
    first = caches[0].creating("turns")
    order: list[int] = []

    def take(number: int) -> None:
        with caches[number].cache.create("turns", replace=True, timeout=30) as mine:
            order.append(number)
            mine.write(b"%d" % number)

    waiting = []
    for number in range(1, 5):
        waiting.append(aside(lambda number=number: take(number)))
        wait_until(
            lambda number=number: sum(lock.kind == "waiting" for lock in caches[7].cache.locks()) == number,
            "it stands in the queue",
        )
    first.abort()
    for thread, result in waiting:
        thread.join(DEADLINE)
        assert result == [None]
    assert order == [1, 2, 3, 4]
    # A single attempt is busy, not a timeout.
    with caches[0].creating("busy"):
        assert caches[1].outcome(lambda: caches[1].read_waiting("busy", 0)) == "busy"
        assert caches[1].outcome(lambda: caches[1].read_waiting("busy", 0.05)) == "timeout"


@hazard
def test_h10_of_all_who_miss_one_makes_the_entry(world: World) -> None:
    cache = world.open()
    log = world.root / "made"
    code = f"""
import threading
def producer():
    with open({str(log)!r}, "a") as log:
        log.write("made\\n")
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        time.sleep(0.01)
    return b"content"
contents = []
threads = [threading.Thread(target=lambda: contents.append(cache.make("key", producer, 30))) for _ in range(8)]
say("ready")
hear()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say(len([content for content in contents if content == b"content"]))
"""
    programs = [world.program(code) for _ in range(3)]
    for program in programs:
        program.expect("ready")
    for program in programs:
        program.tell()
    for program in programs:
        program.expect("8")
    made = log.read_text().count("made")
    expect(made == 1, f"of 24 threads in 3 processes one makes the entry, not {made}")
    assert cache.read("key") == b"content"


@ours_only
def test_h10_when_the_one_who_makes_it_dies_or_fails_the_next_one_does(world: World) -> None:
    cache: Any = world.open()
    leader = world.program('cache.make("key", lambda: (say("making"), hear()), 30)', lease=LIVE)
    leader.expect("making")
    follower, made = aside(lambda: cache.make("key", lambda: b"by the follower", 30))
    wait_until(lambda: cache.cache.stats().waits == 1, "the follower waits")
    leader.kill()
    killed = time.monotonic()
    follower.join(DEADLINE)
    assert made == [b"by the follower"]
    expect(time.monotonic() - killed < LIVE + 5, "the death of a maker is noticed after its lease")
    failing = world.program('cache.make("fails", lambda: (say("making"), hear(), 1 / 0), 30)')
    failing.expect("making")
    follower, made = aside(lambda: cache.make("fails", lambda: b"by the follower", 30))
    wait_until(lambda: cache.cache.stats().waits == 2, "the follower waits")
    failing.tell()
    assert failing.outcome().startswith("!ZeroDivisionError")
    follower.join(DEADLINE)
    assert made == [b"by the follower"]


@pytest.mark.parametrize("lease", [0, -1, 0.001, 1e12])
@hazard
def test_h11_a_lease_that_makes_no_sense_is_refused(world: World, lease: float) -> None:
    refused = ""
    try:
        world.open(lease=lease)
    except ValueError as error:
        refused = str(error)
    except Exception as error:
        refused = ""
        print(error)
    expect("lease" in refused, "it is refused when the cache is opened, in words")


@hazard
def test_h12_a_forked_child_leaves_its_parents_leases_alone(world: World) -> None:
    cache = world.open()
    cache.create("key", b"content")
    parent = world.program(
        """
block = cache.reading("key")
file = block.__enter__()
if os.fork() == 0:
    block.__exit__(None, None, None)
    os._exit(0)
os.wait()
say("forked")
hear()
say(file.read().decode())
""",
        lease=LONG,
    )
    parent.expect("forked")
    expect(cache.readers("key") == 1, "the parent's lease is there after its child left the block")
    parent.tell()
    parent.expect("content")


@ours_only
def test_h12_who_is_in_its_own_way_is_told_at_once(world: World) -> None:
    cache: Any = world.open()
    with cache.creating("key") as writer:
        began = time.monotonic()
        for wanted in (
            lambda: cache.cache.write("key", b"", timeout=30),
            lambda: cache.cache.read("key", timeout=30),
            lambda: cache.make("key", bytes, 30),
        ):
            assert cache.outcome(wanted) == "busy"
        expect(time.monotonic() - began < 5, "nobody waits for itself")
        writer.write(b"content")
    with cache.reading("key"):
        assert cache.outcome(lambda: cache.create("key", b"")) == "exists"
        cache.cache.replace("key", b"a reader is in nobody's way")


# -- publishing and the index


def sound(world: World, cache: Any) -> None:
    """Invariants at rest: each file is indexed, each entry has its file, the sum is correct."""
    indexed, total = cache.indexed(), cache.total()
    expect(total == sum(indexed.values()), f"the sum that eviction goes by is {total}, the sizes are {indexed}")
    files, on_disk = world.published(), world.disk_bytes()
    expect(len(files) == len(indexed), f"entries and files are the same: {sorted(indexed)}, {files}")
    expect(total == on_disk, f"{total} bytes are indexed, {on_disk} lie on the disk")
    expect(cache.members() == set(indexed), f"the order of use has the entries and no others: {cache.members()}")
    if world.ours:
        assert cache.cache.verify().problems == ()


@hazard
def test_h13_a_crash_between_publishing_and_the_index_is_completed_or_undone(world: World) -> None:
    cache: Any = world.open(max_bytes=10_000)
    # The server knows the scripts from now on: their texts have the word, too.
    cache.create("other", b"z")
    proxy = world.proxy()
    proxy.hold_request(world.pick(b"commit", b"HSET"))
    dead = world.program('cache.create("key", b"x" * 1000)', url=proxy.url, lease=LEASE)
    proxy.wait()
    assert len(world.published("key")) == 1
    dead.kill()

    def settled() -> bool:
        # Eventually it is content, or another process can make it.
        made = cache.outcome(lambda: cache.create("key", b"y" * 1000)) == "ok"
        return made or "key" in cache.indexed()

    world.expect_soon(settled, "the file is content, or is evicted for others")
    cache.maintain()
    sound(world, cache)


MANY_STEPS = """
cache.create("a", b"x" * 1000)
cache.create("b" * 200, b"z" * 1000)
cache.read("a")
for number in range(4):
    cache.create(f"k{number}", b"w" * 1500)
"""


@pytest.mark.parametrize("coordination", ["server", "files"])
@hazard
def test_h13_a_crash_at_any_step_leaves_nothing_that_does_not_heal(world: World, coordination: str) -> None:
    url = world.url if coordination == "server" or not world.ours else None
    families = ["write", "truncate", "rename", "unlink", "fsync", "mkdir"]
    crashed: list[World] = []
    for number in itertools.count(0, 9):
        point = world.part(f"point-{number}")
        gate = point.gate()
        gate.hold_nth(str(point.root), number)
        options: dict[str, Any] = {"url": url, "max_bytes": 5000, "lease": LEASE}
        program = point.program(MANY_STEPS, gate=gate, families=families, from_start=True, **options)
        wait_until(lambda gate=gate, program=program: gate.is_holding() or program.has_spoken(), "it comes to the step")
        if not gate.is_holding():
            program.expect("done")
            break
        program.kill()
        crashed.append(point)
    assert len(crashed) >= world.pick(5, 2)
    pass_time(LEASE + 0.8)
    for point in crashed:
        cache: Any = point.open(url=url, max_bytes=5000)
        cache.create("new", b"n" * 10)
        cache.maintain()
        waste = cache.cache.info().garbage_bytes if world.ours else 0
        known, there = cache.total(), point.disk_bytes()
        # An evicted file may not be known to be unlinked yet.
        expect(known <= there <= known + waste, f"{point.root.name}: {there} bytes lie there, {known} are known")
        expect(not point.temporaries(), f"{point.root.name}: nothing unfinished is left")
        if world.ours:
            assert cache.cache.verify().problems == ()
            assert not cache.cache.locks()


@hazard
def test_h14_a_change_of_the_index_is_done_wholly_or_not_at_all(world: World) -> None:
    cache: Any = world.open()
    proxy = world.proxy()
    for number in range(8):
        for lose in (proxy.cut_request, proxy.drop_reply):
            key = f"key-{number}-{lose.__name__}"
            through = world.open(url=proxy.url)
            lose(b"", skip=number)
            with contextlib.suppress(OSError, RedisError, CacheError):
                through.create(key, b"x" * 10)
            proxy.forget_rules()
            through.close()
    # A file is deleted by hand, and is made again.
    cache.create("by-hand", b"x" * 10)
    for path in world.published("by-hand"):
        path.unlink()
    assert cache.outcome(lambda: cache.read("by-hand")) == "missing"
    cache.create("by-hand", b"x" * 10)
    cache.maintain()
    sound(world, cache)


@hazard
def test_h15_what_was_published_is_not_reported_as_failed(world: World) -> None:
    cache: Any = world.open()
    proxy = world.proxy()
    through: Any = world.open(url=proxy.url)
    through.create("first", b"content")
    proxy.drop_reply(world.pick(b"commit", b"INCRBY"))
    said = through.outcome(lambda: through.create("key", b"content"))
    expect(said == "ok", f"it was published, and its writer hears {said!r}")
    assert cache.read("key") == b"content"
    # If the server is away for longer, the writer gets an error; its file becomes content when the server is back.
    proxy.hold_request(b"commit")
    thread, result = aside(lambda: through.outcome(lambda: through.create("later", b"content")))
    held = proxy.wait()
    proxy.cut()
    held.cut()
    thread.join(DEADLINE)
    assert result == ["unavailable"]
    assert cache.outcome(lambda: cache.create("later", b"other")) == "busy"
    proxy.heal()
    wait_until(lambda: cache.outcome(lambda: cache.read("later")) == "ok", "the commit is made up for")
    assert cache.read("later") == b"content"
    sound(world, cache)


@hazard
def test_h16_a_lost_index_is_rebuilt_and_the_bound_holds(world: World) -> None:
    server = world.own_server()
    url = f"redis://127.0.0.1:{server.port}/0"
    cache: Any = world.open(url=url, max_bytes=60_000)
    for number in range(40):
        cache.create(f"old-{number}", b"x" * 1000)
    world.redis(server).flushall()
    for number in range(20):
        assert cache.read(f"old-{number}") == b"x" * 1000
    expect(cache.outcome(lambda: cache.create("old-7", b"y")) == "exists", "what is there is known to be there")
    for number in range(50):
        cache.create(f"new-{number}", b"y" * 1000)
    expect(world.disk_bytes() <= 60_000, f"{world.disk_bytes()} bytes under a bound of 60000")
    # Entries that were read since were not evicted first.
    indexed = cache.indexed()
    assert "old-19" in indexed
    assert "old-30" not in indexed
    sound(world, cache)


@ours_only
def test_h16_limits_that_were_changed_survive_a_lost_index(world: World) -> None:
    server = world.own_server()
    url = f"redis://127.0.0.1:{server.port}/0"
    cache, other = [world.open(url=url, max_bytes=1000) for _ in range(2)]
    other.cache.configure(max_bytes=5000)  # type: ignore[attr-defined]
    world.redis(server).flushall()
    assert cache.outcome(lambda: cache.read("absent")) == "missing"
    assert cache.cache.info().limits.max_bytes == 5000  # type: ignore[attr-defined]


@ours_only
def test_h16_a_lost_index_ends_leases_and_their_holders_know(world: World) -> None:
    server = world.own_server()
    url = f"redis://127.0.0.1:{server.port}/0"
    cache: Any = world.open(url=url)
    cache.create("key", b"content")
    with cache.reading("key") as handle:
        writer = cache.creating("new")
        writer.write(b"x")
        world.redis(server).flushall()
        assert cache.read("key") == b"content"
        wait_until(lambda: handle.lease_lost and writer.lease_lost, "they know")
        assert cache.outcome(writer.commit) == "lease-lost"
        assert handle.read() == b"content"
    cache.create("new", b"again")
    cache.maintain()
    sound(world, cache)


@hazard
def test_h17_an_entry_whose_file_is_gone_goes_too(world: World) -> None:
    cache: Any = world.open(max_bytes=60_000)
    for number in range(20):
        cache.create(f"key-{number:02}", b"x" * 1000)
    for number in range(10):
        (path,) = world.published(f"key-{number:02}")
        path.unlink()
    for number in range(20):
        assert cache.outcome(lambda number=number: cache.read(f"key-{number:02}")) == (
            "missing" if number < 10 else "ok"
        )
    sound(world, cache)
    cache.create("key-03", b"again")
    assert cache.read("key-03") == b"again"
    sound(world, cache)


@pytest.mark.parametrize("what", ["temporary", "files", "quarantine"])
@ours_only
def test_h17_a_folder_that_was_cleaned_away_is_made_again(world: World, what: str) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    remove(world.directory / what)
    assert cache.outcome(lambda: cache.create("new", b"content")) == "ok"
    assert cache.read("new") == b"content"
    assert cache.outcome(lambda: cache.read("key")) == ("missing" if what == "files" else "ok")
    cache.maintain()
    sound(world, cache)


@ours_only
def test_h17_a_directory_that_is_gone_is_told_as_such(world: World) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    remove(world.directory)
    assert cache.outcome(lambda: cache.read("key")) == "io"
    said = cache.outcome(lambda: cache.create("new", b"content"))
    expect(said not in ("ok", "lease-lost"), f"its writer heard {said!r}")


@hazard
def test_h18_a_late_note_of_use_revives_nothing(world: World) -> None:
    cache: Any = world.open(max_bytes=10_000)
    cache.create("key", b"x" * 4000)
    proxy = world.proxy()
    through = world.open(url=proxy.url)

    def read() -> None:
        with through.reading("key") as file:
            file.read()

    read()
    if world.ours:
        # The release of this lease also loads its script.
        wait_until(lambda: not cache.cache.locks(), "the first lease is released")
    (proxy.hold_reply if world.ours else proxy.hold_request)(world.pick(b"release", b"ZADD"))
    thread, _ = aside(read)
    held = proxy.wait()
    # The reader has finished, except for its last output.
    cache.evict_all()
    assert not world.published("key")
    held.go_on()
    thread.join(DEADLINE)
    wait_until(lambda: through.outcome(lambda: through.read("key")) == "missing", "its connection is free again")
    sound(world, cache)
    for number in range(6):
        cache.create(f"key-{number}", b"x" * 4000)
    expect(world.disk_bytes() <= 10_000, "the bound holds")


@hazard
def test_h19_files_that_killed_writers_left_go_and_a_live_ones_stays(world: World) -> None:
    cache: Any = world.open()
    slow = world.program(
        """
with cache.creating("slow") as file:
    file.write(b"x" * 100_000)
    file.flush()
    say("writing")
    hear()
"""
    )
    slow.expect("writing")
    (live,) = world.temporaries()
    many = world.program(
        """
import signal
children = []
for number in range(20):
    child = os.fork()
    if child == 0:
        block = cache.creating(f"key-{number}")
        file = block.__enter__()
        file.write(b"x" * 100_000)
        file.flush()
        say("written")
        signal.pause()
    children.append(child)
hear()
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
say("killed")
""",
        lease=LIVE,
    )
    for _ in range(20):
        many.expect("written")
    assert len(world.temporaries()) == 21
    many.tell()
    many.expect("killed")

    def swept() -> bool:
        cache.maintain()
        return world.temporaries() == [live]

    world.expect_soon(swept, "only the live writer's file is left", naive_deadline=2 * LIVE)
    slow.tell()
    assert slow.outcome() == "done"
    assert cache.read("slow") == b"x" * 100_000
    cache.maintain()
    sound(world, cache)


@dataclass
class Cluster:
    """Three masters that share the slots, and a replica of the second one."""

    servers: list[Server]

    def node_of(self, namespace: str) -> int:
        with self.servers[0].client() as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", f"{{{namespace}}}"))
        return next(number for number, (_, last) in enumerate(self.slots) if slot <= last)

    slots = ((0, 5460), (5461, 10922), (10923, 16383))

    def namespace_on(self, node: int, name: str) -> str:
        """A namespace whose keys this node has."""
        return next(found for found in (f"{name}-{number}" for number in range(1000)) if self.node_of(found) == node)

    def url(self, node: int) -> str:
        return f"redis://127.0.0.1:{self.servers[node].port}/0"


@pytest.fixture
def cluster(world: World) -> Cluster:
    options = {"cluster-enabled": "yes", "cluster-node-timeout": 1000, **AT_ONCE}
    options |= {"cluster-require-full-coverage": "no", "cluster-replica-validity-factor": 0}
    cluster = Cluster([world.own_server(**options, **{"cluster-port": free_port()}) for _ in range(4)])
    clients = [world.redis(server) for server in cluster.servers]
    for client, (first, last) in zip(clients, cluster.slots):
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
    for epoch, client in enumerate(clients, 1):
        # As `redis-cli --cluster create` does. Nodes that meet with equal epochs change them for a while, and what a
        # replica claims during that time may be refused for good.
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
    for server in cluster.servers[1:]:
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, server.conf["cluster-port"])

    def infos() -> list[dict[str, str]]:
        return [client.cluster("info") for client in clients]

    wait_until(
        lambda: all(info["cluster_slots_ok"] == "16384" and info["cluster_known_nodes"] == "4" for info in infos()),
        "all nodes know all slots",
    )
    second = clients[1].execute_command("CLUSTER", "MYID")
    clients[3].execute_command("CLUSTER", "REPLICATE", second.decode() if isinstance(second, bytes) else second)
    wait_until(lambda: clients[3].info("replication").get("master_link_status") == "up", "the replica is in step")
    return cluster


@hazard
def test_h20_everything_works_in_a_cluster_whichever_node_is_named(world: World, cluster: Cluster) -> None:
    namespace = cluster.namespace_on(1, "hazard")
    cache: Any = world.open(url=cluster.url(0), namespace=namespace, max_bytes=10_000)
    said = cache.outcome(lambda: cache.create("key", b"content"))
    expect(said == "ok", f"a writer that asked another node heard {said!r}")
    assert cache.read("key") == b"content"
    other: Any = world.open(url=cluster.url(2), namespace=namespace)
    with other.reading("key") as handle:
        cache.cache.replace("key", b"newer")
        assert handle.read() == b"content"
    assert other.read("key") == b"newer"
    # Waiting calls are woken, even if they listen at another node.
    writer = cache.creating("slow")
    waiting, result = aside(lambda: other.read_waiting("slow", 20))
    wait_until(lambda: other.cache.stats().waits == 1, "it waits")
    writer.write(b"slow")
    writer.commit()
    waiting.join(DEADLINE)
    assert result == [b"slow"]
    for number in range(10):
        cache.create(f"key-{number}", b"x" * 2000)
    assert world.disk_bytes() <= 10_000
    assert other.make("made", lambda: b"made", 5) == b"made"
    assert cache.cache.delete("made")
    assert cache.cache.pin("key-9")
    assert cache.cache.evict(to_bytes=0).entries > 0
    assert list(cache.indexed()) == ["key-9"]
    other.maintain()
    sound(world, other)
    assert {finding.level for finding in cache.cache.doctor()} <= {"ok", "warning"}
    # Coroutines and the command line as well.
    assert asyncio.run(_asynchronously(world.directory, cluster.url(2), namespace)) == b"by a coroutine"
    command = Cache(world.directory, cluster.url(0), namespace=namespace)
    assert command.get("coroutine") == b"by a coroutine"
    command.put("command", b"by the command line")
    assert cache.read("command") == b"by the command line"
    # Databases other than 0 do not exist in clusters.
    with pytest.raises(CacheError) as refused:
        world.open(url=cluster.url(1).replace("/0", "/3"), namespace=namespace)
    assert refused.value.code in ("bad-config", "unavailable")
    assert any(words in str(refused.value).lower() for words in ("cluster", "no such database")), refused.value


async def _asynchronously(directory: Path, url: str, namespace: str) -> bytes:
    async with AsyncFileCache(directory, url, namespace=namespace) as cache:
        await cache.write("coroutine", b"by a coroutine")
        return await cache.read("coroutine")


@ours_only
def test_h40_when_the_owner_of_the_slot_dies_its_replica_is_found(world: World, cluster: Cluster) -> None:
    namespace = cluster.namespace_on(1, "hazard")
    cache: Any = world.open(url=cluster.url(0), namespace=namespace)
    cache.create("key", b"content")
    assert cache.read("key") == b"content"
    cluster.servers[1].kill()
    world.redis(cluster.servers[3]).execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    first, promoted = world.redis(cluster.servers[0]), f"127.0.0.1:{cluster.servers[3].port}"
    wait_until(
        lambda: "slots" in first.cluster("nodes").get(promoted, {}) and first.cluster("nodes")[promoted]["slots"],
        "all know",
    )
    said: list[str] = []

    def asked() -> bool:
        said.append(cache.outcome(lambda: cache.read("key")))
        return said[-1] == "ok"

    world.expect_soon(asked, "the promoted replica is asked")
    cache.create("new", b"content")
    sound(world, cache)


@hazard
def test_h21_a_directory_and_an_index_that_do_not_belong_together_are_refused(world: World) -> None:
    first = world.open()
    first.create("key", b"content")
    other = world.own_server()

    def open_elsewhere(**more: Any) -> str:
        try:
            world.open(**more)
        except Exception as error:
            return getattr(error, "code", type(error).__name__)
        return "ok"

    wrong = {
        "another namespace": {"namespace": "another"},
        "another directory": {"directory": world.root / "elsewhere"},
        "another server": {"url": f"redis://127.0.0.1:{other.port}/0"},
        "no server": {"url": None} if world.ours else {"url": f"redis://127.0.0.1:{other.port}/1"},
    }
    for what, options in wrong.items():
        expect(open_elsewhere(**options) == "bad-config", f"{what} for the directory is refused")
    with pytest.raises(CacheConfigError, match="adopt"):
        world.open(namespace="another")
    moved: Any = world.open(namespace="another", adopt=True)
    assert moved.read("key") == b"content"


# -- eviction


def overfill(world: World, gate: Any = None, **options: Any) -> Program:
    """A process whose write evicts the oldest entry to free space."""
    families = [] if gate is None else ["unlink"]
    return world.program('cache.create("new", b"n" * 4000)', gate=gate, families=families, max_bytes=10_000, **options)


# How long the naive cache's claims to evict are valid.
SHORT_CLAIMS = {"purge_ms": round(LEASE * 1000), "evicting_ms": round(LEASE * 1000)}


def evicting(world: World, **options: Any) -> tuple[Any, Program, Any]:
    """A cache, a process that evicts `a-old` from it, and a gate that holds it just before the file is unlinked."""
    cache: Any = world.open(max_bytes=10_000, **options)
    for key in ("a-old", "b-mid"):
        cache.create(key, b"x" * 4000)
    gate = world.gate()
    gate.hold("unlink", "a-old")
    evictor = overfill(world, gate, **options)
    return cache, evictor, gate.wait()


@hazard
def test_h22_nobody_starts_to_read_what_is_being_evicted(world: World) -> None:
    cache, evictor, held = evicting(world)
    (path,) = world.published("a-old")
    assert path.exists()
    with contextlib.ExitStack() as reading:
        began = cache.outcome(lambda: reading.enter_context(cache.reading("a-old")))
        held.go_on()
        assert evictor.outcome() == "done"
        expect(path.exists() or began != "ok", "a reader that was let in keeps its file")
        assert began == "missing"


@hazard
def test_h23_an_evictor_that_was_late_does_not_delete_a_newer_file(world: World) -> None:
    cache, late, held = evicting(world, **SHORT_CLAIMS)
    late.stop()
    if not world.ours:
        wait_until(lambda: not cache.cache.redis.exists(cache.cache.evicting("a-old")), "its claim ends")
        cache.cache.evict_one()
    cache.create("a-old", b"newer")
    held.go_on()
    late.go_on()
    late.hear()
    expect(cache.outcome(lambda: cache.read("a-old")) == "ok", "the newer file is there")
    assert cache.read("a-old") == b"newer"
    sound(world, cache)


@hazard
def test_h24_a_file_that_cannot_go_does_not_stop_the_others_from_going(world: World) -> None:
    cache: Any = world.open(max_bytes=10_000)
    cache.create("pinned", b"x" * 3000)
    with cache.reading("pinned"):
        for number in range(6):
            cache.create(f"key-{number}", b"x" * 3000)
            expect(world.disk_bytes() <= 10_000, f"{world.disk_bytes()} bytes under a bound of 10000")
        expect(world.published("pinned"), "what is read stays")
    if world.ours:
        # If nothing can be evicted, the error says so.
        with contextlib.ExitStack() as reading:
            for key in cache.indexed():
                reading.enter_context(cache.reading(key))
            assert cache.outcome(lambda: cache.create("no-room", b"x" * 3000)) == "no-space"


@hazard
def test_h25_the_bound_holds_while_many_write(world: World) -> None:
    bound, size, writers, each = 100_000, 4000, 4, 40
    caches = [world.open(max_bytes=bound, durability="none") for _ in range(writers)]
    peak, slowest = [0], [0.0]

    def write(number: int) -> None:
        for count in range(each):
            began = time.monotonic()
            caches[number].create(f"key-{number}-{count}", b"x" * size)
            slowest[0] = max(slowest[0], time.monotonic() - began)
            peak[0] = max(peak[0], world.disk_bytes())

    threads = [aside(lambda number=number: write(number)) for number in range(writers)]
    for thread, result in threads:
        thread.join(DEADLINE)
        assert result == [None]
    # Files being removed no longer count, and reserved space does: this much may exist in addition.
    margin = writers * (size + bound // 10)
    expect(peak[0] <= bound + margin, f"{peak[0]} bytes were there under a bound of {bound}")
    expect(slowest[0] < 10.0, f"no writer pays for the others: the slowest write took {slowest[0]:.1f} s")


@hazard
def test_h26_two_who_evict_at_once_count_once(world: World) -> None:
    cache, late, held = evicting(world, **SHORT_CLAIMS)
    late.stop()
    if not world.ours:
        names = [cache.cache.evicting("a-old"), cache.cache.mutex]
        wait_until(lambda: not cache.cache.redis.exists(*names), "its claim and its mutex end")
    else:
        wait_until(lambda: cache.outcome(lambda: cache.create("prompt", b"y" * 4000)) == "ok", "another evicts")
    if not world.ours:
        cache.create("prompt", b"y" * 4000)
    held.go_on()
    late.go_on()
    late.outcome()
    if world.ours:
        cache.maintain()
    sound(world, cache)


@hazard
def test_h27_a_refusal_leaves_the_order_as_it_was(world: World) -> None:
    cache: Any = world.open(max_bytes=10_000, purge_ms=1)
    for key in ("a", "b", "c"):
        cache.create(key, b"x" * 3000)
    lease = world.pick(2.0, LONG)
    reader = world.program('block = cache.reading("a"); block.__enter__(); say("reading"); hear()', lease=lease)
    reader.expect("reading")
    for key in ("b", "c"):
        cache.read(key)
    cache.create("d", b"x" * 3000)
    assert world.published("a")
    reader.kill()
    if not world.ours:
        # Another lock that expires, and must not do so earlier.
        cache.cache.redis.delete(*cache.cache._locks("a"))
    wait_until(lambda: cache.readers("a") == 0, "its lease ends")
    cache.create("e", b"x" * 3000)
    expect(not world.published("a"), "what was the oldest is the first to go once it can")
    expect(world.published("d"), "and what is newer stays")


@hazard
def test_h27_a_file_that_cannot_be_deleted_is_not_forgotten(world: World) -> None:
    cache: Any = world.open(max_bytes=10_000)
    for key in ("a-old", "b-mid"):
        cache.create(key, b"x" * 4000)
    (path,) = world.published("a-old")
    gate = world.gate()
    gate.fail("unlink", errno.EPERM, "a-old")
    assert overfill(world, gate).outcome() == "done"
    assert path.exists()
    known = sum(cache.indexed().values()) + (cache.cache.info().garbage_bytes if world.ours else 0)
    expect(known == world.disk_bytes(), f"{world.disk_bytes()} bytes lie there, {known} are known")

    def gone() -> bool:
        cache.maintain()
        return not path.exists()

    world.expect_soon(gone, "it is tried again")
    sound(world, cache)


@hazard
def test_h28_what_is_larger_than_the_bound_is_refused_and_costs_nobody(world: World) -> None:
    cache: Any = world.open(max_bytes=10_000)
    for key in ("a", "b"):
        cache.create(key, b"x" * 1000)
    said = cache.outcome(lambda: cache.create("huge", b"x" * 50_000))
    expect(said == "too-large", f"it is refused; the writer heard {said!r}")

    def stream() -> None:
        with cache.creating("huge") as file:
            for _ in range(1000):
                file.write(b"x" * 1000)

    expect(cache.outcome(stream) == "too-large", "also when its size is not known before")
    expect(set(cache.indexed()) == {"a", "b"}, "the others are there")
    sound(world, cache)


@hazard
def test_h29_clocks_of_hosts_do_not_decide_what_goes(world: World) -> None:
    ahead = ["unshare", "--time", "--monotonic", "864000", "--boottime", "864000"]
    if subprocess.run([*ahead, "true"], capture_output=True).returncode != 0:
        pytest.skip("a process with a clock of its own needs root and time namespaces")
    cache: Any = world.open(max_bytes=10_000)
    host = world.program('cache.create("first", b"x" * 3000)', before=ahead, max_bytes=10_000)
    assert host.outcome() == "done"
    for key in ("second", "third"):
        cache.create(key, b"x" * 3000)
    cache.create("fourth", b"x" * 3000)
    expect(not world.published("first"), "what was used first goes first, whatever its host's clock says")
    assert world.published("third")


@hazard
def test_h30_what_is_kept_grows_with_what_is_there(world: World) -> None:
    server = world.own_server()
    cache: Any = world.open(url=f"redis://127.0.0.1:{server.port}/0", max_bytes=10_000, purge_ms=1, durability="none")
    for number in range(300):
        cache.create(f"key-{number}", b"x" * 4000)
    cache.maintain()
    redis = world.redis(server)
    counts = {
        "none": lambda _: 0,
        "string": lambda _: 1,
        "list": redis.llen,
        "set": redis.scard,
        "hash": redis.hlen,
        "zset": redis.zcard,
    }
    kept = sum(counts[redis.type(key).decode()](key) for key in redis.keys(f"*{world.namespace}*"))
    expect(kept <= 40, f"{kept} things are kept for {len(cache.indexed())} entries")


@ours_only
def test_h30_looking_for_many_keys_leaves_nothing_in_memory(world: World) -> None:
    program = world.program(
        """
def look(beginning):
    for number in range(4000):
        cache.outcome(lambda: cache.read_waiting(f"{beginning}-{number}-{'x' * 1000}", 1.0))
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
first = look("first")
say(look("second") - first)
""",
        url=None,
    )
    grown = int(program.hear(60.0))
    expect(grown < 2 << 20, f"{grown} bytes are kept for 4000 keys of 1000 bytes that nobody made")


@hazard
def test_h31_idle_entries_end_without_traffic(world: World) -> None:
    cache = world.open(max_idle=0.3, maintenance=0.1)
    cache.create("key", b"content")
    world.expect_soon(lambda: not world.published(), "an idle entry ends although nobody does anything")


@hazard
def test_h31_the_number_of_entries_is_bounded(world: World) -> None:
    cache = world.open(max_entries=5)
    for number in range(20):
        cache.create(f"key-{number}", b"x")
        expect(len(world.published()) <= 6, "about 5 files")
    assert len(world.published()) <= 5


@hazard
def test_h31_other_peoples_data_keeps_its_room(world: World) -> None:
    disk = world.small_disk("8m")
    world.root = disk
    cache = world.open(min_free_bytes=2 << 20, maintenance=0.1)
    for number in range(5):
        cache.create(f"key-{number}", b"x" * (1 << 20))
    (disk / "of-others").write_bytes(b"x" * (2 << 20))

    def free() -> bool:
        stat = os.statvfs(disk)
        return stat.f_bavail * stat.f_frsize >= 2 << 20

    world.expect_soon(free, "entries are evicted for others")


# -- the file system


@hazard
def test_h32_entries_are_evicted_when_the_disk_is_full(world: World) -> None:
    world.root = world.small_disk("8m")
    cache: Any = world.open(max_bytes=100 << 20)

    def stream(key: str) -> None:
        with cache.creating(key) as file:
            for _ in range(10):
                file.write(b"x" * 100_000)

    said = [cache.outcome(lambda number=number: cache.create(f"w{number}", b"x" * 1_000_000)) for number in range(12)]
    said += [cache.outcome(lambda number=number: stream(f"s{number}")) for number in range(12)]
    expect(said == ["ok"] * 24, f"all are written, the oldest are evicted: {said}")
    for key, size in cache.indexed().items():
        assert cache.read(key) == b"x" * size
    # If nothing can be evicted, the error says so, and nothing is left of the attempt.
    with contextlib.ExitStack() as reading:
        for key in cache.indexed():
            reading.enter_context(cache.reading(key))
        expect(cache.outcome(lambda: stream("no-room")) == "no-space", "a full disk is its own outcome")
    assert not world.temporaries()
    cache.maintain()
    sound(world, cache)


@ours_only
def test_h32_what_can_never_fit_costs_nobody(world: World) -> None:
    world.root = world.small_disk("4m")
    cache: Any = world.open()
    for number in range(3):
        cache.create(f"k{number}", b"x" * 700_000)
    before = cache.indexed()

    def stream() -> None:
        with cache.creating("stream") as file:
            for _ in range(80):
                file.write(b"x" * 100_000)

    assert cache.outcome(lambda: cache.create("huge", b"x" * 8_000_000)) == "no-space"
    assert cache.indexed() == before
    # For content of unknown length it shows only when nothing is left.
    assert cache.outcome(stream) == "no-space"
    assert not world.temporaries()
    sound(world, cache)


@hazard
def test_h33_users_of_a_group_share_a_cache(world: World) -> None:
    group = 4242
    directory = world.folder("cache")
    if os.geteuid() != 0:
        pytest.skip("acting as another user needs root")
    os.chown(directory, 0, group)
    directory.chmod(0o2770)
    modes = {"directory_mode": 0o770, "file_mode": 0o640}
    maker = world.program(
        'cache.create("key", b"content"); say(cache.read("key").decode())', user=(12345, group), **modes
    )
    maker.expect("content")
    reader = world.program('say(cache.read("key").decode())', user=(12346, group), **modes)
    said = reader.hear()
    expect(said == "content", f"another user of the group reads it; it heard {said!r}")


@ours_only
def test_h33_who_may_only_read_can_read_and_others_are_denied(world: World) -> None:
    cache: Any = world.open(directory_mode=0o755, file_mode=0o644)
    cache.create("key", b"content")
    reader = world.program(
        'say(cache.read("key").decode()); say(cache.outcome(lambda: cache.create("new", b"")))',
        user=(12345, 12345),
        read_only=True,
    )
    reader.expect("content")
    reader.expect("denied")
    world.published("key")[0].chmod(0o600)
    stranger = world.program('say(cache.outcome(lambda: cache.read("key")))', user=(12345, 12345), read_only=True)
    stranger.expect("denied")
    assert cache.read("key") == b"content"


@ours_only
def test_h33_a_group_shares_a_cache_without_a_server(world: World) -> None:
    group = 4242
    directory = world.folder("cache")
    if os.geteuid() != 0:
        pytest.skip("acting as another user needs root")
    os.chown(directory, 0, group)
    directory.chmod(0o2770)
    modes: dict[str, Any] = {"directory_mode": 0o2770, "file_mode": 0o660, "url": None}
    world.program('cache.create("key", b"content"); say("made")', user=(12345, group), **modes).expect("made")
    other = world.program(
        'say(cache.read("key").decode()); cache.create("more", b"x"); cache.maintain(); say(cache.cache.verify().ok)',
        user=(12346, group),
        **modes,
    )
    other.expect("content")
    other.expect("True")


HOSTILE_KEYS = [
    "",
    "nul\0",
    "k" * 250,
    "k" * 300,
    "k" * 4096,
    "k" * 4097,
    ".",
    "..",
    "../escape",
    "a/../b",
    "/etc/hazard",
    "back\\slash",
    "new\nline",
    "A",
    "a",
    "e\u0301",
    "\u00e9",
    "CON",
    "dot.",
    " ",
    "*",
]


@hazard
def test_h34_any_key_is_a_key_or_is_refused_before_anything_is_done(world: World) -> None:
    cache: Any = world.open()
    said = {}
    for number, key in enumerate(HOSTILE_KEYS):
        content = b"%d" % number
        said[key] = cache.outcome(lambda key=key, content=content: cache.create(key, content))
    refused = {key for key, word in said.items() if word != "ok"}
    expect(refused == {"", "k" * 4097}, f"only what is no key is refused: {said}")
    for number, key in enumerate(HOSTILE_KEYS):
        if key in refused:
            assert said[key] == cache.outcome(lambda key=key: cache.read(key)) == "bad-key"
        else:
            assert cache.read(key) == b"%d" % number
    assert cache.cache.locks() == []
    assert sorted(path.name for path in world.root.iterdir()) == ["cache"]
    sound(world, cache)


@hazard
def test_h35_a_planted_link_gives_nothing_away(world: World) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    secret = world.root / "secret"
    secret.write_bytes(b"secret!")
    (path,) = world.published("key")
    path.unlink()
    path.symlink_to(secret)
    given: list[bytes] = []
    said = cache.outcome(lambda: given.append(cache.read("key")))
    expect(b"secret!" not in given, "no file from outside is given out")
    assert said == "corrupt"
    # Nor does a pipe block the call.
    cache.create("pipe", b"content")
    (path,) = world.published("pipe")
    path.unlink()
    os.mkfifo(path)
    thread, result = aside(lambda: cache.outcome(lambda: cache.read("pipe")))
    thread.join(5.0)
    assert result == ["corrupt"]


@ours_only
def test_h35_a_planted_directory_link_leads_nowhere(world: World) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    cache.create("other", b"content")
    shard = world.published("key")[0].parent
    outside = world.folder("outside")
    name = world.published("key")[0].name
    assert cache.cache.delete("key")
    (outside / name).write_bytes(b"of somebody else")
    remove(shard)
    shard.symlink_to(outside)
    before = outside.stat().st_mtime_ns
    assert cache.outcome(lambda: cache.create("key", b"newer")) != "ok", "it is refused"
    expect(outside.stat().st_mtime_ns == before, "nothing was written or deleted there, not even for a moment")
    assert [path.name for path in outside.iterdir()] == [name]
    # The rest of the cache continues to work.
    expect(cache.outcome(cache.maintain) == "ok", "maintenance of the others continues")
    assert cache.read("other") == b"content"


@ours_only
def test_h35_a_directory_that_a_stranger_made_is_refused(world: World) -> None:
    planted = world.root / "planted"
    planted.mkdir()
    if os.geteuid() != 0:
        pytest.skip("acting as another user needs root")
    os.chown(planted, 666, 666)
    stranger = world.program(
        'cache.create("key", b"planted")', directory=planted, user=(666, 666), directory_mode=0o777
    )
    stranger.outcome()
    for path in [planted, *planted.rglob("*")]:
        path.chmod(0o777 if path.is_dir() and path != planted else 0o755 if path == planted else 0o666)
    victim = world.program('say(cache.read("key"))', directory=planted, user=(12345, 12345))
    said = victim.hear()
    expect(said.startswith("!CacheDeniedError"), f"it is refused; the victim heard {said!r}")
    # Nor is one used that all users may write to.
    anybody = world.folder("anybody")
    anybody.chmod(0o777)
    with pytest.raises(PermissionError, match="writable by all users"):
        world.open(directory=anybody, namespace="anybody")


@pytest.mark.parametrize("how", ["flipped", "halved", "emptied", "swapped", "grown"])
@hazard
def test_h36_damaged_content_is_never_given_out(world: World, how: str) -> None:
    cache: Any = world.open()
    content = bytes(range(256)) * 40
    cache.create("key", content)
    cache.create("other", content[::-1])
    (path,), (other,) = world.published("key"), world.published("other")
    path.chmod(0o600)
    damaged = {
        "flipped": content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        "halved": content[: len(content) // 2],
        "emptied": b"",
        "swapped": other.read_bytes(),
        "grown": content + b"x",
    }[how]
    path.write_bytes(damaged)
    given: list[bytes] = []
    said = cache.outcome(lambda: given.append(cache.read("key")))
    expect(not given, f"it is not given out; the reader heard {said!r}")
    assert said == "corrupt"
    assert cache.outcome(lambda: cache.read("key")) == "missing"
    assert [kept.read_bytes() for kept in (world.directory / "quarantine").iterdir()] == [damaged]
    # As a file it is detected when it is read to the end, and can be made again.
    assert cache.make("key", lambda: content, 1.0) == content
    (path,) = world.published("key")
    path.chmod(0o600)
    path.write_bytes(damaged)

    def to_the_end() -> None:
        with cache.reading("key") as file:
            while file.read(1000):
                pass

    assert cache.outcome(to_the_end) == "corrupt"
    cache.create("key", content)
    sound(world, cache)


@ours_only
def test_h36_quarantined_files_can_be_cleared_away(world: World) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    world.published("key")[0].write_bytes(b"damaged")
    assert cache.outcome(lambda: cache.read("key")) == "corrupt"
    assert len(list((world.directory / "quarantine").iterdir())) == 1
    cache.cache.clear()
    assert not list((world.directory / "quarantine").iterdir())


@ours_only
def test_h36_a_damaged_entry_is_made_again_at_once(world: World) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    (path,) = world.published("key")
    path.chmod(0o600)
    path.write_bytes(b"short")
    assert cache.make("key", lambda: b"content", 1.0) == b"content"


@hazard
def test_h37_a_name_is_on_the_disk_before_anybody_hears_of_it(world: World) -> None:
    world.open()
    proxy = world.proxy()
    gate = world.gate()
    writer = world.program(
        'cache.create("key", b"content"); say("done")', url=proxy.url, gate=gate, families=["fsync", "rename", "mkdir"]
    )
    proxy.hold_request(world.pick(b"commit", b"HSET"))
    held = proxy.wait()
    passed = [(call.family, call.paths) for call in gate.log]
    held.go_on()
    writer.expect("done")
    (path,) = world.published("key")

    def position(family: str, part: str) -> int:
        return next((at for at, (what, paths) in enumerate(passed) if what == family and paths[-1].endswith(part)), -1)

    renamed = position("rename", path.name)
    assert renamed > 0
    synced_first = passed[0][0] == "fsync" and renamed > 0
    expect(synced_first, f"the content is synced before it is published: {passed}")
    synced = position("fsync", f"/{path.parent.name}")
    expect(synced > renamed, f"its directory is synced after it and before the commit: {passed}")
    made = position("mkdir", path.parent.name)
    if made >= 0:
        expect(position("fsync", "/files") > made, f"and so is a directory that was made for it: {passed}")


@ours_only
def test_h37_a_file_that_a_library_renamed_into_place_is_synced(world: World) -> None:
    gate = world.gate()
    writer = world.program(
        """
with cache.creating("key") as file:
    new = f"{file.path}.new"
    open(new, "wb").write(b"by a library")
    os.replace(new, file.path)
say(cache.read("key").decode())
""",
        gate=gate,
        families=["fsync", "rename"],
    )
    writer.expect("by a library")
    (path,) = world.published("key")
    published = next(at for at, call in enumerate(gate.log) if call.paths[-1].endswith(path.name))
    source = gate.log[published].paths[0]
    synced = [call.paths[0] for call in gate.log[:published] if call.family == "fsync"]
    expect(source in synced, f"the file that is published is synced: {synced}")


@hazard
def test_h37_what_could_not_be_synced_is_not_published(world: World) -> None:
    cache = world.open()
    gate = world.gate()
    gate.fail("fsync", errno.EIO, world.pick("temporary/", "key"))
    writer = world.program(
        """
say(cache.outcome(lambda: cache.create("key", b"content")))
say(cache.outcome(lambda: cache.create("key", b"content")))
""",
        gate=gate,
        families=["fsync"],
    )
    said = [writer.hear(), writer.hear()]
    expect(said == ["io", "ok"], f"a failed sync is its own outcome, and nobody is in the way of the next: {said}")
    assert cache.read("key") == b"content"


@pytest.mark.parametrize("how", ["stale once", "late twice", "stale for good", "stale while reading", "renamed twice"])
@hazard
def test_h38_what_nfs_does_is_not_taken_for_damage(world: World, how: str) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    gate = world.gate()
    if how == "renamed twice":
        # The server of the file system did it and its reply was lost; the second attempt finds nothing to rename.
        program = world.program(
            'say(cache.outcome(lambda: cache.create("new", b"content")))', gate=gate, families=["rename"]
        )
        gate.hold("rename", "new")
        held = gate.wait()
        os.rename(*held.paths)
        held.fail(errno.ENOENT)
        said = program.hear()
        expect(said == "ok", f"what was done is done; the writer heard {said!r}")
        assert cache.read("new") == b"content"
        return
    rules: dict[str, tuple[str, int, int, set[str]]] = {
        "stale once": ("open", errno.ESTALE, 1, {"ok"}),
        "late twice": ("open", errno.ENOENT, 2, {"ok"}),
        "stale for good": ("open", errno.ESTALE, 20, {"missing"}),
        "stale while reading": ("read", errno.ESTALE, 1, {"ok"}),
    }
    family, number, times, expected = rules[how]
    reader = world.program(
        'hear(); say(cache.outcome(lambda: cache.read("key")))', gate=gate, families=[family], lease=LONG
    )
    gate.fail(family, number, world.pick("/key~", "/key"), times=times)
    reader.tell()
    said = reader.hear()
    expect(said in expected, f"the reader heard {said!r}")
    assert cache.readers("key") == 0


@ours_only
def test_h38_files_that_nfs_keeps_for_others_are_left_alone(world: World) -> None:
    cache: Any = world.open()
    cache.create("key", b"content")
    kept = world.published("key")[0].with_name(".nfs0000000000000001")
    kept.write_bytes(b"x")
    cache.maintain()
    assert kept.exists()
    sound(world, cache)
    kept.unlink()


# -- Redis


@hazard
def test_h39_a_server_that_hangs_is_not_waited_for_forever(world: World) -> None:
    server = world.own_server()
    cache: Any = world.open(url=f"redis://127.0.0.1:{server.port}/0", command_timeout=0.3)
    cache.create("key", b"content")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        thread, result = aside(lambda: cache.outcome(lambda: cache.read("key")))
        thread.join(world.pick(DEADLINE, 1.5))
        expect(not thread.is_alive(), "it gives up")
        assert result == ["unavailable"]
    finally:
        os.kill(server.pid, signal.SIGCONT)
    wait_until(lambda: cache.outcome(lambda: cache.read("key")) == "ok", "it works again, without a restart")


@pytest.mark.parametrize("how", ["killed", "paused", "silent", "cut", "restarted"])
@ours_only
def test_h39_an_outage_is_told_and_survived(world: World, how: str) -> None:
    server = world.own_server()
    proxy = world.proxy(server)
    limits: dict[str, Any] = {"url": proxy.url, "command_timeout": 0.3, "connect_timeout": 0.3}
    cache: Any = world.open(**limits)
    degrading: Any = world.open(**limits, on_outage="degrade")
    cache.create("key", b"content")
    degrading.read("key")
    redis = world.redis(server)
    with cache.reading("key") as handle:
        if how == "killed":
            redis.client_kill_filter(_type="normal", skipme=True)
            assert cache.read("key") == b"content", "a broken connection is replaced"
            return
        if how == "paused":
            redis.execute_command("CLIENT", "PAUSE", 5000, "ALL")
        elif how == "silent":
            proxy.fall_silent()
        elif how == "cut":
            proxy.cut()
        else:
            server.kill()
        began = time.monotonic()
        assert cache.outcome(lambda: cache.read("key")) == "unavailable"
        assert cache.outcome(lambda: cache.create("new", b"x")) == "unavailable"
        expect(time.monotonic() - began < 10.0, "the outage is told soon")
        assert degrading.read("key") == b"content"
        assert degrading.outcome(lambda: degrading.create("new", b"x")) == "unavailable"
        assert degrading.outcome(lambda: degrading.read("absent")) == "unavailable"
        assert handle.read() == b"content"
        if how == "restarted":
            server.restart()
        else:
            proxy.heal()
        wait_until(lambda: cache.outcome(lambda: cache.read("key")) == "ok", "it works again")
    wait_until(lambda: cache.outcome(lambda: cache.create("new", b"x")) in ("ok", "exists"), "also for writers")
    assert degrading.read("new") == b"x"
    assert cache.cache.stats().index_errors >= 2
    sound(world, cache)


@ours_only
def test_h39_the_end_does_not_wait_long_for_a_silent_server(world: World) -> None:
    proxy = world.proxy()
    cache: Any = world.open(url=proxy.url, command_timeout=0.5, connect_timeout=0.5)
    cache.create("key", b"content")
    handle = cache.reading("key")
    proxy.fall_silent()
    began = time.monotonic()
    handle.close()
    cache.close()
    assert time.monotonic() - began < 8.0


@hazard
def test_h40_a_failover_that_forgets_a_lock_lets_nobody_overwrite(world: World) -> None:
    old, new = world.own_server(**AT_ONCE), world.own_server(**AT_ONCE)
    world.redis(new).replicaof("127.0.0.1", str(old.port))
    replication = world.redis(new).info
    wait_until(lambda: replication("replication").get("master_link_status") == "up", "the replica is in step")
    proxy = world.proxy(old)
    cache = world.open(url=proxy.url)
    cache.create("first", b"content")
    wait_until(lambda: world.redis(new).dbsize() == world.redis(old).dbsize(), "the replica has it")
    # From here on the replica does not receive what its master gets.
    world.redis(new).replicaof("NO", "ONE")
    if not world.ours:
        # It would fail anyway, as scripts are not replicated: see H42.
        world.open(url=f"redis://127.0.0.1:{new.port}/0")
    gate = world.gate()
    gate.hold("rename", "key")
    late = world.program('cache.create("key", b"late")', url=proxy.url, gate=gate, families=["rename"])
    held = gate.wait()
    proxy.target = new.port
    proxy.cut_connections()
    wait_until(
        lambda: cache.outcome(lambda: cache.create("key", b"prompt")) == "ok", "the promoted one grants it again"
    )
    held.go_on()
    said = late.outcome()
    expect(cache.read("key") == b"prompt", "bytes of a published key never change")
    assert said.startswith("!LeaseLostError"), said
    assert cache.read("first") == b"content"


@ours_only
def test_h40_connections_to_a_server_that_was_demoted_are_given_up(world: World) -> None:
    old, new = world.own_server(**AT_ONCE), world.own_server(**AT_ONCE)
    proxy = world.proxy(old)
    cache: Any = world.open(url=proxy.url)
    cache.create("key", b"content")
    world.redis(new).replicaof("127.0.0.1", str(old.port))
    replication = world.redis(new).info
    wait_until(lambda: replication("replication").get("master_link_status") == "up", "the replica is in step")
    world.redis(new).replicaof("NO", "ONE")
    world.redis(old).replicaof("127.0.0.1", str(new.port))
    assert cache.outcome(lambda: cache.create("new", b"x")) == "unavailable", "the address still leads to the old one"
    # Now the address leads to the new one, but old connections are not cut.
    proxy.target = new.port
    world.expect_soon(lambda: cache.outcome(lambda: cache.create("new", b"x")) == "ok", "it finds the new one")
    assert cache.read("key") == b"content"


@hazard
def test_h41_a_server_without_memory_is_its_own_outcome(world: World) -> None:
    server = world.own_server()
    cache: Any = world.open(url=f"redis://127.0.0.1:{server.port}/0", max_bytes=10_000)
    cache.create("key", b"content")
    redis = world.redis(server)
    handle = cache.reading("key") if world.ours else contextlib.nullcontext()
    with handle:
        redis.config_set("maxmemory", "1")
        said = cache.outcome(lambda: cache.create("new", b"x"))
        expect(said == "no-space", f"the writer heard {said!r}")
        expect(cache.outcome(lambda: cache.read("key")) == "ok", "what is there can be read")
    redis.config_set("maxmemory", "0")
    cache.create("new", b"x")
    sound(world, cache)


@ours_only
def test_h41_a_policy_that_throws_keys_away_is_warned_of(world: World) -> None:
    server = world.own_server()
    redis = world.redis(server)
    redis.config_set("maxmemory", "100mb")
    cache: Any = world.open(url=f"redis://127.0.0.1:{server.port}/0")
    for policy in ("allkeys-lru", "volatile-lru", "allkeys-random", "noeviction"):
        redis.config_set("maxmemory-policy", policy)
        levels = {found.name: found.level for found in cache.cache.doctor()}
        warned = levels.get("maxmemory-policy", "ok")
        assert (warned == "ok") == (policy == "noeviction"), (policy, levels)


@pytest.mark.parametrize("part", ["cache", "entries", "used", "sessions"])
@ours_only
def test_h41_a_part_of_the_index_that_is_gone_is_noticed(world: World, part: str) -> None:
    cache: Any = world.open(max_bytes=10_000)
    for number in range(10):
        cache.create(f"key-{number}", b"x" * 1000)
    assert (
        world.redis().delete(f"{{{world.namespace}}}:{part}") == (1 if part != "sessions" else 0) or part == "sessions"
    )
    for number in range(5):
        expect(cache.outcome(lambda number=number: cache.create(f"new-{number}", b"y" * 1000)) == "ok", "it continues")
    cache.maintain()
    assert cache.read("new-4") == b"y" * 1000
    expect(world.disk_bytes() <= 10_000, "the bound holds")
    sound(world, cache)


@hazard
def test_h42_forgotten_scripts_are_sent_again_everywhere(world: World) -> None:
    server = world.own_server()
    redis = world.redis(server)
    cache: Any = world.open(url=f"redis://127.0.0.1:{server.port}/0")
    cache.create("key", b"content")

    def forgetful_read() -> None:
        with cache.reading("key"):
            redis.script_flush()

    def forgetful_write() -> None:
        with cache.creating("new") as file:
            redis.script_flush()
            file.write(b"content")

    said = [cache.outcome(forgetful_read), cache.outcome(forgetful_write)]
    expect(said == ["ok", "ok"], f"nobody notices: {said}")
    world.expect_soon(lambda: cache.readers("key") == 0, "no lease is left")
    assert cache.read("new") == b"content"
    sound(world, cache)


@hazard
def test_h43_namespaces_do_not_reach_into_each_other(world: World) -> None:
    one = world.open(namespace="hz-a")
    other = world.open(namespace="hz-a:lock:write", directory=world.root / "other")
    with one.creating("lock:write:key") as file:
        said = other.outcome(lambda: other.create("key", b"content"))
        expect(said == "ok", f"a writer of another cache is in nobody's way: {said!r}")
        file.write(b"one")


@ours_only
def test_h43_what_could_be_a_pattern_is_no_namespace_and_clearing_clears_one(world: World) -> None:
    for wrong in ("a*", "a?", "[a]", "a{b}", "", "a b"):
        with pytest.raises(CacheConfigError, match="namespace"):
            world.open(namespace=wrong, directory=world.root / "refused")
    caches: list[Any] = []
    for number, name in enumerate(("hz-b", "hz-b:lock", "{hz-c}")):
        cache = world.open(namespace=name, directory=world.root / f"cache-{number}")
        cache.create("key", b"content")
        caches.append(cache)
    assert caches[0].cache.clear() == 1
    assert [len(cache.indexed()) for cache in caches] == [0, 1, 1]


@ours_only
def test_h43_a_user_with_few_rights_is_enough_and_one_with_fewer_is_denied(world: World) -> None:
    server = world.own_server()
    redis = world.redis(server)
    # The example of the guide, for this namespace.
    guide = (ROOT / "docs" / "filecache.md").read_text()
    (rights,) = re.findall(r"ACL SETUSER filecache on >change-me (.*)", guide)
    rights = rights.replace("redgrease-cache", "acl")
    redis.execute_command("ACL", "SETUSER", "app", "reset", "on", ">s3cret", *rights.split())
    url = f"redis://app:s3cret@127.0.0.1:{server.port}/0"
    cache: Any = world.open(url=url, namespace="acl", max_bytes=10_000)
    for number in range(5):
        cache.create(f"key-{number}", b"x" * 3000)
    with cache.reading("key-4") as file:
        assert file.read() == b"x" * 3000
    assert cache.cache.locks() is not None
    cache.maintain()
    sound(world, cache)
    for less, expected in {"-hset": "denied", "-publish": "ok", "resetchannels": "ok"}.items():
        # Without this permission, other processes wait by polling.
        redis.execute_command("ACL", "SETUSER", "app", less)
        said = cache.outcome(lambda less=less: cache.create(f"with{less}", b"x"))
        expect(said == expected, f"with {less} the writer heard {said!r}")
        redis.execute_command("ACL", "SETUSER", "app", *rights.split())
        assert cache.outcome(lambda less=less: cache.create(f"again{less}", b"x")) == "ok"
        sound(world, cache)
    wrong = url.replace("s3cret", "wr0ng")
    with pytest.raises(CacheError) as refused:
        world.open(url=wrong, namespace="acl")
    assert refused.value.code == "denied"
    for text in (str(refused.value), repr(refused.value), repr(cache.cache)):
        assert "s3cret" not in text and "wr0ng" not in text


@ours_only
def test_h43_tls_and_unix_sockets(world: World) -> None:
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    try:
        subprocess.run(
            [*new, *name, "-keyout", "key.pem", "-out", "cert.pem"], cwd=world.root, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no openssl to make a certificate with: {error}")
    port, socket = free_port(), world.root / "server.sock"
    options = {"tls-port": port, "tls-cert-file": world.root / "cert.pem", "tls-key-file": world.root / "key.pem"}
    options |= {"tls-auth-clients": "no", "unixsocket": socket, "unixsocketperm": "700"}
    try:
        world.own_server(**options)
    except DidNotStartError as error:
        if "TLS support" not in str(error):
            raise
        pytest.skip("this server was built without TLS")
    for number, url in enumerate((f"redis+unix://{socket}", f"unix://{socket}?db=2")):
        cache = world.open(url=url, directory=world.root / f"cache-{number}")
        cache.create("key", b"content")
        assert cache.read("key") == b"content"
    url = f"rediss://127.0.0.1:{port}/0"
    program = world.program(
        'cache.create("key", b"x"); say(cache.read("key").decode())',
        url=url,
        namespace="tls",
        trusted=world.root / "cert.pem",
    )
    program.expect("x")
    # A certificate of an unknown authority is refused.
    with pytest.raises(ConnectionError, match=r"(?i)certificate"):
        world.open(url=url, directory=world.root / "refused")


@hazard
def test_h44_each_outcome_has_a_stable_name(world: World) -> None:
    cache: Any = world.open(max_bytes=10_000)
    down: Any = world.open(max_bytes=10_000, url=(proxy := world.proxy()).url)
    cache.create("there", b"content")
    proxy.cut()
    with cache.creating("busy") as file:
        file.write(b"x")
        elsewhere: Any = world.open()
        calls: dict[str, Callable[[], object]] = {
            "missing": lambda: cache.read("absent"),
            "exists": lambda: cache.create("there", b""),
            "busy": lambda: elsewhere.create("busy", b""),
            "timeout": lambda: elsewhere.read_waiting("busy", 0.05),
            "too-large": lambda: cache.create("huge", b"x" * 20_000),
            "bad-key": lambda: cache.read(""),
            "unavailable": lambda: down.read("there"),
        }
        for name, call in calls.items():
            caught: Any = None
            try:
                call()
            except Exception as error:
                caught = error
            expect(getattr(caught, "code", None) == name, f"{name} is told as such, not as {caught!r}")
            assert isinstance(caught, CacheError)
            assert caught.operation
            assert caught.key is not None
            assert name == "bad-key" or caught.key.decode() in str(caught)


# -- the stress test


@ours_only
def test_h45_workers_have_random_numbers_of_their_own_and_a_seed_repeats_them(world: World) -> None:
    def run(name: str, *words: object) -> tuple[dict[str, Any], set[bytes]]:
        cache = Cache(world.root / name, self_url, namespace=f"{world.namespace}-{name}")
        told = cache.json("stress", "--processes", 1, "--write-prob", 1, "--write-sleep", "1ms", *DURATION, *words)[0]
        return told, set(cache.listed())

    self_url = world.url
    (one, keys), (again, same), (_, different) = run("a", "--seed", 7), run("b", "--seed", 7), run("c")
    assert one["seed"] == again["seed"] == 7
    few, many = sorted((keys, same), key=len)
    expect(len(few) > 20 and few <= many, "the same seed makes the same keys")
    expect(len(keys & different) < len(few) / 2, "another one makes others")
    seeds = {run(f"random-{number}")[0]["seed"] for number in range(2)}
    expect(len(seeds) == 2 and 7 not in seeds, "seeds are random, and told")
    cache = Cache(world.root / "many", world.url, namespace=f"{world.namespace}-many")
    told = cache.json("stress", "--processes", 4, "--write-prob", 1, "--write-sleep", "1ms", *DURATION)[0]
    writes = told["aggregate"]["writes"]
    expect(writes["exists"] < writes["ok"] / 5, f"workers that start together do not make the same keys: {writes}")


DURATION = ("--duration", 0.2, "--durability", "none", "--quiet")
