"""Every operation of a gear function on one server, with the quirks that existing functions depend on."""

from __future__ import annotations

from ast import literal_eval

import pytest


def feed(db, records: str, steps: str, ending: str = ".run(feed)") -> list[str]:
    """Results of ``steps`` over the given Python list of records, in order."""
    script = f"def feed():\n    yield from {records}\nGB('PythonReader'){steps}{ending}"
    return db.results(script)


def feed_errors(db, records: str, steps: str) -> tuple[list[str], list[str]]:
    return db.run(f"def feed():\n    yield from {records}\nGB('PythonReader'){steps}.run(feed)")


def values(texts: list[str]) -> list:
    return [literal_eval(text) for text in texts]


@pytest.fixture
def hundred(db):
    """100 string keys "0".."99" whose value equals the key."""
    db.r.mset({str(i): str(i) for i in range(100)})
    return db


# -- map, filter, foreach, flatmap


def test_map_turns_each_record_into_another(db):
    assert feed(db, "range(5)", ".map(lambda x: x * x)") == ["0", "1", "4", "9", "16"]


def test_filter_keeps_what_is_truthy(db):
    assert feed(db, "[0, 1, '', 'a', None, [], [0]]", ".filter(lambda x: x)") == ["1", "a", "[0]"]


def test_filter_keeps_half_of_a_hundred(hundred):
    assert hundred.results("GB().map(lambda r: int(r['value'])).filter(lambda v: v >= 50).count().run()") == ["50"]


def test_foreach_passes_the_same_object_on(db):
    script = ".map(lambda x: {'n': x}).foreach(lambda d: d.update(seen=True)).foreach(lambda d: 'ignored')"
    assert values(feed(db, "[1, 2]", script)) == [{"n": 1, "seen": True}, {"n": 2, "seen": True}]


def test_flatmap_gives_the_elements_of_a_list(db):
    assert sorted(feed(db, "['a b c']", ".flatmap(lambda x: x.split())")) == ["a", "b", "c"]


def test_flatmap_gives_the_elements_in_reverse_order(db):
    assert feed(db, "[[1, 2, 3], [4, 5]]", ".flatmap(lambda x: x)") == ["3", "2", "1", "5", "4"]


def test_flatmap_of_a_list_key_then_limit_pins_the_order(db):
    db.r.lpush("l", 1, 2, 3, 4, 5)
    assert db.results("GB().flatmap(lambda r: r['value']).limit(1, 3).run('l')") == ["4"]


def test_flatmap_expands_one_level_and_only_lists(db):
    records = "[[[1, 2]], (3, 4), 'ab', {5}, [], None, 6]"
    assert feed(db, records, ".flatmap(lambda x: x)") == ["[1, 2]", "(3, 4)", "ab", "{5}", "None", "6"]


def test_records_flow_depth_first(db):
    script = """
seen = []
def feed():
    yield from [1, 2]
def first(x):
    seen.append(('first', x))
    return x
def second(x):
    seen.append(('second', x))
    return list(seen) if x == 2 else None
GB('PythonReader').map(first).map(second).filter(lambda x: x).map(lambda x: str(x)).run(feed)
"""
    assert values(db.results(script)) == [[("first", 1), ("second", 1), ("first", 2), ("second", 2)]]


def test_flatmap_in_order_reads_a_list_that_changes_meanwhile_to_its_end(db):
    steps = ".flatmap(lambda x: x, inOrder=True).map(lambda x: (items.append('new'), x)[1])"
    script = f"items = [1, 2]\ndef feed():\n    yield items\nGB('PythonReader'){steps}.run(feed)"
    assert db.results(script) == ["1", "2"]


# -- limit


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("3", "012"), ("3, 2", "234"), ("100", "0123456"), ("0", ""), ("2, 100", ""), ("1, 0", "0")],
)
def test_limit_passes_a_slice(db, arguments, expected):
    assert feed(db, "range(7)", f".limit({arguments})") == list(expected)


@pytest.mark.parametrize("arguments", ["-1", "1, -1", "2**63", "10**400", "1.5", "True", "None"])
def test_limit_refuses_what_is_no_number_of_records(db, arguments):
    message = db.refused(f"GB().limit({arguments})")
    assert "limit argument must be a" in message


def test_limit_stops_what_is_before_it(db):
    script = """
def feed():
    for i in range(1_000_000):
        execute('set', 'pulled', str(i))
        yield i
GB('PythonReader').limit(3).run(feed)
"""
    assert db.results(script) == ["0", "1", "2"]
    assert int(db.r.get("pulled")) <= 3 + 1, "at most one record more than needed may be pulled"


def test_limit_before_and_after_collect(db):
    assert feed(db, "range(7)", ".limit(2).collect()") == ["0", "1"]
    assert feed(db, "range(7)", ".collect().limit(2)") == ["0", "1"]


def test_error_records_do_not_count_for_a_limit(db):
    results, errors = feed_errors(db, "[1, 0, 2]", ".map(lambda x: 1 / x).limit(5)")
    assert results == ["1.0"]
    assert len(errors) == 1


# -- accumulate, grouping


def test_accumulate_starts_with_none_and_gives_one_record(db):
    assert feed(db, "[1, 2, 3]", ".accumulate(lambda a, x: (a or 0) + x)") == ["6"]
    assert feed(db, "[]", ".accumulate(lambda a, x: 1)") == []
    assert feed(db, "['x']", ".accumulate(lambda a, x: repr(a))") == ["None"]


def test_groupby_reduces_record_by_record(hundred):
    script = """
GB().map(lambda r: '100' if int(r['value']) >= 50 else '0') \\
    .groupby(lambda x: x, lambda key, acc, x: (acc or 0) + 1).run()
"""
    assert sorted(values(hundred.results(script)), key=str) == [{"key": "0", "value": 50}, {"key": "100", "value": 50}]


def test_localgroupby_reduces_record_by_record(db):
    found = values(feed(db, "'abcab'", ".localgroupby(lambda x: x, lambda k, a, x: (a or '') + k + x)"))
    assert sorted(found, key=str) == [
        {"key": "a", "value": "aaaa"},
        {"key": "b", "value": "bbbb"},
        {"key": "c", "value": "cc"},
    ]


def test_batchgroupby_hands_over_all_records_of_a_key(db):
    found = values(feed(db, "range(5)", ".batchgroupby(lambda x: x % 2, lambda key, xs: (key, sorted(xs)))"))
    assert sorted(found, key=str) == [
        {"key": "0", "value": ("0", [0, 2, 4])},
        {"key": "1", "value": ("1", [1, 3])},
    ]


@pytest.mark.parametrize(
    ("record", "key"),
    [("1", "1"), ("'text'", "text"), ("b'raw'", "b'raw'"), ("(1, 'a')", "(1, 'a')"), ("None", "None"), ("1.5", "1.5")],
)
def test_keys_of_groups_are_always_text(db, record, key):
    [found] = values(feed(db, f"[{record}]", ".groupby(lambda x: x, lambda k, a, x: repr(k))"))
    assert found == {"key": key, "value": repr(key)}


@pytest.mark.single("records of several shards have no order")
def test_repartition_and_collect_leave_the_records_alone(db):
    assert feed(db, "range(5)", ".repartition(lambda x: x).collect().repartition(lambda x: str(x))") == list("01234")


def test_a_key_written_after_repartition_is_written(db):
    db.r.set("x", "1")
    script = "GB().repartition(lambda r: r['value']).foreach(lambda r: execute('set', r['value'], r['key'])).run('x')"
    assert len(db.results(script)) == 1
    assert db.r.get("1") == b"x"


# -- aggregate and its family


def test_aggregate_sums_a_hundred(hundred):
    script = "GB().map(lambda r: int(r['value'])).aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run()"
    assert hundred.results(script) == ["4950"]


def test_aggregate_calls_the_second_function_with_the_partial_result(db):
    steps = ".aggregate([], lambda a, x: a + [x], lambda a, x: a + ['part', x])"
    assert values(feed(db, "[1, 2]", steps)) == [["part", [1, 2]]]


@pytest.mark.parametrize("empty", ["0", "''", "[]", "False", "None"])
def test_an_accumulator_that_becomes_empty_stays_what_it_is(db, empty):
    check = f"lambda acc, x: acc if x == 'look' else (x if x != 'empty' else {empty})"
    records = "['a', 'empty', 'look']"
    assert feed(db, records, f".aggregate('zero', {check}, lambda acc, x: x)") == [str(eval(empty))]
    by_key = f".aggregateby(lambda x: 'k', 'zero', lambda k, acc, x: ({check})(acc, x), lambda k, acc, x: x)"
    assert feed(db, records, f"{by_key}.map(lambda r: r['value'])") == [str(eval(empty))]


def test_aggregate_of_nothing_gives_nothing(db):
    assert feed(db, "[]", ".aggregate(0, lambda a, x: a + x, lambda a, x: a + x)") == []


def test_a_mutable_zero_is_copied_for_each_accumulator(db):
    steps = """.aggregateby(lambda x: x % 2, {'n': 1},
        lambda k, a, x: (a.update(n=a['n'] * x), a)[1],
        lambda k, a, x: (a.update(n=a['n'] * x['n']), a)[1])"""
    found = values(feed(db, "[1, 2, 3, 4, 5]", steps))
    assert sorted(found, key=str) == [{"key": "0", "value": {"n": 8}}, {"key": "1", "value": {"n": 15}}]


def test_aggregateby_sums_by_key(db):
    steps = ".aggregateby(lambda x: x[0], 0, lambda k, a, x: a + x[1], lambda k, a, x: a + x)"
    found = values(feed(db, "[('a', 1), ('b', 2), ('a', 3)]", steps))
    assert sorted(found, key=str) == [{"key": "a", "value": 4}, {"key": "b", "value": 2}]


def test_local_aggregateby_is_reachable_by_its_underscored_name(db):
    steps = ".__localAggregateby__(lambda x: x % 2, 0, lambda k, a, x: a + x)"
    found = values(feed(db, "[1, 2, 3, 4]", steps))
    assert sorted(found, key=str) == [{"key": "0", "value": 6}, {"key": "1", "value": 4}]


def test_count_counts_records(hundred):
    assert hundred.results("GB().count().run()") == ["100"]
    assert feed(hundred, "[None, 0, '']", ".count()") == ["3"]
    assert feed(hundred, "[]", ".count()") == []


def test_count_as_a_native_number(hundred):
    assert hundred.wire()("RG.PYEXECUTE", "GB().count().run(convertToStr=False)") == [[100], []]


def test_count_after_steps_of_python(hundred):
    assert hundred.results("GB().filter(lambda r: r['key'].startswith('1')).count().map(lambda n: n + 1).run()") == [
        "12"
    ]


def test_countby_counts_what_the_extractor_gives(hundred):
    script = "GB().map(lambda r: 100 if int(r['value']) >= 50 else 0).countby(lambda x: x).run()"
    assert sorted(values(hundred.results(script)), key=str) == [{"key": "0", "value": 50}, {"key": "100", "value": 50}]


def test_countby_counts_the_records_themselves_by_default(db):
    found = values(feed(db, "'abca'", ".countby()"))
    assert {d["key"]: d["value"] for d in found} == {"a": 2, "b": 1, "c": 1}


def test_avg_is_the_arithmetic_mean(db):
    assert feed(db, "['1', '1', '2', '2']", ".avg()") == ["1.5"]
    assert feed(db, "[{'n': 1}, {'n': 4}]", ".avg(lambda x: x['n'])") == ["2.5"]
    assert feed(db, "[]", ".avg()") == []


def test_sort_is_ascending_by_default(hundred):
    assert hundred.results("GB().map(lambda r: int(r['value'])).sort().run()") == [str(i) for i in range(100)]


def test_sort_with_reverse_false_is_descending(db):
    assert feed(db, "[2, 3, 1]", ".sort(False)") == ["3", "2", "1"]
    assert feed(db, "[2, 3, 1]", ".sort(reverse=False)") == ["3", "2", "1"]
    assert feed(db, "[2, 3, 1]", ".sort(reverse=True)") == ["1", "2", "3"]


def test_sort_of_what_cannot_be_compared_is_an_error(db):
    results, errors = feed_errors(db, "[1, 'a']", ".sort()")
    assert results == []
    assert "TypeError" in errors[0]


def test_sort_then_limit(db):
    assert feed(db, "[2, 3, 1]", ".sort().limit(1)") == ["1"]


def test_distinct_gives_each_record_once(db):
    assert sorted(feed(db, "[1, 2, 2, 1, 3]", ".distinct()")) == ["1", "2", "3"]
    assert feed(db, "[1, 2, 2, 1, 3]", ".distinct().count()") == ["3"]


def test_distinct_of_what_cannot_be_hashed_is_an_error(db):
    _, errors = feed_errors(db, "[[1]]", ".distinct()")
    assert "unhashable" in errors[0]


def test_a_long_chain_works_like_its_parts(db):
    db.r.mset({f"line:{i}": text for i, text in enumerate(["to be or not to be", "that is the question", "to be"])})
    script = """
GB().map(lambda r: r['value']).flatmap(lambda t: t.split()).countby().filter(lambda d: d['value'] > 1) \\
    .map(lambda d: (d['value'], d['key'])).sort().map(lambda t: '%s=%d' % (t[1], t[0])).run('line:*')
"""
    assert db.results(script) == ["be=3", "to=3"]


# -- wrong arguments


FUNCTION_OPERATIONS = ["map", "filter", "foreach", "flatmap", "accumulate", "repartition"]
TWO_FUNCTION_OPERATIONS = ["groupby", "localgroupby", "batchgroupby"]


@pytest.mark.parametrize("operation", FUNCTION_OPERATIONS)
@pytest.mark.parametrize("arguments", ["", "lambda x: x, lambda x: x"])
def test_a_wrong_number_of_arguments_is_refused(db, operation, arguments):
    assert f"wrong number of args to {operation} function" in db.refused(f"GB().{operation}({arguments})")


@pytest.mark.parametrize("operation", TWO_FUNCTION_OPERATIONS)
@pytest.mark.parametrize("arguments", ["", "lambda x: x", "lambda x: x, lambda x: x, lambda x: x"])
def test_a_wrong_number_of_arguments_of_a_grouping_is_refused(db, operation, arguments):
    assert f"wrong number of args to {operation} function" in db.refused(f"GB().{operation}({arguments})")


@pytest.mark.parametrize("operation", FUNCTION_OPERATIONS)
@pytest.mark.parametrize("argument", ["7", "'text'", "None"])
def test_what_is_no_function_is_refused(db, operation, argument):
    assert "argument must be a function" in db.refused(f"GB().{operation}({argument})")


@pytest.mark.parametrize("operation", TWO_FUNCTION_OPERATIONS)
@pytest.mark.parametrize("arguments", ["7, lambda k, a, x: x", "lambda x: x, 7"])
def test_what_is_no_function_is_refused_by_a_grouping(db, operation, arguments):
    assert "argument must be a function" in db.refused(f"GB().{operation}({arguments})")


@pytest.mark.parametrize("function", ["int", "'{}0'.format", "__import__('functools').partial(int, base=10)"])
def test_classes_methods_and_partials_are_functions_too(db, function):
    assert feed(db, "['1', '2']", f".map({function})")[0] in ("1", "10")


def test_collect_takes_no_argument(db):
    assert "wrong number of args to collect function" in db.refused("GB().collect(1)")


@pytest.mark.parametrize("arguments", ["", "1, 2, 3"])
def test_limit_takes_one_or_two_arguments(db, arguments):
    assert "wrong number of args to limit function" in db.refused(f"GB().limit({arguments})")


@pytest.mark.parametrize("arguments", ["'1'", "None", "1, '2'"])
def test_limit_takes_numbers(db, arguments):
    assert "limit argument must be a number" in db.refused(f"GB().limit({arguments})")


# -- errors inside operations


@pytest.mark.parametrize(
    "step",
    [
        ".map(lambda x: notexists)",
        ".filter(lambda x: notexists)",
        ".foreach(lambda x: notexists)",
        ".flatmap(lambda x: notexists)",
        ".accumulate(lambda a, x: notexists)",
        ".groupby(lambda x: notexists, lambda k, a, x: x)",
        ".groupby(lambda x: x, lambda k, a, x: notexists)",
        ".localgroupby(lambda x: notexists, lambda k, a, x: x)",
        ".localgroupby(lambda x: x, lambda k, a, x: notexists)",
        ".batchgroupby(lambda x: notexists, lambda k, xs: xs)",
        ".batchgroupby(lambda x: x, lambda k, xs: notexists)",
        ".repartition(lambda x: notexists)",
        ".repartition(lambda x: notexists).repartition(lambda x: notexists)",
        ".aggregate(0, lambda a, x: notexists, lambda a, x: a)",
        ".aggregate(0, lambda a, x: x, lambda a, x: notexists)",
        ".aggregateby(lambda x: notexists, 0, lambda k, a, x: a, lambda k, a, x: a)",
        ".aggregateby(lambda x: x, 0, lambda k, a, x: notexists, lambda k, a, x: a)",
        ".countby(lambda x: notexists)",
        ".avg(lambda x: notexists)",
    ],
)
def test_a_failing_step_is_an_error_that_names_the_reason(db, step):
    _, errors = feed_errors(db, "[1, 2, 3]", step)
    assert errors
    assert all("name 'notexists' is not defined" in e for e in errors)


def test_after_the_first_error_the_reader_stops(db):
    script = """
def feed():
    for i in range(1000):
        execute('set', 'pulled', str(i))
        yield i
GB('PythonReader').map(lambda x: 1 // (5 - x)).run(feed)
"""
    results, errors = db.run(script)
    assert len(errors) == 1
    assert len(results) == 5
    assert int(db.r.get("pulled")) <= 6


def test_an_error_skips_the_later_steps(db):
    results, errors = feed_errors(db, "[0]", ".map(lambda x: 1 / x).map(lambda x: execute('set', 'later', '1'))")
    assert results == []
    assert "ZeroDivisionError" in errors[0]
    assert db.r.get("later") is None


def test_a_failing_accumulator_loses_what_it_had(db):
    results, errors = feed_errors(db, "[1, 2, 3]", ".accumulate(lambda a, x: 1 / (2 - x))")
    assert results == []
    assert "ZeroDivisionError" in errors[0]


def test_some_records_failing_in_aggregateby_is_an_error(db):
    steps = ".aggregateby(lambda x: x['k'], 0, lambda k, a, x: a + 1, lambda k, a, x: a + x)"
    _, errors = feed_errors(db, "[{'k': 'a'}, {}]", steps)
    assert "KeyError" in errors[0]


def test_a_key_with_an_empty_name_is_no_trouble(db):
    db.r.set("", "v")
    assert db.results("GB().map(lambda r: [r['key'], r['value']]).run()") == ["['', 'v']"]


@pytest.mark.parametrize(
    "error", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "MemoryError()", "RecursionError('deep')"]
)
def test_an_unusual_exception_is_an_ordinary_error(db, error):
    _, errors = feed_errors(db, "[1]", f".map(lambda x: (_ for _ in ()).throw({error}))")
    assert error.partition("(")[0] in errors[0]
    assert feed(db, "[1]", ".count()") == ["1"]


# -- builders


def test_a_builder_can_be_extended_between_two_registrations(db):
    script = """
b = GB('CommandReader').map(lambda x: len(x))
b.register(trigger='length')
b.map(lambda x: int(x) * 2)
b.register(trigger='doubled')
"""
    db.ok(script)
    assert db.trigger("length", "a", "b") == ["3"]
    assert db.trigger("doubled", "a", "b") == ["6"]


def test_operations_return_the_builder_itself(db):
    assert db.results("b = GB('ShardsIDReader')\nassert b.map(lambda x: x) is b\nb.run()") == ["1"]
