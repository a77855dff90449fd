"""How busy others kept the machine: their share of its time during a row, from the kernel's accounts (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Times:
    """Seconds of all cores since the start of the machine: all, not idle, and those of our processes."""

    all: float
    busy: float
    own: float


def times() -> Times | None:
    """The accounts as they are now; None where the system keeps none."""
    try:
        cores = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    idle = cores[3] + cores[4]
    return Times(sum(cores) / TICKS, (sum(cores) - idle) / TICKS, _own_seconds())


def others_share(before: Times | None, after: Times | None) -> float | None:
    """Part of the cores' time that neither idled nor went to us; counts the hypervisor's other guests too."""
    if before is None or after is None or after.all <= before.all:
        return None
    foreign = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, foreign / (after.all - before.all))


def parents() -> dict[int, int]:
    """The parent of each process that runs."""
    return {pid: int(fields[1]) for pid, fields in _stats()}


def _stats() -> Iterator[tuple[int, list[str]]]:
    """The accounts of all processes, from the field behind the name."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                yield int(entry), Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # ended meanwhile


def processor_seconds(pids: set[int]) -> float:
    """Processor time that the threads of these processes have used, by the scheduler's own account."""
    spent = 0
    for pid in pids:
        for account in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                spent += int(account.read_text().split()[0])
            except OSError:
                continue  # ended meanwhile
    return spent / 1e9


def resident_bytes(pids: set[int]) -> int:
    """Memory of these processes; what several of them share counts for each."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue  # ended meanwhile
    return pages * PAGE_BYTES


def _own_seconds() -> float:
    """This process and all below it; what has ended is in the account of the parent that waited for it."""
    spent: dict[int, int] = {}
    parents: dict[int, int] = {}
    for pid, fields in _stats():
        parents[pid] = int(fields[1])
        spent[pid] = sum(int(number) for number in fields[11:15])
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(spent.get(pid, 0) for pid in own) / TICKS
