"""The chaos test of clusters: random load on all shards while links, workers and shards fail, then checks.

`make chaos` runs it behind that of one server. `CHAOS_SECONDS`, `CHAOS_SEED` and the kind of server are as there. The
shards reach each other through proxies, which cut and slow their links; the connections of the server's own protocol
are left alone. One of three shards has a replica.

What is checked: a run gives the right results of all shards, or an error with a known code, within
`REQUEST_DEADLINE_S`; after each fault all shards run functions again; at the end all shards have the registrations that
clients were told of, acknowledged stream entries were processed, all executions have ended, and no process or
descriptor is left.
"""

from __future__ import annotations

import ast
import contextlib
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
from redis.crc import key_slot

from .chaos import CONF, LOG_ALARMS, Resources, new_seed
from .cluster import SLOTS, Cluster, call, wait_links, wait_runs
from .load import Listed, listed
from .load_requests import REQUEST_DEADLINE_S, Findings, Tally, first_word, shortened
from .resp import Err, Reply, RespConnection, Simple
from .servers import Server, ServerKind, only_kind
from .waiting import NotInTimeError, wait_until

#: Seconds between the recovery from a fault and the next one, and between two kills of a worker.
FAULT_PAUSE_S = (0.5, 2.5)
WORKER_KILL_S = (1.0, 4.0)
#: All shards run functions again this long after a fault has ended, and everything has settled at the end.
RECOVERY_DEADLINE_S = 40.0
SETTLE_DEADLINE_S = 60.0
LOAD_ARGS = {"MaxWorkers": 3, "ExecutionThreads": 2}

WORDS, DIFFERENT = 900, 30
STREAMS = 6
#: First words of errors that a request may be answered with while shards and workers fail. Others are violations.
ALLOWED = frozenset(
    {"SHARDLOST", "WORKERDIED", "WORKERDOWN", "WORKERBUSY", "LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "MOVED"}
)
#: The part of an initiator ends like the first two when another part has failed; the server says the third.
ALLOWED_TEXTS = ("Execution was aborted", r"Execution was aborted\n']", "while the cluster is down")
#: What `RG.PYEXECUTE` answers for each shard that a registration has not reached.
LATER = "it gets the change when it is back"

ALWAYS = """
def note(r):
    execute('SADD', 'processed:{' + r['key'].split('{')[1], r['value']['entry'])
GB('StreamReader', desc='always/streams').foreach(note).register('entries:*', batch=5, duration=100,
    mode='async_local', onFailedPolicy='retry', onFailedRetryInterval=1)
GB('CommandReader', desc='always/echo').map(lambda x: x[1]).register(trigger='echo', mode='async_local')
GB('CommandReader', desc='always/count').count().register(trigger='count', mode='async')
"""


def slowly(pause_s: float) -> str:
    """A word count whose steps take a while, so that faults happen in the middle of it."""
    return f"""
import time
def value(r):
    time.sleep({pause_s})
    return r['value']
GB().map(value).countby().run('word:*')
"""


@dataclass
class Known:
    """What clients know of the data."""

    #: For each session whether it is registered; `None`: the answer did not say.
    sessions: dict[str, bool | None] = field(default_factory=dict)
    #: What shards answered to their registration, and when.
    answers: dict[str, str] = field(default_factory=dict)
    #: Stream entries that were acknowledged, also by the replica if there is one.
    entries: set[str] = field(default_factory=set)


class Shards:
    """The servers of the cluster, and which of them serve slots."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._lock = threading.Lock()
        self._masters = cluster.servers[:3]
        self.replica = cluster.servers[3]
        #: The master of the replica.
        self.replicated = cluster.servers[0]
        #: Counts begins and ends of faults: it is odd during one.
        self.faults = 0

    def masters(self) -> list[Server]:
        with self._lock:
            return list(self._masters)

    def others(self, server: Server) -> list[Server]:
        return [master for master in self.masters() if master is not server]

    def swap(self) -> None:
        """The replica serves the slots of its master."""
        with self._lock:
            old, new = self.replicated, self.replica
            self._masters = [new if master is old else master for master in self._masters]
            self.replicated, self.replica = new, old


class Client(threading.Thread):
    """Random requests to random shards until it is told to stop."""

    def __init__(self, shards: Shards, findings: Findings, seed: str, name: str, pause_s: float) -> None:
        super().__init__(name=name, daemon=True)
        self.tally = Tally()
        self.known = Known()
        self.stopping = threading.Event()
        self._shards = shards
        self._findings = findings
        self._random = random.Random(f"{seed}/{name}")
        self._pause_s = pause_s
        self._count = 0

    def run(self) -> None:
        requests = [
            (6, self.count_words),
            (2, lambda: self.count_words(0.0005)),
            (3, self.count_keys),
            (4, self.trigger),
            (2, self.register),
            (2, self.unregister),
            (6, self.add_entries),
        ]
        acts: list[Callable[[], object]] = [act for _, act in requests]
        try:
            while not self.stopping.wait(self._random.uniform(0, 2) * self._pause_s):
                self._random.choices(acts, [weight for weight, _ in requests])[0]()
        except Exception:
            self._findings.add(f"{self.name} ended with {traceback.format_exc()}")

    def _ask(self, kind: str, *command: object, server: Server | None = None, then: tuple = ()) -> Reply | None:
        """The reply of a shard; `None` if there was none, or an error that may be. ``then``: another command, whose
        reply is the result.
        """
        server = server or self._random.choice(self._shards.masters())
        row = self.tally[kind]
        row.requests += 1
        began, faults = time.monotonic(), self._shards.faults
        try:
            with RespConnection(server.port, timeout=REQUEST_DEADLINE_S) as connection:
                reply = connection(*command)  # type: ignore[arg-type]
                if then and not isinstance(reply, Err):
                    reply = connection(*then)
        except TimeoutError:
            row.broken += 1
            self._findings.add(f"{self.name}: no answer within {REQUEST_DEADLINE_S:.0f} s: {kind} at {server.port}")
            return None
        except OSError as error:
            row.broken += 1
            if self._shards.faults == faults and faults % 2 == 0 and server.exit_code() is None:
                self._findings.add(f"{self.name}: the connection broke without a fault ({error!r}): {kind}")
            return None
        finally:
            took = time.monotonic() - began
            row.longest_s = max(row.longest_s, took)
            row.total_s += took
        row.answered += 1
        errors = [error for error in errors_of(reply) if not error.endswith(LATER)]
        for error in errors:
            word = first_word(error)
            row.errors[word] += 1
            if word not in ALLOWED and not error.endswith(ALLOWED_TEXTS):
                self._findings.add(f"{self.name}: unexpected error of {kind}: {error!r}, command {shortened(command)}")
        return None if errors else reply

    def _expect(self, reply: Reply | None, expected: object, found: object, what: str) -> None:
        if reply is not None and found != expected:
            self._findings.add(f"{self.name}: {what}: {shortened(found)} instead of {shortened(expected)}")

    def count_words(self, pause_s: float = 0.0) -> None:
        kind = "count words slowly" if pause_s else "count words"
        reply = self._ask(
            kind,
            "RG.PYEXECUTE",
            slowly(pause_s) if pause_s else "GB().map(lambda r: r['value']).countby().run('word:*')",
        )
        rows = [ast.literal_eval(row.decode()) for row in results_of(reply)]
        found = {row["key"]: row["value"] for row in rows}
        self._expect(reply, (WORD_COUNTS, len(WORD_COUNTS)), (found, len(rows)), "wrong counts of words")

    def count_keys(self) -> None:
        reply = self._ask("count keys", "RG.PYEXECUTE", "GB('KeysOnlyReader').count().run('word:*')")
        self._expect(reply, [b"%d" % WORDS], results_of(reply), "wrong number of keys")

    def trigger(self) -> None:
        if self._random.random() < 0.5:
            token = f"{self.name}-{self._next()}"
            reply = self._ask("trigger on one shard", "RG.TRIGGER", "echo", token)
            self._expect(reply, [token.encode()], reply, "wrong answer of a trigger")
        else:
            reply = self._ask("trigger on all shards", "RG.TRIGGER", "count")
            self._expect(reply, [b"3"], reply, "a trigger did not begin once on each shard")

    def _next(self) -> int:
        self._count += 1
        return self._count

    def register(self) -> None:
        session = f"{self.name}-{self._next()}"
        script = f"GB(desc={session!r}).foreach(lambda r: 1).register('none:*')"
        server = self._random.choice(self._shards.masters())
        reply = self._ask("register", "RG.PYEXECUTE", script, "ID", session, server=server)
        self.known.answers[session] = f"{time.monotonic() - self._findings.began:.1f} s, {server.port}: {reply}"
        if reply == Simple("OK"):
            self.known.sessions[session] = True
        else:
            # What only this shard has is lost if its replica is promoted before it has it.
            is_safe = reply is not None and server is not self._shards.replicated
            self.known.sessions[session] = True if is_safe else None

    def unregister(self) -> None:
        mine = [session for session, there in self.known.sessions.items() if there]
        if not mine:
            return
        session, server = self._random.choice(mine), self._random.choice(self._shards.masters())
        rows = self._ask("list", "RG.DUMPREGISTRATIONS", server=server)
        if rows is None:
            return
        found = [row for row in listed(rows) if row.description == session]
        if len(found) != 1:
            # A shard that was down learns of it within seconds.
            return
        reply = self._ask("unregister", "RG.UNREGISTER", found[0].id, server=server)
        self.known.sessions[session] = False if reply == Simple("OK") else None

    def add_entries(self) -> None:
        stream = f"entries:{{{self._random.randrange(STREAMS)}}}"
        entry = f"{self.name}-{self._next()}"
        # These slots stay where they are, apart from replicas that are promoted.
        server = self._shards.masters()[min(key_slot(stream.encode()) * 3 // SLOTS, 2)]
        replicas = 1 if server is self._shards.replicated else 0
        reply = self._ask("add", "XADD", stream, "*", "entry", entry, server=server, then=("WAIT", replicas, 1000))
        if isinstance(reply, int) and reply >= replicas:
            self.known.entries.add(f"{stream} {entry}")


#: What a word count answers.
WORD_COUNTS = {f"w{number}": WORDS // DIFFERENT for number in range(DIFFERENT)}


def errors_of(reply: Reply) -> list[str]:
    """The text of an error, or of those of a run."""
    if isinstance(reply, Err):
        return [reply.text]
    if isinstance(reply, list) and len(reply) == 2 and all(isinstance(part, list) for part in reply):
        return [error.decode() for error in reply[1]]
    if isinstance(reply, list):
        return [each.text for each in reply if isinstance(each, Err)]
    return []


def results_of(reply: Reply | None) -> list[bytes]:
    """The results of a run."""
    return reply[0] if isinstance(reply, list) else []


class Faults(threading.Thread):
    """Lets one thing fail after the other, and sees that the cluster recovers."""

    def __init__(self, shards: Shards, findings: Findings, seed: str) -> None:
        super().__init__(name="faults", daemon=True)
        self.done: Counter[str] = Counter()
        self.longest_s = 0.0
        self.stopping = threading.Event()
        self._shards = shards
        self._cluster = shards.cluster
        self._findings = findings
        self._random = random.Random(f"{seed}/faults")

    def run(self) -> None:
        faults = [
            self.kill_shard,
            self.cut_links,
            self.silence_links,
            self.slow_links,
            self.stop_shard,
            self.take_over,
            self.move_slots,
        ]
        order: list[Callable[[], None]] = []
        while not self.stopping.wait(self._random.uniform(*FAULT_PAUSE_S)):
            if not order:
                order = self._random.sample(faults, len(faults))
            fault = order.pop()
            try:
                fault()
                self._shards.faults += 1
                self._recover(fault.__name__)
            except Exception:
                self._findings.add(f"{fault.__name__} ended with {traceback.format_exc()}")
                self._findings.too_many.set()
                return
            finally:
                self._cluster.heal()

    def _begin(self, what: str) -> Server:
        self.done[what] += 1
        print(f"{time.monotonic() - self._findings.began:.1f} s: {what}", flush=True)
        self._shards.faults += 1
        return self._random.choice(self._shards.masters())

    def _recover(self, what: str) -> None:
        began = time.monotonic()
        try:
            wait_runs(*self._shards.masters(), deadline=RECOVERY_DEADLINE_S)
        except NotInTimeError as error:
            self._findings.add(f"after {what}: {error} (RECOVERY_DEADLINE_S)")
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _for_a_while(self, shortest_s: float, longest_s: float) -> None:
        time.sleep(self._random.uniform(shortest_s, longest_s))

    def kill_shard(self) -> None:
        server = self._begin("shards killed")
        server.kill()
        self._for_a_while(0, 2)
        server.start_again()

    def cut_links(self) -> None:
        server = self._begin("links cut")
        self._cluster.isolate(server)
        self._for_a_while(0.2, 7)
        self._cluster.heal()

    def silence_links(self) -> None:
        server = self._begin("links silent")
        requests = self._random.random() < 0.7
        replies = not requests or self._random.random() < 0.5
        self._cluster.proxy(server).fall_silent(requests=requests, replies=replies)
        self._for_a_while(0.2, 8)
        self._cluster.heal()

    def slow_links(self) -> None:
        server = self._begin("links slow")
        self._cluster.proxy(server).slow_down(pause_s=self._random.uniform(0.005, 0.1))
        self._for_a_while(1, 4)
        self._cluster.heal()

    def stop_shard(self) -> None:
        server = self._begin("shards stopped")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            self._for_a_while(0.2, 8)
        finally:
            os.kill(server.pid, signal.SIGCONT)

    def take_over(self) -> None:
        self._begin("replicas promoted")
        old, new = self._shards.replicated, self._shards.replica
        self._shards.swap()
        self._cluster.take_over(new, old)
        self._cluster.start_as_replica(old)

    def move_slots(self) -> None:
        source = self._begin("slots moved")
        target = self._random.choice(self._shards.others(source))
        spans = [row[:2] for row in call(source, "CLUSTER", "SLOTS") if row[2][1] == self._port(source)]
        free = [slot for first, last in spans for slot in range(first, last + 1) if slot not in USED_SLOTS]
        self._cluster.move_slots(source, target, self._random.sample(free, 10))

    def _port(self, server: Server) -> int:
        return self._cluster.proxy(server).port


#: Slots with keys, which are not moved: a run during a move may read a key twice or not at all.
USED_SLOTS = {
    key_slot(key.encode()) for key in [*map("word:{}".format, range(WORDS)), *map("x{{{}}}".format, range(STREAMS))]
}


class WorkerKiller(threading.Thread):
    """Kills random workers of random shards."""

    def __init__(self, shards: Shards, seed: str) -> None:
        super().__init__(name="worker-killer", daemon=True)
        self.killed = 0
        self.stopping = threading.Event()
        self._shards = shards
        self._random = random.Random(f"{seed}/workers")

    def run(self) -> None:
        while not self.stopping.wait(self._random.uniform(*WORKER_KILL_S)):
            server = self._random.choice(self._shards.masters())
            workers = sorted(server.workers(), key=lambda worker: worker.pid)
            if workers and server.exit_code() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._random.choice(workers).pid, signal.SIGKILL)
                    self.killed += 1


@dataclass
class Report:
    """The outcome of a run."""

    kind: str
    seed: str
    seconds: float
    findings: Findings
    tally: Tally = field(default_factory=Tally)
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [
            f"== chaos of a cluster: {self.kind}, seed {self.seed}, {self.seconds:.0f} s",
            self.tally.table(),
            f"{self.tally.requests} requests; longest wait for an answer {self.tally.longest_s:.2f} s "
            f"(limit {REQUEST_DEADLINE_S:.0f} s)",
            *self.lines,
        ]
        for violation in self.findings.violations:
            parts.append(f"VIOLATION (seed {self.seed}, after {violation.at:.1f} s): {violation.what}")
        return "\n".join(parts if self.findings.violations else [*parts, "no violation"])


class ClusterChaos:
    """One run: a cluster, warm-up, load with faults, settling, checks. Each client pauses for `pause_s` on average."""

    def __init__(self, kind: ServerKind, seconds: float, seed: str, *, clients: int = 6, pause_s: float = 0.05) -> None:
        self._kind = kind
        self._seconds = seconds
        self._seed = seed
        self._clients = clients
        self._pause_s = pause_s
        self.findings = Findings(seed)
        self.report = Report(kind.name, seed, seconds, self.findings)
        self.known = Known()
        #: Called in the middle of the load: tests of this test plant faults there.
        self.disturb: Callable[[Cluster], object] = lambda _: None

    def run(self) -> Report:
        """Run and check."""
        print(f"chaos of a cluster: {self._kind.name}, seed {self._seed}, {self._seconds:.0f} s", flush=True)
        cluster = Cluster(self._kind, proxied=True, conf=CONF, load_args=LOAD_ARGS)
        try:
            self._run_phases(cluster)
            self._check_logs(cluster)
            cluster.stop()
        except Exception:
            self.findings.add(f"the run ended with {traceback.format_exc()}")
            self._check_logs(cluster)
            cluster.kill_and_clean()
        return self.report

    def _run_phases(self, cluster: Cluster) -> None:
        cluster.add_replica(cluster.servers[0])
        shards = Shards(cluster)
        wait_links(*shards.masters())
        wait_runs(*shards.masters())
        self._fill(shards)
        self._load(shards, 2.0, "w", with_faults=False)
        self._settle(shards)
        before = {server.port: self._resources(server) for server in shards.masters()}
        self._load(shards, self._seconds, "c", with_faults=True)
        self._settle(shards)
        self._check_resources(shards, before)

    def _fill(self, shards: Shards) -> None:
        [first, *_] = shards.masters()
        with RespConnection(first.port) as connection:
            assert connection("RG.PYEXECUTE", ALWAYS, "ID", "always") == Simple("OK")
        with redis.RedisCluster(host="127.0.0.1", port=first.port) as client:
            for number in range(WORDS):
                client.set(f"word:{number}", f"w{number % DIFFERENT}")
        assert sum(call(server, "DBSIZE") for server in shards.masters()) == WORDS

    def _load(self, shards: Shards, seconds: float, prefix: str, *, with_faults: bool) -> None:
        clients = [
            Client(shards, self.findings, self._seed, f"{prefix}{number}", self._pause_s)
            for number in range(self._clients)
        ]
        faults, killer = Faults(shards, self.findings, self._seed), WorkerKiller(shards, self._seed)
        threads = [*clients, *([faults, killer] if with_faults else [])]
        for thread in threads:
            thread.start()
        self.findings.too_many.wait(seconds / 2)
        if with_faults:
            self.disturb(shards.cluster)
        self.findings.too_many.wait(seconds / 2)
        for thread in reversed(threads):
            thread.stopping.set()
        for thread in threads:
            thread.join(2 * RECOVERY_DEADLINE_S)
            if thread.is_alive():
                self.findings.add(f"{thread.name} has not ended")
        for client in clients:
            self.known.sessions.update(client.known.sessions)
            self.known.answers.update(client.known.answers)
            self.known.entries |= client.known.entries
            self.report.tally.add(client.tally)
        if with_faults:
            done = ", ".join(f"{what} {count}" for what, count in sorted(faults.done.items()))
            self.report.lines.append(f"{done}, workers killed {killer.killed}")
            self.report.lines.append(f"longest time until all shards ran functions again {faults.longest_s:.2f} s")

    # -- checks

    def _wait(self, look: Callable[[], object], what: str) -> None:
        """Wait until ``look`` returns nothing; otherwise what it returned is a violation."""
        try:
            wait_until(look, what, until=lambda left: not left, deadline=SETTLE_DEADLINE_S)
        except NotInTimeError as error:
            self.findings.add(f"{error} (SETTLE_DEADLINE_S)")

    def _settle(self, shards: Shards) -> None:
        masters = shards.masters()
        self._wait(lambda: self._differences(masters), "all shards have the registrations that clients know")
        self._wait(lambda: self._not_processed(masters), "all acknowledged entries are processed")
        self._wait(lambda: self._not_ended(masters), "all executions have ended")
        self._wait(lambda: self._not_sent(masters), "no message between shards is pending")

    def _rows(self, server: Server) -> list[Listed]:
        with RespConnection(server.port, timeout=REQUEST_DEADLINE_S) as connection:
            return listed(connection("RG.DUMPREGISTRATIONS"))

    def _differences(self, masters: list[Server]) -> list[str]:
        found = [self._rows(server) for server in masters]
        ids = [sorted(row.id for row in rows) for rows in found]
        problems = [f"shards have different registrations: {ids}"] if any(each != ids[0] for each in ids) else []
        names = Counter(row.description for row in found[0])
        problems += [f"{name} is there {count} times" for name, count in names.items() if count > 1]
        for session, there in self.known.sessions.items():
            if there is not None and (session in names) != there:
                problems.append(f"{session} is {'not ' if there else ''}registered: {self.known.answers.get(session)}")
        wanted = {*self.known.sessions, "always/streams", "always/echo", "always/count"}
        problems += [f"nobody registered {name}" for name in names if name not in wanted]
        problems += [f"{name} is gone" for name in wanted if name.startswith("always") and name not in names]
        return problems[:5]

    def _not_processed(self, masters: list[Server]) -> list[str]:
        seen = set()
        for server in masters:
            with RespConnection(server.port, timeout=REQUEST_DEADLINE_S) as connection:
                for number in range(STREAMS):
                    members = connection("SMEMBERS", f"processed:{{{number}}}")
                    if isinstance(members, list):
                        seen |= {f"entries:{{{number}}} {entry.decode()}" for entry in members}
        left = sorted(self.known.entries - seen)
        return [f"{len(left)} of {len(self.known.entries)}", *left[:5]] if left else []

    def _not_ended(self, masters: list[Server]) -> list[str]:
        found = []
        for server in masters:
            for row in call(server, "RG.DUMPEXECUTIONS"):
                entry = dict(zip(row[::2], row[1::2]))
                if entry[b"status"] not in (b"done", b"aborted"):
                    found.append(f"{server.port}: {entry}")
        return found[:5]

    def _not_sent(self, masters: list[Server]) -> list[str]:
        found = []
        for server in masters:
            for row in call(server, "RG.INFOCLUSTER")[4]:
                fields = dict(zip(row[::2], row[1::2]))
                if fields[b"pendingMessages"]:
                    found.append(f"{server.port}: {fields}")
        return found

    def _resources(self, server: Server) -> Resources:
        """Resources when they do not change."""
        states: list[tuple[Resources, float]] = []

        def changes() -> object:
            now = Resources.of(server)
            if not states or states[-1][0] != now:
                states.append((now, time.monotonic()))
            return time.monotonic() - states[-1][1] < 1.0 and f"it changes: {now}"

        self._wait(changes, "the descriptors of a server do not change")
        return states[-1][0]

    def _check_resources(self, shards: Shards, before: dict[int, Resources]) -> None:
        for server in shards.masters():
            earlier, now = before.get(server.port), self._resources(server)
            self.report.lines.append(f"{server.port}: {now} at the end; after warm-up: {earlier}")
            if earlier is not None and (grown := now.grown_from(earlier)) is not None:
                self.findings.add(f"{server.port}: {grown}")

    def _check_logs(self, cluster: Cluster) -> None:
        for server in cluster.servers:
            lines = [line for line in server.log().splitlines() if any(alarm in line for alarm in LOG_ALARMS)]
            for line in lines[:5]:
                self.findings.add(f"the log of {server.port} has: {line}")
            if server.exit_code() is not None:
                self.findings.add(f"the server {server.port} has ended with {server.exit_code()}")


def main() -> int:
    seconds = float(os.environ.get("CHAOS_SECONDS") or 300)
    seed = os.environ.get("CHAOS_SEED") or new_seed()
    report = ClusterChaos(only_kind("chaos"), seconds, seed).run()
    print(report)
    return 1 if report.findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
