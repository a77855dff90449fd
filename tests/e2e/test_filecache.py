"""`redgrease.filecache` with a real server that coordinates: several processes, kills, outages, users."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redgrease import filecache
from redgrease.filecache import (
    AsyncFileCache,
    CacheBusyError,
    CacheConfigError,
    CacheDeniedError,
    CacheIOError,
    CacheTimeoutError,
    FileCache,
    NoSpaceError,
    RedisFileCache,
    UnavailableError,
)

from .caching import COMMAND
from .servers import Server, ServerKind
from .waiting import wait_until

DEADLINE = 30.0
_numbers = itertools.count()


@pytest.fixture(scope="module")
def coordinator(server_kind: ServerKind) -> Iterator[Server]:
    """A server without our module."""
    server = Server(server_kind, with_module=False).start()
    yield server
    server.stop()


@pytest.fixture
def fresh(server_kind: ServerKind) -> Iterator[Server]:
    """A server for one test, which may stop it."""
    server = Server(server_kind, with_module=False).start()
    yield server
    server.kill_and_clean()


def url_of(server: Server, user: str = "") -> str:
    return f"redis://{user}127.0.0.1:{server.port}/0"


@pytest.fixture
def where(coordinator: Server, tmp_path: Path) -> dict:
    """How to open a cache of this test."""
    return {
        "directory": os.fspath(tmp_path / "cache"),
        "url": url_of(coordinator),
        "namespace": f"test-{os.getpid()}-{next(_numbers)}",
        "lease": 0.5,
    }


@pytest.fixture
def cache(where: dict) -> Iterator[FileCache]:
    with FileCache(**where) as cache:
        yield cache


class Program:
    """A Python program with an open `cache`, in a separate process; it prints and reads lines."""

    def __init__(self, where: dict, code: str) -> None:
        source = f"import os, sys, time\nfrom redgrease.filecache import *\ncache = FileCache(**{where!r})\n{code}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        said = self.process.stdout.readline()
        if not said:
            raise AssertionError(f"it ended: {self.process.communicate(timeout=DEADLINE)}")
        return said.rstrip("\n")

    def tell(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> str:
        out, err = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, (out, err)
        return out

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(ValueError, OSError):
            self.process.communicate(timeout=DEADLINE)


def holders(cache: FileCache) -> list[tuple[str, bytes]]:
    return sorted((lock.kind, lock.key) for lock in cache.locks())


def test_all_there_is(cache: FileCache, where: dict):
    stat = cache.write("a", b"content", ttl=60, content_type="text/plain", user={"k": "ü"})
    assert cache.read("a") == b"content"
    assert cache.stat("a").user == {"k": "ü"}
    assert cache.replace("a", b"new").fence > stat.fence
    with cache.open("a") as handle, cache.create("b") as writer:
        assert handle.read() == b"new"
        writer.write(b"x" * 300_000)
        assert holders(cache) == [("reader", b"a"), ("writer", b"b")]
    with cache.get_or_create("c", lambda: b"made") as got:
        assert (got.outcome, got.read()) == ("created", b"made")
    assert cache.get_or_create("c", lambda: b"").outcome == "hit"
    assert cache.touch("a", ttl=60)
    assert cache.pin("a")
    assert sorted(cache) == [b"a", b"b", b"c"]
    assert cache.info().bytes == 3 + 300_000 + 4
    cache.configure(max_bytes=1_000_000)
    with FileCache(**where) as other:
        assert other.info().limits.max_bytes == 1_000_000
        assert other.read("c") == b"made"
    wait_until(lambda: holders(cache) == [], "nobody reads any more")
    assert cache.evict(to_bytes=0).entries == 2
    assert list(cache) == [b"a"]
    assert cache.verify().ok
    assert cache.repair().ok
    assert {finding.level for finding in cache.doctor()} <= {"ok", "warning"}
    assert cache.delete("a")
    assert cache.clear() == 0


def test_coroutines(where: dict):
    async def main() -> None:
        async with AsyncFileCache(**where) as cache:
            calls = []

            async def produce() -> bytes:
                calls.append(1)
                await asyncio.sleep(0.01)
                return b"made"

            async def one() -> bytes:
                async with cache.get_or_create("a", produce) as got:
                    return await got.read()

            assert set(await asyncio.gather(*[one() for _ in range(50)])) == {b"made"}
            assert len(calls) == 1
            with FileCache(**where) as other, other.create("b"):
                task = asyncio.create_task(cache.create("b", timeout=DEADLINE).__aenter__())
                await asyncio.to_thread(
                    wait_until, lambda: ("waiting", b"b") in holders(other), "it waits", deadline=DEADLINE
                )
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.to_thread(
                    wait_until, lambda: holders(other) == [("writer", b"b")], "it waits no more", deadline=DEADLINE
                )

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_a_database_that_is_not_there_is_a_wrong_option(fresh: Server, tmp_path: Path):
    with pytest.raises(CacheConfigError, match="has no such database; correct the number"):
        FileCache(tmp_path / "cache", f"redis://127.0.0.1:{fresh.port}/99")
    with pytest.raises(CacheDeniedError, match="correct user and password"):
        FileCache(tmp_path / "cache", f"redis://nobody:nothing@127.0.0.1:{fresh.port}/0")
    assert not (tmp_path / "cache").exists()


def test_a_hit_is_one_exchange_with_the_server_and_a_create_two(cache: FileCache):
    cache.write("a", b"1")
    before = cache.stats().round_trips
    for _ in range(100):
        cache.read("a")
    assert cache.stats().round_trips - before <= 105
    before = cache.stats().round_trips
    for number in range(100):
        cache.write(f"n{number}", b"1")
    assert cache.stats().round_trips - before <= 210


MAKING = """
import threading
def produce():
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{os.getpid()}\\n")
    print("producing", flush=True)
    sys.stdin.readline()
    return b"made"
print("ready", flush=True)
sys.stdin.readline()
with cache.get_or_create("a", produce, timeout=60) as got:
    print(got.outcome, got.read().decode(), flush=True)
"""


def test_many_processes_make_an_entry_once_also_when_the_first_one_is_killed(
    cache: FileCache, where: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = tmp_path / "log"
    monkeypatch.setenv("LOG", os.fspath(log))
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(Program(where, MAKING)) for _ in range(6)]
        for program in programs:
            assert program.line() == "ready"
            program.tell()
        wait_until(lambda: log.exists() and log.read_text(), "somebody makes it", deadline=DEADLINE)
        leader = next(program for program in programs if str(program.process.pid) in log.read_text())
        assert leader.line() == "producing"
        leader.signal(signal.SIGKILL)
        followers = [program for program in programs if program is not leader]
        wait_until(lambda: len(log.read_text().split()) == 2, "the next one makes it", deadline=DEADLINE)
        second = next(program for program in followers if str(program.process.pid) in log.read_text())
        assert second.line() == "producing"
        for program in followers:
            program.tell()
        lines = [program.line() for program in followers]
        assert sorted(lines) == ["created made", *["waited made"] * 4]
        for program in followers:
            program.end()
    assert len(log.read_text().split()) == 2
    wait_until(lambda: holders(cache) == [], "no lease is left", deadline=DEADLINE)


def test_forks(cache: FileCache):
    cache.write("a", b"parent")
    with cache.open("a") as handle, cache.create("b") as writer:
        children = []
        for number in range(4):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    ok = cache.read("a") == handle.read() == b"parent"
                    cache.write(f"child{number}", b"x")
                    owners = [lock.owner for lock in cache.locks() if lock.key in (b"a", b"b")]
                    ok = ok and len(owners) == 2 and all(owner.endswith(f":{os.getppid()}") for owner in owners)
                    handle.close()
                    writer.close()
                    cache.close()
                    code = 0 if ok else 2
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children.append(pid)
        for pid in children:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert holders(cache) == [("reader", b"a"), ("writer", b"b")]
        assert handle.read() == b"parent"
        writer.write(b"done")
    assert cache.read("b") == b"done"
    assert sorted(cache.keys("child")) == [b"child%d" % number for number in range(4)]


def test_threads_of_several_processes(cache: FileCache, where: dict):
    code = """
import threading
failures = []
def work(number):
    try:
        for turn in range(30):
            with cache.get_or_create(f"shared{turn}", lambda: b"%d" % turn * 1000, timeout=30) as got:
                assert got.read() == b"%d" % turn * 1000
            cache.replace(f"hot{turn % 3}", b"x" * (turn + 1), timeout=30)
            assert set(cache.read(f"hot{turn % 3}", timeout=30)) == {120}
    except BaseException as error:
        failures.append(repr(error))
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
print(cache.stats().creates)
"""
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(Program(where, code)) for _ in range(3)]
        created = sum(int(program.end()) for program in programs)
    assert created == 30 + 3 * 4 * 30
    assert cache.info().entries == 33
    assert cache.verify().ok


def test_control_c_ends_a_wait(cache: FileCache, where: dict):
    code = """
import threading
def tell():
    while not cache.stats().waits: time.sleep(0.001)
    print("waiting", flush=True)
threading.Thread(target=tell, daemon=True).start()
try:
    cache.get_or_create("a", lambda: b"", timeout=60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
"""
    with cache.create("a"), Program(where, code) as program:
        assert program.line() == "waiting"
        program.signal(signal.SIGINT)
        began = time.monotonic()
        assert program.line() == "interrupted"
        assert time.monotonic() - began < 2
        wait_until(lambda: holders(cache) == [("writer", b"a")], "nobody waits any more")
        program.tell()
        program.end()


def test_a_killed_reader_and_a_killed_writer(cache: FileCache, where: dict):
    cache.write("a", b"1")
    code = """
handle, writer = cache.open("a"), cache.create("b")
writer.write(b"x" * 1000000)
print("holding", flush=True)
sys.stdin.readline()
"""
    with Program(where, code) as program:
        assert program.line() == "holding"
        assert holders(cache) == [("reader", b"a"), ("writer", b"b")]
        program.signal(signal.SIGKILL)
        cache.write("b", b"2", timeout=DEADLINE)
    wait_until(lambda: cache.maintain() and holders(cache) == [], "its leases end", deadline=DEADLINE)
    assert cache.verify().ok


def test_a_stalled_writer_is_told_that_it_lost_its_lease(cache: FileCache, where: dict):
    code = """
writer = cache.create("a")
writer.write(b"mine")
print("writing", flush=True)
sys.stdin.readline()
try:
    writer.commit()
except LeaseLostError as error:
    print(error.code, writer.lease_lost, flush=True)
"""
    with Program(where, code) as program:
        assert program.line() == "writing"
        program.signal(signal.SIGSTOP)
        cache.write("a", b"theirs", timeout=DEADLINE)
        program.signal(signal.SIGCONT)
        program.tell()
        assert program.line().startswith("lease-lost")
        program.end()
    assert cache.read("a") == b"theirs"


def test_a_server_that_forgets_everything(cache: FileCache, where: dict, coordinator: Server):
    for number in range(50):
        cache.write(f"n{number}", b"%d" % number, user={"n": str(number)})
    with coordinator.client() as client:
        client.delete(*client.keys(f"*{where['namespace']}*"))
        client.script_flush()
    assert cache.read("n7") == b"7"
    cache.write("new", b"x")
    assert cache.info().entries == 51
    assert cache.stat("n8").user == {"n": "8"}
    assert cache.stats().rebuilds >= 1
    assert cache.verify().ok


@pytest.mark.parametrize("call", ["read", "open", "hit", "new", "write", "exists", "task"])
def test_a_call_ends_at_its_deadline_while_the_server_evicts_the_index(fresh: Server, tmp_path: Path, call: str):
    where = {"directory": tmp_path / "cache", "url": url_of(fresh), "command_timeout": 1, "maintenance": None}
    cache = FileCache(**where)
    for number in range(20):
        cache.write(f"k{number}", b"x" * 1000)

    async def task() -> None:
        async with AsyncFileCache(**where) as twin:
            await twin.read("k1", timeout=1)

    calls = {
        "read": lambda: cache.read("k1", timeout=1),
        "open": lambda: cache.open("k1", timeout=1),
        "hit": lambda: cache.get_or_create("k1", lambda: b"", timeout=1),
        "new": lambda: cache.get_or_create("new", lambda: b"", timeout=1),
        "write": lambda: cache.write("new", b"", timeout=1),
        "exists": lambda: cache.exists("k1"),
        "task": lambda: asyncio.run(task()),
    }
    with fresh.client() as client:
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", "100kb")
        before = client.info("stats")["total_commands_processed"]
        began = time.monotonic()
        with pytest.raises((UnavailableError, NoSpaceError)) as refused, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            calls[call]()
        passed = time.monotonic() - began
        commands = client.info("stats")["total_commands_processed"] - before
        client.config_set("maxmemory", "0")
    assert passed < 5
    assert commands < 5000, "it is tried with pauses"
    if isinstance(refused.value, UnavailableError):
        assert re.search(r"lost \d+ times within .* evicts its keys .*allkeys-random.* noeviction", str(refused.value))
    else:
        assert "OOM" in str(refused.value)
    assert cache.read("k1", timeout=DEADLINE) == b"x" * 1000
    assert len(list(cache.keys("k"))) == 20
    assert cache.verify().ok
    cache.close()


def test_opening_and_the_doctor_warn_of_a_policy_that_evicts_the_index(fresh: Server, tmp_path: Path):
    where = {"directory": tmp_path / "cache", "url": url_of(fresh)}

    async def task() -> None:
        async with AsyncFileCache(**where):
            pass

    def opened(open: Callable[[], object]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            open()
        return [str(each.message) for each in caught if each.category is RuntimeWarning]

    opens = (lambda: FileCache(**where).close(), lambda: asyncio.run(task()))
    with fresh.client() as client:
        for policy, limit, level in (
            ("noeviction", "1gb", "ok"),
            ("allkeys-lru", "0", "warning"),
            ("allkeys-lru", "1gb", "error"),
            ("allkeys-random", "1gb", "error"),
            ("volatile-lru", "1gb", "warning"),
        ):
            client.config_set("maxmemory-policy", policy)
            client.config_set("maxmemory", limit)
            for open in opens:
                said = opened(open)
                assert len(said) == (1 if level == "error" else 0), (policy, said)
                assert all("noeviction" in text and policy in text for text in said)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                cache = FileCache(**where)
            levels = {found.name: found.level for found in cache.doctor()}
            assert levels.get("maxmemory-policy", "ok") == level, (policy, levels)
            cache.close()


def test_the_first_call_after_an_outage_is_answered(fresh: Server, tmp_path: Path):
    cache = FileCache(tmp_path / "cache", url_of(fresh), connect_timeout=1, command_timeout=1)
    cache.write("a", b"1")
    fresh.kill()
    for _ in range(8):
        with pytest.raises(UnavailableError):
            cache.read("a")
    fresh._spawn()
    fresh._wait_ready()
    assert cache.read("a") == b"1"
    cache.close()


def test_threads_that_ended_leave_no_connections(fresh: Server, tmp_path: Path):
    cache = FileCache(tmp_path / "cache", url_of(fresh))
    cache.write("a", b"1")
    go = threading.Barrier(30)

    def read() -> None:
        go.wait(DEADLINE)
        for _ in range(20):
            assert cache.read("a") == b"1"

    threads = [threading.Thread(target=read) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    with fresh.client() as client:
        wait_until(
            lambda: len(client.client_list()) - 1,
            "idle connections are closed",
            until=lambda count: count <= 2,
            deadline=15,
        )
    assert cache.read("a") == b"1"
    cache.close()


def test_readers_whose_lease_has_expired_are_not_shown(cache: FileCache, where: dict):
    cache.write("a", b"1")
    with Program(where, "handle = cache.open('a')\nprint('open', flush=True)\nsys.stdin.readline()") as program:
        assert program.line() == "open"
        assert holders(cache) == [("reader", b"a")]
        program.signal(signal.SIGKILL)
        # Nothing sweeps meanwhile: it is missing because its lease has expired.
        wait_until(lambda: holders(cache), "the dead reader is not shown", until=lambda held: not held, deadline=10)


def test_a_task_that_waits_for_itself_is_told_so(where: dict):
    async def main() -> None:
        async with AsyncFileCache(**where) as twin:

            async def nested() -> bytes:
                return await twin.read("b\u00e4: x", timeout=DEADLINE)

            with pytest.raises(CacheBusyError, match=r"^read .*: the same task is writing it") as refused:
                await twin.get_or_create("b\u00e4: x", nested, timeout=DEADLINE)
            assert (refused.value.operation, refused.value.key) == ("read", "b\u00e4: x".encode())
            async with twin.create("c") as writer:
                for wait in (
                    lambda: twin.write("c", b"", timeout=DEADLINE),
                    lambda: twin.create("c", timeout=DEADLINE)._acquire(),
                    lambda: twin.open("c", timeout=DEADLINE)._acquire(),
                ):
                    with pytest.raises(CacheBusyError, match="the same task"):
                        await wait()
                await writer.write(b"x")

    asyncio.run(main())


@pytest.mark.parametrize("name", ["files", "temporary", "quarantine"])
def test_a_directory_that_became_a_link_is_named_and_nothing_is_lost(
    cache: FileCache, where: dict, tmp_path: Path, name: str
):
    cache.write("a", b"1")
    place, aside = Path(where["directory"]) / name, tmp_path / "aside"
    place.rename(aside)
    place.symlink_to(aside)
    errors = [found.message for found in cache.doctor() if found.level == "error"]
    assert len(errors) == 1
    assert f"{name} is a symbolic link" in errors[0]
    for look in (cache.verify, cache.repair):
        found = look()
        assert [(each.kind, each.name, each.repaired) for each in found.problems] == [("foreign", name, False)]
    if name == "files":
        with pytest.raises(CacheIOError, match="files is a symbolic link") as refused:
            cache.read("a")
        assert "quarantine" not in str(refused.value)
    place.unlink()
    aside.rename(place)
    assert cache.read("a") == b"1"
    assert cache.verify().ok


def test_a_copy_of_the_directory_is_refused_and_can_become_a_cache_of_its_own(
    cache: FileCache, where: dict, tmp_path: Path
):
    cache.write("a", b"1")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", where["directory"], copy], check=True)
    for read_only in (False, True):
        with pytest.raises(CacheConfigError, match=r"is a copy of a cache.*inode.*adopt"):
            FileCache(**{**where, "directory": copy, "read_only": read_only})
    own = FileCache(**{**where, "directory": copy, "namespace": f"{where['namespace']}-copy"}, adopt=True)
    assert own.read("a") == b"1"
    own.clear()
    own.close()
    assert cache.read("a") == b"1"
    assert cache.verify().ok


def test_an_outage(fresh: Server, tmp_path: Path):
    where = {"directory": tmp_path / "cache", "url": url_of(fresh), "connect_timeout": 1, "command_timeout": 1}
    failing, degrading = FileCache(**where), FileCache(**where, on_outage="degrade")
    failing.write("a", b"1")
    assert degrading.read("a") == b"1"
    fresh.kill()
    with pytest.raises(UnavailableError) as unreachable:
        failing.read("a")
    assert isinstance(unreachable.value, ConnectionError)
    assert (unreachable.value.code, unreachable.value.operation) == ("unavailable", "read")
    assert str(fresh.port) in str(unreachable.value)
    assert degrading.read("a") == b"1"
    with pytest.raises(UnavailableError):
        degrading.write("b", b"2")
    with pytest.raises(UnavailableError):
        FileCache(**where)
    assert failing.stats().index_errors
    fresh._spawn()
    fresh._wait_ready()

    def works() -> bool:
        try:
            failing.replace("b", b"2")
        except UnavailableError:
            return False
        return True

    wait_until(works, "the cache works again", deadline=DEADLINE)
    assert (failing.read("a"), degrading.read("b")) == (b"1", b"2")
    failing.close()
    degrading.close()


def test_the_callers_own_exception_wins_over_an_outage(fresh: Server, tmp_path: Path):
    where = {"directory": tmp_path / "cache", "url": url_of(fresh), "connect_timeout": 1, "command_timeout": 1}
    cache = FileCache(**where)
    cache.write("a", b"1")

    def fails() -> bytes:
        raise LookupError("mine")

    published = cache.create("published")
    with pytest.raises(ZeroDivisionError), cache.open("a"), cache.create("b"):
        fresh.kill()
        raise ZeroDivisionError
    with pytest.raises(UnavailableError) as unreachable:
        published.commit()
    assert unreachable.value.key == b"published"
    with pytest.raises(UnavailableError):
        cache.get_or_create("c", fails)
    cache.close()


def test_a_server_that_does_not_answer(fresh: Server, tmp_path: Path):
    cache = FileCache(tmp_path / "cache", url_of(fresh), connect_timeout=0.5, command_timeout=0.5)
    cache.write("a", b"1")
    os.kill(fresh.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            cache.read("a")
        assert time.monotonic() - began < 10
    finally:
        os.kill(fresh.pid, signal.SIGCONT)

    def reads() -> bool:
        try:
            return cache.read("a") == b"1"
        except UnavailableError:
            return False

    wait_until(reads, "it works again")
    cache.close()


def test_passwords_are_never_shown(fresh: Server, tmp_path: Path):
    with fresh.client() as client:
        client.config_set("requirepass", "s3cret")
    url = url_of(fresh, ":s3cret@")
    cache = FileCache(tmp_path / "cache", url)
    cache.write("a", b"1")
    assert cache.url == url.replace("s3cret", "***")
    shown = repr(cache)
    for wrong in (":wr0ng@", "nobody:wr0ng@", ""):
        with pytest.raises(CacheDeniedError) as denied:
            FileCache(tmp_path / "cache", url_of(fresh, wrong))
        assert isinstance(denied.value, PermissionError)
        shown += str(denied.value) + repr(denied.value)
    fresh.kill()
    with pytest.raises(UnavailableError) as unreachable:
        cache.read("a")
    shown += str(unreachable.value)
    assert "s3cret" not in shown
    assert "wr0ng" not in shown


def guide() -> str:
    return (Path(__file__).parents[2] / "docs" / "filecache.md").read_text()


def test_the_examples_of_the_guide(coordinator: Server, tmp_path: Path):
    programs, outputs = zip(*re.findall(r"```python\n(.*?)```\s*```console\n(.*?)```", guide(), re.DOTALL))
    program = "".join(programs).replace("redis://localhost:6379/0", url_of(coordinator))
    program = program.replace('"/tmp/', f'"{tmp_path}/')
    with coordinator.client() as client:
        client.flushdb()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.stdout, done.stderr) == ("".join(outputs), "")


def test_the_codes_of_the_guide_are_those_of_the_command_and_of_the_exceptions():
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|.*?\| (\d+) \|", guide(), re.MULTILINE)
    assert len(rows) == 13
    listed = subprocess.run([COMMAND, "cache", "codes", "--json"], capture_output=True, check=True, timeout=DEADLINE)
    statuses = {row["code"]: row["status"] for row in map(json.loads, listed.stdout.splitlines())}
    for code, exception, status in rows:
        assert statuses[code] == int(status)
        assert getattr(filecache, exception).code == code


def test_the_least_rights_of_the_guide_suffice(fresh: Server, tmp_path: Path):
    rights = next(line for line in guide().splitlines() if line.strip().startswith("ACL SETUSER"))
    with fresh.client() as client:
        client.execute_command(*rights.split())
    password = next(word[1:] for word in rights.split() if word.startswith(">"))
    namespace = rights.split("~{")[1].split("}")[0]
    url = url_of(fresh, f"{rights.split()[2]}:{password}@")
    with FileCache(tmp_path / "cache", url, namespace=namespace, lease=0.5) as cache:
        cache.write("a", b"1")
        with cache.open("a") as handle:
            assert handle.read() == b"1"
        with cache.create("b"), FileCache(tmp_path / "cache", url, namespace=namespace) as other:
            with pytest.raises(CacheTimeoutError):
                other.read("b", timeout=0.3)
            assert cache.locks()
        assert sorted(cache) == [b"a", b"b"]
        assert cache.verify().ok
        cache.maintain()
        assert cache.clear() == 2
    with pytest.raises(CacheDeniedError):
        FileCache(tmp_path / "other", url, namespace="other")


def test_directory_and_namespace_belong_together(cache: FileCache, where: dict, tmp_path: Path):
    cache.write("a", b"1")
    cache.close()
    other_namespace = {**where, "namespace": where["namespace"] + "-other"}
    with pytest.raises(CacheConfigError, match="namespace"):
        FileCache(**other_namespace)
    with pytest.raises(CacheConfigError):
        FileCache(**{**where, "url": None})
    with pytest.raises(CacheConfigError):
        FileCache(**{**where, "directory": tmp_path / "elsewhere"})
    with FileCache(**other_namespace, adopt=True) as moved:
        assert moved.read("a") == b"1"


def test_moving_from_the_proof_of_concept(coordinator: Server, tmp_path: Path):
    directory, namespace = tmp_path / "poc-cache", f"poc-{os.getpid()}-{next(_numbers)}"
    directory.mkdir()
    for number in range(20):
        (directory / f"{number}.bin").write_bytes(b"%d" % number)
    with coordinator.client() as client:
        client.sadd(f"{namespace}:keys:set", *[f"{number}.bin" for number in range(20)])
    options = {"redis_url": url_of(coordinator), "namespace": namespace}
    with pytest.raises(CacheConfigError, match="adopt"):
        RedisFileCache(directory, **options)
    old = RedisFileCache(directory, **options, adopt=True)
    assert [old.read_bytes(f"{number}.bin") for number in range(20)] == [b"%d" % number for number in range(20)]
    with pytest.raises(FileExistsError):
        old.write_bytes_create("3.bin", b"")
    with old.open_for_create("new.bin") as file:
        file.write(b"new")
    assert old.cache.verify().ok
    old.close()
    again = RedisFileCache(directory, **options)
    assert again.read_bytes("new.bin") == b"new"
    again.close()


def test_memoized_functions_are_shared_between_processes(cache: FileCache, where: dict, tmp_path: Path):
    code = """
@cache.memoize(name="slow", ttl=60)
def slow(number):
    print("computing", flush=True)
    return {"double": number * 2}
print(slow(21), flush=True)
"""
    outputs = []
    for _ in range(2):
        with Program(where, code) as program:
            outputs.append(program.end())
    assert outputs == ["computing\n{'double': 42}\n", "{'double': 42}\n"]
    assert len(list(cache.keys("slow:"))) == 1


def test_combined_flags_are_arguments_of_their_own(cache: FileCache):
    class Access(enum.IntFlag):
        READ = 1
        WRITE = 2

    @cache.memoize
    def number(flags: Access) -> int:
        return int(flags)

    for value in (1, 2, 3, 8, 16, 8, 16, 3):
        assert number(Access(value)) == value
    assert len(list(cache.keys())) == 5


def test_an_entry_is_not_published_when_its_producer_is_not_done(cache: FileCache, where: dict):
    def rows(writer):
        yield writer.write(b"row")

    async def forgets(writer):
        writer.write(b"row")

    async def main() -> None:
        async with AsyncFileCache(**where) as twin:
            with pytest.raises(TypeError, match="await write"):
                await twin.get_or_create("forgets", forgets)

    with pytest.raises(TypeError, match="does not yield"):
        cache.get_or_create("rows", rows)
    with pytest.warns(RuntimeWarning, match="never awaited"):
        asyncio.run(main())
        gc.collect()
    wait_until(lambda: holders(cache), "no lease is left", until=lambda held: not held)
    assert list(cache.keys()) == []


def test_a_waiting_thread_is_woken_soon(cache: FileCache, where: dict):
    """Not only by polling: the process that made it publishes a message."""
    code = """
for number in range(10):
    with cache.create(f"k{number}") as writer:
        print("writing", flush=True)
        sys.stdin.readline()
    print(time.time(), flush=True)
"""
    delays = []
    with Program(where, code) as program:
        for number in range(10):
            assert program.line() == "writing"
            before, woken = cache.stats().waits, []

            def wait(number: int = number, woken: list = woken) -> None:
                cache.read(f"k{number}", timeout=DEADLINE)
                woken.append(time.time())

            thread = threading.Thread(target=wait)
            thread.start()
            wait_until(lambda before=before: cache.stats().waits > before, "it waits")
            program.tell()
            published = float(program.line())
            thread.join(DEADLINE)
            delays.append(woken[0] - published)
        program.end()
    assert sorted(delays)[5] < 0.1, delays
