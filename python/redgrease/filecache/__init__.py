"""A cache of files in a directory that many threads, processes and hosts share.

`FileCache` is the blocking API, `AsyncFileCache` the asyncio API, and `RedisFileCache` the API of the proof of concept.
All errors are subclasses of `CacheError` and, if there is one, of the matching built-in exception.
There is one implementation, in Rust; the guide is ``docs/filecache.md``.

>>> import tempfile
>>> from redgrease.filecache import FileCache
>>> directory = tempfile.mkdtemp()
>>> cache = FileCache(directory, max_bytes=100_000_000)  # add url="redis://localhost:6379/0" to share it between hosts
>>> def render():
...     return b"<h1>Hello</h1>"
>>> for _ in range(2):
...     with cache.get_or_create("page:1", render, ttl=60) as page:
...         print(page.outcome, page.read())
created b'<h1>Hello</h1>'
hit b'<h1>Hello</h1>'
>>> cache.close()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cache import FileCache
from .errors import (
    BadKeyError,
    CacheBusyError,
    CacheConfigError,
    CacheDeniedError,
    CacheError,
    CacheExistsError,
    CacheIOError,
    CacheMissingError,
    CacheTimeoutError,
    CorruptError,
    LeaseLostError,
    NoSpaceError,
    TooLargeError,
    UnavailableError,
)
from .handles import Got, Handle, Writer
from .reports import Evicted, Finding, Info, Limits, Lock, Maintained, Problem, Stat, Stats, Verification

if TYPE_CHECKING:
    from .aio import AsyncFileCache, AsyncGot, AsyncHandle, AsyncWriter
    from .poc import RedisFileCache

__all__ = [
    "AsyncFileCache",
    "AsyncGot",
    "AsyncHandle",
    "AsyncWriter",
    "BadKeyError",
    "CacheBusyError",
    "CacheConfigError",
    "CacheDeniedError",
    "CacheError",
    "CacheExistsError",
    "CacheIOError",
    "CacheMissingError",
    "CacheTimeoutError",
    "CorruptError",
    "Evicted",
    "FileCache",
    "Finding",
    "Got",
    "Handle",
    "Info",
    "LeaseLostError",
    "Limits",
    "Lock",
    "Maintained",
    "NoSpaceError",
    "Problem",
    "RedisFileCache",
    "Stat",
    "Stats",
    "TooLargeError",
    "UnavailableError",
    "Verification",
    "Writer",
]

#: Names that are imported on first use: `asyncio` is large.
_LATER = {
    "AsyncFileCache": "aio",
    "AsyncGot": "aio",
    "AsyncHandle": "aio",
    "AsyncWriter": "aio",
    "RedisFileCache": "poc",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
