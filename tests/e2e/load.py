"""Random load on one server: the clients of the chaos test and of the soak test, and what they know of its data.

Each client is a thread with its own connection, its own random numbers (made from the seed and its name) and its own
registrations, which no other client touches. It records what the server acknowledged, so that the checks at the end can
compare it with what the server has.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .load_requests import REQUEST_DEADLINE_S, WORKER_ERRORS, Asker, BrokenError, Findings, Life, Tally
from .resp import Err, Reply, Simple

#: Streams that async functions read, and those that a sync function reads.
ASYNC_STREAMS = [f"s:{number}" for number in range(6)]
SYNC_STREAMS = [f"y:{number}" for number in range(3)]
KEYS = 200
#: Begin of the descriptions of registered commands, after that of the session.
COMMAND = "command"
NOTE = "foreach(lambda r: execute('INCR', 'noted'))"
#: Sessions with registrations that one client has at any time.
SESSIONS_PER_CLIENT = 3

#: The registrations that are always there. With `record`, their functions store the id of each entry.
ALWAYS = {
    "always-streams": """
def note(name):
    def step(r):
        {note}
    return step
GB('StreamReader', desc='always-streams/one').foreach(note('one')).register('s:*', batch=1)
GB('StreamReader', desc='always-streams/many').foreach(note('many')).register(
    's:*', batch=20, duration=200, onFailedPolicy='retry', onFailedRetryInterval=1)
GB('StreamReader', desc='always-streams/local').foreach(note('local')).register(
    's:*', batch=7, duration=100, mode='async_local', onFailedPolicy='retry', onFailedRetryInterval=1)
""",
    "always-sync": """
def step(r):
    name = 'sync'
    {note}
GB('StreamReader', desc='always-sync/stream').foreach(step).register('y:*', mode='sync')
GB('CommandReader', desc='always-sync/echo').map(lambda x: x[1]).register(trigger='echo_sync', mode='sync')
""",
    "always-commands": """
def write(x):
    execute('SET', 'k:' + x[1], x[2])
    return x[2]
GB('CommandReader', desc='always-commands/echo').map(lambda x: x[1]).register(trigger='echo')
GB('CommandReader', desc='always-commands/write').map(write).register(trigger='write')
GB('KeysReader', desc='always-commands/keys').foreach(lambda r: execute('INCR', 'fired')).register(
    'k:*', eventTypes=['set'], readValue=False)
""",
}
RECORD = "execute('SADD', 'seen:' + name, r['key'] + ' ' + r['id'])"
COUNT = "execute('INCR', 'seen:' + name)"
#: Which of them read the entries of which streams.
READERS = {"one": ASYNC_STREAMS, "many": ASYNC_STREAMS, "local": ASYNC_STREAMS, "sync": SYNC_STREAMS}


def always_descriptions() -> list[str]:
    """Descriptions of the registrations that are always there."""
    return sorted(part.split("'")[0] for script in ALWAYS.values() for part in script.split("desc='")[1:])


# -- what the clients do, with weights: the seed changes each of them

MIX = {
    "run_function": 12,
    "run_and_fetch": 3,
    "abandon": 2,
    "register": 3,
    "unregister": 3,
    "upgrade": 2,
    "trigger": 25,
    "trigger_own": 8,
    "write_keys": 20,
    "add_entries": 25,
    "look": 5,
    "look_at_registrations": 2,
}
#: Runs that end their worker or leave processes behind: not in the soak test, where nothing is killed.
HARMFUL = ("crash", "daemon")

RUNS = {
    "count": "GB().count().run('k:*')",
    "map": "GB().map(lambda r: r['key']).filter(lambda k: k[-1] in '13579').count().run('k:*')",
    "group": "GB().countby(lambda r: r['key'][-1]).run('k:*')",
    "token": "GB('ShardsIDReader').map(lambda _: '{token}').run()",
    "calls": "GB('ShardsIDReader').map(lambda _: [execute('INCR', 'calls') for _ in range(20)] and '{token}').run()",
    "stream": "GB('StreamReader').count().run('s:*', pattern=True)",
    "fail": "GB('ShardsIDReader').map(lambda _: 1 / 0).run()",
    "slow": "import time\nGB('ShardsIDReader').map(lambda _: time.sleep({pause}) or '{token}').run()",
    "top": "import time\ntime.sleep({pause})\nGB('ShardsIDReader').map(lambda _: '{token}').run()",
    "async": "import asyncio\nasync def step(_):\n    await asyncio.sleep({pause})\n    return '{token}'\n"
    "GB('ShardsIDReader').map(step).run()",
    "crash": "import os\nGB('ShardsIDReader').map(lambda _: os._exit(3)).run()",
    "daemon": "import subprocess\n"
    "GB('ShardsIDReader').map(lambda _: subprocess.Popen(['sleep', '600']).pid and '{token}').run()",
}


@dataclass
class Known:
    """What clients know about the server's data; each client has its own, and they are merged at the end."""

    #: Acknowledged entries, as 'stream id'.
    entries: set[str] = field(default_factory=set)
    #: For each session the sets of registrations (descriptions) that it may have: several after a broken connection.
    sessions: dict[str, set[frozenset[str]]] = field(default_factory=dict)
    #: For each counter how often it was incremented with an answer, and without.
    increments: dict[str, tuple[int, int]] = field(default_factory=dict)

    def merge(self, other: Known) -> None:
        self.entries |= other.entries
        self.sessions.update(other.sessions)
        self.increments.update(other.increments)

    def may_have(self, session: str, registrations: Iterable[str]) -> None:
        self.sessions.setdefault(session, {frozenset()}).add(frozenset(registrations))

    def has(self, session: str, registrations: Iterable[str]) -> None:
        self.sessions[session] = {frozenset(registrations)}


@dataclass(frozen=True)
class Listed:
    """A row of RG.DUMPREGISTRATIONS."""

    id: str
    description: str

    @property
    def session(self) -> str:
        return self.description.split("/")[0]


def listed(rows: Reply) -> list[Listed]:
    """The rows of RG.DUMPREGISTRATIONS."""
    assert isinstance(rows, list)
    found = []
    for row in rows:
        entry = dict(zip(row[::2], row[1::2]))
        found.append(Listed(entry[b"id"].decode(), (entry[b"desc"] or b"").decode()))
    return found


def reconcile(known: Known, rows: Sequence[Listed]) -> list[str]:
    """Compare a list of registrations with what may be in it; afterwards only that is possible. What differs."""
    differences = []
    for session, possible in known.sessions.items():
        found = Counter(row.description for row in rows if row.session == session)
        doubled = [description for description, count in found.items() if count > 1]
        if doubled:
            differences.append(f"registrations of session {session!r} are listed more than once: {doubled}")
        if frozenset(found) not in possible:
            allowed = " or ".join(str(sorted(each)) for each in possible)
            differences.append(f"session {session!r} has the registrations {sorted(found)}, expected {allowed}")
        known.has(session, found)
    return differences


class Client(threading.Thread):
    """One client: random requests until it is told to stop."""

    def __init__(self, life: Life, findings: Findings, seed: str, name: str, *, pause_s: float, harm: bool) -> None:
        super().__init__(name=name, daemon=True)
        self.asker = Asker(life, findings, name)
        self.known = Known()
        self.stopping = threading.Event()
        self._findings = findings
        self._pause_s = pause_s
        self._random = random.Random(f"{seed}/{name}")
        shared = random.Random(f"{seed}/mix")
        self._mix = {kind: weight * shared.uniform(0.3, 2.0) for kind, weight in MIX.items()}
        self._runs = [name for name in RUNS if harm or name not in HARMFUL]
        self._sessions = 0
        self._numbers = 0

    @property
    def _ask(self) -> Callable[..., Reply]:
        return self.asker.ask

    def run(self) -> None:
        kinds, weights = list(self._mix), list(self._mix.values())
        try:
            while not self.stopping.is_set() and not self._findings.too_many.is_set():
                [kind] = self._random.choices(kinds, weights)
                with contextlib.suppress(BrokenError):
                    getattr(self, kind)()
                self.stopping.wait(self._random.expovariate(1 / self._pause_s))
        except Exception as error:  # a fault of the test itself must not look like a quiet client
            self._findings.add(f"{self.name} ended with {error!r} (a fault of the load)")
            raise
        finally:
            self.asker.close()

    def _token(self) -> str:
        self._numbers += 1
        return f"{self.name}-{self._numbers}"

    def _expect(self, reply: Reply, expected: Reply, what: str) -> None:
        if not isinstance(reply, Err) and reply != expected:
            self._findings.add(f"{self.name}: {what} was answered with {reply!r}, expected {expected!r}")

    # -- runs

    def _script(self) -> tuple[str, str, str]:
        """Name, text and token of a random script that runs a function."""
        # Those that do harm are rare.
        name = self._random.choice([each for each in self._runs if each not in HARMFUL])
        if self._random.random() < 0.03 and "crash" in self._runs:
            name = self._random.choice(HARMFUL)
        token = self._token()
        return name, RUNS[name].format(token=token, pause=round(self._random.uniform(0.01, 0.3), 3)), token

    def run_function(self) -> None:
        name, script, token = self._script()
        allowed = {*WORKER_ERRORS, "ZeroDivisionError:"} if name == "fail" else WORKER_ERRORS
        reply = self._ask(f"run {name}", "RG.PYEXECUTE", script, allowed=allowed)
        if "{token}" in RUNS[name] and isinstance(reply, list) and not reply[1]:
            self._expect(reply, [[token.encode()], []], f"run {name}")

    def run_and_fetch(self) -> None:
        """Run UNBLOCKING, then fetch the results, abort or drop the execution, or forget it."""
        _, script, _ = self._script()
        reply = self._ask("run unblocking", "RG.PYEXECUTE", script, "UNBLOCKING")
        if not isinstance(reply, bytes):
            return
        # The execution may have ended, and is unknown after a restart of the server.
        allowed = {*WORKER_ERRORS, "ZeroDivisionError:", "execution", "can", "gears.forcestopped:", "Execution"}
        for command in self._random.choice(
            (["RG.GETRESULTSBLOCKING"], ["RG.ABORTEXECUTION", "RG.GETRESULTSBLOCKING"], ["RG.DROPEXECUTION"], [])
        ):
            self._ask(command, command, reply, allowed=allowed)

    def abandon(self) -> None:
        command = self._random.choice((["RG.PYEXECUTE", self._script()[1]], ["RG.TRIGGER", "echo", self._token()]))
        self.asker.abandon("sent and left", *command)

    # -- registrations

    def register(self) -> None:
        mine = [session for session, possible in self.known.sessions.items() if possible != {frozenset()}]
        if len(mine) >= SESSIONS_PER_CLIENT:
            return self.unregister()
        self._sessions += 1
        session = f"{self.name}-{self._sessions}"
        return self._send_registrations("register", session)

    def upgrade(self) -> None:
        session = self._one_with_registrations()
        if session is not None:
            self._send_registrations("upgrade", session, "UPGRADE")

    def _send_registrations(self, kind: str, session: str, *options: str) -> None:
        registrations = dict(self._registration(session) for _ in range(self._random.choice((1, 1, 2))))
        script, descriptions = "\n".join(registrations.values()), list(registrations)
        self.known.may_have(session, descriptions)
        reply = self._ask(kind, "RG.PYEXECUTE", script, "ID", session, *options)
        if reply == Simple("OK"):
            self.known.has(session, descriptions)
        elif isinstance(reply, Err):
            self.known.sessions[session].discard(frozenset(descriptions))
        else:
            self._findings.add(f"{self.name}: {kind} was answered with {reply!r}")

    def _registration(self, session: str) -> tuple[str, str]:
        """Description and text of a random registration."""
        choice = self._random.choice
        kind = choice(("keys", COMMAND, "stream"))
        description = f"{session}/{kind}-{self._token()}"
        mode = choice(("async", "async_local", "sync"))
        if kind == COMMAND:
            reader, step, arguments = "CommandReader", "map(lambda x: x[1])", f"trigger='{description}'"
        elif kind == "keys":
            reader, step = "KeysReader", NOTE
            arguments = f"'k:*{choice('0123456789')}', eventTypes=['set', 'del'], readValue=False"
        else:
            reader, step = "StreamReader", NOTE
            policy = "continue" if mode == "sync" else choice(("continue", "retry"))
            arguments = (
                f"'{choice((*ASYNC_STREAMS, 's:*', 'y:*'))}', batch={choice((1, 3, 10, 200))}, duration=100, "
                f"trimStream={choice((True, False))}, onFailedPolicy='{policy}'"
            )
        return description, f"GB('{reader}', desc='{description}').{step}.register({arguments}, mode='{mode}')"

    def unregister(self) -> None:
        rows = self._mine(self.look_at_registrations())
        if not rows:
            return
        row = self._random.choice(rows)
        left = {each.description for each in rows if each.session == row.session} - {row.description}
        self.known.may_have(row.session, left)
        options = self._random.choice(([], ["ABORTPENDING"]))
        reply = self._ask("unregister", "RG.UNREGISTER", row.id, *options)
        if reply == Simple("OK"):
            self.known.has(row.session, left)

    def look_at_registrations(self) -> list[Listed]:
        reply = self._ask("dump registrations", "RG.DUMPREGISTRATIONS")
        if not isinstance(reply, list):
            return []
        rows = listed(reply)
        for difference in reconcile(self.known, rows):
            self._findings.add(f"{self.name}: {difference}")
        return rows

    def _mine(self, rows: Iterable[Listed]) -> list[Listed]:
        return [row for row in rows if row.session in self.known.sessions]

    def _one_with_registrations(self) -> str | None:
        rows = self._mine(self.look_at_registrations())
        return self._random.choice(rows).session if rows else None

    # -- triggers

    def trigger(self) -> None:
        token = self._token()
        name = self._random.choice(("echo", "echo_sync", "write"))
        arguments = [str(self._random.randrange(KEYS)), token] if name == "write" else [token]
        reply = self._ask(f"trigger {name}", "RG.TRIGGER", name, *arguments)
        self._expect(reply, [token.encode()], f"trigger {name}")

    def trigger_own(self) -> None:
        """Trigger one of the client's commands, which must exist."""
        rows = self._mine(self.look_at_registrations())
        triggers = [row.description for row in rows if row.description.split("/")[1].startswith(COMMAND)]
        if not triggers:
            return
        token = self._token()
        reply = self._ask("trigger own", "RG.TRIGGER", self._random.choice(triggers), token)
        self._expect(reply, [token.encode()], "its own trigger")

    # -- data

    def write_keys(self) -> None:
        key = f"k:{self._random.randrange(KEYS)}"
        command = self._random.choice(
            (
                ["SET", key, self._token()],
                ["SET", key, self._token(), "PX", self._random.randrange(1, 2000)],
                ["MSET", key, 1, f"k:{self._random.randrange(KEYS)}", 2],
                ["DEL", key],
                ["GET", key],
                ["INCR", f"increments:{self.name}"],
            )
        )
        if command[0] != "INCR":
            self._ask(f"write {command[0]}", *command)
            return
        answered, unanswered = self.known.increments.get(str(command[1]), (0, 0))
        self.known.increments[str(command[1])] = (answered, unanswered + 1)
        reply = self._ask("write INCR", *command)
        if isinstance(reply, int):
            self.known.increments[str(command[1])] = (answered + 1, unanswered)

    def add_entries(self) -> None:
        how = self._random.choice((self._add_one, self._add_several, self._add_in_transaction, self._add_in_script))
        stream = self._random.choice((*ASYNC_STREAMS, *SYNC_STREAMS))
        how(stream)

    def _entry(self, stream: str) -> list[object]:
        return ["XADD", stream, "*", "from", self._token()]

    def _acknowledged(self, stream: str, replies: Iterable[Reply]) -> None:
        self.known.entries.update(f"{stream} {reply.decode()}" for reply in replies if isinstance(reply, bytes))

    def _add_one(self, stream: str) -> None:
        self._acknowledged(stream, [self._ask("xadd", *self._entry(stream))])

    def _add_several(self, stream: str) -> None:
        entries = [self._entry(stream) for _ in range(self._random.randrange(2, 12))]
        try:
            self._acknowledged(stream, self.asker.ask_many("xadd pipeline", entries))
        except BrokenError as broken:
            self._acknowledged(stream, broken.args[0])
            raise

    def _add_in_transaction(self, stream: str) -> None:
        commands: list[list[object]] = [["MULTI"], self._entry(stream), self._entry(stream), ["EXEC"]]
        reply = self.asker.ask_many("xadd transaction", commands)[-1]
        if isinstance(reply, list):
            self._acknowledged(stream, reply)

    def _add_in_script(self, stream: str) -> None:
        script = "return redis.call('XADD', KEYS[1], '*', 'from', ARGV[1])"
        self._acknowledged(stream, [self._ask("xadd script", "EVAL", script, 1, stream, self._token())])

    def look(self) -> None:
        command = self._random.choice(
            (
                ["CONFIG", "GET", "rg.*"],
                ["RG.CONFIGGET", "MaxWorkers", "SyncMaxTime"],
                ["RG.DUMPEXECUTIONS"],
                ["RG.PYDUMPSESSIONS"],
                ["RG.PYSTATS"],
                ["RG.INFOCLUSTER"],
                ["INFO", "everything"],
                ["XINFO", "STREAM", self._random.choice(ASYNC_STREAMS)],
            )
        )
        self._ask(f"look {command[0]}", *command, allowed={*WORKER_ERRORS, "ERR"} if "XINFO" in command else ())


class Administrator(threading.Thread):
    """One client that saves, rewrites the append-only file and pauses writes, at random times."""

    #: Milliseconds of a pause of writes.
    PAUSE_MS_MAX = 400

    def __init__(self, life: Life, findings: Findings, seed: str, *, interval_s: float, pauses: bool = True) -> None:
        super().__init__(name="administrator", daemon=True)
        self.asker = Asker(life, findings, self.name)
        self.stopping = threading.Event()
        self._findings = findings
        self._random = random.Random(f"{seed}/{self.name}")
        self._interval_s = interval_s
        self._pauses = pauses

    def run(self) -> None:
        while not self.stopping.wait(self._random.uniform(0.3, 1.7) * self._interval_s):
            commands: list[list[object]] = [["BGSAVE"], ["BGREWRITEAOF"]]
            if self._pauses:
                commands += [["CLIENT", "PAUSE", self._random.randrange(20, self.PAUSE_MS_MAX), "WRITE"]] * 2
            command = self._random.choice(commands)
            with contextlib.suppress(BrokenError):
                # One is refused while the other runs.
                self.asker.ask(str(command[0]), *command, allowed={"ERR", "Background", "LOADING"})
        self.asker.close()


@dataclass
class Load:
    """The clients of a phase, and what they knew when they had stopped."""

    life: Life
    findings: Findings
    seed: str
    clients: int
    pause_s: float
    admin_interval_s: float
    harm: bool = True
    #: Begin of the clients' names: names of sessions must not repeat in another phase.
    prefix: str = "c"

    def __enter__(self) -> Load:
        self._clients = [
            Client(self.life, self.findings, self.seed, f"{self.prefix}{number}", pause_s=self.pause_s, harm=self.harm)
            for number in range(self.clients)
        ]
        self._administrator = Administrator(
            self.life, self.findings, self.seed, interval_s=self.admin_interval_s, pauses=self.harm
        )
        for thread in self._threads:
            thread.start()
        return self

    @property
    def _threads(self) -> list[Client | Administrator]:
        return [*self._clients, self._administrator]

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.stopping.set()
        deadline = time.monotonic() + REQUEST_DEADLINE_S + 10
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
            if thread.is_alive():
                self.findings.add(f"{thread.name} has not stopped {REQUEST_DEADLINE_S + 10:.0f} s after it was told to")

    def result(self) -> tuple[Known, Tally]:
        """What the clients know, and their requests."""
        known, tally = Known(), Tally()
        for client in self._clients:
            known.merge(client.known)
        for thread in self._threads:
            tally.add(thread.asker.tally)
        return known, tally


def register_always(asker: Asker, *, record: bool) -> Known:
    """Register the functions that are always there; what is known then."""
    known = Known()
    for session, script in ALWAYS.items():
        text = script.replace("{note}", RECORD if record else COUNT)
        reply = asker.ask("register", "RG.PYEXECUTE", text, "ID", session)
        assert reply == Simple("OK"), reply
        known.has(session, [each for each in always_descriptions() if each.startswith(f"{session}/")])
    return known
