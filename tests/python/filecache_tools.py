"""For the tests of the file cache: other processes, and waiting with a deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

#: Deadline of waits in seconds.
DEADLINE = 30.0


def wait_until(look, what, *, deadline=DEADLINE):
    """Calls `look` until it returns something true, and returns that."""
    end = time.monotonic() + deadline
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {deadline} s still not: {what}; last value seen: {value!r}")
        time.sleep(0.005)


class Program:
    """A Python program in a separate process; it prints and reads lines."""

    def __init__(self, code, *args):
        source = "import sys\nfrom redgrease.filecache import *\n" + code
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, *map(os.fspath, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self):
        return self.process.pid

    def expect(self, line):
        """Waits for its next line."""
        said = self.process.stdout.readline()
        if said.rstrip("\n") != line:
            self.process.kill()
            raise AssertionError(f"expected {line!r}, got {said!r} and {self.process.communicate(timeout=DEADLINE)!r}")

    def tell(self, line=""):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def wait(self):
        """Its exit status and its remaining output."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def end(self):
        """Waits until it ends, without an error."""
        code, out, err = self.wait()
        assert code == 0, (code, out, err)
        return out

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(ValueError, OSError):
            self.process.communicate(timeout=DEADLINE)


def in_child(function):
    """Runs a function in a fork of this process; its result as text, or its exception raised here."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        # No return from here: the rest of the test belongs to the parent.
        code = 1
        try:
            os.close(read)
            try:
                answer = f"+{function()}"
                code = 0
            except BaseException as error:
                answer = f"-{type(error).__name__}: {error}"
            os.write(write, answer.encode())
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        end = time.monotonic() + DEADLINE
        os.set_blocking(read, False)
        answer = b""
        while True:
            part = pipe.read()
            if part == b"":
                break
            if part is not None:
                answer += part
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise AssertionError("the forked process did not end")
            time.sleep(0.002)
    os.waitpid(pid, 0)
    text = answer.decode()
    if not text.startswith("+"):
        raise AssertionError(f"the forked process failed: {text or 'it died'}")
    return text[1:]
