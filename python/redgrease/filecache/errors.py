"""Exception classes of the file cache: one per error code, each also a subclass of the matching built-in exception.

>>> from redgrease.filecache import CacheError, CacheMissingError, FileCache
>>> try:
...     cache.read("nothing-here")
... except FileNotFoundError as error:
...     print(type(error).__name__, error.code, error.operation, error.key)
CacheMissingError missing read b'nothing-here'
>>> issubclass(CacheMissingError, CacheError)
True
"""

from __future__ import annotations

import errno as _errno
import os
from typing import Any

__all__ = [
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
    "LeaseLostError",
    "NoSpaceError",
    "TooLargeError",
    "UnavailableError",
]


class CacheError(Exception):
    """Base class of all errors of a cache. The message names the operation, the key, the value seen and the fix.

    `code` is the stable name of the error (``"busy"``, ``"missing"``, ...): the same in Python, in Rust, and in the
    JSON output of the command line. `operation` is the name of the method that failed. `key` is the entry's key
    (`bytes`), or `None` if the error concerns no single entry.
    """

    #: Stable name of the error.
    code: str = "error"
    #: Name of the method that failed; empty when unknown.
    operation: str = ""
    #: Key of the entry; `None` if the error concerns no single entry.
    key: bytes | None = None

    #: Value of `OSError.errno` if the operating system gave none.
    _errno: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        operation: str = "",
        key: bytes | None = None,
        errno: int | None = None,
        filename: str | None = None,
    ) -> None:
        if isinstance(self, OSError):
            if filename is None and key is not None:
                filename = os.fsdecode(key)
            super().__init__(errno or self._errno, message, filename)
        else:
            super().__init__(message)
        self.operation = operation
        self.key = key
        self._message = message

    def __str__(self) -> str:
        return self._message

    def __reduce__(self) -> Any:
        state = {
            "operation": self.operation,
            "key": self.key,
            "errno": getattr(self, "errno", None),
            "filename": getattr(self, "filename", None),
        }
        return _rebuilt, (type(self), self._message, state)


def _rebuilt(kind: type[CacheError], message: str, state: dict[str, Any]) -> CacheError:
    return kind(message, **state)


class CacheBusyError(CacheError):
    """The entry is in use: it is being written or, for a change, being read."""

    code = "busy"


class CacheTimeoutError(CacheBusyError, TimeoutError):
    """The entry was busy until the caller's `timeout` ended."""

    code = "timeout"
    _errno = _errno.ETIMEDOUT


class CacheMissingError(CacheError, FileNotFoundError):
    """There is no such entry, and it is not being made."""

    code = "missing"
    _errno = _errno.ENOENT


class CacheExistsError(CacheError, FileExistsError):
    """The entry exists already; `replace` makes a new generation of it."""

    code = "exists"
    _errno = _errno.EEXIST


class LeaseLostError(CacheError):
    """The lease expired or was broken during the operation; nothing was published."""

    code = "lease-lost"


class TooLargeError(CacheError, ValueError):
    """The data is larger than an entry, or the whole cache, may be; nothing was published."""

    code = "too-large"


class NoSpaceError(CacheError, OSError):
    """The disk or the cache is full, and nothing can be evicted."""

    code = "no-space"
    _errno = _errno.ENOSPC


class CacheDeniedError(CacheError, PermissionError):
    """The operating system or the server denied the access, or the cache was opened read-only."""

    code = "denied"
    _errno = _errno.EACCES


class CorruptError(CacheError):
    """The file differs from what was written in length or digest. The entry was removed, its file quarantined."""

    code = "corrupt"


class UnavailableError(CacheError, ConnectionError):
    """The server that coordinates the cache cannot be reached, or did not answer in time."""

    code = "unavailable"


class CacheIOError(CacheError, OSError):
    """Another error of the file system, see `errno`."""

    code = "io"
    _errno = _errno.EIO


class BadKeyError(CacheError, ValueError):
    """A key must be 1 to 4096 bytes, or text of that many bytes in UTF-8."""

    code = "bad-key"


class CacheConfigError(CacheError, ValueError):
    """An option is invalid, or directory and namespace do not belong together."""

    code = "bad-config"


_CLASSES: dict[str, type[CacheError]] = {
    kind.code: kind
    for kind in (
        CacheError,
        CacheBusyError,
        CacheTimeoutError,
        CacheMissingError,
        CacheExistsError,
        LeaseLostError,
        TooLargeError,
        NoSpaceError,
        CacheDeniedError,
        CorruptError,
        UnavailableError,
        CacheIOError,
        BadKeyError,
        CacheConfigError,
    )
}


def _of(code: str, message: str, operation: str, key: bytes | None, errno: int | None) -> CacheError:
    """The exception for an error code of the native part."""
    kind = _CLASSES.get(code, CacheError)
    error = kind(message, operation=operation, key=key, errno=errno)
    if kind is CacheError:
        error.code = code
    return error
