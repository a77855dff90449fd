"""The fused executor against a naive interpreter, and its rules one by one."""

import os
import random

import pytest

from . import frames, naive
from .server import Encoded, Server, encoded, same_version

HERE = os.path.dirname(__file__)
PLANS = int(os.environ.get("REDGREASE_TEST_PLANS", "400"))
SCRIPT = """
import naive
steps = naive.random_steps({seed})
naive.build(GB(), steps).run(convertToStr=False)
"""
EXPECT = """
import naive
def expected():
    seen = list(naive.LOG)
    yield (seen, *naive.interpret(naive.random_steps({seed}), naive.random_records({seed})))
naive_steps = repr([kind for kind, _ in naive.random_steps({seed})])
GB('PythonReader').run(expected, convertToStr=False)
"""


def split(rng, values):
    """The values in batches, some of them empty."""
    batches = []
    while values:
        size = rng.randint(0, 6)
        batches.append(values[:size])
        values = values[size:]
    return batches or [[]]


def test_random_plans_do_what_a_naive_interpreter_does():
    seed_of_all = int(os.environ.get("REDGREASE_TEST_SEED", random.randrange(1 << 40)))
    print(f"REDGREASE_TEST_SEED={seed_of_all}")
    seeds = random.Random(seed_of_all)
    flags = frames.TRACEBACK | frames.TAGGED
    with Server() as server:
        for _ in range(PLANS):
            seed = seeds.randrange(1 << 40)
            plan = server.plan(SCRIPT.format(seed=seed), paths=[HERE])
            server.script("import naive\nnaive.LOG.clear()")
            first, *others = split(random.Random(seed), naive.random_records(seed))
            exec_ = server.start(plan, first, flags=flags | (0 if others else frames.LAST))
            for index, values in enumerate(others):
                server.feed(exec_, values, last=index == len(others) - 1)
            results, errors, _ = server.done(exec_)
            plan = server.plan(EXPECT.format(seed=seed))
            (judged,), broken = server.done(server.start(plan, flags=flags | frames.LAST))[:2]
            assert not broken, broken
            seen, expected, expected_errors, expected_seen = judged
            where = f"plan {seed} of REDGREASE_TEST_SEED={seed_of_all}: {[k for k, _ in naive.random_steps(seed)]}"
            assert results == expected, where
            assert seen == expected_seen, where
            assert len(errors) == len(expected_errors), (where, errors, expected_errors)
            for text, expected_text in zip(errors, expected_errors):
                assert expected_text in text or repr(expected_text)[1:-1] in text, where


def test_a_plan_whose_first_steps_ran_in_the_server_does_what_a_naive_interpreter_does():
    """The server counts: its result is the input of the worker's first step."""
    seed_of_all = int(os.environ.get("REDGREASE_TEST_SEED", random.randrange(1 << 40)))
    print(f"REDGREASE_TEST_SEED={seed_of_all}")
    seeds = random.Random(seed_of_all)
    flags = frames.TRACEBACK | frames.TAGGED | frames.LAST
    script = SCRIPT.replace("random_steps", "counting_steps")
    expect = EXPECT.replace("random_steps", "counting_steps")
    with Server() as server:
        for _ in range(PLANS // 4):
            seed = seeds.randrange(1 << 40)
            plan = server.plan(script.format(seed=seed), paths=[HERE])
            server.script("import naive\nnaive.LOG.clear()")
            native = next(at for at, (kind, _) in enumerate(naive.counting_steps(seed)) if kind == "count") + 1
            records = naive.random_records(seed)
            counted = [len(records)] if records else []
            results, errors, _ = server.done(server.start(plan, counted, flags=flags, first_step=native))
            plan = server.plan(expect.format(seed=seed))
            (judged,), broken = server.done(server.start(plan, flags=flags))[:2]
            assert not broken, broken
            seen, expected, expected_errors, expected_seen = judged
            where = f"plan {seed} of REDGREASE_TEST_SEED={seed_of_all}: {[k for k, _ in naive.counting_steps(seed)]}"
            assert (results, seen, len(errors)) == (expected, expected_seen, len(expected_errors)), where


def test_records_flow_depth_first(server):
    source = """
seen = []
def f(x):
    seen.append(('f', x))
    return x
def g(x):
    seen.append(('g', x))
    return list(seen)
GB().map(f).map(g).run(convertToStr=False)
"""
    results, errors = server.run(source, [1, 2])
    assert (results[-1], errors) == ([("f", 1), ("g", 1), ("f", 2), ("g", 2)], [])


def test_the_first_error_stops_the_reader_and_the_accumulators_still_end(server):
    source = "GB().map(lambda x: 10 // x).accumulate(lambda a, x: (a or 0) + x).run(convertToStr=False)"
    plan = server.plan(source)
    exec_ = server.start(plan, [1, 2, 0, 5], flags=frames.TRACEBACK)
    server.wait_for("stop", exec=exec_)
    results, errors, _ = server.done(exec_)
    assert results == [15]
    assert len(errors) == 1 and "ZeroDivisionError" in errors[0]


def test_flatmap_emits_backwards_and_limit_counts_so(server):
    assert server.run("GB().flatmap(lambda x: x).limit(1, 3).run()", [[1, 2, 3, 4, 5]]) == (["2"], [])
    in_order = "GB().flatmap(lambda x: x, inOrder=True)"
    assert server.run(f"{in_order}.limit(2, 3).run()", [[1, 2, 3, 4, 5]]) == (["4", "5"], [])
    assert server.run(f"{in_order}.countby().map(lambda r: r['key']).run()", [["b", "a", "b"]]) == (["b", "a"], [])


@pytest.mark.parametrize(
    ("extractor", "keys"),
    [
        ("lambda x: x", ["a", "1"]),
        ("lambda anything=3: anything", ["a", "1"]),
        ("(lambda: lambda x: x)()", ["a", "1"]),
        ("same", ["a", "1"]),
        ("Same()", ["a", "1"]),
        ("lambda x, y=2: x", ["a", "1"]),
        ("lambda *x: x", ["('a',)", "(1,)"]),
        ("lambda x, y=2: y", ["2", "2"]),
        ("(lambda y: lambda x: y)('y')", ["y", "y"]),
        ("lambda x: -x if x == 1 else x", ["a", "-1"]),
    ],
)
def test_extractors_that_return_the_record_and_such_that_look_like_it(server, extractor, keys):
    prelude = "def same(x):\n    return x\nclass Same:\n    def __call__(self, x): return x\n"
    steps = f".flatmap(lambda r: ['a', 1]).countby({extractor}).map(lambda r: (r['key'], r['value']))"
    results, errors = server.run(f"{prelude}GB(){steps}.run()", ["x"])
    assert (sorted(results), errors) == (sorted(str((key, keys.count(key))) for key in set(keys)), [])


def test_sort_is_ascending_by_default(server):
    assert server.run("GB().sort().run(convertToStr=False)", [3, 1, 2])[0] == [1, 2, 3]
    assert server.run("GB().sort(reverse=False).run(convertToStr=False)", [3, 1, 2])[0] == [3, 2, 1]


def test_a_limit_stops_the_input_and_says_so(server):
    plan = server.plan("GB().limit(2).run(convertToStr=False)")
    exec_ = server.start(plan, [1, 2, 3], flags=0)
    server.wait_for("stop", exec=exec_)
    assert server.done(exec_)[:2] == ([1, 2], [])


def test_nothing_comes_of_nothing(server):
    for step in ("count()", "avg()", "countby()", "sort()", "distinct()", "aggregate(0, max, max)", "accumulate(max)"):
        assert server.run(f"GB().{step}.run()") == ([], []), step


def test_a_falsy_accumulator_is_kept_and_each_begins_with_a_copy_of_zero(server):
    source = "GB().aggregate(5, lambda a, x: a * x, lambda a, x: x).run(convertToStr=False)"
    assert server.run(source, [2, 0, 3])[0] == [0]
    source = """
def add(acc, x):
    acc['sum'] = acc.get('sum', 0) + x
    return acc
GB().aggregate({}, add, lambda a, b: b).run(convertToStr=False)
"""
    for _ in range(2):
        assert server.run(source, [1, 2, 3])[0] == [{"sum": 6}]


def test_keys_are_text(server):
    source = "GB().countby(lambda x: x).run(convertToStr=False)"
    got = server.run(source, [1, "1", b"a", (1, 2), 1])[0]
    assert {pair["key"]: pair["value"] for pair in got} == {"1": 3, "b'a'": 1, "(1, 2)": 1}


def test_a_keys_record_is_the_documented_dictionary(server):
    record = Encoded(frames.key_record(b"k\xff", frames.raw(b"v\xfe"), event=b"set", kind=7))
    assert server.run("GB().run(convertToStr=False)", [record])[0] == [
        {"key": b"k\xff", "value": b"v\xfe", "type": "stream", "event": "set"}
    ]


def test_an_error_record_of_the_server_is_an_error(server):
    plan = server.plan("GB().run()")
    exec_ = server.start(plan, [1, Encoded(b"\x14" + frames.blob(b"too long"))])
    assert server.done(exec_)[:2] == (["1"], ["too long"])


def test_steps_that_the_server_has_done_are_left_out(server):
    plan = server.plan("GB().count().map(lambda n: n * 2).run()")
    exec_ = server.start(plan, [21], first_step=1)
    assert server.done(exec_)[:2] == (["42"], [])


@same_version
def test_results_without_a_tag_are_pickled_only_when_asked(server):
    source = "class C:\n  def __repr__(self): return 'see'\nGB().map(lambda x: C()).run(convertToStr=False)"
    plan = server.plan(source)
    (plain,), errors, _ = server.done(server.start(plan, [1]))
    assert (plain, errors) == ("see", [])
    (own,), errors, _ = server.done(server.start(plan, [1], flags=frames.LAST | frames.TAGGED))
    assert (repr(own), errors) == ("see", [])


def test_a_result_that_cannot_be_pickled_is_an_error(server):
    source = "import threading\nGB().map(lambda x: threading.Lock()).run(convertToStr=False)"
    results, errors = server.run(source, [1])
    assert results == [] and "cannot pickle" in errors[0]


def test_a_result_that_holds_itself_is_an_error(server):
    results, errors = server.run("l = []\nl.append(l)\nGB().map(lambda x: l).run(convertToStr=False)", [1])
    assert results == [] and "nested deeper" in errors[0]


def test_a_result_above_the_limit_is_an_error_that_names_both():
    with Server(record_bytes_max=1000) as server:
        results, errors = server.run("GB().map(lambda x: 'x' * x).run()", [10, 5000])
        assert results == ["x" * 10]
        assert "5003" in errors[0] and "MaxRecordBytes (1000)" in errors[0]


def test_the_result_of_a_coroutine_is_the_record(server):
    source = "import asyncio\nasync def f(x):\n  await asyncio.sleep(0)\n  return x + 1\nGB().map(lambda x: f(x)).run()"
    assert server.run(source, [1, 2]) == (["2", "3"], [])


def test_a_future_of_another_event_loop_is_an_error(server):
    source = "import asyncio\nGB().map(lambda x: asyncio.new_event_loop().create_future()).run()"
    results, errors = server.run(source, [1])
    assert results == []
    assert "attached to a different loop" in errors[0]


def test_credits_are_given_back_once_for_each_batch(server):
    plan = server.plan("GB().count().run()")
    batches = [[1, 2, 3], [4], [], [5, 6]]
    exec_ = server.start(plan, batches[0], flags=0)
    for index, batch in enumerate(batches[1:]):
        server.feed(exec_, batch, last=index == 2)
    assert server.done(exec_)[:2] == (["6"], [])
    given = sorted(frame["bytes"] for frame in server.frames if frame["kind"] == "consumed")
    assert given == sorted(sum(len(encoded(value)) for value in batch) for batch in batches if batch)


def test_long_results_come_in_parts(server):
    plan = server.plan("GB().map(lambda x: 'y' * 30000).run()")
    results, errors, done = server.done(server.start(plan, range(10)))
    assert results == ["y" * 30000] * 10 and not errors
    assert done["records"][0] < 10, "nothing was sent before the end"


def test_a_python_reader_yields_records_or_is_one(server):
    assert server.run("def f():\n  yield 1\n  yield 2\nGB('PythonReader').run(f)") == (["1", "2"], [])
    assert server.run("GB('PythonReader').run(lambda: 7)") == (["7"], [])
    results, errors = server.run("def f():\n  yield 1\n  raise ValueError('over')\nGB('PythonReader').run(f)")
    assert results == ["1"] and "over" in errors[0]
    source = """
import builtins
builtins.ended = []
def f():
    try:
        while True:
            yield 1
    finally:
        ended.append(True)
GB('PythonReader').limit(2).run(f)
"""
    assert server.run(source) == (["1", "1"], [])
    assert server.run("GB('PythonReader').run(lambda: ended)") == (["[True]"], [])


def test_keys_only_reader_scans_where_a_function_makes_the_pattern():
    def scan(cursor, *args):
        assert args == (b"match", b"x*", b"count", b"7")
        return ["0" if cursor == b"5" else "5", ["x" + cursor.decode(), b"\xff"]]

    def generated(pattern, exact, options=""):
        return f"GB('KeysOnlyReader').run(patternGenerator=lambda: ({pattern!r}, {exact}){options})"

    with Server(commands={"scan": scan, "exists": lambda key: int(key == b"x")}) as server:
        assert server.run(generated("x*", False, ", convertToStr=False, count=7")) == (
            ["x0", b"\xff", "x5", b"\xff"],
            [],
        )
        assert server.run(generated("x", True)) == (["x"], [])
        assert server.run(generated("y", True)) == ([], [])
        _, (error,) = server.run("GB('KeysOnlyReader').run(patternGenerator=1)")
        assert "'int' object is not callable" in error


def test_shards_id_reader_yields_one_id(server):
    assert server.run("GB('ShardsIDReader').run()") == (["1"], [])


def test_profiled_steps_are_timed(server):
    plan = server.plan("import time\nGB().map(lambda x: time.sleep(0.02)).map(lambda x: x).run()")
    _, _, done = server.done(server.start(plan, [1], flags=frames.LAST | frames.PROFILE))
    assert len(done["micros"]) == 4 and 20_000 <= done["micros"][0] < 200_000 and done["micros"][1] < 10_000
