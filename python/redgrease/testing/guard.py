"""A process between `LocalServer` and ``redgrease serve``: it stops the server when the process of the tests ends.

If that process is killed, it can do nothing any more. But the pipe to the standard input of this one ends, on every
system; and if processes that the tests have forked keep the pipe open, this one has another parent.

The program is ``python guard.py PARENT SECONDS DIRECTORY COMMAND...``, with the process of the tests, the seconds that
the command has to end, and a directory that is removed if the tests cannot do it. It needs only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

__all__ = ["STOP", "descendants", "kill"]

STOP = b"stop"
"""What the process of the tests sends when it stops the server itself."""
#: Seconds between two looks for the parent of this process.
_LOOK_SECONDS = 1.0


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and theirs, the youngest first."""
    found: list[int] = []
    for children in Path("/proc", str(pid), "task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            for child in map(int, children.read_text().split()):
                found += (*descendants(child), child)
    return found


def kill(pid: int) -> None:
    """Kill a process and its descendants, which are still its own as long as it runs."""
    for each in (*descendants(pid), pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


class _Guard:
    """Runs a command until it ends or the process of the tests does."""

    def __init__(self, parent: int, seconds: float, directory: str, *command: str) -> None:
        self._parent = parent
        self._seconds = seconds
        self._directory = directory
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._is_abandoned = False

    def run(self) -> int:
        """Return the exit status of the command."""
        threading.Thread(target=self._watch, daemon=True).start()
        status = self._child.wait()
        if self._is_abandoned:
            shutil.rmtree(self._directory, ignore_errors=True)
        return status

    def _watch(self) -> None:
        self._is_abandoned = not self._is_told()
        self._child.terminate()
        try:
            self._child.wait(self._seconds)
        except subprocess.TimeoutExpired:
            kill(self._child.pid)

    def _is_told(self) -> bool:
        """Wait until the process of the tests says to stop, or has ended without it."""
        told = b""
        while os.getppid() == self._parent:
            if select.select([0], [], [], _LOOK_SECONDS)[0]:
                data = os.read(0, len(STOP))
                told += data
                if told == STOP or not data:
                    break
        return told == STOP


if __name__ == "__main__":
    sys.exit(_Guard(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]).run())
