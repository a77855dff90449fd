"""Encoding of values between client and server: a thin wrapper of the compiled extension.

Without the extension everything works with plain replies: the texts and numbers of the server's protocol.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__all__ = ["VERSION", "available", "dumps", "loads"]

VERSION = 1
"""Requested version of the format."""

_native: ModuleType | None = None
_looked = False


def _extension() -> ModuleType | None:
    global _native, _looked
    if not _looked:
        try:
            _native = importlib.import_module("redgrease._native")
        except ModuleNotFoundError as missing:
            if missing.name != "redgrease._native":
                raise
        _looked = True
    return _native


def available() -> bool:
    """Whether the compiled extension is installed."""
    return _extension() is not None


def _needed() -> Any:
    extension = _extension()
    if extension is None:
        raise ModuleNotFoundError(
            "redgrease._native, the compiled part of redgrease, is not installed: build it, or install a wheel for "
            "this platform",
            name="redgrease._native",
        )
    return extension


def loads(data: bytes, allow_pickle: bool = False) -> Any:
    """Decode a value.

    Args:
        data: bytes made by `dumps` or by the server.
        allow_pickle: whether pickled parts are unpickled, which can run code; otherwise they are refused.

    Raises:
        ValueError: the bytes are not a value, or contain a pickle that is not allowed.
    """
    return _needed().loads(data, allow_pickle)


def dumps(value: Any, pickle: bool = True) -> bytes:
    """Encode a value.

    Args:
        value: numbers, text, `bytes`, `None`, and lists, tuples, dicts and sets of these; other types see `pickle`.
        pickle: whether types unknown to the format are pickled (cloudpickle), with a mark; otherwise they are refused.

    Raises:
        TypeError: the value holds a type that the format does not know, and `pickle` is false.
    """
    data: bytes = _needed().dumps(value, pickle)
    return data
