"""The chaos test: random load while workers and the server are killed, then checks that nothing was lost or leaked.

`make chaos` runs it for 300 s. `CHAOS_SECONDS` and `CHAOS_SEED` change that. The seed decides the requests of each
client and the kills, but not how threads and processes are scheduled. The server's kind is the first one of
`REDGREASE_TEST_SERVERS`, or redis-7.0.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from .load import READERS, Known, Listed, Load, always_descriptions, listed, reconcile, register_always
from .load_requests import REQUEST_DEADLINE_S, Asker, Findings, Life, Tally
from .processes import Process, command_line, parent_of, process, with_environment, zombies_of
from .resp import Simple
from .servers import DidNotStartError, Server, ServerKind, only_kind
from .waiting import NotInTimeError, wait_until

#: Seconds between two kills of a worker, and of the server.
WORKER_KILL_S = 1.0
SERVER_KILL_S = 20.0
WARM_UP_S = 4.0
#: After the load everything must have settled within this time.
SETTLE_DEADLINE_S = 60.0
#: Processes must have ended this long after their server.
PROCESS_DEADLINE_S = 15.0
#: Descriptors of the server for one worker, and those that may come and go.
DESCRIPTORS_PER_WORKER = 8
DESCRIPTORS_NOISE = 4
LOG_LINES = 30
LOG_ALARMS = ("BUG REPORT", "INTERNAL", "panicked")

#: Few workers: sessions share them, and a kill ends several sessions. They are also replaced often.
LOAD_ARGS = {"MaxWorkers": 6, "ExecutionThreads": 4, "WorkerSessions": 60}
CONF = {"appendonly": "yes", "appendfsync": "always"}


@dataclass
class Kills:
    """What was killed."""

    workers: int = 0
    servers: int = 0
    longest_start_s: float = 0.0


class Killer(threading.Thread):
    """Kills a random worker every second and the server every 20 s; reports a server that ended by itself."""

    def __init__(self, life: Life, findings: Findings, seed: str) -> None:
        super().__init__(name="killer", daemon=True)
        self.kills = Kills()
        self.stopping = threading.Event()
        self.mapped: set[str] = set()
        self._life = life
        self._findings = findings
        self._random = random.Random(f"{seed}/killer")

    def run(self) -> None:
        try:
            self._kill_until_stopped()
        except Exception:
            self._findings.add(f"the killer ended with {traceback.format_exc()}")
            raise

    def _kill_until_stopped(self) -> None:
        next_server_kill = time.monotonic() + SERVER_KILL_S
        while not self.stopping.wait(self._random.uniform(0.5, 1.5) * WORKER_KILL_S):
            if self._life.server.exit_code() is not None:
                self._findings.add(f"the server ended by itself: {exit_words(self._life.server)}")
                self._findings.too_many.set()
                return
            if time.monotonic() < next_server_kill:
                self._kill_worker()
                continue
            next_server_kill += SERVER_KILL_S
            if not self._kill_server():
                return

    def _kill_worker(self) -> None:
        workers = sorted(self._life.server.workers(), key=lambda worker: worker.pid)
        self.mapped |= shared_files([self._life.server.pid, *(worker.pid for worker in workers)])
        if not workers:
            return
        worker = self._random.choice(workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
            self.kills.workers += 1

    def _kill_server(self) -> bool:
        self.kills.servers += 1
        try:
            took = self._life.kill_and_start()
        except DidNotStartError as error:
            self._findings.add(f"the server did not start after kill -9: {error}")
            self._findings.too_many.set()
            return False
        self.kills.longest_start_s = max(self.kills.longest_start_s, took)
        return True


def exit_words(server: Server) -> str:
    """How the server ended."""
    code = server.exit_code()
    if code is None:
        return "it runs"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def shared_files(pids: list[int]) -> set[str]:
    """Files in /dev/shm that these processes have mapped: they would outlive the processes, memfds do not."""
    found = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        except OSError:
            continue  # it has ended
        found |= {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) > 5 and "/dev/shm/" in fields[5]}
    return found


@dataclass
class Resources:
    """Descriptors of the server, and the processes that belong to it."""

    descriptors: Counter[str]
    workers: int

    @classmethod
    def of(cls, server: Server) -> Resources:
        found = process(server.pid)
        assert found is not None
        return cls(Counter(map(descriptor_kind, found.opened())), len(server.workers()))

    def grown_from(self, before: Resources) -> str | None:
        """What is more than before, apart from noise and the descriptors of further workers; None if nothing is."""
        further = max(0, self.workers - before.workers)
        limit = sum(before.descriptors.values()) + DESCRIPTORS_NOISE + DESCRIPTORS_PER_WORKER * further
        if sum(self.descriptors.values()) <= limit:
            return None
        return (
            f"{sum(self.descriptors.values())} descriptors, limit {limit}; more than after warm-up: "
            f"{dict(self.descriptors - before.descriptors)} with {self.workers} workers instead of {before.workers}"
        )

    def __str__(self) -> str:
        return f"{sum(self.descriptors.values())} descriptors with {self.workers} workers"


def descriptor_kind(target: str) -> str:
    """The kind of a descriptor: `socket`, `pipe`, `memfd`, `anon_inode:[eventfd]`, ..., or `file`."""
    if target.startswith("/memfd:"):
        return "memfd"
    if target.startswith("/"):
        return "file"
    return target if target.startswith("anon_inode") else target.split(":")[0]


@dataclass
class Report:
    """The outcome of a run."""

    kind: str
    seed: str
    seconds: float
    findings: Findings
    tally: Tally = field(default_factory=Tally)
    kills: Kills = field(default_factory=Kills)
    lines: list[str] = field(default_factory=list)
    log: str = ""
    directory: Path | None = None

    def __str__(self) -> str:
        violations = self.findings.violations
        parts = [
            f"== chaos: {self.kind}, seed {self.seed}, {self.seconds:.0f} s",
            self.tally.table(),
            f"{self.tally.requests} requests; killed: {self.kills.workers} workers, {self.kills.servers} servers",
            f"longest wait for an answer {self.tally.longest_s:.2f} s (limit {REQUEST_DEADLINE_S:.0f} s), "
            f"for a start of the server {self.kills.longest_start_s:.2f} s",
            *self.lines,
        ]
        for violation in violations:
            parts.append(f"VIOLATION (seed {self.seed}, after {violation.at:.1f} s): {violation.what}")
        if violations:
            parts += [f"-- the server's log, last lines (seed {self.seed})", *self.log.splitlines()[-LOG_LINES:]]
            parts += [f"-- files: {self.directory}"] if self.directory is not None else []
        else:
            parts.append("no violation")
        return "\n".join(parts)


class Chaos:
    """One run: warm-up, load with kills, settling, checks. Each client pauses for `pause_s` on average."""

    def __init__(
        self,
        kind: ServerKind,
        seconds: float,
        seed: str,
        *,
        clients: int = 8,
        pause_s: float = 0.02,
        load_args: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self._seconds = seconds
        self._seed = seed
        self._clients = clients
        self._pause_s = pause_s
        self.findings = Findings(seed)
        self.report = Report(kind.name, seed, seconds, self.findings)
        self.known = Known()
        choice = random.Random(f"{seed}/server").choice
        all_args = {**LOAD_ARGS, "SharedMemory": choice((0, 1, 1)), **load_args}
        self.server = Server(kind, load_args=all_args, conf=CONF)
        #: Called in the middle of the load: tests of this test plant faults there.
        self.disturb: Callable[[], object] = lambda: None
        # Workers inherit it: it tells which processes belong to this run, after their server has ended, too.
        temporary = self.server.directory / "tmp"
        temporary.mkdir()
        self._mark = f"TMPDIR={temporary}"
        self.server.env = {"TMPDIR": str(temporary)}
        self.report.lines.append(f"load arguments {all_args}")

    def run(self, *, keep_files: bool = True) -> Report:
        """Run and check. The server's directory is kept if there was a violation."""
        print(f"chaos: {self.report.kind}, seed {self._seed}, {self._seconds:.0f} s", flush=True)
        self.server.start()
        life = Life(self.server)
        asker = Asker(life, self.findings, "checker")
        try:
            self._run_phases(life, asker)
        except Exception:
            self.findings.add(f"the run ended with {traceback.format_exc()}")
        finally:
            asker.close()
            self._end_server()
            self._check_log()
            self._check_nothing_is_left()
            self.report.log = self.server.log()
            if self.findings.violations and keep_files:
                self.report.directory = self.server.directory
            else:
                shutil.rmtree(self.server.directory, ignore_errors=True)
        return self.report

    def _run_phases(self, life: Life, asker: Asker) -> None:
        self.known.merge(register_always(asker, record=True))
        with Load(life, self.findings, self._seed, self._clients, self._pause_s, 1.0, prefix="w") as load:
            load.findings.too_many.wait(WARM_UP_S)
        self._took_part(load)
        self._settle(asker)
        asker.close()
        before = self._settled_resources(None)
        self.report.lines.append(f"after warm-up: {before}")

        killer = Killer(life, self.findings, self._seed)
        with Load(life, self.findings, self._seed, self._clients, self._pause_s, 2.0) as load:
            killer.start()
            load.findings.too_many.wait(self._seconds / 2)
            self.disturb()
            load.findings.too_many.wait(self._seconds / 2)
            killer.stopping.set()
            killer.join(REQUEST_DEADLINE_S)
        self.report.kills = killer.kills
        self._took_part(load)
        if self.server.exit_code() is not None:
            return
        self._settle(asker)
        asker.close()
        after = self._settled_resources(before)
        self.report.lines.append(f"at the end: {after}")
        self._check_processes_of_dead_servers()
        self._check_shared_files(killer.mapped)

    def _took_part(self, load: Load) -> None:
        known, tally = load.result()
        self.known.merge(known)
        self.report.tally.add(tally)

    # -- checks of the data

    def _settle(self, asker: Asker) -> None:
        """Check what clients know against the server's data; afterwards only the permanent registrations are left."""
        asker.ask("check", "CLIENT", "UNPAUSE")
        self._check_registrations(asker)
        self._check_increments(asker)
        self._wait_entries(asker)
        self._unregister_others(asker)
        self._wait_acknowledged(asker)
        self._wait_executions(asker)

    def _wait(self, look: Callable[[], object], what: str) -> None:
        """Wait until ``look`` returns nothing; otherwise what it returned is a violation."""
        try:
            wait_until(look, what, until=lambda left: not left, deadline=SETTLE_DEADLINE_S)
        except NotInTimeError as error:
            self.findings.add(f"{error} (SETTLE_DEADLINE_S)")

    def _rows(self, asker: Asker) -> list[Listed]:
        return listed(asker.ask("check", "RG.DUMPREGISTRATIONS"))

    def _check_registrations(self, asker: Asker) -> None:
        rows = self._rows(asker)
        for difference in reconcile(self.known, rows):
            self.findings.add(difference)
        unknown = [row.description for row in rows if row.session not in self.known.sessions]
        if unknown:
            self.findings.add(f"registrations that no client made: {unknown}")

    def _check_increments(self, asker: Asker) -> None:
        for key, (answered, unanswered) in self.known.increments.items():
            value = asker.ask("check", "GET", key)
            found = int(value) if isinstance(value, bytes) else 0
            if not answered <= found <= answered + unanswered:
                self.findings.add(
                    f"{key} is {found}, but {answered} increments were acknowledged and {unanswered} were not"
                )

    def _wait_entries(self, asker: Asker) -> None:
        """Each acknowledged entry has been processed by each permanent registration that reads its stream."""

        def missing(reader: str, expected: set[str]) -> list[str]:
            seen = asker.ask("check", "SMEMBERS", f"seen:{reader}")
            assert isinstance(seen, list)
            left = expected - {entry.decode() for entry in seen}
            time.sleep(0.1 if left else 0)
            return [f"{len(left)} of {len(expected)}", *sorted(left)[:5], *self._states(asker)] if left else []

        for reader, streams in READERS.items():
            expected = {entry for entry in self.known.entries if entry.split()[0] in streams}
            self._wait(lambda r=reader, e=expected: missing(r, e), f"'{reader}' has processed all entries")  # type: ignore[misc]

    def _states(self, asker: Asker) -> list[str]:
        """State of the permanent registrations, for a message."""
        rows = asker.ask("check", "RG.DUMPREGISTRATIONS")
        assert isinstance(rows, list)
        found = []
        for row in rows:
            entry = dict(zip(row[::2], row[1::2]))
            data = dict(zip(entry[b"RegistrationData"][::2], entry[b"RegistrationData"][1::2]))
            if (entry[b"desc"] or b"").decode() in always_descriptions():
                found.append(
                    f"{entry[b'desc'].decode()}: {data.get(b'status')}, triggered {data.get(b'numTriggered')}, "
                    f"failures {data.get(b'numFailures')}, last error {data.get(b'lastError')!r:.300}"
                )
        return found

    def _unregister_others(self, asker: Asker) -> None:
        for row in self._rows(asker):
            if row.description in always_descriptions():
                continue
            reply = asker.ask("check", "RG.UNREGISTER", row.id)
            if reply != Simple("OK"):
                self.findings.add(f"RG.UNREGISTER {row.id} ({row.description}) was answered with {reply!r}")
            self.known.has(row.session, [])
        self._check_only_permanent(asker)

    def _check_only_permanent(self, asker: Asker) -> None:
        left = sorted(row.description for row in self._rows(asker))
        if left != always_descriptions():
            self.findings.add(f"registrations {left} are left, expected {always_descriptions()}")

    def _wait_acknowledged(self, asker: Asker) -> None:
        """No entry is pending, and groups of registrations that were removed are gone."""

        def not_acknowledged() -> list[str]:
            found = []
            for stream in sorted({stream for streams in READERS.values() for stream in streams}):
                groups = asker.ask("check", "XINFO", "GROUPS", stream, allowed={"ERR"})
                if not isinstance(groups, list):
                    continue  # nothing was added to it
                wanted = sum(stream in streams for streams in READERS.values())
                rows = [dict(zip(group[::2], group[1::2])) for group in groups]
                pending = sum(row[b"pending"] for row in rows)
                if len(rows) != wanted or pending:
                    found.append(f"{stream} has {len(rows)} groups ({wanted} expected) and {pending} pending entries")
            time.sleep(0.05 if found else 0)
            return found

        self._wait(not_acknowledged, "all entries are acknowledged, by the groups of the permanent registrations only")

    def _wait_executions(self, asker: Asker) -> None:
        def unfinished() -> list[str]:
            rows = asker.ask("check", "RG.DUMPEXECUTIONS")
            assert isinstance(rows, list)
            entries = [dict(zip(row[::2], row[1::2])) for row in rows]
            return [str(entry) for entry in entries if entry[b"status"] not in (b"done", b"aborted")][:5]

        self._wait(unfinished, "all executions have ended")

    # -- checks of processes, descriptors and shared memory

    def _settled_resources(self, before: Resources | None) -> Resources:
        """Resources when the number of workers is stable and, if given, no more than before."""
        states: list[tuple[Resources, float]] = []

        def problem() -> object:
            now = Resources.of(self.server)
            if not states or states[-1][0] != now:
                states.append((now, time.monotonic()))
            if before is not None and (grown := now.grown_from(before)) is not None:
                return grown
            return time.monotonic() - states[-1][1] < 1.0 and f"it changes: {now}"

        self._wait(problem, "the server has no more descriptors than after warm-up, and they do not change")
        if zombies := zombies_of(self.server.pid):
            self.findings.add(f"children of the server that it did not wait for: {zombies}")
        return states[-1][0]

    def _of_no_server(self) -> list[str]:
        """Processes of this run that do not descend from the server that runs."""
        return [
            f"{each.pid} {command_line(each.pid)}"
            for each in with_environment(self._mark)
            if not descends_from(each, self.server.pid)
        ]

    def _check_processes_of_dead_servers(self) -> None:
        self._wait_gone(self._of_no_server, "processes of servers that were killed have ended")

    def _wait_gone(self, look: Callable[[], list[str]], what: str) -> None:
        try:
            wait_until(look, what, until=lambda left: not left, deadline=PROCESS_DEADLINE_S)
        except NotInTimeError as error:
            self.findings.add(f"{error} (PROCESS_DEADLINE_S)")

    def _check_shared_files(self, mapped: set[str]) -> None:
        left = [name for name in mapped if os.path.exists(name)]
        if left:
            self.findings.add(f"files in shared memory that processes of the run mapped are left: {left}")
        server = process(self.server.pid)
        assert server is not None
        segments = sum("memfd:redgrease" in target for target in server.opened())
        workers = len(self.server.workers())
        if segments > workers + 1:
            self.findings.add(f"the server has {segments} shared-memory segments open for {workers} workers")

    # -- the end

    def _end_server(self) -> None:
        if self.server.exit_code() is None:
            assert self.server.process is not None
            self.server.process.send_signal(signal.SIGTERM)
            try:
                self.server.process.wait(15)
            except Exception:
                self.findings.add("the server has not ended 15 s after SIGTERM")
                self.server.kill()
            if self.server.exit_code() not in (0, -signal.SIGKILL):
                self.findings.add(f"the server ended with {exit_words(self.server)} after SIGTERM")

    def _check_log(self) -> None:
        lines = self.server.log().splitlines()
        alarms = [line for line in lines if any(alarm in line for alarm in LOG_ALARMS)]
        for line in alarms[:5]:
            self.findings.add(f"the log has: {line}")

    def _check_nothing_is_left(self) -> None:
        def left() -> list[str]:
            return [f"{each.pid} {command_line(each.pid)}" for each in with_environment(self._mark)]

        self._wait_gone(left, "all processes of the run have ended")
        for each in with_environment(self._mark):
            os.kill(each.pid, signal.SIGKILL)


def descends_from(descendant: Process, ancestor: int) -> bool:
    """True if a process is this one or a child, grandchild, ... of it."""
    pid: int | None = descendant.pid
    while pid is not None and pid > 1:
        if pid == ancestor:
            return True
        pid = parent_of(pid)
    return False


def new_seed() -> str:
    return str(secrets.randbelow(1_000_000))


def main() -> int:
    seconds = float(os.environ.get("CHAOS_SECONDS") or 300)
    seed = os.environ.get("CHAOS_SEED") or new_seed()
    kind = only_kind("chaos")
    report = Chaos(kind, seconds, seed).run()
    print(report)
    return 1 if report.findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
