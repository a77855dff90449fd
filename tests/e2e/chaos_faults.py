"""Faults that are planted in a short chaos run: each check must find the one that it is for."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .chaos import Chaos
from .load import ALWAYS, RECORD
from .resp import RespConnection
from .servers import Server


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in the middle of a run, and the violation that must be found."""

    name: str
    violation: str
    plant: Callable[[Chaos, list[Callable[[], object]]], object]
    load_args: Mapping[str, object] = field(default_factory=dict)


def _command(server: Server, *command: str) -> object:
    with RespConnection(server.port) as connection:
        return connection(*command)


def _skip_entries(chaos: Chaos, _: object) -> None:
    # An id that ends with 7 is skipped: about one entry of ten.
    script = ALWAYS["always-streams"].replace("{note}", f"r['id'][-3] == '7' or {RECORD}")
    reply = _command(chaos.server, "RG.PYEXECUTE", script, "ID", "always-streams", "UPGRADE")
    assert str(reply) == "Simple(text='OK')", reply


def _wrong_replies(chaos: Chaos, _: object) -> None:
    script = ALWAYS["always-commands"].replace("lambda x: x[1]", "lambda x: x[1][:-1]").replace("{note}", RECORD)
    _command(chaos.server, "RG.PYEXECUTE", script, "ID", "always-commands", "UPGRADE")


def _register_twice(chaos: Chaos, _: object) -> None:
    _command(chaos.server, "RG.PYEXECUTE", "GB(desc='always-commands/keys').foreach(lambda r: 1).register('none:*')")


def _unregister(chaos: Chaos, _: object) -> None:
    rows = _command(chaos.server, "RG.DUMPREGISTRATIONS")
    assert isinstance(rows, list)
    [row] = [row for row in rows if b"always-commands/keys" in row]
    _command(chaos.server, "RG.UNREGISTER", row[row.index(b"id") + 1].decode())


def _change_counters(chaos: Chaos, _: object) -> None:
    for number in range(4):
        _command(chaos.server, "SET", f"increments:c{number}", "100000")


def _leave_process(chaos: Chaos, cleanup: list[Callable[[], object]]) -> None:
    # As a daemon of a worker whose supervisor did not end it. The run ends it when it has reported it.
    daemon = subprocess.Popen(["sleep", "120"], env={**os.environ, **chaos.server.env})
    cleanup.append(daemon.wait)
    cleanup.append(daemon.kill)


def _open_connections(chaos: Chaos, cleanup: list[Callable[[], object]]) -> None:
    for _ in range(30):
        connection = socket.create_connection(("127.0.0.1", chaos.server.port))
        cleanup.append(connection.close)


def _map_shared_file(chaos: Chaos, cleanup: list[Callable[[], object]]) -> None:
    path = Path(f"/dev/shm/redgrease-chaos-{os.getpid()}")
    path.write_bytes(b"x" * 4096)
    cleanup.append(lambda: path.unlink(missing_ok=True))
    script = f"""
import mmap, time
def step(_):
    with open({str(path)!r}, 'r+b') as file:
        mapped = mmap.mmap(file.fileno(), 0)
    time.sleep(3)
GB('ShardsIDReader').foreach(step).run()
"""
    _command(chaos.server, "RG.PYEXECUTE", script, "UNBLOCKING")


FAULTS = (
    Fault("entries-skipped", r"still not: '\w+' has processed all entries", _skip_entries),
    Fault("wrong-replies", r"was answered with \[b'\S+'\], expected", _wrong_replies),
    Fault("registration-doubled", r"are listed more than once", _register_twice),
    Fault("registration-lost", r"session 'always-commands' has the registrations", _unregister),
    Fault("write-changed", r"increments were acknowledged", _change_counters),
    Fault("request-stuck", r"REQUEST_DEADLINE_S", lambda c, _: _command(c.server, "DEBUG", "SLEEP", "3")),
    Fault("process-left", r"still not: processes of servers that were killed have ended", _leave_process),
    Fault("descriptors-left", r"no more descriptors than after warm-up", _open_connections),
    Fault("shared-file-left", r"files in shared memory", _map_shared_file),
    Fault("server-killed", r"the server ended by itself: signal", lambda c, _: os.kill(c.server.pid, 11)),
    Fault("crash-report", r"the log has: .*BUG REPORT", lambda c, _: os.kill(c.server.pid, 11)),
    Fault(
        "panic",
        r"INTERNAL",
        lambda c, _: _command(c.server, "RG.GETRESULTS", "rg:panic:command"),
        load_args={"InjectPanic": 1},
    ),
)
