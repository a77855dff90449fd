"""Type aliases for gear functions: argument and return types of the callbacks of each operation.

>>> from redgrease.typing import Reducer
>>> total: Reducer[str, dict, int] = lambda key, acc, record: (acc or 0) + record["value"]
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Callable, TypeVar, Union

T = TypeVar("T")
"""Anything."""
InputRecord = TypeVar("InputRecord", contravariant=True)
"""Record type that a callback takes."""
OutputRecord = TypeVar("OutputRecord", covariant=True)
"""Record type that a function returns."""
Key = TypeVar("Key", bound=Hashable, contravariant=True)
"""Type of the key by which records are grouped."""
Val = TypeVar("Val")
"""Type of an accumulator."""
# Aliases may not be generic over variables with a variance of their own in every checker, so these are plain.
_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Key = TypeVar("_Key")
_Acc = TypeVar("_Acc")

Constructor = Union[type[T], Callable[[Any], T]]
"""A type, or a function of one argument that makes a value of it."""
RedisType = Union[bytes, int, float]
"""What a server stores."""
SafeType = Union[bytes, int, float, str]
"""Types that are sent unchanged."""
SupportedType = Union[bool, str, bytes, int, float]
"""Types that can be converted to a `RedisType` without loss."""
RedisKey = Union[str, bytes]
"""Name of a key."""
Record = dict[str, Any]
"""A record of the KeysReader and the StreamReader."""

Registrator = Callable[[], None]
"""Called once on every shard when a function is registered: ``() -> None``."""
Extractor = Callable[[_In], _Key]
"""Returns the key by which a record is grouped: ``(record) -> key``."""
Mapper = Callable[[_In], _Out]
"""Transforms a record: ``(record) -> record``."""
Expander = Callable[[_In], Iterable[_Out]]
"""Transforms a record into a list of records: ``(record) -> list``."""
Processor = Callable[[_In], Any]
"""Runs a side effect: ``(record) -> None``."""
Filterer = Callable[[_In], Any]
"""Returns whether to keep a record: ``(record) -> bool``."""
Accumulator = Callable[[Any, _In], _Acc]
"""Adds a record to an accumulator (at first `None`): ``(acc, record) -> acc``."""
Reducer = Callable[[_Key, Any, _In], _Acc]
"""Adds a record to the accumulator of its key (at first `None`): ``(key, acc, record) -> acc``."""
BatchReducer = Callable[[_Key, Any], _Out]
"""Combines all records of a key: ``(key, records) -> value``."""

__all__ = [
    "Accumulator",
    "BatchReducer",
    "Constructor",
    "Expander",
    "Extractor",
    "Filterer",
    "InputRecord",
    "Key",
    "Mapper",
    "OutputRecord",
    "Processor",
    "Record",
    "RedisKey",
    "RedisType",
    "Reducer",
    "Registrator",
    "SafeType",
    "SupportedType",
    "T",
    "Val",
]
