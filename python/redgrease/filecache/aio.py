"""The asyncio API: `AsyncFileCache`, with the methods of `FileCache`.

Waiting uses no thread: it happens in the native part, on a runtime that all caches of a process share. A task that is
cancelled while it waits leaves no lease, no place in a queue and no temporary file.

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
from .cache import _PAGE, Key, Seconds, _encoded_prefix, _open_caches, _Opened, _verification
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

#: Seconds that the end of the interpreter may take to release sessions.
_EXIT_TIMEOUT = 2.0


@atexit.register
def _at_exit() -> None:
    deadline = time.monotonic() + _EXIT_TIMEOUT
    for cache in list(_open_caches):
        native = cache.__dict__.get("_native")
        if isinstance(native, FileCacheAioCore):
            native.end(max(deadline - time.monotonic(), 0))
    # No thread of the runtime may enter an interpreter that is shutting down.
    filecache_stop_runtime()


class _Done:
    """Delivers the result of an operation from the runtime's thread to the event loop."""

    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.loop = loop
        self.future = future

    def __call__(self, value: Any, error: BaseException | None) -> None:
        # Nothing awaits a result on a closed loop: it is dropped, and its lease with it.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.settle, value, error)

    def settle(self, value: Any, error: BaseException | None) -> None:
        if self.future.done():
            _release(value)
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)


async def _run(start: Callable[..., FileCacheTask], *args: Any) -> Any:
    """Runs an operation of the native part; cancelling this coroutine cancels the operation."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    task = start(_Done(loop, future), *args)
    try:
        return await future
    except asyncio.CancelledError:
        task.cancel()
        if future.done() and not future.cancelled() and future.exception() is None:
            _release(future.result())
        raise


def _release(value: Any) -> None:
    """Releases a result that is no longer awaited, without waiting for garbage collection."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, FileCacheHandle):
            part.close()
        elif isinstance(part, FileCacheAioWriter):
            part.discard()


class _Acquiring(Generic[H]):
    """A pending handle or writer: await it, or enter it with ``async with``."""

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
    """An entry opened for reading: the async `Handle`. Its file stays in place while it is open.

    `file` is the `Handle` itself, for code that needs an ordinary file; use it in a thread (`asyncio.to_thread`).
    """

    def __init__(self, file: Handle) -> None:
        #: The entry as an ordinary file.
        self.file = file

    async def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; all remaining ones if it is negative."""
        return await asyncio.get_running_loop().run_in_executor(None, self.file.read, size)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; return the new one, counted from the start."""
        return self.file.seek(offset, whence)

    async def close(self) -> None:
        """Close the file and release the lease."""
        self.file.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self.file.closed

    @property
    def stat(self) -> Stat:
        """Size, times and metadata of the entry."""
        return self.file.stat

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self.file.key

    @property
    def path(self) -> Path:
        """Path of the file, valid while the handle is open."""
        return self.file.path

    @property
    def lease_lost(self) -> bool:
        """Whether the lease may have expired; see `Handle.lease_lost`."""
        return self.file.lease_lost

    def mmap(self) -> mmap:
        """Map the whole file into memory, read-only; see `Handle.mmap`."""
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
    """The result of `AsyncFileCache.get_or_create`: a handle with an `outcome`, see `Got`."""

    def __init__(self, file: Got) -> None:
        super().__init__(file)
        #: ``"hit"``, ``"created"`` or ``"waited"``.
        self.outcome = file.outcome


class AsyncWriter:
    """An entry opened for writing: the async `Writer`."""

    def __init__(self, native: FileCacheAioWriter) -> None:
        self._native = native
        self._key = native.key
        self._task = asyncio.current_task()
        self._stat: Stat | None = None
        self._written = 0
        self._is_finished = False
        # Calls of `write` and `abort` that have not ended, because they were not awaited (yet).
        self._unfinished = {"write": 0, "abort": 0}

    def write(self, data: Buffer) -> Coroutine[Any, Any, int]:
        """Append bytes; return their number. Await it: `commit` fails if a write has not ended.

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
        if self._is_finished:
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
        """Number of bytes written so far."""
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
        if self._is_finished:
            raise ValueError(f"the writer of {self._key!r} was already {'committed' if self._stat else 'aborted'}")
        for name, count in self._unfinished.items():
            if count:
                await self._abort()
                raise TypeError(
                    f"the writer of {self._key!r} was to be committed while {count} call{'s' * (count > 1)} of "
                    f"{name}() had not ended, and nothing was published: await {name}()"
                )
        self._is_finished = True
        try:
            return await _run(act)
        finally:
            # A call that was cancelled before it began has not changed the writer.
            self._native.discard()

    def abort(self) -> Coroutine[Any, Any, None]:
        """Discard the content; does nothing after `commit`. Await it: `commit` fails if an abort has not ended."""
        self._unfinished["abort"] += 1
        return self._abort_awaited()

    async def _abort_awaited(self) -> None:
        try:
            await self._abort()
        finally:
            self._unfinished["abort"] -= 1

    async def _abort(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            try:
                await _run(self._native.abort)
            finally:
                self._native.discard()

    @property
    def closed(self) -> bool:
        """Whether it was committed or aborted."""
        return self._is_finished

    @property
    def stat(self) -> Stat | None:
        """The published entry; `None` before `commit`."""
        return self._stat

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self._key

    @property
    def lease_lost(self) -> bool:
        """Whether the lease may have expired; then `commit` fails."""
        return self._native.lease_lost()

    async def __aenter__(self) -> Self:
        if self._is_finished:
            raise ValueError("this writer is closed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if not self._is_finished:
                await self.commit()
        elif error is None or isinstance(error, Exception):
            # The caller's exception takes precedence; a lease that could not be released expires.
            with contextlib.suppress(CacheError):
                await self._abort()
        else:
            # Cancelled: do not wait.
            self._is_finished = True
            self._native.discard()

    def __repr__(self) -> str:
        state = "committed" if self._stat is not None else "aborted" if self._is_finished else "open"
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
    """`FileCache` for coroutines, with the same options, methods and errors.

    Methods that may take time are coroutines. `open`, `create` and `get_or_create` can be awaited or entered with
    ``async with``, `path` is entered, `entries` and `keys` are iterated with ``async for``. ``async with`` or the first
    operation opens directory and server, and raises their errors. One object may be used by several event loops.

    Close it, or enter it with ``async with``: an object that is only garbage-collected keeps its leases until they
    expire.
    """

    _is_async = True
    _native: FileCacheAioCore
    # The keys being made, and the task that makes each.
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
        """Like `FileCache.from_env`."""
        return cls(**Options.of_environment(options))

    def _open(self) -> FileCacheAioCore:
        return FileCacheAioCore(self._options.native())

    # -- reading

    async def read(self, key: Key, timeout: Seconds = 0) -> bytes:
        """Like `FileCache.read`."""
        data: bytes = await self._wait(self._native.read, key, timeout)
        return data

    async def _wait(self, start: Callable[..., FileCacheTask], key: Key, timeout: Seconds, *more: Any) -> Any:
        """Runs an operation that may wait for a key; refuses a key that this task itself is making."""
        writer = self._making.get(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key)
        if writer is None or writer.closed or writer._task is not asyncio.current_task():
            return await _run(start, key, timeout, *more)
        try:
            return await _run(start, key, 0, *more)
        except CacheBusyError as error:
            what = str(error).rpartition(": ")[0]
            message = f"{what}: the same task is writing it, and cannot wait for itself"
            raise CacheBusyError(message, operation=error.operation, key=error.key) from None

    def _writer(self, native: FileCacheAioWriter) -> AsyncWriter:
        writer = AsyncWriter(native)
        self._making[writer.key] = writer
        return writer

    def open(self, key: Key, timeout: Seconds = 0) -> _Acquiring[AsyncHandle]:
        """Like `FileCache.open`, returning an `AsyncHandle`."""

        async def acquire() -> AsyncHandle:
            return AsyncHandle(Handle(await self._wait(self._native.open_read, key, timeout)))

        return _Acquiring(acquire)

    @asynccontextmanager
    async def path(self, key: Key, timeout: Seconds = 0) -> AsyncIterator[Path]:
        """Like `FileCache.path`, with ``async with``."""
        async with self.open(key, timeout) as handle:
            yield handle.path

    async def exists(self, key: Key) -> bool:
        """Like `FileCache.exists`."""
        found: bool = await _run(self._native.exists, key)
        return found

    async def stat(self, key: Key) -> Stat | None:
        """Like `FileCache.stat`."""
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
        """Like `FileCache.write`."""
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
        """Like `FileCache.replace`."""
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
        """Like `FileCache.create`, returning an `AsyncWriter`."""

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
        """Like `FileCache.get_or_create`, returning an `AsyncGot`.

        A producer that is a coroutine function runs in the event loop and may take an `AsyncWriter`. Any other producer
        runs in a thread, so that it does not block the loop, and may take a writer whose `write` blocks.
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
        """Like `FileCache.memoize`, for coroutine functions.

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
        """Like `FileCache.delete`."""
        done: bool = await _run(self._native.delete, key)
        return done

    async def touch(self, key: Key, ttl: Seconds | None = None) -> bool:
        """Like `FileCache.touch`."""
        done: bool = await _run(self._native.touch, key, ttl)
        return done

    async def pin(self, key: Key) -> bool:
        """Like `FileCache.pin`."""
        done: bool = await _run(self._native.pin, key, True)
        return done

    async def unpin(self, key: Key) -> bool:
        """Like `FileCache.unpin`."""
        done: bool = await _run(self._native.pin, key, False)
        return done

    # -- the whole

    async def entries(self, prefix: Key = b"") -> AsyncIterator[Stat]:
        """Like `FileCache.entries`, with ``async for``."""
        start = _encoded_prefix(prefix)
        cursor: Any = None
        while True:
            page, cursor = await _run(self._native.list, cursor, _PAGE)
            for stat in page:
                if stat[0].startswith(start):
                    yield Stat(*stat)
            if cursor is None:
                return

    async def keys(self, prefix: Key = b"") -> AsyncIterator[bytes]:
        """Like `FileCache.keys`, with ``async for``."""
        async for stat in self.entries(prefix):
            yield stat.key

    async def info(self) -> Info:
        """Like `FileCache.info`."""
        info = await _run(self._native.info)
        return Info(**{**info, "limits": Limits(**info["limits"])})

    async def stats(self) -> Stats:
        """Like `FileCache.stats`."""
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
        """Like `FileCache.configure`."""
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        info = await _run(self._native.info)
        await _run(self._native.configure, {**info["limits"], **given})

    async def locks(self) -> list[Lock]:
        """Like `FileCache.locks`."""
        return [Lock(**lock) for lock in await _run(self._native.locks)]

    async def break_lock(self, key: Key) -> bool:
        """Like `FileCache.break_lock`."""
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
        """Like `FileCache.evict`."""
        evicted = await _run(self._native.evict, to_bytes, older_than, idle_for, prefix, dry_run)
        return Evicted(evicted[0], evicted[1], tuple(evicted[2]))

    async def clear(self) -> int:
        """Like `FileCache.clear`."""
        count: int = await _run(self._native.clear)
        return count

    async def maintain(self) -> Maintained:
        """Like `FileCache.maintain`."""
        return Maintained(**await _run(self._native.maintain))

    async def verify(self, depth: str = "digests") -> Verification:
        """Like `FileCache.verify`, without `progress`."""
        return _verification(await _run(self._native.verify, depth, False))

    async def repair(self, depth: str = "digests") -> Verification:
        """Like `FileCache.repair`, without `progress`."""
        return _verification(await _run(self._native.verify, depth, True))

    async def doctor(self) -> list[Finding]:
        """Like `FileCache.doctor`."""
        return [Finding(*finding) for finding in await _run(self._native.doctor)]

    # -- the end

    async def close(self) -> None:
        """Like `FileCache.close`."""
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
    """Runs a producer; returns the bytes that are still to be written."""
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
