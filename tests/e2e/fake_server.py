"""A server that answers what a test wants: broken replies, and states that a real server has for a moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping

#: What a client is answered when it connects.
GREETINGS: dict[bytes, bytes] = {
    b"HELLO": b"%3\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:3\r\n$4\r\nrole\r\n$6\r\nmaster\r\n",
    b"AUTH": b"+OK\r\n",
    b"CLIENT": b"+OK\r\n",
    b"SELECT": b"+OK\r\n",
    b"PING": b"+PONG\r\n",
    b"ROLE": b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n",
}

#: Ends the connection in place of a reply.
CLOSE = None

Answer = Callable[[list[bytes]], "bytes | None"]


class FakeServer:
    """Answers each command by its name, or with `otherwise`. After what is no whole reply the connection is closed."""

    def __init__(
        self, answers: Mapping[bytes, bytes | Answer | None], otherwise: bytes | None = b"-ERR no\r\n"
    ) -> None:
        self.answers = {**GREETINGS, **answers}
        self.otherwise = otherwise
        #: The commands that arrived.
        self.seen: list[list[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as file:
            while header := file.readline():
                words = [file.read(int(file.readline()[1:]) + 2)[:-2] for _ in range(int(header[1:]))]
                self.seen.append(words)
                answer = self.answers.get(words[0].upper(), self.otherwise)
                reply = answer(words) if callable(answer) else answer
                if reply is CLOSE:
                    return
                connection.sendall(reply)
                if not reply.endswith(b"\r\n"):
                    return
