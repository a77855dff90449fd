"""Random plans whose results do not depend on the order of records, and a naive interpreter of them on several shards.

Loaded in workers, too, by the scripts of ``test_stages``. It shares no code with the executor under test: each step
takes the lists of records of all shards, and makes new ones.
"""

import asyncio
import binascii
import collections
import random
import zlib

SLOTS = 16384


def drawn(*args):
    """A number that depends on its arguments only."""
    return zlib.crc32(repr(args).encode())


def text(key):
    return key if isinstance(key, str) else repr(key)


def slot_of(key):
    """The slot of a key, by another implementation of the checksum than the one under test."""
    data = key.split("\0")[0].encode("utf-8", "surrogateescape")
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start + 1)
        if end > start + 1:
            data = data[start + 1 : end]
    return binascii.crc_hqx(data, 0) % SLOTS


class Callback:
    """A function of a kind, which depends on its seed; it may be a coroutine function."""

    def __init__(self, kind, seed, is_async=False):
        self.kind, self.seed, self.is_async = kind, seed, is_async

    def plain(self, *args):
        return KINDS[self.kind](self.seed, *args)

    def __call__(self, *args):
        if self.is_async:
            return self.later(*args)
        return self.plain(*args)

    async def later(self, *args):
        if drawn(self.seed, args) % 3:
            await asyncio.sleep(0)
        return self.plain(*args)


def _group(seed, key, records):
    return [key, len(records), sorted(map(repr, records))[:3]]


KINDS = {
    "map": lambda seed, x: [x, drawn(seed, x) % 10, f"w{drawn(seed, x) % 5}", (x, 1), None, ["é", 1.5]][seed % 6],
    "number": lambda seed, x: drawn(seed, x) % 20,
    "text": lambda seed, x: repr(x),
    "passed": lambda seed, x: "passed",
    "filter": lambda seed, x: drawn(seed, x) % 3,
    "foreach": lambda seed, x: None,
    "flatmap": lambda seed, x: [[x, x], [x, 1, "y"][: drawn(seed, x) % 4], (x,), [[x]]][seed % 4],
    "key": lambda seed, x: [
        drawn(seed, x) % 9, f"k{drawn(seed, x) % 50}", None, (drawn(seed, x) % 3,),
        f"{{tag{drawn(seed, x) % 4}}}.{seed}",
        f"a\0{drawn(seed, x) % 3}", "\udcff",
    ][seed % 7],
    "sum": lambda seed, acc, x: (acc or 0) + drawn(seed, x) % 100,
    "total": lambda seed, acc, partial: acc + partial,
    "sumby": lambda seed, key, acc, x: (acc or 0) + drawn(seed, key, x) % 100,
    "totalby": lambda seed, key, acc, partial: acc + partial,
    "group": _group,
}  # fmt: skip

STEPS = (
    ["map", "filter", "foreach", "flatmap"] * 3
    + ["repartition", "groupby", "batchgroupby", "aggregateby", "countby", "collect"] * 2
    + ["accumulate", "localgroupby", "localaggregateby", "aggregate", "count", "countwords", "avg", "avgdefault"]
    + ["sort", "distinct", "limit"]
)
#: Steps whose results depend on which shard has which records.
LOCAL = {"accumulate", "localgroupby", "localaggregateby", "limit"}
COLLECTING = {"collect", "aggregate", "count", "avg", "avgdefault", "sort", "distinct"}
BY_KEY = {"repartition", "groupby", "batchgroupby", "aggregateby", "countby", "countwords"}


def random_steps(seed, with_async=True):
    rng = random.Random(seed)
    steps = []
    flatmaps = 0

    def callback(kind, waits=False):
        return Callback(kind, rng.randrange(1 << 30), with_async and waits and rng.random() < 0.15)

    for _ in range(rng.randint(0, 6)):
        kind = rng.choice(STEPS)
        if kind == "flatmap":
            flatmaps += 1
            if flatmaps > 2:
                continue
            steps.append((kind, (callback("flatmap", True),)))
        elif kind in ("map", "filter", "foreach"):
            steps.append((kind, (callback(kind, True),)))
        elif kind in ("repartition", "countby"):
            steps.append((kind, (callback("key"),)))
        elif kind == "accumulate":
            steps.append((kind, (callback("sum", True),)))
        elif kind in ("localgroupby", "groupby"):
            steps.append((kind, (callback("key"), callback("sumby", True))))
        elif kind == "batchgroupby":
            steps.append((kind, (callback("key"), callback("group"))))
        elif kind == "aggregate":
            steps.append((kind, (rng.choice([0, 3]), callback("sum", True), callback("total", True))))
        elif kind == "aggregateby":
            zero = rng.choice([0, 3])
            steps.append((kind, (callback("key"), zero, callback("sumby", True), callback("totalby", True))))
        elif kind == "localaggregateby":
            steps.append((kind, (callback("key"), 0, callback("sumby", True))))
        elif kind == "avg":
            steps.append((kind, (callback("number"),)))
        elif kind == "limit":
            # Which records pass is not defined.
            steps += [(kind, (rng.randint(0, 4), rng.randint(0, 2))), ("map", (callback("passed"),))]
        elif kind in ("avgdefault", "distinct"):
            steps += [("map", (callback("number"),)), (kind, ())]
        elif kind == "sort":
            steps += [("map", (callback("text"),)), (kind, (rng.random() < 0.5,))]
        else:
            steps.append((kind, ()))
    return steps


def random_records(seed, shards):
    """For each shard its records."""
    rng = random.Random(seed)
    size = rng.choice([0, 1, 5, 40])
    return [
        [
            rng.choice([rng.randint(0, 9), f"w{rng.randint(0, 5)}", "a b c", "x" * 50])
            for _ in range(rng.randint(0, size))
        ]
        for _ in range(shards)
    ]


def build(builder, steps):
    """The same plan, for the executor."""
    names = {"countwords": "countby", "avgdefault": "avg", "localaggregateby": "__localAggregateby__"}
    for kind, args in steps:
        getattr(builder, names.get(kind, kind))(*args)
    return builder


def moves(steps):
    """For each stage but the first whether all its records are collected."""
    return [kind in COLLECTING for kind, _ in steps if kind in COLLECTING | BY_KEY]


def is_global(steps):
    """Whether the results do not depend on which shard has which records."""
    neutral = {"aggregate": 0, "aggregateby": 1}
    return not any(kind in LOCAL or (kind in neutral and args[neutral[kind]]) for kind, args in steps)


def interpret(steps, streams, owner):
    """Run a plan naively: the results of each shard. ``streams`` are their records, ``owner`` the shard of a slot."""

    def each(function):
        return [function(records) for records in streams]

    def moved(to):
        made = [[] for _ in streams]
        for records in streams:
            for record in records:
                made[to(record)].append(record)
        return made

    def collected():
        return moved(lambda _: 0)

    def by_key(key):
        return moved(lambda record: owner(slot_of(text(key(record)))))

    def folded(zero, f, value=lambda record: record):
        def fold(records):
            acc = zero
            for record in records:
                acc = f(acc, value(record))
            return [acc] if records else []

        return fold

    def keyed(key, zero, f, value=lambda record: record):
        def fold(records):
            accs = {}
            for record in records:
                name = text(key(record))
                accs[name] = f(name, accs.get(name, zero), value(record))
            return [{"key": name, "value": acc} for name, acc in accs.items()]

        return fold

    def of_record(record):
        return record["key"]

    def value_of(record):
        return record["value"]

    for kind, args in steps:
        first = args[0].plain if args and isinstance(args[0], Callback) else None
        if kind == "map":
            streams = each(lambda records, first=first: [first(record) for record in records])
        elif kind == "filter":
            streams = each(lambda records, first=first: [record for record in records if first(record)])
        elif kind == "flatmap":
            streams = each(
                lambda records, first=first: [
                    item for made in map(first, records) for item in (made if isinstance(made, list) else [made])
                ]
            )
        elif kind == "repartition":
            streams = by_key(first)
        elif kind == "collect":
            streams = collected()
        elif kind == "accumulate":
            streams = each(folded(None, first))
        elif kind == "localgroupby":
            streams = each(keyed(first, None, args[1].plain))
        elif kind == "localaggregateby":
            streams = each(keyed(first, args[1], args[2].plain))
        elif kind == "groupby":
            streams = by_key(first)
            streams = each(keyed(first, None, args[1].plain))
        elif kind == "batchgroupby":
            streams = by_key(first)
            grouped = each(keyed(first, (), lambda _, acc, record: (*acc, record)))
            streams = [
                [{"key": one["key"], "value": args[1].plain(one["key"], one["value"])} for one in groups]
                for groups in grouped
            ]
        elif kind == "aggregate":
            zero, seq, comb = args
            streams = each(folded(zero, seq.plain))
            streams = collected()
            streams = each(folded(zero, comb.plain))
        elif kind == "aggregateby":
            extractor, zero, seq, comb = args
            streams = each(keyed(extractor.plain, zero, seq.plain))
            streams = by_key(of_record)
            streams = each(keyed(of_record, zero, comb.plain, value_of))
        elif kind in ("countby", "countwords"):
            streams = each(keyed(first or (lambda record: record), 0, lambda _, acc, record: acc + 1))
            streams = by_key(of_record)
            streams = each(keyed(of_record, 0, lambda _, acc, number: acc + number, value_of))
        elif kind == "count":
            numbers = [len(records) for records in streams if records]
            streams = [[sum(numbers)] if numbers else []] + [[]] * (len(streams) - 1)
        elif kind in ("avg", "avgdefault"):
            values = [(first or float)(record) for records in streams for record in records]
            streams = [[sum(values) / len(values)] if values else []] + [[]] * (len(streams) - 1)
        elif kind == "sort":
            streams = each(list)
            streams = collected()
            streams[0].sort(reverse=not args[0])
        elif kind == "distinct":
            streams = [list({record for records in streams for record in records})] + [[]] * (len(streams) - 1)
        elif kind == "limit":
            length, offset = args
            streams = each(lambda records, offset=offset, length=length: records[offset : offset + length])
        else:
            assert kind == "foreach", kind
    return streams


def counted(records):
    """The records without their order."""
    return collections.Counter(map(repr, records))
