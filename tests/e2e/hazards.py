"""For the tests of hazards: a scenario runs on our cache, where it must hold, and on the naive one, where it must not.

A scenario gets a `World` and checks its conditions with `expect` and `World.expect_soon`, which raise `HazardError`.
`hazard` runs it twice. On the naive cache the test passes only if the scenario ends in a `HazardError`: any other
error, and a scenario that succeeds there, is a failure, so every scenario is shown to be able to fail.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from . import syscalls
from .caching import clean_environment, plain_server
from .contenders import KINDS, Contender, Naive, Ours
from .proxy import Proxy
from .servers import Server
from .syscalls import Gate
from .waiting import NotInTimeError, wait_until

HERE = Path(__file__).resolve().parent
MEMORY = Path("/dev/shm")
#: Seconds until the lease (or the lock in the naive cache) of a dead or stopped holder expires.
LEASE = 0.4
#: A longer lease, which other processes can observe, and which must not expire because the machine is busy.
LIVE = 1.5
#: A lease that does not expire during a test: the default.
LONG = 60.0
#: Deadline in seconds for a condition that must become true.
DEADLINE = 30.0
#: Deadline for the same on the naive cache, where it does not become true.
NAIVE_DEADLINE = 1.2


class HazardError(AssertionError):
    """A condition that must always hold was violated."""


def expect(holds: object, what: str) -> None:
    """`what` is the condition."""
    if not holds:
        raise HazardError(f"does not hold: {what}")


def hazard(scenario: Callable[..., None]) -> Callable[..., None]:
    """Runs the scenario on both caches."""

    @pytest.mark.parametrize("world", ["ours", "naive"], ids=["holds", "naive-fails"], indirect=True)
    @functools.wraps(scenario)
    def test(world: World, **more: Any) -> None:
        if world.ours:
            scenario(world=world, **more)
            return
        with pytest.raises(HazardError) as seen:
            scenario(world=world, **more)
        print("seen on the naive cache:", seen.value)

    return test


def ours_only(scenario: Callable[..., None]) -> Callable[..., None]:
    """Runs the scenario on our cache alone."""
    mark = pytest.mark.parametrize("world", ["ours"], ids=["holds"], indirect=True)
    return mark(scenario)


class Program:
    """A process with its own cache that runs a piece of code; see `contenders.main`."""

    def __init__(
        self,
        what: dict[str, Any],
        *,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, str(HERE / "contenders.py"), json.dumps(what)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**clean_environment(), **(environment or {})},
            cwd="/",
            # It is a process group with its children, which ends as a whole.
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._out = self.process.stdout.fileno()
        self._heard = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self, deadline: float = DEADLINE) -> str:
        """Its next line; empty when it has ended."""
        end = time.monotonic() + deadline
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._out], [], [], max(end - time.monotonic(), 0))
            assert ready, f"the process said nothing for {deadline} s"
            part = os.read(self._out, 1 << 16)
            if not part:
                break
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def has_spoken(self) -> bool:
        return bool(self._heard or select.select([self._out], [], [], 0)[0])

    def expect(self, line: str) -> None:
        heard = self.hear()
        assert heard == line, f"the process said {heard!r}, not {line!r}"

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def outcome(self) -> str:
        """Its last line: `done`, or `!` and the error."""
        said = self.hear()
        self.process.wait(DEADLINE)
        return said

    def stop(self) -> None:
        """Sends SIGSTOP, and waits until it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self._state() == "T", "the process is stopped", deadline=DEADLINE)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError, OSError):
            self.process.communicate(timeout=DEADLINE)

    def _state(self) -> str:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "?"


@dataclass
class World:
    """The caches, processes, servers and folders of a test; everything ends with the test."""

    kind: str
    server: Server
    namespace: str
    root: Path
    _ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _programs: list[Program] = field(default_factory=list)
    _proxies: list[Proxy] = field(default_factory=list)

    @property
    def ours(self) -> bool:
        return self.kind == "ours"

    def pick(self, ours: Any, naive: Any) -> Any:
        return ours if self.ours else naive

    @property
    def directory(self) -> Path:
        return self.root / "cache"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server.port}/0"

    def expect_soon(self, look: Callable[[], object], what: str, naive_deadline: float = NAIVE_DEADLINE) -> None:
        """The condition must become true; on the naive cache the deadline is shorter."""
        try:
            wait_until(look, what, deadline=DEADLINE if self.ours else naive_deadline)
        except NotInTimeError as error:
            raise HazardError(str(error)) from None

    def redis(self, server: Server | None = None) -> Any:
        client = (server or self.server).client()
        self._ends.callback(client.close)
        return client

    # -- caches and processes

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"namespace": self.namespace, "lease": LONG, **options}

    def open(self, *, url: str | None = "", directory: Path | None = None, **options: Any) -> Contender:
        """A cache with its own session."""
        url = self.url if url == "" else url
        cache = KINDS[self.kind](directory or self.directory, url, **self.options(options))
        self._ends.callback(self._close, cache)
        return cache

    @staticmethod
    def _close(cache: Ours | Naive) -> None:
        with contextlib.suppress(Exception):
            cache.close()

    def program(
        self,
        code: str,
        *,
        url: str | None = "",
        directory: Path | None = None,
        gate: Gate | None = None,
        families: Sequence[str] = (),
        from_start: bool = False,
        before: Sequence[str] = (),
        user: tuple[int, int] | None = None,
        trusted: Path | None = None,
        **options: Any,
    ) -> Program:
        """Start a process that opens the cache and runs this.

        A gate controls these calls: of the threads that exist or start after opening, or, with `from_start`, of all.
        `user`: runs as this user, in this group only. `trusted`: additional trusted certificates.
        """
        what = {
            "kind": self.kind,
            "directory": str(directory or self.directory),
            "url": self.url if url == "" else url,
            "options": self.options(options),
            "code": code,
            "gate": None if gate is None else gate.path,
            "families": list(families),
            "from_start": from_start,
            "user": user,
        }
        if user is not None and os.geteuid() != 0:
            pytest.skip("acting as another user needs root")
        environment = {} if trusted is None else {"SSL_CERT_FILE": str(trusted)}
        program = Program(what, before=before, environment=environment)
        self._programs.append(program)
        return program

    def gate(self) -> Gate:
        """A failpoint at a system call of a program."""
        reason = _no_gates()
        if reason:
            pytest.skip(reason)
        gate = Gate(str(self.root / f"gate-{time.monotonic_ns()}"))
        self._ends.callback(gate.close)
        return gate

    def proxy(self, server: Server | None = None) -> Proxy:
        proxy = Proxy((server or self.server).port)
        self._ends.callback(proxy.close)
        self._proxies.append(proxy)
        return proxy

    def own_server(self, **conf: Any) -> Server:
        """A server for this test alone."""
        server = plain_server(**conf)
        self._ends.callback(server.kill_and_clean)
        return server

    # -- the disk

    def folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        return path

    def part(self, name: str) -> World:
        """The same for another cache."""
        return replace(self, root=self.folder(name), namespace=f"{self.namespace}-{name}")

    def small_disk(self, size: str) -> Path:
        """A separate file system of this size."""
        path = self.folder("disk")
        if os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", path], capture_output=True, text=True
        )
        if mounted.returncode != 0:
            pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
        self._ends.callback(subprocess.run, ["umount", "-l", path], check=True)
        return path

    def published(self, key: str = "", directory: Path | None = None) -> list[Path]:
        """Files that are content of a key, or of any."""
        directory = directory or self.directory
        if self.ours:
            found = directory.glob(f"files/*/{key}~*" if key else "files/*/*~*")
            return sorted(path for path in found if path.suffix != ".meta")
        found = [path for path in directory.glob(key or "*") if not path.name.startswith(".")]
        return sorted(path for path in found if path.name != "CACHE")

    def temporaries(self) -> list[Path]:
        return sorted(self.directory.glob(self.pick("temporary/*", ".*")))

    def disk_bytes(self) -> int:
        """Total size of all files that are content or will be."""
        total = 0
        for path in [*self.published(), *self.temporaries()]:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.heal()
        for program in self._programs:
            program.close()
        self._ends.close()


@functools.cache
def _no_gates() -> str:
    return syscalls.unavailable()


def new_folder() -> Path:
    """A folder in memory that other users may enter."""
    path = Path(tempfile.mkdtemp(prefix="redgrease-hazards-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    path.chmod(0o755)
    return path


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
