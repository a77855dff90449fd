"""Plays the server for one real worker process, over a socket pair."""

import contextlib
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import pytest
import redgrease
from redgrease import _native

import packaging

from . import frames

WAIT = 10.0


#: An interpreter of another version for the workers of these tests; default: that of the tests.
OTHER_PYTHON = "REDGREASE_WORKER_PYTHON"


#: For tests that exchange compiled code with the worker.
same_version = pytest.mark.skipif(OTHER_PYTHON in os.environ, reason="the worker has another version of Python")


def worker_command():
    """The command that starts a worker, as the server's module starts it."""
    other = os.environ.get(OTHER_PYTHON)
    if not other:
        return [sys.executable, "-m", "redgrease.worker"]
    places = [
        f"{package.__name__}={Path(package.__file__).parents[1]}" for package in (redgrease, cloudpickle, packaging)
    ]
    launcher = Path(redgrease.__file__).parent / "worker" / "launch.py"
    return [other, launcher, ":".join(places), "redgrease.worker"]


class Server:
    """A worker process and the other end of its socket.

    ``commands`` maps a command's name (lower case) to a function of its arguments (bytes); an exception is the reply.
    """

    def __init__(self, threads=1, commands=None, env=None, cwd=None, **hello):
        ours, theirs = socket.socketpair()
        self.socket = ours
        ours.sendall(b"S")  # no shared memory
        self.process = subprocess.Popen(
            [*worker_command(), "--fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.commands = {"get": lambda key: b"value of " + key, "ping": lambda: "PONG", **(commands or {})}
        self.frames = []
        self.calls = []
        self.plans = {}
        self.specs = {}
        self._changed = threading.Condition()
        self._numbers = iter(range(1, 1 << 60))
        self._sending = threading.Lock()
        self.held = queue.Queue()
        threading.Thread(target=self._receive, daemon=True).start()
        self.send(frames.hello(threads=threads, **hello))
        self.wait_for("ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT)
        self.socket.close()
        self.process.stdout.close()
        self.process.stderr.close()

    # ---- frames ----

    def send(self, data):
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def _receive(self):
        buffer = bytearray()
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                with self._changed:
                    self._changed.notify_all()
                return
            buffer += data
            while len(buffer) >= 4:
                (length,) = struct.unpack_from("<I", buffer)
                if len(buffer) < 4 + length:
                    break
                frame = frames.parse(bytes(buffer[4 : 4 + length]))
                del buffer[: 4 + length]
                frame["at"] = time.monotonic()
                if frame["kind"] == "call":
                    self._answer(frame)
                    continue
                self._store(frame)

    def _store(self, frame):
        with self._changed:
            self.frames.append(frame)
            self._changed.notify_all()

    def _answer(self, frame):
        self.calls.append(frame)
        op = frame["op"]
        try:
            if op == "execute":
                name, *args = frame["argv"]
                command = self.commands.get(name.decode().lower())
                if command is None:
                    raise ValueError(f"ERR unknown command '{name.decode()}'")
                value = command(*args)
                if value is Ellipsis:
                    # The test answers itself.
                    self.held.put(frame)
                    return
            elif op in ("run", "register"):
                if frame["plan"] in self.plans:
                    raise ValueError("plan number used twice")
                self.plans[frame["plan"]] = frame
                self.specs[frame["plan"]] = _native.loads(frame["spec"])
                value = f"{op}-{len(self.plans)}"
            elif op == "config":
                value = None
            elif op == "hashtag":
                value = "06S"
            else:
                value = None
        except Exception as error:
            self.send(frames.reply(frame["call"], error=str(error)))
        else:
            self.send(frames.reply(frame["call"], value=encoded(value)))

    def wait_for(self, kind, timeout=WAIT, **fields):
        """The first frame of that kind with these fields; it is removed."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for index, frame in enumerate(self.frames):
                    if frame["kind"] == kind and all(frame[name] == value for name, value in fields.items()):
                        return self.frames.pop(index)
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._changed.wait(0.2)):
                    seen = [(frame["kind"], frame.get("exec")) for frame in self.frames][-20:]
                    raise AssertionError(
                        f"no {kind} {fields} came within {timeout} s; worker: {self.process.poll()}; seen: {seen}"
                        + self._stderr()
                    )
                self._changed.wait(left)

    def _stderr(self):
        if self.process.poll() is None:
            return ""
        return "\n" + self.process.stderr.read().decode(errors="replace")

    # ---- what tests do ----

    def script(self, source, session=1, **options):
        """Run a script; its ScriptDone."""
        request = next(self._numbers)
        source = source if isinstance(source, bytes) else source.encode()
        self.send(frames.script(request, session, source, **options))
        return self.wait_for("script_done", request=request)

    def plan(self, source, session=1, **options):
        """Run a script that runs or registers once; the number of its plan."""
        before = set(self.plans)
        done = self.script(source, session, **options)
        assert done["error"] is None, done["error"]
        (plan,) = set(self.plans) - before
        return plan

    def start(self, plan, values=(), **options):
        """Start an execution; its number."""
        exec_ = next(self._numbers)
        self.send(frames.start(exec_, plan, [encoded(value) for value in values], **options))
        return exec_

    def feed(self, exec_, values, last):
        self.send(frames.feed(exec_, [encoded(value) for value in values], last))

    def done(self, exec_, timeout=WAIT):
        """Results and errors of an execution, and its Done frame."""
        frame = self.wait_for("done", exec=exec_, timeout=timeout)
        results = []
        while True:
            try:
                results += decoded(self.wait_for("output", exec=exec_, timeout=0)["records"])
            except AssertionError:
                break
        results += decoded(frame["records"])
        return results, [error.decode() for error in frame["errors"]], frame

    def run(self, source, values=(), flags=frames.LAST | frames.TRACEBACK | frames.TAGGED, **options):
        """Build a plan, run it over these records; results and errors."""
        plan = self.plan(source, **options)
        return self.done(self.start(plan, values, flags=flags))[:2]


class Encoded(bytes):
    """A value that is encoded already."""


def encoded(value):
    return bytes(value) if isinstance(value, Encoded) else _native.dumps(value)


def decoded(counted):
    count, data = counted
    # A list's head makes one value of the records.
    return _native.loads(b"\x09" + frames.varint(count) + data, allow_pickle=True)
