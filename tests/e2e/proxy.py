"""A TCP proxy in the test's own process: requests and replies that are held, lost, cut off, or led elsewhere.

One command of a client is taken to be in one or a few pieces as they arrive; what a rule looks for is a word in them.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
from dataclasses import dataclass, field


@dataclass
class Held:
    """A request that did not reach the server yet, or a reply that did not reach the client."""

    _go: threading.Event = field(default_factory=threading.Event)
    _cut: bool = False

    def go_on(self) -> None:
        self._go.set()

    def cut(self) -> None:
        """Lose it, and the connection with it."""
        self._cut = True
        self._go.set()

    def wait(self) -> bool:
        """Whether it goes on; said by the thread that carries it."""
        self._go.wait()
        return not self._cut


@dataclass
class _Rule:
    word: bytes
    #: "hold request", "hold reply", "drop reply", "cut request"
    act: str
    times: int
    skip: int = 0


class Proxy:
    """Clients connect to `port`; what they say goes to `target`, which may change."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._rules: list[_Rule] = []
        self._held: queue.Queue[Held] = queue.Queue()
        self._all_held: list[Held] = []
        self._lock = threading.Lock()
        self._links: set[tuple[socket.socket, socket.socket]] = set()
        self._refusing = False
        self._silent = threading.Event()
        self._heard = threading.Event()
        self._heard.set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    # -- what the test says

    def hold_request(self, word: bytes, times: int = 1) -> None:
        """Keep the next request with this word from the server; `wait` gives it."""
        self._add(word, "hold request", times)

    def hold_reply(self, word: bytes, times: int = 1) -> None:
        """Let the next request with this word be carried out, and keep its reply; `wait` gives it."""
        self._add(word, "hold reply", times)

    def drop_reply(self, word: bytes, *, skip: int = 0) -> None:
        """Lose the reply to the next request with this word, and cut the connection; the first few pass."""
        self._add(word, "drop reply", skip=skip)

    def cut_request(self, word: bytes, *, skip: int = 0) -> None:
        """Lose the next request with this word, and cut the connection; the first few pass."""
        self._add(word, "cut request", skip=skip)

    def _add(self, word: bytes, act: str, times: int = 1, skip: int = 0) -> None:
        with self._lock:
            self._rules.append(_Rule(word, act, times, skip))

    def forget_rules(self) -> None:
        with self._lock:
            self._rules.clear()

    def pending(self) -> int:
        """Rules that nothing met yet."""
        with self._lock:
            return len(self._rules)

    def wait(self, deadline: float = 20.0) -> Held:
        try:
            return self._held.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"nothing was held in {deadline} s") from None

    def cut(self) -> None:
        """Cut all connections and accept no more until `heal`."""
        self._refusing = True
        self.cut_connections()

    def cut_connections(self) -> None:
        with self._lock:
            links = list(self._links)
        for link in links:
            self._close(link)

    def fall_silent(self) -> None:
        """Carry nothing any more, either way, as a network that swallows packets; `heal` ends it."""
        self._heard.clear()

    def heal(self) -> None:
        self._refusing = False
        self._heard.set()

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

    # -- the threads that carry

    def _accept(self) -> None:
        while not self._closed:
            ready, _, _ = select.select([self._listener], [], [], 0.05) if self._listener.fileno() >= 0 else ([], 0, 0)
            if not ready:
                continue
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = (client, server)
            with self._lock:
                self._links.add(link)
            replies: queue.Queue[_Rule] = queue.Queue()
            for there in (True, False):
                threading.Thread(target=self._carry, args=(link, there, replies), daemon=True).start()

    def _carry(self, link: tuple[socket.socket, socket.socket], there: bool, replies: queue.Queue[_Rule]) -> None:
        source, sink = link if there else link[::-1]
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                self._heard.wait()
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

    def _close(self, link: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._links.discard(link)
        for end in link:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
