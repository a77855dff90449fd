"""Processes in /proc: the workers of a server, and the resources of a process."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """A process, distinguished from a later one with the same pid by its start time."""

    pid: int
    start_time: int

    def alive(self) -> bool:
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.start_time and fields[0] != "Z"

    def descriptors(self) -> int:
        """Number of open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def opened(self) -> list[str]:
        """What the open descriptors refer to, as in `/proc/PID/fd`."""
        targets = []
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                targets.append(os.readlink(f"/proc/{self.pid}/fd/{name}"))
            except OSError:
                continue  # closed in the meantime
        return targets

    def threads(self) -> int:
        """Number of threads."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def shared_rss(self) -> int:
        """Resident bytes of shared memory; a part of `rss`. 0 for a process that has ended and is still listed."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^RssShmem:\s+(\d+)", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    def rss(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_SIZE


def process(pid: int) -> Process | None:
    """The process with this pid, if any."""
    fields = _stat(pid)
    return None if fields is None else Process(pid, int(fields[19]))


def workers_of(server_pid: int) -> list[Process]:
    """The worker processes that are descendants of this server: children of the supervisors that are its own."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None:
                parents[int(entry)] = int(fields[1])
    found = []
    for pid in parents:
        supervised = parents.get(parents[pid]) == server_pid
        if supervised and all("redgrease.worker" in command_line(each) for each in (pid, parents[pid])):
            candidate = process(pid)
            if candidate is not None and candidate.alive():
                found.append(candidate)
    return found


def with_environment(entry: str) -> list[Process]:
    """The processes that were started with this entry (`NAME=value`) in their environment."""
    wanted = entry.encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or belongs to another user
        candidate = process(int(pid)) if wanted in entries else None
        if candidate is not None and candidate.alive():
            found.append(candidate)
    return found


def parent_of(pid: int) -> int | None:
    """Number of the parent process, if this process exists."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def zombies_of(parent: int) -> list[int]:
    """Children that have ended and that the parent did not wait for."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        fields = _stat(int(pid))
        if fields is not None and fields[0] == "Z" and int(fields[1]) == parent:
            found.append(int(pid))
    return found


def owner_of_connection(port: int) -> int | None:
    """The process that has the connection with this local port of 127.0.0.1, if any."""
    inode = None
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[9] != "0":
            inode = fields[9]
    for pid in filter(str.isdigit, os.listdir("/proc")) if inode else ():
        try:
            if f"socket:[{inode}]" in Process(int(pid), 0).opened():
                return int(pid)
        except OSError:
            continue  # it has ended, or belongs to another user
    return None


def command_line(pid: int) -> str:
    """The command line of a process with spaces between the arguments; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the command name: state, parent, ..., start time at index 19."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()
