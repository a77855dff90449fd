"""The file cache in Python, without a server: entries, files, errors."""

from __future__ import annotations

import array
import concurrent.futures
import copy
import errno
import gc
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from redgrease import filecache
from redgrease.filecache import (
    BadKeyError,
    CacheBusyError,
    CacheConfigError,
    CacheError,
    CacheExistsError,
    CacheMissingError,
    CacheTimeoutError,
    FileCache,
    LeaseLostError,
    Limits,
    NoSpaceError,
    TooLargeError,
    UnavailableError,
)

from .filecache_tools import DEADLINE, Program, wait_until


@pytest.fixture
def cache(tmp_path):
    with FileCache(tmp_path / "cache") as cache:
        yield cache


def kinds_of_locks(cache):
    return [lock.kind for lock in cache.locks()]


# -- entries


def test_an_entry_is_made_once_and_read_often(cache):
    stat = cache.write("a", b"content")
    assert (stat.key, stat.size, stat.expires, stat.pinned) == (b"a", 7, None, False)
    assert cache.read("a") == cache.read(b"a") == b"content"
    with pytest.raises(FileExistsError):
        cache.write("a", b"other")
    assert cache.read("a") == b"content"


def test_replacing_makes_a_later_generation(cache):
    first = cache.write("a", b"1")
    with cache.open("a") as old:
        second = cache.replace("a", b"22")
        assert second.fence > first.fence
        assert (old.read(), cache.read("a")) == (b"1", b"22")
        assert old.path.read_bytes() == b"1"


def test_what_is_deleted_is_missing_and_can_be_made_again(cache):
    cache.write("a", b"1")
    assert cache.delete("a") is True
    assert cache.delete("a") is False
    assert "a" not in cache
    assert cache.stat("a") is None
    cache.write("a", b"2")
    assert cache.read("a") == b"2"


@pytest.mark.parametrize(
    "key",
    ["x", "Ä/..", "../../etc/passwd", ".", "a\nb", "a\0b", "A" * 4096, b"\xff\xfe", b"\0", "con.", "~", "%41", "é"],
)
def test_any_bytes_are_a_key(cache, key):
    cache.write(key, b"data")
    assert cache.read(key) == b"data"
    assert list(cache) == [key if isinstance(key, bytes) else key.encode()]
    inside = cache.directory.resolve()
    with cache.path(key) as path:
        assert inside in path.resolve().parents
    assert cache.delete(key)


def test_keys_that_differ_only_in_case_or_form_are_different(cache):
    names = ["A", "a", "é", "e\u0301", "a.", "a"]
    for number, name in enumerate(dict.fromkeys(names)):
        cache.write(name, b"%d" % number)
    assert len(list(cache)) == 5


def test_time_to_live(cache):
    with cache.create("short", ttl=0.05) as writer:
        writer.write(b"x")
    assert writer.stat.expires is not None
    wait_until(lambda: not cache.exists("short"), "the entry ends")
    with pytest.raises(FileNotFoundError):
        cache.read("short")
    stat = cache.write("long", b"", ttl=timedelta(minutes=2))
    assert stat.expires - stat.created == pytest.approx(120, abs=0.01)
    assert cache.touch("long", ttl=600)
    assert cache.stat("long").expires - stat.created == pytest.approx(600, abs=60)
    assert cache.touch("nothing") is False


def test_what_is_said_about_an_entry_is_kept(cache):
    cache.write("a", b"", content_type="text/plain; charset=utf-8", user={"ü": "ñ", "n": ""})
    stat = cache.stat("a")
    assert (stat.content_type, dict(stat.user)) == ("text/plain; charset=utf-8", {"ü": "ñ", "n": ""})
    with cache.open("a") as handle:
        assert handle.stat.content_type == stat.content_type
    assert pickle.loads(pickle.dumps(stat)) == stat
    assert abs(stat.created - time.time()) < 60


def test_pinned_entries_are_not_evicted(cache):
    for name in "abc":
        cache.write(name, b"12345")
    assert cache.pin("a")
    assert cache.stat("a").pinned
    cache.evict(to_bytes=0)
    assert list(cache) == [b"a"]
    assert cache.unpin("a")
    cache.evict(to_bytes=0)
    assert list(cache) == []
    assert cache.pin("nothing") is False


def test_pages_and_prefixes(tmp_path):
    cache = FileCache(tmp_path, durability="none")
    for number in range(2100):
        cache.write(f"n{number % 7}:{number}", b"", timeout=5)
    assert len(set(cache.keys())) == 2100
    assert len(list(cache.entries("n3:"))) == 300
    assert cache.info().entries == 2100
    assert cache.evict(prefix="n3:", dry_run=True).entries == 300
    assert cache.info().entries == 2100
    assert cache.evict(prefix=b"n3:").entries == 300
    assert cache.clear() == 1800
    cache.close()


def test_limits_are_shared_and_hold(tmp_path):
    with FileCache(tmp_path, max_bytes=100_000) as one, FileCache(tmp_path) as two:
        assert two.info().limits == Limits(max_bytes=100_000)
        for number in range(50):
            two.write(str(number), b"x" * 10_000)
            assert one.info().bytes <= 100_000
        assert "49" in one
        assert "0" not in one
        with pytest.raises(TooLargeError) as large:
            one.write("large", b"x" * 100_001)
        assert large.value.code == "too-large"
        assert isinstance(large.value, ValueError)
        two.configure(max_bytes=0, max_entry_bytes=10)
        assert one.info().limits == Limits(max_entry_bytes=10)
        with pytest.raises(TooLargeError), one.create("large") as writer:
            for _ in range(200_000):
                writer.write(b"12345678901")
        assert "large" not in one


def test_an_entry_that_does_not_fit_beside_pinned_ones(tmp_path):
    with FileCache(tmp_path, max_bytes=1000) as cache:
        cache.write("a", b"x" * 600)
        cache.pin("a")
        with pytest.raises(NoSpaceError) as full:
            cache.write("b", b"x" * 600)
        assert full.value.errno == errno.ENOSPC
        assert isinstance(full.value, OSError)


def test_numbers_of_this_process(cache):
    cache.write("a", b"12345")
    cache.read("a")
    with pytest.raises(FileNotFoundError):
        cache.read("b")
    stats = cache.stats()
    assert (stats.creates, stats.hits, stats.misses, stats.bytes_written) == (1, 1, 1, 5)
    assert stats.bytes_read == 5


def test_verify_repair_maintain_and_doctor(cache):
    for name in "abc":
        cache.write(name, b"12345")
    seen = []
    found = cache.verify("digests", lambda done, total: seen.append((done, total)))
    assert (found.ok, found.entries, found.bytes, found.problems) == (True, 3, 15, ())
    assert seen
    assert seen[-1][0] == seen[-1][1]
    with cache.path("b") as path:
        path.chmod(0o600)
        path.write_bytes(b"54321")
    found = cache.verify()
    assert not found.ok
    assert [problem.kind for problem in found.problems] == ["digest-mismatch"]
    assert cache.verify("sizes").ok
    assert cache.repair().ok
    assert sorted(cache) == [b"a", b"c"]
    cache.maintain()
    assert {finding.level for finding in cache.doctor()} <= {"ok", "warning"}
    with pytest.raises(CacheConfigError, match="depth"):
        cache.verify("everything")


def test_an_exception_of_a_progress_function_ends_the_work(cache):
    for number in range(50):
        cache.write(str(number), b"")
    calls = []

    def progress(done, total):
        calls.append(done)
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        cache.verify("digests", progress)
    assert len(calls) == 1


# -- reading


def test_a_handle_is_an_ordinary_binary_file(cache):
    text = "Grüße\nan alle\n" * 10_000
    cache.write("text", text.encode())
    with cache.open("text") as handle:
        assert isinstance(handle, io.BufferedIOBase)
        assert (handle.readable(), handle.writable(), handle.seekable(), handle.closed) == (True, False, True, False)
        assert handle.name == os.fspath(handle.path)
        assert handle.mode == "rb"
        assert handle.readline() == "Grüße\n".encode()
        assert next(iter(handle)) == b"an alle\n"
        place = handle.tell()
        assert handle.peek(3)[:3] == "Grü".encode()[:3]
        assert handle.seek(0, os.SEEK_END) == len(text.encode())
        assert handle.read() == handle.read(10) == b""
        assert handle.seek(-3, os.SEEK_END) == len(text.encode()) - 3
        assert handle.read() == b"le\n"
        assert handle.seek(-3, os.SEEK_CUR) == len(text.encode()) - 3
        assert handle.seek(place) == place
        room = bytearray(100_000)
        assert handle.readinto(room) == 100_000
        assert room == text.encode()[place : place + 100_000]
        assert os.pread(handle.fileno(), 5, 0) == text.encode()[:5]
        for wrong in (lambda: handle.seek(-1), lambda: handle.seek(0, 7)):
            with pytest.raises(ValueError, match=r"negative|whence"):
                wrong()
        with pytest.raises(io.UnsupportedOperation):
            handle.write(b"x")
        handle.seek(0)
        with io.TextIOWrapper(handle, "utf-8") as wrapper:
            assert wrapper.read() == text
    assert handle.closed
    with pytest.raises(ValueError, match="closed"):
        handle.read()
    handle.close()


def test_libraries_take_handles(cache):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inside.txt", "hello" * 1000)
    cache.write("zip", packed.getvalue())
    cache.write("json", b'{"a": [1, 2]}')
    with cache.open("zip") as handle, zipfile.ZipFile(handle) as archive:
        assert archive.read("inside.txt") == b"hello" * 1000
    with cache.open("json") as handle:
        assert json.load(handle) == {"a": [1, 2]}


def test_the_whole_of_an_entry_of_any_size(cache):
    for size in (0, 1, 65_535, 65_536, 65_537, 3_000_000):
        data = os.urandom(size)
        cache.write(str(size), data)
        assert cache.read(str(size)) == data
        with cache.open(str(size)) as handle:
            assert handle.read() == data
            assert handle.seek(0) == 0
            assert b"".join(iter(lambda handle=handle: handle.read(100_000), b"")) == data
            if size:
                handle.seek(1)
                assert handle.read() == data[1:]


def test_a_mapped_entry(cache):
    data = os.urandom(100_000)
    cache.write("a", data)
    cache.write("empty", b"")
    with cache.open("a") as handle:
        view = handle.mmap()
    with view:
        # The map does not depend on the handle.
        assert view[:] == data
        with pytest.raises(TypeError):
            view[0] = 1
    with cache.open("empty") as handle, pytest.raises(ValueError, match="empty"):
        handle.mmap()


def test_what_is_read_stays_although_it_is_deleted_or_evicted(cache):
    cache.write("a", b"content" * 100_000)
    with cache.open("a") as handle, cache.path("a") as path:
        cache.delete("a")
        cache.maintain()
        assert path.read_bytes() == b"content" * 100_000
        assert handle.read() == b"content" * 100_000
        assert not handle.lease_lost
    wait_until(lambda: cache.maintain() and not path.exists(), "the file goes when nobody reads it")


def test_a_dropped_handle_gives_its_lease_back(cache):
    cache.write("a", b"1")
    cache.open("a").read()
    handle = cache.open("a")
    assert kinds_of_locks(cache) in (["reader"], ["reader", "reader"])
    with cache.path("a"):
        pass
    del handle
    gc.collect()
    wait_until(lambda: kinds_of_locks(cache) == [], "no lease is left")


def test_sixteen_threads_on_one_object(cache):
    payload = {str(number): os.urandom(1000 + number) for number in range(20)}
    failures = []

    def work(seed):
        try:
            for turn in range(40):
                name = str((seed * 7 + turn) % 20)
                with cache.get_or_create(name, lambda name=name: payload[name]) as got:
                    assert got.read() == payload[name]
                assert cache.read(name, timeout=DEADLINE) == payload[name]
                cache.write(f"own:{seed}:{turn}", payload[name])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE * 2)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
    assert cache.info().entries == 20 + 16 * 40
    assert cache.verify().ok


def test_one_handle_read_by_many_threads(cache):
    data = os.urandom(1 << 20)
    cache.write("a", data)
    with cache.open("a") as handle:
        parts = []

        def work():
            while True:
                part = handle.read(10_000)
                if not part:
                    return
                parts.append(part)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert sum(map(len, parts)) == len(data)
    assert sorted(parts) == sorted(data[at : at + 10_000] for at in range(0, len(data), 10_000))


# -- making


def leftovers(cache):
    return [path for path in cache.directory.rglob("*") if path.is_file() and "temporary" in path.parts]


def test_a_writer_publishes_at_the_end_of_its_block(cache):
    with cache.create("a", user={"by": "me"}) as writer:
        assert writer.write(b"12") == 2
        assert writer.tell() == 2
        assert writer.stat is None
        assert not cache.exists("a")
        assert kinds_of_locks(cache) == ["writer"]
        with pytest.raises(io.UnsupportedOperation):
            writer.read()
    assert writer.closed
    assert writer.stat == cache.stat("a") or writer.stat.fence == cache.stat("a").fence
    assert cache.read("a") == b"12"
    assert kinds_of_locks(cache) == []
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"3")
    assert writer.commit() == writer.stat
    writer.abort()
    assert cache.read("a") == b"12"


def test_an_exception_in_the_block_publishes_nothing_and_wins(cache):
    with pytest.raises(ZeroDivisionError), cache.create("a") as writer:
        writer.write(b"x" * 1_000_000)
        raise ZeroDivisionError
    assert not cache.exists("a")
    assert leftovers(cache) == []
    assert kinds_of_locks(cache) == []
    with pytest.raises(ZeroDivisionError), cache.create("a") as writer:
        cache.break_lock("a")
        raise ZeroDivisionError
    cache.write("a", b"made by the next")


def test_a_dropped_writer_aborts(cache):
    writer = cache.create("a")
    writer.write(b"x" * 1_000_000)
    del writer
    gc.collect()
    assert leftovers(cache) == []
    cache.write("a", b"2")


def test_closing_a_writer_aborts_outside_of_a_block_and_not_inside(cache):
    writer = cache.create("a")
    writer.write(b"1")
    writer.close()
    assert not cache.exists("a")
    with pytest.raises(ValueError, match="aborted"):
        writer.commit()
    with cache.create("a") as writer, io.TextIOWrapper(writer, "utf-8") as text:
        text.write("Grüße")
    assert cache.read("a") == "Grüße".encode()
    with cache.create("b") as writer:
        writer.abort()
    assert not cache.exists("b")


def test_libraries_write_to_writers(cache):
    with cache.create("zip") as writer, zipfile.ZipFile(writer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", "hello" * 1000)
    with cache.open("zip") as handle, zipfile.ZipFile(handle) as archive:
        assert archive.read("inside.txt") == b"hello" * 1000
    with cache.create("pickle") as writer:
        pickle.dump(list(range(100_000)), writer)
    with cache.open("pickle") as handle:
        assert pickle.load(handle) == list(range(100_000))


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"12345678"),
        memoryview(b"12345678"),
        memoryview(b"8x7x6x5x4x3x2x1x")[::-1][1::2],
        array.array("B", b"12345678"),
        memoryview(array.array("i", [1, 2])),
    ],
    ids=["bytearray", "memoryview", "strided", "array", "ints"],
)
def test_anything_with_bytes_can_be_written(cache, data):
    expected = bytes(memoryview(data))
    assert len(expected) == 8
    assert cache.write("a", data).size == 8
    with cache.create("b") as writer:
        assert writer.write(data) == 8
        assert writer.write(b"") == 0
        writer.writelines([data, b"!"])
    cache.get_or_create("c", lambda: data).close()
    assert cache.read("a") == cache.read("c") == expected
    assert cache.read("b") == expected * 2 + b"!"


def test_small_and_large_pieces_keep_their_order(cache):
    pieces = [os.urandom(size) for size in (1, 200_000, 3, 131_072, 131_071, 1, 1, 2_000_000, 5)]
    with cache.create("a") as writer:
        for piece in pieces:
            writer.write(piece)
    assert cache.read("a") == b"".join(pieces)
    with cache.create("b") as writer:
        writer.write(memoryview(bytearray(b"".join(pieces))))
    assert cache.read("b") == b"".join(pieces)


def test_what_was_flushed_can_be_read_at_the_path_of_the_writer(cache):
    with cache.create("a") as writer:
        writer.write(b"so far")
        writer.flush()
        assert writer.path.read_bytes() == b"so far"


def test_large_data_is_not_copied_many_times(cache):
    data = bytearray(64 << 20)
    tracemalloc.start()
    try:
        with cache.create("a") as writer:
            writer.write(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# -- making together


def test_get_or_create_says_how_the_entry_came_about(cache):
    calls = []

    def produce():
        calls.append(1)
        return b"made"

    with cache.get_or_create("a", produce, ttl=60, content_type="x/y", user={"k": "v"}) as got:
        assert (got.outcome, got.read(), got.stat.content_type) == ("created", b"made", "x/y")
        assert got.stat.expires
    assert cache.get_or_create("a", produce).outcome == "hit"
    assert cache.get_or_create("a", produce).read() == b"made"
    assert len(calls) == 1


def test_kinds_of_producers(cache):
    class Callable:
        def __call__(self, writer):
            writer.write(b"object")

    def both(writer):
        writer.write(b"1")
        return b"2"

    made = {
        "lambda": lambda: b"bytes",
        "default": lambda text=b"default": text,
        "writer": lambda writer: writer.write(b"written"),
        "returns": lambda writer: b"returned",
        "itself": lambda writer: writer.write(b"itself") and writer,
        "object": Callable(),
        "builtin": bytes,
    }
    for key, producer in made.items():
        with cache.get_or_create(key, producer) as got:
            assert got.outcome == "created"
    assert [cache.read(key) for key in made] == [
        *(b"bytes", b"default", b"written", b"returned", b"itself", b"object", b""),
    ]

    async def asynchronous():
        return b""

    async def rows(writer):
        yield writer.write(b"row")

    def lines(writer):
        yield writer.write(b"line")

    refused = {
        "rows": (rows, "async_generator, whose work is not done"),
        "lines": (lines, "generator, whose work is not done.*does not yield"),
        "map": (lambda writer: map(writer.write, [b"x"]), "map, whose work is not done"),
        "future": (lambda writer: concurrent.futures.Future(), "Future, whose work is not done"),
        "text": (lambda: "text", "encode"),
        "none": (lambda: None, "bytes"),
        "both": (both, "one of the two"),
        "two": (lambda one, two: b"", "wrap it"),
        "async": (asynchronous, "AsyncFileCache"),
        "value": (b"value", "function"),
    }
    for key, (producer, text) in refused.items():
        with pytest.raises(TypeError, match=text):
            cache.get_or_create(key, producer)
        assert not cache.exists(key)
        assert kinds_of_locks(cache) == []


def test_an_exception_of_a_producer_is_raised_as_it_is_and_frees_the_key(cache):
    class Mine(BaseException):
        pass

    mine = Mine()

    def produce(writer):
        writer.write(b"x" * 500_000)
        raise mine

    with pytest.raises(Mine) as caught:
        cache.get_or_create("a", produce)
    assert caught.value is mine
    assert leftovers(cache) == []
    with cache.get_or_create("a", lambda: b"next") as got:
        assert got.outcome == "created"


def test_sixteen_threads_make_an_entry_once(cache):
    calls, started, go = [], threading.Semaphore(0), threading.Event()
    outcomes = []

    def produce():
        calls.append(1)
        assert go.wait(DEADLINE)
        return b"made"

    def work():
        started.release()
        with cache.get_or_create("a", produce, timeout=DEADLINE) as got:
            outcomes.append((got.outcome, got.read()))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=DEADLINE)
    wait_until(lambda: calls, "somebody makes it")
    go.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(calls) == 1
    assert len(outcomes) == 16
    assert [outcome for outcome, _ in outcomes].count("created") == 1
    assert {content for _, content in outcomes} == {b"made"}


def test_when_a_producer_fails_the_next_one_makes_the_entry(cache):
    first, fail = threading.Event(), threading.Event()
    results = []

    def failing():
        first.set()
        assert fail.wait(DEADLINE)
        raise OSError("no luck")

    def leader():
        try:
            cache.get_or_create("a", failing)
        except OSError as error:
            results.append(str(error))

    def follower():
        with cache.get_or_create("a", lambda: b"second", timeout=DEADLINE) as got:
            results.append(got.read())

    threads = [threading.Thread(target=leader), threading.Thread(target=follower)]
    threads[0].start()
    assert first.wait(DEADLINE)
    threads[1].start()
    wait_until(lambda: cache.stats().waits, "the follower waits")
    fail.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(map(str, results)) == ["b'second'", "no luck"]


def test_waiting_for_oneself_is_refused_at_once(cache):
    began = time.monotonic()

    def nested():
        return cache.get_or_create("a", lambda: b"inner", timeout=DEADLINE).read()

    with pytest.raises(CacheBusyError, match="thread"):
        cache.get_or_create("a", nested, timeout=DEADLINE)
    with cache.create("b"):
        for wait in (
            lambda: cache.read("b", timeout=DEADLINE),
            lambda: cache.create("b", timeout=DEADLINE),
            lambda: cache.write("b", b"", timeout=DEADLINE),
        ):
            with pytest.raises(CacheBusyError, match="thread"):
                wait()
    assert time.monotonic() - began < DEADLINE / 2


def test_a_new_cache_has_all_its_shards(tmp_path):
    # A host of a network file system caches for a while that a file does not exist.
    with FileCache(tmp_path / "cache", directory_mode=0o2770) as cache:
        shards = sorted((cache.directory / "files").iterdir())
    assert [shard.name for shard in shards] == [f"{number:02x}" for number in range(256)]
    assert {shard.stat().st_mode & 0o7777 for shard in shards} == {0o2770}


# -- waiting


def test_try_wait_and_deadline(cache):
    with cache.create("a") as writer:
        others = FileCache(cache.directory)
        for operation in (
            lambda timeout: others.read("a", timeout),
            lambda timeout: others.open("a", timeout),
            lambda timeout: others.write("a", b"", timeout=timeout),
            lambda timeout: others.create("a", timeout=timeout),
            lambda timeout: others.get_or_create("a", lambda: b"", timeout=timeout),
        ):
            with pytest.raises(CacheBusyError) as busy:
                operation(0)
            assert busy.value.code == "busy"
            assert f":{os.getpid()} is writing it" in str(busy.value)
            assert not isinstance(busy.value, TimeoutError)
            began = time.monotonic()
            with pytest.raises(CacheTimeoutError) as late:
                operation(0.2)
            assert 0.15 < time.monotonic() - began < 10
            assert late.value.code == "timeout"
            assert isinstance(late.value, (TimeoutError, CacheBusyError))
            assert late.value.key == b"a"
        writer.write(b"made")
    assert others.read("a", timeout=1) == b"made"
    others.close()


def test_a_reader_waits_for_a_writer_in_another_process(cache):
    code = """
with FileCache(sys.argv[1]) as cache, cache.create("a") as writer:
    print("writing", flush=True)
    sys.stdin.readline()
    writer.write(b"made there")
"""
    with Program(code, cache.directory) as program:
        program.expect("writing")
        read = []
        thread = threading.Thread(target=lambda: read.append(cache.read("a", timeout=DEADLINE)))
        thread.start()
        wait_until(lambda: cache.stats().waits, "the reader waits")
        program.tell()
        thread.join(DEADLINE)
        assert read == [b"made there"]
        program.end()


def test_other_threads_go_on_while_one_waits(cache):
    with cache.create("a"):
        other = FileCache(cache.directory)
        waited = []

        def wait():
            with pytest.raises(CacheTimeoutError):
                other.read("a", timeout=0.5)
            waited.append(1)

        thread = threading.Thread(target=wait)
        thread.start()
        turns = 0
        while not waited:
            turns += 1
            time.sleep(0)
        thread.join(DEADLINE)
        assert turns > 1000
        other.close()


# -- errors


def test_errors_are_of_the_cache_and_of_the_built_in_kind(cache):
    with pytest.raises(CacheMissingError) as missing:
        cache.read("näme")
    error = missing.value
    assert isinstance(error, (CacheError, FileNotFoundError))
    assert (error.code, error.operation, error.key) == ("missing", "read", "näme".encode())
    assert (error.errno, error.filename) == (errno.ENOENT, "näme")
    assert "näme" in str(error)
    cache.write("a", b"")
    with pytest.raises(CacheExistsError) as exists:
        cache.create("a")
    assert (exists.value.code, exists.value.operation, exists.value.errno) == ("exists", "create", errno.EEXIST)
    assert isinstance(exists.value, FileExistsError)
    for error in (missing.value, exists.value):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
        assert (again.errno, again.filename) == (error.errno, error.filename)


def test_each_code_has_its_class():
    codes = {
        "busy": CacheBusyError,
        "timeout": CacheTimeoutError,
        "missing": FileNotFoundError,
        "exists": FileExistsError,
        "lease-lost": LeaseLostError,
        "too-large": ValueError,
        "no-space": OSError,
        "denied": PermissionError,
        "corrupt": filecache.CorruptError,
        "unavailable": ConnectionError,
        "io": OSError,
        "bad-key": ValueError,
        "bad-config": ValueError,
    }
    from redgrease.filecache.errors import _of

    for code, kind in codes.items():
        error = _of(code, "text", "read", b"k", None)
        assert isinstance(error, kind)
        assert isinstance(error, CacheError)
        assert (error.code, str(error)) == (code, "text")
    assert issubclass(CacheTimeoutError, TimeoutError)
    assert _of("something-new", "text", "", None, None).code == "something-new"


@pytest.mark.parametrize("operation", ["read", "open", "exists", "stat", "delete", "touch", "pin", "unpin", "create"])
def test_a_bad_key_is_refused_before_anything_is_done(cache, operation):
    call = getattr(cache, operation)
    for key in ("", b"", "x" * 4097, "\ud800"):
        with pytest.raises(BadKeyError) as bad:
            call(key)
        assert bad.value.code == "bad-key"
        assert isinstance(bad.value, ValueError)
    for key in (None, 1, bytearray(b"a"), ("a",)):
        with pytest.raises(TypeError, match="str or bytes"):
            call(key)
    with pytest.raises(TypeError, match="str\\(path\\)"):
        call(Path("a"))


def test_bad_arguments_name_themselves(cache):
    for wrong in ("1", None, True, b"1", [1]):
        with pytest.raises(TypeError, match="timeout"):
            cache.read("a", timeout=wrong)
    for wrong in (-1, float("nan"), float("inf"), -0.001, 10**30):
        with pytest.raises(ValueError, match="timeout"):
            cache.read("a", timeout=wrong)
    for call, error, text in (
        (lambda: cache.write("a", b"", ttl="1"), TypeError, "ttl"),
        (lambda: cache.write("a", b"", ttl=-1), ValueError, "ttl"),
        (lambda: cache.write("a", b"", ttl=0), ValueError, "time to live"),
        (lambda: cache.write("a", "text"), TypeError, "encode"),
        (lambda: cache.write("a", 5), TypeError, "int"),
        (lambda: cache.write("a", None), TypeError, "NoneType"),
        (lambda: cache.write("a", b"", content_type=b"x"), TypeError, "content_type"),
        (lambda: cache.write("a", b"", user={"a": 1}), TypeError, "user"),
        (lambda: cache.write("a", b"", user=["a"]), TypeError, "user"),
        (lambda: cache.create("a", size=-1), ValueError, "size"),
        (lambda: cache.create("a", size=1.5), TypeError, "size"),
        (lambda: cache.evict(), ValueError, "clear"),
        (lambda: cache.evict(to_bytes="1"), TypeError, "to_bytes"),
        (lambda: cache.configure(low_mark="x"), TypeError, "low_mark"),
        (lambda: cache.configure(low_mark=2.0), ValueError, "low_mark"),
    ):
        with pytest.raises(error, match=text):
            call()
    assert list(cache) == []
    assert kinds_of_locks(cache) == []


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"lease": 0}, CacheConfigError, "lease"),
        ({"lease": -1}, CacheConfigError, "lease"),
        ({"lease": 0.001}, CacheConfigError, "lease"),
        ({"lease": 1e15}, CacheConfigError, "lease"),
        ({"lease": "10"}, TypeError, "lease"),
        ({"max_bytes": -1}, CacheConfigError, "max_bytes"),
        ({"max_bytes": "1M"}, TypeError, "max_bytes"),
        ({"max_bytes": 1.5}, TypeError, "max_bytes"),
        ({"low_mark": 1.5}, CacheConfigError, "low_mark"),
        ({"max_idle": "1h"}, TypeError, "max_idle"),
        ({"durability": "all"}, CacheConfigError, "durability.*full"),
        ({"durability": 1}, TypeError, "durability"),
        ({"check": True}, TypeError, "check"),
        ({"on_outage": "ignore"}, CacheConfigError, "on_outage.*degrade"),
        ({"file_mode": 0o70000}, CacheConfigError, "file_mode"),
        ({"namespace": "a*"}, CacheConfigError, "namespace"),
        ({"namespace": None}, TypeError, "namespace"),
        ({"url": 6379}, TypeError, "url"),
        ({"url": "http://localhost"}, CacheConfigError, "url|http"),
        ({"adopt": "yes"}, TypeError, "adopt"),
        ({"connect_timeout": 0}, CacheConfigError, "connect_timeout"),
        ({"maintenance": 0}, CacheConfigError, "maintenance"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_a_wrong_option_is_refused_when_the_cache_is_opened(tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        FileCache(tmp_path / "cache", **options)


@pytest.mark.parametrize(
    ("operation", "key", "call"),
    [
        ("read", b"a", lambda cache: cache.read("a", timeout=-1)),
        ("open", b"a", lambda cache: cache.open("a", timeout=-1)),
        ("write", b"a", lambda cache: cache.write("a", b"", ttl=-1)),
        ("replace", b"a", lambda cache: cache.replace("a", b"", ttl=1e300)),
        ("write", b"a", lambda cache: cache.write("a", b"", user={"name": "\ud800"})),
        ("create", b"a", lambda cache: cache.create("a", timeout=float("nan"))),
        ("get_or_create", b"a", lambda cache: cache.get_or_create("a", bytes, ttl=-1)),
        ("touch", b"a", lambda cache: cache.touch("a", ttl=-1)),
        ("evict", None, lambda cache: cache.evict()),
        ("evict", None, lambda cache: cache.evict(idle_for=-1)),
        ("configure", None, lambda cache: cache.configure(low_mark=1.5)),
    ],
)
def test_a_wrong_argument_is_told_with_operation_and_key(cache, operation, key, call):
    with pytest.raises(CacheConfigError) as wrong:
        call(cache)
    assert (wrong.value.operation, wrong.value.key) == (operation, key)
    assert len(str(wrong.value)) < 160
    assert list(cache) == []


def test_a_prefix_is_text_or_bytes(cache):
    cache.write(b"\0\0\0", b"")
    for wrong in (3, None, [b"a"]):
        with pytest.raises(TypeError, match="a prefix is str or bytes"):
            next(cache.keys(wrong))
    assert list(cache.keys(b"\0")) == list(cache.keys("\0")) == [b"\0\0\0"]


def test_the_last_use_is_told_alike(cache):
    made = cache.write("a", b"")
    assert cache.stat("a").last_used == next(cache.entries()).last_used == made.created
    time.sleep(0.002)
    cache.read("a")
    assert cache.stat("a").last_used == next(cache.entries()).last_used > made.created
    cache.pin("a")
    assert cache.stat("a").last_used is next(cache.entries()).last_used is None


@pytest.mark.parametrize("number", [10**400, 10**5000, -(10**400)], ids=["large", "huge", "negative"])
def test_a_number_that_is_too_large_is_told_with_its_range(cache, tmp_path, number):
    calls = {
        "ttl": lambda: cache.write("a", b"", ttl=number),
        "timeout": lambda: cache.read("a", timeout=number),
        "size": lambda: cache.create("a", size=number),
        "older_than": lambda: cache.evict(older_than=number),
        "max_bytes": lambda: cache.configure(max_bytes=number),
        "low_mark": lambda: cache.configure(low_mark=number),
        "lease": lambda: FileCache(tmp_path / "other", lease=number),
    }
    ranges = {"ttl": "up to 142 years", "size": "less than 2", "max_bytes": "less than 2", "low_mark": "0 to 1"}
    for name, call in calls.items():
        with pytest.raises(CacheConfigError) as refused:
            call()
        assert f"{name} of " in str(refused.value)
        assert ranges.get(name, "0 to 1e19") in str(refused.value)
        assert len(str(refused.value)) < 200
    with pytest.raises(CacheConfigError, match=r"ttl of 5000000000 s; .*142 years"):
        cache.write("a", b"", ttl=5e9)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/abc", '"/abc", is a path; write redis\\+unix:///abc'),
        ("", "is empty; leave it out"),
        ("localhost:6379", '"localhost:6379", has no scheme; write redis://'),
        ("http://localhost/", 'has the scheme "http"; write redis://'),
        ("redis://localhost:x/", "a port or database that is not a number; write redis://"),
        ("me:s3cret@localhost", "has no scheme"),
        ("s3cret@x://localhost", "has no scheme"),
        ("redis://:s3cret@localhost:x/", "a port or database"),
    ],
)
def test_an_address_that_is_none_is_told_with_what_is_wrong(tmp_path, url, words):
    with pytest.raises(CacheConfigError, match=words) as refused:
        FileCache(tmp_path / "cache", url)
    assert "s3cret" not in str(refused.value)
    assert not (tmp_path / "cache").exists()


def test_a_broken_lease_is_told_as_such(cache):
    writer = cache.create("a")
    writer.write(b"made")
    with FileCache(cache.directory) as other:
        assert other.break_lock("a")
    with pytest.raises(LeaseLostError, match="or was broken; nothing was published"):
        writer.commit()
    assert "a" not in cache


def old_file(path, mode=0o644, age=3600):
    path.write_bytes(path.name.encode())
    path.chmod(mode)
    then = time.time() - age
    os.utime(path, (then, then))


def test_adopting_touches_nothing_that_was_no_entry(tmp_path):
    ours = [".bashrc", ".env", ".gitconfig.backup", ".a.bin.old", ".profile"]
    for name in ours:
        old_file(tmp_path / name, age=10 * 86400)
    old_file(tmp_path / ".key.bin.ab12cd_9", 0o600, age=10 * 86400)
    old_file(tmp_path / ".key.bin.Zb12cd", 0o600, age=1)
    old_file(tmp_path / "key.bin")
    with FileCache(tmp_path, adopt=True) as cache:
        assert {key: cache.read(key) for key in cache} == {b"key.bin": b"key.bin"}
        cache.maintain()
    for name in ours:
        assert (tmp_path / name).read_bytes() == name.encode()
    # An unfinished file of the old cache is moved to quarantine, unless it may still be in use.
    assert (tmp_path / ".key.bin.Zb12cd").exists()
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == [".key.bin.ab12cd_9"]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_bytes": 250_000}, "500000 bytes to adopt, more than the 250000"),
        ({"max_entries": 4}, "5 files to adopt, more than the 4"),
        ({"max_bytes": 50_000}, "has 100000 bytes, and an entry may have 50000"),
        ({"max_entry_bytes": 99_999}, "has 100000 bytes, and an entry may have 99999"),
    ],
)
def test_adopting_more_than_there_is_room_for_is_refused(tmp_path, limits, text):
    for number in range(5):
        (tmp_path / f"f{number}").write_bytes(b"x" * 100_000)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CacheConfigError, match=text):
        FileCache(tmp_path, adopt=True, **limits)
    assert sorted(tmp_path.iterdir()) == before
    with FileCache(tmp_path, adopt=True, max_bytes=500_000) as cache:
        assert [cache.stat(key).size for key in cache] == [100_000] * 5


def test_the_directory(tmp_path, monkeypatch):
    for wrong in (None, 5, ["x"]):
        with pytest.raises(TypeError):
            FileCache(wrong)
    with pytest.raises(CacheConfigError):
        FileCache("")
    monkeypatch.chdir(tmp_path)
    with FileCache("here") as cache:
        monkeypatch.chdir("/")
        cache.write("a", b"1")
        assert cache.directory == tmp_path / "here"
    with FileCache(os.fsencode(tmp_path / "here")) as cache:
        assert cache.read("a") == b"1"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((CacheError, OSError)):
        FileCache(tmp_path / "file")


def test_a_broken_lease_is_told_at_commit(cache):
    with pytest.raises(LeaseLostError) as lost, cache.create("a") as writer:
        writer.write(b"1")
        assert cache.break_lock("a")
    assert lost.value.code == "lease-lost"
    assert not cache.exists("a")
    cache.write("a", b"2")


def test_a_damaged_file_is_corrupt_and_made_again(cache):
    cache.write("a", b"12345")
    with cache.path("a") as path:
        path.chmod(0o600)
        path.write_bytes(b"12346")
    with pytest.raises(filecache.CorruptError) as corrupt:
        cache.read("a")
    assert corrupt.value.code == "corrupt"
    with cache.get_or_create("a", lambda: b"again") as got:
        assert (got.outcome, got.read()) == ("created", b"again")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_what_is_not_permitted_is_a_permission_error(cache):
    cache.write("a", b"")
    cache.directory.chmod(0)
    try:
        with pytest.raises(PermissionError):
            cache.write("b", b"")
    finally:
        cache.directory.chmod(0o700)


def test_read_only(cache, tmp_path):
    cache.write("a", b"1")
    with FileCache(cache.directory, read_only=True) as reader:
        assert reader.read("a") == b"1"
        for change in (
            lambda: reader.write("b", b""),
            lambda: reader.delete("a"),
            lambda: reader.get_or_create("b", lambda: b""),
        ):
            with pytest.raises(PermissionError) as denied:
                change()
            assert denied.value.code == "denied"
    with pytest.raises(CacheError):
        FileCache(tmp_path / "nothing", read_only=True)


# -- the object


def test_what_is_shown_has_no_secrets(tmp_path):
    url = "redis://app:s3cret@127.0.0.1:1/0"
    with pytest.raises(UnavailableError) as unreachable:
        FileCache(tmp_path, url, connect_timeout=0.5)
    assert isinstance(unreachable.value, ConnectionError)
    assert unreachable.value.code == "unavailable"
    assert "127.0.0.1" in str(unreachable.value)
    assert "s3cret" not in str(unreachable.value) + repr(unreachable.value)
    from redgrease.filecache.options import Options, redacted

    for shown in (
        "redis://app:s3cret@host/0",
        "redis://:s3cret@host",
        "rediss://app:s3cr@s3cret@host",
        "redis+unix:///run/x?db=1&pass=s3cret",
        "unix:///run/x?password=s3cret#s",
    ):
        assert "s3cr" not in redacted(shown)
        assert "s3cr" not in repr(Options(b"/x", shown))


def test_a_cache_says_what_it_is(cache):
    other = FileCache(cache.directory, lease=5, check="never")
    assert repr(other) == f"FileCache({os.fspath(cache.directory)!r}, lease=5, check='never')"
    assert (other.url, other.namespace, other.directory) == (None, "redgrease-cache", cache.directory)
    other.close()
    cache.write("a", b"")
    with cache.open("a") as handle:
        assert repr(handle) == "<Handle b'a'>"
    assert repr(handle) == "<Handle b'a' closed>"
    writer = cache.create("b")
    assert repr(writer) == "<Writer b'b' open>"
    writer.abort()
    assert repr(writer) == "<Writer b'b' aborted>"
    assert repr(cache.get_or_create("c", lambda: b"")) == "<Got b'c' created>"


def test_a_closed_cache(cache):
    cache.write("a", b"1")
    other = FileCache(cache.directory)
    handle = other.open("a")
    other.close()
    other.close()
    assert handle.read() == b"1"
    handle.close()
    for use in (lambda: other.read("a"), lambda: other.info(), lambda: pickle.loads(pickle.dumps(other)).read("a")):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert "FileCache(" in repr(other)
    wait_until(lambda: kinds_of_locks(cache) == [], "no lease is left")


def test_a_pickled_cache_opens_the_same_cache_again(cache):
    cache.write("a", b"1")
    options = {"lease": 5.0, "check": "sampled", "maintenance": None}
    original = FileCache(cache.directory, **options)
    for other in (pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)):
        assert repr(other) == repr(original)
        assert other.read("a") == b"1"
        other.close()
    with original.open("a") as handle:
        with pytest.raises(TypeError):
            pickle.dumps(handle)
        with pytest.raises(TypeError), original.create("b") as writer:
            pickle.dumps(writer)
    original.close()


def test_the_environment_names_a_cache(cache, monkeypatch):
    monkeypatch.delenv("REDGREASE_CACHE_DIR", raising=False)
    with pytest.raises(CacheConfigError, match="REDGREASE_CACHE_DIR"):
        FileCache.from_env()
    monkeypatch.setenv("REDGREASE_CACHE_DIR", os.fspath(cache.directory))
    monkeypatch.setenv("REDGREASE_CACHE_URL", "")
    with FileCache.from_env(lease=5) as same:
        same.write("a", b"1")
    assert cache.read("a") == b"1"


def test_importing_is_cheap():
    heavy = {"redis", "cloudpickle", "packaging", "asyncio"}
    for code in (
        f"import sys, redgrease.filecache; sys.exit(str({heavy} & set(sys.modules) or ''))",
        "import sys, redgrease; sys.exit(str([name for name in sys.modules if 'filecache' in name] or ''))",
    ):
        done = subprocess.run([sys.executable, "-c", code], timeout=DEADLINE, capture_output=True, text=True)
        assert done.stderr.strip() == ""


def test_all_names_resolve():
    for name in filecache.__all__:
        assert getattr(filecache, name).__doc__
    assert set(filecache.__all__) <= set(dir(filecache))
    with pytest.raises(AttributeError, match="nothing"):
        filecache.nothing  # noqa: B018


def test_temporary_directories_can_be_caches():
    with tempfile.TemporaryDirectory() as directory, FileCache(directory) as cache:
        cache.write("a", b"")
    assert not os.path.exists(directory)
