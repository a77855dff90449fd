"""What functions may call, and in which context: every command of the server, in every context of a function.

The rule is in `redgrease-core/src/policy.rs`. These tests run it on real servers: for any call of a function, the
server keeps serving, and the client that caused the call is answered.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from .database import Database, text
from .waiting import wait_until

CALLER = "GB('CommandReader').map(lambda x: execute(*x[1:])).register(trigger='call', mode='sync')"


def call(db: Database, *command: object) -> str:
    """The error that a sync trigger gets from a command, or its reply as text."""
    try:
        return str(text(db.r.execute_command("RG.TRIGGER", "call", *command)))
    except redis.ResponseError as error:
        return str(error)


def call_in_script(db: Database, *command: object) -> str:
    """The same for a trigger that a script calls."""
    script = "local r = redis.pcall('RG.TRIGGER', 'call', unpack(ARGV)); return r.err or r"
    return str(text(db.r.eval(script, 0, *command)))


def test_a_function_below_a_script_runs_no_script(db):
    db.ok(CALLER)
    for command in (["EVAL", "return 1", 0], ["FCALL", "f", 0], ["SCRIPT", "FLUSH"], ["FUNCTION", "FLUSH"]):
        assert "while a script is running" in call_in_script(db, *command), command
    assert call(db, "EVAL", "return 7", 0) == "['7']"
    # A function, a script of it, a trigger of that, a script of the trigger.
    errors = db.errors(
        "GB('ShardsIDReader').map(lambda _: execute('EVAL', "
        "\"return redis.call('RG.TRIGGER', 'call', 'EVAL', 'return 1', '0')\", 0)).run()"
    )
    assert "while a script is running" in errors[0]


def test_an_event_inside_a_script_runs_its_function_behind_the_script(db):
    db.ok("GB().foreach(lambda r: execute('EVAL', \"redis.call('incr', 'n')\", 0)).register('w', mode='sync')")
    assert db.r.eval("redis.call('set', 'w', 1); return redis.call('get', 'n')", 0) is None
    assert db.r.get("n") == b"1"


def test_a_sync_function_does_not_end_its_own_caller(db):
    db.ok(CALLER)
    for command in (["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"], ["client", "no-evict", "on"]):
        assert "FORBIDDEN" in call(db, *command) or "connection" in call(db, *command)
        assert "FORBIDDEN" in call_in_script(db, *command) or "connection" in call_in_script(db, *command)


@pytest.mark.parametrize("command", [["WAIT", 1, 0], ["WAIT", 0, 0], ["WAITAOF", 0, 0, 0], ["SHUTDOWN"]])
def test_what_would_wait_or_end_the_server_is_refused_everywhere(db, command):
    db.ok(CALLER)
    reason = "ends or replaces the process" if command == ["SHUTDOWN"] else "a function cannot wait"
    assert reason in call(db, *command)
    assert reason in call_in_script(db, *command)
    assert reason in db.errors(f"GB('ShardsIDReader').map(lambda _: execute(*{command!r})).run()")[0]


def test_protected_commands_are_protected_from_functions(fresh_server):
    db = fresh_server(conf={"enable-debug-command": "no", "enable-module-command": "no"})
    for command, option in (
        (["DEBUG", "SLEEP", "0"], "enable-debug-command"),
        (["MODULE", "LOAD", "/x.so"], "enable-module-command"),
    ):
        errors = db.errors(f"GB('ShardsIDReader').map(lambda _: execute(*{command!r})).run()")
        assert option in errors[0]
    errors = db.errors("GB('ShardsIDReader').map(lambda _: execute('CONFIG', 'SET', 'dir', '/tmp')).run()")
    assert "protected" in errors[0]


def test_local_protection_does_not_open_protected_commands_to_functions(fresh_server):
    db = fresh_server(conf={"enable-debug-command": "local"})
    assert db.r.execute_command("DEBUG", "SLEEP", 0) == b"OK"
    assert "'yes'" in db.errors("GB('ShardsIDReader').map(lambda _: execute('DEBUG', 'SLEEP', 0)).run()")[0]


def test_an_expired_key_s_function_may_flush_everything(db):
    db.ok(
        "GB().foreach(lambda r: (execute('FLUSHALL'), execute('INCR', 'flushed')))"
        ".register('*', mode='sync', readValue=False, eventTypes=['expired'])"
    )
    pipeline = db.r.pipeline(transaction=False)
    for number in range(3000):
        pipeline.set(f"e:{number}", "x" * 30, px=20 + number % 20)
    pipeline.execute()
    db.wait_key("flushed")
    wait_until(lambda: db.r.keys("e:*"), "nothing is left", until=lambda keys: not keys)


@pytest.mark.single("its commands name keys of several slots")
def test_a_function_may_remove_what_the_command_that_fired_it_was_using(db):
    db.ok(
        "def f(r):\n  execute('DEL', 'src')\n  for i in range(8): execute('SET', 'n%d' % i, str(i + 100000))\n"
        "GB().foreach(f).register('dst', mode='sync', readValue=False)"
    )
    for round_number in range(300):
        db.r.rpush("src", "a" * 100, "b" * 100)
        assert db.r.lmove("src", "dst", "LEFT", "RIGHT") == b"a" * 100
        assert db.r.exists("src") == 0
        if round_number % 50 == 0:
            db.r.delete("dst")


# -- every command, in every context

#: Calls each command of a plan and records the outcome; the last command is recorded before it is called.
WALK = """
import json
PLAN, LAST, ANSWERS = {plan!r}, {last!r}, {answers!r}
def go(x=None):
    with open(PLAN) as file:
        commands = json.load(file)
    for command in commands:
        with open(LAST, 'w') as file:
            json.dump(command, file)
        try:
            answer = repr(execute(*command))[:80]
        except BaseException as error:
            answer = 'error ' + str(error)[:80]
        with open(ANSWERS, 'a') as file:
            file.write(json.dumps([command, answer]) + chr(10))
def go_atomic(x):
    with atomic():
        go()
"""

REGISTRATIONS = """
GB('CommandReader').map(go).register(trigger='go', mode='sync')
GB().foreach(go).register('ev:*', mode='sync', readValue=False, eventTypes=['set'])
GB().foreach(go).register('async:*', mode='async_local', readValue=False, eventTypes=['set'])
GB().foreach(go).register('exp:*', mode='sync', readValue=False, eventTypes=['expired'])
GB('StreamReader').foreach(go).register('stream', mode='sync')
"""

LIBRARY = "#!lua name=walk\nredis.register_function('walk', function() return redis.call('RG.TRIGGER', 'go') end)"


class Plausible:
    """Example arguments from a command's documentation."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def arguments(self, docs: list) -> list[str]:
        found: list[str] = []
        for item in docs:
            found += self.argument(dict(zip(item[::2], item[1::2])))
        return found

    def argument(self, item: dict) -> list[str]:
        draw = self.draw
        if "optional" in item.get("flags", []) and draw.random() < 0.6:
            return []
        token = [item["token"]] if "token" in item else []
        kind = item["type"]
        if kind == "oneof":
            value = self.arguments([draw.choice(item["arguments"])])
        elif kind == "block":
            value = self.arguments(item["arguments"])
        elif kind == "pure-token":
            value = []
        elif kind == "key":
            value = [draw.choice(["k:s", "k:h", "k:l", "k:z", "k:x", "k:none", "ev:1"])]
        elif kind == "integer":
            value = [str(draw.choice([0, 1, 1, 2, -1]))]
        elif kind == "double":
            value = [draw.choice(["0.001", "0", "1.5"])]
        elif kind == "unix-time":
            value = ["1999999999"]
        elif kind == "pattern":
            value = [draw.choice(["*", "k:*"])]
        else:
            value = [draw.choice(["a", "1", "127.0.0.1", "default"])]
        return token + value


def commands_of(db: Database, seed: int) -> list[list[str]]:
    """Every command and subcommand, once without arguments and twice with plausible ones."""
    draw = random.Random(seed)
    plausible = Plausible(draw)
    raw = db.client(decode_responses=True)
    raw.response_callbacks.clear()
    docs = raw.execute_command("COMMAND", "DOCS")
    docs = dict(zip(docs[::2], docs[1::2]))
    calls: list[list[str]] = []

    def add(name: str, entry: list) -> None:
        fields = dict(zip(entry[::2], entry[1::2]))
        words = name.split("|")
        subcommands = fields.get("subcommands", [])
        for sub, sub_entry in zip(subcommands[::2], subcommands[1::2]):
            add(sub, sub_entry)
        calls.append(words)
        for _ in range(2):
            calls.append(words + plausible.arguments(fields.get("arguments", [])))

    for name in raw.execute_command("COMMAND", "LIST"):
        add(name, docs.get(name, []))
    # Calls that are not derived from documentation, and that crashed a server in an earlier version.
    calls += [
        ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"],
        ["EVAL", "return redis.call('FLUSHALL')", "0"],
        ["EVAL", "return redis.call('RG.TRIGGER', 'go2')", "0"],
        ["SCRIPT", "FLUSH", "SYNC"],
        ["FUNCTION", "FLUSH", "SYNC"],
        ["FLUSHALL", "SYNC"],
        ["SWAPDB", "0", "1"],
        ["DEBUG", "RELOAD"],
        ["DEBUG", "SEGFAULT"],
        ["DEBUG", "SLEEP", "0"],
        ["WAIT", "1", "0"],
        ["SHUTDOWN", "NOW"],
        ["SHUTDOWN", "NOSAVE"],
        ["MODULE", "UNLOAD", "rg"],
        ["REPLICAOF", "NO", "ONE"],
        ["BLPOP", "k:none", "0"],
        ["XREAD", "BLOCK", "0", "STREAMS", "k:x", "$"],
        ["CONFIG", "SET", "maxmemory", "0"],
        ["ACL", "SETUSER", "default", "on"],
        ["RG.TRIGGER", "go2"],
        ["RG.PYEXECUTE", "GB().run()"],
        ["RG.INNERATOMIC"],
        ["RG.INNERCONTEXT", "x"],
    ]
    draw.shuffle(calls)
    # Calls that would disturb the test itself rather than the server; functions may call them.
    unwanted = {
        ("client", "kill"),
        ("client", "pause"),
        ("replicaof",),
        ("slaveof",),
        ("failover",),
        ("debug", "sleep"),
    }
    return [c for c in calls if tuple(w.lower() for w in c[:2]) not in unwanted and (c[0].lower(),) not in unwanted]


class Walker:
    """Runs lists of commands in one context after the other."""

    def __init__(self, db: Database, directory: Path) -> None:
        self.db = db
        self.plan, self.last, self.answers = (directory / name for name in ("plan", "last", "answers"))
        self.source = WALK.format(plan=str(self.plan), last=str(self.last), answers=str(self.answers))

    def count(self) -> int:
        return len(self.answers.read_bytes().splitlines()) if self.answers.exists() else 0

    def restore(self) -> None:
        """Undo what commands of the last list may have changed for the test."""
        r = self.db.r
        r.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
        r.execute_command("CLIENT", "UNPAUSE")
        for option, value in (("maxmemory", 0), ("maxmemory-policy", "noeviction"), ("lua-time-limit", 5000)):
            r.config_set(option, value)
        r.execute_command("FUNCTION", "LOAD", "REPLACE", LIBRARY)
        r.delete("k:s", "k:h", "k:l", "k:z", "k:x")
        pipeline = r.pipeline(transaction=False)
        pipeline.set("k:s", "1").hset("k:h", "a", "1").rpush("k:l", "a", "b").zadd("k:z", {"a": 1}).xadd(
            "k:x", {"a": 1}
        )
        pipeline.execute(raise_on_error=False)
        if len(self.db.registrations()) < 5:
            for registration in self.db.registrations():
                r.execute_command("RG.UNREGISTER", registration.id)
            self.db.ok(self.source + REGISTRATIONS)

    def contexts(self) -> dict[str, Callable[[], object]]:
        r = self.db.r
        return {
            "run": lambda: self.db.execute(self.source + "GB('ShardsIDReader').foreach(go).run()"),
            "atomic": lambda: self.db.execute(self.source + "GB('ShardsIDReader').foreach(go_atomic).run()"),
            "trigger": lambda: r.execute_command("RG.TRIGGER", "go"),
            "transaction": lambda: r.pipeline().execute_command("RG.TRIGGER", "go").execute(),
            "script": lambda: r.eval("return redis.call('RG.TRIGGER', 'go')", 0),
            "library": lambda: r.fcall("walk", 0),
            "event": lambda: r.set("ev:1", "v"),
            "event in a script": lambda: r.eval("return redis.call('set', 'ev:1', 'v')", 0),
            "event in a transaction": lambda: r.pipeline().set("ev:1", "v").execute(),
            "asynchronous event": lambda: r.set("async:1", "v"),
            "expiry": lambda: r.set("exp:1", "v", px=1),
            "stream": lambda: r.xadd("stream", {"a": 1}),
            "script of a function": lambda: self.db.execute(
                "GB('ShardsIDReader').foreach(lambda _: execute('EVAL', "
                "\"return redis.call('RG.TRIGGER', 'go')\", 0)).run()"
            ),
        }

    def walk(self, context: str, commands: list[list[str]]) -> None:
        self.restore()
        self.plan.write_text(json.dumps(commands))
        before = self.count()
        try:
            self.contexts()[context]()
        except redis.ResponseError as error:
            assert "FORBIDDEN" not in str(error)
        except redis.ConnectionError as error:
            last = self.last.read_text() if self.last.exists() else "nothing"
            raise AssertionError(f"{context}: the caller was not answered after {last}: {error}") from error
        wait_until(
            self.count,
            f"all commands are called in context {context!r}",
            until=lambda count: count >= before + len(commands),
            deadline=60,
        )
        assert self.db.server.exit_code() is None, f"{context}: the server ended after {self.last.read_text()}"


LIST = 40


@pytest.mark.parametrize("part", [0.1, pytest.param(1.0, marks=pytest.mark.slow)])
def test_no_command_that_a_function_calls_in_any_context_ends_the_server(fresh_server, tmp_path, part):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    db = fresh_server(load_args={"SyncMaxTime": 60_000})
    walker = Walker(db, tmp_path)
    walker.restore()
    calls = commands_of(db, seed)
    draw = random.Random(seed)
    for context in walker.contexts():
        chosen = [command for command in calls if draw.random() < part]
        for start in range(0, len(chosen), LIST):
            walker.walk(context, chosen[start : start + LIST])
    assert walker.count() > 13 * part * len(calls) / 2


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_sync_function_may_unregister_itself(db):
    db.ok(
        "GB().foreach(lambda r: execute('RG.UNREGISTER', execute('get', 'id')))"
        ".register('w:*', mode='sync', readValue=False, eventTypes=['set'])"
    )
    for _ in range(20):
        db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync', eventTypes=['set'])")
    db.r.set("id", db.registrations()[0].id)
    pipeline = db.r.pipeline(transaction=False)
    for number in range(10):
        pipeline.set(f"w:{number}", "v")
    pipeline.execute()
    assert len(db.registrations()) == 20
    assert db.r.get("n") == b"200"
    # The last one ends the wait for the next command, from within it (Redis 7.0).
    for registration in db.registrations():
        db.unregister(registration.id)
    db.ok(
        "GB().foreach(lambda r: execute('RG.UNREGISTER', execute('get', 'id')))"
        ".register('w:*', mode='sync', readValue=False, eventTypes=['set'])"
    )
    db.r.set("id", db.registrations()[0].id)
    pipeline = db.r.pipeline(transaction=False)
    for number in range(10):
        pipeline.set(f"w:{number}", "v")
    pipeline.execute()
    assert db.registrations() == []
