"""A PING loop in a process of its own: `pinger.py PORT PID FILE`, until SIGTERM; writes what it saw to FILE as JSON.

For each pause it tells from the kernel's accounts how long the server's main thread and this process were ready to
run and waited for a core: that part of the pause belongs to the machine.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from array import array

PAUSE_NS = 1_000_000


def main() -> None:
    port, pid, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    server = os.open(f"/proc/{pid}/task/{pid}/schedstat", os.O_RDONLY)
    own = os.open(f"/proc/self/task/{os.getpid()}/schedstat", os.O_RDONLY)
    durations = array("Q")
    pauses: list[dict[str, float]] = []
    clock, pread = time.perf_counter_ns, os.pread
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(b"PING\r\n")
        link.recv(64)
        print("ready", flush=True)
        while not stopped:
            before = pread(server, 64, 0), pread(own, 64, 0)
            start = clock()
            link.sendall(b"PING\r\n")
            reply = link.recv(64)
            took = clock() - start
            if reply != b"+PONG\r\n":
                raise RuntimeError(f"PING was answered by {reply!r}")
            durations.append(took)
            if took > PAUSE_NS:
                pauses.append(_explain(took, before, (pread(server, 64, 0), pread(own, 64, 0))))
    with open(path, "w") as out:
        json.dump({"durations": durations.tolist(), "pauses": pauses}, out)


def _explain(took: int, before: tuple[bytes, bytes], after: tuple[bytes, bytes]) -> dict[str, float]:
    (ran_before, queued_before), (_, own_before) = (_times(text) for text in before)
    (ran_after, queued_after), (_, own_after) = (_times(text) for text in after)
    waited = (queued_after - queued_before) + (own_after - own_before)
    return {
        "ms": took / 1e6,
        "server_ran_ms": (ran_after - ran_before) / 1e6,
        "waited_for_core_ms": min(waited, took) / 1e6,
        "caused_ms": max(0, took - waited) / 1e6,
    }


def _times(text: bytes) -> tuple[int, int]:
    ran, queued, _ = text.split()
    return int(ran), int(queued)


if __name__ == "__main__":
    main()
