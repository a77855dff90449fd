"""The file cache without a server in several processes: forks, kills, signals."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time

import pytest
from redgrease.filecache import FileCache

from .filecache_tools import DEADLINE, Program, in_child, wait_until


@pytest.fixture
def cache(tmp_path):
    with FileCache(tmp_path / "cache", lease=0.5) as cache:
        yield cache


def holders(cache):
    return sorted((lock.kind, lock.key) for lock in cache.locks())


# -- fork


def test_a_forked_child_uses_the_cache_with_a_session_of_its_own(cache):
    cache.write("a", b"parent")

    def child():
        assert cache.read("a") == b"parent"
        cache.write("b", b"child")
        with cache.create("c") as writer:
            owners = {lock.owner for lock in cache.locks()}
            writer.write(b"too")
        assert owners and all(owner.endswith(f":{os.getpid()}") for owner in owners), owners
        return os.getpid()

    assert in_child(child) != str(os.getpid())
    assert (cache.read("b"), cache.read("c")) == (b"child", b"too")
    assert cache.verify().ok


def test_a_child_leaves_the_leases_of_its_parent_alone(cache):
    data = os.urandom(300_000)
    cache.write("a", data)
    handle, writer = cache.open("a"), cache.create("b")
    writer.write(b"1" * 200_000)
    assert handle.read(10) == data[:10]
    before = holders(cache)
    assert before == [("reader", b"a"), ("writer", b"b")]

    def child():
        # It may continue to read from its parent's handles, at its own position.
        assert handle.read() == data[10:]
        cache.exists("a")
        handle.close()
        writer.close()
        cache.close()
        return "ok"

    assert in_child(child) == "ok"
    assert holders(cache) == before
    assert writer.path.exists()
    writer.write(b"2")
    assert writer.commit().size == 200_001
    assert handle.read() == data[10:]
    handle.close()
    assert cache.read("b") == b"1" * 200_000 + b"2"


def test_a_child_that_only_ends_leaves_everything_alone(cache):
    cache.write("a", b"1")
    with cache.open("a"), cache.create("b") as writer:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert holders(cache) == [("reader", b"a"), ("writer", b"b")]
        writer.write(b"2")
    assert cache.read("b") == b"2"


def test_forking_while_other_threads_are_busy_with_the_cache(cache):
    cache.write("a", b"1" * 1000)
    stop = threading.Event()

    def work(number):
        turn = 0
        while not stop.is_set():
            turn += 1
            cache.read("a")
            with cache.open("a"):
                pass
            cache.replace(f"own{number}", b"%d" % turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):

            def child(number=number):
                cache.write(f"child{number}", cache.read("a"))
                return "ok"

            assert in_child(child) == "ok"
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)
    assert len(list(cache.keys("child"))) == 20
    assert cache.verify().ok


def square(cache, number):
    with cache.get_or_create(f"square:{number % 5}", lambda: b"%d" % (number % 5) ** 2) as got:
        return os.getpid(), got.outcome, got.read()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes(cache, method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
        done = [pool.submit(square, cache, number) for number in range(30)]
        results = [future.result(timeout=DEADLINE) for future in done]
    assert {content for _, _, content in results} == {b"0", b"1", b"4", b"9", b"16"}
    assert [outcome for _, outcome, _ in results].count("created") == 5
    assert os.getpid() not in {pid for pid, _, _ in results}
    wait_until(lambda: holders(cache) == [], "no lease is left")


def raise_missing(cache):
    cache.read("nothing-here")


def test_errors_come_back_from_a_pool(cache):
    with concurrent.futures.ProcessPoolExecutor(1) as pool, pytest.raises(FileNotFoundError) as missing:
        pool.submit(raise_missing, cache).result(timeout=DEADLINE)
    assert (missing.value.code, missing.value.key) == ("missing", b"nothing-here")


# -- no free descriptors


def test_a_process_without_descriptors_left_loses_no_lease(cache):
    cache.write("a", b"1")
    code = """
import os, resource
cache = FileCache(sys.argv[1], lease=3600)
with cache.open("a"):
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
files = []
try:
    while True:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for use in (lambda: cache.open("a"), lambda: cache.read("a"), lambda: cache.write("b", b"x")):
    try:
        use()
        print("no error")
    except (CacheIOError, UnavailableError) as error:
        print("Too many open files" in str(error))
for file in files:
    os.close(file)
while cache.locks():
    pass
print(cache.read("a"), cache.exists("b"), flush=True)
sys.stdin.readline()
"""
    with Program(code, cache.directory) as program:
        for _ in range(3):
            program.expect("True")
        program.expect("b'1' False")
        assert holders(cache) == []
        program.tell()
        program.end()


# -- kill


def test_a_killed_writer_is_replaced_after_its_lease(cache):
    code = """
cache = FileCache(sys.argv[1], lease=0.5)
writer = cache.create("a")
writer.write(b"x" * 1000000)
writer.flush()
print("writing", flush=True)
sys.stdin.readline()
"""
    with Program(code, cache.directory) as program:
        program.expect("writing")
        assert holders(cache) == [("writer", b"a")]
        program.kill()
        program.wait()
        with cache.get_or_create("a", lambda: b"second", timeout=DEADLINE) as got:
            assert got.read() == b"second"
    temporary = [path for path in cache.directory.rglob("*") if "temporary" in path.parts and path.is_file()]
    wait_until(lambda: cache.maintain() and not any(path.exists() for path in temporary), "its file is swept")
    assert cache.verify().ok


def test_a_killed_reader_does_not_keep_a_file_forever(cache):
    code = """
cache = FileCache(sys.argv[1], lease=0.5)
handle = cache.open("a")
print("reading", flush=True)
sys.stdin.readline()
"""
    cache.write("a", b"1")
    with Program(code, cache.directory) as program:
        program.expect("reading")
        program.kill()
        program.wait()
    with cache.path("a") as path:
        pass
    cache.delete("a")
    wait_until(lambda: cache.maintain() and holders(cache) == [] and not path.exists(), "its lease ends")


def test_when_the_one_who_makes_an_entry_is_killed_another_makes_it(cache):
    code = """
cache = FileCache(sys.argv[1], lease=0.5)
def produce(writer):
    writer.write(b"half")
    writer.flush()
    print("producing", flush=True)
    sys.stdin.readline()
cache.get_or_create("a", produce)
"""
    with Program(code, cache.directory) as program:
        program.expect("producing")
        results = []

        def follow():
            with cache.get_or_create("a", lambda: b"whole", timeout=DEADLINE) as got:
                results.append((got.outcome, got.read()))

        thread = threading.Thread(target=follow)
        thread.start()
        wait_until(lambda: cache.stats().waits, "the follower waits")
        program.kill()
        thread.join(DEADLINE)
        assert results == [("created", b"whole")]


def test_an_interpreter_that_ends_gives_its_leases_back(cache):
    code = """
cache = FileCache(sys.argv[1], lease=3600)
handle = cache.open("a")
writer = cache.create("b")
writer.write(b"x")
kept = [cache, handle, writer]
"""
    cache.write("a", b"1")
    with Program(code, cache.directory) as program:
        program.end()
    wait_until(lambda: holders(cache) == [], "no lease is left", deadline=5)
    cache.write("b", b"2")


# -- signals

WAITING = """
import threading, time
cache = FileCache(sys.argv[1], lease=0.5)

def tell_when_it_waits():
    while not cache.stats().waits:
        time.sleep(0.001)
    print("waiting", flush=True)

threading.Thread(target=tell_when_it_waits, daemon=True).start()
try:
    cache.{wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
    print("continues", cache.read("other"), flush=True)
"""


@pytest.mark.parametrize(
    "wait",
    [
        "read('a', timeout=60)",
        "open('a', timeout=60)",
        "create('a', timeout=60)",
        "write('a', b'', timeout=60)",
        "get_or_create('a', lambda: b'', timeout=60)",
    ],
)
def test_control_c_ends_a_wait(cache, wait):
    cache.write("other", b"12345")
    with cache.create("a") as writer, Program(WAITING.format(wait=wait), cache.directory) as program:
        program.expect("waiting")
        program.kill(signal.SIGINT)
        began = time.monotonic()
        program.expect("interrupted")
        assert time.monotonic() - began < 2
        wait_until(lambda: holders(cache) == [("writer", b"a")], "nobody waits any more")
        program.tell()
        program.expect("continues b'12345'")
        program.end()
        writer.write(b"made anyway")
    assert cache.read("a") == b"made anyway"
    assert holders(cache) == []
