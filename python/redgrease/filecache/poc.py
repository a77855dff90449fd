"""The API of the proof of concept, so that its callers migrate by changing an import."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .cache import FileCache
from .errors import BadKeyError, CacheBusyError, CacheMissingError
from .handles import Handle, Writer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["RedisFileCache"]


class RedisFileCache:
    """A `FileCache` with the constructor and the methods of the proof of concept.

    The arguments are the same; `lock_ttl_ms` is the lease in milliseconds. Other options of `FileCache` are keyword
    arguments, such as ``max_bytes=`` to limit its size, or ``adopt=True`` to take over a directory of the proof of
    concept. `cache` is the `FileCache` itself. Keys must not contain ``/`` or begin with ``.``.

    Only the methods that are named so wait. Raises `ValueError` for a bad key, `CacheBusyError`,
    `FileNotFoundError`, `FileExistsError`.

    >>> import tempfile
    >>> from redgrease.filecache import CacheBusyError, RedisFileCache
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     old = RedisFileCache(directory, redis_url=None)
    ...     with old.open_for_create("a.bin") as file:
    ...         _ = file.write(b"some bytes")
    ...     print(old.exists("a.bin"), old.read_bytes("a.bin"))
    ...     try:
    ...         old.write_bytes_create("a.bin", b"other bytes")
    ...     except FileExistsError as error:
    ...         print(error.code)
    ...     old.close()
    True b'some bytes'
    exists
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] = "/tmp/poc-cache",
        redis_url: str | None = "redis://localhost:6379/0",
        lock_ttl_ms: int = 60_000,
        namespace: str = "poc-cache",
        **options: Any,
    ) -> None:
        # The proof of concept created parent directories, too.
        os.makedirs(os.path.dirname(os.path.abspath(cache_dir)), exist_ok=True)
        #: The `FileCache`.
        self.cache = FileCache(cache_dir, redis_url, lease=lock_ttl_ms / 1000, namespace=namespace, **options)

    @contextmanager
    def open_for_read(self, key: str) -> Iterator[Handle]:
        """Open the entry as a binary file, for a ``with`` block.

        >>> with poc.open_for_read("a.bin") as file:
        ...     file.read()
        b'some bytes'
        """
        with self.cache.open(_checked(key, "open_for_read")) as handle:
            yield handle

    def read_bytes(self, key: str) -> bytes:
        """Return the content of the entry.

        >>> poc.read_bytes("a.bin")
        b'some bytes'
        """
        return self.cache.read(_checked(key, "read_bytes"))

    @contextmanager
    def open_for_create(self, key: str) -> Iterator[Writer]:
        """Open a binary file to write the entry; it is published when the block ends without an exception.

        >>> with poc.open_for_create("new.bin") as file:
        ...     file.write(b"new")
        3
        """
        with self.cache.create(_checked(key, "open_for_create")) as writer:
            yield writer

    def write_bytes_create(self, key: str, data: Buffer) -> None:
        """Make the entry from bytes.

        >>> poc.write_bytes_create("c.bin", b"data")
        """
        self.cache.write(_checked(key, "write_bytes_create"), data)

    def exists(self, key: str) -> bool:
        """Return whether the entry exists.

        >>> poc.exists("nothing-here")
        False
        """
        return self.cache.exists(_checked(key, "exists"))

    def read_bytes_blocking(self, key: str, timeout: float, backoff: float = 0.01) -> bytes | None:
        """Return the content; waits up to `timeout` seconds for a writer, and for an entry that does not exist yet.

        Returns `None` at the deadline.

        `backoff` is the polling interval in seconds for a missing entry; a writer is waited for without polling.

        >>> poc.read_bytes_blocking("a.bin", timeout=1.0), poc.read_bytes_blocking("nothing-here", timeout=0)
        (b'some bytes', None)
        """
        _checked(key, "read_bytes_blocking")
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0)
            try:
                return self.cache.read(key, left)
            except (CacheBusyError, CacheMissingError):
                if left == 0:
                    return None
            time.sleep(min(max(backoff, 0.001), left))

    def write_bytes_create_blocking(self, key: str, data: Buffer, timeout: float, backoff: float = 0.01) -> bool:
        """Make the entry from bytes; waits up to `timeout` seconds for another writer. Returns `False` at the deadline.

        Raises `FileExistsError` at once. `backoff` is accepted and ignored: nothing is polled.

        >>> poc.write_bytes_create_blocking("d.bin", b"data", timeout=1.0)
        True
        """
        try:
            self.cache.write(_checked(key, "write_bytes_create_blocking"), data, timeout=max(timeout, 0))
        except CacheBusyError:
            return False
        return True

    def close(self) -> None:
        """End the session.

        >>> poc.close()
        """
        self.cache.close()

    def __repr__(self) -> str:
        return f"Redis{self.cache!r}"


def _checked(key: str, operation: str) -> str:
    """The key; refuses keys that the proof of concept refused."""
    if isinstance(key, str) and ("/" in key or key.startswith(".")):
        raise BadKeyError(
            f"{operation}: key {key!r} contains '/' or begins with '.': rename it, or use FileCache, which accepts it",
            operation=operation,
            key=key.encode("utf-8", "surrogateescape"),
        )
    return key
