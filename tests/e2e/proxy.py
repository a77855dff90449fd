"""A TCP proxy in the test's own process: it delays, drops, truncates or redirects requests and replies, and slows or
cuts connections, of one process if a test wants that.

A command of a client is assumed to arrive in one or a few pieces; a rule matches a word in them.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from .processes import owner_of_connection


@dataclass
class Held:
    """A request that has not reached the server yet, or a reply that has not reached the client."""

    _go: threading.Event = field(default_factory=threading.Event)
    _cut: bool = False

    def go_on(self) -> None:
        self._go.set()

    def cut(self) -> None:
        """Lose it, and the connection with it."""
        self._cut = True
        self._go.set()

    def wait(self) -> bool:
        """Whether it was forwarded; set by the forwarding thread."""
        self._go.wait()
        return not self._cut


@dataclass
class _Rule:
    word: bytes
    #: "hold request", "hold reply", "drop reply", "cut request"
    act: str
    times: int
    skip: int = 0


class _Link(NamedTuple):
    """A connection of a client, and that to the server."""

    client: socket.socket
    server: socket.socket
    #: The process of the client, if a test asks for processes.
    pid: int | None


class Proxy:
    """Clients connect to `port`; their requests go to `target`, which may change."""

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._rules: list[_Rule] = []
        self._held: queue.Queue[Held] = queue.Queue()
        self._all_held: list[Held] = []
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._refusing = False
        self._refused_pids: set[int] = set()
        self._pause_s = 0.0
        self._bytes_per_s = 0.0
        #: Whether requests and replies are forwarded.
        self._heard = {True: threading.Event(), False: threading.Event()}
        for heard in self._heard.values():
            heard.set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    # -- rules of the test

    def hold_request(self, word: bytes, times: int = 1) -> None:
        """Hold the next request with this word; `wait` returns it."""
        self._add(word, "hold request", times)

    def hold_reply(self, word: bytes, times: int = 1) -> None:
        """Forward the next request with this word, and hold its reply; `wait` returns it."""
        self._add(word, "hold reply", times)

    def drop_reply(self, word: bytes, *, skip: int = 0) -> None:
        """Drop the reply to the next request with this word, and close the connection; the first few pass."""
        self._add(word, "drop reply", skip=skip)

    def cut_request(self, word: bytes, *, skip: int = 0) -> None:
        """Drop the next request with this word, and close the connection; the first few pass."""
        self._add(word, "cut request", skip=skip)

    def _add(self, word: bytes, act: str, times: int = 1, skip: int = 0) -> None:
        with self._lock:
            self._rules.append(_Rule(word, act, times, skip))

    def forget_rules(self) -> None:
        with self._lock:
            self._rules.clear()

    def pending(self) -> int:
        """Rules that matched nothing yet."""
        with self._lock:
            return len(self._rules)

    def wait(self, deadline: float = 20.0) -> Held:
        try:
            return self._held.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"nothing was held in {deadline} s") from None

    def cut(self) -> None:
        """Close all connections and refuse new ones until `heal`."""
        self._refusing = True
        self.cut_connections()

    def cut_off(self, pid: int) -> None:
        """Close the connections of one process and refuse its new ones until `heal`."""
        self._refused_pids.add(pid)
        self.cut_connections(pid)

    def cut_connections(self, pid: int | None = None) -> None:
        """Close all connections, or those of one process."""
        with self._lock:
            links = [link for link in self._links if pid is None or self._pid(link) == pid]
        for link in links:
            self._close(link)

    def fall_silent(self, *, requests: bool = True, replies: bool = True) -> None:
        """Forward no requests, or no replies, or neither, like a network that drops packets; `heal` ends it."""
        for there, silent in [(True, requests), (False, replies)]:
            if silent:
                self._heard[there].clear()

    def slow_down(self, *, pause_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        """Forward each piece after a pause, or so many bytes per second, in both directions; `heal` ends it."""
        self._pause_s, self._bytes_per_s = pause_s, bytes_per_s

    def heal(self) -> None:
        self._refusing = False
        self._refused_pids.clear()
        self.slow_down()
        for heard in self._heard.values():
            heard.set()

    def close(self) -> None:
        self._closed = True
        self.heal()
        with self._lock:
            self._rules.clear()
            held = list(self._all_held)
        for one in held:
            one.cut()
        self._listener.close()
        self.cut_connections()

    # -- forwarding threads

    def _accept(self) -> None:
        while not self._closed:
            ready, _, _ = select.select([self._listener], [], [], 0.05) if self._listener.fileno() >= 0 else ([], 0, 0)
            if not ready:
                continue
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            pid = owner_of_connection(client.getpeername()[1]) if self._refused_pids else None
            if self._refusing or pid in self._refused_pids:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server, pid)
            with self._lock:
                self._links.add(link)
            replies: queue.Queue[_Rule] = queue.Queue()
            for there in (True, False):
                threading.Thread(target=self._carry, args=(link, there, replies), daemon=True).start()

    @staticmethod
    def _pid(link: _Link) -> int | None:
        try:
            return link.pid or owner_of_connection(link.client.getpeername()[1])
        except OSError:
            return None  # closed in the meantime

    def _carry(self, link: _Link, there: bool, replies: queue.Queue[_Rule]) -> None:
        source, sink = (link.client, link.server) if there else (link.server, link.client)
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 12 if self._bytes_per_s else 1 << 20):
                self._delay(len(data))
                self._heard[there].wait()
                if there:
                    rule = self._match(data)
                    if rule is not None and rule.act == "cut request":
                        break
                    if rule is not None and rule.act == "hold request" and not self._hold():
                        break
                    if rule is not None and rule.act.endswith("reply"):
                        replies.put(rule)
                elif not replies.empty():
                    rule = replies.get()
                    if rule.act == "drop reply" or not self._hold():
                        break
                sink.sendall(data)
        self._close(link)

    def _delay(self, size: int) -> None:
        seconds = self._pause_s + (size / self._bytes_per_s if self._bytes_per_s else 0.0)
        if seconds:
            time.sleep(seconds)

    def _match(self, data: bytes) -> _Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.word in data:
                    if rule.skip:
                        rule.skip -= 1
                        continue
                    rule.times -= 1
                    if rule.times == 0:
                        self._rules.remove(rule)
                    return rule
        return None

    def _hold(self) -> bool:
        held = Held()
        with self._lock:
            self._all_held.append(held)
        self._held.put(held)
        return held.wait()

    def _close(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)
        for end in (link.client, link.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
