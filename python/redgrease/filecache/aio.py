"""The cache for coroutines: `AsyncFileCache`, with the names of `FileCache`.

Waiting costs no thread: it goes on in the native part, on a runtime that all caches of a process share. A task that is
cancelled while it waits leaves nothing behind: no lease, no place among those who wait, no temporary file.

>>> import asyncio, tempfile
>>> from redgrease.filecache import AsyncFileCache
>>> async def main(directory):
...     async with AsyncFileCache(directory) as cache:
...         async def render():
...             await asyncio.sleep(0.01)
...             return b"<h1>Hello</h1>"
...         async def page():
...             async with cache.get_or_create("page:1", render, ttl=60) as got:
...                 return got.outcome, await got.read()
...         for outcome, content in sorted(await asyncio.gather(page(), page(), page())):
...             print(outcome, content)
>>> with tempfile.TemporaryDirectory() as directory:
...     asyncio.run(main(directory))
created b'<h1>Hello</h1>'
waited b'<h1>Hello</h1>'
waited b'<h1>Hello</h1>'
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager
from mmap import mmap
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Generic, NoReturn, TypeVar
from weakref import WeakValueDictionary

from .._native import (
    FileCacheAioCore,
    FileCacheAioWriter,
    FileCacheHandle,
    FileCacheTask,
    filecache_stop_runtime,
)
from .cache import _PAGE, Key, Seconds, _living, _Opened, _start_of, _verification
from .errors import CacheBusyError, CacheError
from .handles import _CHUNK_BYTES, Got, Handle
from .options import Options
from .producers import as_bytes, keep_result, wants_writer
from .reports import Evicted, Finding, Info, Limits, Lock, Maintained, Stat, Stats, Verification

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    from .memoize import Memoized

__all__ = ["AsyncFileCache", "AsyncGot", "AsyncHandle", "AsyncWriter"]

T = TypeVar("T")
H = TypeVar("H", bound="AsyncHandle | AsyncWriter")

#: How many seconds the end of an interpreter may take to give sessions back.
_PATIENCE_AT_EXIT = 2.0


@atexit.register
def _at_exit() -> None:
    deadline = time.monotonic() + _PATIENCE_AT_EXIT
    for cache in list(_living):
        native = cache.__dict__.get("_native")
        if isinstance(native, FileCacheAioCore):
            native.end(max(deadline - time.monotonic(), 0))
    # Nothing of the runtime may come back into an interpreter that is ending.
    filecache_stop_runtime()


class _Done:
    """Brings what came of an operation from the runtime's thread into the loop."""

    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.loop = loop
        self.future = future

    def __call__(self, value: Any, error: BaseException | None) -> None:
        # A closed loop has nobody who waits: what came is dropped, and its lease with it.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.settle, value, error)

    def settle(self, value: Any, error: BaseException | None) -> None:
        if self.future.done():
            _give_back(value)
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)


async def _run(start: Callable[..., FileCacheTask], *args: Any) -> Any:
    """Runs an operation of the native part; cancelling this ends that."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    task = start(_Done(loop, future), *args)
    try:
        return await future
    except asyncio.CancelledError:
        task.cancel()
        if future.done() and not future.cancelled() and future.exception() is None:
            _give_back(future.result())
        raise


def _give_back(value: Any) -> None:
    """Ends what came for somebody who is gone, without waiting until it is collected."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, FileCacheHandle):
            part.close()
        elif isinstance(part, FileCacheAioWriter):
            part.discard()


class _Acquiring(Generic[H]):
    """What gives a handle or a writer: to be awaited, or to be entered with ``async with``."""

    __slots__ = ("_acquire", "_held")

    def __init__(self, acquire: Callable[[], Coroutine[Any, Any, H]]) -> None:
        self._acquire = acquire
        self._held: H | None = None

    def __await__(self) -> Generator[Any, None, H]:
        return self._acquire().__await__()

    async def __aenter__(self) -> H:
        self._held = await self._acquire()
        await self._held.__aenter__()
        return self._held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            await self._held.__aexit__(kind, error, trace)


class AsyncHandle:
    """An entry that is being read: the twin of `Handle`. Its file cannot go while it is open.

    `file` is the `Handle` itself, for what wants an ordinary file; use it in a thread (`asyncio.to_thread`).
    """

    def __init__(self, file: Handle) -> None:
        #: The entry as an ordinary file.
        self.file = file

    async def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from here; all that is left when it is negative."""
        return await asyncio.get_running_loop().run_in_executor(None, self.file.read, size)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; the new one, counted from the start."""
        return self.file.seek(offset, whence)

    async def close(self) -> None:
        """Give the lease back."""
        self.file.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self.file.closed

    @property
    def stat(self) -> Stat:
        """What is known about the entry."""
        return self.file.stat

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self.file.key

    @property
    def path(self) -> Path:
        """Where the file is, while the handle is open."""
        return self.file.path

    @property
    def lease_lost(self) -> bool:
        """Whether others could think that this reader is dead; see `Handle.lease_lost`."""
        return self.file.lease_lost

    def mmap(self) -> mmap:
        """The whole file in memory, read-only; see `Handle.mmap`."""
        return self.file.mmap()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Async{repr(self.file)[1:]}"


class AsyncGot(AsyncHandle):
    """What `AsyncFileCache.get_or_create` gives: a handle with an `outcome`, see `Got`."""

    def __init__(self, file: Got) -> None:
        super().__init__(file)
        #: ``"hit"``, ``"created"`` or ``"waited"``.
        self.outcome = file.outcome


class AsyncWriter:
    """An entry that is being made: the twin of `Writer`."""

    def __init__(self, native: FileCacheAioWriter) -> None:
        self._native = native
        self._key = native.key
        self._task = asyncio.current_task()
        self._stat: Stat | None = None
        self._written = 0
        self._is_over = False
        # Calls of `write` and `abort` that have not ended: not awaited yet, or never.
        self._unfinished = {"write": 0, "abort": 0}

    def write(self, data: Buffer) -> Coroutine[Any, Any, int]:
        """Append bytes; how many they were. To be awaited: `commit` refuses when a write has not ended.

        Raises `TooLargeError`, `NoSpaceError`, `LeaseLostError`.
        """
        self._unfinished["write"] += 1
        return self._write(data)

    async def _write(self, data: Buffer) -> int:
        try:
            return await self._append(data)
        finally:
            self._unfinished["write"] -= 1

    async def _append(self, data: Buffer) -> int:
        if self._is_over:
            raise ValueError("this writer is closed")
        if type(data) is bytes:
            size = len(data)
            await _run(self._native.write, data)
        else:
            view = memoryview(data)
            flat = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
            size = len(flat)
            for at in range(0, size, _CHUNK_BYTES):
                await _run(self._native.write, bytes(flat[at : at + _CHUNK_BYTES]))
        self._written += size
        return size

    def tell(self) -> int:
        """How many bytes were written."""
        return self._written

    async def commit(self) -> Stat:
        """Publish; see `Writer.commit`."""
        if self._stat is None:
            self._stat = Stat(*await self._finish(self._native.commit))
        return self._stat

    async def _commit_open(self) -> FileCacheHandle:
        handle: FileCacheHandle = await self._finish(self._native.commit_open)
        self._stat = Stat(*handle.stat())
        return handle

    async def _finish(self, act: Callable[..., FileCacheTask]) -> Any:
        if self._is_over:
            raise ValueError(f"the writer of {self._key!r} was {'committed' if self._stat else 'aborted'} before")
        for name, count in self._unfinished.items():
            if count:
                await self._abort()
                raise TypeError(
                    f"the writer of {self._key!r} was to be committed while {count} call{'s' * (count > 1)} of "
                    f"{name}() had not ended, and nothing was published: await {name}()"
                )
        self._is_over = True
        try:
            return await _run(act)
        finally:
            # What was cancelled before it began has left the writer where it was.
            self._native.discard()

    def abort(self) -> Coroutine[Any, Any, None]:
        """Give up; does nothing after `commit`. To be awaited: `commit` refuses when it has not ended."""
        self._unfinished["abort"] += 1
        return self._abort_awaited()

    async def _abort_awaited(self) -> None:
        try:
            await self._abort()
        finally:
            self._unfinished["abort"] -= 1

    async def _abort(self) -> None:
        if not self._is_over:
            self._is_over = True
            try:
                await _run(self._native.abort)
            finally:
                self._native.discard()

    @property
    def closed(self) -> bool:
        """Whether it was committed or aborted."""
        return self._is_over

    @property
    def stat(self) -> Stat | None:
        """What was published; `None` before `commit`."""
        return self._stat

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self._key

    @property
    def lease_lost(self) -> bool:
        """Whether others could think that this writer is dead; then `commit` fails."""
        return self._native.lease_lost()

    async def __aenter__(self) -> Self:
        if self._is_over:
            raise ValueError("this writer is closed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if not self._is_over:
                await self.commit()
        elif error is None or isinstance(error, Exception):
            # The caller's own exception wins; a lease that could not be given back ends by itself.
            with contextlib.suppress(CacheError):
                await self._abort()
        else:
            # Cancelled: nothing is waited for any more.
            self._is_over = True
            self._native.discard()

    def __repr__(self) -> str:
        state = "committed" if self._stat is not None else "aborted" if self._is_over else "open"
        return f"<AsyncWriter {self._key!r} {state}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a writer holds a lease of this process and cannot be pickled")


class _ThreadWriter:
    """A writer for producers that are ordinary functions and run in a thread."""

    def __init__(self, writer: AsyncWriter, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._loop = loop
        self.key = writer.key
        self.tell = writer.tell

    def write(self, data: Buffer) -> int:
        async def write() -> int:
            return await self._writer.write(data)

        return asyncio.run_coroutine_threadsafe(write(), self._loop).result()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    @property
    def lease_lost(self) -> bool:
        return self._writer.lease_lost


class AsyncFileCache(_Opened):
    """`FileCache` for coroutines: the same options, the same names, the same errors.

    Everything that may take time is awaited; `open`, `create` and `get_or_create` may be awaited or entered with
    ``async with``, `path` is entered, `entries` and `keys` are iterated with ``async for``. The directory and the
    server are first looked for by ``async with`` or by the first operation, which raises what is wrong with them. One
    object may be used by several loops.

    Close it, or enter it: what one that is merely dropped still held ends only with its lease.
    """

    _is_async = True
    _native: FileCacheAioCore
    # What is being made, and by which task.
    _making: WeakValueDictionary[bytes, AsyncWriter]

    def __init__(
        self,
        directory: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        url: str | None = None,
        *,
        namespace: str = "redgrease-cache",
        lease: Seconds = 10.0,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        max_entry_bytes: int | None = None,
        min_free_bytes: int | None = None,
        max_age: Seconds | None = None,
        max_idle: Seconds | None = None,
        low_mark: float | None = None,
        durability: str = "full",
        check: str = "always",
        file_mode: int = 0o640,
        directory_mode: int = 0o750,
        connect_timeout: Seconds = 2.0,
        command_timeout: Seconds = 5.0,
        on_outage: str = "fail",
        adopt: bool = False,
        read_only: bool = False,
        maintenance: Seconds | None = 30.0,
    ) -> None:
        self._options = Options.of(locals())
        self._making = WeakValueDictionary()
        self._native = self._open()
        self._register()
        self._options = self._options.adopted()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._making = WeakValueDictionary()

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """As `FileCache.from_env`."""
        return cls(**Options.of_environment(options))

    def _open(self) -> FileCacheAioCore:
        return FileCacheAioCore(self._options.native())

    # -- reading

    async def read(self, key: Key, timeout: Seconds = 0) -> bytes:
        """As `FileCache.read`."""
        data: bytes = await self._wait(self._native.read, key, timeout)
        return data

    async def _wait(self, start: Callable[..., FileCacheTask], key: Key, timeout: Seconds, *more: Any) -> Any:
        """Runs what may wait for a key: not at all for what this very task is making."""
        writer = self._making.get(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key)
        if writer is None or writer.closed or writer._task is not asyncio.current_task():
            return await _run(start, key, timeout, *more)
        try:
            return await _run(start, key, 0, *more)
        except CacheBusyError as error:
            what = str(error).rpartition(": ")[0]
            message = f"{what}: this very task is writing it, and cannot wait for itself"
            raise CacheBusyError(message, operation=error.operation, key=error.key) from None

    def _writer(self, native: FileCacheAioWriter) -> AsyncWriter:
        writer = AsyncWriter(native)
        self._making[writer.key] = writer
        return writer

    def open(self, key: Key, timeout: Seconds = 0) -> _Acquiring[AsyncHandle]:
        """As `FileCache.open`; gives an `AsyncHandle`."""

        async def acquire() -> AsyncHandle:
            return AsyncHandle(Handle(await self._wait(self._native.open_read, key, timeout)))

        return _Acquiring(acquire)

    @asynccontextmanager
    async def path(self, key: Key, timeout: Seconds = 0) -> AsyncIterator[Path]:
        """As `FileCache.path`, with ``async with``."""
        async with self.open(key, timeout) as handle:
            yield handle.path

    async def exists(self, key: Key) -> bool:
        """As `FileCache.exists`."""
        found: bool = await _run(self._native.exists, key)
        return found

    async def stat(self, key: Key) -> Stat | None:
        """As `FileCache.stat`."""
        stat = await _run(self._native.stat, key)
        return None if stat is None else Stat(*stat)

    # -- making

    async def write(
        self,
        key: Key,
        data: Buffer,
        *,
        timeout: Seconds = 0,
        ttl: Seconds | None = None,
        content_type: str | None = None,
        user: Mapping[str, str] | None = None,
    ) -> Stat:
        """As `FileCache.write`."""
        return await self._put(key, data, False, timeout, ttl, content_type, user)

    async def replace(
        self,
        key: Key,
        data: Buffer,
        *,
        timeout: Seconds = 0,
        ttl: Seconds | None = None,
        content_type: str | None = None,
        user: Mapping[str, str] | None = None,
    ) -> Stat:
        """As `FileCache.replace`."""
        return await self._put(key, data, True, timeout, ttl, content_type, user)

    async def _put(self, key: Key, data: Buffer, replace: bool, timeout: Seconds, *more: Any) -> Stat:
        content = as_bytes(data)

        def start(done: Any, key: Key, timeout: Seconds) -> FileCacheTask:
            return self._native.put(done, key, content, replace, timeout, *more)

        return Stat(*await self._wait(start, key, timeout))

    def create(
        self,
        key: Key,
        *,
        replace: bool = False,
        timeout: Seconds = 0,
        ttl: Seconds | None = None,
        size: int | None = None,
        content_type: str | None = None,
        user: Mapping[str, str] | None = None,
    ) -> _Acquiring[AsyncWriter]:
        """As `FileCache.create`; gives an `AsyncWriter`."""

        async def acquire() -> AsyncWriter:
            def start(done: Any, key: Key, timeout: Seconds) -> FileCacheTask:
                return self._native.open_write(done, key, replace, timeout, ttl, size, content_type, user)

            return self._writer(await self._wait(start, key, timeout))

        return _Acquiring(acquire)

    def get_or_create(
        self,
        key: Key,
        producer: Callable[..., Any],
        *,
        timeout: Seconds = 60.0,
        ttl: Seconds | None = None,
        size: int | None = None,
        content_type: str | None = None,
        user: Mapping[str, str] | None = None,
    ) -> _Acquiring[AsyncGot]:
        """As `FileCache.get_or_create`; gives an `AsyncGot`.

        A producer that is a coroutine function runs in the loop and may take an `AsyncWriter`; any other runs in a
        thread, so that it does not stop the loop, and may take a writer whose `write` blocks.
        """

        async def acquire() -> AsyncGot:
            takes_writer = wants_writer(producer)
            outcome, handle, native = await self._wait(self._native.begin, key, timeout, ttl, size, content_type, user)
            if handle is None:
                async with self._writer(native) as writer:
                    data = await _produce(producer, takes_writer, writer)
                    if data is not None:
                        await writer.write(data)
                    handle = await writer._commit_open()
            return AsyncGot(Got(handle, outcome))

        return _Acquiring(acquire)

    def memoize(self, function: Any = None, **options: Any) -> Any:
        """As `FileCache.memoize`, for coroutine functions.

        >>> import asyncio
        >>> twin = AsyncFileCache(cache.directory)
        >>> @twin.memoize(serializer="json")
        ... async def double(number):
        ...     return number * 2
        >>> asyncio.run(double(21)), cache.exists(double.cache_key(21))
        (42, True)
        """
        from .memoize import memoize

        memoized: Memoized | Callable[[Callable[..., Any]], Memoized] = memoize(self, function, **options)
        return memoized

    # -- changing

    async def delete(self, key: Key) -> bool:
        """As `FileCache.delete`."""
        done: bool = await _run(self._native.delete, key)
        return done

    async def touch(self, key: Key, ttl: Seconds | None = None) -> bool:
        """As `FileCache.touch`."""
        done: bool = await _run(self._native.touch, key, ttl)
        return done

    async def pin(self, key: Key) -> bool:
        """As `FileCache.pin`."""
        done: bool = await _run(self._native.pin, key, True)
        return done

    async def unpin(self, key: Key) -> bool:
        """As `FileCache.unpin`."""
        done: bool = await _run(self._native.pin, key, False)
        return done

    # -- the whole

    async def entries(self, prefix: Key = b"") -> AsyncIterator[Stat]:
        """As `FileCache.entries`, with ``async for``."""
        start = _start_of(prefix)
        cursor: Any = None
        while True:
            page, cursor = await _run(self._native.list, cursor, _PAGE)
            for stat in page:
                if stat[0].startswith(start):
                    yield Stat(*stat)
            if cursor is None:
                return

    async def keys(self, prefix: Key = b"") -> AsyncIterator[bytes]:
        """As `FileCache.keys`, with ``async for``."""
        async for stat in self.entries(prefix):
            yield stat.key

    async def info(self) -> Info:
        """As `FileCache.info`."""
        info = await _run(self._native.info)
        return Info(**{**info, "limits": Limits(**info["limits"])})

    async def stats(self) -> Stats:
        """As `FileCache.stats`."""
        return Stats(**await _run(self._native.stats))

    async def configure(
        self,
        *,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        max_entry_bytes: int | None = None,
        min_free_bytes: int | None = None,
        max_age: Seconds | None = None,
        max_idle: Seconds | None = None,
        low_mark: float | None = None,
    ) -> None:
        """As `FileCache.configure`."""
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        info = await _run(self._native.info)
        await _run(self._native.configure, {**info["limits"], **given})

    async def locks(self) -> list[Lock]:
        """As `FileCache.locks`."""
        return [Lock(**lock) for lock in await _run(self._native.locks)]

    async def break_lock(self, key: Key) -> bool:
        """As `FileCache.break_lock`."""
        done: bool = await _run(self._native.break_lock, key)
        return done

    async def evict(
        self,
        *,
        to_bytes: int | None = None,
        older_than: Seconds | None = None,
        idle_for: Seconds | None = None,
        prefix: Key | None = None,
        dry_run: bool = False,
    ) -> Evicted:
        """As `FileCache.evict`."""
        evicted = await _run(self._native.evict, to_bytes, older_than, idle_for, prefix, dry_run)
        return Evicted(evicted[0], evicted[1], tuple(evicted[2]))

    async def clear(self) -> int:
        """As `FileCache.clear`."""
        count: int = await _run(self._native.clear)
        return count

    async def maintain(self) -> Maintained:
        """As `FileCache.maintain`."""
        return Maintained(**await _run(self._native.maintain))

    async def verify(self, depth: str = "digests") -> Verification:
        """As `FileCache.verify`, without `progress`."""
        return _verification(await _run(self._native.verify, depth, False))

    async def repair(self, depth: str = "digests") -> Verification:
        """As `FileCache.repair`, without `progress`."""
        return _verification(await _run(self._native.verify, depth, True))

    async def doctor(self) -> list[Finding]:
        """As `FileCache.doctor`."""
        return [Finding(*finding) for finding in await _run(self._native.doctor)]

    # -- the end

    async def close(self) -> None:
        """As `FileCache.close`."""
        native = self._end()
        if native is not None:
            await _run(native.close)

    async def __aenter__(self) -> Self:
        await _run(self._native.connect)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.keys()


async def _produce(producer: Callable[..., Any], takes_writer: bool, writer: AsyncWriter) -> bytes | None:
    """Runs a producer; what is still to be written."""
    result: Any
    if inspect.iscoroutinefunction(producer) or inspect.iscoroutinefunction(type(producer).__call__):
        result = await (producer(writer) if takes_writer else producer())
    else:
        loop = asyncio.get_running_loop()
        args = (_ThreadWriter(writer, loop),) if takes_writer else ()
        result = await loop.run_in_executor(None, producer, *args)
        if inspect.isawaitable(result):
            result = await _awaited(result)
    data: bytes | None = keep_result(producer, takes_writer, result, writer.tell())
    return data


async def _awaited(result: Awaitable[T]) -> T:
    return await result
