"""Files of a cache: one that is read, and one that is made."""

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

#: Bytes that a handle reads at once.
_BUFFER_BYTES = 64 << 10
#: Bytes that are copied at once of what is not `bytes`.
_CHUNK_BYTES = 1 << 20


class _Raw(io.RawIOBase):
    """The file of a handle.

    It keeps its own place, so that a forked process that shares the descriptor does not move it.
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
    """An entry that is being read: an ordinary buffered binary file, which cannot go while the handle is open.

    It is whatever ``open(path, "rb")`` gives (`read`, `seek`, `readinto`, `readline`, `fileno`, ...), so
    `io.TextIOWrapper`, `zipfile`, `json.load` and the like take it, and it has `path`, `stat` and `mmap()` besides.
    Eviction, `delete` and `replace` leave the file in place until the handle is closed: use ``with``. A handle that is
    dropped closes itself.

    Reading from the beginning to the end compares the content with its digest, as the cache's option `check` says, and
    the read that meets the end of a damaged file raises `CorruptError`. Only the length is compared for what is read
    out of order, by `mmap`, or by `path` and `fileno`.

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
        """What is known about the entry."""
        return Stat(*self._native.stat())

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self._native.key

    @property
    def path(self) -> Path:
        """Where the file is. It stays there, unchanged, while the handle is open; do not write to it."""
        return Path(self._native.path)

    @property
    def lease_lost(self) -> bool:
        """Whether others could think that this reader is dead, so that the file may go from its path.

        That happens when the process was stopped, or could not reach the server, for longer than the lease. An open
        file can still be read to its end on a local file system.
        """
        return self._native.lease_lost()

    def mmap(self) -> mmap.mmap:
        """The whole file in memory, read-only, without a copy. Close the map before the handle.

        Raises `ValueError` when the entry is empty, which the operating system cannot map.

        >>> _ = cache.write("mapped", b"hello")
        >>> with cache.open("mapped") as handle, handle.mmap() as view:
        ...     view[1:3], len(view)
        (b'el', 5)
        """
        if self._native.size == 0:
            raise ValueError(f"entry {self.key!r} is empty, and an empty file cannot be mapped: read() gives b''")
        return mmap.mmap(self.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Any:
        return super().__enter__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}{' closed' if self.closed else ''}>"


class Got(Handle):
    """What `FileCache.get_or_create` gives: a `Handle` that also says how the entry came about.

    `outcome` is ``"hit"`` (it was there), ``"created"`` (this caller's producer made it) or ``"waited"`` (somebody else
    was making it).

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
    """An entry that is being made: a binary file to write to, which nobody sees until it is committed.

    As a context manager it commits when the block ends, and aborts when an exception leaves it; that exception wins
    over any failure of the abort. Without ``with``, call `commit` or `abort`; `close`, and dropping it, abort. The
    lease behind it is renewed by itself.

    Raises `TooLargeError` or `NoSpaceError` as soon as what was written does not fit, `LeaseLostError` at the latest by
    `commit`, when others could think that this writer is dead.

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
        self._is_over = False

    # -- a file

    def readable(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Never: what was written is written."""
        return False

    def tell(self) -> int:
        """How many bytes were written."""
        return self._written

    def write(self, data: bytes | bytearray | memoryview | Buffer) -> int:
        """Append bytes; how many they were."""
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
        """Hand what was written to the operating system, so that it can be read at `path`."""
        if not self.closed and not self._is_over:
            self._native.flush()

    def close(self) -> None:
        """No more is written. Outside of a ``with`` block this aborts; inside, the end of the block commits."""
        if self.closed:
            return
        try:
            if self._is_entered and not self._is_over:
                self._native.flush()
            else:
                self.abort()
        finally:
            super().close()

    # -- the outcome

    def commit(self) -> Stat:
        """Publish: from now on everybody reads it. Nobody ever sees a part of it.

        Raises `LeaseLostError`, `TooLargeError`, `NoSpaceError`, `CacheExistsError`; then nothing was published.
        """
        if self._stat is None:
            self._stat = Stat(*self._finish(self._native.commit))
        return self._stat

    def _commit_open(self) -> FileCacheHandle:
        """Publish, and go on as a reader of just that."""
        handle = self._finish(self._native.commit_open)
        self._stat = Stat(*handle.stat())
        return handle

    def _finish(self, act: Callable[[], T]) -> T:
        if self._is_over:
            raise ValueError(f"the writer of {self._key!r} was {'committed' if self._stat else 'aborted'} before")
        self._is_over = True
        try:
            return act()
        finally:
            super().close()

    def abort(self) -> None:
        """Give up: nothing is published, and others may make the entry. Does nothing after `commit`."""
        if not self._is_over:
            self._is_over = True
            self._native.abort()
        super().close()

    @property
    def stat(self) -> Stat | None:
        """What was published; `None` before `commit`."""
        return self._stat

    @property
    def key(self) -> bytes:
        """The key of the entry."""
        return self._key

    @property
    def path(self) -> Path:
        """The temporary file, for libraries that write to a name: what it holds at `commit` is what is published.

        >>> with cache.create("by-name") as writer:
        ...     _ = writer.path.write_bytes(b"written by another library")
        >>> cache.read("by-name")
        b'written by another library'
        """
        return Path(self._native.path())

    @property
    def lease_lost(self) -> bool:
        """Whether others could think that this writer is dead; then `commit` fails."""
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
            if not self._is_over:
                self.commit()
            return
        try:
            self.abort()
        except Exception as also:
            # The caller's own exception wins; a lease that could not be given back ends by itself.
            if error is not None and hasattr(error, "add_note"):
                error.add_note(f"besides, the entry could not be given up: {also}")

    def __repr__(self) -> str:
        state = "committed" if self._stat is not None else "aborted" if self._is_over else "open"
        return f"<Writer {self._key!r} {state}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a writer holds a lease of this process and cannot be pickled")
