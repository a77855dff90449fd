# ruff: noqa: N803, N815 - magic methods; names as users of the original know them
"""Operations: the steps that gear functions are made of, as inert data with names and arguments.

Each can apply itself to a builder with the server's methods; none needs a server or another package.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

from . import utils
from .plan.options import READER_OPTIONS

__all__ = [
    "OPERATIONS",
    "Accumulate",
    "Aggregate",
    "AggregateBy",
    "Avg",
    "BatchGroupBy",
    "Collect",
    "Count",
    "CountBy",
    "Distinct",
    "Filter",
    "FlatMap",
    "ForEach",
    "GroupBy",
    "Limit",
    "LocalGroupBy",
    "Map",
    "Operation",
    "Reader",
    "Recipe",
    "Register",
    "Repartition",
    "Run",
    "Sort",
]

# --------------------------------------------------------------------------------------------------------------
# Callbacks
# --------------------------------------------------------------------------------------------------------------


class Recipe:
    """A callback described by plain data and built where it runs, so that no code has to be pickled."""

    def build(self) -> Callable[..., Any]:
        """The plain function."""
        return self._function()

    def _function(self) -> Callable[..., Any]:
        raise NotImplementedError


def _plain(op: Any) -> Callable[..., Any]:
    """The callback for the server's builder: callables are passed unchanged."""
    if isinstance(op, Recipe):
        return op.build()
    return op if callable(op) else utils.passfun(op)


def _name_of(value: Any) -> str:
    """Short text of a callback or another argument."""
    if isinstance(value, type) or (callable(value) and not isinstance(value, Recipe)):
        return str(getattr(value, "__name__", None) or repr(value))
    return repr(value)


def _append(acc: Any, record: Any) -> Any:
    """Collect records in a list."""
    acc = [] if acc is None else acc
    acc.append(record)
    return acc


def _append_by_key(_key: Any, acc: Any, record: Any) -> Any:
    return _append(acc, record)


def _concatenate(acc: Any, other: Any) -> Any:
    """Join the lists of two shards."""
    return (acc or []) + (other or [])


def _concatenate_by_key(_key: Any, acc: Any, other: Any) -> Any:
    return _concatenate(acc, other)


def _length_by_key(_key: Any, records: Any) -> int:
    return len(records)


#: Default callbacks of RedGrease 0.3 by their names in its module ``gears``, by which its pickles refer to them.
FORMER_DEFAULTS: dict[str, Callable[..., Any]] = {
    "_default_accumulator": _append,
    "_default_reducer": _append_by_key,
    "_default_batch_reducer": _length_by_key,
    "_default_extractor": utils.safe_str,
}

# --------------------------------------------------------------------------------------------------------------
# Operations
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One step of a gear function: its name and arguments, inert."""

    def add_to(self, function: Any) -> Any:
        """Apply this operation to a builder, and return what the builder returns."""
        return self._apply(function)

    def _apply(self, function: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} cannot be applied to a builder")

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore the attributes; a pickle of RedGrease 0.3 also has the keywords of each method."""
        values = dict(state)
        if "kwargs" not in {field.name for field in dataclasses.fields(self)}:
            for name in values.pop("kwargs", ()):
                raise TypeError(f"{type(self).__name__.lower()}() got an unexpected keyword argument {name!r}")
        _set(self, **values)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({', '.join(self._shown())})"

    def _shown(self) -> Iterator[str]:
        skipped = False
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            default = field.default
            if value is default or (value == default and type(value) is type(default)):
                skipped = True
            else:
                yield f"{field.name}={_name_of(value)}" if skipped else _name_of(value)


@dataclass(frozen=True, repr=False)
class Reader(Operation):
    """Reads records: the first step.

    Args:
        reader: name of the reader.
        defaultArg: its argument if ``run`` has none.
        desc: text shown in the list of registrations.
    """

    reader: str = "KeysReader"
    defaultArg: Any = "*"
    desc: str | None = None

    def _apply(self, function: Any) -> Any:
        return function(self.reader, self.defaultArg, self.desc)

    def __repr__(self) -> str:
        shown = [] if self.defaultArg in ("*", None) else [repr(self.defaultArg)]
        shown += [] if self.desc is None else [f"desc={self.desc!r}"]
        return f"{self.reader}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Map(Operation):
    """Transforms each record: ``op(record) -> record``."""

    op: Any

    def _apply(self, function: Any) -> Any:
        return function.map(_plain(self.op))


@dataclass(frozen=True, repr=False)
class FlatMap(Operation):
    """Transforms each record into a list: ``op(record) -> list``, last element first unless `in_order`."""

    op: Any = None
    in_order: bool = False

    def _apply(self, function: Any) -> Any:
        # Builders without this option are called without it.
        options = {"inOrder": True} if self.in_order else {}
        return function.flatmap(_plain(self.op), **options)


@dataclass(frozen=True, repr=False)
class ForEach(Operation):
    """Runs a side effect for each record: ``op(record)``; the record is passed on."""

    op: Any

    def _apply(self, function: Any) -> Any:
        return function.foreach(_plain(self.op))


@dataclass(frozen=True, repr=False)
class Filter(Operation):
    """Keeps records for which ``op(record)`` is true."""

    op: Any = None

    def _apply(self, function: Any) -> Any:
        return function.filter(_plain(self.op))


@dataclass(frozen=True, repr=False)
class Accumulate(Operation):
    """Combines the records of a shard: ``op(acc, record) -> acc``."""

    op: Any = None

    def _apply(self, function: Any) -> Any:
        return function.accumulate(_append if self.op is None else _plain(self.op))


@dataclass(frozen=True, repr=False)
class LocalGroupBy(Operation):
    """One record for each key of a shard: ``reducer(key, acc, record) -> acc``."""

    extractor: Any = None
    reducer: Any = None

    def _apply(self, function: Any) -> Any:
        return function.localgroupby(_extractor(self.extractor), _reducer(self.reducer))


@dataclass(frozen=True, repr=False)
class Limit(Operation):
    """Keeps at most `length` records of each shard, from number `start` on."""

    length: int
    start: int = 0

    def __post_init__(self) -> None:
        for name, value in (("length", self.length), ("start", self.start)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} of limit must be a whole number from 0, got {value!r}")

    def _apply(self, function: Any) -> Any:
        return function.limit(self.length, self.start)


@dataclass(frozen=True, repr=False)
class Collect(Operation):
    """Moves all records to the shard where the execution began."""

    def _apply(self, function: Any) -> Any:
        return function.collect()


@dataclass(frozen=True, repr=False)
class Repartition(Operation):
    """Moves each record to the shard that owns the slot of ``extractor(record)``."""

    extractor: Any = None

    def _apply(self, function: Any) -> Any:
        return function.repartition(_extractor(self.extractor))


@dataclass(frozen=True, repr=False)
class Aggregate(Operation):
    """Combines all records: ``seqOp(acc, record)`` on each shard, ``combOp(acc, shard_acc)`` over shards."""

    zero: Any = None
    seqOp: Any = None
    combOp: Any = None

    def _apply(self, function: Any) -> Any:
        zero = [] if self.zero is None else self.zero
        seq, comb = aggregation(zero, self.seqOp, self.combOp)
        return function.aggregate(copy.deepcopy(zero), _plain(seq), _plain(comb))


@dataclass(frozen=True, repr=False)
class AggregateBy(Operation):
    """One record per key: ``seqOp(key, acc, record)`` on each shard, ``combOp(key, acc, shard_acc)`` over shards."""

    extractor: Any = None
    zero: Any = None
    seqOp: Any = None
    combOp: Any = None

    def _apply(self, function: Any) -> Any:
        zero = [] if self.zero is None else self.zero
        seq, comb = aggregation(zero, self.seqOp, self.combOp)
        if self.seqOp is None:
            seq = _BY_KEY[seq]
        if self.combOp is None:
            comb = _BY_KEY.get(comb, comb)
        return function.aggregateby(_extractor(self.extractor), copy.deepcopy(zero), _plain(seq), _plain(comb))


@dataclass(frozen=True, repr=False)
class GroupBy(Operation):
    """One record for each key: ``reducer(key, acc, record) -> acc``."""

    extractor: Any = None
    reducer: Any = None

    def _apply(self, function: Any) -> Any:
        return function.groupby(_extractor(self.extractor), _reducer(self.reducer))


@dataclass(frozen=True, repr=False)
class BatchGroupBy(Operation):
    """One record for each key: ``reducer(key, records) -> record``."""

    extractor: Any = None
    reducer: Any = None

    def _apply(self, function: Any) -> Any:
        reducer = _length_by_key if self.reducer is None else _plain(self.reducer)
        return function.batchgroupby(_extractor(self.extractor), reducer)


@dataclass(frozen=True, repr=False)
class Sort(Operation):
    """Sorts all records (ascending by default; see `OpenGearFunction.sort`)."""

    reverse: bool = True

    def _apply(self, function: Any) -> Any:
        return function.sort(self.reverse)


@dataclass(frozen=True, repr=False)
class Distinct(Operation):
    """Keeps each distinct record once."""

    def _apply(self, function: Any) -> Any:
        return function.distinct()


@dataclass(frozen=True, repr=False)
class Nop(Operation):
    """Does nothing. Kept for programs that import it."""

    def _apply(self, function: Any) -> Any:
        return function


@dataclass(frozen=True, repr=False)
class Count(Operation):
    """The number of records."""

    def _apply(self, function: Any) -> Any:
        return function.count()


@dataclass(frozen=True, repr=False)
class CountBy(Operation):
    """The number of records for each key."""

    extractor: Any = None

    def _apply(self, function: Any) -> Any:
        return function.countby() if self.extractor is None else function.countby(_plain(self.extractor))


@dataclass(frozen=True, repr=False)
class Avg(Operation):
    """The arithmetic mean of ``extractor(record)``."""

    extractor: Any = None

    def _apply(self, function: Any) -> Any:
        return function.avg() if self.extractor is None else function.avg(_plain(self.extractor))


def _text(record: Any) -> str:
    """The default key: the same on every shard, and different for different bytes."""
    return str(record)


def _extractor(extractor: Any) -> Callable[..., Any]:
    return _text if extractor is None else _plain(extractor)


def _reducer(reducer: Any) -> Callable[..., Any]:
    return _append_by_key if reducer is None else _plain(reducer)


def _add_by_key(_key: Any, acc: Any, record: Any) -> Any:
    return acc + record


#: The default steps of `Aggregate` as steps of `AggregateBy`, which also take the key.
_BY_KEY: dict[Any, Any] = {_append: _append_by_key, _concatenate: _concatenate_by_key, operator.add: _add_by_key}


def aggregation(zero: Any, seq: Any, comb: Any) -> tuple[Any, Any]:
    """Both steps of an aggregation; defaults follow from the other step or from the type of `zero`."""
    is_list = isinstance(zero, list)
    if seq is None:
        if is_list:
            seq = _append
        elif isinstance(zero, (int, float, complex)):
            seq = operator.add
        else:
            raise ValueError(
                f"aggregating into a {type(zero).__name__} needs a seqOp: only numbers (added) and lists "
                "(appended to) have a default"
            )
        if comb is None:
            comb = _concatenate if is_list else operator.add
    elif comb is None:
        comb = _concatenate if is_list else seq
    return seq, comb


# --------------------------------------------------------------------------------------------------------------
# Actions
# --------------------------------------------------------------------------------------------------------------

#: Keywords of `run` and `register` about the session, for `redgrease.Gears.pyexecute`.
EXECUTE_OPTIONS = (
    "unblocking",
    "enforce_redgrease",
    "id",
    "description",
    "upgrade",
    "replace_with",
    "force_reinstall_requirements",
)
#: Arguments of the methods themselves, to complete the list of what is accepted.
_METHOD_ARGUMENTS = {
    "run": ("arg", "convertToStr", "collect", "requirements", "on", "progress"),
    "register": ("prefix", "convertToStr", "collect", "requirements", "on", "replace"),
}
#: All values of options that are one of a few words.
MODES = {"run": ("async", "async_local"), "register": ("async", "async_local", "sync")}
_CHOICES = {
    "onFailedPolicy": ("continue", "abort", "retry"),
    "keyTypes": ("string", "hash", "list", "set", "zset", "stream", "module", "empty"),
}


class _Action(Operation):
    """The last step: runs or registers a function."""

    def act(self, function: Any, reply: str) -> Any:
        """Call the builder's method.

        Args:
            function: the builder.
            reply: how results look to a client that has not announced the codec: ``"plain"`` values, or ``"objects"``:
                pickles if such a client sent the script, as those of RedGrease 0.3 do, and plain values otherwise.
        """
        raise NotImplementedError

    def _apply(self, function: Any) -> Any:
        return self.act(function, "plain")


@dataclass(frozen=True, repr=False, init=False)
class Run(_Action):
    """Closes a function for a single run.

    Args:
        arg: replaces the default argument of the reader.
        convertToStr: whether results are converted to text.
        collect: whether to return the results of all shards, or only those of the shard that received the command.
        kwargs: further keywords of the server's ``run``: noScan, readValue, count, fromId, pattern, patternGenerator,
            mode.
    """

    arg: Any
    convertToStr: bool
    collect: bool
    kwargs: Mapping[str, Any]

    def __init__(self, arg: Any = None, convertToStr: bool = True, collect: bool = True, **kwargs: Any) -> None:
        _set(self, arg=arg, convertToStr=convertToStr, collect=collect, kwargs=kwargs)

    def act(self, function: Any, reply: str) -> Any:  # noqa: D102 - see the base
        positional = () if self.arg is None else (self.arg,)
        return function.run(
            *positional, convertToStr=self.convertToStr, collect=self.collect, reply=reply, **self.kwargs
        )

    def __repr__(self) -> str:
        shown = [] if self.arg is None else [_name_of(self.arg)]
        shown += ["convertToStr=True"] if self.convertToStr else []
        shown += [] if self.collect else ["collect=False"]
        return f"run({', '.join(shown + _keywords(self.kwargs))})"


@dataclass(frozen=True, repr=False, init=False)
class Register(_Action):
    """Closes a function that runs for events.

    Args:
        prefix: name of a key or stream, or a glob pattern.
        convertToStr: whether results are converted to text.
        collect: whether to return the results of all shards, or only those of the shard that received the command.
        mode: see `redgrease.TriggerMode`.
        onRegistered: called once on every shard when the function is registered.
        kwargs: further keywords of the server's ``register``.
    """

    prefix: str
    convertToStr: bool
    collect: bool
    mode: str | None
    onRegistered: Any
    kwargs: Mapping[str, Any]

    def __init__(
        self,
        prefix: str = "*",
        convertToStr: bool = True,
        collect: bool = True,
        mode: str | None = "async",
        onRegistered: Any = None,
        **kwargs: Any,
    ) -> None:
        _set(
            self,
            prefix=prefix,
            convertToStr=convertToStr,
            collect=collect,
            mode=mode,
            onRegistered=onRegistered,
            kwargs=kwargs,
        )

    def act(self, function: Any, reply: str) -> Any:  # noqa: D102 - see the base
        given = dict(self.kwargs)
        if self.mode is not None:
            given["mode"] = self.mode
        if self.onRegistered is not None:
            given["onRegistered"] = utils.passfun(self.onRegistered)
        if "trigger" not in given and "hook" not in given:
            given["prefix"] = self.prefix
        return function.register(convertToStr=self.convertToStr, collect=self.collect, reply=reply, **given)

    def __repr__(self) -> str:
        shown = [] if self.prefix == "*" else [repr(self.prefix)]
        shown += ["convertToStr=True"] if self.convertToStr else []
        shown += [] if self.collect else ["collect=False"]
        shown += [] if self.mode is None else [f"mode={self.mode!r}"]
        shown += [] if self.onRegistered is None else [f"onRegistered={_name_of(self.onRegistered)}"]
        return f"register({', '.join(shown + _keywords(self.kwargs))})"


def _set(item: Operation, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(item, name, value)


def _keywords(kwargs: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_name_of(value)}" for name, value in kwargs.items()]


def unsupported_mode(action: str, reader: str | None) -> TypeError:
    """The error for a reader without batch mode (``run``) or event mode (``register``)."""
    mode, other = ("Batch", "register") if action == "run" else ("Event", "run")
    readers = READER_OPTIONS[action][1]
    hint = f"close it with {other}" if reader in READER_OPTIONS[other][1] else "there is no such reader"
    return TypeError(f"{mode} mode ({action}) is not supported for '{reader}': {hint}; {action} has {_list(readers)}")


def check_reader_options(action: str, reader: str | None, given: Mapping[str, Any]) -> None:
    """Refuse keywords that the action of a reader does not have, and name those that it has.

    Args:
        action: ``"run"`` or ``"register"``.
        reader: name of the reader.
        given: keywords and values. Keywords of other readers are accepted with the value `None`.

    Raises:
        TypeError: a keyword is unknown, or belongs to another reader.
        ValueError: a value is none of the few that an option has.
    """
    common, of_readers = READER_OPTIONS[action]
    known = (*of_readers.get(reader or "", ()), *common, *_METHOD_ARGUMENTS[action])
    for name, value in given.items():
        owners = [owner for owner, names in of_readers.items() if name in names]
        if name in known or (owners and value is None):
            continue
        folded = {each.lower(): each for each in known}
        near = difflib.get_close_matches(name.lower().replace("_", ""), folded, 1)
        hint = f": did you mean {folded[near[0]]!r}?" if near else ""
        hint = f", an option of {_list(owners)}" if owners else hint
        raise TypeError(
            f"{action}() of a {reader} got an unexpected keyword argument {name!r}{hint} (it has {_list(known)})"
        )
    for name, choices in {**_CHOICES, "mode": MODES[action]}.items():
        values = given.get(name)
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, str) and (value if name == "mode" else value.lower()) not in choices:
                raise ValueError(f"{name} must be {_list(map(repr, choices), 'or')}, got {value!r}")


def _list(names: Iterable[str], conjunction: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last


#: All operations by name, as used in descriptions of functions.
OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind
    for kind in (
        Reader,
        Map,
        FlatMap,
        ForEach,
        Filter,
        Accumulate,
        LocalGroupBy,
        Limit,
        Collect,
        Repartition,
        Aggregate,
        AggregateBy,
        GroupBy,
        BatchGroupBy,
        Sort,
        Distinct,
        Count,
        CountBy,
        Avg,
        Run,
        Register,
    )
}
