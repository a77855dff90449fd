"""Reports about entries and caches. All are plain, immutable values.

Times are seconds since 1970 by the clock of the index (the server's, where there is one), durations are seconds, sizes
are bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "Evicted",
    "Finding",
    "Info",
    "Limits",
    "Lock",
    "Maintained",
    "Problem",
    "Stat",
    "Stats",
    "Verification",
]

# For classes with a field called `bytes`.
_Bytes = bytes


@dataclass(frozen=True)
class Stat:
    """Size, times and metadata of one entry, that is, of one generation of a key.

    >>> stat = cache.write("greeting", b"hello", content_type="text/plain", user={"lang": "en"})
    >>> stat.name, stat.size, stat.content_type, stat.user["lang"], stat.expires
    ('greeting', 5, 'text/plain', 'en', None)
    """

    #: The key.
    key: bytes
    #: The number of the generation; a later one of the same key has a larger number.
    fence: int
    #: Size of the content in bytes.
    size: int
    #: When it was published, in seconds since 1970.
    created: float
    #: When it was last read or touched; `None` except in `FileCache.entries`.
    last_used: float | None
    #: When it expires; `None`: never.
    expires: float | None
    #: Whether it is exempt from eviction.
    pinned: bool
    #: The first 16 bytes of the BLAKE3 hash of the content.
    digest: bytes
    #: The content type given by its writer, for instance ``"image/png"``.
    content_type: str | None = None
    #: Other metadata given by its writer.
    user: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The key as text; bytes that are not UTF-8 are escaped as in file names (`os.fsdecode`)."""
        return os.fsdecode(self.key)


@dataclass(frozen=True)
class Limits:
    """Limits of a cache; 0 means none. All processes that open the cache share them.

    >>> cache.configure(max_bytes=50_000_000, max_idle=3600.0)
    >>> cache.info().limits.max_bytes, cache.info().limits.max_idle, cache.info().limits.max_entries
    (50000000, 3600.0, 0)
    """

    #: Sum of all sizes, in bytes.
    max_bytes: int = 0
    #: Number of entries.
    max_entries: int = 0
    #: Size of one entry, in bytes; 0: as `max_bytes`.
    max_entry_bytes: int = 0
    #: Bytes to keep free on the file system.
    min_free_bytes: int = 0
    #: Seconds after which an entry expires, whatever its own time to live.
    max_age: float = 0.0
    #: Seconds after which an unused entry expires.
    max_idle: float = 0.0
    #: Target of an eviction, as a share of the limit.
    low_mark: float = 0.9


@dataclass(frozen=True)
class Info:
    """Numbers of the whole cache, the same for all processes."""

    #: Random identifier shared by directory and index, in hexadecimal.
    id: str
    #: Prefix of the cache's keys in the server.
    namespace: str
    #: Number of entries.
    entries: int
    #: Sum of their sizes.
    bytes: int
    #: Bytes reserved by active writers.
    reserved_bytes: int
    #: Bytes of files that no entry refers to and that are not unlinked yet.
    garbage_bytes: int
    #: The limits.
    limits: Limits
    #: Opened caches, in all processes.
    sessions: int
    #: Active writers.
    writers: int
    #: Keys that are being read.
    readers: int
    #: Entries evicted since the index was made.
    evicted: int
    #: Free bytes on the file system.
    free_bytes: int


@dataclass(frozen=True)
class Stats:
    """Counters of this process since it opened the cache.

    >>> before = cache.stats().hits
    >>> _ = cache.write("counted", b"1"), cache.read("counted"), cache.read("counted")
    >>> cache.stats().hits - before
    2
    """

    #: Reads that found the entry.
    hits: int = 0
    #: Reads that did not.
    misses: int = 0
    #: Calls that had to wait.
    waits: int = 0
    #: Entries that were published.
    creates: int = 0
    #: Calls that were refused at once.
    busy: int = 0
    #: Calls that failed at their deadline.
    timeouts: int = 0
    #: Files unlinked because of limits, age or deletion.
    unlinked: int = 0
    #: Bytes of entries that were read.
    bytes_read: int = 0
    #: Bytes of entries that were written.
    bytes_written: int = 0
    #: Leases that were lost while in use.
    lease_losses: int = 0
    #: Corrupt files found.
    corrupt: int = 0
    #: Number of times that the index was rebuilt or reconciled with the directory.
    rebuilds: int = 0
    #: Failed requests to the index.
    index_errors: int = 0
    #: Requests to the index.
    round_trips: int = 0


@dataclass(frozen=True)
class Lock:
    """A reader, a writer or a waiting writer.

    >>> with cache.create("report") as writer:
    ...     [(lock.key, lock.kind) for lock in cache.locks()]
    [(b'report', 'writer')]
    """

    #: The key.
    key: bytes
    #: ``"writer"``, ``"reader"`` or ``"waiting"``.
    kind: str
    #: The process: ``host:pid``.
    owner: str
    #: Seconds since it began; `None` for waiting writers.
    age: float | None
    #: Seconds until it expires if its process stops renewing.
    left: float
    #: The writer's fence, or the number of the generation that is read.
    fence: int


@dataclass(frozen=True)
class Evicted:
    """The entries that an eviction removed or, as a dry run, would remove."""

    #: Number of entries.
    entries: int
    #: Sum of their sizes.
    bytes: int
    #: Their keys, at most the first 1000.
    keys: tuple[_Bytes, ...] = ()


@dataclass(frozen=True)
class Maintained:
    """The result of one round of maintenance."""

    #: Unlinked files of entries.
    unlinked: int = 0
    #: Unlinked files without an entry.
    orphans: int = 0
    #: Unlinked temporary files of dead sessions.
    temporaries: int = 0


@dataclass(frozen=True)
class Problem:
    """A problem found by `FileCache.verify` or fixed by `FileCache.repair`."""

    #: For instance ``"orphan-file"``, ``"missing-file"``, ``"digest-mismatch"``.
    kind: str
    #: The file or the key.
    name: str
    #: The expected and the observed state.
    message: str
    #: Whether it is repaired now.
    repaired: bool


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    >>> _ = cache.write("a", b"1")
    >>> found = cache.verify()
    >>> found.ok, found.entries >= 1, found.problems
    (True, True, ())
    """

    #: Checked entries of the index.
    entries: int
    #: Checked files of the directory.
    files: int
    #: Sum of the sizes of the entries.
    bytes: int
    #: The problems found.
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no problems, or all are fixed."""
        return all(problem.repaired for problem in self.problems)


@dataclass(frozen=True)
class Finding:
    """One finding of `FileCache.doctor`."""

    #: ``"ok"``, ``"warning"`` or ``"error"``.
    level: str
    #: The part that was examined.
    name: str
    #: What was observed, and the fix.
    message: str
