"""Type aliases for those who write gear functions: what the callbacks of each operation take and return.

>>> from redgrease.typing import Reducer
>>> total: Reducer[str, dict, int] = lambda key, acc, record: (acc or 0) + record["value"]
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Callable, TypeVar, Union

T = TypeVar("T")
"""Anything."""
InputRecord = TypeVar("InputRecord", contravariant=True)
"""A record that a callback takes."""
OutputRecord = TypeVar("OutputRecord", covariant=True)
"""A record that a function gives."""
Key = TypeVar("Key", bound=Hashable, contravariant=True)
"""What records are grouped by."""
Val = TypeVar("Val")
"""A value that is built up from records."""
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
"""What can be sent as it is."""
SupportedType = Union[bool, str, bytes, int, float]
"""What can be turned into a `RedisType` without loss."""
RedisKey = Union[str, bytes]
"""Name of a key."""
Record = dict[str, Any]
"""A record as the KeysReader and the StreamReader give it."""

Registrator = Callable[[], None]
"""Called once on every shard when a function is registered: ``() -> None``."""
Extractor = Callable[[_In], _Key]
"""Gives what a record is grouped by: ``(record) -> key``."""
Mapper = Callable[[_In], _Out]
"""Makes one record of another: ``(record) -> record``."""
Expander = Callable[[_In], Iterable[_Out]]
"""Makes a list of records of one: ``(record) -> list``."""
Processor = Callable[[_In], Any]
"""Does something with a record, for the effect only: ``(record) -> None``."""
Filterer = Callable[[_In], Any]
"""Tells whether a record is kept: ``(record) -> bool``."""
Accumulator = Callable[[Any, _In], _Acc]
"""Adds a record to what is there (at first `None`): ``(acc, record) -> acc``."""
Reducer = Callable[[_Key, Any, _In], _Acc]
"""Adds a record to what is there for its key (at first `None`): ``(key, acc, record) -> acc``."""
BatchReducer = Callable[[_Key, Any], _Out]
"""Makes one value of all records of a key: ``(key, records) -> value``."""

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
