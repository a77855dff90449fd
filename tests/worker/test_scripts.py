"""Scripts: their namespace, their errors, and every argument of the builder."""

# ruff: noqa: E501 (scripts and tables read better in one line)

import os
import subprocess
import sys
import time

import pytest

from . import frames
from .server import Server


@pytest.fixture(scope="module")
def shared():
    with Server() as one:
        yield one


def fails(server, source, session=1, **options):
    error = server.script(source, session, **options)["error"]
    assert error is not None, f"no error: {source}"
    assert "redgrease" not in error, f"our own frames are shown: {error}"
    return error


# ---- scripts ----


def test_nothing_and_comments_are_fine(shared):
    for source in ("", "# nothing", b"\xef\xbb\xbfx = 1", "# -*- coding: latin-1 -*-\nx = '\xe4'".encode("latin-1")):
        assert shared.script(source)["error"] is None, source


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def f(:", "invalid syntax"),
        (b"x = '\xff'", "SyntaxError"),
        (b"x = 1\0", "null bytes"),
        ("raise ValueError('oh')", "ValueError: oh"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("GB().nothing()", "nothing"),
        ("GB('No')", "The given reader does not exists"),
        ("execute('nope')", "ERR unknown command 'nope'"),
        ("flat_error('PAUSE now')", "PAUSE now"),
    ],
)
def test_errors_of_scripts(shared, source, text):
    assert text in fails(shared, source)


def test_an_error_is_a_list_of_lines_with_the_users_frames(shared):
    error = fails(shared, "def f():\n    return x\nf()")
    assert error.startswith("['Traceback (most recent call last):\\n', '  File \"<string>\", line 3, in <module>\\n'")
    assert error.endswith("\"NameError: name 'x' is not defined\\n\"]")
    plain = fails(shared, "1 / 0", traceback=False)
    assert plain == "Error type: <class 'ZeroDivisionError'>, Value: division by zero"
    flat = fails(shared, "flat_error('just this')")
    assert flat == "just this"
    chained = fails(shared, "try:\n  1 / 0\nexcept ZeroDivisionError as e:\n  raise KeyError('k') from e")
    assert "ZeroDivisionError" in chained and "KeyError: 'k'" in chained
    assert "gears.error: " in fails(shared, "execute(1)")


def test_the_namespace_of_a_script(shared):
    names = [
        "GearsBuilder",
        "GB",
        "execute",
        "atomic",
        "call_next",
        "get_command",
        "override_reply",
        "hashtag",
        "log",
        "configGet",
        "gearsConfigGet",
        "registerTE",
        "flat_error",
        "isAsyncAllow",
        "isInAtomicBlock",
        "gearsFuture",
        "gearsCtx",
        "setGearsSession",
        "getGearsSession",
        "registerGearsThread",
        "GearsSession",
        "createFuture",
        "setFutureResults",
        "setFutureException",
        "runCoroutine",
        "Log",
        "ConfigGet",
        "GearsConfigGet",
        "redisgears",
        "rg",
        "copy",
        "cProfile",
        "pstats",
        "io",
        "asyncio",
        "Future",
        "Thread",
    ]
    source = (
        "[" + ", ".join(names) + "]\nassert __name__ == '__main__'\nassert rg is redisgears\nimport redisgears as r\n"
    )
    source += "r.executeCommand, r.atomicCtx, r.getMyHashTag, r.log, r.config_get, r.flatError, r.isInAtomicBlock\n"
    source += "r.GearsError, r.GearsFlatError, r.GearsForceStopped, r.GearsBuilder\n"
    source += "from __main__ import GB, execute, log, hashtag, atomic, configGet, gearsConfigGet\n"
    source += "assert hashtag() == '06S' and not isAsyncAllow() and not isInAtomicBlock()\n"
    source += "assert configGet('x') is None and gearsConfigGet('x', 'd') == 'd' and GearsConfigGet('x', 1) == 1\n"
    assert shared.script(source)["error"] is None
    assert shared.wait_for("log")["level"] == 3
    assert "not enough arguments for time event" in fails(shared, "registerTE()")


def test_sessions_do_not_see_each_other_but_their_functions_share(shared):
    assert shared.script("secret = [1]", session=50)["error"] is None
    assert "NameError" in fails(shared, "secret", session=51)
    assert "NameError" in fails(shared, "secret", session=50), "a script's namespace is fresh"
    source = "secret = [1]\ndef f(x):\n  secret.append(x)\n  return secret\nGB().map(f).map(lambda x: secret).run()"
    assert shared.run(source, [2, 3], session=52) == (["[1, 2]", "[1, 2, 3]"], [])
    shared.send(frames.forget_session(52))
    assert "NameError" in fails(shared, "secret", session=52)


def test_execute_converts_both_ways():
    seen = []

    def echo(*args):
        seen.append(args)
        return [1, None, "text", b"\xff\x00", ["x"], b"bytes"]

    with Server(commands={"echo": echo}) as server:
        source = """
got = execute('echo', 'a', b'b\\x00', bytearray(b'c'), 1, 2.5, None, 'ä', '\\udcff')
assert got == [1, None, 'text', b'\\xff\\x00', ['x'], b'bytes'], got
"""
        assert server.script(source)["error"] is None
        assert seen == [(b"a", b"b\0", b"c", b"1", b"2.5", b"None", "ä".encode(), b"\xff")]
        assert server.run("GB('ShardsIDReader').map(lambda _: execute()).run()") == (["[]"], [])
        assert "the given command must be a string" in fails(server, "execute(b'get', 'x')")
        caught = (
            "import redisgears\ntry:\n  execute('nope')\nexcept redisgears.GearsError as e:\n  raise ValueError(str(e))"
        )
        assert "ValueError: ERR unknown command 'nope'" in fails(server, caught)


def test_atomic_blocks(server):
    source = """
with atomic():
    assert isInAtomicBlock()
    execute('ping')
assert not isInAtomicBlock()
"""
    assert server.script(source)["error"] is None
    assert [call["op"] for call in server.calls] == ["enter", "execute", "exit"]
    assert "Already inside an atomic block" in fails(server, "with atomic():\n  with atomic():\n    pass")
    assert [call["op"] for call in server.calls[3:]] == ["enter", "exit"], "the failing block was not left"
    assert "Not inside an atomic block" in fails(server, "atomic().__exit__(None, None, None)")
    # A function that does not leave its block is taken out of it.
    assert server.run("GB().foreach(lambda r: atomic().__enter__()).count().run()", [1]) == (["1"], [])
    assert [call["op"] for call in server.calls[-2:]] == ["enter", "exit"]
    assert server.run("GB().map(lambda r: isInAtomicBlock()).run()", [1]) == (["False"], [])


@pytest.mark.parametrize(
    ("source", "level", "message"),
    [
        ("log('x')", 2, b"x"),
        ("log('x', 'debug')", 0, b"x"),
        ("log('x', level='verbose')", 1, b"x"),
        ("log('warning', 'old form')", 3, b"old form"),
        ("log('100 %s \\x00 \\udcff')", 2, b"100 %s \0 \xff"),
        ("Log('x')", 3, b"Log is deprecated, use log instead"),
    ],
)
def test_log(server, source, level, message):
    assert server.script(source, session=4)["error"] is None
    frame = server.wait_for("log")
    assert (frame["session"], frame["level"], frame["message"]) == (4, level, message)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("log()", "log function must get a log message as input"),
        ("log(1)", "Log message must be a string"),
        ("log('x', 1)", "Log level must be a sting (debug/verbose/notice/warning)"),
        ("log('x', 'loud')", "Log level should be one of the following : debug,verbose,notice,warning"),
        ("configGet()", "get_config function must get a single key input"),
        ("configGet(1)", "get_config key must be a string"),
        ("setGearsSession()", "Wrong number of args given to setGearsSession"),
        ("setGearsSession(1)", "Given object is not of type GearsSession"),
    ],
)
def test_misuse_of_the_runtime(shared, source, text):
    assert text in fails(shared, source)


def test_a_thread_of_the_users_may_execute(server):
    source = """
import threading
got = []
def work():
    got.append(execute('ping'))
    log('from a thread')
thread = threading.Thread(target=work)
thread.start()
thread.join(5)
assert got == ['PONG'], got
"""
    assert server.script(source)["error"] is None
    server.wait_for("log", session=1)
    assert server.script("other = 1", session=2)["error"] is None
    # With two sessions in one worker it must name its session.
    assert (
        "setGearsSession"
        in server.script(
            source.replace("append(execute", "append(execute")
            .replace("thread.join(5)", "thread.join(5)\nimport threading")
            .replace(
                "    got.append(execute('ping'))",
                "    try: execute('ping')\n    except Exception as e: got.append(str(e))",
            )
        )["error"]
    )
    bound = source.replace("def work():\n", "session = getGearsSession()\ndef work():\n    setGearsSession(session)\n")
    assert server.script(bound)["error"] is None


# ---- the builder ----

OPS = {"map": 1, "filter": 1, "foreach": 1, "flatmap": 1, "accumulate": 1, "repartition": 1, "groupby": 2, "localgroupby": 2, "batchgroupby": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("GB(1)", "reader argument must be a string"),
        ("GB('KeysReader', desc=1)", "desc argument must be a string"),
        *((f"GB().{op}()", f"wrong number of args to {op} function") for op in OPS),
        *((f"GB().{op}({'1, ' * count})", f"{op} argument must be a function") for op, count in OPS.items()),
        ("GB().batchgroupby(lambda x: x, 1)", "batchgroupby argument must be a function"),
        ("GB().map(f=lambda x: x)", "unexpected keyword"),
        ("GB().collect(1)", "wrong number of args to collect function"),
        ("GB().limit()", "wrong number of args to limit function"),
        ("GB().limit(1, 2, 3)", "wrong number of args to limit function"),
        ("GB().limit('1')", "limit argument must be a number"),
        ("GB().limit(1, '1')", "limit argument must be a number"),
        ("GB().limit(True)", "limit argument must be a number"),
        ("GB().limit(-1)", "limit argument must be a whole number from 0 to 9223372036854775807, got -1"),
        ("GB().limit(1, 10**400)", "limit argument must be a whole number from 0 to 9223372036854775807, got 1000"),
        ("GB().limit(10**9999)", "got an integer of 33216 bits"),
        ("GB().flatmap(len, inOrder=1)", "inOrder argument must be a boolean"),
        ("GB('KeysOnlyReader').run(count=0)", "count must be a whole number from 1 to 100000, got 0"),
        ("GB('KeysOnlyReader').run(count=2**63 - 1)", "count must be a whole number from 1 to 100000"),
        ("GB().run(noscan=True)", "run of the KeysReader has no keyword 'noscan': did you mean 'noScan'?"),
        ("GB().run(fromId='0')", "run of the KeysReader has no keyword 'fromId': it belongs to StreamReader"),
        ("GB().run(xyz=1)", "run of the KeysReader has no keyword 'xyz': it has mode, reply, noScan, readValue"),
        ("GB('ShardsIDReader').run(converttostr=1)", "did you mean 'convertToStr'?"),
        ("GB().register(event=['set'])", "has no keyword 'event': did you mean 'eventTypes'?"),
        ("GB().register(eventType=['set'])", "has no keyword 'eventType': did you mean 'eventTypes'?"),
        ("GB().register(key_types=['hash'])", "has no keyword 'key_types': did you mean 'keyTypes'?"),
        ("GB().register(readvalue=False)", "has no keyword 'readvalue': did you mean 'readValue'?"),
        ("GB().register(batch=1)", "has no keyword 'batch': it belongs to StreamReader"),
        ("GB('StreamReader').register(batchSize=1)", "has no keyword 'batchSize': did you mean 'batch'?"),
        ("GB('CommandReader').register(triger='t')", "has no keyword 'triger': did you mean 'trigger'?"),
        ("GB().register(eventTypes='set')", "eventTypes must be a list of names, got 'set': write eventTypes=['set']"),
        ("GB().register(eventTypes=[])", "eventTypes is an empty list"),
        ("GB().register(keyTypes='hash')", "keyTypes must be a list of names, got 'hash'"),
        ("GB().register(keyTypes=[])", "keyTypes is an empty list"),
        ("GB().register(unknownEvents=1)", "unknownEvents value is not boolean"),
        ("GB('CommandReader').run()", "reader do not support run"),
        ("GB('PythonReader').register()", "given reader does not exists or does not support register"),
        ("GB('KeysOnlyReader').register()", "given reader does not exists or does not support register"),
        ("GB('ShardsIDReader').register()", "given reader does not exists or does not support register"),
        ("GB().run(1)", "regex argument must be a string"),
        ("GB('StreamReader').run(1)", "regex argument must be a string"),
        ("GB().register(1)", "regex argument must be a string"),
        ("GB('StreamReader').register(1)", "regex argument must be a string"),
        ("GB().run(noScan=1)", "exactMatch value is not boolean"),
        ("GB().run(readValue=1)", "readValue value is not boolean"),
        ("GB('StreamReader').run('s', fromId=1)", "fromId argument must be a string"),
        ("GB().run(mode=1)", "execution mode must be a string"),
        ("GB().run(mode='x')", "unknown execution mode"),
        ("GB().run(mode='sync')", "unknown execution mode"),
        ("GB().register(mode='x')", "unknown execution mode"),
        ("GB().register(eventTypes=1)", "given eventTypes is not iterable"),
        ("GB().register(eventTypes=[1])", "given event type is not string"),
        ("GB().register(keyTypes=1)", "given keyTypes is not iterable"),
        ("GB().register(keyTypes=[1])", "given key type is not string"),
        ("GB().register(keyTypes=['x'])", "unknown key type"),
        ("GB().register(readValue=1)", "readValue is not boolean"),
        ("GB().register(commands=1)", "given commands is not iterable"),
        ("GB().register(commands=[1])", "given command type is not string"),
        ("GB().register(onRegistered=1)", "OnRegistered argument must be a function"),
        ("GB('StreamReader').register(batch='1')", "batch argument must be a number"),
        ("GB('StreamReader').register(duration='1')", "duration argument must be a number"),
        ("GB('StreamReader').register(onFailedPolicy='x')", "onFailedPolicy must be Continue/Abort/Retry"),
        ("GB('StreamReader').register(onFailedPolicy=1)", "onFailedPolicy must be a string (Continue/Abort/Retry)"),
        ("GB('StreamReader').register(mode='sync', onFailedPolicy='retry')", "ExecutionMode sync can only be combined with OnFailedPolicy Continue"),
        ("GB('StreamReader').register(onFailedRetryInterval='1')", "retryInterval argument must be a number"),
        ("GB('StreamReader').register(trimStream=1)", "pyTrimmStream argument must be a boolean"),
        ("GB('CommandReader').register()", "no trigger or hook argument was given"),
        ("GB('CommandReader').register('t')", "no trigger or hook argument was given"),
        ("GB('CommandReader').register(trigger=1)", "trigger argument is not string"),
        ("GB('CommandReader').register(hook=1)", "hook argument is not string"),
        ("GB('CommandReader').register(hook='get', keyprefix=1)", "keyprefix argument is not string"),
        ("GB('CommandReader').register(trigger='t', inorder=1)", "inorder argument is be boolean"),
        ("GB('CommandReader').register(trigger='t', hook='get')", "trigger argument can not be given with keyprefix or hook"),
        ("GB('CommandReader').register(trigger='t', keyprefix='x')", "trigger argument can not be given with keyprefix or hook"),
        ("GB('PythonReader').run()", "pyreader argument must be a function"),
        ("GB('PythonReader').run('x')", "pyreader argument must be a function"),
        ("GB('PythonReader', defaultArg='x').run()", "pyreader argument must be a function"),
        ("GB('PythonReader', defaultArg=lambda: 1).run('x')", "pyreader argument must be a function"),
    ],
)  # fmt: skip
def test_arguments_are_checked(shared, source, text):
    assert text in fails(shared, source)


ASYNC = {
    "a coroutine function": "f",
    "a partial": "functools.partial(functools.partial(f, 1), 2)",
    "an object with an asynchronous call": "Called()",
    "a bound method": "Called().method",
    "an asynchronous generator": "generate",
    "a function that is marked": "marked",
}


DEFINITIONS = """
import functools, inspect
async def f(*args): pass
async def generate(*args): yield 1
class Called:
    async def __call__(self, *args): pass
    async def method(self, *args): pass
def marked(*args): pass
marked = inspect.markcoroutinefunction(marked) if hasattr(inspect, 'markcoroutinefunction') else f
"""

STEPS = (
    "GB().map({})", "GB().filter({})", "GB().foreach({})", "GB().flatmap({})", "GB().accumulate({})",
    "GB().groupby(len, {})", "GB().batchgroupby({}, len)", "GB().aggregate(0, {}, len)", "GB().countby({})",
    "GB().avg({})", "GB().repartition({})",
)  # fmt: skip


@pytest.mark.parametrize("function", ASYNC.values(), ids=ASYNC)
@pytest.mark.parametrize("step", STEPS)
def test_steps_take_coroutine_functions_and_no_asynchronous_generators(shared, function, step):
    source = DEFINITIONS + step.format(function)
    if function == "generate":
        assert "got an async generator: use a coroutine that returns a list" in fails(shared, source)
    else:
        assert shared.script(source)["error"] is None


@pytest.mark.parametrize("function", ASYNC.values(), ids=ASYNC)
@pytest.mark.parametrize(
    "use",
    [
        "GB().register(onRegistered={})",
        "GB('PythonReader').run({})",
        "GB('KeysOnlyReader').run(patternGenerator={})",
    ],
)
def test_asynchronous_functions_are_refused_where_nothing_awaits_them(shared, function, use):
    assert "got an async" in fails(shared, DEFINITIONS + use.format(function))


@pytest.mark.parametrize(
    "function", ["len", "str.upper", "int", "functools.partial(int, base=2)", "Plain()", "Plain().method", "Odd()"]
)
def test_plain_callables_of_every_kind_are_accepted(shared, function):
    definitions = """
import functools
class Plain:
    def __call__(self, record): return record
    def method(self, record): return record
class Odd:
    def __getattr__(self, name): return self
    def __call__(self, record): return record
"""
    spec_of(shared, f"{definitions}GB().map({function}).run('*')")


def spec_of(server, source):
    plan = server.plan(source, session=9)
    return server.specs[plan]


def test_what_the_server_is_told_of_a_run(shared):
    spec = spec_of(
        shared, "GB(desc='d').map(len).limit(3, 1).countby().run('a*', mode='async_local', noScan=True, reply='plain')"
    )
    assert spec == {
        "reader": "KeysReader", "desc": "d", "mode": "async_local", "reply": "plain",
        "args": {"pattern": "a*", "noScan": True, "readValue": True},
        "steps": [["map"], ["limit", {"length": 3, "offset": 1}], ["countby", {"extractor": False}], ["tostr"], ["collect"]],
    }  # fmt: skip
    assert spec_of(shared, "GB(defaultArg='b*').run('')")["args"]["pattern"] == "b*"
    assert spec_of(shared, "GB('StreamReader').run('s', convertToStr=False, collect=False)") == {
        "reader": "StreamReader", "desc": None, "mode": "async", "reply": "compat",
        "args": {"key": "s", "fromId": "0-0", "pattern": False}, "steps": [],
    }  # fmt: skip
    assert spec_of(shared, "GB('KeysOnlyReader').run('k*', count=7)")["args"] == {
        "pattern": "k*",
        "noScan": False,
        "count": 7,
    }
    assert spec_of(shared, "GB('KeysOnlyReader').run(patternGenerator=lambda: ('k*', False))")["args"] == {
        "pattern": None
    }


def test_what_the_server_is_told_of_a_registration(shared):
    spec = spec_of(
        shared,
        "GB().register('p*', mode='sync', eventTypes=('set', 'del'), keyTypes=['Hash'], commands=[], onRegistered=print)",
    )
    assert spec["mode"] == "sync"
    assert spec["args"] == {
        "prefix": "p*",
        "eventTypes": ["set", "del"],
        "unknownEvents": False,
        "keyTypes": ["hash"],
        "readValue": True,
        "commands": None,
    }
    assert spec_of(shared, "GB().register(regex='old')")["args"]["prefix"] == "old"
    assert spec_of(shared, "GB('StreamReader').register('s', batch=5, onFailedPolicy='Retry', onFailedRetryInterval=2)")["args"] == {
        "prefix": "s", "batch": 5, "duration": 0, "onFailedPolicy": "retry", "onFailedRetryInterval": 2, "trimStream": True,
    }  # fmt: skip
    assert spec_of(shared, "GB('CommandReader').register(trigger='t', inorder=True)")["args"] == {
        "trigger": "t", "hook": None, "keyprefix": None, "inorder": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "of_any_client", "of_a_client_with_the_codec"),
    [
        ("from redgrease import KeysReader\nKeysReader().run()", "pickle", "plain"),
        ("import redgrease\nredgrease.command('t')(len)", "pickle", "plain"),
        ("from redgrease import KeysReader\nKeysReader().register()", "plain", "plain"),
        ("from redgrease import CommandReader\nCommandReader().register(hook='set')", "plain", "plain"),
        ("GB().run()", "compat", "compat"),
        ("GB().run(reply='plain')", "plain", "plain"),
    ],
)
def test_the_package_s_functions_answer_as_the_client_of_the_script_expects(
    shared, source, of_any_client, of_a_client_with_the_codec
):
    assert shared.specs[shared.plan(source, session=9)]["reply"] == of_any_client
    assert shared.specs[shared.plan(source, session=9, tagged=True)]["reply"] == of_a_client_with_the_codec


def test_pickled_results_are_pickles_of_each_record(shared):
    plan = shared.plan("GB('ShardsIDReader').flatmap(lambda _: [{'a': 1}, b'x']).run(convertToStr=False)")
    results, errors, frame = shared.done(shared.start(plan, flags=frames.LAST | frames.PICKLED))
    # The test's decoder unpickles.
    assert (results, errors) == ([b"x", {"a": 1}], [])
    assert frame["records"][1].count(b"\x80\x04") == 2


def test_a_builder_may_be_extended_between_actions(shared):
    before = set(shared.plans)
    assert shared.script("b = GB().map(len)\nb.register('a')\nb.filter(bool)\nb.register('b')")["error"] is None
    first, second = ([step[0] for step in shared.specs[plan]["steps"]] for plan in shared.plans if plan not in before)
    assert first == ["map", "tostr", "collect"]
    assert second == ["map", "tostr", "collect", "filter", "tostr", "collect"]


# ---- the process ----


def test_wrong_arguments_say_what_is_right():
    for argv in ([], ["--fd", "x"], ["--fd", "3", "--memory-max", "-1"], ["--fd", "3", "--other"]):
        done = subprocess.run([sys.executable, "-m", "redgrease.worker", *argv], capture_output=True, timeout=20)
        assert done.returncode == 2 and b"usage:" in done.stderr


def test_another_protocol_is_refused_by_name():
    with pytest.raises(AssertionError, match="speaks version 99 of the worker protocol"):
        Server(protocol=99)


def test_output_of_scripts_comes_line_by_line(server):
    assert server.script("import sys\nprint('ä line')\nprint('other', file=sys.stderr)")["error"] is None
    assert server.process.stdout.readline() == "ä line\n".encode()
    assert server.process.stderr.readline() == b"other\n"


def test_nothing_is_inherited_and_nothing_dumped(server):
    source = """
import os, resource
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert os.readlink('/proc/self/fd/0') == '/dev/null'
import subprocess
seen = subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, capture_output=True, text=True).stdout
assert 'socket:' not in seen, seen
"""
    assert server.script(source)["error"] is None


def test_a_file_in_the_current_directory_shadows_nothing(tmp_path):
    for name in ("copy", "json", "cloudpickle", "traceback"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    with Server(cwd=tmp_path) as server:
        assert server.script("import json, copy, traceback\nGB().register('x')")["error"] is None
        assert "NameError" in fails(server, "nope")


def test_requirements_come_before_site_packages_but_shadow_nothing_of_ours(tmp_path):
    for name in ("json", "cloudpickle", "redis", "redgrease", "pytest", "traceback", "own"):
        (tmp_path / f"{name}.py").write_text("who = 'requirement'")
    with Server() as server:
        source = """
import json, cloudpickle, redgrease, traceback, pytest, own
assert own.who == pytest.who == 'requirement'
for module in (json, cloudpickle, redgrease, traceback):
    assert not hasattr(module, 'who'), module
GB().map(lambda x: own.who).register('x')
"""
        assert server.script(source, paths=[str(tmp_path)])["error"] is None
        assert "NameError: " in fails(server, "nope")


def test_shutdown_ends_it_even_while_code_runs(server):
    server.start(server.plan("GB().map(lambda x: [None for _ in iter(int, 1)]).run()"), [1])
    server.send(frames.shutdown())
    assert server.process.wait(5) == 0


def test_the_end_of_the_server_is_the_end_of_the_worker(server):
    server.start(server.plan("GB().map(lambda x: [None for _ in iter(int, 1)]).run()"), [1])
    server.socket.shutdown(2)
    assert server.process.wait(5) == -9


def test_it_dies_with_the_process_that_started_it(tmp_path):
    code = """
import socket, subprocess, sys, os, time
a, b = socket.socketpair()
os.set_inheritable(a.fileno(), True)  # so that the worker's end stays open
p = subprocess.Popen([sys.executable, '-m', 'redgrease.worker', '--fd', str(b.fileno())], pass_fds=[a.fileno(), b.fileno()])
from tests.worker import frames
a.sendall(b"S" + frames.hello())
a.recv(1)
print(p.pid, flush=True)
os._exit(0)
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, cwd=root)
    pid = int(done.stdout)
    until = time.monotonic() + 5
    while is_alive(pid):
        if time.monotonic() > until:
            os.kill(pid, 9)
            raise AssertionError("the worker outlived its parent")
        time.sleep(0.02)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
