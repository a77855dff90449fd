# ruff: noqa: N803 - magic methods; names as users of the original know them
"""Readers: the first step of a gear function.

>>> from redgrease import CommandReader, KeysReader, StreamReader
>>> KeysReader("user:*").keys().count()
KeysReader('user:*').map(key_of).count()
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Callable, TypeVar

from . import utils
from .gears import OpenGearFunction, Reader, Recipe

T = TypeVar("T")
_Out = TypeVar("_Out", covariant=True)

__all__ = [
    "CommandReader",
    "GearReader",
    "KeysOnlyReader",
    "KeysReader",
    "PythonReader",
    "ShardsIDReader",
    "StreamReader",
]


def key_of(record: Mapping[str, Any]) -> Any:
    """The ``key`` of a record."""
    return record["key"]


def value_of(record: Mapping[str, Any]) -> Any:
    """The ``value`` of a record; `None` if it was not read."""
    return record.get("value")


@dataclass(frozen=True, repr=False)
class Matching(Recipe):
    """Condition on type and event of a record; ``...`` is any."""

    type: Any = ...
    event: Any = ...

    def _function(self) -> Callable[..., Any]:
        conditions = {field.name: getattr(self, field.name) for field in fields(self)}
        return utils.dict_filter(**{name: value for name, value in conditions.items() if value is not ...})

    def __repr__(self) -> str:
        shown = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return f"Matching({', '.join(f'{name}={value!r}' for name, value in shown if value is not ...)})"


@dataclass(frozen=True)
class Arguments(Recipe):
    """The arguments of a command, without its name."""

    max_count: int | None = None

    def _function(self) -> Callable[..., Any]:
        end = None if self.max_count is None else self.max_count + 1
        return lambda record: record[1:end]


@dataclass(frozen=True, repr=False)
class Apply(Recipe):
    """A function called with the arguments of a command."""

    fun: Any

    def _function(self) -> Callable[..., Any]:
        fun = self.fun
        if inspect.iscoroutinefunction(fun):

            async def apply(record: list[Any]) -> Any:
                return await fun(*record[1:])

            return apply
        return lambda record: fun(*record[1:])

    def proxy(self, gears: Any, name: str) -> Any:
        """What users call when the command `name` is registered on a server; see `redgrease.engine.TriggerProxy`."""
        from .engine import TriggerProxy

        return TriggerProxy(gears, name, self.fun)

    def __repr__(self) -> str:
        return f"Apply({getattr(self.fun, '__name__', self.fun)})"


class GearReader(OpenGearFunction[_Out]):
    """Start of a function with any reader.

    Args:
        reader: name of the reader (see `redgrease.ReaderType`).
        defaultArg: its argument if ``run`` has none.
        desc: text shown in the list of registrations.
        requirements: packages that the functions need.
    """

    def __init__(
        self,
        reader: str = "KeysReader",
        defaultArg: Any = "*",
        desc: str | None = None,
        requirements: Iterable[Any] | None = None,
    ) -> None:
        super().__init__(Reader(reader, defaultArg, desc), requirements=requirements)


class _PatternReader(GearReader[_Out]):
    """A reader with a pattern of names."""

    @property
    def default_key_pattern(self) -> Any:
        """The argument of the reader if ``run`` has none."""
        operation = self.operation
        return operation.defaultArg if isinstance(operation, Reader) else None


class KeysReader(_PatternReader[dict[str, Any]]):
    """Reads keys and their values.

    A record is a dict: ``key`` (`str`), ``value`` (text of a string, dict of a hash, list of a list, else `None`),
    ``type`` (``"string"``, ``"hash"``, …), ``event`` (`None` in a run).

    Args:
        default_key_pattern: glob pattern of the names to read in a run.
        desc: text shown in the list of registrations.
        requirements: packages that the functions need.

    >>> KeysReader("user:*").values(type="hash").countby(lambda user: user["country"])
    KeysReader('user:*').filter(Matching(type='hash')).map(value_of).countby(<lambda>)
    """

    def __init__(
        self,
        default_key_pattern: str = "*",
        desc: str | None = None,
        requirements: Iterable[Any] | None = None,
    ) -> None:
        super().__init__("KeysReader", default_key_pattern, desc, requirements)

    def _matching(self, type: Any, event: Any) -> OpenGearFunction[dict[str, Any]]:
        if type is ... and event is ...:
            return self
        return self.filter(Matching(type, event))  # type: ignore[arg-type]

    def values(self, type: Any = ..., event: Any = ...) -> OpenGearFunction[Any]:
        """Only the values.

        Args:
            type: a key type, or several: only these. Default: any.
            event: an event's name, or several: only these. Default: any.
        """
        return self._matching(type, event).map(value_of)

    def keys(self, type: Any = ..., event: Any = ...) -> OpenGearFunction[str]:
        """Only the names of the keys; arguments as in `values`."""
        return self._matching(type, event).map(key_of)

    def records(self, type: Any = ..., event: Any = ...) -> OpenGearFunction[utils.Record]:
        """`redgrease.utils.Record` objects; arguments as in `values`."""
        return self._matching(type, event).map(utils.record)


class KeysOnlyReader(_PatternReader[str]):
    """Reads names of keys (`str`), without values. Runs only.

    Args:
        default_key_pattern: glob pattern of the names.
        desc: text shown with the execution.
        requirements: packages that the functions need.
    """

    def __init__(
        self,
        default_key_pattern: str = "*",
        desc: str | None = None,
        requirements: Iterable[Any] | None = None,
    ) -> None:
        super().__init__("KeysOnlyReader", default_key_pattern, desc, requirements)


class StreamReader(_PatternReader[dict[str, Any]]):
    """Reads messages of streams, oldest first.

    A record is a dict: ``key`` (name of the stream), ``id`` (of the message), ``value`` (dict of its fields).

    Args:
        default_key_pattern: name of the stream to read in a run, or a pattern of several.
        desc: text shown in the list of registrations.
        requirements: packages that the functions need.
    """

    def __init__(
        self,
        default_key_pattern: str = "*",
        desc: str | None = None,
        requirements: Iterable[Any] | None = None,
    ) -> None:
        super().__init__("StreamReader", default_key_pattern, desc, requirements)

    def values(self) -> OpenGearFunction[dict[str, Any]]:
        """Only the fields of the messages, as dicts."""
        return self.map(value_of)

    def keys(self) -> OpenGearFunction[str]:
        """Only the name of the stream of each message."""
        return self.map(key_of)

    def records(self) -> OpenGearFunction[utils.StreamRecord]:
        """`redgrease.utils.StreamRecord` objects."""
        return self.map(utils.stream_record)


class PythonReader(GearReader[Any]):
    """Reads what a generator function yields: ``PythonReader().run(function)``. Runs only, on every shard.

    Args:
        desc: text shown with the execution.
        requirements: packages that the functions need.
    """

    def __init__(self, desc: str | None = None, requirements: Iterable[Any] | None = None) -> None:
        super().__init__("PythonReader", desc=desc, requirements=requirements)


class ShardsIDReader(GearReader[str]):
    """Reads one record per shard: its id (``"1"`` if the server is not a cluster). Runs only.

    Args:
        desc: text shown with the execution.
        requirements: packages that the functions need.
    """

    def __init__(self, desc: str | None = None, requirements: Iterable[Any] | None = None) -> None:
        super().__init__("ShardsIDReader", desc=desc, requirements=requirements)


class CommandReader(GearReader[list[Any]]):
    """Reads the arguments of a custom command, its name first. Registered only.

    Args:
        desc: text shown in the list of registrations.
        requirements: packages that the functions need.

    >>> CommandReader().apply(len).register(trigger="length")
    CommandReader().map(Apply(len)).register(trigger='length')
    """

    def __init__(self, desc: str | None = None, requirements: Iterable[Any] | None = None) -> None:
        super().__init__("CommandReader", desc=desc, requirements=requirements)

    def args(self, max_count: int | None = None) -> OpenGearFunction[list[Any]]:
        """Only the arguments, as a list, at most `max_count` of them."""
        return self.map(Arguments(max_count))  # type: ignore[arg-type]

    def apply(self, fun: Callable[..., T], requirements: Iterable[Any] | None = None) -> OpenGearFunction[T]:
        """Call ``fun(*arguments)``.

        Args:
            fun: a function; arguments arrive as text, or as `bytes` where they are not UTF-8.
            requirements: packages that `fun` needs.
        """
        return self.map(Apply(fun), requirements)  # type: ignore[arg-type]
