# ruff: noqa: N803 - magic methods; names as users of the original know them
"""Gear functions: chains of operations. Needs no other package, no server and no connection.

A gear function is a chain: a reader makes records, operations change them, an action (`run` or `register`) closes
the chain. Functions are immutable: each operation returns a new function, and the old one can be reused.

>>> from redgrease import KeysReader
>>> ages = KeysReader("person:*").values(type="hash").map(lambda person: int(person["age"]))
>>> oldest, average = ages.aggregate(0, max), ages.avg()
>>> oldest.run()
KeysReader('person:*').filter(Matching(type='hash')).map(value_of).map(<lambda>).aggregate(0, max).run()
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar, overload

from .operations import (
    EXECUTE_OPTIONS,
    OPERATIONS,
    Accumulate,
    Aggregate,
    AggregateBy,
    Avg,
    BatchGroupBy,
    Collect,
    Count,
    CountBy,
    Distinct,
    Filter,
    FlatMap,
    ForEach,
    GroupBy,
    Limit,
    LocalGroupBy,
    Map,
    Operation,
    Reader,
    Recipe,
    Register,
    Repartition,
    Run,
    Sort,
    aggregation,
    check_reader_options,
    unsupported_mode,
)
from .sources import readable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from typing import Optional

    from .data import ExecutionResult
    from .requirements import PackageOption
    from .typing import AsyncServer, Grouped, Server

    _Packages = Optional[Iterable[Any]]

T = TypeVar("T")
_Out = TypeVar("_Out", covariant=True)
_New = TypeVar("_New")

if TYPE_CHECKING:

    class Awaited(Generic[_Out]):
        """Type of what a client with coroutines executes: it is awaited, and a command may be called."""

        def __await__(self) -> Generator[Any, Any, ExecutionResult[_Out]]: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, ExecutionResult[_Out]]: ...


__all__ = [
    "Accumulate",
    "Aggregate",
    "AggregateBy",
    "Avg",
    "BatchGroupBy",
    "ClosedGearFunction",
    "Collect",
    "Count",
    "CountBy",
    "Distinct",
    "Filter",
    "FlatMap",
    "ForEach",
    "GearFunction",
    "GroupBy",
    "Limit",
    "LocalGroupBy",
    "Map",
    "OpenGearFunction",
    "Operation",
    "Reader",
    "Recipe",
    "Register",
    "Repartition",
    "Run",
    "Sort",
    "describe",
    "rebuild",
    "replay",
]

# --------------------------------------------------------------------------------------------------------------
# Functions
# --------------------------------------------------------------------------------------------------------------

_BATCH_READERS = frozenset(("KeysReader", "KeysOnlyReader", "StreamReader", "PythonReader", "ShardsIDReader"))
_EVENT_READERS = frozenset(("KeysReader", "StreamReader", "CommandReader"))


def _texts(requirements: Iterable[Any] | None) -> frozenset[str]:
    if requirements is None:
        return frozenset()
    if isinstance(requirements, str):
        return frozenset((requirements,))
    return frozenset(str(requirement) for requirement in requirements)


class GearFunction(Generic[_Out]):
    """A chain of operations. Users get one from a reader, a builder or a decorator.

    Functions never change, so they can share their inputs.
    """

    def __init__(
        self,
        operation: Operation,
        input_function: GearFunction[Any] | None = None,
        requirements: Iterable[Any] | None = None,
    ) -> None:
        inherited = input_function.requirements if input_function is not None else frozenset()
        object.__setattr__(self, "_parts", (operation, input_function, inherited | _texts(requirements)))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a gear function is immutable: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a gear function is immutable: {name!r} cannot be deleted")

    _parts: tuple[Operation, GearFunction[Any] | None, frozenset[str]]

    @property
    def operation(self) -> Operation:
        """The last operation."""
        return self._parts[0]

    @property
    def input_function(self) -> GearFunction[Any] | None:
        """The function before the last operation; `None` for a reader."""
        return self._parts[1]

    @property
    def requirements(self) -> frozenset[str]:
        """Packages that this function and its inputs need."""
        return self._parts[2]

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All operations, from the reader on."""
        found: list[Operation] = []
        function: GearFunction[Any] | None = self
        while function is not None:
            found.append(function.operation)
            function = function.input_function
        return tuple(reversed(found))

    @property
    def reader(self) -> str | None:
        """Name of the reader at the start of the chain."""
        first = self.operations[0]
        return first.reader if isinstance(first, Reader) else None

    @property
    def supports_batch_mode(self) -> bool:
        """Whether the function can be closed with ``run``."""
        return self.reader in _BATCH_READERS

    @property
    def supports_event_mode(self) -> bool:
        """Whether the function can be closed with ``register``."""
        return self.reader in _EVENT_READERS

    def __reduce__(self) -> Any:
        return rebuild, (describe(self), sorted(self.requirements))

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore a function that RedGrease 0.3 pickled, where ``convertToStr`` had no effect."""
        operation = state["operation"]
        if isinstance(operation, Run):
            operation = Run(operation.arg, False, operation.collect, **operation.kwargs)
        elif isinstance(operation, Register):
            given = operation.prefix, False, operation.collect, operation.mode, operation.onRegistered
            operation = Register(*given, **operation.kwargs)
        GearFunction.__init__(self, operation, state["input_function"], state["requirements"])

    def __repr__(self) -> str:
        return ".".join(map(repr, self.operations))

    def _repr_html_(self) -> str:
        """A drawing of the pipeline, for notebooks."""
        from .display import pipeline

        return pipeline(self)


class ClosedGearFunction(GearFunction[_Out]):
    """A function with its action; it can be executed, but not be extended."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and hasattr(OpenGearFunction, name):
                raise AttributeError(f"{self!r} is closed, so that {name}() cannot be added: extend the open function")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @overload
    def on(
        self,
        gears_server: AsyncServer,
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        replace: bool | None = None,
        **kwargs: Any,
    ) -> Awaited[_Out]: ...
    @overload
    def on(
        self,
        gears_server: Server,
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        replace: bool | None = None,
        *,
        progress: bool = False,
        **kwargs: Any,
    ) -> ExecutionResult[_Out]: ...
    def on(
        self,
        gears_server: Any,
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        replace: bool | None = None,
        *,
        progress: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Execute this function on a server.

        Args:
            gears_server: a `redgrease.RedisGears`, a `redgrease.Gears`, or any redis-py client.
            unblocking: return at once, with the id of the execution.
            requirements: packages in addition to those of the function.
            replace: what to do if a command of that name exists: `None` raises, `False` keeps the old one, `True`
                replaces it, so that each call is answered by the old or by the new one.
            progress: show the progress of a run of more than a second, see `redgrease.progress`.
            kwargs: ``enforce_redgrease``, ``id``, ``description``, ``upgrade``, ``replace_with`` and
                ``force_reinstall_requirements``, as in `redgrease.Gears.pyexecute`.

        Returns:
            The results of a run, `True` for a registration, a callable for a command. With a client of
            `redgrease.asyncio` it is awaited.

        Raises:
            redgrease.exceptions.DuplicateTriggerError: the command exists, and `replace` is `None`.
            redis.exceptions.ResponseError: the server refused the function.
            TypeError: `gears_server` is no client.
        """
        if not any(hasattr(gears_server, name) for name in ("gears", "pyexecute", "execute_command")):
            raise TypeError(f"a function is executed on a client, such as redgrease.RedisGears(), got {gears_server!r}")
        from .engine import execute_function

        if progress and isinstance(self.operation, Run) and not unblocking:
            from .progress import run_with_progress

            return run_with_progress(self, gears_server, requirements, **kwargs)
        return execute_function(self, gears_server, unblocking, requirements, replace, **kwargs)


class OpenGearFunction(GearFunction[_Out]):
    """A function that can be extended with operations and closed with `run` or `register`.

    Callbacks may be functions, lambdas, coroutine functions, classes, built-ins and bound methods. All operations
    take ``requirements``: packages that their callbacks need, such as ``["requests>=2"]``.
    """

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "on":
                raise AttributeError(f"{self!r} is open, so that it cannot be executed: close it with run or register")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _add(self, operation: Operation, requirements: _Packages = None) -> OpenGearFunction[Any]:
        return OpenGearFunction(operation, self, requirements)

    def _close(self, action: Run | Register, requirements: _Packages = None) -> ClosedGearFunction[Any]:
        closed: ClosedGearFunction[Any] = ClosedGearFunction(action, self, requirements)
        if "redisgears" not in sys.modules:
            _check_values(closed)
        return closed

    # -- one record at a time ----------------------------------------------------------------------------------

    @overload
    def map(
        self, op: Callable[[_Out], Coroutine[Any, Any, _New]], requirements: _Packages = None
    ) -> OpenGearFunction[_New]: ...
    @overload
    def map(self, op: Callable[[_Out], _New], requirements: _Packages = None) -> OpenGearFunction[_New]: ...
    def map(self, op: Any, requirements: _Packages = None) -> OpenGearFunction[Any]:
        """Transform each record into one record.

        Args:
            op: ``(record) -> record``. A value that is not callable is the result itself, `None` is the identity.
            requirements: packages that `op` needs.
        """
        return self._add(Map(op), requirements)

    @overload
    def flatmap(
        self: OpenGearFunction[Iterable[_New]], op: None = None, requirements: _Packages = None, inOrder: bool = False
    ) -> OpenGearFunction[_New]: ...
    @overload
    def flatmap(
        self,
        op: Callable[[_Out], Coroutine[Any, Any, Iterable[_New]]],
        requirements: _Packages = None,
        inOrder: bool = False,
    ) -> OpenGearFunction[_New]: ...
    @overload
    def flatmap(
        self, op: Callable[[_Out], Iterable[_New]], requirements: _Packages = None, inOrder: bool = False
    ) -> OpenGearFunction[_New]: ...
    def flatmap(self, op: Any = None, requirements: _Packages = None, inOrder: bool = False) -> OpenGearFunction[Any]:
        """Transform each record into a list of records.

        The elements of a list come out **last one first**, as in RedisGears. Anything but a list stays one record.

        Args:
            op: ``(record) -> list``; default: the record itself is the list.
            requirements: packages that `op` needs.
            inOrder: emit the elements in the order of the list.
        """
        return self._add(FlatMap(op, inOrder), requirements)

    def foreach(self, op: Callable[[_Out], Any], requirements: _Packages = None) -> OpenGearFunction[_Out]:
        """Run a side effect for each record; the record itself is passed on.

        Args:
            op: ``(record) -> None``.
            requirements: packages that `op` needs.
        """
        return self._add(ForEach(op), requirements)

    def filter(self, op: Callable[[_Out], Any] | None = None, requirements: _Packages = None) -> OpenGearFunction[_Out]:
        """Keep records that meet a condition.

        Args:
            op: ``(record) -> bool``; default: the record itself is true.
            requirements: packages that `op` needs.
        """
        return self._add(Filter(op), requirements)

    def limit(self, length: int, start: int = 0, requirements: _Packages = None) -> OpenGearFunction[_Out]:
        """Keep at most `length` records **of each shard**, from number `start` on; after `collect`, of all shards.

        Raises:
            ValueError: a number is negative.
        """
        return self._add(Limit(length, start), requirements)

    # -- per shard ---------------------------------------------------------------------------------------------

    @overload
    def accumulate(self, op: None = None, requirements: _Packages = None) -> OpenGearFunction[list[_Out]]: ...
    @overload
    def accumulate(
        self, op: Callable[[Any, _Out], Coroutine[Any, Any, _New]], requirements: _Packages = None
    ) -> OpenGearFunction[_New]: ...
    @overload
    def accumulate(self, op: Callable[[Any, _Out], _New], requirements: _Packages = None) -> OpenGearFunction[_New]: ...
    def accumulate(self, op: Any = None, requirements: _Packages = None) -> OpenGearFunction[Any]:
        """Combine all records of a shard into one record.

        Args:
            op: ``(acc, record) -> acc``; `acc` is `None` at first. Default: a list of the records.
            requirements: packages that `op` needs.
        """
        return self._add(Accumulate(op), requirements)

    @overload
    def localgroupby(
        self, extractor: Callable[[_Out], Any] | None = None, reducer: None = None, requirements: _Packages = None
    ) -> OpenGearFunction[Grouped[list[_Out]]]: ...
    @overload
    def localgroupby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        reducer: Callable[[str, Any, _Out], Coroutine[Any, Any, _New]] = ...,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    @overload
    def localgroupby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        reducer: Callable[[str, Any, _Out], _New] = ...,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    def localgroupby(
        self, extractor: Any = None, reducer: Any = None, requirements: _Packages = None
    ) -> OpenGearFunction[Any]:
        """One record ``{"key": key, "value": acc}`` for each key of a shard.

        Args:
            extractor: ``(record) -> key``, which becomes text; default: the text of the record.
            reducer: ``(key, acc, record) -> acc``; `acc` is `None` at first. Default: a list of the records.
            requirements: packages that the callbacks need.
        """
        return self._add(LocalGroupBy(extractor, reducer), requirements)

    # -- over all shards ---------------------------------------------------------------------------------------

    def collect(self, requirements: _Packages = None) -> OpenGearFunction[_Out]:
        """Move all records to the shard where the execution began."""
        return self._add(Collect(), requirements)

    def repartition(
        self, extractor: Callable[[_Out], Any] | None = None, requirements: _Packages = None
    ) -> OpenGearFunction[_Out]:
        """Move each record to the shard that owns the slot of a key.

        Args:
            extractor: ``(record) -> key``, which becomes text; default: the text of the record.
            requirements: packages that `extractor` needs.
        """
        return self._add(Repartition(extractor), requirements)

    @overload
    def aggregate(
        self,
        zero: None = None,
        seqOp: None = None,
        combOp: Callable[[Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[list[_Out]]: ...
    @overload
    def aggregate(
        self,
        zero: _New,
        seqOp: None = None,
        combOp: Callable[[Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[_New]: ...
    @overload
    def aggregate(
        self,
        zero: Any = None,
        seqOp: Callable[[Any, _Out], Coroutine[Any, Any, _New]] = ...,
        combOp: Callable[[Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[_New]: ...
    @overload
    def aggregate(
        self,
        zero: Any = None,
        seqOp: Callable[[Any, _Out], _New] = ...,
        combOp: Callable[[Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[_New]: ...
    def aggregate(
        self, zero: Any = None, seqOp: Any = None, combOp: Any = None, requirements: _Packages = None
    ) -> OpenGearFunction[Any]:
        """Combine all records into one record; no record if there were none.

        Args:
            zero: initial value, copied for each shard.
                Default: ``[]``.
            seqOp: ``(acc, record) -> acc``, on each shard. Default: appends to a list, adds to a number.
            combOp: ``(acc, shard_acc) -> acc``, over the shards. Default: joins lists, adds numbers when `seqOp` was
                not given, and otherwise is `seqOp`, which is right if records and accumulator have the same type.
            requirements: packages that the callbacks need.

        Raises:
            ValueError: there is no default for a `zero` of this type.
        """
        aggregation([] if zero is None else zero, seqOp, combOp)
        return self._add(Aggregate(zero, seqOp, combOp), requirements)

    @overload
    def aggregateby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        zero: None = None,
        seqOp: None = None,
        combOp: Callable[[Any, Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[list[_Out]]]: ...
    @overload
    def aggregateby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        zero: _New = ...,
        seqOp: None = None,
        combOp: Callable[[Any, Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    @overload
    def aggregateby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        zero: Any = None,
        seqOp: Callable[[str, Any, _Out], Coroutine[Any, Any, _New]] = ...,
        combOp: Callable[[Any, Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    @overload
    def aggregateby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        zero: Any = None,
        seqOp: Callable[[str, Any, _Out], _New] = ...,
        combOp: Callable[[Any, Any, Any], Any] | None = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    def aggregateby(
        self,
        extractor: Any = None,
        zero: Any = None,
        seqOp: Any = None,
        combOp: Any = None,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Any]:
        """One record ``{"key": key, "value": acc}`` for each key.

        Args:
            extractor: ``(record) -> key``, which becomes text; default: the text of the record.
            zero: initial value, as in `aggregate`.
            seqOp: ``(key, acc, record) -> acc``, on each shard. Default: appends to a list, adds to a number.
            combOp: ``(key, acc, shard_acc) -> acc``, over the shards; defaults as in `aggregate`.
            requirements: packages that the callbacks need.

        Raises:
            ValueError: there is no default for a `zero` of this type.
        """
        aggregation([] if zero is None else zero, seqOp, combOp)
        return self._add(AggregateBy(extractor, zero, seqOp, combOp), requirements)

    @overload
    def groupby(
        self, extractor: Callable[[_Out], Any] | None = None, reducer: None = None, requirements: _Packages = None
    ) -> OpenGearFunction[Grouped[list[_Out]]]: ...
    @overload
    def groupby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        reducer: Callable[[str, Any, _Out], Coroutine[Any, Any, _New]] = ...,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    @overload
    def groupby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        reducer: Callable[[str, Any, _Out], _New] = ...,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    def groupby(
        self, extractor: Any = None, reducer: Any = None, requirements: _Packages = None
    ) -> OpenGearFunction[Any]:
        """One record ``{"key": key, "value": acc}`` for each key; arguments as in `localgroupby`."""
        return self._add(GroupBy(extractor, reducer), requirements)

    @overload
    def batchgroupby(
        self, extractor: Callable[[_Out], Any] | None = None, reducer: None = None, requirements: _Packages = None
    ) -> OpenGearFunction[Grouped[int]]: ...
    @overload
    def batchgroupby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        reducer: Callable[[str, list[_Out]], Coroutine[Any, Any, _New]] = ...,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    @overload
    def batchgroupby(
        self,
        extractor: Callable[[_Out], Any] | None = None,
        reducer: Callable[[str, list[_Out]], _New] = ...,
        requirements: _Packages = None,
    ) -> OpenGearFunction[Grouped[_New]]: ...
    def batchgroupby(
        self, extractor: Any = None, reducer: Any = None, requirements: _Packages = None
    ) -> OpenGearFunction[Any]:
        """One record ``{"key": key, "value": value}`` for each key; all records of a key are held in memory.

        Args:
            extractor: ``(record) -> key``, which becomes text; default: the text of the record.
            reducer: ``(key, records) -> value``; default: the number of records.
            requirements: packages that the callbacks need.
        """
        return self._add(BatchGroupBy(extractor, reducer), requirements)

    def sort(self, reverse: bool = True, requirements: _Packages = None) -> OpenGearFunction[_Out]:
        """Sort all records: **ascending** by default, descending with ``reverse=False``.

        The name of the argument is that of RedisGears, where it meant the order before a last step reversed it.
        """
        return self._add(Sort(reverse), requirements)

    def distinct(self, requirements: _Packages = None) -> OpenGearFunction[_Out]:
        """Keep each distinct record once. Records must be hashable."""
        return self._add(Distinct(), requirements)

    def count(self, requirements: _Packages = None) -> OpenGearFunction[int]:
        """Count the records."""
        return self._add(Count(), requirements)

    def countby(
        self, extractor: Callable[[_Out], Any] | None = None, requirements: _Packages = None
    ) -> OpenGearFunction[Grouped[int]]:
        """One record ``{"key": key, "value": number}`` for each key.

        Args:
            extractor: ``(record) -> key``, which becomes text; default: the text of the record.
            requirements: packages that `extractor` needs.
        """
        return self._add(CountBy(extractor), requirements)

    def avg(
        self, extractor: Callable[[_Out], float] | None = None, requirements: _Packages = None
    ) -> OpenGearFunction[float]:
        """Compute the arithmetic mean; no record if there were none.

        Args:
            extractor: ``(record) -> number``; default: ``float(record)``.
            requirements: packages that `extractor` needs.
        """
        return self._add(Avg(extractor), requirements)

    # -- actions -----------------------------------------------------------------------------------------------

    @overload
    def run(
        self,
        arg: Any = None,
        convertToStr: bool = False,
        collect: bool = True,
        requirements: _Packages = None,
        on: None = None,
        *,
        noScan: bool = ...,
        readValue: bool = ...,
        count: int = ...,
        fromId: str = ...,
        pattern: bool = ...,
        patternGenerator: Callable[[], Iterable[tuple[str, bool]]] = ...,
        mode: str = ...,
        progress: bool = ...,
    ) -> ClosedGearFunction[_Out]: ...
    @overload
    def run(
        self,
        arg: Any = None,
        convertToStr: bool = False,
        collect: bool = True,
        requirements: _Packages = None,
        *,
        on: AsyncServer,
        noScan: bool = ...,
        readValue: bool = ...,
        count: int = ...,
        fromId: str = ...,
        pattern: bool = ...,
        patternGenerator: Callable[[], Iterable[tuple[str, bool]]] = ...,
        mode: str = ...,
        unblocking: bool = ...,
        enforce_redgrease: PackageOption = ...,
        id: str | None = ...,
        description: str | bytes | None = ...,
        upgrade: bool = ...,
        replace_with: Any = ...,
        force_reinstall_requirements: bool = ...,
    ) -> Awaited[_Out]: ...
    @overload
    def run(
        self,
        arg: Any = None,
        convertToStr: bool = False,
        collect: bool = True,
        requirements: _Packages = None,
        *,
        on: Server,
        noScan: bool = ...,
        readValue: bool = ...,
        count: int = ...,
        fromId: str = ...,
        pattern: bool = ...,
        patternGenerator: Callable[[], Iterable[tuple[str, bool]]] = ...,
        mode: str = ...,
        progress: bool = ...,
        unblocking: bool = ...,
        enforce_redgrease: PackageOption = ...,
        id: str | None = ...,
        description: str | bytes | None = ...,
        upgrade: bool = ...,
        replace_with: Any = ...,
        force_reinstall_requirements: bool = ...,
    ) -> ExecutionResult[_Out]: ...
    def run(
        self,
        arg: Any = None,
        convertToStr: bool = False,
        collect: bool = True,
        requirements: _Packages = None,
        on: Any = None,
        *,
        progress: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Close the function for a single run.

        Args:
            arg: replaces the default of the reader: a key pattern, the name of a stream, or the generator function of
                a PythonReader.
            convertToStr: `True` returns results as text; otherwise they are Python values.
            collect: `False` returns only the results of the shard that received the command.
            requirements: packages that the callbacks need.
            on: a client; executes there at once.
            progress: with `on`, show the progress of a run of more than a second, see `redgrease.progress`.
            kwargs: options of the reader. KeysReader: ``noScan``, ``readValue``; KeysOnlyReader: ``count``,
                ``noScan``, ``patternGenerator``; StreamReader: ``fromId``, ``pattern``; all: ``mode``, and with `on`
                those of `ClosedGearFunction.on`.

        Returns:
            A `ClosedGearFunction`; with `on`, the `redgrease.data.ExecutionResult`. Inside the server the function runs
            at once, with the result of the server's own ``run``.

        Raises:
            TypeError: the reader has no batch mode, or lacks an option.
            ValueError: the value of an option is not allowed.
        """
        if not self.supports_batch_mode:
            raise unsupported_mode("run", self.reader)
        options = execute_options(kwargs, on)
        check_reader_options("run", self.reader, kwargs)
        if self.reader == "PythonReader" and not callable(arg):
            raise TypeError(f"run of a PythonReader needs a generator function, got {arg!r}")
        closed = self._close(Run(arg, convertToStr, collect, **kwargs), requirements)
        return _act(closed, on, requirements, progress=progress, **options)

    @overload
    def register(
        self,
        prefix: str = "*",
        convertToStr: bool = False,
        collect: bool = True,
        mode: str | None = None,
        onRegistered: Callable[[], None] | None = None,
        eventTypes: Iterable[str] | None = None,
        keyTypes: Iterable[str] | None = None,
        readValue: bool | None = None,
        batch: int | None = None,
        duration: int | None = None,
        onFailedPolicy: str | None = None,
        onFailedRetryInterval: int | None = None,
        trimStream: bool | None = None,
        trigger: str | None = None,
        requirements: _Packages = None,
        on: None = None,
        *,
        replace: bool | None = ...,
        inorder: bool = ...,
        hook: str = ...,
        keyprefix: str = ...,
        commands: Iterable[str] = ...,
        unknownEvents: bool = ...,
        noScan: bool = ...,
        regex: str = ...,
    ) -> ClosedGearFunction[_Out]: ...
    @overload
    def register(
        self,
        prefix: str = "*",
        convertToStr: bool = False,
        collect: bool = True,
        mode: str | None = None,
        onRegistered: Callable[[], None] | None = None,
        eventTypes: Iterable[str] | None = None,
        keyTypes: Iterable[str] | None = None,
        readValue: bool | None = None,
        batch: int | None = None,
        duration: int | None = None,
        onFailedPolicy: str | None = None,
        onFailedRetryInterval: int | None = None,
        trimStream: bool | None = None,
        trigger: str | None = None,
        requirements: _Packages = None,
        *,
        on: AsyncServer,
        replace: bool | None = ...,
        inorder: bool = ...,
        hook: str = ...,
        keyprefix: str = ...,
        commands: Iterable[str] = ...,
        unknownEvents: bool = ...,
        noScan: bool = ...,
        regex: str = ...,
        unblocking: bool = ...,
        enforce_redgrease: PackageOption = ...,
        id: str | None = ...,
        description: str | bytes | None = ...,
        upgrade: bool = ...,
        replace_with: Any = ...,
        force_reinstall_requirements: bool = ...,
    ) -> Awaited[_Out]: ...
    @overload
    def register(
        self,
        prefix: str = "*",
        convertToStr: bool = False,
        collect: bool = True,
        mode: str | None = None,
        onRegistered: Callable[[], None] | None = None,
        eventTypes: Iterable[str] | None = None,
        keyTypes: Iterable[str] | None = None,
        readValue: bool | None = None,
        batch: int | None = None,
        duration: int | None = None,
        onFailedPolicy: str | None = None,
        onFailedRetryInterval: int | None = None,
        trimStream: bool | None = None,
        trigger: str | None = None,
        requirements: _Packages = None,
        *,
        on: Server,
        replace: bool | None = ...,
        inorder: bool = ...,
        hook: str = ...,
        keyprefix: str = ...,
        commands: Iterable[str] = ...,
        unknownEvents: bool = ...,
        noScan: bool = ...,
        regex: str = ...,
        unblocking: bool = ...,
        enforce_redgrease: PackageOption = ...,
        id: str | None = ...,
        description: str | bytes | None = ...,
        upgrade: bool = ...,
        replace_with: Any = ...,
        force_reinstall_requirements: bool = ...,
    ) -> ExecutionResult[_Out]: ...
    def register(
        self,
        prefix: str = "*",
        convertToStr: bool = False,
        collect: bool = True,
        mode: str | None = None,
        onRegistered: Callable[[], None] | None = None,
        eventTypes: Iterable[str] | None = None,
        keyTypes: Iterable[str] | None = None,
        readValue: bool | None = None,
        batch: int | None = None,
        duration: int | None = None,
        onFailedPolicy: str | None = None,
        onFailedRetryInterval: int | None = None,
        trimStream: bool | None = None,
        trigger: str | None = None,
        requirements: _Packages = None,
        on: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Close the function for events. For arguments that are `None` the server uses its defaults.

        Args:
            prefix: name of a key or stream, or a glob pattern as for the server's KEYS: ``user:*``, ``*:[ab]``.
            convertToStr: `True` converts results of a command to text.
            collect: whether results of all shards are collected.
            mode: `redgrease.TriggerMode`: ``"async"`` (default; on a cluster a command runs on **every** shard),
                ``"async_local"`` or ``"sync"``.
            onRegistered: called once on every shard when the function is registered.
            eventTypes: KeysReader: names of events (of writes: reads make none), such as ``["hset", "expired"]``.
            keyTypes: KeysReader: types of keys, see `redgrease.KeyType`.
            readValue: KeysReader: whether values are read.
            batch: StreamReader: number of messages that start a run, 1 to 1,000,000,000.
            duration: StreamReader: milliseconds after which fewer messages start one, too; 0 (never) to 31,536,000,000.
            onFailedPolicy: StreamReader: see `redgrease.FailurePolicy`.
            onFailedRetryInterval: StreamReader: seconds between attempts, 0 to 31,536,000.
            trimStream: StreamReader: whether processed messages are removed.
            trigger: CommandReader: name of the command.
            requirements: packages that the callbacks need.
            on: a client; registers there at once.
            kwargs: ``replace`` and the other arguments of `ClosedGearFunction.on`. CommandReader: ``inorder``,
                ``hook``, ``keyprefix``. KeysReader: ``commands``, ``unknownEvents`` (`True` allows events that the
                server does not know, such as those of other modules).

        Returns:
            A `ClosedGearFunction`; with `on`, `True`, or for a command a callable that triggers it. Inside the
            server the function is registered at once.

        Raises:
            TypeError: the reader has no event mode, or lacks an option, or a command has no name.
            ValueError: the value of an option is not allowed.
        """
        if not self.supports_event_mode:
            raise unsupported_mode("register", self.reader)
        if "regex" in kwargs:
            warnings.warn("regex is an old name of prefix", DeprecationWarning, stacklevel=2)
            prefix = kwargs.pop("regex")
        replace = kwargs.pop("replace", None)
        options = execute_options(kwargs, on)
        given = {
            "mode": mode,
            "eventTypes": _names(eventTypes),
            "keyTypes": _names(keyTypes),
            "readValue": readValue,
            "batch": batch,
            "duration": duration,
            "onFailedPolicy": onFailedPolicy,
            "onFailedRetryInterval": onFailedRetryInterval,
            "trimStream": trimStream,
            "trigger": trigger,
            **kwargs,
        }
        check_reader_options("register", self.reader, given)
        given = {name: value for name, value in given.items() if value is not None and name != "mode"}
        if self.reader == "CommandReader" and trigger is None and kwargs.get("hook") is None:
            raise TypeError("register of a CommandReader needs a name: trigger='name' (or hook='command')")
        closed = self._close(Register(prefix, convertToStr, collect, mode, onRegistered, **given), requirements)
        return _act(closed, on, requirements, replace=replace, **options)


def _names(names: Iterable[str] | None) -> list[str] | None:
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def execute_options(kwargs: dict[str, Any], on: Any) -> dict[str, Any]:
    """Take the options of an execution out of the arguments of an action; they need a server."""
    options = {name: kwargs.pop(name) for name in EXECUTE_OPTIONS if name in kwargs}
    if options and on is None and "redisgears" not in sys.modules:
        raise TypeError(f"{', '.join(options)} needs a client: give on=, or give it to .on()")
    return options


def _act(closed: ClosedGearFunction[Any], on: Any, requirements: Any, **options: Any) -> Any:
    """Execute a function that was just closed, if this process can."""
    server = sys.modules.get("redisgears")
    if server is not None:
        ignored = {"on": on, "requirements": requirements, **options}
        names = [name for name, value in ignored.items() if value]
        if names:
            warnings.warn(f"inside the server {', '.join(names)} has no effect", stacklevel=3)
        return replay(closed, server.GearsBuilder, "objects")
    return closed.on(on, **options) if on else closed


def _check_values(closed: ClosedGearFunction[Any]) -> None:
    """Refuse wrong values of arguments as the server would; without the compiled extension the server does it.

    Raises:
        ValueError: a value is not allowed.
    """
    from . import codec

    if codec.available():
        from ._native import GearsError
        from .plan.builder import PlanBuilder

        try:
            replay(closed, PlanBuilder)
        except GearsError as error:
            raise ValueError(str(error)) from None


# --------------------------------------------------------------------------------------------------------------
# Functions as plain data, and on the server's builder
# --------------------------------------------------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    if name == "Nop":
        from . import operations

        warnings.warn("redgrease.gears.Nop does nothing and will be removed", DeprecationWarning, stacklevel=2)
        return operations.Nop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def describe(function: GearFunction[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Describe a function: names and arguments of its operations, from the reader on."""
    described = []
    for operation in function.operations:
        fields = {field.name: getattr(operation, field.name) for field in dataclasses.fields(operation)}
        fields.update(fields.pop("kwargs", {}))
        described.append((type(operation).__name__, fields))
    return described


def rebuild(
    description: Iterable[tuple[str, Mapping[str, Any]]], requirements: Iterable[str] | None = None
) -> GearFunction[Any]:
    """Rebuild a function from its description.

    Raises:
        ValueError: an operation or argument is not known to this version.
    """
    function: GearFunction[Any] | None = None
    for name, fields in description:
        try:
            operation = OPERATIONS[name](**fields)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"operation {name!r} with arguments {sorted(fields)} is not known to this version of redgrease: "
                "use the same version on client and server"
            ) from error
        kind = ClosedGearFunction if isinstance(operation, (Run, Register)) else OpenGearFunction
        function = kind(operation, function, requirements if function is None else None)
    if function is None:
        raise ValueError("a gear function has at least a reader")
    return function


def replay(function: GearFunction[Any], builder: Any, reply: str = "plain") -> Any:
    """Apply all operations to a class with the server's builder methods, and return what the last one returns.

    Args:
        function: the function.
        builder: the class.
        reply: see `Run.act`.
    """
    operations = list(function.operations)
    first, last = operations[0], operations[-1]
    if isinstance(first, Reader) and isinstance(last, Run):
        operations[0], operations[-1] = readable(first, last)
    result = builder
    for operation in operations:
        result = operation.act(result, reply) if isinstance(operation, (Run, Register)) else operation.add_to(result)
    return result
