"""The program `redgrease` that loads scripts, as a user runs it: once, or watching."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .waiting import wait_until

REDGREASE = Path(sys.executable).parent / "redgrease"
#: Seconds without changes before a file is loaded again, in most tests.
DELAY = 0.1


def clean_environment() -> dict[str, str]:
    """The environment without variables that the loader reads."""
    old = {"PORT", "SERVER", "WATCH", "IGNORE", "CONFIG_FILE", "RECURSIVE"}
    prefixes = ("REDGREASE_", "REDISCLI_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes) and key not in old}


def command(name: str, answer: object) -> str:
    """A script that registers a command with this answer."""
    return f"GB('CommandReader').map(lambda _: {answer!r}).register(trigger={name!r})\n"


class Watching:
    """A running `redgrease --watch`, and the lines of its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, *, count: int = 1, deadline: float = 20.0) -> None:
        """Wait until the log has so many lines with this text."""

        def seen() -> tuple[int, str]:
            assert self.process.poll() is None or self._reader.is_alive() or text in self.log(), self.log()
            return sum(text in line for line in list(self.lines)), self.log()

        wait_until(seen, f"the log has {count} x {text!r}", until=lambda found: found[0] >= count, deadline=deadline)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop it, and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        self._reader.join(20)
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        self._reader.join(20)
        assert self.process.stderr is not None
        self.process.stderr.close()


class Loading:
    """A directory with scripts, and the program that loads them into a server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.resolve()
        self.scripts = self.folder / "scripts"
        self.scripts.mkdir()
        self.port = port
        self.environment = clean_environment()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the directory, in place."""
        path = self.scripts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def words(self, *args: object) -> list[str]:
        return [str(REDGREASE), "--port", str(self.port), *map(str, args)]

    def run(self, *args: object, code: int = 0, at_port: bool = True, cwd: Path | None = None, **variables: str) -> str:
        """Run the program once, and return what it printed to standard error."""
        words = self.words(*args) if at_port else [str(REDGREASE), *map(str, args)]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd or self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, (done.returncode, done.stderr)
        assert done.stdout == ""
        return done.stderr

    @contextmanager
    def watch(self, *args: object, delay: float | None = DELAY, **variables: str) -> Iterator[Watching]:
        """Run the program with ``--watch`` (without it, if `delay` is `None`), and wait until it watches."""
        paths = args or (self.scripts,)
        option = [] if delay is None else [f"--watch={delay}"]
        process = subprocess.Popen(
            self.words(*option, *paths),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env={**self.environment, **variables},
        )
        watching = Watching(process)
        try:
            watching.wait_for("watching;")
            yield watching
        finally:
            watching.end()

    def index_key(self, path: Path, prefix: str = "/redgrease/scripts") -> str:
        return f"{prefix}{path}"


def seconds_until(look: Callable[[], object], expected: object, deadline: float = 20.0) -> float:
    """How long it takes until `look()` returns the expected value."""
    started = time.monotonic()
    wait_until(look, f"it is {expected!r}", until=lambda value: value == expected, deadline=deadline)
    return time.monotonic() - started


def fields(mapping: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in mapping.items()}
