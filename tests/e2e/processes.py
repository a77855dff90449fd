"""Processes in /proc: the workers of a server, and the resources of a process."""

from __future__ import annotations

import os
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
        if supervised and all("redgrease.worker" in _command_line(each) for each in (pid, parents[pid])):
            candidate = process(pid)
            if candidate is not None and candidate.alive():
                found.append(candidate)
    return found


def _command_line(pid: int) -> str:
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
