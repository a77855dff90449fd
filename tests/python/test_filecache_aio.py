"""The file cache for coroutines, without a server."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import os
import pickle
import threading
import time

import pytest
from redgrease.filecache import (
    AsyncFileCache,
    AsyncHandle,
    CacheBusyError,
    CacheConfigError,
    CacheTimeoutError,
    CorruptError,
    FileCache,
    LeaseLostError,
    UnavailableError,
)

from .filecache_tools import DEADLINE, Program, in_child, wait_until


@pytest.fixture
def cache(tmp_path):
    """A blocking cache of the same directory: to look from the outside."""
    with FileCache(tmp_path / "cache", lease=0.5) as cache:
        yield cache


@pytest.fixture
def run(cache):
    """Runs a coroutine function of a fresh `AsyncFileCache`."""

    def run(main):
        async def whole():
            async with AsyncFileCache(cache.directory, lease=0.5) as twin:
                return await asyncio.wait_for(main(twin), DEADLINE)

        return asyncio.run(whole())

    return run


def holders(cache):
    return sorted((lock.kind, lock.key) for lock in cache.locks())


async def wait_for(look, what):
    await asyncio.to_thread(wait_until, look, what)


def test_all_methods_have_a_twin():
    ours = {name for name, member in inspect.getmembers(FileCache) if not name.startswith("_")}
    twins = {name for name, member in inspect.getmembers(AsyncFileCache) if not name.startswith("_")}
    assert ours == twins
    for name in ours:
        member, twin = getattr(FileCache, name), getattr(AsyncFileCache, name)
        if callable(member) and name not in ("memoize", "verify", "repair"):
            assert list(inspect.signature(member).parameters) == list(inspect.signature(twin).parameters), name
    assert str(inspect.signature(FileCache)) == str(inspect.signature(AsyncFileCache))


def test_entries(cache, run):
    async def main(twin):
        stat = await twin.write("a", b"content", ttl=60, content_type="x/y", user={"k": "v"})
        assert (stat.key, stat.size, stat.content_type, stat.user) == (b"a", 7, "x/y", {"k": "v"})
        assert await twin.read("a") == b"content"
        assert await twin.exists("a")
        assert not await twin.exists("b")
        assert (await twin.stat("a")).fence == stat.fence
        assert await twin.stat("b") is None
        with pytest.raises(FileExistsError):
            await twin.write("a", b"")
        with pytest.raises(FileNotFoundError) as missing:
            await twin.read("b")
        assert (missing.value.code, missing.value.operation, missing.value.key) == ("missing", "read", b"b")
        assert (await twin.replace("a", bytearray(b"new"))).fence > stat.fence
        assert await twin.touch("a", ttl=5)
        assert await twin.pin("a")
        assert (await twin.stat("a")).pinned
        assert await twin.unpin("a")
        assert [key async for key in twin] == [key async for key in twin.keys("a")] == [b"a"]
        assert [stat.size async for stat in twin.entries()] == [3]
        assert await twin.delete("a")
        assert not await twin.delete("a")

    run(main)


def test_the_whole(cache, run):
    async def main(twin):
        for name in ("img:1", "img:2", "doc:1"):
            await twin.write(name, b"12345")
        info = await twin.info()
        assert (info.entries, info.bytes) == (3, 15)
        assert (await twin.stats()).creates == 3
        await twin.configure(max_entries=10)
        assert (await twin.info()).limits.max_entries == 10
        assert (await twin.evict(prefix="img:", dry_run=True)).entries == 2
        assert (await twin.evict(prefix="img:")).bytes == 10
        with pytest.raises(CacheConfigError):
            await twin.evict()
        assert (await twin.verify()).ok
        assert (await twin.repair("index")).ok
        await twin.maintain()
        assert all(finding.level != "error" for finding in await twin.doctor())
        async with twin.create("w"):
            assert [lock.kind for lock in await twin.locks()] == ["writer"]
            assert not await twin.break_lock("other")
        assert await twin.clear() == 2

    run(main)


def test_handles(cache, run):
    data = os.urandom(300_000)
    cache.write("a", data)

    async def main(twin):
        async with twin.open("a") as handle:
            assert isinstance(handle, AsyncHandle)
            assert await handle.read(10) == data[:10]
            assert await handle.read() == data[10:]
            assert await handle.seek(-5, os.SEEK_END) == len(data) - 5
            assert await handle.read() == data[-5:]
            assert handle.stat.size == len(data)
            assert handle.path.read_bytes() == data
            assert (handle.key, handle.lease_lost, handle.closed) == (b"a", False, False)
            with handle.mmap() as view:
                assert view[:] == data
            assert await asyncio.to_thread(lambda: io.BytesIO(handle.file.read()).read()) == b""
            assert holders(cache) == [("reader", b"a")]
            assert repr(handle) == "<AsyncHandle b'a'>"
        assert handle.closed
        handle = await twin.open("a")
        assert await handle.read() == data
        await handle.close()
        async with twin.path("a") as path:
            assert path.read_bytes() == data
        await wait_for(lambda: holders(cache) == [], "no lease is left")

    run(main)


def test_a_damaged_file_is_found_by_reading_it_to_the_end(cache, run):
    cache.write("a", b"12345" * 50_000)
    with cache.path("a") as path:
        path.chmod(0o600)
        path.write_bytes(b"54321" * 50_000)

    async def main(twin):
        async with twin.open("a") as handle:
            with pytest.raises(CorruptError):
                await handle.read()
        await wait_for(lambda: not cache.exists("a"), "the entry is dropped")

    run(main)


def test_writers(cache, run):
    async def main(twin):
        async with twin.create("a", ttl=60) as writer:
            assert await writer.write(b"12") == 2
            assert await writer.write(memoryview(b"x1x2x3")[1::2]) == 3
            assert await writer.write(bytearray(2_000_000)) == 2_000_000
            assert writer.tell() == 2_000_005
            assert not cache.exists("a")
            assert repr(writer) == "<AsyncWriter b'a' open>"
        assert writer.stat.size == 2_000_005
        assert writer.closed
        assert cache.read("a") == b"12123" + bytes(2_000_000)
        assert await writer.commit() == writer.stat
        with pytest.raises(ValueError, match="closed"):
            await writer.write(b"")
        with pytest.raises(ZeroDivisionError):
            async with twin.create("b") as writer:
                await writer.write(b"x" * 300_000)
                raise ZeroDivisionError
        assert not cache.exists("b")
        assert holders(cache) == []
        writer = await twin.create("b")
        await writer.abort()
        with pytest.raises(ValueError, match="aborted"):
            await writer.commit()
        async with twin.create("a", replace=True) as writer:
            await writer.write(b"new")
        assert cache.read("a") == b"new"
        with pytest.raises(LeaseLostError):
            async with twin.create("c"):
                assert cache.break_lock("c")
        writer = await twin.create("d")
        await writer.write(b"x")
        del writer
        gc.collect()
        await twin.write("d", b"next", timeout=DEADLINE)

    run(main)


def test_get_or_create(cache, run):
    async def main(twin):
        async def asynchronous():
            await asyncio.sleep(0)
            return b"asynchronous"

        async def writing(writer):
            await writer.write(b"writ")
            await writer.write(b"ten")

        def blocking(writer):
            assert threading.current_thread() is not threading.main_thread()
            writer.write(b"blo")
            writer.writelines([b"ck", b"ing"])
            assert writer.tell() == 8

        class Callable:
            async def __call__(self):
                return b"object"

        producers = {
            "asynchronous": asynchronous,
            "written": writing,
            "blocking": blocking,
            "object": Callable(),
            "plain": lambda: b"plain",
            "lambda": lambda: asynchronous(),
        }
        for key, producer in producers.items():
            async with twin.get_or_create(key, producer, ttl=60) as got:
                expected = {"lambda": b"asynchronous"}.get(key, key.encode())
                assert (got.outcome, await got.read()) == ("created", expected)
            got = await twin.get_or_create(key, producer)
            assert got.outcome == "hit"
            await got.close()

        async def fails():
            raise LookupError("no")

        async def text():
            return "text"

        for producer, error in ((fails, LookupError), (text, TypeError), (b"x", TypeError)):
            with pytest.raises(error):
                await twin.get_or_create("x", producer)
            assert holders(cache) == []

    run(main)


def test_an_entry_is_refused_whose_producer_is_not_done(cache, run):
    async def rows(writer):
        yield await writer.write(b"row")

    def lines(writer):
        yield writer.write(b"line")

    async def forgets(writer):
        await writer.write(b"one")
        writer.write(b"two")

    async def keeps(writer):
        tasks.append(asyncio.ensure_future(writer.write(b"one")))

    tasks = []

    async def main(twin):
        for producer, words in (
            (rows, "async_generator"),
            (lines, "generator"),
            (lambda writer: map(writer.write, [b"x"]), "map"),
            (forgets, r"1 call of write\(\)"),
            (keeps, r"1 call of write\(\)"),
        ):
            with pytest.raises(TypeError, match=words):
                await twin.get_or_create("a", producer)
            assert not cache.exists("a")
            assert holders(cache) == []
        await asyncio.gather(*tasks, return_exceptions=True)
        async with twin.get_or_create("a", lambda: b"made") as got:
            assert got.outcome == "created"

    with pytest.warns(RuntimeWarning, match="never awaited"):
        run(main)
        gc.collect()


def test_a_writer_that_was_not_awaited_is_not_committed(cache, run):
    async def main(twin):
        with pytest.raises(TypeError, match=r"2 calls of write\(\).*await write"):
            async with twin.create("a") as writer:
                _ = writer.write(b"one"), writer.write(b"two")
        with pytest.raises(TypeError, match=r"1 call of abort\(\)"):
            async with twin.create("a") as writer:
                await writer.write(b"one")
                _ = writer.abort()
        assert not cache.exists("a")
        assert holders(cache) == []
        async with twin.create("a") as writer:
            await asyncio.gather(writer.write(b"one"), writer.write(b"one"))
        assert cache.read("a") == b"oneone"

    with pytest.warns(RuntimeWarning, match="never awaited"):
        run(main)
        gc.collect()


def test_many_tasks_make_an_entry_once(cache, run):
    calls = []

    async def main(twin):
        go = asyncio.Event()

        async def produce():
            calls.append(1)
            await go.wait()
            return b"made"

        async def one():
            async with twin.get_or_create("a", produce) as got:
                return got.outcome, await got.read()

        tasks = [asyncio.create_task(one()) for _ in range(50)]
        while not calls:
            await asyncio.sleep(0.001)
        go.set()
        results = await asyncio.gather(*tasks)
        assert [outcome for outcome, _ in results].count("created") == 1
        assert {content for _, content in results} == {b"made"}

    run(main)
    assert len(calls) == 1


def test_waiting_for_oneself_is_refused_at_once(cache, run):
    async def main(twin):
        began = time.monotonic()

        async def nested():
            return await (await twin.get_or_create("a", lambda: b"inner", timeout=DEADLINE)).read()

        with pytest.raises(CacheBusyError, match="the same task is writing it, and cannot wait for itself"):
            await twin.get_or_create("a", nested, timeout=DEADLINE)
        async with twin.create("b") as writer:
            for wait in (
                lambda: twin.read("b", timeout=DEADLINE),
                lambda: twin.write("b", b"", timeout=DEADLINE),
                lambda: twin.create("b", timeout=DEADLINE)._acquire(),
            ):
                with pytest.raises(CacheBusyError):
                    await wait()
            other = asyncio.create_task(twin.read("b", timeout=DEADLINE))
            await writer.write(b"x")
        assert await other == b"x"
        assert await twin.read("b", timeout=DEADLINE) == b"x"
        assert time.monotonic() - began < DEADLINE / 2

    run(main)


def test_a_cancelled_wait_leaves_nothing_behind(cache, run):
    async def main(twin):
        with cache.create("a") as writer:
            for wait in (
                lambda: twin.read("a", timeout=DEADLINE),
                lambda: twin.write("a", b"", timeout=DEADLINE),
                lambda: asyncio.ensure_future(twin.create("a", timeout=DEADLINE)),
                lambda: asyncio.ensure_future(twin.get_or_create("a", lambda: b"", timeout=DEADLINE)),
            ):
                before = (await twin.stats()).waits
                task = asyncio.ensure_future(wait())
                while (await twin.stats()).waits == before:
                    await asyncio.sleep(0.001)
                task.cancel()
                began = time.monotonic()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert time.monotonic() - began < 1
            await wait_for(lambda: holders(cache) == [("writer", b"a")], "nobody waits any more")
            writer.write(b"made")
        assert await twin.read("a") == b"made"
        with pytest.raises(asyncio.TimeoutError), cache.create("b"):
            await asyncio.wait_for(twin.read("b", timeout=DEADLINE), 0.05)

    run(main)


def test_a_cancelled_producer_frees_the_key_at_once(cache, run):
    async def main(twin):
        started = asyncio.Event()

        async def produce(writer):
            await writer.write(b"x" * 500_000)
            started.set()
            await asyncio.sleep(DEADLINE)

        task = asyncio.ensure_future(twin.get_or_create("a", produce))
        await asyncio.wait_for(started.wait(), DEADLINE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with twin.get_or_create("a", lambda: b"next", timeout=5) as got:
            assert got.outcome != "hit"
            assert await got.read() == b"next"
        await wait_for(
            lambda: not [p for p in cache.directory.rglob("*") if "temporary" in p.parts and p.is_file()],
            "its file is gone",
        )

    run(main)


def test_cancelling_at_any_moment_loses_no_lease(cache, run):
    cache.write("a", b"1" * 100_000)

    async def main(twin):
        # Nothing must depend on the time of garbage collection.
        gc.disable()

        async def use(number):
            async with twin.open("a") as handle:
                await handle.read()
            async with twin.create(f"own{number}") as writer:
                await writer.write(b"x" * 200_000)

        for turn in range(60):
            tasks = [asyncio.create_task(use(f"{turn}:{number}")) for number in range(4)]
            await asyncio.sleep(turn % 12 * 0.0005)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await wait_for(lambda: holders(cache) == [], "no lease is left")

    try:
        run(main)
    finally:
        gc.enable()
    assert cache.verify("digests").ok


def test_the_loop_goes_on_while_a_task_waits(cache, run):
    async def main(twin):
        turns = 0

        async def tick():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        with cache.create("a"):
            began = time.monotonic()
            with pytest.raises(CacheTimeoutError):
                await twin.read("a", timeout=0.3)
            assert 0.25 < time.monotonic() - began < 10
            with pytest.raises(CacheBusyError):
                await twin.read("a")
        ticking.cancel()
        assert turns > 20

    run(main)


def test_one_object_in_several_loops(cache):
    twin = AsyncFileCache(cache.directory)
    for number in range(3):
        asyncio.run(twin.write(str(number), b"x"))
    assert sorted(cache) == [b"0", b"1", b"2"]
    results = []

    def work(number):
        async def main():
            for turn in range(20):
                await twin.replace(f"{number}:{turn}", b"x")
            return len([key async for key in twin.keys(f"{number}:")])

        results.append(asyncio.run(main()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert results == [20] * 4
    asyncio.run(twin.close())
    with pytest.raises(ValueError, match="closed"):
        asyncio.run(twin.read("0"))


def test_wrong_options_and_an_unreachable_server(tmp_path):
    with pytest.raises(TypeError, match="lease"):
        AsyncFileCache(tmp_path, lease="1")
    for options in ({"lease": 0}, {"namespace": "a*"}):
        with pytest.raises(CacheConfigError):
            asyncio.run(AsyncFileCache(tmp_path / "x", **options).read("a"))
    twin = AsyncFileCache(tmp_path / "y", "redis://u:s3cret@127.0.0.1:1", connect_timeout=0.5)
    assert "s3cret" not in repr(twin)
    with pytest.raises(UnavailableError) as unreachable:
        asyncio.run(twin.read("a"))
    assert "s3cret" not in str(unreachable.value)


def test_pickles_and_forks(cache):
    cache.write("a", b"1")
    twin = AsyncFileCache(cache.directory)
    assert asyncio.run(twin.read("a")) == b"1"
    again = pickle.loads(pickle.dumps(twin))
    assert repr(again) == repr(twin)
    assert asyncio.run(again.read("a")) == b"1"

    def child():
        assert asyncio.run(twin.read("a")) == b"1"
        asyncio.run(twin.write("b", b"child"))
        return "ok"

    assert in_child(child) == "ok"
    assert asyncio.run(twin.read("b")) == b"child"


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"])
def test_an_interpreter_ends_cleanly_whatever_is_under_way(cache, ending):
    code = f"""
import asyncio
twin = AsyncFileCache(sys.argv[1])
async def main():
    await twin.write("a", b"x")
    async with twin.open("a") as handle, twin.create("b") as writer:
        asyncio.ensure_future(twin.read("b", timeout=60))
        asyncio.ensure_future(twin.create("b", timeout=60).__aenter__())
        await asyncio.sleep(0.01)
        {ending or "raise SystemExit(3)"}
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(3)
"""
    with Program(code, cache.directory) as program:
        status, _, err = program.wait()
    assert status == 3, err
    assert "panicked" not in err
    assert "Fatal" not in err
    # Released, not expired.
    wait_until(lambda: holders(cache) == [], "no lease is left", deadline=5)
