# ruff: noqa: N803 - the server's own names
"""A builder with the methods of the server's own, that records its calls and can execute them on a list."""

from __future__ import annotations

import copy
import inspect
from typing import ClassVar


class FakeBuilder:
    """Records calls. Its methods have the server's signatures: positional only, where the server's are."""

    made: ClassVar[list[FakeBuilder]] = []

    def __init__(self, reader="KeysReader", defaultArg="*", desc=None):
        self.reader, self.default, self.desc = reader, defaultArg, desc
        self.calls = []
        FakeBuilder.made.append(self)

    def _note(self, name, *args):
        for arg in args:
            assert not inspect.ismodule(arg)
        self.calls.append((name, *args))
        return self

    def map(self, op):
        return self._note("map", op)

    def flatmap(self, op, inOrder=False):
        return self._note("flatmap", op)

    def foreach(self, op):
        return self._note("foreach", op)

    def filter(self, op):
        return self._note("filter", op)

    def accumulate(self, op):
        return self._note("accumulate", op)

    def localgroupby(self, extractor, reducer):
        return self._note("localgroupby", extractor, reducer)

    def groupby(self, extractor, reducer):
        return self._note("groupby", extractor, reducer)

    def batchgroupby(self, extractor, reducer):
        return self._note("batchgroupby", extractor, reducer)

    def repartition(self, extractor):
        return self._note("repartition", extractor)

    def collect(self):
        return self._note("collect")

    def limit(self, length, start=0):
        return self._note("limit", length, start)

    def aggregate(self, zero, seq, comb):
        return self._note("aggregate", zero, seq, comb)

    def aggregateby(self, extractor, zero, seq, comb):
        return self._note("aggregateby", extractor, zero, seq, comb)

    def sort(self, reverse=True):
        return self._note("sort", reverse)

    def distinct(self):
        return self._note("distinct")

    def count(self):
        return self._note("count")

    def countby(self, extractor=lambda record: record):
        return self._note("countby", extractor)

    def avg(self, extractor=float):
        return self._note("avg", extractor)

    def run(self, arg=None, convertToStr=True, collect=True, **options):
        self.action = ("run", {"arg": arg, "convertToStr": convertToStr, "collect": collect, **options})
        return self

    def register(self, prefix="*", convertToStr=True, collect=True, **options):
        self.action = ("register", {"prefix": prefix, "convertToStr": convertToStr, "collect": collect, **options})
        return self

    def on(self, *shards):
        """The results of the function for these records, given as one list per shard."""
        parts = [list(shard) for shard in shards]
        for name, *args in self.calls:
            parts = getattr(Shards, name)(parts, *args)
        return [record for part in parts for record in part]


def text(key):
    return key if isinstance(key, str) else repr(key)


class Shards:
    """Naive operations on lists of records, one list per shard, with the quirks of the original."""

    @staticmethod
    def map(parts, op):
        return [[op(record) for record in part] for part in parts]

    @staticmethod
    def filter(parts, op):
        return [[record for record in part if op(record)] for part in parts]

    @staticmethod
    def foreach(parts, op):
        return [[(op(record), record)[1] for record in part] for part in parts]

    @staticmethod
    def flatmap(parts, op):
        def expand(record):
            value = op(record)
            return value[::-1] if type(value) is list else [value]

        return [[item for record in part for item in expand(record)] for part in parts]

    @staticmethod
    def accumulate(parts, op):
        return [Shards._fold(part, None, op) for part in parts]

    @staticmethod
    def _fold(part, zero, op):
        acc = copy.deepcopy(zero)
        for record in part:
            acc = op(acc, record)
        return [acc] if part else []

    @staticmethod
    def localgroupby(parts, extractor, reducer):
        return [Shards._group(part, extractor, None, reducer) for part in parts]

    @staticmethod
    def _group(part, extractor, zero, reducer):
        groups = {}
        for record in part:
            key = text(extractor(record))
            groups[key] = reducer(key, groups.get(key, copy.deepcopy(zero)), record)
        return [{"key": key, "value": acc} for key, acc in groups.items()]

    @staticmethod
    def collect(parts):
        return [[record for part in parts for record in part]]

    @staticmethod
    def repartition(parts, extractor):
        [text(extractor(record)) for part in parts for record in part]
        return parts

    @staticmethod
    def groupby(parts, extractor, reducer):
        return [Shards._group(Shards.collect(parts)[0], extractor, None, reducer)]

    @staticmethod
    def batchgroupby(parts, extractor, reducer):
        groups = {}
        for record in Shards.collect(parts)[0]:
            groups.setdefault(text(extractor(record)), []).append(record)
        return [[{"key": key, "value": reducer(key, records)} for key, records in groups.items()]]

    @staticmethod
    def limit(parts, length, start):
        return [part[start : start + length] for part in parts]

    @staticmethod
    def aggregate(parts, zero, seq, comb):
        local = [Shards._fold(part, zero, seq) for part in parts]
        return [Shards._fold(Shards.collect(local)[0], zero, comb)]

    @staticmethod
    def aggregateby(parts, extractor, zero, seq, comb):
        local = [Shards._group(part, extractor, zero, seq) for part in parts]
        groups = {}
        for entry in Shards.collect(local)[0]:
            key = entry["key"]
            groups[key] = comb(key, groups.get(key, copy.deepcopy(zero)), entry["value"])
        return [[{"key": key, "value": acc} for key, acc in groups.items()]]

    @staticmethod
    def sort(parts, reverse):
        return [sorted(Shards.collect(parts)[0], reverse=reverse)[::-1]]

    @staticmethod
    def distinct(parts):
        return [list(set(Shards.collect(parts)[0]))]

    @staticmethod
    def count(parts):
        number = len(Shards.collect(parts)[0])
        return [[number] if number else []]

    @staticmethod
    def countby(parts, extractor):
        return Shards.aggregateby(parts, extractor, 0, lambda k, a, r: a + 1, lambda k, a, n: a + n)

    @staticmethod
    def avg(parts, extractor):
        numbers = [extractor(record) for record in Shards.collect(parts)[0]]
        return [[sum(numbers) / len(numbers)] if numbers else []]
