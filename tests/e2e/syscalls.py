"""Failpoints at system calls of a process: a call is held, fails, or is the last one.

A process installs a filter on itself (`install`, which needs no privilege) and passes the listener on; from then on
the kernel stops it at the listed calls until a `Gate` in the test continues or fails the call, or kills the process. So
the test controls the progress of a process exactly, for any program. Threads that start later inherit the filter.

Linux on x86-64 and 64-bit ARM; elsewhere, and where a sandbox forbids it, `unavailable` gives the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import queue
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

# Numbers on x86-64 and on 64-bit ARM; None: there is no such call.
_NUMBERS = {
    "read": (0, 63),
    "pread64": (17, 67),
    "write": (1, 64),
    "pwrite64": (18, 68),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "getdents64": (217, 61),
}
_MACHINES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}

#: Equivalent calls by family, with their paths: which argument is the directory's descriptor (None: there
#: is none) and which the name (None: only the descriptor counts).
_PLAIN, _BOTH, _AT, _BOTH_AT, _FD = [(None, 0)], [(None, 0), (None, 1)], [(0, 1)], [(0, 1), (2, 3)], [(0, None)]
_FAMILIES: dict[str, dict[str, list[tuple[int | None, int | None]]]] = {
    "rename": {"rename": _BOTH, "renameat": _BOTH_AT, "renameat2": _BOTH_AT, "link": _BOTH, "linkat": _BOTH_AT},
    "unlink": {"unlink": _PLAIN, "unlinkat": _AT},
    "open": {"open": _PLAIN, "openat": _AT, "openat2": _AT},
    "mkdir": {"mkdir": _PLAIN, "mkdirat": _AT},
    "fsync": {"fsync": _FD, "fdatasync": _FD},
    "read": {"read": _FD, "pread64": _FD},
    "write": {"write": _FD, "pwrite64": _FD},
    "truncate": {"ftruncate": _FD},
    "list": {"getdents64": _FD},
}

_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1


def _machine() -> tuple[int, int, int] | None:
    return _MACHINES.get(platform.machine())


def _number(name: str) -> int | None:
    machine = _machine()
    return None if machine is None else _NUMBERS[name][machine[1]]


def install(families: list[str]) -> int:
    """Stop at these calls from now on, in this thread and in those it starts; returns the listener's descriptor."""
    machine = _machine()
    if machine is None:
        raise OSError(errno.ENOSYS, f"no table of system calls for {platform.machine()}")
    numbers = [number for family in families for name in _FAMILIES[family] if (number := _number(name)) is not None]
    ret, jump_equal, load = 0x06, 0x15, 0x20
    allow, notify = 0x7FFF0000, 0x7FC00000
    code = [(load, 0, 0, 4), (jump_equal, 1, 0, machine[0]), (ret, 0, 0, allow), (load, 0, 0, 0)]
    code += [(jump_equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    code += [(ret, 0, 0, allow), (ret, 0, 0, notify)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # no new privileges
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(machine[2], 1, 8, header)
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return int(listener)


def hand_over(families: list[str], path: str) -> None:
    """Install the filter and send the listener to the `Gate` that waits at this socket."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        listener = install(families)
        socket.send_fds(link, [b"x"], [listener])
        os.close(listener)
        link.recv(1)


@dataclass
class Call:
    """One call at which a process is stopped."""

    gate: Gate
    id: int
    #: The calling thread.
    thread: int
    name: str
    family: str
    #: The paths in its arguments, from the root.
    paths: tuple[str, ...]
    answered: bool = False

    def go_on(self) -> None:
        self._answer(0, _CONTINUE)

    def fail(self, number: int) -> None:
        self._answer(-number, 0)

    def _answer(self, error: int, flags: int) -> None:
        if self.answered:
            return
        self.answered = True
        response = bytearray(struct.pack("QqiI", self.id, 0, error, flags))
        # The process may have been killed meanwhile.
        with contextlib.suppress(FileNotFoundError, OSError):
            fcntl.ioctl(self.gate.listener, _NOTIF_SEND, response)


@dataclass
class Gate:
    """The test's end: receives the calls of one process, lets most of them pass and holds the requested ones."""

    path: str
    listener: int = -1
    #: The calls that passed, in order: family and paths.
    log: list[Call] = field(default_factory=list)
    _rules: list[tuple[Callable[[Call], bool], int | None, list[int]]] = field(default_factory=list)
    _held: queue.Queue[Call] = field(default_factory=queue.Queue)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen(1)
        self._stop, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    # -- rules of the test

    def hold(self, family: str, part: str = "", *, times: int = 1, thread: Callable[[int], bool] | None = None) -> None:
        """Stop at the next calls of this family whose path contains `part`; `wait` returns them."""
        self._rule(family, part, None, times, thread)

    def hold_nth(self, part: str, number: int) -> None:
        """Stop at the call with this number, counted from 0, of all whose path contains `part`."""
        left = [number]

        def matches(call: Call) -> bool:
            if any(part in path for path in call.paths):
                left[0] -= 1
                return left[0] == -1
            return False

        with self._lock:
            self._rules.append((matches, None, [1]))

    def fail(self, family: str, number: int, part: str = "", *, times: int = 1) -> None:
        """Make the next calls fail without executing them."""
        self._rule(family, part, number, times, None)

    def _rule(
        self, family: str, part: str, number: int | None, times: int, thread: Callable[[int], bool] | None
    ) -> None:
        def matches(call: Call) -> bool:
            return (
                call.family == family
                and any(part in path for path in call.paths)
                and (thread is None or thread(call.thread))
            )

        with self._lock:
            self._rules.append((matches, number, [times]))

    def wait(self, deadline: float = 20.0) -> Call:
        """The call at which the process is held."""
        try:
            return self._held.get(timeout=deadline)
        except queue.Empty:
            passed = [(call.name, call.paths) for call in self.log[-20:]]
            raise AssertionError(f"the process did not come to the call in {deadline} s; it made {passed}") from None

    def is_holding(self) -> bool:
        return not self._held.empty()

    def close(self) -> None:
        """Let all calls pass."""
        with self._lock:
            self._rules.clear()
        while not self._held.empty():
            self._held.get().go_on()
        os.write(self._wake, b"x")
        self._thread.join()
        for descriptor in (self._stop, self._wake):
            os.close(descriptor)
        self._server.close()
        if self.listener >= 0:
            os.close(self.listener)

    # -- the thread that answers the kernel

    def _serve(self) -> None:
        ready, _, _ = select.select([self._server, self._stop], [], [])
        if self._stop in ready:
            return
        link, _ = self._server.accept()
        with link:
            _, descriptors, _, _ = socket.recv_fds(link, 1, 1)
            if not descriptors:
                return
            self.listener = descriptors[0]
            link.send(b"x")
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            events = dict(poll.poll())
            if self._stop in events or events.get(self.listener, 0) & (select.POLLHUP | select.POLLERR):
                return
            if self.listener in events:
                self._one()

    def _one(self) -> None:
        message = bytearray(80)
        try:
            fcntl.ioctl(self.listener, _NOTIF_RECV, message)
        except OSError:
            # It was killed before its memory was read.
            return
        number, thread = struct.unpack_from("QI", message)
        what, _, _, *arguments = struct.unpack_from("iIQ6Q", message, 16)
        name, family = _names()[what]
        call = Call(self, number, thread, name, family, self._paths(thread, family, name, arguments))
        with self._lock:
            self.log.append(call)
            for rule in self._rules:
                matches, error, times = rule
                if matches(call):
                    times[0] -= 1
                    if times[0] == 0:
                        self._rules.remove(rule)
                    if error is None:
                        self._held.put(call)
                    else:
                        call.fail(error)
                    return
        call.go_on()

    @staticmethod
    def _paths(thread: int, family: str, name: str, arguments: list[int]) -> tuple[str, ...]:
        # It was killed in the meantime.
        with contextlib.suppress(OSError), open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            paths = []
            for directory, at in _FAMILIES[family][name]:
                name = "" if at is None else _text(memory, arguments[at])
                # The kernel uses 32 bits of it; -100 is the working directory.
                number = -100 if directory is None else ctypes.c_int(arguments[directory]).value
                start = os.readlink(f"/proc/{thread}/{'cwd' if number == -100 else f'fd/{number}'}")
                paths.append(os.path.normpath(os.path.join(start, name)))
            return tuple(paths)
        return ()


def _text(memory: object, address: int) -> str:
    memory.seek(address)  # type: ignore[attr-defined]
    found = b""
    while b"\0" not in found and len(found) < 4096:
        # Up to the end of the page: the next one may not be mapped.
        found += memory.read(4096 - (address + len(found)) % 4096)  # type: ignore[attr-defined]
    return found.split(b"\0", 1)[0].decode("utf-8", "replace")


def _names() -> dict[int, tuple[str, str]]:
    return {
        number: (name, family)
        for family, names in _FAMILIES.items()
        for name in names
        if (number := _number(name)) is not None
    }


def unavailable() -> str:
    """The reason why system calls cannot be intercepted here; empty if they can."""
    pid = os.fork()
    if pid == 0:
        try:
            os.close(install(["mkdir"]))
            os._exit(0)
        except OSError as error:
            os._exit(min(error.errno or 1, 255))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return (
        "" if code == 0 else f"seccomp cannot notify here: {os.strerror(code) if code > 0 else signal.Signals(-code)}"
    )
