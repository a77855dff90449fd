"""The program `redgrease` for tests, run as a user would: with its output in pipes, or in a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import redis

from .servers import MODULE, free_port
from .waiting import NotInTimeError

REDGREASE = Path(sys.executable).parent / "redgrease"


class Cli:
    """Runs the command with its own state folder, and stops every server that it started."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.folder = folder
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("REDGREASE_", "REDISCLI_"))}
        self.env = {**clean, "REDGREASE_STATE_DIR": str(self.state), "REDGREASE_MODULE": str(MODULE)}
        self.foreground: list[subprocess.Popen[str]] = []

    def run(self, *args: object, code: int | None = 0, input: bytes = b"", **env: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [REDGREASE, *map(str, args)], input=input, capture_output=True, timeout=60, env={**self.env, **env}
        )
        assert code is None or done.returncode == code, f"{args}: {done}"
        return done

    def fails(self, *args: object, code: int = 1, **env: str) -> str:
        """Run a command that must fail with empty stdout, and return its stderr."""
        done = self.run(*args, code=code, **env)
        assert done.stdout == b"", done
        return done.stderr.decode()

    def serve(self, *args: object, port: int | None = None) -> int:
        """Start a server in the background and return its port."""
        port = port or free_port()
        said = self.run("serve", "--background", "--port", port, *args)
        assert len(said.stdout.splitlines()) == 1, said
        return port

    def serve_here(self, *args: object) -> tuple[subprocess.Popen[str], int]:
        """Start a server in the foreground, and return when it has printed how to connect."""
        port = free_port()
        command = [REDGREASE, "serve", "--port", str(port), *map(str, args)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=self.env
        )
        self.foreground.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"redis://127.0.0.1:{port}" in line, (line, process.poll())
        return process, port

    def call(self, port: int, *args: object) -> bytes:
        return self.run("call", "--port", port, *args).stdout

    def servers(self) -> list[dict]:
        return [json.loads(path.read_text()) for path in self.state.glob("server-*/server.json")]

    def stop_all(self) -> None:
        for process in self.foreground:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=20)
        for record in self.servers():
            self.run("stop", "--port", record["port"], code=None)
        assert [record for record in self.servers() if is_running(record["pid"])] == []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def server_pid(port: int) -> int:
    with redis.Redis(port=port) as client:
        return int(client.info("server")["process_id"])


class Terminal:
    """The program in a pseudo-terminal, with what it has shown so far."""

    def __init__(self, cli: Cli, *args: object, rows: int = 24, columns: int = 100, **env: str) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (rows, columns))
        environment = {**cli.env, "TERM": "xterm-256color", **env}
        line = [REDGREASE, *map(str, args)]
        # A session of its own, so that Ctrl-C of this terminal reaches it.
        self.process = subprocess.Popen(
            line, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True, preexec_fn=_take
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, what: str | Callable[[str], object], deadline: float = 20.0) -> str:
        """Return what was shown when it contains a text, or satisfies a condition."""
        found = (lambda shown: what in shown) if isinstance(what, str) else what
        end = time.monotonic() + deadline
        while not found(self.shown):
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            if not ready or not self._read():
                raise NotInTimeError(f"{what!r} was not shown, but: {self.shown!r}")
        return self.shown

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self, code: int = 0, deadline: float = 20.0) -> str:
        """Wait for the end; all that was shown, without escape sequences."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            ready, _, _ = select.select([self._master], [], [], 0.1)
            if ready and not self._read():
                break
        assert self.process.wait(max(0.1, end - time.monotonic())) == code, self.shown
        self.close()
        return plain(self.shown)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        with contextlib.suppress(OSError):
            os.close(self._master)

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


def _take() -> None:
    """Make the terminal on stdin that of the new session."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def plain(shown: str) -> str:
    """What a terminal was sent, without escape sequences."""
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])", "", shown).replace("\r\n", "\n")


_SEQUENCES = re.compile(r"(\x1b\[([0-9;?]*)[A-Za-z]|\x1b[()=>][A-Z0-9]?)|(.)", re.DOTALL)


def screen(shown: str) -> str:
    """The screen after a program has drawn on it by moving the cursor, as full-screen programs do."""
    cells: dict[tuple[int, int], str] = {}
    row = column = 1
    for escape, position, character in _SEQUENCES.findall(shown):
        if character:
            cells[row, column] = character
            column += 1
        elif escape.endswith("H"):
            row, column = map(int, position.split(";")) if position else (1, 1)
        elif escape.endswith("J"):
            cells.clear()
    rows = range(1, max((row for row, _ in cells), default=0) + 1)
    width = max((column for _, column in cells), default=0)
    return "\n".join("".join(cells.get((row, column), " ") for column in range(1, width + 1)).rstrip() for row in rows)


def has_colour(shown: str) -> bool:
    return re.search(r"\x1b\[[0-9;]*m", shown) is not None
