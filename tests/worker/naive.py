"""Random plans, and a naive interpreter of them: each step is a generator that pulls from the one before.

Loaded in a worker, by the script of ``test_executor``. It shares no code with the executor under test: records are
pulled through Python generators, one step at a time, exactly as the specification says.
"""

import copy
import random
import zlib

UNSET = object()
LOG = []


def text(key):
    return key if isinstance(key, str) else repr(key)


class Callback:
    """A function derived from its seed that records each call, and sometimes fails."""

    def __init__(self, seed, choices, fails):
        self.seed, self.choices, self.fails = seed, choices, fails

    def __call__(self, *args):
        LOG.append((self.seed, repr(args)))
        drawn = zlib.crc32(repr((self.seed, args)).encode())
        if self.fails and drawn % 29 == 0:
            raise ValueError(f"boom {self.seed}")
        return self.choices[drawn % len(self.choices)](drawn, *args)


MAPPED = [
    lambda n, x: x,
    lambda n, x: n % 10,
    lambda n, x: f"w{n % 5}",
    lambda n, x: [n % 4, str(x)[:9]],
    lambda n, x: (n % 3,),
    lambda n, x: None,
    lambda n, x: n / 7 % 3,
]
FLAT = [
    lambda n, x: [n % 7, x, "x"][: n % 4],
    lambda n, x: [f"w{n % 3}", f"w{n % 4}", "x"],
    lambda n, x: (n % 3, 2),
    lambda n, x: [[1, 2], [n % 3]],
    lambda n, x: x,
]
ACC = [lambda n, *args: n % 6, lambda n, *args: [], lambda n, *args: None, lambda n, *args: f"{n % 9}"]
KEYS = [lambda n, x: n % 3, lambda n, x: f"k{n % 3}", lambda n, x: None, lambda n, x: (n % 2,)]
ZEROS = [0, "", None, [], {"a": [1]}, 7, [3]]

KINDS = (
    ["map", "filter", "foreach", "flatmap"] * 4
    + ["accumulate", "localgroupby", "groupby", "batchgroupby", "repartition", "collect", "limit", "aggregate"]
    + ["aggregateby", "localaggregateby", "count", "countby", "countwords", "avg", "avgdefault", "sort", "distinct"]
)


def random_steps(seed):
    rng = random.Random(seed)
    fails = rng.random() < 0.5
    steps = []
    for index in range(rng.randint(0, 6)):
        kind = rng.choice(KINDS)

        def callback(choices, index=index):
            return Callback(rng.randrange(1 << 30), choices, fails)

        if kind in ("map",):
            args = (callback(MAPPED),)
        elif kind in ("filter", "foreach"):
            args = (callback([lambda n, x: n % 3]),)
        elif kind == "flatmap":
            args = (callback(FLAT), rng.random() < 0.3)
        elif kind == "accumulate":
            args = (callback(ACC),)
        elif kind in ("localgroupby", "groupby", "batchgroupby"):
            args = (callback(KEYS), callback(ACC))
        elif kind in ("repartition", "countby"):
            args = (callback(KEYS),)
        elif kind == "limit":
            args = (rng.randint(0, 5), rng.randint(0, 3))
        elif kind == "aggregate":
            args = (rng.choice(ZEROS), callback(ACC), callback(ACC))
        elif kind == "aggregateby":
            args = (callback(KEYS), rng.choice(ZEROS), callback(ACC), callback(ACC))
        elif kind == "localaggregateby":
            args = (callback(KEYS), rng.choice(ZEROS), callback(ACC))
        elif kind == "avg":
            args = (callback([lambda n, x: n % 5, lambda n, x: n / 3]),)
        elif kind == "sort":
            args = (rng.random() < 0.5,)
        else:
            args = ()
        steps.append((kind, args))
    return steps


def counting_steps(seed):
    """A plan that begins with steps that need no user code."""
    front = [("collect", ())] if random.Random(seed).random() < 0.3 else []
    return [*front, ("count", ()), *random_steps(seed)]


def random_records(seed):
    rng = random.Random(seed)
    return [rng.choice([rng.randint(0, 9), f"w{rng.randint(0, 5)}", "a b c"]) for _ in range(rng.randint(0, 25))]


def build(builder, steps):
    """The same plan, for the executor."""
    names = {"countwords": "countby", "avgdefault": "avg", "localaggregateby": "__localAggregateby__"}
    for kind, args in steps:
        if kind == "flatmap":
            builder.flatmap(args[0], inOrder=args[1])
        else:
            getattr(builder, names.get(kind, kind))(*args)
    return builder


def interpret(steps, records):
    """Run a plan naively; returns its results, its errors and the calls of its callbacks."""
    errors = []

    def reader():
        for record in records:
            if errors:
                return
            yield record

    def attempt(function, *args):
        try:
            return function(*args)
        except Exception as error:
            errors.append(str(error))
            return UNSET

    def mapped(up, f):
        for record in up:
            made = attempt(f, record)
            if made is not UNSET:
                yield made

    def filtered(up, f):
        for record in up:
            keep = attempt(f, record)
            if keep is not UNSET and keep:
                yield record

    def passed(up, f):
        for record in up:
            if attempt(f, record) is not UNSET:
                yield record

    def flat(up, f, in_order=False):
        for record in mapped(up, f):
            if type(record) is list:
                yield from record if in_order else reversed(record)
            else:
                yield record

    def limited(up, length, offset):
        if length == 0:
            return
        for number, record in enumerate(up):
            if number >= offset:
                yield record
            if number + 1 >= offset + length:
                return

    def folded(up, zero, f):
        acc = UNSET
        for record in up:
            if zero is UNSET:
                acc = None if acc is UNSET else acc
            elif acc is UNSET:
                acc = copy.deepcopy(zero)
            acc = attempt(f, acc, record)
        if acc is not UNSET:
            yield acc

    def keyed(up, extractor, zero, f, value=lambda record: record):
        accs = {}
        for record in up:
            key = attempt(extractor, record)
            if key is UNSET:
                continue
            key = text(key)
            acc = accs.get(key, UNSET)
            if zero is UNSET:
                acc = None if acc is UNSET else acc
            elif acc is UNSET:
                acc = copy.deepcopy(zero)
            acc = attempt(f, key, acc, value(record))
            if acc is UNSET:
                accs.pop(key, None)
            else:
                accs[key] = acc
        for key, acc in accs.items():
            yield {"key": key, "value": acc}

    def batched(up, extractor, f):
        groups = {}
        for record in up:
            key = attempt(extractor, record)
            if key is not UNSET:
                groups.setdefault(text(key), []).append(record)
        for key, group in groups.items():
            made = attempt(f, key, group)
            if made is not UNSET:
                yield {"key": key, "value": made}

    def ordered(up, reverse):
        items = list(up)
        if items and attempt(lambda: items.sort(reverse=reverse)) is not UNSET:
            yield from reversed(items)

    def distinct(up):
        seen = UNSET

        def add(record):
            nonlocal seen
            grown, seen = (set() if seen is UNSET else seen), UNSET
            grown.add(record)
            seen = grown

        for record in up:
            attempt(add, record)
        if seen is not UNSET:
            yield from reversed(list(seen))

    def average(up, extractor):
        total = UNSET

        def add(record):
            nonlocal total
            (summed, number), total = ((0, 0) if total is UNSET else total), UNSET
            total = (summed + extractor(record), number + 1)

        for record in up:
            attempt(add, record)
        if total is not UNSET:
            yield total[0] / total[1]

    def counted(up):
        number = sum(1 for _ in up)
        if number:
            yield number

    stream = reader()
    for kind, args in steps:
        if kind == "map":
            stream = mapped(stream, *args)
        elif kind == "filter":
            stream = filtered(stream, *args)
        elif kind in ("foreach", "repartition"):
            stream = passed(stream, *args)
        elif kind == "flatmap":
            stream = flat(stream, *args)
        elif kind == "accumulate":
            stream = folded(stream, UNSET, *args)
        elif kind == "aggregate":
            zero, seq, comb = args
            stream = folded(folded(stream, zero, seq), zero, comb)
        elif kind in ("localgroupby", "groupby"):
            stream = keyed(stream, args[0], UNSET, args[1])
        elif kind == "localaggregateby":
            stream = keyed(stream, *args)
        elif kind == "aggregateby":
            extractor, zero, seq, comb = args
            partial = keyed(stream, extractor, zero, seq)
            stream = keyed(partial, lambda r: r["key"], zero, comb, value=lambda r: r["value"])
        elif kind == "batchgroupby":
            stream = batched(stream, *args)
        elif kind == "limit":
            stream = limited(stream, *args)
        elif kind == "count":
            stream = counted(stream)
        elif kind in ("countby", "countwords"):
            extractor = args[0] if args else (lambda record: record)
            stream = keyed(stream, extractor, 0, lambda key, acc, record: acc + 1)
        elif kind in ("avg", "avgdefault"):
            stream = average(stream, args[0] if args else float)
        elif kind == "sort":
            stream = ordered(stream, *args)
        elif kind == "distinct":
            stream = distinct(stream)
        else:
            assert kind == "collect", kind
    LOG.clear()
    return list(stream), errors, list(LOG)
