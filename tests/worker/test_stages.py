"""Executions on several shards: real workers, between which the test moves the records."""

import itertools
import os
import pickle
import random

import pytest
from redgrease.plan.builder import PlanBuilder

from . import frames, spread
from .cluster import SLOTS, Cluster, owner_in, ranges
from .server import Encoded, Server, decoded, encoded

HERE = os.path.dirname(__file__)
PLANS = int(os.environ.get("REDGREASE_TEST_SHARDED_PLANS", "150"))
SIZE = 5
SCRIPT = """
import spread
steps = spread.random_steps({seed})
spread.build(GB(), steps).run(convertToStr=False, collect=False)
"""


def joined(lists):
    """The items of all lists."""
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture(scope="module")
def clusters():
    made = []
    yield made
    for one in made:
        one.close()


@pytest.fixture
def cluster(clusters):
    """Workers that tests share, unless one has failed."""
    if not clusters or clusters[-1].is_broken:
        clusters.append(Cluster(SIZE, threads=2))
    return clusters[-1]


def test_random_plans_do_on_several_shards_what_a_naive_interpreter_does(cluster):
    seed_of_all = int(os.environ.get("REDGREASE_TEST_SEED", random.randrange(1 << 40)))
    print(f"REDGREASE_TEST_SEED={seed_of_all}")
    seeds = random.Random(seed_of_all)
    for _ in range(PLANS):
        seed = seeds.randrange(1 << 40)
        rng = random.Random(seed)
        size = rng.randint(1, SIZE)
        steps = spread.random_steps(seed)
        inputs = spread.random_records(seed, size)
        where = f"plan {seed} of REDGREASE_TEST_SEED={seed_of_all} on {size} shards: {[kind for kind, _ in steps]}"
        plans = cluster.plans(SCRIPT.format(seed=seed), size, paths=[HERE])
        slots = ranges(rng, size)
        window = rng.choice([1, 100, 1000, 1 << 20])
        patience = rng.choice([0.05, 0.5, 0.9])
        try:
            execution = cluster.run(
                plans, inputs, rng, spread.moves(steps), slots=slots, window=window, patience=patience
            )
        except AssertionError as error:
            raise AssertionError(f"{where}, window {window}: {error}") from error
        assert not any(execution.errors), (where, execution.errors)
        expected = spread.interpret(steps, inputs, owner_in(slots))
        found = [spread.counted(records) for records in execution.results]
        assert found == [spread.counted(records) for records in expected], (where, execution.results, expected)

        alone, errors = cluster.run_alone(plans[0], joined(inputs))
        (expected,) = spread.interpret(steps, [joined(inputs)], lambda slot: 0)
        assert (spread.counted(alone), errors) == (spread.counted(expected), []), where
        if spread.is_global(steps):
            assert spread.counted(joined(execution.results)) == spread.counted(alone), where


# ---- what must not stop ----------------------------------------------------------------------------------------------

ALL_TO_ALL = """
def many(x):
    return [f"{x}:{i}" for i in range(150)]
def split(record):
    return [f"{record['key']}{n}{value}" for n, value in enumerate(record['value'])]
(GB().flatmap(many).repartition(lambda x: x).flatmap(lambda x: [x, x]).repartition(lambda x: x[::-1])
    .batchgroupby(lambda x: x[-1], lambda key, records: records).flatmap(split)
    .groupby(lambda x: x, lambda key, acc, x: (acc or 0) + 1).repartition(lambda r: r['key'] + 'x')
    .run(convertToStr=False, collect=COLLECT))
"""


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("size", [2, SIZE])
def test_records_from_all_to_all_through_small_windows_do_not_block_each_other(cluster, size, collect):
    seed = int(os.environ.get("REDGREASE_TEST_SEED", random.randrange(1 << 40)))
    print(f"REDGREASE_TEST_SEED={seed}")
    rng = random.Random(seed)
    plans = cluster.plans(ALL_TO_ALL.replace("COLLECT", str(collect)), size)
    inputs = [[f"r{shard}-{number}" for number in range(8)] for shard in range(size)]
    collected = [False] * 5 + [True] * collect
    slots = [(SLOTS // size * shard, SLOTS // size * (shard + 1) - 1, shard) for shard in range(size)]
    slots[-1] = (slots[-1][0], SLOTS - 1, size - 1)
    execution = cluster.run(plans, inputs, rng, collected, slots=slots, window=1024, patience=0.1)
    assert not any(execution.errors), execution.errors
    results = joined(execution.results)
    assert len(results) == len({record["key"] for record in results}) == 8 * size * 150 * 2
    assert 512 < execution.most_outside <= 1024
    assert all(execution.results[1:]) is not collect


def test_records_that_are_larger_than_the_window_go_one_by_one(cluster):
    plans = cluster.plans(
        "GB().map(lambda n: 'x' * n).repartition(lambda x: len(x)).map(len).run(convertToStr=False)", 3
    )
    sizes = [10, 5000, 20, 70_000, 1, 4999]
    execution = cluster.run(plans, [sizes] * 3, random.Random(1), [False, True], window=1000)
    assert sorted(execution.results[0]) == sorted(sizes * 3)
    assert 70_000 < execution.most_outside < 70_010


def test_an_infinite_source_is_suspended_and_ends_when_the_limit_is_reached(cluster):
    source = """
import itertools
import builtins
builtins.open_sources = 0
def numbers():
    builtins.open_sources += 1
    try:
        yield from itertools.count()
    finally:
        builtins.open_sources -= 1
(GB('PythonReader').flatmap(lambda n: [n] * 3).repartition(lambda n: n).collect().limit(100)
    .run(numbers, convertToStr=False))
"""
    plans = cluster.plans(source, 3)
    execution = cluster.run(plans, [[]] * 3, random.Random(2), [False, True, True], window=500)
    assert [len(records) for records in execution.results] == [100, 0, 0]
    assert execution.close_sent == {2} and execution.closed[2] == {0}
    plans = cluster.plans("import builtins\nGB('PythonReader').run(lambda: open_sources, collect=False)", 3)
    assert cluster.run(plans, [[]] * 3, random.Random(2), []).results == [["0"]] * 3


def test_results_of_coroutines_come_in_every_stage(cluster):
    source = """
import asyncio
async def slow(x):
    await asyncio.sleep(0.001 * (x % 7))
    return x
async def total(acc, x):
    await asyncio.sleep(0)
    return (acc or 0) + x
(GB().map(slow).repartition(lambda x: x).map(slow).flatmap(lambda x: [x, x]).foreach(slow)
    .repartition(lambda x: x + 1).accumulate(total).collect().accumulate(total).run(convertToStr=False))
"""
    plans = cluster.plans(source, 4)
    inputs = [list(range(shard, shard + 100)) for shard in range(4)]
    execution = cluster.run(plans, inputs, random.Random(3), [False, False, True, True], window=200)
    assert not any(execution.errors), execution.errors
    assert execution.results == [[2 * sum(map(sum, inputs))], [], [], []]


# ---- one worker, with the test in place of the others ----------------------------------------------------------------

#: "foo" belongs to shard 1 of two, "bar" to shard 0.
HALVES = ((0, 8191, 0), (8192, 16383, 1))
WHOLE = frames.LAST | frames.TRACEBACK | frames.TAGGED


def begin(server, plan, values=(), here=0, shards=2, slots=HALVES, window=1 << 20, flags=WHOLE, **options):
    """Start an execution that is one of several; its number."""
    exec_ = next(server._numbers)
    server.send(frames.route(exec_, here, shards, slots, window))
    server.send(frames.start(exec_, plan, [encoded(value) for value in values], flags=flags, **options))
    return exec_


def arrived(server, exec_, stage, values=(), last=False):
    server.send(frames.arrived(exec_, stage, frames.records([encoded(value) for value in values]), last))


def moved(server, exec_, stage=1):
    """The records of the next frame with records that move."""
    return decoded(server.wait_for("moved", exec=exec_, stage=stage)["records"])


def ended(server, exec_, stages=(1,)):
    """Let all stages end, as others do that have no records; results and errors."""
    for stage in stages:
        server.wait_for("stage_ended", exec=exec_, stage=stage)
        arrived(server, exec_, stage, last=True)
    return server.done(exec_)[:2]


def test_records_go_to_the_shard_of_their_slot(server):
    plan = server.plan("GB().repartition(lambda x: x).run(convertToStr=False, collect=False)")
    keys = [
        "foo",
        "bar",
        "{foo}.bar",
        "{bar}.foo",
        "{}foo",
        "foo\0ignored",
        "a{b",
        "\udcff",
        "é",
        7,
        None,
        b"foo",
        ("t",),
    ]
    exec_ = begin(server, plan, keys)
    there = [key for key in keys if spread.slot_of(spread.text(key)) > 8191]
    assert "foo" in there and "foo\0ignored" in there and "{bar}.foo" not in there
    assert moved(server, exec_) == there
    assert ended(server, exec_) == ([key for key in keys if key not in there], [])


def test_a_key_whose_slot_no_shard_has_is_an_error_that_names_it(server):
    plan = server.plan("GB().groupby(lambda x: x, lambda key, acc, x: x).run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, ["bar", "foo", "hello"], slots=((0, 1000, 1), (5061, 5061, 0)))
    results, (error,) = ended(server, exec_)
    assert results == [{"key": "bar", "value": "bar"}]
    assert "'foo'" in error.replace('"', "'") and "slot 12182" in error and "the cluster does not cover it" in error


def test_the_key_of_a_group_travels_with_its_record_and_is_made_once():
    made = []
    with Server(commands={"made": lambda key: made.append(key.decode())}) as server:
        source = """
def key(x):
    execute('made', x)
    return x
GB().groupby(key, lambda key, acc, x: (acc or 0) + 1).run(convertToStr=False, collect=False)
"""
        plan = server.plan(source)
        exec_ = begin(server, plan, ["foo", "bar", "foo"])
        assert moved(server, exec_) == [("foo", "foo"), ("foo", "foo")]
        arrived(server, exec_, 1, [("bar", "other record"), ("baz", "x")])
        results, errors = ended(server, exec_)
        assert ([(record["key"], record["value"]) for record in results], errors) == ([("bar", 2), ("baz", 1)], [])
    assert made == ["foo", "bar", "foo"]


def test_each_extractor_is_called_once_for_a_record(cluster):
    source = """
import builtins
builtins.calls = []
def key(name):
    def of(x):
        calls.append(name)
        return x if isinstance(x, str) else x['key']
    return of
(GB().repartition(key('repartition')).groupby(key('groupby'), lambda key, acc, x: (acc or 0) + 1)
    .batchgroupby(key('batchgroupby'), lambda key, records: len(records))
    .aggregateby(key('aggregateby'), 0, lambda key, acc, x: acc + 1, lambda key, acc, x: acc + x)
    .countby(key('countby')).run(convertToStr=False))
"""
    plans = cluster.plans(source, 4)
    inputs = [[f"{shard}-{number}" for number in range(25)] for shard in range(4)]
    execution = cluster.run(plans, inputs, random.Random(4), [False] * 5 + [True])
    assert len(execution.results[0]) == 100 and not any(execution.errors)
    plans = cluster.plans(
        "import builtins\nGB('PythonReader').run(lambda: list(calls), convertToStr=False, collect=False)", 4
    )
    calls = joined(found[0] for found in cluster.run(plans, [[]] * 4, random.Random(4), []).results)
    assert {name: calls.count(name) for name in set(calls)} == dict.fromkeys(
        ("repartition", "groupby", "batchgroupby", "aggregateby", "countby"), 100
    )


def test_partial_results_of_shards_become_one(server):
    plan = server.plan("GB().count().run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, ["a", "b"])
    arrived(server, exec_, 1, [3, 4])
    assert ended(server, exec_) == ([9], [])
    plan = server.plan("GB().avg(lambda x: x).run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, [1, 2])
    arrived(server, exec_, 1, [(7, 2)])
    assert ended(server, exec_) == ([2.5], [])
    plan = server.plan("GB().countby().run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, ["bar", "foo", "foo"])
    assert moved(server, exec_) == [{"key": "foo", "value": 2}]
    arrived(server, exec_, 1, [{"key": "bar", "value": 5}])
    assert ended(server, exec_) == ([{"key": "bar", "value": 6}], [])
    for step in ("count()", "avg()", "countby()", "distinct()", "sort()", "aggregate(0, max, max)"):
        exec_ = begin(server, server.plan(f"GB().{step}.run(convertToStr=False, collect=False)"))
        assert ended(server, exec_) == ([], []), step


def test_what_the_server_counted_moves_as_a_partial_result(server):
    for steps, stages in (("count()", (1,)), ("collect().count()", (1, 2))):
        plan = server.plan(f"GB().{steps}.map(lambda n: n * 10).run(convertToStr=False, collect=False)")
        native = steps.count(".") + 1
        exec_ = begin(server, plan, [4], here=1, first_step=native)
        assert moved(server, exec_, stages[-1]) == [4]
        assert ended(server, exec_, stages) == ([], [])
        exec_ = begin(server, plan, [4], first_step=native)
        arrived(server, exec_, stages[-1], [3])
        assert ended(server, exec_, stages) == ([70], [])


def test_a_route_of_one_shard_needs_no_other(server):
    plan = server.plan("GB().repartition(lambda x: x).count().run(convertToStr=False)")
    exec_ = begin(server, plan, ["foo", "bar"], shards=1, slots=((0, 16383, 0),))
    assert server.done(exec_)[:2] == ([2], [])
    for stage in (1, 2, 3):
        server.wait_for("stage_ended", exec=exec_, stage=stage, timeout=0)


class SlowToLoad:
    """A callback whose pickle takes a moment to load."""

    def __reduce__(self):
        return eval, ("__import__('time').sleep(0.1) or str",)


# ---- windows ---------------------------------------------------------------------------------------------------------


def test_an_execution_without_room_stops_and_leaves_its_thread_to_others(server):
    """One thread: what waits must not keep it."""
    run = "GB().foreach(seen.append).collect().run(convertToStr=False, collect=False)"
    source = f"import builtins\nbuiltins.seen = []\n{run}"
    plan = server.plan(source)
    other = server.plan("GB('PythonReader').run(lambda: len(seen), convertToStr=False)")
    exec_ = begin(server, plan, ["x" * 100] * 50, here=1, window=1000)
    server.wait_for("moved", exec=exec_, stage=1)
    (seen,), _, _ = server.done(server.start(other))
    assert seen == 10, "nine records of 102 bytes fit, one more is held back"
    server.send(frames.room(exec_, 1, 9 * 102))
    assert len(moved(server, exec_)) == 9
    (seen,), _, _ = server.done(server.start(other))
    assert seen == 19
    for count in (9, 9, 9, 5):
        server.send(frames.room(exec_, 1, 9 * 102))
        assert len(moved(server, exec_)) == count
    assert ended(server, exec_) == ([], [])


def test_later_stages_continue_while_an_earlier_one_has_no_room(server):
    source = "GB().repartition(lambda x: x).map(lambda x: x + '!').run(convertToStr=False)"
    plan = server.plan(source)
    exec_ = begin(server, plan, ["foo"] * 9, window=16)
    assert moved(server, exec_) == ["foo"] * 3
    arrived(server, exec_, 1, ["bar", "bar"])
    taken = server.wait_for("taken", exec=exec_, stage=1)
    assert taken["bytes"] == 2 * len(encoded("bar"))
    arrived(server, exec_, 2, ["of others!"])
    assert server.wait_for("taken", exec=exec_, stage=2)["bytes"] == len(encoded("of others!"))
    for _ in range(2):
        server.send(frames.room(exec_, 1, 15))
        assert moved(server, exec_) == ["foo"] * 3
    assert ended(server, exec_, (1, 2)) == (["bar!", "bar!", "of others!"], [])


def test_records_of_others_come_before_the_own_ones_have_ended(server):
    plan = server.plan("GB().collect().map(lambda x: x * 2).run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, [1], flags=frames.TRACEBACK | frames.TAGGED)
    arrived(server, exec_, 1, [10, 20])
    server.wait_for("taken", exec=exec_, stage=1)
    arrived(server, exec_, 1, [30], last=True)
    server.wait_for("taken", exec=exec_, stage=1)
    server.feed(exec_, [2], last=True)
    results, errors, _ = server.done(exec_)
    assert (sorted(results), errors) == ([2, 4, 20, 40, 60], [])


def test_records_come_while_the_plan_is_loaded(server):
    """What comes between the route and the start, or while the plan is loaded, is kept."""
    plan = PlanBuilder().collect().map(str).run(None, False, False)
    plan.callbacks[1] = (SlowToLoad(),)
    server.send(frames.load(77, 9, (4711, plan.spec, pickle.dumps(plan))) + frames.route(5, 0, 2, HALVES, 100))
    arrived(server, 5, 1, [1])
    server.send(frames.start(5, 4711, [encoded(2)], flags=WHOLE))
    arrived(server, 5, 1, [3], last=True)
    results, errors, _ = server.done(5)
    assert (sorted(results), errors) == (["1", "2", "3"], [])


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_a_limit_behind_a_collect_closes_all_before_it_on_the_initiator(server):
    plan = server.plan("GB().map(lambda x: x).collect().limit(3).run(convertToStr=False)")
    exec_ = begin(server, plan, [1], flags=frames.TRACEBACK | frames.TAGGED)
    arrived(server, exec_, 1, [2, 3, 4, 5])
    server.wait_for("stop", exec=exec_)
    server.wait_for("stage_closed", exec=exec_, stage=1)
    size = server.wait_for("taken", exec=exec_, stage=1)["bytes"]
    assert size == sum(len(encoded(number)) for number in (2, 3, 4, 5))
    arrived(server, exec_, 1, [6])
    server.wait_for("taken", exec=exec_, stage=1)
    server.feed(exec_, [7], last=False)
    server.wait_for("consumed", exec=exec_)
    results, errors = ended(server, exec_, (1, 2))
    assert (len(results), errors) == (3, [])


def test_a_limit_of_one_shard_behind_a_repartition_leaves_the_records_of_others(server):
    plan = server.plan("GB().repartition(lambda x: x).limit(1).run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, ["bar", "bar", "foo"], flags=frames.TRACEBACK | frames.TAGGED)
    server.wait_for("stage_closed", exec=exec_, stage=1)
    assert moved(server, exec_) == ["foo"]
    arrived(server, exec_, 1, ["bar"])
    server.wait_for("taken", exec=exec_, stage=1)
    server.feed(exec_, ["foo"], last=True)
    assert moved(server, exec_) == ["foo"]
    assert ended(server, exec_) == (["bar"], [])


def test_a_stage_that_the_server_closes_ends_what_makes_records_for_it(server):
    source = """
import builtins
builtins.was_closed = False
def numbers():
    try:
        while True:
            yield 'foo'
    finally:
        builtins.was_closed = True
GB('PythonReader').map(lambda x: x).repartition(lambda x: x).run(numbers, convertToStr=False)
"""
    plan = server.plan(source)
    exec_ = begin(server, plan, here=0, window=100)
    assert moved(server, exec_) == ["foo"] * 20
    arrived(server, exec_, 2, ["kept"])
    server.send(frames.close_stage(exec_, 1))
    assert ended(server, exec_, (1, 2)) == (["kept"], [])
    assert server.run("GB('PythonReader').run(lambda: was_closed)") == (["True"], [])


def test_a_limit_of_zero_closes_everything_at_once(server):
    plan = server.plan("GB().collect().limit(0).count().run(convertToStr=False)")
    exec_ = begin(server, plan, [1, 2], here=1, flags=frames.TRACEBACK | frames.TAGGED)
    server.wait_for("stage_closed", exec=exec_, stage=1)
    server.wait_for("stop", exec=exec_)
    assert ended(server, exec_, (1, 2, 3)) == ([], [])


def test_the_first_error_ends_the_reader_and_records_that_are_inside_continue(server):
    plan = server.plan(
        "GB().map(lambda x: 10 // x).collect().map(lambda x: x + 1).run(convertToStr=False, collect=False)"
    )
    exec_ = begin(server, plan, [5, 0, 2], flags=frames.TRACEBACK | frames.TAGGED)
    server.wait_for("stop", exec=exec_)
    arrived(server, exec_, 1, [10])
    results, (error,) = ended(server, exec_)
    assert sorted(results) == [3, 11] and "ZeroDivisionError" in error


def test_an_error_in_a_later_stage_is_one_of_this_shard(server):
    plan = server.plan("GB().collect().map(lambda x: 10 // x).run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, [5], flags=frames.TRACEBACK | frames.TAGGED)
    server.wait_for("consumed", exec=exec_)
    arrived(server, exec_, 1, [0, 2, Encoded(b"\x14" + frames.blob(b"too long")), 10])
    server.wait_for("stop", exec=exec_)
    results, errors = ended(server, exec_)
    assert sorted(results) == [1, 2, 5] and "ZeroDivisionError" in errors[0] and errors[1:] == ["too long"]


def test_an_execution_that_waits_is_aborted(server):
    source = "import asyncio\nGB().map(lambda x: asyncio.sleep(60)).collect().run(convertToStr=False, collect=False)"
    waits_for_results = begin(server, server.plan(source), [1], here=1)
    server.wait_for("parked", exec=waits_for_results)
    plan = server.plan("GB().collect().run(convertToStr=False, collect=False)")
    waits_for_room = begin(server, plan, ["x" * 100] * 50, here=1, window=100)
    server.wait_for("moved", exec=waits_for_room, stage=1)
    waits_for_records = begin(server, plan)
    server.wait_for("stage_ended", exec=waits_for_records, stage=1)
    for exec_ in (waits_for_results, waits_for_room, waits_for_records):
        server.send(frames.abort(exec_))
        results, errors, _ = server.done(exec_)
        assert (results, errors) == ([], ["Execution was aborted"])
        # Nobody is interested any more.
        arrived(server, exec_, 1, [1])
        server.send(frames.room(exec_, 1, 1))
        server.send(frames.close_stage(exec_, 1))
    assert server.run("GB().run()", [1]) == (["1"], [])


def test_a_route_whose_execution_never_starts_is_forgotten(server):
    exec_ = next(server._numbers)
    for _ in range(2):
        server.send(frames.route(exec_, 0, 2, HALVES, 1000))
        server.send(frames.abort(exec_))
    assert server.run("GB().run()", [1]) == (["1"], [])


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_executions_of_several_shards_run_although_others_occupy_all_threads():
    with Server(threads=1, commands={"wait": lambda: ...}) as server:
        server.start(server.plan("GB().foreach(lambda x: execute('wait')).run()"), [1])
        held = server.held.get(timeout=10)
        spins = server.start(server.plan("GB().foreach(lambda x: execute('wait')).run()"), [1])
        plan = server.plan("GB().repartition(lambda x: x).run(convertToStr=False, collect=False)")
        exec_ = begin(server, plan, ["foo", "bar"])
        assert moved(server, exec_) == ["foo"]
        assert ended(server, exec_) == (["bar"], [])
        server.send(frames.reply(held["call"], encoded(None)))
        server.send(frames.reply(server.held.get(timeout=10)["call"], encoded(None)))
        assert server.done(spins)[:2] == (["1"], [])


def test_an_execution_of_several_shards_that_calls_the_server_does_not_keep_others_from_running():
    with Server(threads=1, commands={"wait": lambda: ...}) as server:
        waits = server.plan("GB().foreach(lambda x: execute('wait')).run(convertToStr=False, collect=False)")
        first = begin(server, waits, ["x"])
        held = server.held.get(timeout=10)
        plan = server.plan("GB().repartition(lambda x: x).run(convertToStr=False, collect=False)")
        exec_ = begin(server, plan, ["foo", "bar"])
        assert moved(server, exec_) == ["foo"]
        assert ended(server, exec_) == (["bar"], [])
        server.send(frames.reply(held["call"], encoded(None)))
        assert server.done(first)[:2] == (["x"], [])


def test_executions_of_several_shards_take_turns(server):
    """One thread: an endless one does not keep others from running."""
    endless = server.plan("GB('PythonReader').filter(lambda x: False).run(lambda: iter(int, 1), convertToStr=False)")
    first = begin(server, endless)
    plan = server.plan("GB().repartition(lambda x: x).run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, ["foo", "bar"])
    assert moved(server, exec_) == ["foo"]
    assert ended(server, exec_) == (["bar"], [])
    server.send(frames.close_stage(first, 1))
    assert ended(server, first) == ([], [])


# ---- objects ---------------------------------------------------------------------------------------------------------

CLASS = """
import threading
class Point:
    def __init__(self, x):
        self.x = x
    def __eq__(self, other):
        return type(other) is Point and other.x == self.x
    def __hash__(self):
        return hash(self.x)
"""


def test_objects_move_as_pickles_and_are_of_the_class_of_their_script(cluster):
    source = (
        CLASS
        + """
nested = [[]]
for _ in range(300):
    nested = [nested]
(GB().map(lambda x: {'point': Point(x), 'nested': nested, 'text': '\\udcff', 'big': 10 ** 5000})
    .repartition(lambda r: r['point'].x)
    .map(lambda r: (
        isinstance(r['point'], Point), r['point'].x, str(r['nested']).count('['), r['text'], r['big'] == 10 ** 5000))
    .run(convertToStr=False))
"""
    )
    shards = cluster.shards[:3]
    for shard in shards:
        shard.send(frames.cluster(True))
    plan = shards[0].plan(source)
    blob = shards[0].plans[plan]["blob"]
    plans = [plan] + [restored(shard, plan, blob) for shard in shards[1:]]
    for shard in shards:
        shard.send(frames.cluster(False))
    execution = cluster.run(plans, [list(range(10))] * 3, random.Random(5), [False, True])
    assert not any(execution.errors), execution.errors
    expected = [(True, x, 302, "\udcff", True) for x in range(10)] * 3
    assert sorted(execution.results[0]) == sorted(expected)


def test_an_object_that_cannot_be_pickled_is_an_error_in_place_of_its_record(server):
    source = (
        CLASS + "GB().map(lambda x: [x, {'a': threading.Lock()}][x]).collect().run(convertToStr=False, collect=False)"
    )
    exec_ = begin(server, server.plan(source), [0, 1], here=1)
    assert moved(server, exec_) == [0]
    results, (error,) = ended(server, exec_)
    assert results == []
    assert "unmarshallable object" in error and "type dict" in error and "_thread.lock" in error
    assert "make plain values of it before collect" in error


def test_a_pickle_that_cannot_be_loaded_is_an_error_and_the_others_continue(server):
    plan = server.plan("GB().collect().run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan)
    broken = Encoded(b"\x0a\x02\x0e" + frames.blob(b"no pickle") + encoded(1))
    arrived(server, exec_, 1, [1, broken, 2])
    results, (error,) = ended(server, exec_)
    assert results == [1, 2] and "UnpicklingError" in error


def test_a_record_that_is_too_long_to_move_is_an_error():
    with Server(record_bytes_max=1000) as server:
        plan = server.plan("GB().map(lambda n: 'x' * n).collect().run(convertToStr=False, collect=False)")
        exec_ = begin(server, plan, [10, 5000], here=1)
        assert moved(server, exec_) == ["x" * 10]
        _, (error,) = ended(server, exec_)
        assert "5003 bytes" in error and "MaxRecordBytes (1000)" in error


# ---- the pickle of a run ---------------------------------------------------------------------------------------------


def restored(server, plan, blob, session=1):
    """Load the pickle of a run into another worker, in a new session; the number of its plan there."""
    other = session + 1000 + server.number
    request = next(server._numbers)
    server.send(frames.restore(request, other, blobs=[blob]))
    assert server.wait_for("script_done", request=request)["error"] is None
    return frames.plan_in_data(frames.plan_in_data(plan, session), other)


def test_a_run_has_a_pickle_only_where_other_shards_run_it(server):
    source = "GB().map(lambda x: x).run({mode})"
    assert server.plans[server.plan(source.format(mode=""))]["blob"] == b""
    server.send(frames.cluster(True))
    assert server.plans[server.plan(source.format(mode=""))]["blob"]
    assert server.plans[server.plan(source.format(mode="mode='async'"))]["blob"]
    assert server.plans[server.plan(source.format(mode="mode='async_local'"))]["blob"] == b""
    server.send(frames.cluster(False))
    assert server.plans[server.plan(source.format(mode=""))]["blob"] == b""


def test_a_function_that_runs_another_one_sends_its_pickle(server):
    server.send(frames.cluster(True))
    source = "GB('PythonReader').foreach(lambda x: GB().map(lambda y: y).run()).run(lambda: 1)"
    before = set(server.plans)
    outer = server.plan(source)
    server.done(server.start(outer))
    (inner,) = set(server.plans) - before - {outer}
    assert server.plans[inner]["blob"]


def test_a_callback_that_cannot_be_pickled_is_an_error_of_the_run(server):
    source = (
        "import threading\nlock = threading.Lock()\ndef guarded(x):\n  with lock: return x\nGB().map(guarded).run()"
    )
    assert server.script(source)["error"] is None
    server.send(frames.cluster(True))
    error = server.script(source)["error"]
    assert "Error occured when serialized a python callback, callback=guarded error=" in error
    error = server.script("import threading\nlock = threading.Lock()\nGB('PythonReader').run(lambda: lock)")["error"]
    assert "Error occured when serialized a python callback, callback=<lambda> error=" in error


def test_a_source_travels_with_its_plan(cluster):
    shards = cluster.shards[:2]
    shards[0].send(frames.cluster(True))
    plan = shards[0].plan("base = 40\ndef numbers():\n  yield base + 2\nGB('PythonReader').run(numbers)")
    shards[0].send(frames.cluster(False))
    plans = [plan, restored(shards[1], plan, shards[0].plans[plan]["blob"])]
    assert cluster.run(plans, [[], []], random.Random(6), [True]).results == [["42", "42"], []]


# ---- frames that violate the protocol --------------------------------------------------------------------------------


def test_frames_for_executions_that_are_unknown_are_ignored(server):
    arrived(server, 4711, 1, [1])
    server.send(frames.room(4711, 1, 10))
    server.send(frames.close_stage(4711, 1))
    assert server.run("GB().run()", [1]) == (["1"], [])


@pytest.mark.parametrize(
    ("violation", "named"),
    [
        (lambda exec_: frames.arrived(exec_, 0, frames.records([]), False), "stage 0, of 1"),
        (lambda exec_: frames.arrived(exec_, 2, frames.records([]), False), "stage 2, of 1"),
        (lambda exec_: frames.arrived(exec_, (1 << 64) - 1, frames.records([]), False), "stage 18446744073709551615"),
        (lambda exec_: frames.room(exec_, 1, 1), "1 bytes of stage 1 as consumed, which were not sent"),
        (lambda exec_: frames.room(exec_, 7, 1), "stage 7, of 1"),
        (lambda exec_: frames.close_stage(exec_, 2), "stage 2, of 1"),
        (
            lambda exec_: (
                frames.arrived(exec_, 1, frames.records([encoded(1)]), True)
                + frames.arrived(exec_, 1, frames.records([encoded(1)]), False)
            ),
            "records for stage 1 after the last ones",
        ),
        (lambda exec_: frames.route(exec_, 0, 2, HALVES, 10), "a second route"),
        (lambda exec_: frames.route(exec_ + 1, 2, 2, HALVES, 10), "contradicts itself"),
        (lambda exec_: frames.route(exec_ + 1, 0, 0, (), 10), "contradicts itself"),
        (lambda exec_: frames.route(exec_ + 1, 0, 1, HALVES, 10), "contradicts itself"),
        (lambda exec_: frames.route(exec_ + 1, 0, 2, ((0, 16384, 0),), 10), "contradicts itself"),
        (lambda exec_: frames.route(exec_ + 1, 0, 2, ((5, 9, 0), (9, 10, 1)), 10), "contradicts itself"),
        (lambda exec_: frames.arrived(exec_, 1, b"\x05" + frames.blob(b"abc"), False), "is no frame"),
    ],
)
def test_a_violation_of_the_protocol_ends_the_worker_and_is_named(server, violation, named):
    plan = server.plan("GB().collect().run(convertToStr=False, collect=False)")
    exec_ = begin(server, plan, [1], flags=frames.TRACEBACK)
    server.wait_for("consumed", exec=exec_)
    server.send(violation(exec_))
    server.process.wait(10)
    error = server.process.stderr.read().decode()
    assert named in error and "panicked" not in error, error


def test_an_execution_without_a_route_has_no_stages(server):
    plan = server.plan("GB().collect().run(convertToStr=False, collect=False)")
    exec_ = server.start(plan, [1], flags=0)
    server.wait_for("consumed", exec=exec_)
    arrived(server, exec_, 1, [1])
    server.process.wait(10)
    assert "which has no route" in server.process.stderr.read().decode()


def test_bytes_that_are_no_records_are_an_error_of_the_execution(server):
    plan = server.plan("GB().groupby(lambda x: x, lambda key, acc, x: x).run(convertToStr=False, collect=False)")
    rng = random.Random(7)
    for data in (
        b"\xff",
        b"\x00",
        b"\x0a\x02\x06\x01a",
        b"\x0a\x02\x03\x02\x03\x02",
        b"\x0e\x02x}",
        *map(rng.randbytes, range(1, 40)),
    ):
        exec_ = begin(server, plan)
        server.send(frames.arrived(exec_, 1, frames.varint(1) + frames.blob(data), False))
        assert server.wait_for("taken", exec=exec_)["bytes"] == len(data)
        results, errors = ended(server, exec_)
        assert not results and len(errors) <= 1
