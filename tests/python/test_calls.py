"""Arguments of commands, and the text that identifies a call."""

from __future__ import annotations

import doctest
import enum
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redgrease import calls

pytest.importorskip("redgrease._native")

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one, other):
    """Equal, of the same types; NaN is NaN, and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return one == other


@given(st.lists(values, max_size=3), st.dictionaries(st.text(max_size=3), values, max_size=3))
def test_typed_arguments_arrive_as_they_were(args, kwargs):
    packed = calls.pack(args, kwargs)
    for received in (packed, packed.decode("utf-8", "surrogateescape")):
        if isinstance(received, str) and received.encode("utf-8", "surrogateescape") != received.encode(
            "utf-8", "replace"
        ):
            continue  # the server hands over bytes where they are not UTF-8
        found = calls.unpack([received])
        assert same(found[0], tuple(args))
        assert same(found[1], kwargs)


def test_texts_stay_texts():
    assert calls.unpack(["1", b"\xff"]) == (("1", b"\xff"), {})
    assert calls.unpack([]) == ((), {})
    assert calls.unpack(["\0x"]) == (("\0x",), {})
    packed = calls.pack([1], {})
    assert calls.unpack([packed, "x"]) == ((packed, "x"), {}), "only alone it stands for all"


def test_what_cannot_be_sent_is_named_where_it_is_called():
    for args, kwargs, which in (([1, object()], {}, "number 2"), ([], {"unit": [lambda: 0]}, "'unit'")):
        with pytest.raises(TypeError, match=f"argument {which} cannot be sent"):
            calls.pack(args, kwargs)


def test_nothing_is_unpickled():
    from redgrease import codec

    evil = calls._MARK + codec.dumps([[enum.Enum], {}])
    with pytest.raises(ValueError, match="pickle"):
        calls.unpack([evil])


def test_arguments_as_texts():
    assert calls.as_texts([1, 1.5, "x", b"y", b"\xff", bytearray(b"z")], "f") == ("1", "1.5", "x", "y", b"\xff", "z")
    for value in (None, True, [1], {}):
        with pytest.raises(TypeError, match=r"number 2 of the command 'f' .* typed=True"):
            calls.as_texts(["x", value], "f")


@given(values, values)
def test_equal_arguments_have_equal_texts_and_others_have_others(one, other):
    texts = [calls.call_text("f", None, None, (value,), {}) for value in (one, other)]
    assert (texts[0] == texts[1]) == same(one, other)


def test_a_call_has_one_text_however_it_is_written():
    def area(width, height=1, *, unit="cm"):
        pass

    signature = inspect.signature(area)
    ways = [((2,), {}), ((2, 1), {}), ((), {"width": 2}), ((), {"height": 1, "width": 2}), ((2,), {"unit": "cm"})]
    assert {calls.call_text("area", signature, None, *way) for way in ways} == {"area(2, 1, unit='cm')"}
    assert calls.call_text("area", signature, None, ({"b": 1, "a": 2},), {}) == calls.call_text(
        "area", signature, None, ({"a": 2, "b": 1},), {}
    )
    with pytest.raises(TypeError, match="missing a required argument"):
        calls.call_text("area", signature, None, (), {})


def test_a_long_call_has_a_short_text():
    texts = {calls.call_text("f", None, None, ("x" * 1000, number), {}) for number in range(10)}
    assert len(texts) == 10
    assert all(len(text) < 50 for text in texts)


def test_a_key_is_a_format_or_a_function():
    def f(user, page=1):
        pass

    signature = inspect.signature(f)
    assert calls.call_text("f", signature, "u:{user}:{page}", (7,), {}) == "u:7:1"
    assert calls.call_text("f", signature, lambda user, page: f"{user}/{page}", (7,), {}) == "7/1"
    assert calls.call_text("f", signature, lambda user, page: user, (7,), {}) == "7"
    for wrong in (lambda user, page: None, lambda user, page: "", "{user}", lambda user, page: [1]):
        with pytest.raises(TypeError, match="key of the command 'f' gave"):
            calls.call_text("f", signature, wrong, ("}",), {})


class Size(enum.IntEnum):
    LARGE = 3


class Metres(float):
    def __repr__(self):
        return f"{float(self)} m"


def test_numbers_of_subclasses_are_numbers():
    assert calls.as_texts([Size.LARGE, Metres(1.5)], "f") == ("3", "1.5")


@pytest.mark.parametrize(
    ("key", "text"),
    [("{c}", "no parameter 'c': it has a, b"), ("{c.x}", "no parameter 'c'"), ("{", "expected '}'|Single '{'")],
)
def test_a_format_that_fits_no_call_is_refused(key, text):
    with pytest.raises(ValueError, match=text):
        calls.check_key("f", inspect.signature(lambda a, b: None), key)


def test_a_key_is_text_or_a_function():
    signature = inspect.signature(lambda a, *b: None)
    for fits in (None, "x", "{a}", "{0}:{1}", "{a.real}", "{b[0]}", len):
        calls.check_key("f", signature, fits)
    with pytest.raises(TypeError, match="a format or a function, got 5"):
        calls.check_key("f", signature, 5)


@pytest.mark.parametrize("key", ["{a.foo}", "{1}", "{b[0]}", "{a:d}"])
def test_a_format_that_does_not_fit_the_arguments_is_an_error_of_the_call(key):
    with pytest.raises(TypeError, match="cannot be made of the arguments"):
        calls.call_text("f", inspect.signature(lambda a, *b: None), key, ("x",), {})


def test_a_value_without_a_stable_text_needs_a_key():
    with pytest.raises(TypeError, match="give key="):
        calls.call_text("f", None, None, (object(),), {})


def test_examples():
    assert doctest.testmod(calls).failed == 0
