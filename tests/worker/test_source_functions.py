"""Functions of clients in other languages: what their source, paths and constants become."""

from __future__ import annotations

import asyncio
import math
import pickle

import pytest
from redgrease import _native
from redgrease.worker import source_functions


def load(*parts, kind="map", source=None, on_registered=None, **changes):
    """The plan of a function with one step."""
    content = {"format": 1, "steps": [[kind, list(parts)]], "source": source, "onRegistered": on_registered, **changes}
    return source_functions.load(_native.dumps(content, pickle=False))


def code(text, **names):
    return {"source": text, "names": names}


def function_of(part):
    [[function]] = load(part).callbacks
    return function


@pytest.mark.parametrize(
    ("text", "argument", "result"),
    [
        ("lambda x: x + 1", 1, 2),
        ("  str  ", 1, "1"),
        ("def f(x):\n    return x * 2", 2, 4),
        ("\n    import math\n\n    def root(x):\n        return math.sqrt(x)\n    ", 9, 3.0),
        ("def helper(x):\n    return -x\n\ndef f(x):\n    return helper(x)", 1, -1),
        ("@staticmethod\ndef f(x):\n    return x", 1, 1),
    ],
)
def test_source_is_an_expression_or_statements_that_define_a_function(text, argument, result):
    assert function_of(code(text))(argument) == result


def test_a_path_names_a_function_of_a_module():
    assert function_of({"path": "math:sqrt"}) is math.sqrt
    assert function_of({"path": "builtins:str.upper"})("a") == "A"


def test_source_has_the_names_of_scripts_and_those_that_are_given():
    assert function_of(code("lambda x: x >= least", least=3))(3)
    # What scripts can use without an import; `redgrease.worker.runtime.install` adds the names of the server.
    assert function_of(code("lambda _: Future"))(None) is asyncio.Future
    assert function_of(code("def f(x):\n    return x in allowed", allowed=["a"]))("a")
    # The names of one part are not those of another one.
    [[first, second]] = load(code("lambda _: n", n=1), code("lambda _: n")).callbacks
    assert first(None) == 1
    with pytest.raises(NameError):
        second(None)


def test_constants_and_functions_are_in_their_order():
    plan = load(code("lambda r: r"), {"value": [1, (2, None)]}, {"path": "math:floor"}, kind="aggregateby")
    [(extractor, zero, floor)] = plan.callbacks
    assert (extractor(1), zero, floor) == (1, [1, (2, None)], math.floor)
    assert (plan.source, plan.on_registered) == (None, None)


def test_a_function_is_called_with_the_arguments_of_a_command():
    assert function_of({"apply": code("lambda a, b='x': a + b")})(["name", "1"]) == "1x"
    applied = function_of({"apply": code("async def f(a):\n    return a * 2")})
    assert asyncio.run(applied(["name", "1"])) == "11"


def test_reader_and_registration_have_functions_of_their_own():
    plan = load(source=code("lambda: iter('ab')"), on_registered=code("lambda: 1"))
    assert list(plan.source()) == ["a", "b"]
    assert plan.on_registered() == 1


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (code("lambda x: x["), "BADPLAN step 1 'map': SyntaxError: '[' was never closed in line 1: lambda x: x["),
        (code("def f(x)\n    pass"), "BADPLAN step 1 'map': SyntaxError: expected ':' in line 1: def f(x)"),
        (code(""), "BADPLAN step 1 'map': ValueError: the statements define no function"),
        (code("x = 1"), "BADPLAN step 1 'map': ValueError: the statements define no function"),
        (code("missing"), "BADPLAN step 1 'map': NameError: name 'missing' is not defined"),
        (code("'" + "x" * 100 + "'"), f"BADPLAN step 1 'map' must be a function, got str: '{'x' * 59}..."),
        (code("a\0b"), "BADPLAN step 1 'map': "),
        ({"path": "no_such_module:f"}, "BADPLAN step 1 'map': ModuleNotFoundError: No module named 'no_such_module'"),
        ({"path": "math:no"}, "BADPLAN step 1 'map': AttributeError: module 'math' has no attribute 'no'"),
        ({"path": "math:pi"}, "BADPLAN step 1 'map' must be a function, got float: math:pi"),
        ({"apply": code("7")}, "BADPLAN step 1 'map' must be a function, got int: 7"),
    ],
)
def test_what_is_wrong_is_named_with_its_step(part, text):
    with pytest.raises(_native.GearsFlatError) as refused:
        load(part)
    assert str(refused.value).startswith(text)


def test_places_other_than_steps_are_named():
    with pytest.raises(_native.GearsFlatError, match=r"^BADPLAN the reader: SyntaxError"):
        load(source=code("("))
    with pytest.raises(_native.GearsFlatError, match=r"^BADPLAN onRegistered must be a function"):
        load(on_registered=code("1"))


@pytest.mark.parametrize("content", [None, [], {"format": 2}, {"steps": []}])
def test_another_format_is_refused(content):
    with pytest.raises(_native.GearsFlatError, match="use the same version"):
        source_functions.load(_native.dumps(content, pickle=False))


def test_the_pickle_that_clients_write_is_a_call_of_it():
    content = _native.dumps({"format": 1, "steps": [], "source": None, "onRegistered": None}, pickle=False)
    name = b"redgrease.worker.source_functions"
    written = b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x8c\x04load\x93\x8e"
    written += len(content).to_bytes(8, "little") + content + b"\x85R."
    assert pickle.loads(written).callbacks == []
