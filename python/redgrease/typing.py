"""Types of gear functions: records of the readers, and argument and return types of the callbacks.

Callbacks may be coroutine functions; the type of a record is then what they return when awaited.

>>> from redgrease.typing import Reducer
>>> total: Reducer[str, dict, int] = lambda key, acc, record: (acc or 0) + record["value"]
"""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Callable, Generic, Protocol, TypeVar, Union, overload

if TYPE_CHECKING:
    from typing import Literal

    from .asyncio import Gears

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

# --------------------------------------------------------------------------------------------------------------
# Records
# --------------------------------------------------------------------------------------------------------------
# Subclasses of `dict`, not `TypedDict`: a callback annotated with `dict` takes them, and they can be generic before
# Python 3.11.


class KeyRecord(dict[str, Any]):
    """Type of the records of a `redgrease.KeysReader`. At run time they are plain dicts.

    Entries:
        key: name of the key.
        value: text of a string, dict of a hash, list of a list, else `None`. Missing if values are not read.
        type: type of the key, see `redgrease.KeyType`. Missing if values are not read.
        event: event that triggered the function; `None` in a run.
    """

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def __getitem__(self, name: Literal["key", "type"], /) -> str: ...
        @overload
        def __getitem__(self, name: Literal["value"], /) -> Any: ...
        @overload
        def __getitem__(self, name: Literal["event"], /) -> str | None: ...
        def __getitem__(self, name: Any, /) -> Any: ...


class StreamMessage(dict[str, Any]):
    """Type of the records of a `redgrease.StreamReader`. At run time they are plain dicts.

    Entries:
        key: name of the stream.
        id: id of the message.
        value: fields of the message; values that are not UTF-8 are `bytes`.
    """

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def __getitem__(self, name: Literal["key", "id"], /) -> str: ...
        @overload
        def __getitem__(self, name: Literal["value"], /) -> dict[str, str]: ...
        def __getitem__(self, name: Any, /) -> Any: ...


class Grouped(dict[str, Any], Generic[_Acc]):
    """Type of the records of operations that group, such as ``countby``. At run time they are plain dicts.

    Entries:
        key: the key, as text.
        value: what the records with this key were combined to.
    """

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def __getitem__(self, name: Literal["key"], /) -> str: ...
        @overload
        def __getitem__(self, name: Literal["value"], /) -> _Acc: ...
        def __getitem__(self, name: Any, /) -> Any: ...


# --------------------------------------------------------------------------------------------------------------
# Callbacks
# --------------------------------------------------------------------------------------------------------------

Registrator = Callable[[], None]
"""Called once on every shard when a function is registered: ``() -> None``."""
Extractor = Callable[[_In], _Key]
"""Returns the key by which a record is grouped: ``(record) -> key``."""
Mapper = Callable[[_In], Union[Awaitable[_Out], _Out]]
"""Transforms a record: ``(record) -> record``."""
Expander = Callable[[_In], Union[Awaitable[Iterable[_Out]], Iterable[_Out]]]
"""Transforms a record into a list of records: ``(record) -> list``."""
Processor = Callable[[_In], Any]
"""Runs a side effect: ``(record) -> None``."""
Filterer = Callable[[_In], Any]
"""Returns whether to keep a record: ``(record) -> bool``."""
Accumulator = Callable[[Any, _In], Union[Awaitable[_Acc], _Acc]]
"""Adds a record to an accumulator (at first `None`): ``(acc, record) -> acc``."""
Reducer = Callable[[_Key, Any, _In], Union[Awaitable[_Acc], _Acc]]
"""Adds a record to the accumulator of its key (at first `None`): ``(key, acc, record) -> acc``."""
BatchReducer = Callable[[_Key, Any], Union[Awaitable[_Out], _Out]]
"""Combines all records of a key: ``(key, records) -> value``."""

# --------------------------------------------------------------------------------------------------------------
# Servers
# --------------------------------------------------------------------------------------------------------------


class HasGears(Protocol):
    """A client of this package."""

    @property
    def gears(self) -> Any:
        """Commands of the engine."""


class HasPyexecute(Protocol):
    """The commands of the engine: `redgrease.Gears`."""

    @property
    def pyexecute(self) -> Any:
        """Send a function."""


class HasExecuteCommand(Protocol):
    """A client of redis-py or valkey-py."""

    @property
    def execute_command(self) -> Any:
        """Send a command."""


class HasAclose(Protocol):
    """A client with coroutines, of this package, redis-py or valkey-py."""

    @property
    def aclose(self) -> Callable[..., Awaitable[Any]]:
        """Close the connections."""


Server = Union[HasGears, HasPyexecute, HasExecuteCommand]
"""What ``on=`` takes: a client of this package, its commands of the engine, or a plain client of a server."""
AsyncServer = Union[HasAclose, "Gears"]
"""The same with coroutines: what ``on=`` such a server returns is awaited."""

__all__ = [
    "Accumulator",
    "AsyncServer",
    "BatchReducer",
    "Constructor",
    "Expander",
    "Extractor",
    "Filterer",
    "Grouped",
    "HasAclose",
    "HasExecuteCommand",
    "HasGears",
    "HasPyexecute",
    "InputRecord",
    "Key",
    "KeyRecord",
    "Mapper",
    "OutputRecord",
    "Processor",
    "Record",
    "RedisKey",
    "RedisType",
    "Reducer",
    "Registrator",
    "SafeType",
    "Server",
    "StreamMessage",
    "SupportedType",
    "T",
    "Val",
]
