"""``loads`` and ``dumps``."""

import contextlib
import enum
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redgrease import _native

from . import frames

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(),
    st.binary().map(bytearray), st.complex_numbers(allow_nan=False),
)  # fmt: skip
KEYS = st.one_of(st.integers(), st.text(), st.binary(), st.tuples(st.integers(), st.text()))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner), st.sets(KEYS), st.frozensets(KEYS)
    ),
    max_leaves=30,
)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


@given(VALUES)
def test_a_value_survives_the_round_trip(value):
    assert same(_native.loads(_native.dumps(value)), value)


@given(VALUES)
def test_every_truncation_is_an_error(value):
    data = _native.dumps(value)
    for end in range(0, len(data), max(1, len(data) // 20)):
        with pytest.raises(ValueError):
            _native.loads(data[:end])


def test_garbage_is_an_error_and_never_a_crash():
    rng = random.Random(1)
    for _ in range(20_000):
        data = bytes(rng.randrange(22) if rng.random() < 0.7 else rng.randrange(256) for _ in range(rng.randint(0, 20)))
        with contextlib.suppress(ValueError, TypeError):
            _native.loads(data)


def test_strings_of_the_database_are_text_or_bytes():
    assert _native.loads(frames.raw("ä".encode())) == "ä"
    assert _native.loads(frames.raw(b"\xff\x00")) == b"\xff\x00"


def test_nan_and_infinity_survive():
    assert math.isnan(_native.loads(_native.dumps(float("nan"))))
    assert _native.loads(_native.dumps(float("-inf"))) == float("-inf")


class Point:
    def __init__(self, x):
        self.x = x


class Colour(enum.IntEnum):
    RED = 1


def test_a_pickle_is_loaded_only_when_asked():
    data = _native.dumps(Point(3))
    with pytest.raises(ValueError, match="allow_pickle=True"):
        _native.loads(data)
    assert _native.loads(data, allow_pickle=True).x == 3


def test_subclasses_are_not_mistaken_for_their_base():
    assert _native.loads(_native.dumps([Colour.RED, True]), allow_pickle=True) == [Colour.RED, True]
    assert type(_native.loads(_native.dumps(Colour.RED), allow_pickle=True)) is Colour


def test_without_pickle_an_object_is_refused():
    with pytest.raises(TypeError, match="no form in the codec"):
        _native.dumps({"a": [Point(1)]}, pickle=False)


def test_nesting_has_a_limit_and_rings_do_not_crash():
    deep = 1
    for _ in range(200):
        deep = [deep]
    assert same(_native.loads(_native.dumps(deep)), deep)
    with pytest.raises(ValueError, match="nested deeper than 200"):
        _native.dumps([deep])
    with pytest.raises(ValueError, match="nested deeper than 200"):
        _native.loads(b"\x09\x01" + _native.dumps(deep))
    ring = {}
    ring["self"] = [ring]
    with pytest.raises(ValueError, match="hold themselves"):
        _native.dumps(ring)


def test_what_is_not_bytes_is_refused_by_name():
    with pytest.raises(TypeError, match="decode_responses"):
        _native.loads("text")
    with pytest.raises(ValueError, match="follow"):
        _native.loads(b"\x00\x00")
    assert _native.loads(bytearray(b"\x02")) is True
    assert _native.loads(memoryview(b"\x02")) is True
