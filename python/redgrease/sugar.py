"""Constants for the options of gear functions, so that editors can complete them.

Each constant is the text that the server knows: a `str` in comparisons, messages, JSON and commands.

>>> from redgrease import KeyType, TriggerMode
>>> TriggerMode.AsyncLocal
'async_local'
>>> KeyType.of({"a": 1})
'hash'
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any

__all__ = ["FailurePolicy", "KeyType", "LogLevel", "ReaderType", "TriggerMode"]


class _Text(str, Enum):
    """Constants that are texts on every version of Python; `enum.StrEnum` exists only since 3.11."""

    def __str__(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        return str.__repr__(self)

    def __format__(self, spec: str) -> str:
        return format(str.__str__(self), spec)


class ReaderType(_Text):
    """Names of the readers."""

    KeysReader = "KeysReader"
    KeysOnlyReader = "KeysOnlyReader"
    StreamReader = "StreamReader"
    PythonReader = "PythonReader"
    ShardsIDReader = "ShardsIDReader"
    CommandReader = "CommandReader"


class TriggerMode(_Text):
    """How a registered function runs when it is triggered."""

    Async = "async"
    """In the background, distributed over all shards. A command then runs, and answers, once per shard."""
    AsyncLocal = "async_local"
    """In the background, on the shard that was triggered."""
    Sync = "sync"
    """Synchronously, before the server serves other clients, on the shard that was triggered."""


class KeyType(_Text):
    """Types of keys, as in a record's ``type`` and in the filter ``keyTypes``."""

    String = "string"
    Hash = "hash"
    List = "list"
    Set = "set"
    ZSet = "zset"
    Stream = "stream"
    Module = "module"

    @staticmethod
    def of(value: Any) -> KeyType:
        """The key type that holds values like `value`, which may also be a Python type.

        Raises:
            ValueError: no key type corresponds to it.
        """
        kind = value if isinstance(value, type) else type(value)
        for name, python in _PYTHON_TYPES.items():
            if issubclass(kind, python):
                return KeyType(name)
        raise ValueError(f"no key type corresponds to {kind.__name__!r}: give str, dict, list or set")

    @staticmethod
    def constructor(name: str) -> type:
        """The Python type for values of the key type `name`.

        Raises:
            KeyError: values of this key type have no Python type.
        """
        return _PYTHON_TYPES[name]


_PYTHON_TYPES: dict[str, type] = {"string": str, "hash": dict, "list": list, "set": set}


class FailurePolicy(_Text):
    """Handling of a failed batch by a registered StreamReader function."""

    Continue = "continue"
    """Continue with the next one."""
    Abort = "abort"
    """Stop."""
    Retry = "retry"
    """Repeat it after ``onFailedRetryInterval`` seconds."""


class LogLevel(_Text):
    """Levels of the server's log."""

    Debug = "debug"
    Verbose = "verbose"
    Notice = "notice"
    Warning = "warning"

    @staticmethod
    def to_logging_level(name: str) -> int:
        """The level of Python's `logging` for a server level; 20 (`logging.INFO`) for an unknown one."""
        levels = {"debug": logging.DEBUG, "verbose": logging.INFO, "notice": logging.WARNING, "warning": logging.ERROR}
        return levels.get(name, logging.INFO)
