"""Batch rows: one run over many keys, against a client that does the same by SCAN and pipelined reads."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, in_turn, timed, word, words
from server import Server, run_script

SCAN_COUNT = 1000
FIELDS = 5

LUA_SCAN = """
local cursor, total = '0', 0
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
  cursor = page[1]
  {body}
until cursor == '0'
return {result}
"""


@dataclass(frozen=True)
class Work:
    """The same question put to the gear engine, to a client program and to a Lua script."""

    script: str
    client: Callable[[redis.Redis], Any]
    lua: str
    lua_args: list[str]
    #: What came back from ours, and from Lua, in the client's form.
    of_results: Callable[[list[bytes]], Any]
    of_lua: Callable[[Any], Any]


class Data:
    """Strings of nine words and hashes of five fields in one server; all names differ per seed."""

    def __init__(self, run: Run, rng: random.Random, server: Server) -> None:
        self.strings, self.hashes, self.marker, *self.fields = words(rng, 3 + FIELDS)
        self.separator = rng.choice(" ,;/|")
        self.string_count = run.size(200_000, rng)
        self.hash_count = run.size(20_000, rng)
        self.marked_count = max(1, self.string_count // 100)
        vocabulary = words(rng, rng.randint(1500, 2500))
        self._load_strings(server.redis, rng, vocabulary)
        self._load_hashes(server.redis, rng)

    def _load_strings(self, client: redis.Redis, rng: random.Random, vocabulary: list[str]) -> None:
        marked = set(rng.sample(range(self.string_count), self.marked_count))
        first = rng.randrange(1000, 100_000)
        pipeline = client.pipeline(transaction=False)
        for start in range(0, self.string_count, 1000):
            page = {}
            for number in range(start, min(start + 1000, self.string_count)):
                chosen = rng.choices(vocabulary, k=9)
                if number in marked:
                    chosen[rng.randrange(9)] = self.marker
                page[f"{self.strings}:{first + number}"] = self.separator.join(chosen)
            pipeline.mset(page)
            if len(pipeline) >= 20:
                pipeline.execute()
        pipeline.execute()

    def _load_hashes(self, client: redis.Redis, rng: random.Random) -> None:
        pipeline = client.pipeline(transaction=False)
        for number in range(self.hash_count):
            pipeline.hset(f"{self.hashes}:{number}", mapping={name: rng.randrange(1_000_000) for name in self.fields})
            if len(pipeline) >= 2000:
                pipeline.execute()
        pipeline.execute()


def pages(client: redis.Redis, pattern: str) -> Iterator[list[Any]]:
    """Keys by SCAN, a page at a time."""
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, match=pattern, count=SCAN_COUNT)
        if keys:
            yield keys
        if cursor == 0:
            return


def value_pages(client: redis.Redis, pattern: str) -> Iterator[tuple[list[Any], list[Any]]]:
    """Keys and their string values, a page at a time."""
    for keys in pages(client, pattern):
        yield keys, client.mget(keys)


def hash_pages(client: redis.Redis, pattern: str) -> Iterator[list[dict[Any, Any]]]:
    """Hashes, a pipeline of HGETALL per page."""
    for keys in pages(client, pattern):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        yield pipeline.execute()


def _one_number(results: list[bytes]) -> int:
    if len(results) != 1:
        raise WrongResultError(f"one number was expected, not {results[:3]!r}")
    return int(results[0])


def count_prefix(data: Data, rng: random.Random) -> Work:
    pattern = f"{data.strings}:*"
    return Work(
        script=f"GB('KeysReader').count().run({pattern!r})",
        client=lambda client: sum(map(len, pages(client, pattern))),
        lua=LUA_SCAN.format(body="total = total + #page[2]", result="total"),
        lua_args=[pattern],
        of_results=_one_number,
        of_lua=int,
    )


def count_all(data: Data, rng: random.Random) -> Work:
    return Work(
        script="GB().count().run()",
        client=lambda client: sum(map(len, pages(client, "*"))),
        lua="return redis.call('DBSIZE')",
        lua_args=[],
        of_results=_one_number,
        of_lua=int,
    )


def map_sum(data: Data, rng: random.Random) -> Work:
    pattern = f"{data.strings}:*"
    record, left, right = words(rng, 3)
    more = rng.randrange(1, 10)

    def client_work(client: redis.Redis) -> int:
        total = 0
        for _, values in value_pages(client, pattern):
            for value in values:
                total += len(value) + more
        return total

    return Work(
        script=f"""
add = lambda {left}, {right}: {left} + {right}
GB('KeysReader').map(lambda {record}: len({record}['value']) + {more}).aggregate(0, add, add).run({pattern!r})
""",
        client=client_work,
        lua=LUA_SCAN.format(
            body=f"for _, v in ipairs(redis.call('MGET', unpack(page[2]))) do total = total + #v + {more} end",
            result="total",
        ),
        lua_args=[pattern],
        of_results=_one_number,
        of_lua=int,
    )


def word_count(data: Data, rng: random.Random) -> Work:
    pattern = f"{data.strings}:*"
    separator = data.separator
    record = word(rng)

    def client_work(client: redis.Redis) -> dict[str, int]:
        counts: dict[str, int] = {}
        for _, values in value_pages(client, pattern):
            for value in values:
                for found in value.split(separator):
                    counts[found] = counts.get(found, 0) + 1
        return counts

    def of_results(results: list[bytes]) -> dict[str, int]:
        pairs = [ast.literal_eval(result.decode()) for result in results]
        return {pair["key"]: pair["value"] for pair in pairs}

    return Work(
        script=f"""
GB('KeysReader').flatmap(lambda {record}: {record}['value'].split({separator!r})).countby(lambda x: x).run({pattern!r})
""",
        client=client_work,
        lua=LUA_SCAN.format(
            body=f"""
  if total == 0 then total = {{}} end
  for _, v in ipairs(redis.call('MGET', unpack(page[2]))) do
    for w in string.gmatch(v, '[^{separator}]+') do total[w] = (total[w] or 0) + 1 end
  end""",
            result="cjson.encode(total)",
        ),
        lua_args=[pattern],
        of_results=of_results,
        of_lua=json.loads,
    )


def filter_map(data: Data, rng: random.Random) -> Work:
    pattern = f"{data.strings}:*"
    marker = data.marker
    record, sign = words(rng, 2)

    def client_work(client: redis.Redis) -> list[str]:
        found = []
        for keys, values in value_pages(client, pattern):
            for key, value in zip(keys, values):
                if marker in value:
                    found.append(key + sign)
        return sorted(found)

    return Work(
        script=f"""
GB('KeysReader').filter(lambda {record}: {marker!r} in {record}['value']) \\
    .map(lambda {record}: {record}['key'] + {sign!r}).run({pattern!r})
""",
        client=client_work,
        lua=LUA_SCAN.format(
            body=f"""
  if total == 0 then total = {{}} end
  for i, v in ipairs(redis.call('MGET', unpack(page[2]))) do
    if string.find(v, '{marker}', 1, true) then table.insert(total, page[2][i] .. '{sign}') end
  end""",
            result="total",
        ),
        lua_args=[pattern],
        of_results=lambda results: sorted(result.decode() for result in results),
        of_lua=sorted,
    )


def hash_sum(data: Data, rng: random.Random) -> Work:
    pattern = f"{data.hashes}:*"
    name = rng.choice(data.fields)
    record = word(rng)

    def client_work(client: redis.Redis) -> int:
        total = 0
        for hashes in hash_pages(client, pattern):
            for fields in hashes:
                total += int(fields[name])
        return total

    return Work(
        script=f"""
GB('KeysReader').map(lambda {record}: int({record}['value'][{name!r}])) \\
    .aggregate(0, lambda a, r: a + r, lambda a, r: a + r).run({pattern!r})
""",
        client=client_work,
        lua=LUA_SCAN.format(
            body=f"for _, key in ipairs(page[2]) do total = total + redis.call('HGET', key, '{name}') end",
            result="total",
        ),
        lua_args=[pattern],
        of_results=_one_number,
        of_lua=int,
    )


@dataclass(frozen=True)
class BatchRow:
    question: str
    bars: Bars
    make: Callable[[Data, random.Random], Work]


#: The first bar is one and a half times what RedisGears 1.2.13 reached against the same yardstick.
ROWS: dict[str, BatchRow] = {
    "count-prefix": BatchRow("count of the keys with a prefix", Bars(0.27, 1.1), count_prefix),
    "count-all": BatchRow("count of all keys", Bars(0.27, 10), count_all),
    "map-sum": BatchRow("map to the length of a string, sum", Bars(0.90, 2.0), map_sum),
    "word-count": BatchRow("flatmap to nine words, countby", Bars(0.525, 1.5), word_count),
    "filter-map": BatchRow("filter one in a hundred, map", Bars(0.825, 2.0), filter_map),
    "hash-sum": BatchRow("map to one field of a hash, sum", Bars(2.04, 2.5), hash_sum),
}


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows on one server with one set of data."""
    with Server(run.server) as server:
        run.progress.show("loading the keys of the batch rows")
        data = Data(run, run.rng("batch data"), server)
        for name in chosen:
            yield _measure_row(run, name, server, data)


def _measure_row(run: Run, name: str, server: Server, data: Data) -> Measured:
    row = ROWS[name]
    work = row.make(data, run.rng(name))
    client = server.connect(decode=True)
    times: dict[str, list[float]] = {"client": [], "ours": [], "lua": []}

    def by_client() -> Any:
        return timed(lambda: work.client(client))

    def by_ours() -> Any:
        return timed(lambda: run_script(server.redis, work.script))

    def by_lua() -> Any:
        return timed(lambda: client.eval(work.lua, 0, *work.lua_args))

    for number in range(-1, run.pairs):  # round -1 warms up
        if number >= 0:
            run.progress.show(f"{name}: {number + 1} of {run.pairs}")
        (client_s, expected), (ours_s, results), (lua_s, from_lua) = in_turn(number, by_client, by_ours, by_lua)
        for who, found in (("ours", work.of_results(results)), ("the Lua script", work.of_lua(from_lua))):
            if found != expected:
                raise WrongResultError(f"{who} gave {str(found)[:200]}, the client {str(expected)[:200]}")
        if number >= 0:
            for who, seconds in (("client", client_s), ("ours", ours_s), ("lua", lua_s)):
                times[who].append(seconds)
    client.close()
    lua = Spread.of([lua / ours for lua, ours in zip(times["lua"], times["ours"])])
    return Measured(
        row=name,
        question=row.question,
        ratios=[theirs / ours for theirs, ours in zip(times["client"], times["ours"])],
        yardstick=[seconds * 1e3 for seconds in times["client"]],
        ours=[seconds * 1e3 for seconds in times["ours"]],
        yardstick_name="client",
        unit="ms",
        bars=row.bars,
        notes=[f"{'DBSIZE' if name == 'count-all' else 'Lua'} time / ours {lua.median:.2g}"],
        extra={
            "script": work.script.strip(),
            "lua_ms": [seconds * 1e3 for seconds in times["lua"]],
            "keys": data.string_count + data.hash_count,
            "strings": data.string_count,
            "hashes": data.hash_count,
        },
    )
