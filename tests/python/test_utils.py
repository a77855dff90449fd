"""Tables of inputs and outputs of `redgrease.utils`."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from redgrease import _native, utils
from redgrease.data import ExecID, ExecLocality, ExecutionStatus
from redgrease.utils import Record, StreamRecord


@pytest.mark.parametrize("value", [None, "", 0, [], {}, object(), ..., int])
def test_as_is_gives_the_very_object(value):
    assert utils.as_is(value) is value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", ""),
        (b"Lyngon", "Lyngon"),
        ("x", "x"),
        (None, None),
        (42, 42),
        (3.14, 3.14),
        (..., ...),
        (b"\xff", "\ufffd"),
    ],
)
def test_str_if_bytes(value, expected):
    assert utils.str_if_bytes(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, ""), (42, "42"), (3.14, "3.14"), (..., "Ellipsis"), (b"abc", "abc"), ("abc", "abc")]
)
def test_safe_str(value, expected):
    assert utils.safe_str(value) == expected
    assert utils.safe_str_upper(value) == expected.upper()


@pytest.mark.parametrize("value", ["ok", "Ok", "OK", b"ok", b"OK", "OK - value was saved in extra config dictionary"])
def test_bool_ok_is_true_for_ok(value):
    assert utils.bool_ok(value) is True


@pytest.mark.parametrize(
    "value", ["nok", "no", "None", "yes", "true", "", " ", "OKidoki", 1, 42, True, None, [], {}, ["ok"], ...]
)
def test_bool_ok_is_false_for_all_else(value):
    assert utils.bool_ok(value) is False


@pytest.mark.parametrize("value", ["ok", "y", "Y", "Yes", "YES", "true", b"TRUE", b"1", "1", 1, 42, True, 1.0])
def test_safe_bool_is_true_for_words_and_numbers(value):
    assert utils.safe_bool(value) is True


@pytest.mark.parametrize(
    "value",
    ["nok", "n", "no", "None", "Nose", "false", "", " ", "a", "yabba", "okra", b"0", 0, 0.0, None, [], [1], {}, ("y",)],
)
def test_safe_bool_is_false_for_all_else(value):
    assert utils.safe_bool(value) is False


def test_optional_leaves_none_alone():
    assert utils.optional(int)("3") == 3
    assert utils.optional(int)(None) is None


@pytest.mark.parametrize(
    ("value", "expected"), [(True, 1), (False, 0), (None, None), ("", ""), (1, 1), (3.14, 3.14), ([True], [True])]
)
def test_to_int_if_bool(value, expected):
    assert utils.to_int_if_bool(value) == expected
    assert type(utils.to_int_if_bool(value)) is type(expected)


class Packed:
    def __bytes__(self):
        return b"\x00packed"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b""),
        (42, 42),
        (3.14, 3.14),
        ("Lyngon", b"Lyngon"),
        (b"\xff", b"\xff"),
        (bytearray(b"\xff\x00"), b"\xff\x00"),
        (True, 1),
        ([], b"[]"),
        ([1, 2, 3], b"[1, 2, 3]"),
        (ExecutionStatus.done, b"done"),
        (ExecLocality.Cluster, b"Cluster"),
        (ExecID("someshardid", 42), b"someshardid-42"),
        (Packed(), b"\x00packed"),
    ],
)
def test_to_redis_type_and_to_bytes(value, expected):
    assert utils.to_redis_type(value) == expected
    assert type(utils.to_redis_type(value)) is type(expected)
    assert utils.to_bytes(value) == (expected if isinstance(expected, bytes) else str(expected).encode())


def test_to_list():
    assert utils.to_list(None) == []
    assert utils.to_list({}) == []
    assert utils.to_list({b"a": 1, "b": "x"}) == ["a", 1, "b", b"x"]
    assert utils.to_list({"a": 1}, key_transform=str.upper, val_transform=str) == ["A", "1"]


def test_to_dict():
    assert utils.to_dict(None) == {}
    assert utils.to_dict([]) == {}
    assert utils.to_dict(["foo", "bar"]) == {"foo": "bar"}
    assert utils.to_dict(range(4)) == {0: 1, 2: 3}
    assert utils.to_dict(["a", 1, "odd"]) == {"a": 1}
    assert utils.to_dict([1, 2, 3], keys=["a", "b"]) == {"a": 1, "b": 2}
    assert utils.to_dict([b"a", b"1"], key_transform=utils.str_if_bytes, val_transform=int) == {"a": 1}
    per_key = {"a": int, "b": utils.safe_str}
    assert utils.to_dict(["a", "1", "b", b"x", "c", b"y"], val_transform=per_key) == {"a": 1, "b": "x", "c": b"y"}
    assert utils.to_dict(["a", "no number"], val_transform=int) == {"a": "no number"}


def test_to_kwargs():
    assert utils.to_kwargs([b"foo", b"bar", 13, 37]) == {"foo": b"bar", "13": 37}


def test_transform_falls_back_to_the_entry_for_none():
    assert utils.transform("7", {None: int}, "x") == 7
    assert utils.transform("7", None) == "7"
    with pytest.raises(KeyError):
        utils.transform("7", {}.__getitem__)


def test_list_parser():
    assert utils.list_parser(str)([]) == []
    assert utils.list_parser(str)([1, False]) == ["1", "False"]
    assert utils.list_parser(int)([True, "42"]) == [1, 42]
    assert utils.list_parser(int)(b"[1, 2]") == [1, 2]
    with pytest.raises(TypeError):
        utils.list_parser(str)(None)
    for bad in ("no list", "7"):
        with pytest.raises(ValueError, match="not a list"):
            utils.list_parser(str)(bad)


def test_dict_of():
    parse = utils.dict_of({"a": int, "b": str})
    assert parse(["1", 2], ["a", "b"]) == {"a": 1, "b": "2"}
    assert parse([2, "1"], ["b", "a"]) == {"b": "2", "a": 1}
    assert parse([], []) == {}
    assert parse([b"x", "1"], ["unknown", "a"]) == {"unknown": b"x", "a": 1}


def test_case_insensitive_dict_folds_everywhere():
    folded = utils.CaseInsensitiveDict({"Name": 1, b"other": 2})
    assert "nAmE" in folded
    assert folded["NAME"] == 1
    assert folded.get("OTHER") == 2
    assert folded.get("missing", 3) == 3
    folded["name"] = 4
    assert len(folded) == 2
    assert folded.setdefault("naMe", 5) == 4
    assert folded.pop("Name") == 4
    assert folded.pop("Name", None) is None
    folded.update({"a": 1}, B=2)
    assert folded["b"] == 2
    assert folded | {"a": 9} == {"OTHER": 2, "A": 9, "B": 2}
    assert {"a": 0, "c": 3} | folded == {"OTHER": 2, "A": 1, "B": 2, "C": 3}
    assert utils.CaseInsensitiveDict.fromkeys(["x", b"X"], 1) == {"X": 1}
    merged = folded.copy()
    merged |= {"b": 7}
    assert (merged["B"], type(merged), type(folded | {})) == (7, utils.CaseInsensitiveDict, utils.CaseInsensitiveDict)
    copied = folded.copy()
    del copied["A"]
    assert "a" in folded
    assert "a" not in copied


# -- records


@pytest.mark.parametrize("make", [utils.record, utils.stream_record])
def test_records_are_made_of_keys_and_dicts(make):
    assert make("x").key == "x"
    assert make(b"x").key == "x"
    assert make({"key": "x", "value": {"a": 1}}).value == {"a": 1}
    assert make({"key": "x", "more": 1}).kwargs == {"more": 1}
    made = make("x")
    assert make(made) is made
    for empty in (None, "", [], {"key": ""}, {"key": None}):
        with pytest.raises(ValueError, match="needs a key"):
            make(empty)
    with pytest.raises(TypeError):
        make({"value": 1})


def test_record_keeps_what_is_absent_as_none():
    record = utils.record({"key": "x", "value": "1", "type": b"string", "event": None})
    assert (record.type, record.event) == ("string", None)
    assert record == Record("x", "1", "string")
    assert record != Record("y", "1", "string")
    assert repr(record) == "Record(key='x', value='1', type='string', event=None)"
    message = utils.stream_record({"key": "s", "id": b"1-0", "value": {"a": "1"}})
    assert message.id == "1-0"
    assert repr(message) == "StreamRecord(key='s', id='1-0', value={'a': '1'})"
    assert message == StreamRecord("s", "1-0", {"a": "1"})


# -- functions


@pytest.mark.parametrize("x", range(10))
def test_compose_goes_from_right_to_left(x):
    assert utils.compose(lambda y: y + 1, lambda y: y * 2)(x) == x * 2 + 1
    assert utils.compose()(x) == x


@pytest.mark.parametrize(
    ("conditions", "item", "expected"),
    [
        ({}, {}, True),
        ({}, {"a": 1}, True),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": ...}, {"a": None}, True),
        ({"a": ...}, {}, False),
        ({"a": int}, {"a": 3}, True),
        ({"a": int}, {"a": "3"}, False),
        ({"a": [1, 2]}, {"a": 2}, True),
        ({"a": [1, 2]}, {"a": 3}, False),
        ({"a": "hash"}, {"a": "h"}, False),
        ({"a": {"x": 1}}, {"a": "x"}, True),
        ({"a": 1, "b": str}, {"a": 1, "b": "y"}, True),
        ({"a": 1, "b": str}, {"a": 1, "b": 2}, False),
    ],
)
def test_dict_filter(conditions, item, expected):
    assert utils.dict_filter(**conditions)(item) is expected


def test_passfun_makes_plain_functions_of_everything():
    def plain(x):
        return x

    assert utils.passfun(plain) is plain
    for given, argument, expected in [(int, "4", 4), (str.upper, "a", "A"), ("{}!".format, "a", "a!"), (7, "a", 7)]:
        made = utils.passfun(given)
        assert inspect.isfunction(made)
        assert made(argument) == expected
    assert utils.passfun()("x") == "x"
    assert utils.passfun(None, len)([1]) == 1
    assert utils.passfun(7, len)([1]) == 1
    assert utils.passfun(int)("ff", base=16) == 255


def test_passfun_keeps_coroutines_awaitable():
    class Waiting:
        async def __call__(self, x):
            return x + 1

    made = utils.passfun(Waiting())
    assert inspect.iscoroutinefunction(made)
    assert asyncio.run(made(1)) == 2


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "", True),
        ("user:*", "user:1", True),
        ("user:*", "users", False),
        ("*b*", "abc", True),
        ("*b", "abc", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a[bx]c", "axc", True),
        ("a[^bx]c", "axc", False),
        ("[a-c]", "b", True),
        ("[c-a]", "b", True),
        ("[]", "a", False),
        ("[^]", "a", True),
        ("[ab", "b", True),
        ("[a\\]]", "]", True),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("a\\", "a\\", True),
        ("a.c", "abc", False),
        ("*a" * 500 + "b", "a" * 2000, False),
        ("?", "\u00e9", False),  # two bytes
        ("??", "\u00e9", True),
        ("\u00e9*", "\u00e9t\u00e9", True),
        ("[\u00e9]", "\u00e9", False),
    ],
)
def test_patterns_match_names_as_in_the_server(pattern, name, matches):
    assert utils.matches_pattern(pattern, name) == matches
    assert _native.matches_pattern(pattern.encode(), name.encode()) == matches
