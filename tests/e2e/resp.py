"""A bare RESP connection that shows a reply exactly as it was on the wire.

redis-py converts simple strings, bulks and error codes; tests about the *shape* of a reply need the
original ones.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True)
class Simple:
    """A simple string: ``+text``."""

    text: str


@dataclass(frozen=True)
class Err:
    """An error: ``-text``, the text exactly as sent, with its code if it has one."""

    text: str


Reply = Union[Simple, Err, bytes, int, float, bool, None, list, dict]


class RespConnection:
    """One connection, one command at a time."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout: float = 30.0, resp3: bool = False) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._file = self._socket.makefile("rb")
        if resp3:
            self("HELLO", "3")

    def __enter__(self) -> RespConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    @property
    def address(self) -> str:
        """Its local address, as in `CLIENT LIST`."""
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    def send(self, *args: str | bytes | int) -> None:
        """Write a command without waiting for its reply."""
        parts = [a if isinstance(a, bytes) else str(a).encode() for a in args]
        frame = [b"*%d\r\n" % len(parts)]
        frame += [b"$%d\r\n%s\r\n" % (len(p), p) for p in parts]
        self._socket.sendall(b"".join(frame))

    def __call__(self, *args: str | bytes | int) -> Reply:
        self.send(*args)
        return self.read()

    def read(self) -> Reply:
        """Read one reply."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"the server closed the connection in a reply: {line!r}")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return Simple(rest.decode("utf-8", "surrogateescape"))
        if kind == b"-":
            return Err(rest.decode("utf-8", "surrogateescape"))
        if kind == b":":
            return int(rest)
        if kind == b",":
            return float(rest)
        if kind == b"#":
            return rest == b"t"
        if kind == b"_":
            return None
        if kind in (b"$", b"="):
            return self._bulk(int(rest))
        if kind in (b"*", b"~"):
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        if kind == b"%":
            return dict((self.read(), self.read()) for _ in range(int(rest)))  # noqa: C402 - keys are read first
        raise ValueError(f"unknown RESP type {line!r}")

    def _bulk(self, size: int) -> bytes | None:
        if size < 0:
            return None
        data = self._file.read(size + 2)
        if len(data) != size + 2:
            raise ConnectionError(f"the server closed the connection inside a bulk of {size} bytes")
        return data[:-2]
