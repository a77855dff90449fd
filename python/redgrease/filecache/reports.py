"""What a cache says about its entries and about itself. All are plain, immutable values.

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

# Where a field is called `bytes`.
_Bytes = bytes


@dataclass(frozen=True)
class Stat:
    """What is known about one entry, that is, about one generation of one key.

    >>> stat = cache.write("greeting", b"hello", content_type="text/plain", user={"lang": "en"})
    >>> stat.name, stat.size, stat.content_type, stat.user["lang"], stat.expires
    ('greeting', 5, 'text/plain', 'en', None)
    """

    #: The key.
    key: bytes
    #: The number of the generation; a later one of the same key has a larger number.
    fence: int
    #: Bytes.
    size: int
    #: When it was published, in seconds since 1970.
    created: float
    #: When it was last read or touched; `None` where that is not asked for: only `FileCache.entries` does.
    last_used: float | None
    #: When it ends; `None`: not by itself.
    expires: float | None
    #: Whether limits leave it alone.
    pinned: bool
    #: The first 16 bytes of the BLAKE3 hash of the content.
    digest: bytes
    #: What its maker said the content is, for instance ``"image/png"``.
    content_type: str | None = None
    #: What else its maker said about it.
    user: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The key as text; bytes that are not UTF-8 are escaped as in file names (`os.fsdecode`)."""
        return os.fsdecode(self.key)


@dataclass(frozen=True)
class Limits:
    """Bounds of a cache; 0 means none. They are shared: every process that opens the cache obeys the same ones.

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
    #: Bytes that the file system shall keep free.
    min_free_bytes: int = 0
    #: Seconds after which an entry ends, whatever its own time to live.
    max_age: float = 0.0
    #: Seconds after which an entry ends that nobody used.
    max_idle: float = 0.0
    #: How far an eviction goes below a bound, as a share of it.
    low_mark: float = 0.9


@dataclass(frozen=True)
class Info:
    """Numbers of the whole cache, the same for every process that asks."""

    #: Random identity that the directory and the index share, in hexadecimal.
    id: str
    #: Prefix of the cache's keys in the server.
    namespace: str
    #: Number of entries.
    entries: int
    #: Sum of their sizes.
    bytes: int
    #: Bytes that writers at work have reserved.
    reserved_bytes: int
    #: Bytes of files that are no longer content and not yet unlinked.
    garbage_bytes: int
    #: The bounds.
    limits: Limits
    #: Opened caches, in all processes.
    sessions: int
    #: Writers at work.
    writers: int
    #: Keys that are being read.
    readers: int
    #: Entries that were evicted since the index was made.
    evicted: int
    #: Bytes that are free on the file system.
    free_bytes: int


@dataclass(frozen=True)
class Stats:
    """What this process did with the cache since it opened it.

    >>> before = cache.stats().hits
    >>> _ = cache.write("counted", b"1"), cache.read("counted"), cache.read("counted")
    >>> cache.stats().hits - before
    2
    """

    #: Reads that found the entry.
    hits: int = 0
    #: Reads that did not.
    misses: int = 0
    #: Acquires that had to wait.
    waits: int = 0
    #: Entries that were published.
    creates: int = 0
    #: Acquires that were refused at once.
    busy: int = 0
    #: Acquires that were refused when their time was over.
    timeouts: int = 0
    #: Files that were unlinked for limits or age, or after a deletion.
    unlinked: int = 0
    #: Bytes of entries that were read.
    bytes_read: int = 0
    #: Bytes of entries that were written.
    bytes_written: int = 0
    #: Leases that ended before their holder did.
    lease_losses: int = 0
    #: Files that were not what had been written.
    corrupt: int = 0
    #: Times that the index was made anew or brought in line with the directory.
    rebuilds: int = 0
    #: Failed exchanges with the index.
    index_errors: int = 0
    #: Exchanges with the index.
    round_trips: int = 0


@dataclass(frozen=True)
class Lock:
    """Somebody who reads, writes or waits to write.

    >>> with cache.create("report") as writer:
    ...     [(lock.key, lock.kind) for lock in cache.locks()]
    [(b'report', 'writer')]
    """

    #: The key.
    key: bytes
    #: ``"writer"``, ``"reader"`` or ``"waiting"``.
    kind: str
    #: Who it is: ``host:pid``.
    owner: str
    #: Seconds since it began; `None` for those who wait.
    age: float | None
    #: Seconds that remain if its process was not heard of any more.
    left: float
    #: A writer's own number, or the number of the generation that is read.
    fence: int


@dataclass(frozen=True)
class Evicted:
    """What an eviction took, or, as a dry run, would take."""

    #: Number of entries.
    entries: int
    #: Sum of their sizes.
    bytes: int
    #: Their keys, at most the first 1000.
    keys: tuple[_Bytes, ...] = ()


@dataclass(frozen=True)
class Maintained:
    """What one round of maintenance did."""

    #: Files of entries that were unlinked.
    unlinked: int = 0
    #: Files without an entry that were unlinked.
    orphans: int = 0
    #: Temporary files of dead sessions that were unlinked.
    temporaries: int = 0


@dataclass(frozen=True)
class Problem:
    """Something that `FileCache.verify` found, or that `FileCache.repair` mended."""

    #: For instance ``"orphan-file"``, ``"missing-file"``, ``"digest-mismatch"``.
    kind: str
    #: The file or the key.
    name: str
    #: What was expected and what was seen.
    message: str
    #: Whether it is mended now.
    mended: bool


@dataclass(frozen=True)
class Verification:
    """What was looked through, and what was wrong.

    >>> _ = cache.write("a", b"1")
    >>> found = cache.verify()
    >>> found.ok, found.entries >= 1, found.problems
    (True, True, ())
    """

    #: Entries of the index.
    entries: int
    #: Files of the directory.
    files: int
    #: Sum of the sizes of the entries.
    bytes: int
    #: What was wrong.
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return all(problem.mended for problem in self.problems)


@dataclass(frozen=True)
class Finding:
    """One line of `FileCache.doctor`."""

    #: ``"ok"``, ``"warning"`` or ``"error"``.
    level: str
    #: What was looked at.
    name: str
    #: What was seen, and the mend.
    message: str
