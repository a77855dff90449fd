"""The main fixture object of a test: a server, a client, and short methods for frequent operations."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread

import redis

from .resp import RespConnection
from .servers import Server, ServerKind
from .waiting import wait_until


def text(value: object) -> object:
    """Bytes as text (undecodable ones escaped), in lists too; everything else as it is."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return [text(v) for v in value]
    return value


def flat_map(items: list) -> dict[str, object]:
    """A flattened map of a reply as a dict with text keys and values."""
    names = [str(text(k)) for k in items[::2]]
    return dict(zip(names, [text(v) for v in items[1::2]]))


@dataclass
class Execution:
    id: str
    status: str
    registered: bool


@dataclass
class Registration:
    """A line of RG.DUMPREGISTRATIONS, with its nested maps opened."""

    id: str
    reader: str
    desc: str | None
    data: dict[str, object]
    args: dict[str, object]
    pd: str
    pool: str
    positions: list = field(repr=False, default_factory=list)

    def __getattr__(self, name: str) -> object:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


class Database:
    """A server with helpers for tests."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.r = server.client()
        self._opened: list[redis.Redis | RespConnection] = [self.r]

    @property
    def kind(self) -> ServerKind:
        return self.server.kind

    @property
    def shards(self) -> int:
        """The number of shards."""
        return 1

    def close(self) -> None:
        for connection in self._opened:
            connection.close()

    # -- connections

    def client(self, **options: object) -> redis.Redis:
        """Another redis-py client, closed with the test."""
        client = self.server.client(**options)
        self._opened.append(client)
        return client

    def wire(self, **options: bool) -> RespConnection:
        """A bare RESP connection, closed with the test."""
        connection = RespConnection(self.server.port, **options)
        self._opened.append(connection)
        return connection

    # -- RG.PYEXECUTE

    def execute(self, script: str | bytes, *options: object) -> object:
        """RG.PYEXECUTE as redis-py answers it."""
        return self.r.execute_command("RG.PYEXECUTE", script, *options)

    def run(self, script: str | bytes, *options: object) -> tuple[list, list[str]]:
        """Run a script that ends with `run`; results and errors as text."""
        reply = self.execute(script, *options)
        assert isinstance(reply, list) and len(reply) == 2, f"not a pair of results and errors: {reply!r}"
        results, errors = reply
        return text(results), text(errors)  # type: ignore[return-value]

    def results(self, script: str | bytes, *options: object) -> list:
        """Run a script and check that it had no errors."""
        results, errors = self.run(script, *options)
        assert errors == []
        return results

    def errors(self, script: str | bytes, *options: object) -> list[str]:
        """Run a script and check that it had at least one error."""
        results, errors = self.run(script, *options)
        assert errors, f"no error, but results {results!r}"
        return errors

    def ok(self, script: str, *options: object) -> None:
        """Run a script that is answered with OK: one that registers, or does nothing."""
        assert self.execute(script, *options) == b"OK"

    def refused(self, script: str | bytes, *options: object) -> str:
        """Run a script that is answered with an error; returns the error's text."""
        try:
            reply = self.execute(script, *options)
        except redis.ResponseError as error:
            return str(error)
        raise AssertionError(f"an error was expected, but the reply was {reply!r}")

    def failure(self, script: str, *options: object) -> str:
        """The error of a script, as an error reply or in the list of errors."""
        try:
            reply = self.execute(script, *options)
        except redis.ResponseError as error:
            return str(error)
        assert isinstance(reply, list) and reply[1], f"an error was expected, but the reply was {reply!r}"
        return "\n".join(str(e) for e in text(reply[1]))  # type: ignore[attr-defined]

    def start(self, script: str) -> str:
        """Run a script UNBLOCKING; the id of its execution."""
        reply = self.execute(script, "UNBLOCKING")
        assert isinstance(reply, bytes), f"not an execution id: {reply!r}"
        return reply.decode()

    # -- other commands

    def trigger(self, name: str, *args: object) -> list:
        return text(self.r.execute_command("RG.TRIGGER", name, *args))  # type: ignore[return-value]

    def trigger_refused(self, name: str, *args: object) -> str:
        try:
            reply = self.r.execute_command("RG.TRIGGER", name, *args)
        except redis.ResponseError as error:
            return str(error)
        raise AssertionError(f"an error was expected, but the reply was {reply!r}")

    def executions(self) -> list[Execution]:
        reply = self.r.execute_command("RG.DUMPEXECUTIONS")
        rows = [flat_map(row) for row in reply]
        return [Execution(str(r["executionId"]), str(r["status"]), bool(r["registered"])) for r in rows]

    def status(self, execution_id: str) -> str | None:
        return next((e.status for e in self.executions() if e.id == execution_id), None)

    def wait_status(self, execution_id: str, *wanted: str, deadline: float = 10.0) -> str:
        seen = wait_until(
            lambda: self.status(execution_id),
            f"execution {execution_id} is {' or '.join(wanted)}",
            until=lambda status: status in wanted,
            deadline=deadline,
        )
        assert seen is not None
        return seen

    def registrations(self) -> list[Registration]:
        found = []
        for row in self.r.execute_command("RG.DUMPREGISTRATIONS"):
            entry = flat_map(row)
            raw = row[row.index(b"RegistrationData") + 1]
            data = flat_map(raw)
            args = data.pop("args")
            assert isinstance(args, list)
            found.append(
                Registration(
                    id=str(entry["id"]),
                    reader=str(entry["reader"]),
                    desc=entry["desc"],  # type: ignore[arg-type]
                    data=data,
                    args=dict(zip(args[::2], args[1::2])),
                    pd=str(entry["PD"]),
                    pool=str(entry["ExecutionThreadPool"]),
                    positions=[text(v) for v in row],
                )
            )
        return found

    def registration(self) -> Registration:
        """The only registration."""
        found = self.registrations()
        assert len(found) == 1, f"exactly one registration expected: {found!r}"
        return found[0]

    def unregister(self, registration_id: str, *options: str) -> object:
        return self.r.execute_command("RG.UNREGISTER", registration_id, *options)

    # -- waiting

    def wait_value(self, key: str, wanted: object, *, deadline: float = 10.0) -> None:
        """Wait until a string key has this value (compared as text)."""
        expected = None if wanted is None else str(wanted)
        wait_until(
            lambda: text(self.r.get(key)),
            f"key {key!r} is {expected!r}",
            until=lambda value: value == expected,
            deadline=deadline,
        )

    def wait_key(self, key: str, *, deadline: float = 10.0) -> str:
        """Wait until a string key exists; its value as text."""
        return str(wait_until(lambda: text(self.r.get(key)), f"key {key!r} exists", deadline=deadline))

    def wait_log(self, fragment: str, *, deadline: float = 10.0) -> str:
        """Wait until a line with this fragment is in the server's log of this test; the line."""

        def look() -> str:
            lines = [line for line in self.server.new_log().splitlines() if fragment in line]
            return lines[-1] if lines else ""

        return wait_until(look, f"a log line with {fragment!r}", deadline=deadline)

    def wait_quiet(self, *, deadline: float = 10.0) -> None:
        """Wait until no execution is in progress."""
        wait_until(
            lambda: [e for e in self.executions() if e.status not in ("done", "aborted")],
            "all executions are finished",
            until=lambda left: not left,
            deadline=deadline,
        )

    @contextmanager
    def pinging(self) -> Iterator[PingLoop]:
        """A PING loop during the block, on its own connection."""
        loop = PingLoop(self.server.client())
        loop.begin()
        try:
            yield loop
        finally:
            loop.end()

    @contextmanager
    def longest_ping(self) -> Iterator[LongestPing]:
        """The longest wait for a PING during the block, measured by a separate process."""
        longest = LongestPing()
        port = str(self.server.port)
        with subprocess.Popen(
            [sys.executable, "-c", PING_PROGRAM, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as pinger:
            assert pinger.stdout is not None and pinger.stdin is not None
            assert pinger.stdout.readline() == "ready\n"
            try:
                yield longest
            finally:
                pinger.stdin.close()
                longest.ms = float(pinger.stdout.readline())

    # -- cleaning up between tests

    def reset(self) -> None:
        """Reset the server without restarting it, through its own commands only."""
        r = self.r
        r.execute_command("CLIENT", "UNPAUSE")
        for registration in r.execute_command("RG.DUMPREGISTRATIONS"):
            r.execute_command("RG.UNREGISTER", registration[1], "ABORTPENDING")
        wait_until(self._drop_executions, "all executions can be aborted and dropped", until=lambda left: not left)
        for user in r.acl_list():
            name = str(text(user)).split()[1]
            if name != "default":
                r.execute_command("ACL", "DELUSER", name)
        r.execute_command("SCRIPT", "FLUSH")
        r.flushall()

    def _drop_executions(self) -> list[Execution]:
        for execution in self.executions():
            for command in ("RG.ABORTEXECUTION", "RG.DROPEXECUTION"):
                # It may still be ending, or has just ended; the next poll decides.
                with suppress(redis.ResponseError):
                    self.r.execute_command(command, execution.id)
        return self.executions()


#: Sends PING after PING until its standard input ends; prints the longest wait in milliseconds.
PING_PROGRAM = """
import select, socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print("ready", flush=True)
longest = 0.0
while not select.select([sys.stdin], [], [], 0.0005)[0]:
    began = time.perf_counter()
    connection.sendall(b"PING\\r\\n")
    assert connection.recv(64) == b"+PONG\\r\\n"
    longest = max(longest, time.perf_counter() - began)
print(longest * 1000, flush=True)
"""


@dataclass
class LongestPing:
    """The longest wait for a PING; known when the block has ended."""

    ms: float = float("nan")


@dataclass
class PingLoop:
    """Sends PINGs without pause in its own thread, and records the longest wait and any error."""

    client: redis.Redis
    count: int = 0
    longest_s: float = 0.0
    error: Exception | None = None
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None

    def begin(self) -> None:
        self.client.ping()
        self._thread = Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.client.ping()
            except Exception as error:
                self.error = error
                return
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.count += 1

    def end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(REPLY_JOIN_S)
        self.client.close()

    def assert_never_stalled(self, limit_s: float) -> None:
        assert self.error is None, f"PING failed after {self.count} answers: {self.error!r}"
        assert self.count > 0
        assert self.longest_s < limit_s, f"one of {self.count} PINGs took {self.longest_s:.3f} s"


#: Maximum duration of a PING thread, in seconds.
REPLY_JOIN_S = 30.0
