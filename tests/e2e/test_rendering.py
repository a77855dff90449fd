"""The encoding of results for clients that do not support the codec."""

from __future__ import annotations

import pytest

from .resp import Err, Simple


def rendered(db, expression: str, *, convert: bool = False, resp3: bool = False):
    """The one result of a run whose record is ``expression``, as it was on the wire."""
    script = f"GB('ShardsIDReader').map(lambda _: {expression}).run(convertToStr={convert})"
    results, errors = db.wire(resp3=resp3)("RG.PYEXECUTE", script)
    assert errors == []
    [result] = results
    return result


def triggered(db, expression: str, *, resp3: bool = False):
    """The one result of a trigger whose record is ``expression``, as it was on the wire."""
    db.ok(f"GB('CommandReader').map(lambda _: {expression}).register(trigger='t', convertToStr=False)")
    [result] = db.wire(resp3=resp3)("RG.TRIGGER", "t")
    return result


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1", b"1"),
        ("True", b"True"),
        ("3.5", b"3.5"),
        ("None", b"None"),
        ("'text'", b"text"),
        ("b'raw'", b"b'raw'"),
        ("[1, 'a']", b"[1, 'a']"),
        ("{'k': 'v'}", b"{'k': 'v'}"),
        ("'+'", b"+"),
        ("'-'", b"-"),
        ("'+fine'", b"+fine"),
        ("'-bad thing'", b"-bad thing"),
        ("''", b""),
        ("'ö\\n\\0x'", "ö\n\0x".encode()),
    ],
)
def test_results_are_text_by_default(db, expression, expected):
    assert rendered(db, expression, convert=True) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1", 1),
        ("-7", -7),
        ("2**63 - 1", 2**63 - 1),
        ("-2**63", -(2**63)),
        ("True", 1),
        ("False", 0),
        ("3.5", b"3.500000"),
        ("'x'", b"x"),
        ("''", b""),
        ("b'y\\xff\\0'", b"y\xff\0"),
        ("None", b"PY RECORD"),
        ("{'a': 1}", b"PY RECORD"),
        ("(1, 2)", b"PY RECORD"),
        ("{1}", b"PY RECORD"),
        ("bytearray(b'x')", b"PY RECORD"),
        ("object()", b"PY RECORD"),
        ("[]", []),
        ("[1, [2, [b'deep']]]", [1, [2, [b"deep"]]]),
        ("'+'", b"+"),
        ("'-'", b"-"),
        ("'+fine'", b"+fine"),
        ("'-bad thing'", b"-bad thing"),
    ],
)
def test_without_conversion_results_are_native(db, expression, expected):
    assert rendered(db, expression) == expected


def test_a_mixed_list_shows_every_rule_at_once(db):
    expression = "[1, 2.5, 'x', None, [True, b'y'], {'a': 1}, '+fine', '-bad thing']"
    same = [1, b"2.500000", b"x", b"PY RECORD", [1, b"y"], b"PY RECORD"]
    assert rendered(db, expression) == [*same, b"+fine", b"-bad thing"]
    assert triggered(db, expression) == [*same, Simple("fine"), Err("bad thing")]


@pytest.mark.parametrize("expression", ["-5", "-2.5", "float('-inf')", "-2**70", "complex(0, float('-inf'))"])
def test_a_negative_number_that_a_command_returns_is_no_error(db, expression):
    db.ok(f"GB('CommandReader').map(lambda _: {expression}).register(trigger='t')")
    assert db.trigger("t") == [str(eval(expression))]


@pytest.mark.parametrize("number", ["2**63", "-2**63 - 1", "10**30"])
def test_a_number_beyond_64_bits_is_its_text_not_garbage(db, number):
    assert rendered(db, number) == str(eval(number)).encode()


@pytest.mark.parametrize("text", ["+two\\r\\nlines", "-two\\r\\nlines"])
def test_line_ends_cannot_break_out_of_a_simple_reply(db, text):
    reply = triggered(db, f"'{text}'")
    assert isinstance(reply, (Simple, Err))
    assert db.wire()("PING") == Simple("PONG")


def test_a_list_deeper_than_any_client_can_read_is_an_error(db):
    script = """
def deep(_):
    x = []
    for i in range(100000):
        x = [x]
    return x
GB('ShardsIDReader').map(deep).run(convertToStr=False)
"""
    assert db.errors(script)


def test_a_list_that_contains_itself_is_an_error(db):
    assert db.errors("x = []\nx.append(x)\nGB('ShardsIDReader').map(lambda _: x).run(convertToStr=False)")


def test_an_object_whose_text_cannot_be_made_is_an_error(db):
    script = """
class Shy:
    def __str__(self):
        raise ValueError('no words')
GB('ShardsIDReader').map(lambda _: Shy()).run()
"""
    assert "no words" in db.errors(script)[0]


def test_text_that_is_no_utf8_is_an_error_or_escaped_but_no_crash(db):
    reply = db.execute("GB('ShardsIDReader').map(lambda _: '\\udcff').run()")
    assert isinstance(reply, list)
    assert db.r.ping()


def test_many_small_results_come_back_whole(db):
    script = "def feed():\n    yield from range(300000)\nGB('PythonReader').run(feed, convertToStr=False)"
    results, errors = db.wire()("RG.PYEXECUTE", script)
    assert results == list(range(300_000))
    assert errors == []


def test_one_large_result_comes_back_whole(db):
    script = "GB('ShardsIDReader').map(lambda _: b'x' * 20_000_000).run(convertToStr=False)"
    assert db.wire()("RG.PYEXECUTE", script) == [[b"x" * 20_000_000], []]


def test_replies_to_resp3_clients_have_the_same_shapes(db):
    assert triggered(db, "[1, 2.5, 'x', None, '+fine']", resp3=True) == [
        1,
        b"2.500000",
        b"x",
        b"PY RECORD",
        Simple("fine"),
    ]


# -- values of the package for clients that do not support the codec


PLAIN = [
    ("b'page'", b"page", b"page"),
    ("'page'", b"page", b"page"),
    ("bytearray(b'page')", b"page", b"page"),
    ("7", 7, 7),
    ("None", None, None),
    ("True", 1, True),
    ("[1, 'a', None]", [1, b"a", None], [1, b"a", None]),
    ("(1, 'a')", [1, b"a"], [1, b"a"]),
    ("{'a': 1}", [b"a", 1], {b"a": 1}),
    ("'+not simple'", b"+not simple", b"+not simple"),
    ("'-not an error'", b"-not an error", b"-not an error"),
]


@pytest.mark.parametrize(("expression", "in_resp2", "in_resp3"), PLAIN)
def test_a_plain_reply_can_be_used_by_any_client(db, expression, in_resp2, in_resp3):
    db.ok(f"GB('CommandReader').map(lambda _: {expression}).register(trigger='t', convertToStr=False, reply='plain')")
    assert db.wire()("RG.TRIGGER", "t") == [in_resp2]
    assert db.wire(resp3=True)("RG.TRIGGER", "t") == [in_resp3]


def test_a_plain_float_is_a_number_for_any_client(db):
    db.ok("GB('CommandReader').map(lambda _: 2.5).register(trigger='t', convertToStr=False, reply='plain')")
    assert [float(v) for v in db.wire()("RG.TRIGGER", "t")] == [2.5]
    assert [float(v) for v in db.wire(resp3=True)("RG.TRIGGER", "t")] == [2.5]


def test_a_plain_run_too(db):
    script = "GB('ShardsIDReader').map(lambda _: {'n': [1, None]}).run(convertToStr=False, reply='plain')"
    assert db.wire()("RG.PYEXECUTE", script) == [[[b"n", [1, None]]], []]


def test_an_unknown_kind_of_reply_is_refused(db):
    assert "reply" in db.refused("GB('ShardsIDReader').run(reply='fancy')")
