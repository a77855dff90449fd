"""Files of a cache: `Handle` for reading, `Writer` for writing."""

from __future__ import annotations

import io
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, NoReturn, TypeVar

from .reports import Stat

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .._native import FileCacheHandle, FileCacheWriter

__all__ = ["Got", "Handle", "Writer"]

T = TypeVar("T")

#: Size of a handle's read buffer, in bytes.
_BUFFER_BYTES = 64 << 10
#: Size of the chunks in which other buffers than `bytes` are copied.
_CHUNK_BYTES = 1 << 20


class _Raw(io.RawIOBase):
    """The raw file of a handle.

    It keeps its own position, so that a forked process that shares the descriptor does not move it.
    """

    def __init__(self, native: FileCacheHandle) -> None:
        self.native = native
        self._fd = native.fileno()
        self._at = 0

    @property
    def name(self) -> str:
        return self.native.path

    @property
    def mode(self) -> str:
        return "rb"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        self._open()
        return self._fd

    def readinto(self, buffer: Any) -> int:
        self._open()
        data = self.native.read(self._at, len(buffer))
        count = len(data)
        buffer[:count] = data
        self._at += count
        return count

    def readall(self) -> bytes:
        self._open()
        data = self.native.read(self._at, self.native.size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.native.size}.get(whence)
        if base is None:
            raise ValueError(f"whence must be 0 (start), 1 (here) or 2 (end), not {whence!r}")
        if base + offset < 0:
            raise ValueError(f"a position must not be negative: {base + offset}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        self._open()
        return self._at

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.native.close()

    def _open(self) -> None:
        if self.closed:
            raise ValueError("this handle is closed")


class Handle(io.BufferedReader):
    """An entry opened for reading: a buffered binary file that stays in place while the handle is open.

    It has all methods of ``open(path, "rb")`` (`read`, `seek`, `readinto`, `readline`, `fileno`, ...), so it works with
    `io.TextIOWrapper`, `zipfile`, `json.load` and the like. In addition it has `path`, `stat` and `mmap()`. Eviction,
    `delete` and `replace` leave the file in place until the handle is closed: use ``with``. A garbage-collected handle
    is closed.

    Reading from beginning to end compares the content with its digest, as the cache's option `check` says; the read
    that reaches the end of a damaged file raises `CorruptError`. Reads out of order, by `mmap`, or by `path` and
    `fileno` compare the length only.

    >>> _ = cache.write("lines", b"one\\ntwo\\n")
    >>> with cache.open("lines") as handle:
    ...     handle.readline(), handle.read(), handle.seek(0), handle.stat.size, handle.path.stat().st_size
    (b'one\\n', b'two\\n', 0, 8, 8)
    """

    def __init__(self, native: FileCacheHandle) -> None:
        self._native = native
        super().__init__(_Raw(native), _BUFFER_BYTES)

    @property
    def stat(self) -> Stat:
        """Size, times and metadata of the entry."""
        return Stat(*self._native.stat())

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self._native.key

    @property
    def path(self) -> Path:
        """Path of the file. It stays in place, unchanged, while the handle is open; do not write to it."""
        return Path(self._native.path)

    @property
    def lease_lost(self) -> bool:
        """Whether the lease may have expired, so that the file may be removed from its path.

        That happens when the process was stopped, or could not reach the server, for longer than the lease. An open
        file can still be read to its end on a local file system.
        """
        return self._native.lease_lost()

    def mmap(self) -> mmap.mmap:
        """Map the whole file into memory, read-only, without a copy. Close the map before the handle.

        Raises `ValueError` when the entry is empty, which the operating system cannot map.

        >>> _ = cache.write("mapped", b"hello")
        >>> with cache.open("mapped") as handle, handle.mmap() as view:
        ...     view[1:3], len(view)
        (b'el', 5)
        """
        if self._native.size == 0:
            raise ValueError(
                f"entry {self.key!r} is empty, and an empty file cannot be mapped: use read(), which returns b''"
            )
        return mmap.mmap(self.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Any:
        return super().__enter__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}{' closed' if self.closed else ''}>"


class Got(Handle):
    """The result of `FileCache.get_or_create`: a `Handle` with the `outcome` of the call.

    `outcome` is ``"hit"`` (the entry existed), ``"created"`` (this caller's producer made it) or ``"waited"`` (another
    caller was making it).

    >>> with cache.get_or_create("answer", lambda: b"42") as got:
    ...     got.outcome, got.read()
    ('created', b'42')
    """

    def __init__(self, native: FileCacheHandle, outcome: str) -> None:
        super().__init__(native)
        #: ``"hit"``, ``"created"`` or ``"waited"``.
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"<Got {self.key!r} {self.outcome}{' closed' if self.closed else ''}>"


class Writer(io.BufferedIOBase):
    """An entry opened for writing: a binary file that is invisible until it is committed.

    As a context manager it commits when the block ends, and aborts when the block raises; that exception takes
    precedence over a failure of the abort. Without ``with``, call `commit` or `abort`. `close` and garbage collection
    abort. Its lease is renewed automatically.

    Raises `TooLargeError` or `NoSpaceError` as soon as the content does not fit, and `LeaseLostError`, at the latest in
    `commit`, if the lease may have expired.

    >>> with cache.create("table", content_type="text/csv") as writer:
    ...     _ = writer.write(b"a,b\\n")
    ...     writer.writelines([b"1,2\\n", b"3,4\\n"])
    >>> writer.stat.size, cache.read("table")
    (12, b'a,b\\n1,2\\n3,4\\n')
    """

    def __init__(self, native: FileCacheWriter) -> None:
        self._native = native
        self._key = native.key
        self._stat: Stat | None = None
        self._written = 0
        self._is_entered = False
        self._is_finished = False

    # -- a file

    def readable(self) -> bool:
        """Return `False`."""
        return False

    def writable(self) -> bool:
        """Return `True`."""
        return True

    def seekable(self) -> bool:
        """Return `False`: a writer only appends."""
        return False

    def tell(self) -> int:
        """Number of bytes written so far."""
        return self._written

    def write(self, data: bytes | bytearray | memoryview | Buffer) -> int:
        """Append bytes; return their number."""
        if self.closed:
            raise ValueError("this writer is closed")
        if type(data) is bytes:
            self._native.write(data)
            size = len(data)
        else:
            view = memoryview(data)
            size = view.nbytes
            if not view.c_contiguous:
                self._native.write(view.tobytes())
            elif size:
                flat = view.cast("B")
                for at in range(0, size, _CHUNK_BYTES):
                    self._native.write(bytes(flat[at : at + _CHUNK_BYTES]))
        self._written += size
        return size

    def flush(self) -> None:
        """Flush to the operating system, so that the content can be read at `path`."""
        if not self.closed and not self._is_finished:
            self._native.flush()

    def close(self) -> None:
        """End writing. Outside of a ``with`` block this aborts; inside, the end of the block commits."""
        if self.closed:
            return
        try:
            if self._is_entered and not self._is_finished:
                self._native.flush()
            else:
                self.abort()
        finally:
            super().close()

    # -- the outcome

    def commit(self) -> Stat:
        """Publish the entry as a whole.

        Raises `LeaseLostError`, `TooLargeError`, `NoSpaceError`, `CacheExistsError`; then nothing was published.
        """
        if self._stat is None:
            self._stat = Stat(*self._finish(self._native.commit))
        return self._stat

    def _commit_open(self) -> FileCacheHandle:
        """Publish, and return a handle on the new generation."""
        handle = self._finish(self._native.commit_open)
        self._stat = Stat(*handle.stat())
        return handle

    def _finish(self, act: Callable[[], T]) -> T:
        if self._is_finished:
            raise ValueError(f"the writer of {self._key!r} was already {'committed' if self._stat else 'aborted'}")
        self._is_finished = True
        try:
            return act()
        finally:
            super().close()

    def abort(self) -> None:
        """Discard the content, and let other callers make the entry. Does nothing after `commit`."""
        if not self._is_finished:
            self._is_finished = True
            self._native.abort()
        super().close()

    @property
    def stat(self) -> Stat | None:
        """The published entry; `None` before `commit`."""
        return self._stat

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self._key

    @property
    def path(self) -> Path:
        """The temporary file, for libraries that write to a path. `commit` publishes its content.

        >>> with cache.create("by-name") as writer:
        ...     _ = writer.path.write_bytes(b"written by another library")
        >>> cache.read("by-name")
        b'written by another library'
        """
        return Path(self._native.path())

    @property
    def lease_lost(self) -> bool:
        """Whether the lease may have expired; then `commit` fails."""
        return self._native.lease_lost()

    def __enter__(self) -> Writer:
        if self.closed:
            raise ValueError("this writer is closed")
        self._is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if not self._is_finished:
                self.commit()
            return
        try:
            self.abort()
        except Exception as also:
            # The caller's exception takes precedence; a lease that could not be released expires.
            if error is not None and hasattr(error, "add_note"):
                error.add_note(f"in addition, the entry could not be aborted: {also}")

    def __repr__(self) -> str:
        state = "committed" if self._stat is not None else "aborted" if self._is_finished else "open"
        return f"<Writer {self._key!r} {state}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a writer holds a lease of this process and cannot be pickled")
