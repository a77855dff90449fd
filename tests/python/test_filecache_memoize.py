"""Functions whose results are entries of a file cache."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import os
import pathlib
import subprocess
import sys
import threading
import uuid
import zoneinfo
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redgrease.filecache import AsyncFileCache, FileCache
from redgrease.filecache.memoize import memoize

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
    assert key({"b", "a", "c"}) == key(set("cab")) != key(frozenset("cab"))
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


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


class Mode(enum.Flag):
    FAST = 1
    SAFE = 2


class Nowhere(enum.Enum):
    """Members whose values cannot be keys, or are not equal to themselves."""

    HERE = object()
    THERE = print
    NAN = float("nan")
    NONE = -float("nan")


class Level(str, enum.Enum):
    LOW = "low"


def named(value):
    """An enumeration with the name of another one."""
    return enum.Enum("Same", {"MEMBER": value}, module=__name__, qualname="Same")


@dataclasses.dataclass
class Line(Point):
    name: str = ""

    @functools.cached_property
    def length(self):
        return self.x + self.y


class Marked(Point):
    """Adds an attribute that is not a field."""

    def __init__(self, x, y, mark):
        super().__init__(x, y)
        self.mark = mark


class Slotted(Point):
    __slots__ = ("mark",)

    def __init__(self, mark):
        super().__init__(0, 0)
        self.mark = mark


@dataclasses.dataclass(init=False)
class Number(int):
    """Has a docstring: without one, dataclass asks for the signature, and an int has none in Python 3.11.2."""


def keys_of(cache):
    return memoize(cache, lambda value: None, name="f").cache_key


def test_each_combination_of_flags_is_an_argument_of_its_own(cache):
    @cache.memoize
    def number(flags):
        return int(flags)

    flags = [Access(value) for value in (0, 1, 2, 3, 4, 8, 16, 11, 1 << 70)]
    assert [number(each) for each in flags] == [int(each) for each in flags]
    key = keys_of(cache)
    assert (
        len({key(Mode.FAST), key(Mode.SAFE), key(Mode.FAST | Mode.SAFE), key(Mode(0)), key(1), key(Access.READ)}) == 6
    )
    assert len({key(member) for member in Nowhere}) == 4
    assert key(named(1).MEMBER) != key(named(2).MEMBER)
    assert key(Level.LOW) == key(Level("low")) != key("low")


def test_what_a_key_would_leave_out_is_in_it_or_refused(cache):
    key = keys_of(cache)
    assert key(Marked(1, 2, "a")) != key(Marked(1, 2, "b")) != key(Point(1, 2))
    assert key(Slotted("a")) != key(Slotted("b"))
    line = Line(1, 2, "name")
    before = key(line)
    assert line.length == 3
    assert key(line) == before
    assert key(pathlib.PurePosixPath("a")) != key(pathlib.PureWindowsPath("a"))
    assert key(b"a") != key(bytearray(b"a"))
    noon = datetime.datetime(2020, 1, 1, 12)
    zones = [None, datetime.timezone.utc, zoneinfo.ZoneInfo("UTC"), datetime.timezone(datetime.timedelta(0), "Zulu")]
    assert len({key(noon.replace(tzinfo=zone)) for zone in zones}) == 4
    assert key(noon.replace(fold=1)) != key(noon)

    class Zone(datetime.tzinfo):
        pass

    class File:
        def __fspath__(self):
            return "name"

    holds_itself = []
    holds_itself.append(holds_itself)
    for value in (Number(1), File(), noon.replace(tzinfo=Zone()), datetime.time(tzinfo=Zone()), holds_itself):
        with pytest.raises(TypeError, match=r"'value'.*key="):
            key(value)


@pytest.mark.parametrize("make", [int, fractions.Fraction, range, decimal.Decimal])
def test_numbers_of_any_size_are_arguments(cache, make):
    key = keys_of(cache)
    large = 10**5000
    assert len({key(make(large)), key(make(large + 1)), key(make(10))}) == 3


#: One argument; small ranges, so that a pair is often nearly the same.
small = st.integers(-2, 2)
text = st.text("ab1:,=", max_size=3)
plain = st.one_of(
    st.none(),
    st.booleans(),
    small,
    st.integers(),
    st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf"), 1e300]),
    st.builds(complex, st.sampled_from([0.0, -0.0, 1.0]), st.sampled_from([0.0, -0.0, 1.0])),
    text,
    text.map(str.encode),
    text.map(lambda value: bytearray(value.encode())),
    st.builds(decimal.Decimal, st.sampled_from(["1", "1.0", "-0", "0", "NaN", "sNaN1", "Infinity", "1E+2", "100"])),
    st.builds(fractions.Fraction, small, st.integers(1, 3)),
    st.builds(range, small, small, st.integers(1, 2)),
    st.builds(lambda number: uuid.UUID(int=number), st.integers(0, 2)),
    st.builds(datetime.date, st.just(2020), st.integers(1, 2), st.integers(1, 2)),
    st.builds(datetime.timedelta, small, small, small),
    st.builds(datetime.time, st.integers(0, 1), fold=st.integers(0, 1)),
    st.builds(
        datetime.datetime,
        st.just(2020),
        st.just(1),
        st.integers(1, 2),
        tzinfo=st.sampled_from([None, datetime.timezone.utc, zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo("GMT")]),
    ),
    st.sampled_from([Colour.RED, Colour.BLUE, Level.LOW, *Nowhere]),
    st.integers(0, 9).map(Access),
    st.integers(0, 3).map(Mode),
    st.builds(pathlib.PurePosixPath, text),
    st.builds(pathlib.PureWindowsPath, text),
)
hashable = plain.filter(lambda value: not isinstance(value, bytearray) and repr(value) != "Decimal('sNaN1')")
arguments = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.dictionaries(hashable, inner, max_size=2),
        st.builds(Point, inner, inner),
        st.builds(Line, small, small, inner),
        st.builds(Marked, small, small, inner),
    ),
    max_leaves=6,
)


def told(value):
    """A description of an argument that compares by types and bits."""
    kind = type(value)
    if kind in (tuple, list):
        return kind, [told(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted((told(item) for item in value), key=repr)
    if kind is dict:
        return kind, sorted(((told(key), told(item)) for key, item in value.items()), key=repr)
    if dataclasses.is_dataclass(value):
        return kind, sorted((name, told(item)) for name, item in vars(value).items())
    if isinstance(value, enum.Flag):
        return kind, value.value
    if isinstance(value, enum.Enum):
        return kind, value.name
    return kind, repr(value)


@settings(max_examples=300, deadline=None)
@given(arguments, arguments)
def test_different_arguments_have_different_keys_and_equal_ones_the_same(one, two):
    key = keys_of(None)
    assert (key(one) == key(two)) == (told(one) == told(two))
    assert key(one) == key(copy.deepcopy(one))


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
