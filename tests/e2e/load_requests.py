"""Requests of the load tests: sending and counting them, finding violations, and the server that may be killed."""

from __future__ import annotations

import ast
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .resp import Err, Reply, RespConnection
from .servers import DidNotStartError, Server

#: A reply that takes longer is a violation: no client may wait forever.
REQUEST_DEADLINE_S = 30.0
#: After this many violations the load stops.
VIOLATIONS_MAX = 20

#: First words of errors that a request may be answered with while workers die and clients are paused. Any other error
#: is a violation.
WORKER_ERRORS = frozenset({"WORKERDIED", "WORKERDOWN", "WORKERBUSY", "LOADING"})


@dataclass
class Violation:
    """Something that must not happen."""

    at: float
    what: str


def _print_now(line: str) -> None:
    print(line, flush=True)


class Findings:
    """The violations of a run, printed as they are found."""

    def __init__(self, seed: str, say: Callable[[str], None] = _print_now) -> None:
        self.seed = seed
        self.began = time.monotonic()
        self.violations: list[Violation] = []
        self.too_many = threading.Event()
        self._say = say
        self._lock = threading.Lock()

    def add(self, what: str) -> None:
        with self._lock:
            at = time.monotonic() - self.began
            self.violations.append(Violation(at, what))
            self._say(f"VIOLATION (seed {self.seed}, after {at:.1f} s): {what}")
            if len(self.violations) >= VIOLATIONS_MAX:
                self.too_many.set()


@dataclass
class KindTally:
    """Requests of one kind."""

    requests: int = 0
    answered: int = 0
    broken: int = 0
    longest_s: float = 0.0
    total_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: KindTally) -> None:
        self.requests += other.requests
        self.answered += other.answered
        self.broken += other.broken
        self.total_s += other.total_s
        self.longest_s = max(self.longest_s, other.longest_s)
        self.errors += other.errors


class Tally(dict[str, KindTally]):
    """Requests by kind."""

    def __missing__(self, kind: str) -> KindTally:
        self[kind] = KindTally()
        return self[kind]

    def add(self, other: Tally) -> None:
        for kind, row in other.items():
            self[kind].add(row)

    @property
    def requests(self) -> int:
        return sum(row.requests for row in self.values())

    @property
    def longest_s(self) -> float:
        return max((row.longest_s for row in self.values()), default=0.0)

    def table(self) -> str:
        """Requests by kind, with the longest wait and errors by their first word."""
        lines = [f"{'kind':<22} {'requests':>9} {'answered':>9} {'broken':>7} {'mean ms':>8} {'longest s':>9}  errors"]
        for kind, row in sorted(self.items()):
            errors = ", ".join(f"{word} {count}" for word, count in row.errors.most_common())
            mean = row.total_s / max(row.answered, 1) * 1000
            lines.append(
                f"{kind:<22} {row.requests:>9} {row.answered:>9} {row.broken:>7} {mean:>8.1f} {row.longest_s:>9.2f}"
                f"  {errors}"
            )
        return "\n".join(lines)


class Life:
    """The server under load, which may be killed on purpose and started again."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kills = 0
        self.up = threading.Event()
        self.up.set()

    def kill_and_start(self) -> float:
        """Kill -9, and start on the same directory and port; the seconds until it had loaded its data."""
        self.up.clear()
        self.kills += 1
        self.server.kill()
        began = time.monotonic()
        for attempt in range(5):
            try:
                self.server.start_again()
                break
            except DidNotStartError as reason:
                # Another program may have used the port for an outgoing connection.
                if attempt == 4 or "Address already in use" not in str(reason):
                    raise
                time.sleep(0.5)
        self.up.set()
        return time.monotonic() - began


class BrokenError(Exception):
    """The connection broke before the answer, because the server was killed."""


class Asker:
    """Sends requests over one connection, connects again after the server was killed, and keeps count."""

    def __init__(self, life: Life, findings: Findings, name: str) -> None:
        self.life = life
        self.findings = findings
        self.name = name
        self.tally = Tally()
        self._connection: RespConnection | None = None
        #: Kills of the server before this connection was made.
        self._kills = life.kills

    def ask(self, kind: str, *command: object, allowed: Iterable[str] = WORKER_ERRORS) -> Reply:
        """The reply to a command. Errors whose first word is not allowed are violations."""
        [reply] = self.ask_many(kind, [command], allowed=allowed)
        return reply

    def ask_many(
        self, kind: str, commands: Sequence[Sequence[object]], *, allowed: Iterable[str] = WORKER_ERRORS
    ) -> list[Reply]:
        """The replies to commands that are sent at once. Raises `BrokenError`, with the replies that arrived."""
        row = self.tally[kind]
        row.requests += 1
        self.life.up.wait(REQUEST_DEADLINE_S)
        began = time.monotonic()
        replies: list[Reply] = []
        try:
            connection = self._connect()
            for command in commands:
                connection.send(*command)  # type: ignore[arg-type]
            replies.extend(connection.read() for _ in commands)
        except TimeoutError:
            self.findings.add(
                f"{self.name}: no answer within {REQUEST_DEADLINE_S:.0f} s (REQUEST_DEADLINE_S): "
                f"{kind} {shortened(commands)}"
            )
            self._broke(row)
            raise BrokenError(replies) from None
        except OSError as error:
            self._broke(row)
            if self._kills == self.life.kills:
                # A kill is counted before it happens, so this server was not killed.
                self.findings.add(
                    f"{self.name}: the connection broke without a kill ({error!r}): {kind} {shortened(commands)}"
                )
                time.sleep(0.2)
            raise BrokenError(replies) from None
        finally:
            took = time.monotonic() - began
            row.longest_s = max(row.longest_s, took)
            row.total_s += took
        row.answered += 1
        for command, reply in zip(commands, replies):
            self._check_errors(kind, command, _errors_of(reply), allowed)
        return replies

    def _connect(self) -> RespConnection:
        if self._kills != self.life.kills:
            self.close()
        if self._connection is None:
            self._kills = self.life.kills
            self._connection = RespConnection(self.life.server.port, timeout=REQUEST_DEADLINE_S)
        return self._connection

    def _broke(self, row: KindTally) -> None:
        row.broken += 1
        self.close()

    def _check_errors(self, kind: str, command: Sequence[object], errors: list[str], allowed: Iterable[str]) -> None:
        for error in errors:
            word = first_word(error)
            self.tally[kind].errors[word] += 1
            if word not in allowed:
                self.findings.add(f"{self.name}: unexpected error of {kind}: {error!r}, command {shortened(command)}")

    def abandon(self, kind: str, *command: object) -> None:
        """Send a command on another connection, and close it at once."""
        row = self.tally[kind]
        row.requests += 1
        try:
            with RespConnection(self.life.server.port, timeout=REQUEST_DEADLINE_S) as connection:
                connection.send(*command)  # type: ignore[arg-type]
        except OSError:
            row.broken += 1

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def shortened(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]}..."


def first_word(error: str) -> str:
    return (error.split() or ["(empty)"])[0]


def _errors_of(reply: Reply) -> list[str]:
    """The text of an error, or of the errors in the reply of a run."""
    if isinstance(reply, Err):
        return [_without_traceback(reply.text)]
    if isinstance(reply, list) and len(reply) == 2 and all(isinstance(part, list) for part in reply):
        return [_without_traceback(each.decode("utf-8", "replace")) for each in reply[1] if isinstance(each, bytes)]
    return []


def _without_traceback(error: str) -> str:
    """The exception, where an error is a list of lines in the form of RedisGears; other errors as they are."""
    if not error.startswith("['"):
        return error
    lines = ast.literal_eval(error)
    return str(lines[-1]).strip()
