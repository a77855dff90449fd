"""Producers of entries: functions that return bytes, and functions that write."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any, Callable

from .handles import Writer

__all__ = ["as_bytes", "keep_result", "run_producer", "wants_writer"]


def as_bytes(data: Any) -> bytes:
    """The bytes of a buffer, without a copy if it is `bytes`."""
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        raise TypeError("the content of an entry is bytes, not str: encode it, for instance with .encode()")
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise TypeError(f"the content of an entry is bytes or another buffer, not {type(data).__name__}") from None


def wants_writer(producer: Callable[..., Any]) -> bool:
    """Whether a producer takes a writer: it has one positional parameter without a default.

    >>> wants_writer(lambda writer: None), wants_writer(lambda: b""), wants_writer(lambda name="x": b"")
    (True, False, False)
    """
    if not callable(producer):
        raise TypeError(f"a producer is a function that returns bytes or takes a writer, not {type(producer).__name__}")
    try:
        parameters = list(inspect.signature(producer).parameters.values())
    except (TypeError, ValueError):
        return False
    needed = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(needed) > 1 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in needed):
        names = ", ".join(parameter.name for parameter in needed)
        raise TypeError(f"a producer takes nothing, or a writer; {producer!r} needs {names}: wrap it in a lambda")
    return bool(needed)


def keep_result(producer: Any, takes_writer: bool, result: Any, written: int) -> Any:
    """The part of a producer's result that is still to be written; refuses results that are most likely mistakes."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(f"{producer!r} is asynchronous: AsyncFileCache takes such producers, FileCache does not")
    if _is_unfinished(result):
        if inspect.isgenerator(result):
            result.close()
        raise TypeError(
            f"{producer!r} returned a {type(result).__name__}, whose work is not done yet; nothing was published: a "
            "producer writes before it returns, and does not yield"
        )
    if takes_writer:
        if not isinstance(result, (bytes, bytearray, memoryview)):
            # The value of the last call in a lambda: a count, `None`, anything.
            return None
        if written:
            raise TypeError(f"{producer!r} wrote {written} bytes and returned {len(result)} more: do one of the two")
    return as_bytes(result)


def _is_unfinished(result: Any) -> bool:
    """Whether a result represents unfinished work: a generator, a lazy `map`, a future."""
    if isinstance(result, io.IOBase):
        # A file, such as the writer, is its own iterator.
        return False
    return isinstance(result, (Iterator, AsyncIterator, Future))


def run_producer(producer: Callable[..., Any], writer: Writer) -> None:
    """Run a producer and write its result."""
    takes_writer = wants_writer(producer)
    result = producer(writer) if takes_writer else producer()
    data = keep_result(producer, takes_writer, result, writer.tell())
    if data is not None:
        writer.write(data)
