"""What every operation means, in plain Python, written from the description of the operations alone.

It imports nothing of the package: `test_model` compares it with a server and with `redgrease.testing.run_local`. A
stream of records is a generator, and each operation makes another one from it. Names, arguments and defaults are those
of the methods of gear functions.
"""
# ruff: noqa: N803

from __future__ import annotations

import copy
import operator
import pickle
from typing import Any

#: No accumulator.
NOTHING = object()


def run(steps: list[tuple[str, tuple, dict]], records: list) -> tuple[list, list[str]]:
    """Results, as they are when they leave the last step, and the types of the errors."""
    model = Model()
    stream = model.read(records)
    for name, args, options in steps:
        stream = getattr(model, name)(stream, *args, **options)
    return [copy.deepcopy(record) for record in stream], model.errors


def function(op: Any) -> Any:
    """A callback: `None` is the identity, and another value that cannot be called is the result itself."""
    if op is None:
        return lambda record: record
    return op if callable(op) else lambda *_: op


def appended(acc: Any, record: Any) -> list:
    return [*(acc or []), record]


def appended_to_key(_key: str, acc: Any, record: Any) -> list:
    return appended(acc, record)


class Model:
    def __init__(self) -> None:
        self.errors: list[str] = []

    def attempt(self, op: Any, *args: Any) -> Any:
        """A record of which a callback fails is lost, and an error instead."""
        try:
            return op(*args)
        except Exception as error:
            self.errors.append(type(error).__name__)
            return NOTHING

    def read(self, records: list) -> Any:
        """The reader stops as soon as there is an error; what is inside goes on."""
        for record in records:
            if self.errors:
                return
            yield pickle.loads(pickle.dumps(record))

    # -- one record at a time

    def map(self, stream: Any, op: Any) -> Any:
        for record in stream:
            made = self.attempt(function(op), record)
            if made is not NOTHING:
                yield made

    def flatmap(self, stream: Any, op: Any = None, inOrder: bool = False) -> Any:
        for made in self.map(stream, op):
            if type(made) is not list:
                yield made
            else:
                yield from list(made) if inOrder else list(made)[::-1]

    def foreach(self, stream: Any, op: Any) -> Any:
        for record in stream:
            if self.attempt(function(op), record) is not NOTHING:
                yield record

    def filter(self, stream: Any, op: Any = None) -> Any:
        for record in stream:
            kept = self.attempt(function(op), record)
            if kept is not NOTHING and kept:
                yield record

    def limit(self, stream: Any, length: int, start: int = 0) -> Any:
        if length == 0:
            return
        for number, record in enumerate(stream):
            if number >= start:
                yield record
            if number == start + length - 1:
                return

    def collect(self, stream: Any) -> Any:
        return stream

    def repartition(self, stream: Any, extractor: Any) -> Any:
        return self.foreach(stream, lambda record: self.key(extractor, record))

    # -- all records

    def accumulate(self, stream: Any, op: Any = None, zero: Any = None) -> Any:
        acc = NOTHING
        for record in stream:
            first = copy.deepcopy(zero) if acc is NOTHING else acc
            acc = self.attempt(appended if op is None else op, first, record)
        if acc is not NOTHING:
            yield acc

    def aggregate(self, stream: Any, zero: Any = None, seqOp: Any = None, combOp: Any = None) -> Any:
        zero = [] if zero is None else zero
        of_lists = isinstance(zero, list)
        seq = seqOp or (appended if of_lists else operator.add)
        comb = combOp or (operator.add if of_lists else seq)
        return self.accumulate(self.accumulate(stream, seq, zero), comb, zero)

    def count(self, stream: Any) -> Any:
        number = sum(1 for _ in stream)
        if number:
            yield number

    def avg(self, stream: Any, extractor: Any = float) -> Any:
        sums = self.accumulate(stream, lambda acc, record: (acc[0] + extractor(record), acc[1] + 1), (0, 0))
        return self.map(sums, lambda pair: pair[0] / pair[1])

    def distinct(self, stream: Any) -> Any:
        sets = self.accumulate(stream, lambda acc, record: acc.add(record) or acc, set())
        for found in sets:
            yield from found

    def sort(self, stream: Any, reverse: bool = True) -> Any:
        """Emitted last one first: ascending by default."""
        for records in self.accumulate(stream):
            ordered = self.attempt(lambda items: sorted(items, reverse=reverse), records)
            if ordered is not NOTHING:
                yield from reversed(ordered)

    # -- by key

    def key(self, extractor: Any, record: Any) -> str:
        """A key that is no text becomes its `repr`; the default is the text of the record."""
        made = str(record) if extractor is None else function(extractor)(record)
        return made if isinstance(made, str) else repr(made)

    def localgroupby(self, stream: Any, extractor: Any = None, reducer: Any = None, zero: Any = None) -> Any:
        accs: dict[str, Any] = {}
        for record in stream:
            key = self.attempt(self.key, extractor, record)
            if key is not NOTHING:
                acc = accs[key] if key in accs else copy.deepcopy(zero)
                accs[key] = self.attempt(reducer or appended_to_key, key, acc, record)
                if accs[key] is NOTHING:
                    del accs[key]
        yield from ({"key": key, "value": acc} for key, acc in accs.items())

    groupby = localgroupby

    def aggregateby(
        self,
        stream: Any,
        extractor: Any = None,
        zero: Any = None,
        seqOp: Any = None,
        combOp: Any = None,
    ) -> Any:
        zero = [] if zero is None else zero
        of_lists = isinstance(zero, list)
        seq = seqOp or (appended_to_key if of_lists else lambda _, acc, record: acc + record)
        comb = combOp or ((lambda _, acc, part: acc + part) if of_lists or seqOp is None else seq)
        parts = self.localgroupby(stream, extractor, seq, zero)
        merge = lambda key, acc, part: comb(key, acc, part["value"])  # noqa: E731
        return self.localgroupby(parts, lambda part: part["key"], merge, zero)

    def batchgroupby(self, stream: Any, extractor: Any = None, reducer: Any = None) -> Any:
        for group in self.localgroupby(stream, extractor):
            made = self.attempt(reducer or (lambda _, records: len(records)), group["key"], group["value"])
            if made is not NOTHING:
                yield {"key": group["key"], "value": made}

    def countby(self, stream: Any, extractor: Any = None) -> Any:
        return self.localgroupby(stream, extractor, lambda _, number, __: number + 1, 0)
