"""A peer that a test plays: it listens, remembers the commands that a server sends, and answers as the test says."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

Command = list[bytes]

#: Longest wait for something that a server does at once, or within its pause between two attempts.
PATIENCE_S = 20.0


class MockPeer:
    """Listens on a port of its own. Each connection of a server is a `Talk`, in the order of their arrival.

    ``answer`` gets a command and returns the reply as it goes over the wire; ``None``: no reply.
    """

    def __init__(
        self,
        *,
        family: socket.AddressFamily = socket.AF_INET,
        port: int = 0,
        path: Path | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.answer: Answer = answer or Script()
        self.host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self.port = port
        if path is None:
            self._listener = socket.create_server((self.host, port), family=family)
            self.port = int(self._listener.getsockname()[1])
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
        self._talks: queue.Queue[Talk] = queue.Queue()
        self._all: list[Talk] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                talk = Talk(connection, lambda command: self.answer(command))
                self._all.append(talk)
                self._talks.put(talk)

    def next_talk(self, *, deadline: float = PATIENCE_S) -> Talk:
        """The next connection of a server."""
        try:
            return self._talks.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"no connection in {deadline} s") from None

    def has_no_talk(self, seconds: float) -> bool:
        """Whether no server connects for so long."""
        try:
            self._talks.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def close(self) -> None:
        """Stop listening, and close all connections."""
        # On Linux, `accept` in another thread returns only after this.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for talk in self._all:
            talk.close()

    def __enter__(self) -> MockPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Answer = Callable[[Command], "bytes | None"]


class Talk:
    """One connection of a server."""

    def __init__(self, connection: socket.socket, answer: Answer) -> None:
        self._connection = connection
        self._answer = answer
        self._commands: queue.Queue[Command | None] = queue.Queue()
        #: Bytes as they came.
        self.raw = b""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            buffer = b""
            while data := self._connection.recv(1 << 16):
                self.raw += data
                buffer += data
                while (parsed := parse(buffer)) is not None:
                    command, buffer = parsed
                    self._commands.put(command)
                    reply = self._answer(command)
                    if reply is not None:
                        self._connection.sendall(reply)
        self._commands.put(None)

    def next(self, *, deadline: float = PATIENCE_S) -> Command:
        """The next command."""
        try:
            command = self._commands.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"no command in {deadline} s; so far {self.raw!r}") from None
        assert command is not None, f"the server closed the connection after {self.raw!r}"
        return command

    def message(self, *, deadline: float = PATIENCE_S) -> Message:
        """The next message of a shard; other commands are skipped."""
        while True:
            command = self.next(deadline=deadline)
            if command[0].upper() == b"RG.INNERMSGCOMMAND":
                return Message(command)

    def wait_end(self, *, deadline: float = PATIENCE_S) -> None:
        """Wait until the server closes the connection."""
        try:
            while self._commands.get(timeout=deadline) is not None:
                pass
        except queue.Empty:
            raise AssertionError(f"the connection was not closed in {deadline} s; so far {self.raw!r}") from None

    def say(self, reply: bytes) -> None:
        """Send a reply now."""
        self._connection.sendall(reply)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Message:
    """A message of a shard."""

    def __init__(self, command: Sequence[bytes]) -> None:
        _, self.sender, self.run, self.function, self.payload, number = command
        self.number = int(number)


class Script:
    """The answers of a peer of RedisGears: its run's id to `RG.HELLO`, and OK to everything else.

    ``replies`` are answers by the name of the command, in place of these.
    """

    def __init__(self, run: bytes = b"r" * 40, **replies: bytes | None) -> None:
        self.run = run
        self.replies = {name.upper().encode(): reply for name, reply in replies.items()}

    def __call__(self, command: Command) -> bytes | None:
        name = command[0].upper().removeprefix(b"RG.")
        if name in self.replies:
            return self.replies[name]
        return b"$%d\r\n%s\r\n" % (len(self.run), self.run) if name == b"HELLO" else b"+OK\r\n"


def parse(data: bytes) -> tuple[Command, bytes] | None:
    """The first command, and what follows; `None` if it is not complete."""
    line, found, rest = data.partition(b"\r\n")
    if not found:
        return None
    assert line.startswith(b"*"), f"not a command: {data[:80]!r}"
    words: Command = []
    for _ in range(int(line[1:])):
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            return None
        size = int(line[1:])
        if len(rest) < size + 2:
            return None
        words.append(rest[:size])
        rest = rest[size + 2 :]
    return words, rest


def pushed_topology(
    me: str, shards: Sequence[tuple[str, str]], *, name: str = "RG.CLUSTERSET", unix: Sequence[str | None] = ()
) -> list[object]:
    """A command that pushes a topology: own id, and for each shard its id and address (``password@host:port``).

    The slots are distributed evenly. Arguments whose meaning is not known are the words of RedisGears.
    """
    command: list[object] = [name, "NO-USED", "NO-USED", "NO-USED", "NO-USED", "MYID", me, "RANGES", len(shards)]
    ends = [16384 * number // len(shards) for number in range(len(shards) + 1)]
    for number, (shard, address) in enumerate(shards):
        command += ["SHARD", shard, "SLOTRANGE", ends[number], ends[number + 1] - 1, "ADDR", address]
        path = unix[number] if number < len(unix) else None
        command += ["UNIXADDR", path] if path else []
        command.append("MASTER")
    return command
