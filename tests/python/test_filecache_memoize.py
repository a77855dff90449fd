"""Functions whose results are entries of a file cache."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from redgrease.filecache import AsyncFileCache, FileCache

from .filecache_tools import DEADLINE


@pytest.fixture
def cache(tmp_path):
    with FileCache(tmp_path / "cache") as cache:
        yield cache


def test_a_result_is_computed_once(cache):
    calls = []

    @cache.memoize
    def describe(name, *more, upper=False, **rest):
        """Describes."""
        calls.append(name)
        return {"name": name.upper() if upper else name, "more": more, "rest": rest}

    assert describe("a", 1, x=2) == describe("a", 1, x=2) == {"name": "a", "more": (1,), "rest": {"x": 2}}
    assert describe("a", upper=True)["name"] == "A"
    assert calls == ["a", "a"]
    assert (describe.__name__, describe.__doc__) == ("describe", "Describes.")
    assert describe.cache is cache
    assert describe.__wrapped__("b")["name"] == "b"
    assert describe.forget("a", 1, x=2) is True
    assert describe.forget("a", 1, x=2) is False
    describe("a", 1, x=2)
    assert len(calls) == 4


def test_the_key_is_the_call_as_the_function_sees_it(cache):
    @cache.memoize(name="f")
    def function(one, two=2, *, three=3):
        return None

    key = function.cache_key
    assert key(1) == key(one=1) == key(1, 2) == key(two=2, one=1, three=3)
    assert key(1).startswith(b"f:")
    assert len({key(1), key(1.0), key(True), key("1"), key(b"1"), key((1,)), key({1}), key(None), key([1, 2])}) == 9
    assert key([1]) != key([[1]])
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1}) != key({"a": 2, "b": 1})
    assert key({"b", "a", "c"}) == key(frozenset("cab"))
    assert key(("a", "bc")) != key(("ab", "c"))
    assert key(0.0) != key(-0.0)
    with pytest.raises(TypeError, match="missing"):
        key()


class Colour(enum.Enum):
    RED = 1
    BLUE = 1.0


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Other:
    pass


def test_kinds_of_arguments(cache):
    @cache.memoize(name="f")
    def function(value):
        return None

    key = function.cache_key
    moments = [datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2), datetime.timedelta(1), datetime.time(1)]
    values = [*moments, uuid.UUID(int=1), decimal.Decimal("1.0"), decimal.Decimal("1.00"), Path("a"), Point(1, 2)]
    values += [Point(2, 1), Colour.RED, range(3), 1j, 2**100, "\ud800", float("inf")]
    assert len({key(value) for value in values}) == len(values)
    assert key(Point(1, 2)) == key(Point(1, 2))
    for value in (Other(), [Other()], {"a": Other()}, Other, len):
        with pytest.raises(TypeError, match=r"'value'.*key="):
            key(value)


def test_keys_are_the_same_in_all_processes(cache):
    code = """
import sys
from redgrease.filecache import FileCache
cache = FileCache(sys.argv[1])
@cache.memoize(name="f")
def function(value, *rest, **more):
    return None
print(function.cache_key({"x", "y", "z"}, "ab", "ab", k={1: {"p", "q"}}).decode())
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", code, os.fspath(cache.directory)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            timeout=DEADLINE,
        ).stdout
        for seed in range(3)
    }
    assert len(said) == 1


def test_options(cache):
    with pytest.raises(ValueError, match="serializer"):
        cache.memoize(serializer="yaml")(lambda: 1)
    with pytest.raises(ValueError, match="nothing"):
        cache.memoize(ignore=("nothing",))(lambda: 1)
    with pytest.raises(TypeError, match="keyword"):
        cache.memoize(60)
    with pytest.raises(TypeError, match="unknown"):
        cache.memoize(unknown=1)(lambda: 1)

    @cache.memoize(ttl=60, serializer="json", version=3, name="square", ignore=("log",))
    def square(number, log=None):
        return {"square": number**2}

    assert square(3, log=Other()) == square(3) == {"square": 9}
    assert square.cache_key(3).startswith(b"square@3:")
    stat = cache.stat(square.cache_key(3))
    assert stat.expires - stat.created == pytest.approx(60, abs=0.1)
    assert cache.read(square.cache_key(3)) == b'{"square":9}'

    @cache.memoize(serializer="bytes", key=lambda name: name)
    def render(name):
        return bytearray(name.encode())

    assert render("x") == b"x"
    assert render.cache_key("x").endswith(b".render:x")

    @cache.memoize(serializer="bytes")
    def wrong():
        return "text"

    with pytest.raises(TypeError, match="encode"):
        wrong()

    @cache.memoize(serializer=(lambda result: str(result).encode(), lambda data: int(data)))
    def number(text):
        return int(text)

    assert number("12") == number("12") == 12


def test_exceptions_are_not_kept(cache):
    calls = []

    @cache.memoize
    def fails():
        calls.append(1)
        raise LookupError("no")

    for _ in range(2):
        with pytest.raises(LookupError):
            fails()
    assert len(calls) == 2


def test_methods_and_recursion(cache):
    class Shop:
        @cache.memoize(ignore=("self",))
        def price(self, item):
            return len(item)

    assert Shop().price("abc") == 3
    assert cache.info().entries == 1

    @cache.memoize
    def fibonacci(number):
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    assert fibonacci(25) == 75025
    assert cache.info().entries == 1 + 26


def test_threads_compute_a_result_once(cache):
    calls, go = [], threading.Event()

    @cache.memoize
    def slow(number):
        calls.append(number)
        assert go.wait(DEADLINE)
        return number

    results = []
    threads = [threading.Thread(target=lambda: results.append(slow(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert (results, calls) == ([1] * 8, [1])


def test_coroutine_functions(cache):
    calls = []
    twin = AsyncFileCache(cache.directory)

    @twin.memoize(ttl=60)
    async def double(number):
        calls.append(number)
        await asyncio.sleep(0)
        return number * 2

    async def main():
        assert await asyncio.gather(*[double(2) for _ in range(5)]) == [4] * 5
        assert await double.forget(2) is True
        assert await double(2) == 4
        await twin.close()

    asyncio.run(main())
    assert calls == [2, 2]
    with pytest.raises(TypeError, match="AsyncFileCache"):

        @cache.memoize
        async def wrong():
            return 1

    with pytest.raises(TypeError, match="FileCache"):
        AsyncFileCache(cache.directory).memoize(lambda: 1)
