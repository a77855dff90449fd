"""Typical programs with mistakes, for type checkers; it is not run.

Lines with a mistake end in a comment with `wrong:`. `tests/python/test_typing.py` compares them with what is found.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Callable

import redgrease
import redgrease.asyncio
import redis.asyncio
from redgrease import (
    ClosedGearFunction,
    CommandReader,
    GearsBuilder,
    KeysOnlyReader,
    KeysReader,
    KeyType,
    OpenGearFunction,
    PythonReader,
    ShardsIDReader,
    StreamReader,
)
from redgrease.data import ExecutionResult
from redgrease.func import CommandFunction
from redgrease.typing import Grouped, KeyRecord, Record
from redgrease.utils import Record as RecordObject
from typing_extensions import assert_type

r = redgrease.Redis()

# -- Readers know their records.

assert_type(KeysReader("user:*").keys(), OpenGearFunction[str])
assert_type(KeysReader("user:*").records(), OpenGearFunction[RecordObject])
assert_type(KeysReader().values(type="hash"), OpenGearFunction[dict[str, str]])
assert_type(KeysReader().values(type=KeyType.String), OpenGearFunction[str])
assert_type(KeysReader().map(lambda record: record["key"]), OpenGearFunction[str])
assert_type(KeysReader().filter(lambda record: record["event"] is None).count(), OpenGearFunction[int])
assert_type(KeysOnlyReader().map(len), OpenGearFunction[int])
assert_type(StreamReader("s").map(lambda message: message["value"]["name"]), OpenGearFunction[str])
assert_type(ShardsIDReader().map(int), OpenGearFunction[int])
KeysReader().map(lambda record: record["kye"])  # wrong: there is no such entry
KeysReader().map(lambda record: record.key)  # wrong: records are dicts
KeysReader().records().map(lambda record: record.val)  # wrong: there is no such attribute
StreamReader().map(lambda message: message["event"])  # wrong: messages of streams have no event
KeysReader(pattern="user:*")  # wrong: the argument is default_key_pattern
KeysReader().values(kind="hash")  # wrong: the argument is type
KeysOnlyReader().values()  # wrong: there are only keys


# -- Callbacks are functions of one record.


def name_of(user: dict[str, str]) -> str:
    return user["name"]


def older_form(record: Record) -> str:
    return str(record["value"])


async def download(url: str) -> bytes:
    return url.encode()


async def download_all(urls: str) -> list[bytes]:
    return [await download(url) for url in urls.split()]


async def add_later(acc: int | None, name: str) -> int:
    return (acc or 0) + len(name)


def words(text: str) -> list[str]:
    return text.split()


users = KeysReader("user:*").values(type="hash")
names = users.map(name_of)
assert_type(names, OpenGearFunction[str])
assert_type(KeysReader().map(older_form), OpenGearFunction[str])
assert_type(names.map(download), OpenGearFunction[bytes])
assert_type(names.flatmap(download_all), OpenGearFunction[bytes])
assert_type(names.accumulate(add_later), OpenGearFunction[int])
assert_type(names.aggregate(0, add_later), OpenGearFunction[int])
assert_type(names.map(str.upper).filter(str.isalpha), OpenGearFunction[str])
assert_type(names.flatmap(words), OpenGearFunction[str])
assert_type(names.flatmap(lambda name: [len(name)]), OpenGearFunction[int])
assert_type(names.map(words).flatmap(), OpenGearFunction[str])
assert_type(names.foreach(print).distinct().sort().limit(10).collect(), OpenGearFunction[str])
users.map(lambda user: user.name)  # wrong: users are dicts
names.map(name_of)  # wrong: the records are texts
names.map(lambda first, second: first)  # wrong: callbacks take one record
names.map(5)  # wrong: this is no function
names.flatmap(len)  # wrong: a number is no list
names.count().flatmap()  # wrong: a number is no list
names.map(str.upper, requirement=["requests"])  # wrong: the argument is requirements
names.limit("10")  # wrong: a number is needed
names.filtered(str.isalpha)  # wrong: there is no such operation
names.count().map(lambda number: number.upper())  # wrong: a count is a number

# -- Operations that combine records.


def longest(acc: str | None, name: str) -> str:
    return max(acc or "", name, key=len)


def add_length(key: str, acc: int | None, name: str) -> int:
    return (acc or 0) + len(name)


assert_type(names.count(), OpenGearFunction[int])
assert_type(names.map(len).avg(), OpenGearFunction[float])
assert_type(names.avg(len), OpenGearFunction[float])
assert_type(names.countby(), OpenGearFunction[Grouped[int]])
assert_type(names.countby(len).map(lambda group: group["value"]), OpenGearFunction[int])
assert_type(names.groupby(len).map(lambda group: group["value"]), OpenGearFunction[list[str]])
assert_type(names.groupby(len, add_length), OpenGearFunction[Grouped[int]])
assert_type(names.groupby(reducer=add_length), OpenGearFunction[Grouped[int]])
assert_type(names.localgroupby(len, add_length), OpenGearFunction[Grouped[int]])
assert_type(names.batchgroupby(len, lambda key, group: "".join(group)), OpenGearFunction[Grouped[str]])
assert_type(names.accumulate(), OpenGearFunction[list[str]])
assert_type(names.accumulate(longest), OpenGearFunction[str])
assert_type(names.aggregate(), OpenGearFunction[list[str]])
assert_type(names.map(len).aggregate(0), OpenGearFunction[int])
assert_type(names.map(len).aggregate(0, operator.add), OpenGearFunction[Any])
assert_type(names.map(len).aggregate(0, max), OpenGearFunction[Any])
assert_type(names.aggregate("", longest), OpenGearFunction[str])
assert_type(names.aggregateby(len, 0, add_length, lambda key, a, b: a + b), OpenGearFunction[Grouped[int]])
names.aggregate(set(), lambda acc, name: acc | {name}, lambda acc, other: acc | other)
names.countby().map(lambda group: group["count"])  # wrong: the entry is value
names.countby().map(lambda group: group["value"].upper())  # wrong: the value is a number
names.groupby(add_length)  # wrong: an extractor takes one record
names.groupby(len, longest)  # wrong: a reducer takes the key, too
names.map(len).accumulate(longest)  # wrong: the records are numbers
names.avg(str.upper)  # wrong: a text is no number
names.aggregate(0, add_length)  # wrong: there is no key

# -- Actions: closed functions, or results.

assert_type(names.run(), ClosedGearFunction[str])
assert_type(names.run("user:1*", noScan=True), ClosedGearFunction[str])
assert_type(names.run(on=r), ExecutionResult[str])
assert_type(names.run(on=r.gears, progress=True).records, list[str])
assert_type([name.upper() for name in names.run(on=r)], list[str])
assert_type(names.run().on(r).records, list[str])
assert_type(names.count().run(on=r)[0], int)
assert_type(KeysReader().register("user:*", eventTypes=["hset"]), ClosedGearFunction[KeyRecord])
KeysReader().foreach(print).register("user:*", keyTypes=["hash"], mode="sync", on=r)
StreamReader().register("orders", batch=10, duration=100, onFailedPolicy=redgrease.FailurePolicy.Retry)
names.run(noscan=True)  # wrong: the keyword is noScan
names.run(on=6379)  # wrong: this is no client
names.run().map(len)  # wrong: the function is closed
names.on(r)  # wrong: the function is open
names.run(on=r).records.upper()  # wrong: these are several
KeysReader().register(eventtypes=["hset"])  # wrong: the keyword is eventTypes
KeysReader().register(batch="10")  # wrong: a number is needed
names.run().on()  # wrong: where?
for number in names.map(len).run(on=r):
    number.upper()  # wrong: the records are numbers


def numbers() -> Iterator[int]:
    yield from range(10)


PythonReader().map(lambda number: number + 1).run(numbers, on=r)

# -- Commands.


@redgrease.command
def greet(name: str) -> str:
    return f"hello, {name}"


@redgrease.command(requirements=["requests"], mode="sync")
async def length(url: str) -> int:
    return len(await download(url))


@redgrease.command(on=r, replace=True)
def add(first: str, second: str = "1") -> int:
    return int(first) + int(second)


assert_type(greet, CommandFunction[str])
assert_type(length, CommandFunction[int])
assert_type(add("1", "2").records, list[int])
greet.on(r)("Ann")
CommandReader().apply(max).register(trigger="largest", on=r)("1", "2")
assert_type(CommandReader().apply(words).register(trigger="words"), ClosedGearFunction[list[str]])
add(1, 2)  # wrong: arguments are texts
add()  # wrong: an argument is missing
greet.map(len)  # wrong: the function is closed

# -- Clients with coroutines.


async def with_coroutines() -> None:
    a = await redgrease.asyncio.RedisGears()
    assert_type((await names.count().run(on=a)).records, list[int])
    assert_type((await names.count().run().on(redis.asyncio.Redis())).records, list[int])
    assert_type((await names.count().run(on=a.gears)).records, list[int])
    assert_type((await a.gears.pyexecute(names.count().run())).records, list[int])
    await CommandReader().apply(max).register(trigger="largest", on=a)("1", "2")

    @redgrease.command(on=a, ttl=60)
    async def kept(first: str, second: str = "1") -> int:
        return int(first) + int(second)

    await kept
    assert_type((await kept("1")).records, list[int])
    await kept.invalidate("1")
    await kept(1)  # wrong: arguments are texts
    print(names.count().run(on=a).records)  # wrong: it is not awaited
    await names.count().run(on=r)  # wrong: this client has no coroutines


# -- Builders.

builder = GearsBuilder("KeysReader", "user:*")
builder.map(lambda record: record["value"])
builder.count()
assert_type(builder.gearfunction, OpenGearFunction[Any])
builder.run(on=r)
GearsBuilder(regex="user:*")  # wrong: the argument is defaultArg

# -- Functions that make functions.


def older_than(years: int) -> OpenGearFunction[dict[str, str]]:
    return users.filter(lambda user: int(user["age"]) > years)


def of_type(check: Callable[[KeyRecord], bool]) -> OpenGearFunction[str]:
    return KeysReader().filter(check).count()  # wrong: this counts


assert_type(older_than(30).count().run(on=r).records, list[int])
