"""Constants for the options of gear functions, so that editors can complete them.

>>> from redgrease import KeyType, TriggerMode
>>> TriggerMode.AsyncLocal
'async_local'
>>> KeyType.of({"a": 1})
'hash'
"""

from __future__ import annotations

import logging
from typing import Any, Final


class ReaderType:
    """Names of the readers."""

    KeysReader: Final = "KeysReader"
    KeysOnlyReader: Final = "KeysOnlyReader"
    StreamReader: Final = "StreamReader"
    PythonReader: Final = "PythonReader"
    ShardsIDReader: Final = "ShardsIDReader"
    CommandReader: Final = "CommandReader"


class TriggerMode:
    """How a registered function runs when it is triggered."""

    Async: Final = "async"
    """In the background, distributed over all shards. A command then runs, and answers, once per shard."""
    AsyncLocal: Final = "async_local"
    """In the background, on the shard that was triggered."""
    Sync: Final = "sync"
    """Synchronously, before the server serves other clients, on the shard that was triggered."""


class KeyType:
    """Types of keys, as in a record's ``type`` and in the filter ``keyTypes``."""

    String: Final = "string"
    Hash: Final = "hash"
    List: Final = "list"
    Set: Final = "set"
    ZSet: Final = "zset"
    Stream: Final = "stream"
    Module: Final = "module"

    @staticmethod
    def of(value: Any) -> str:
        """Name of the key type that holds values like `value`, which may also be a Python type.

        Raises:
            ValueError: no key type corresponds to it.
        """
        kind = value if isinstance(value, type) else type(value)
        for name, python in _PYTHON_TYPES.items():
            if issubclass(kind, python):
                return name
        raise ValueError(f"no key type corresponds to {kind.__name__!r}: give str, dict, list or set")

    @staticmethod
    def constructor(name: str) -> type:
        """The Python type for values of the key type `name`.

        Raises:
            KeyError: values of this key type have no Python type.
        """
        return _PYTHON_TYPES[name]


_PYTHON_TYPES: dict[str, type] = {"string": str, "hash": dict, "list": list, "set": set}


class FailurePolicy:
    """Handling of a failed batch by a registered StreamReader function."""

    Continue: Final = "continue"
    """Continue with the next one."""
    Abort: Final = "abort"
    """Stop."""
    Retry: Final = "retry"
    """Repeat it after ``onFailedRetryInterval`` seconds."""


class LogLevel:
    """Levels of the server's log."""

    Debug: Final = "debug"
    Verbose: Final = "verbose"
    Notice: Final = "notice"
    Warning: Final = "warning"

    @staticmethod
    def to_logging_level(name: str) -> int:
        """The level of Python's `logging` for a server level; 20 (`logging.INFO`) for an unknown one."""
        levels = {"debug": logging.DEBUG, "verbose": logging.INFO, "notice": logging.WARNING, "warning": logging.ERROR}
        return levels.get(name, logging.INFO)
