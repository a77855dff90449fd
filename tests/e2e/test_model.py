"""Random chains of operations on random records: the server, `run_local` and a plain model give the same.

The order in which operations emit groups and distinct records is not part of their meaning. What comes after them is
made of operations and callbacks that give the same in any order, and results are then compared as multisets.
"""

from __future__ import annotations

import os
import random
from typing import Any, NamedTuple

import pytest
import redgrease
from hypothesis import HealthCheck, Phase, example, given, note, seed, settings
from hypothesis import strategies as st
from redgrease.testing import run_local

from . import model

FEW, MANY = 400, 4000


# -- callbacks: small, and sent to the server by value


def size(record):
    return len(repr(record))


def size_in_thirds(record):
    return size(record) % 3


def kind(record):
    return type(record).__name__


def pair(record):
    return (record, None)


def twice(record):
    return [record, record]


def field(record):
    return {"v": record, "size": size(record)}


def encoded(record):
    return repr(record).encode("utf-16")


def no_number(_record):
    return float("nan")


def value(record):
    return record["value"]


def successor(record):
    return record + 1


def sometimes(record):
    if size(record) % 4 == 0:
        raise LookupError(f"a text of {size(record)} characters")
    return record


def grow(record):
    record.append(1)


def items(record):
    return list(record)


def nested(record):
    return [1, [record], [[2]]]


def several(record):
    return [record, size(record), repr(record)]


def tuple_of(record):
    return (record, 1)


def nothing(_record):
    return []


def number_of(acc, _record):
    return (acc or 0) + 1


def together(acc, record):
    return [*(acc or []), record]


def last(_acc, record):
    return record


def longest(acc, record):
    return max(acc or 0, size(record))


def added(acc, record):
    return acc + record


def odd_numbers_fail(acc, record):
    if size(record) % 2:
        raise ArithmeticError("odd")
    return (acc or 0) + size(record)


def turned(acc, _record):
    return not acc


def turned_of_key(_key, acc, _record):
    return not acc


def joined(acc, other):
    return f"{acc}+{other}"


def number_of_key(_key, acc, _record):
    return (acc or 0) + 1


def together_of_key(key, acc, record):
    return [*(acc or [key]), record]


def odd_numbers_of_key_fail(_key, acc, record):
    return odd_numbers_fail(acc, record)


def joined_of_key(key, acc, other):
    return f"{key}:{acc}+{other}"


def sum_of_key(_key, acc, other):
    return acc + other


def all_of_key(key, records):
    return (key, records)


def number_of_records(_key, records):
    return len(records)


def odd_groups_fail(key, records):
    if len(records) % 2:
        raise KeyError(key)
    return len(records)


def sizes_of_records(_key, records):
    return sorted(map(size, records))


# -- records

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", "a", "1.5", "-7", "+OK", "-ERR", "käse", "\0", "\U0001f600", "nan"])
    | st.binary(max_size=4)
    | st.sampled_from([b"", b"\xff\x00", b"\xff\xfe", b"a", b"1.5", 2**63, -(2**63) - 1, 10**400])
)
RECORDS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(-2, 2), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=1)
    ),
    max_leaves=6,
)
#: Few different values: groups have several members.
SMALL = st.sampled_from([0, 1, 2, True, 1.0, "a", "b", "1", b"a", None, "", -0.0]) | st.integers(0, 5)
INPUT = st.one_of(
    st.lists(RECORDS, min_size=1, max_size=8),
    st.lists(SMALL, min_size=4, max_size=12),
    st.lists(st.integers(), min_size=2, max_size=8),
    st.lists(st.text(max_size=3), min_size=2, max_size=8),
    st.lists(RECORDS, max_size=1),
)


# -- chains


class Chain(NamedTuple):
    """Operations with their arguments."""

    steps: list[tuple[str, tuple, dict]]
    #: Whether the order of the results is determined.
    is_ordered: bool

    def on(self, function: Any) -> Any:
        """A gear function with these operations."""
        for name, args, options in self.steps:
            function = getattr(function, name)(*args, **options)
        return function


def step(name: str, *args: st.SearchStrategy, **options: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(st.just(name), st.tuples(*args), st.fixed_dictionaries(options))


def one_of(*callbacks: Any) -> st.SearchStrategy:
    return st.sampled_from(callbacks)


def optional(*strategies: st.SearchStrategy) -> st.SearchStrategy:
    """As many of these as there are arguments."""
    return st.integers(0, len(strategies)).flatmap(lambda count: st.tuples(*strategies[:count]))


def with_optional(name: str, *strategies: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(st.just(name), optional(*strategies), st.just({}))


SAFE_KEYS = one_of(None, kind, size_in_thirds, repr, no_number, encoded)
KEYS = one_of(None, kind, size_in_thirds, value, sometimes, no_number, successor)
REDUCERS = one_of(number_of_key, together_of_key, odd_numbers_of_key_fail, joined_of_key, turned_of_key)
SEQUENCES = one_of(number_of, together, odd_numbers_fail, added, joined, longest)
ZEROS = one_of(0, 5, [], [7], "z", 1.5)

#: One record at a time, without errors.
SMOOTH = (
    step("map", one_of(None, repr, pair, twice, field, encoded, no_number, size, 7, str)),
    with_optional("flatmap", one_of(None, twice, nested, several, tuple_of)),
    step("flatmap", one_of(twice, nested, several), inOrder=st.just(True)),
    step("foreach", one_of(size)),
    with_optional("filter", one_of(None, size_in_thirds)),
    step("repartition", SAFE_KEYS),
    step("collect"),
)
#: Callbacks that fail for some records.
FAILING = (
    step("map", one_of(value, successor, sometimes)),
    step("flatmap", one_of(items, nothing)),
    step("foreach", one_of(sometimes, grow)),
    step("filter", one_of(value, sometimes)),
    step("repartition", KEYS),
)
#: Few records come of many.
REDUCING = (
    step("count"),
    with_optional("avg", one_of(size, size_in_thirds, successor, value)),
    with_optional("accumulate", one_of(number_of, together, last, longest, added, odd_numbers_fail)),
    st.tuples(st.just("aggregate"), st.tuples(one_of(None, 0, 5, [], [7])), st.just({})),
    step("aggregate", ZEROS, SEQUENCES | st.just(turned), one_of(number_of, together, added, joined)),
    step("aggregate", ZEROS, SEQUENCES),
)
LIMITS = (step("limit", one_of(1, 2, 3, 4, 0)), step("limit", one_of(1, 2, 3, 0), one_of(1, 2, 0)))
#: Operations after which the order of records is not determined.
REORDERING = (
    with_optional("groupby", SAFE_KEYS, REDUCERS),
    with_optional("localgroupby", KEYS, REDUCERS),
    with_optional("batchgroupby", SAFE_KEYS, one_of(all_of_key, number_of_records, odd_groups_fail)),
    with_optional("countby", SAFE_KEYS),
    st.tuples(st.just("aggregateby"), st.tuples(SAFE_KEYS, one_of(None, 0, 5, [], [7])), st.just({})),
    step("aggregateby", KEYS, ZEROS, REDUCERS, one_of(sum_of_key, joined_of_key, together_of_key)),
    step("distinct"),
)
#: Operations that give the same in any order, and never fail.
IN_ANY_ORDER = (
    step("map", one_of(None, repr, pair, twice, field, encoded, no_number, size)),
    with_optional("flatmap", one_of(None, twice, nested, tuple_of)),
    step("foreach", one_of(size)),
    with_optional("filter", one_of(None, size_in_thirds)),
    step("repartition", SAFE_KEYS),
    step("collect"),
    step("groupby", one_of(None, kind, size_in_thirds), one_of(number_of_key)),
    step("localgroupby", one_of(None, kind, size_in_thirds), one_of(number_of_key)),
    step("batchgroupby", one_of(None, kind, size_in_thirds), one_of(sizes_of_records, number_of_records)),
    with_optional("countby", one_of(None, kind, size_in_thirds)),
    step("aggregateby", one_of(None, kind), one_of(0, 5), one_of(number_of_key), one_of(sum_of_key)),
)
#: The same; one record comes out.
TO_ONE = (
    step("count"),
    step("avg", one_of(size)),
    step("accumulate", one_of(number_of, longest)),
    step("aggregate", one_of(0, 5), one_of(number_of, longest), one_of(added)),
)
TO_TEXT = ("map", (repr,), {})


@st.composite
def chains(draw: Any, is_ordered: bool = True) -> Chain:
    steps: list[Any] = []
    may_fail = draw(st.booleans())
    for _ in range(draw(st.sampled_from([2, 3, 4, 5, 1, 0]))):
        group = draw(
            st.sampled_from(["smooth", "failing", "sort", "limit", "reducing", "smooth", "reordering", "smooth"])
        )
        if group == "sort" and (not is_ordered or not may_fail):
            # Texts can be compared, and equal ones cannot be told apart.
            steps += [TO_TEXT, draw(with_optional("sort", st.booleans()))]
            is_ordered = True
        elif group == "sort":
            steps.append(draw(with_optional("sort", st.booleans())))
        elif not is_ordered:
            steps.append(draw(st.one_of(TO_ONE if group == "reducing" else IN_ANY_ORDER)))
            is_ordered = group == "reducing"
        elif group == "reordering":
            steps.append(draw(st.one_of(REORDERING)))
            is_ordered = False
        else:
            smooth = {"limit": LIMITS, "reducing": REDUCING}.get(group, SMOOTH)
            steps.append(draw(st.one_of(FAILING if group == "failing" and may_fail else smooth)))
    return Chain(steps, is_ordered)


# -- comparison


def canonical(value: Any) -> str:
    """A text that is the same for values of the same types and content, also for NaN."""
    name = type(value).__name__
    if isinstance(value, dict):
        return f"{name}({[(canonical(key), canonical(item)) for key, item in value.items()]})"
    if isinstance(value, (list, tuple)):
        return f"{name}({[canonical(item) for item in value]})"
    if isinstance(value, (set, frozenset)):
        return f"{name}({sorted(canonical(item) for item in value)})"
    return f"{name}({value if isinstance(value, int) and abs(value) < 10**4000 else repr(value)})"


class Outcome(NamedTuple):
    """Results and types of errors."""

    records: list[str]
    errors: list[str]


def outcome(chain: Chain, records: list, errors: list[str]) -> Outcome:
    texts = [canonical(record) for record in records]
    return Outcome(texts if chain.is_ordered else sorted(texts), errors)


def compare(db: Any, chain: Chain, remote: Any, local: Any, records: list) -> None:
    """Compare what a server, `run_local` and the model give."""
    expected = outcome(chain, *model.run(chain.steps, records))
    there = chain.on(remote[0]).run(*remote[1:], on=db.r)
    here = run_local(chain.on(local[0]), local[1])
    note(f"server: {there!r}\nrun_local: {here!r}\nmodel: {expected!r}")
    assert outcome(chain, here.records, [error.type for error in here.errors]) == expected
    assert outcome(chain, there.records, [error.type for error in there.errors]) == expected
    assert [error.message for error in here.errors] == [error.message for error in there.errors]
    assert canonical(here.value) == canonical(there.value) or not chain.is_ordered


def on_examples(examples: int, *strategies: st.SearchStrategy) -> Any:
    """Run a test on random examples: always the same ones in a short run, others in each long run."""
    common = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples == FEW,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        print_blob=True,
    )

    def decorate(test: Any) -> Any:
        test = common(given(*strategies)(test))
        if examples == FEW:
            return test
        number = int(os.environ.get("REDGREASE_TEST_SEED", random.randrange(1 << 32)))
        print(f"REDGREASE_TEST_SEED={number}")
        return seed(number)(test)

    return decorate


RUNS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]


@pytest.mark.parametrize("examples", RUNS)
def test_chains_on_records_of_a_function(db, examples):
    @example(Chain([("aggregate", (5, turned, joined), {})], True), [1, 2])
    @example(Chain([("aggregateby", (kind, 5, turned_of_key, joined_of_key), {})], True), [1, 2])
    @on_examples(examples, chains(), INPUT)
    def check(chain, records):
        reader = redgrease.PythonReader()
        compare(db, chain, (reader, lambda: iter(records)), (reader, records), records)

    check()


TEXTS = st.text(max_size=4) | st.binary(max_size=4) | st.sampled_from([b"\xff\xfe", b"\xc3", "ä", "1.5", ""])
HASHES = st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=3)
LISTS = st.lists(TEXTS, min_size=1, max_size=3)
CONTENT = st.dictionaries(
    st.text(min_size=1, max_size=3) | st.binary(min_size=1, max_size=3),
    TEXTS | st.integers() | st.floats() | HASHES | LISTS | st.sets(TEXTS, min_size=1, max_size=2),
    max_size=6,
)


def stored(value: Any) -> Any:
    """A text as a function gets it: text, or bytes where it is not UTF-8."""
    data = value if isinstance(value, bytes) else (value if isinstance(value, str) else repr(value)).encode()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def record_of(key: Any, value: Any) -> dict:
    """The record of a key, from the description of the KeysReader."""
    if isinstance(value, dict):
        name, value = "hash", {stored(field): stored(text) for field, text in value.items()}
    elif isinstance(value, list):
        name, value = "list", [stored(text) for text in value]
    elif isinstance(value, set):
        name, value = "set", None
    else:
        name, value = "string", stored(value)
    return {"key": stored(key), "value": value, "type": name, "event": None}


def distinct_keys(content: dict) -> dict:
    """Text and bytes may be the same key or field."""
    found = {stored(key): value for key, value in content.items()}
    return {key: distinct_keys(value) if isinstance(value, dict) else value for key, value in found.items()}


def fill(client: Any, content: dict) -> None:
    with client.pipeline() as pipe:
        pipe.flushall()
        for key, value in content.items():
            if isinstance(value, dict):
                pipe.hset(key, mapping=value)
            elif isinstance(value, list):
                pipe.rpush(key, *value)
            elif isinstance(value, set):
                pipe.sadd(key, *value)
            else:
                pipe.set(key, value)
        pipe.execute()


@pytest.mark.parametrize("examples", RUNS)
def test_chains_on_keys(db, examples):
    @on_examples(examples, chains(is_ordered=False), CONTENT)
    def check(chain, content):
        content = distinct_keys(content)
        fill(db.r, content)
        reader = redgrease.KeysReader()
        records = [record_of(key, value) for key, value in content.items()]
        compare(db, chain, (reader,), (reader, content), records)

    check()


@pytest.mark.parametrize("examples", RUNS)
def test_chains_on_messages_of_a_stream(db, examples):
    @on_examples(examples, chains(), st.lists(HASHES, max_size=5))
    def check(chain, messages):
        messages = [distinct_keys(message) for message in messages]
        db.r.delete("events")
        for number, message in enumerate(messages, 1):
            db.r.xadd("events", message, id=f"{number}-0")
        reader = redgrease.StreamReader("events")
        records = [
            {
                "key": "events",
                "id": f"{number}-0",
                "value": {stored(name): stored(text) for name, text in message.items()},
            }
            for number, message in enumerate(messages, 1)
        ]
        compare(db, chain, (reader,), (reader, {"events": messages}), records)

    check()
