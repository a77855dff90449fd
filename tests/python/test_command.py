"""The decorator `redgrease.command`, without a server."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import pickle
import subprocess
import sys

import pytest
import redgrease
from redgrease import calls, codec
from redgrease.caching.settings import CacheSettings

pytest.importorskip("redgrease._native")


class FakeServer:
    """A client that keeps what is sent."""

    inside_server = True

    def __init__(self, *replies):
        self.sent = []
        self.replies = list(replies)

    def execute_command(self, *args, **options):
        self.sent.append(args)
        if "RG.PYEXECUTE" in args:
            return b"OK"
        return self.replies.pop(0) if self.replies else [codec.dumps("answer")]

    def arguments(self):
        """Those of the last command that was triggered."""
        assert self.sent[-1][:3] == ("RG.WITHCODEC", 1, "RG.TRIGGER")
        return self.sent[-1][4:]


def area(width: int, height: int = 1, *, unit: str = "cm") -> str:
    """An area."""
    return f"{width}x{height} {unit}"


@pytest.mark.parametrize("decorate", [redgrease.command, redgrease.command()])
def test_a_command_keeps_name_documentation_and_signature(decorate):
    made = decorate(area)
    assert (made.__name__, made.__qualname__, made.__doc__, made.__module__) == ("area", "area", "An area.", __name__)
    assert inspect.signature(made) == inspect.signature(area)
    assert made.__wrapped__ is area
    with pytest.raises(TypeError, match=r"'area' is not registered: call what \.on\(server\) returns"):
        made(1)
    assert isinstance(made, redgrease.ClosedGearFunction)
    assert repr(pickle.loads(pickle.dumps(made))) == repr(made)


@pytest.mark.parametrize("options", [{}, {"typed": True}, {"ttl": 5}, {"ttl": 5, "typed": True}], ids=str)
def test_what_is_registered_keeps_name_documentation_and_signature(options):
    server = FakeServer()
    made = redgrease.command(on=server, **options)(area)
    assert (made.__name__, made.__doc__) == ("area", "An area.")
    assert inspect.signature(made.value) == inspect.signature(area)
    sent = len(server.sent)
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"depth": 1}), ((1,), {"width": 2})):
        with pytest.raises(TypeError, match="argument"):
            made(*args, **kwargs)
    assert len(server.sent) == sent, "a wrong call was sent"


def test_without_types_arguments_are_sent_by_position():
    server = FakeServer()
    made = redgrease.command(on=server)(area)
    assert made(1, height=2) == "answer"
    assert server.arguments() == (1, 2)
    with pytest.raises(TypeError, match=r"unit cannot be given: .* typed=True"):
        made(1, unit="m")


def test_with_types_one_argument_holds_all():
    server = FakeServer()
    made = redgrease.command(on=server, typed=True)(area)
    made(None, unit=[1.5, {"a": b"b"}])
    [packed] = server.arguments()
    assert calls.unpack([packed]) == ((None,), {"unit": [1.5, {"a": b"b"}]})
    made(made(1))
    assert calls.unpack(server.arguments()) == (("answer",), {}), "a result as an argument is its value"
    with pytest.raises(TypeError, match="argument 'unit' cannot be sent"):
        made(1, unit=object())


def test_a_function_can_be_given_with_options():
    made = redgrease.command(area, on=FakeServer(), typed=True, ttl=5)
    assert (made.__name__, made.settings.ttl, made.settings.typed) == ("area", 5, True)
    assert redgrease.command(area, mode="sync").operation.mode == "sync"


def run_here(made, *record):
    """Call the step of a command as the worker does."""
    return made.operations[1].op.build()(["name", *record])


def test_a_typed_function_takes_texts_too():
    made = redgrease.command(typed=True)(lambda *args, **kwargs: (args, kwargs))
    assert run_here(made, "1", "x") == (("1", "x"), {})
    assert run_here(made, calls.pack([1, None], {"a": 2})) == ((1, None), {"a": 2})


def test_a_typed_function_may_be_a_coroutine():
    @redgrease.command(typed=True)
    async def later(value, *, times=1):
        return [value] * times

    step = later.operations[1].op.build()
    assert inspect.iscoroutinefunction(step)
    assert asyncio.run(step(["later", calls.pack([None], {"times": 2})])) == [None, None]


def test_replace_is_handed_on(monkeypatch):
    seen = []
    monkeypatch.setattr("redgrease.engine.execute_function", lambda *args, **kwargs: seen.append(args[4]))
    for replace in (None, False, True):
        redgrease.command(on=FakeServer(), replace=replace)(area)
        redgrease.command()(area).on(FakeServer(), replace=replace)
    assert seen == [None, None, False, False, True, True]


def test_the_old_name_warns():
    with pytest.warns(DeprecationWarning, match=r"redgrease\.trigger is an old name") as caught:
        assert redgrease.trigger(area).__name__ == "area"
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "error", "fragment"),
    [
        ({"lease": 1}, TypeError, "lease belong to ttl= or coalesce=True"),
        ({"key": "x"}, TypeError, "key= belongs to"),
        ({"tll": 1}, TypeError, "tll"),
        ({"ttl": 0}, ValueError, "ttl is a number of seconds above 0"),
        ({"ttl": -1}, ValueError, "ttl is a number from 0.001"),
        ({"ttl": "60"}, ValueError, "ttl is a number from 0.001 to 3.1536e+08, not '60'"),
        ({"ttl": True}, ValueError, "ttl is a number"),
        ({"ttl": 1, "timeout": 0}, ValueError, "timeout"),
        ({"ttl": 1, "stale": -1}, ValueError, "stale"),
        ({"ttl": 1, "max_running": 0}, ValueError, "max_running"),
        ({"ttl": 1, "namespace": "{a}"}, ValueError, "namespace"),
        ({"ttl": 1, "namespace": ""}, ValueError, "namespace"),
        ({"ttl": 1, "sliding": True, "stale": 1}, ValueError, "not both"),
        ({"ttl": 1, "direct": True, "stale": 1}, ValueError, "direct=True only reads"),
        ({"coalesce": True, "sliding": True}, ValueError, "sliding: results are kept only with ttl="),
        ({"ttl": 1, "mode": "async"}, ValueError, "async_local"),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_given(options, error, fragment):
    with pytest.raises(error) as refused:
        redgrease.command(**options)(area)
    assert fragment in str(refused.value)


def test_a_key_that_fits_no_call_is_refused_where_it_is_given():
    with pytest.raises(ValueError, match="no parameter 'user'"):
        redgrease.command(lambda name: name, ttl=5, key="{user}")


def test_settings_travel_whole():
    settings = CacheSettings(ttl=1.5, stale=2, namespace="x", typed=True)
    assert CacheSettings.loads(settings.dumps()) == settings
    assert CacheSettings.loads('{"ttl": 7, "of a newer version": 1}') == CacheSettings(ttl=7)


def test_a_cached_command_knows_its_keys():
    made = redgrease.command(on=FakeServer(), ttl=5)(area)
    assert made.key_of(1) == made.key_of(width=b"1") == "cached:{area('1', 1, unit='cm')}"
    assert made.key_of(1, height=1) == "cached:{area('1', '1', unit='cm')}", "it is another call: a default is a number"
    typed = redgrease.command(on=FakeServer(), ttl=5, typed=True, namespace="mine")(area)
    assert typed.key_of(1) == "mine:{area(1, 1, unit='cm')}"
    keyed = redgrease.command(on=FakeServer(), ttl=5, key="area:{width}")(area)
    assert keyed.key_of(7) == "cached:{area:7}"


def test_a_cached_command_is_sent_with_its_function():
    made = redgrease.command(on=FakeServer(), ttl=5)(area)
    copy = pickle.loads(pickle.dumps(made.value))
    assert (copy.trigger, copy.settings, copy.__name__) == ("area", made.settings, "area")
    with pytest.raises(redgrease.exceptions.OnlyInServerError, match="a command that was sent with a function"):
        copy(1)


def test_what_runs_in_a_worker_needs_no_other_package():
    code = "import sys; import redgrease.caching.serving; print({'redis', 'cloudpickle', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["func", "sugar", "caching", "caching.messages", "caching.settings"])
def test_examples_of(name):
    assert doctest.testmod(importlib.import_module(f"redgrease.{name}")).failed == 0
