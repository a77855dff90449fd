"""The blocking API: `FileCache`."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union, overload

from .._native import FileCacheCore, filecache_forget
from .handles import Got, Handle, Writer
from .options import Options, redacted
from .producers import as_bytes, run_producer
from .reports import Evicted, Finding, Info, Limits, Lock, Maintained, Problem, Stat, Stats, Verification

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    from .memoize import Memoized, Serializer

__all__ = ["FileCache", "Key", "Seconds"]

#: The key of an entry; text is encoded as UTF-8.
Key = Union[str, bytes]
#: A duration: seconds, or a `timedelta`.
Seconds = Union[float, timedelta]
F = TypeVar("F", bound=Callable[..., Any])

#: Page size of `FileCache.keys`.
_PAGE = 1000

# Open caches of this process, for the hooks after a fork and at exit.
_open_caches: weakref.WeakSet[_Opened] = weakref.WeakSet()
_opening = threading.Lock()


class _Opened:
    """Common part of `FileCache` and `AsyncFileCache`: options, and opening on first use."""

    _options: Options
    _closed = False
    _native: Any

    def __getattr__(self, name: str) -> Any:
        # Reached only without a native part: after a fork or after unpickling.
        if name != "_native":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _opening:
            if "_native" not in self.__dict__:
                if self._closed:
                    raise ValueError(f"{self!r} is closed")
                self.__dict__["_native"] = self._open()
                _open_caches.add(self)
        return self.__dict__["_native"]

    def _open(self) -> Any:
        raise NotImplementedError

    def _register(self) -> None:
        with _opening:
            _open_caches.add(self)

    def _end(self) -> Any:
        """Removes and returns the native part; the session ends with its last reference."""
        with _opening:
            self._closed = True
            _open_caches.discard(self)
            return self.__dict__.pop("_native", None)

    @property
    def directory(self) -> Path:
        """The directory of the cache."""
        return Path(os.fsdecode(self._options.directory))

    @property
    def url(self) -> str | None:
        """The server's address without its password; `None` for a cache without a server."""
        return redacted(self._options.url)

    @property
    def namespace(self) -> str:
        """Prefix of the cache's keys in the server."""
        return self._options.namespace

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options})"

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self._options, "closed": self._closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options = state["options"]
        self._closed = state["closed"]


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()
    for cache in list(_open_caches):
        native = cache.__dict__.pop("_native", None)
        if native is not None:
            # Its leases belong to the parent: they must not be released here.
            filecache_forget(native)
    _open_caches.clear()


os.register_at_fork(after_in_child=_after_fork)


def _encoded_prefix(prefix: Key) -> bytes:
    """The prefix as bytes; `TypeError` if it is neither text nor bytes."""
    if isinstance(prefix, str):
        return prefix.encode()
    if isinstance(prefix, bytes):
        return prefix
    raise TypeError(f"a prefix is str or bytes, not {type(prefix).__name__}")


class FileCache(_Opened):
    """A directory of immutable files that many threads, processes and hosts share.

    One writer makes an entry under a key; then any number of readers read it, until it expires or is evicted. Callers
    that ask for an entry while it is being made wait for it instead of making it again.

    `directory` is created if its parent exists. `url` is the address of a Redis or Valkey server that coordinates
    (``redis://``, ``rediss://``, ``redis+unix://``, with user and password if necessary). Without it the processes of
    *one* host coordinate through the directory itself. All other options are keyword arguments:

    - `namespace`: prefix of the cache's keys in the server; one directory belongs to one namespace of one server;
    - `lease`: seconds after which a process that died or was cut off loses its leases, 0.1 to 86400;
    - `max_bytes`, `max_entries`, `max_entry_bytes`, `min_free_bytes`, `max_age`, `max_idle`, `low_mark`: see `Limits`.
      They are shared and apply to a new cache; an existing cache keeps its limits, see `configure`;
    - `durability`: ``"full"`` (published entries survive a power failure), ``"file"`` (the content does, the name may
      not), ``"none"``;
    - `check`: whether reads compare the content with its digest: ``"always"``, ``"sampled"``, ``"never"``; the length
      is always compared;
    - `file_mode`, `directory_mode`: permissions of new files and directories, 0o640 and 0o750;
    - `connect_timeout`, `command_timeout`: seconds to wait for the server;
    - `on_outage`: ``"fail"``, or ``"degrade"``: without the server, `read` serves files from the directory;
    - `adopt`: take over a directory with files of another cache, or of the proof of concept;
    - `read_only`: change nothing, and need no permission to write;
    - `maintenance`: seconds between rounds of background maintenance; `None`: none, see `maintain`.

    The object may be used by many threads and after a fork (the child gets a session of its own and does not touch its
    parent's leases). It can be pickled: the copy opens the same cache, and a password in `url` is part of the pickle.
    Keys are text or `bytes`, 1 to 4096 bytes. A `timeout` is the total number of seconds that a call may wait; 0 means
    one attempt.

    Raises `CacheConfigError` (a `ValueError`) for an invalid option or if directory and server do not belong together,
    `UnavailableError` (a `ConnectionError`) if the server cannot be reached, `CacheDeniedError` (a `PermissionError`).

    >>> import tempfile
    >>> from redgrease.filecache import FileCache
    >>> with tempfile.TemporaryDirectory() as directory, FileCache(directory, max_bytes=10_000_000) as cache:
    ...     _ = cache.write("greeting", b"hello", ttl=60)
    ...     cache.read("greeting"), "greeting" in cache, cache.info().entries
    (b'hello', True, 1)
    """

    _native: FileCacheCore

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
        self._native = self._open()
        self._register()
        # Only the first open adopts the directory: not a forked child, nor an unpickled copy.
        self._options = self._options.adopted()

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """Open the cache that the environment names, with further options as keyword arguments.

        ``REDGREASE_CACHE_DIR`` is required; ``REDGREASE_CACHE_URL`` and ``REDGREASE_CACHE_NAMESPACE`` are optional.

        >>> import os
        >>> os.environ["REDGREASE_CACHE_DIR"] = str(cache.directory)
        >>> FileCache.from_env(lease=5).directory == cache.directory
        True
        """
        return cls(**Options.of_environment(options))

    def _open(self) -> FileCacheCore:
        return FileCacheCore(self._options.native())

    # -- reading

    def read(self, key: Key, timeout: Seconds = 0) -> bytes:
        """Return the content of an entry.

        Waits up to `timeout` seconds, but only for an active writer: a missing entry is an error at once.

        Raises `CacheMissingError` (a `FileNotFoundError`), `CacheBusyError`, `CacheTimeoutError`, `CorruptError`.

        >>> _ = cache.write("greeting", b"hello")
        >>> cache.read("greeting")
        b'hello'
        """
        return self._native.read(key, timeout)

    def open(self, key: Key, timeout: Seconds = 0) -> Handle:
        """Open an entry as a file, which stays in place until the `Handle` is closed. Otherwise like `read`.

        >>> import io
        >>> _ = cache.write("lines", "Grüße\\nan alle\\n".encode())
        >>> with cache.open("lines") as handle, io.TextIOWrapper(handle, "utf-8") as text:
        ...     [line.rstrip() for line in text]
        ['Grüße', 'an alle']
        """
        return Handle(self._native.open_read(key, timeout))

    @contextmanager
    def path(self, key: Key, timeout: Seconds = 0) -> Iterator[Path]:
        """The path of an entry's file, for programs that need a path. The file stays in place until the block ends.

        Otherwise like `read`.

        >>> _ = cache.write("table", b"a,b")
        >>> with cache.path("table") as path:
        ...     path.read_text()
        'a,b'
        """
        with self.open(key, timeout) as handle:
            yield handle.path

    def exists(self, key: Key) -> bool:
        """Return whether the entry exists. Also ``key in cache``.

        >>> cache.exists("nothing-here")
        False
        """
        return self._native.exists(key)

    def stat(self, key: Key) -> Stat | None:
        """Return size, times and metadata of an entry; `None` if there is none. Does not count as use.

        >>> _ = cache.write("greeting", b"hello", ttl=3600)
        >>> stat = cache.stat("greeting")
        >>> stat.size, round(stat.expires - stat.created)
        (5, 3600)
        """
        stat = self._native.stat(key)
        return None if stat is None else Stat(*stat)

    # -- making

    def write(
        self,
        key: Key,
        data: Buffer,
        *,
        timeout: Seconds = 0,
        ttl: Seconds | None = None,
        content_type: str | None = None,
        user: Mapping[str, str] | None = None,
    ) -> Stat:
        """Make a new entry.

        `ttl` is its time to live in seconds. `content_type` and `user` (a mapping of texts) are stored with it. Waits
        up to `timeout` seconds for another writer of the key.

        Raises `CacheExistsError` (a `FileExistsError`), `CacheBusyError`, `CacheTimeoutError`, `TooLargeError`,
        `NoSpaceError`.

        >>> cache.write("greeting", b"hello").size
        5
        >>> cache.write("greeting", b"again")
        Traceback (most recent call last):
        ...
        redgrease.filecache.errors.CacheExistsError: ...
        """
        return Stat(*self._native.put(key, as_bytes(data), False, timeout, ttl, content_type, user))

    def replace(
        self,
        key: Key,
        data: Buffer,
        *,
        timeout: Seconds = 0,
        ttl: Seconds | None = None,
        content_type: str | None = None,
        user: Mapping[str, str] | None = None,
    ) -> Stat:
        """Make a new generation of an entry, or the first one. Open handles continue to read the old one.

        Arguments and errors as for `write`, except `CacheExistsError`.

        >>> first, second = cache.replace("config", b"1"), cache.replace("config", b"2")
        >>> cache.read("config"), second.fence > first.fence
        (b'2', True)
        """
        return Stat(*self._native.put(key, as_bytes(data), True, timeout, ttl, content_type, user))

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
    ) -> Writer:
        """Open a file to write an entry piece by piece: see `Writer`.

        With `replace` an existing entry gets a new generation. `size`, if known, reserves that many bytes at once, so
        that content that cannot fit fails early. Other arguments and errors as for `write`.

        >>> with cache.create("squares") as writer:
        ...     for number in range(4):
        ...         _ = writer.write(b"%d " % number**2)
        >>> cache.read("squares")
        b'0 1 4 9 '
        """
        return Writer(self._native.open_write(key, replace, timeout, ttl, size, content_type, user))

    def get_or_create(
        self,
        key: Key,
        producer: Callable[[], Buffer] | Callable[[Writer], Any],
        *,
        timeout: Seconds = 60.0,
        ttl: Seconds | None = None,
        size: int | None = None,
        content_type: str | None = None,
        user: Mapping[str, str] | None = None,
    ) -> Got:
        """Open the entry; if it is missing, `producer` makes it. Concurrent callers on all hosts run one producer.

        `producer` takes no argument and returns bytes, or takes a `Writer` and writes to it. Its exception is raised
        here unchanged, and the next waiting caller runs its own producer. Other callers wait up to `timeout` seconds in
        total. Returns a `Got`: a `Handle` with an `outcome`. Other arguments as for `create`.

        Raises `CacheTimeoutError`, `CacheBusyError`, `TooLargeError`, `NoSpaceError`, and the exceptions of `producer`.

        >>> def table(writer):
        ...     writer.write(b"a,b")
        >>> for _ in range(2):
        ...     with cache.get_or_create("table", table, ttl=60) as got:
        ...         got.outcome, got.read()
        ('created', b'a,b')
        ('hit', b'a,b')
        """
        outcome, handle, native = self._native.begin(key, timeout, ttl, size, content_type, user)
        if handle is not None:
            return Got(handle, outcome)
        assert native is not None
        with Writer(native) as writer:
            run_producer(producer, writer)
            return Got(writer._commit_open(), outcome)

    @overload
    def memoize(self, function: F) -> Memoized: ...

    @overload
    def memoize(
        self,
        *,
        ttl: Seconds | None = ...,
        timeout: Seconds = ...,
        name: str | None = ...,
        version: str | int = ...,
        key: Callable[..., Key] | None = ...,
        ignore: tuple[str, ...] = ...,
        serializer: Serializer = ...,
    ) -> Callable[[Callable[..., Any]], Memoized]: ...

    def memoize(self, function: Any = None, **options: Any) -> Any:
        """Decorator: store the function's results as entries of this cache, see `redgrease.filecache.memoize`.

        >>> calls = []
        >>> @cache.memoize(ttl=3600)
        ... def double(number):
        ...     calls.append(number)
        ...     return number * 2
        >>> double(21), double(number=21), calls
        (42, 42, [21])
        """
        from .memoize import memoize

        return memoize(self, function, **options)

    # -- changing

    def delete(self, key: Key) -> bool:
        """Delete an entry; return whether it existed. Open handles continue to read it.

        >>> _ = cache.write("old", b"")
        >>> cache.delete("old"), cache.delete("old")
        (True, False)
        """
        return self._native.delete(key)

    def touch(self, key: Key, ttl: Seconds | None = None) -> bool:
        """Mark an entry as just used, and with `ttl` restart its time to live. Return whether it exists.

        >>> _ = cache.write("session", b"", ttl=5)
        >>> cache.touch("session", ttl=600), cache.touch("nothing-here")
        (True, False)
        """
        return self._native.touch(key, ttl)

    def pin(self, key: Key) -> bool:
        """Exempt an entry from eviction until `unpin`; return whether it exists. Its own ttl still applies.

        >>> _ = cache.write("logo", b"...")
        >>> cache.pin("logo"), cache.stat("logo").pinned
        (True, True)
        """
        return self._native.pin(key, True)

    def unpin(self, key: Key) -> bool:
        """Undo `pin`; return whether the entry exists.

        >>> cache.unpin("nothing-here")
        False
        """
        return self._native.pin(key, False)

    # -- the whole

    def entries(self, prefix: Key = b"") -> Iterator[Stat]:
        """Iterate over the entries whose keys begin with `prefix`, a page at a time, in no particular order.

        Entries that are added or removed meanwhile may or may not be included.

        >>> for name in ("img:1", "img:2", "doc:1"):
        ...     _ = cache.write(name, b"12345")
        >>> sum(stat.size for stat in cache.entries("img:"))
        10
        """
        start = _encoded_prefix(prefix)
        cursor: Any = None
        while True:
            page, cursor = self._native.list(cursor, _PAGE)
            for stat in page:
                if stat[0].startswith(start):
                    yield Stat(*stat)
            if cursor is None:
                return

    def keys(self, prefix: Key = b"") -> Iterator[bytes]:
        """Iterate over the keys, like `entries`. Iterating over the cache does the same.

        >>> _ = cache.write("b", b""), cache.write("a", b"")
        >>> sorted(cache.keys()), sorted(cache) == sorted(cache.keys())
        ([b'a', b'b'], True)
        """
        return (stat.key for stat in self.entries(prefix))

    def info(self) -> Info:
        """Return the numbers of the whole cache.

        >>> _ = cache.write("a", b"12345")
        >>> info = cache.info()
        >>> info.entries, info.bytes, info.limits.max_bytes
        (1, 5, 0)
        """
        info = self._native.info()
        return Info(**{**info, "limits": Limits(**info["limits"])})

    def stats(self) -> Stats:
        """Return the counters of this process.

        >>> cache.stats().lease_losses
        0
        """
        return Stats(**self._native.stats())

    def configure(
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
        """Change limits for all processes that use the cache. Limits that are not given stay; 0 removes one.

        >>> cache.configure(max_entries=100)
        >>> cache.info().limits.max_entries
        100
        """
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        self._native.configure({**self._native.info()["limits"], **given})

    def locks(self) -> list[Lock]:
        """Return the readers, writers and waiting writers of all processes.

        >>> cache.locks()
        []
        """
        return [Lock(**lock) for lock in self._native.locks()]

    def break_lock(self, key: Key) -> bool:
        """Revoke the lease of a key's writer; return whether there was one. Its commit raises `LeaseLostError`.

        >>> cache.break_lock("nothing-here")
        False
        """
        return self._native.break_lock(key)

    def evict(
        self,
        *,
        to_bytes: int | None = None,
        older_than: Seconds | None = None,
        idle_for: Seconds | None = None,
        prefix: Key | None = None,
        dry_run: bool = False,
    ) -> Evicted:
        """Evict entries: the least recently used until `to_bytes` remain, entries by age, idle time or prefix.

        An entry must meet all conditions that are given. Pinned entries and entries that are being read stay. A dry run
        only reports the entries.

        Raises `CacheConfigError` if no condition is given.

        >>> _ = cache.write("img:1", b"12345"), cache.write("doc:1", b"")
        >>> cache.evict(prefix="img:", dry_run=True).keys
        (b'img:1',)
        >>> cache.evict(prefix="img:").bytes, list(cache)
        (5, [b'doc:1'])
        """
        evicted = self._native.evict(to_bytes, older_than, idle_for, prefix, dry_run)
        return Evicted(evicted[0], evicted[1], tuple(evicted[2]))

    def clear(self) -> int:
        """Remove all entries; return their number.

        >>> _ = cache.write("a", b"")
        >>> cache.clear(), list(cache)
        (1, [])
        """
        return self._native.clear()

    def maintain(self) -> Maintained:
        """Run one round of maintenance: dead sessions, expired entries, limits, orphaned files.

        It also runs periodically in the background.

        >>> cache.maintain().orphans
        0
        """
        return Maintained(**self._native.maintain())

    def verify(self, depth: str = "digests", progress: Callable[[int, int], Any] | None = None) -> Verification:
        """Compare index and directory without changing anything.

        `depth` is ``"index"`` (sums and leases), ``"sizes"`` (and that each file is there with its length) or
        ``"digests"`` (and its content). `progress` is called with the number of checked and of all entries.

        >>> cache.verify("sizes").ok
        True
        """
        return _verification(self._native.verify(depth, False, progress))

    def repair(self, depth: str = "digests", progress: Callable[[int, int], Any] | None = None) -> Verification:
        """Like `verify`, and repair the problems found; safe during normal use.

        >>> cache.repair().problems
        ()
        """
        return _verification(self._native.verify(depth, True, progress))

    def doctor(self) -> list[Finding]:
        """Examine directory, server and settings; return findings with fixes.

        >>> any(finding.level == "error" for finding in cache.doctor())
        False
        """
        return [Finding(*finding) for finding in self._native.doctor()]

    # -- the end

    def close(self) -> None:
        """End the session.

        Open handles stay usable; other methods raise `ValueError` afterwards. May be called more than once.

        Garbage collection and the end of the interpreter do the same.

        >>> other = FileCache(cache.directory)
        >>> other.close()
        >>> other.exists("a")
        Traceback (most recent call last):
        ...
        ValueError: ... is closed
        """
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, key: Key) -> bool:
        return self.exists(key)

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()


def _verification(found: Mapping[str, Any]) -> Verification:
    return Verification(
        found["entries"], found["files"], found["bytes"], tuple(Problem(*problem) for problem in found["problems"])
    )
