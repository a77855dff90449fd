"""The yardstick of the file cache rows: the obvious protocol on Redis, and a load of many processes on any such cache.

The protocol counts readers in one key, marks a writer in another, and renames a finished file into place. It is here to
be measured against, and to show that tests of hazards find them: a process that dies leaves its lock until it runs
out, a lock that runs out is not noticed, what Redis forgets is forgotten. Use `redgrease.filecache` for real work.

    python benches/filecache_naive.py --processes 6 --duration 10 --write-prob 0.20 --read-sleep 0 --write-sleep 0
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import BinaryIO, Protocol

import redis

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0

# KEYS: writer, readers. ARGV: milliseconds.
BEGIN_READ = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
"""

# KEYS: readers.
END_READ = """
if redis.call('DECR', KEYS[1]) <= 0 then redis.call('DEL', KEYS[1]) end
return 1
"""

# KEYS: writer, readers. ARGV: token, milliseconds.
BEGIN_WRITE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') > 0 then return -1 end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""

# KEYS: writer. ARGV: token.
END_WRITE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class CacheBusyError(Exception):
    """Another process holds a conflicting lock."""


class NaiveFileCache:
    """Immutable files in one directory, with locks in Redis."""

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] = "/tmp/poc-cache",
        redis_url: str = "redis://localhost:6379/0",
        lock_ttl_ms: int = 60_000,
        namespace: str = "poc-cache",
    ) -> None:
        self.directory = Path(cache_dir)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.lock_ttl_ms = lock_ttl_ms
        self.namespace = namespace
        self.redis = redis.Redis.from_url(redis_url)
        scripts = (BEGIN_READ, END_READ, BEGIN_WRITE, END_WRITE)
        self._begin_read, self._end_read, self._begin_write, self._end_write = map(self.redis.script_load, scripts)

    @contextlib.contextmanager
    def open_for_read(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        writer, readers = self._locks(key)
        if not self.redis.evalsha(self._begin_read, 2, writer, readers, self.lock_ttl_ms):
            raise CacheBusyError(f"{key} is being written")
        try:
            file = path.open("rb")
        except FileNotFoundError:
            self.redis.evalsha(self._end_read, 1, readers)
            raise
        try:
            with file:
                yield file
        finally:
            self.redis.evalsha(self._end_read, 1, readers)

    def read_bytes(self, key: str) -> bytes:
        with self.open_for_read(key) as file:
            return file.read()

    @contextlib.contextmanager
    def open_for_create(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        if path.exists():
            raise FileExistsError(f"{key} is there already")
        writer, readers = self._locks(key)
        token = str(uuid.uuid4())
        granted = self.redis.evalsha(self._begin_write, 2, writer, readers, token, self.lock_ttl_ms)
        if granted != 1:
            raise CacheBusyError(f"{key} is being {'read' if granted < 0 else 'written'}")
        try:
            number, temporary = tempfile.mkstemp(prefix=f".{key}.", dir=self.directory)
            try:
                with os.fdopen(number, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                if path.exists():
                    raise FileExistsError(f"{key} was made meanwhile")
                os.rename(temporary, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        finally:
            self.redis.evalsha(self._end_write, 1, writer, token)

    def write_bytes_create(self, key: str, data: bytes) -> None:
        with self.open_for_create(key) as file:
            file.write(data)

    def exists(self, key: str) -> bool:
        return self._path(key).exists()

    def close(self) -> None:
        self.redis.close()

    def _path(self, key: str) -> Path:
        if "/" in key or key.startswith("."):
            raise ValueError(f"{key!r} is not a key: it contains '/' or begins with '.'")
        return self.directory / key

    def _locks(self, key: str) -> tuple[str, str]:
        return f"{self.namespace}:lock:write:{key}", f"{self.namespace}:lock:readers:{key}"


# -- the load


class Store(Protocol):
    """A cache under load."""

    #: What it raises when another process holds a conflicting lock.
    busy: type[Exception]

    def read(self, key: str) -> bytes: ...

    def create(self, key: str, content: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Naive:
    """Opens the naive cache in each process."""

    directory: str
    url: str
    namespace: str = "poc-cache"

    def open(self) -> Store:
        return _NaiveStore(NaiveFileCache(self.directory, self.url, namespace=self.namespace))


class _NaiveStore:
    busy = CacheBusyError

    def __init__(self, cache: NaiveFileCache) -> None:
        self.read = cache.read_bytes
        self.create = cache.write_bytes_create
        self.close = cache.close


class Opens(Protocol):
    """How each process comes by its cache; travels to the processes."""

    def open(self) -> Store: ...


@dataclass(frozen=True)
class Load:
    """The work of one process until its time has ended: create a new key, or read one that exists."""

    processes: int = 4
    seconds: float = 20.0
    write_share: float = 0.15
    read_sleep: float = 0.005
    write_sleep: float = 0.02
    sizes: tuple[int, int] = (200, 4000)
    #: So many keys are made before the clock starts.
    prepared: int = 0
    #: The set of known keys in Redis that readers ask for a random member; None: each process remembers its own keys.
    known_set: str | None = "poc-cache:keys:set"
    url: str = "redis://localhost:6379/0"


@dataclass
class Tally:
    """What a process counted."""

    pid: int = 0
    seconds: float = 0.0
    reads_ok: int = 0
    reads_busy: int = 0
    reads_missing: int = 0
    read_bytes: int = 0
    writes_ok: int = 0
    writes_busy: int = 0
    writes_exist: int = 0
    written_bytes: int = 0
    wrong: int = 0
    #: Spent in the calls themselves.
    read_seconds: float = 0.0
    write_seconds: float = 0.0
    error: str = ""

    @property
    def reads(self) -> int:
        return self.reads_ok + self.reads_busy + self.reads_missing

    @property
    def writes(self) -> int:
        return self.writes_ok + self.writes_busy + self.writes_exist

    @property
    def iterations(self) -> int:
        return self.reads + self.writes


@dataclass
class Outcome:
    """What all processes counted."""

    tallies: list[Tally] = field(default_factory=list)

    def sum(self, name: str) -> float:
        return sum(getattr(tally, name) for tally in self.tallies)

    @property
    def per_second(self) -> float:
        """Iterations of all, each process by its own clock."""
        return sum(tally.iterations / tally.seconds for tally in self.tallies)

    @property
    def read_us(self) -> float:
        return 1e6 * self.sum("read_seconds") / max(1, self.sum("reads"))

    @property
    def write_us(self) -> float:
        return 1e6 * self.sum("write_seconds") / max(1, self.sum("writes"))


class LoadError(Exception):
    """A process of the load failed, or read what was not written."""


def run_load(load: Load, opens: Opens) -> Outcome:
    """Starts the processes, lets them begin together, and gathers what they counted."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(load.processes)
    ends, processes = [], []
    try:
        for _ in range(load.processes):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(load, opens, barrier, theirs), daemon=True)
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        tallies = _gather(ends, START_TIMEOUT_S + load.seconds + END_TIMEOUT_S)
        for process in processes:
            process.join(END_TIMEOUT_S)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    if problems := {tally.error for tally in tallies if tally.error}:
        raise LoadError("; ".join(sorted(problems)))
    if wrong := sum(tally.wrong for tally in tallies):
        raise LoadError(f"{wrong} reads gave what was not written under that key")
    return Outcome(tallies)


def _gather(ends: list[Connection], timeout: float) -> list[Tally]:
    tallies, left, deadline = [], list(ends), time.monotonic() + timeout
    while left:
        ready = wait(left, max(0.0, deadline - time.monotonic()))
        if not ready:
            raise LoadError(f"{len(left)} processes did not report")
        for end in ready:
            left.remove(end)
            try:
                tallies.append(end.recv())
            except EOFError:
                raise LoadError("a process ended without a report") from None
    return tallies


def _work(load: Load, opens: Opens, barrier: Barrier, end: Connection) -> None:
    tally = Tally(pid=os.getpid())
    try:
        store = opens.open()
        worker = _Worker(load, store)
        for _ in range(load.prepared // load.processes):
            worker.write()
        worker.tally = tally  # what was prepared does not count
        barrier.wait(START_TIMEOUT_S)
        worker.work()
        store.close()
    except Exception as error:
        tally.error = f"{type(error).__name__}: {error}"
        barrier.abort()
    end.send(tally)
    end.close()


class _Worker:
    def __init__(self, load: Load, store: Store) -> None:
        self.load = load
        self.store = store
        self.tally = Tally(pid=os.getpid())
        self.rng = random.Random()
        self.own: list[str] = []
        self.redis = redis.Redis.from_url(load.url) if load.known_set else None

    def work(self) -> None:
        load, rng = self.load, self.rng
        began = now = time.perf_counter()
        end = began + load.seconds
        while now < end:
            if rng.random() < load.write_share:
                self.write()
                pause = load.write_sleep
            else:
                self.read()
                pause = load.read_sleep
            if pause > 0:
                time.sleep(pause)
            now = time.perf_counter()
        self.tally.seconds = now - began

    def write(self) -> None:
        tally, rng = self.tally, self.rng
        key = f"{tally.pid}-{uuid.uuid4().hex[:16]}.bin"
        head = f"{tally.pid} {key} {uuid.uuid4()}\n".encode()
        content = head + rng.randbytes(rng.randint(*self.load.sizes))
        began = time.perf_counter()
        try:
            self.store.create(key, content)
        except FileExistsError:
            tally.writes_exist += 1
        except self.store.busy:
            tally.writes_busy += 1
        else:
            tally.writes_ok += 1
            tally.written_bytes += len(content)
            self._learn(key)
        tally.write_seconds += time.perf_counter() - began

    def read(self) -> None:
        tally = self.tally
        began = time.perf_counter()
        key = self._pick()
        try:
            content = self.store.read(key) if key else None
        except FileNotFoundError:
            tally.reads_missing += 1
        except self.store.busy:
            tally.reads_busy += 1
        else:
            if content is None:
                tally.reads_missing += 1
            else:
                tally.reads_ok += 1
                tally.read_bytes += len(content)
                tally.wrong += key.encode() not in content.split(b"\n", 1)[0]
        tally.read_seconds += time.perf_counter() - began

    def _learn(self, key: str) -> None:
        if self.redis is None:
            self.own.append(key)
        else:
            self.redis.sadd(self.load.known_set, key)

    def _pick(self) -> str | None:
        if self.redis is None:
            return self.rng.choice(self.own) if self.own else None
        key = self.redis.srandmember(self.load.known_set)
        return key.decode() if key else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the naive file cache under load and count.")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--duration", type=float, default=20, help="seconds")
    parser.add_argument("--cache-dir", default="/tmp/poc-cache")
    parser.add_argument("--redis-url", default="redis://localhost:6379/0")
    parser.add_argument("--namespace", default="poc-cache")
    parser.add_argument("--write-prob", type=float, default=0.15)
    parser.add_argument("--read-sleep", type=float, default=0.005, help="seconds after each read")
    parser.add_argument("--write-sleep", type=float, default=0.02, help="seconds after each write")
    arguments = parser.parse_args()
    load = Load(
        processes=arguments.processes,
        seconds=arguments.duration,
        write_share=arguments.write_prob,
        read_sleep=arguments.read_sleep,
        write_sleep=arguments.write_sleep,
        known_set=f"{arguments.namespace}:keys:set",
        url=arguments.redis_url,
    )
    outcome = run_load(load, Naive(arguments.cache_dir, arguments.redis_url, arguments.namespace))
    for tally in outcome.tallies:
        print(_line(f"pid {tally.pid}", lambda name, tally=tally: getattr(tally, name)))
    print(_line("all", outcome.sum))
    print(f"{outcome.per_second:.0f} iterations/s; read {outcome.read_us:.0f} us, write {outcome.write_us:.0f} us")
    return 0


def _line(who: str, of: Callable[[str], float]) -> str:
    reads = "/".join(f"{of(name):.0f}" for name in ("reads_ok", "reads_busy", "reads_missing"))
    writes = "/".join(f"{of(name):.0f}" for name in ("writes_ok", "writes_busy", "writes_exist"))
    return (
        f"{who}: reads ok/busy/missing {reads}, {of('read_bytes'):.0f} bytes; "
        f"writes ok/busy/exists {writes}, {of('written_bytes'):.0f} bytes"
    )


if __name__ == "__main__":
    sys.exit(main())
