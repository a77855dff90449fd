"""Pipelined commands at the server's own speed: packed beforehand, sent in windows, replies only counted."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

WINDOW = 1000


def pack(command: Sequence[str]) -> bytes:
    parts = [f"*{len(command)}\r\n".encode()]
    for part in command:
        data = part.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def windows(commands: Sequence[Sequence[str]]) -> list[tuple[bytes, int]]:
    """Packed commands, so many at once, each with its number of commands."""
    return [
        (b"".join(map(pack, commands[start : start + WINDOW])), len(commands[start : start + WINDOW]))
        for start in range(0, len(commands), WINDOW)
    ]


def send_all(port: int, packed: list[tuple[bytes, int]], lines_per_reply: int) -> float:
    """Seconds until all are answered; two windows are in flight, so that the server never waits for us."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.perf_counter()
        due = 0
        for data, count in packed:
            link.sendall(data)
            due = _read_lines(link, due)
            due += count * lines_per_reply
        _read_lines(link, due)
        return time.perf_counter() - start


def _read_lines(link: socket.socket, due: int) -> int:
    while due > 0:
        data = link.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        if data.startswith(b"-"):
            raise RuntimeError(f"the server answered {data[:200]!r}")
        due -= data.count(b"\n")
    return due
