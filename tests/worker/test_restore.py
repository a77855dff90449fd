"""Serialised registrations: a new worker continues where another one ended."""

# ruff: noqa: E501 (scripts and tables read better in one line)

import pickle

import pytest
from redgrease import CommandReader, KeysReader
from redgrease.gearialization import SerializedFunction
from redgrease.plan.builder import Plan

from . import frames
from .server import Server, same_version

SOURCE = """
import collections
count = collections.Counter()
factor = 10
def bump(name):
    count[name] += 1
    return count
class Point:
    def __init__(self, x): self.x = x * factor
GB('CommandReader').map(lambda r: sum(bump('a').values())).register(trigger='a', convertToStr=False)
GB('CommandReader').map(lambda r: sum(bump('b').values())).register(trigger='b', convertToStr=False)
GB('CommandReader').map(lambda r: Point(execute('len', r[1])).x).register(trigger='c', convertToStr=False, onRegistered=lambda: bump('registered'))
"""


class SlowToLoad:
    """A callback that takes a while to unpickle: other threads of the worker look for work meanwhile."""

    def __call__(self, record):
        return record

    def __reduce__(self):
        return _load_slowly, ()


def _load_slowly():
    import time

    time.sleep(0.1)
    return lambda record: record


slow_to_load = SlowToLoad()


class Broken:
    def __reduce__(self):
        return exec, ("raise ValueError('no such thing')",)


def plans_of(server):
    return {server.specs[plan]["args"].get("trigger"): plan for plan in server.specs}


def test_plans_are_rebuilt_with_their_numbers_and_what_they_share():
    commands = {"len": len}
    with Server(commands=commands) as first:
        done = first.script(SOURCE, session=7)
        assert done["error"] is None and done["blob"]
        plans = plans_of(first)
        assert all(call["blob"] == b"" for call in first.calls if call["op"] == "register")
        assert first.done(first.start(plans["a"], [["a"]]))[0] == [1]
    with Server(commands=commands) as second:
        own = second.plan("GB().run()", session=1)
        assert own not in plans.values()
        second.send(frames.restore(5, 7, [done["blob"]]))
        assert second.wait_for("script_done", request=5)["error"] is None
        for number, name in enumerate("abab", 1):
            # The script's globals were pickled at its end; both functions count in the same one.
            assert second.done(second.start(plans[name], [[name]]))[:2] == ([number], [])
        assert second.done(second.start(plans["c"], [["c", "abc"]]))[:2] == ([30], [])
        second.send(frames.registered(plans["c"]))
        second.send(frames.registered(plans["a"]))
        assert second.script("")["error"] is None
        assert second.done(second.start(plans["a"], [["a"]]))[0] == [6]
        later = second.plan("GB().run()", session=1)
        assert later not in plans.values()


def sent(function):
    """Number of the plan, encoded plan and pickle of a function object."""
    action, spec, callbacks = SerializedFunction(function).words()[:3]
    return (1 << 63) + (0 if action == "RUN" else 1), spec, callbacks


@same_version
def test_a_function_is_started_while_it_is_loaded():
    function = sent(KeysReader().map(slow_to_load).count().run())
    with Server(threads=4) as server:
        server.send(
            frames.load(7, 3, function) + frames.start(9, function[0], [b"\x00"], flags=frames.LAST | frames.TAGGED)
        )
        assert server.wait_for("script_done", request=7) | {"at": 0} == {
            "kind": "script_done", "request": 7, "error": None, "blob": b"", "at": 0,
        }  # fmt: skip
        assert server.done(9)[:2] == ([1], [])
        assert not server.calls, "the server was called for permission"


@same_version
def test_a_function_that_waits_for_its_plan_can_be_aborted():
    function = sent(KeysReader().map(slow_to_load).run())
    with Server(threads=4) as server:
        server.send(frames.load(7, 3, function) + frames.start(9, function[0], [b"\x00"]) + frames.abort(9))
        assert server.wait_for("done", exec=9)["aborted"]
        assert server.wait_for("script_done", request=7)["error"] is None


def test_a_function_that_cannot_be_loaded_says_why_and_its_execution_ends():
    plan, spec, _ = sent(KeysReader().map(str).run())
    broken = pickle.dumps(Broken())
    with Server() as server:
        server.send(frames.load(7, 3, (plan, spec, broken)) + frames.start(9, plan, [b"\x00"]))
        error = server.wait_for("script_done", request=7)["error"]
        assert "no such thing" in error and "redgrease/worker" not in error
        assert "is unknown in this worker" in server.done(9)[1][0]
        without_callbacks = pickle.dumps(Plan(spec, [], None, None))
        server.send(frames.load(8, 4, (plan, spec, without_callbacks)))
        assert "step 0 of the plan has no callback 0" in server.wait_for("script_done", request=8)["error"]


@same_version
def test_a_registered_function_is_rebuilt_from_what_the_client_sent():
    function = sent(CommandReader().apply(len).register(trigger="length", onRegistered=lambda: execute("get", "k")))  # noqa: F821
    with Server() as server:
        server.send(frames.restore(5, 7, function=function))
        assert server.wait_for("script_done", request=5)["error"] is None
        flags = frames.LAST | frames.TAGGED
        assert server.done(server.start(function[0], [["length", "abc"]], flags=flags))[:2] == ([3], [])


def test_a_restored_session_may_be_stored_again():
    with Server() as first:
        blob = first.script(SOURCE, session=7)["blob"]
        plans = plans_of(first)
    # Functions read from a pickle find `execute` and their namespace, and register further plans.
    more = """
def again(r):
    GB('CommandReader').map(lambda r: factor).register(trigger='again', convertToStr=False)
    return 'done'
factor = 11
GB('CommandReader').map(again).register(trigger='more')
"""
    with Server() as second:
        blob = second.script(more, session=8)["blob"]
        plans = plans_of(second)
        exec_ = second.start(plans["more"], [["more"]])
        assert second.done(exec_)[:2] == (["done"], [])
        (call,) = (call for call in second.calls if call["op"] == "register" and call["blob"])
        again = call["plan"]
    with Server() as third:
        third.send(frames.restore(1, 8, [blob, call["blob"]]))
        assert third.wait_for("script_done", request=1)["error"] is None
        assert third.done(third.start(again, [["again"]]))[:2] == ([11], [])
        assert third.done(third.start(plans["more"], [["more"]]))[:2] == (["done"], [])


def test_a_callback_that_cannot_be_pickled_is_named(server):
    source = "import threading\nlock = threading.Lock()\ndef guilty(x):\n  with lock: return x\nGB().map(len).map(guilty).register('x')"
    error = server.script(source)["error"]
    assert "Error occured when serialized a python callback, callback=guilty error=cannot pickle" in error
    assert not any(call["op"] == "register" for call in server.calls)
    # It became so only later: the script fails, although register() succeeded.
    source = "import threading\nlock = None\ndef guilty(x):\n  return lock\nGB().map(guilty).register('x')\nlock = threading.Lock()"
    assert "callback=guilty error=cannot pickle" in server.script(source)["error"]


def test_a_broken_pickle_is_an_error(server):
    server.send(frames.restore(1, 7, [b"garbage"]))
    assert (
        "Error occured when deserialized a python callback, error="
        in server.wait_for("script_done", request=1)["error"]
    )


def test_a_session_can_be_rebuilt_beside_the_one_that_its_data_came_from():
    with Server() as server:
        done = server.script(SOURCE, session=7)
        plans = plans_of(server)
        server.send(frames.restore(1, 8, [done["blob"]]))
        assert server.wait_for("script_done", request=1)["error"] is None
        server.send(frames.forget_session(7))
        copy = {name: frames.plan_in_data(frames.plan_in_data(plan, 7), 8) for name, plan in plans.items()}
        assert server.done(server.start(copy["a"], [["a"]]))[:2] == ([1], [])


@pytest.mark.parametrize(
    ("function", "logged"),
    [
        ("lambda: 1 / 0", b"ZeroDivisionError"),
        ("flat_error_function", b"a flat one"),
        ("lambda: coroutine_function()", b"async functions are not supported"),
    ],
)
def test_what_on_registered_raises_is_logged(server, function, logged):
    source = f"""
def flat_error_function(): flat_error('a flat one')
async def coroutine_function(): pass
GB().register('x', onRegistered={function})
"""
    server.send(frames.registered(server.plan(source)))
    frame = server.wait_for("log")
    assert logged in frame["message"] and frame["level"] == 3 and frame["session"] == 1


def test_registering_fails_when_the_server_refuses(server):
    server.commands.clear()
    plan = server.plan("GB('CommandReader').register(trigger='t')")
    assert plan
    server.plans.clear()
    original = server._answer

    def refuse(frame):
        server.calls.append(frame)
        server.send(frames.reply(frame["call"], error="trigger already registered"))

    server._answer = refuse
    assert (
        "gears.error: trigger already registered" in server.script("GB('CommandReader').register(trigger='t')")["error"]
    )
    done = server.script("try:\n  GB('CommandReader').register(trigger='t')\nexcept Exception: pass")
    assert done["error"] is None and done["blob"] == b""
    server._answer = original
