"""Generator functions that run on the server, for readers with more features than the server's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Callable

from . import utils
from .operations import Reader, Run

__all__ = ["readable"]


def readable(reader: Reader, run: Run) -> tuple[Reader, Run]:
    """Reader and run in a form that the server supports."""
    if reader.reader == "PythonReader" and callable(run.arg) and not _is_generator(run.arg):
        return reader, _with_arg(run, _generating(run.arg))
    if reader.reader == "StreamReader":
        name = reader.defaultArg if run.arg is None else run.arg
        if isinstance(name, str) and any(sign in name for sign in "*?["):
            from_id = run.kwargs.get("fromId", "0-0")
            kept = {key: value for key, value in run.kwargs.items() if key != "fromId"}
            streams = Reader("PythonReader", "*", reader.desc)
            return streams, Run(_messages(name, from_id), run.convertToStr, run.collect, **kept)
    return reader, run


def _is_generator(function: Callable[..., Any]) -> bool:
    """Whether to pass a function unchanged: a generator, or an asynchronous one, which the server refuses."""
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    return any(is_kind(function) for is_kind in kinds)


def _with_arg(run: Run, arg: Any) -> Run:
    """`run` with another argument."""
    return Run(arg, run.convertToStr, run.collect, **run.kwargs)


def _generating(function: Callable[[], Any]) -> Callable[[], Iterator[Any]]:
    """Wrap a function that returns an iterable or a single record into a generator function."""

    def generate() -> Iterator[Any]:
        yield from utils.iterate(function())

    return generate


def _messages(name: str, from_id: str, batch: int = 1000) -> Callable[[], Iterator[dict[str, Any]]]:
    """A generator function over the messages of all streams of the local shard whose names match a pattern."""

    def messages() -> Iterator[dict[str, Any]]:
        from .runtime import execute

        for key in _stream_names(name):
            after = from_id
            while True:
                entries = execute("XRANGE", key, f"({after}", "+", "COUNT", batch)
                for entry_id, fields in entries:
                    each = iter(fields)
                    yield {"key": key, "id": entry_id, "value": dict(zip(each, each))}
                if len(entries) < batch:
                    break
                after = entries[-1][0]

    return messages


def _stream_names(pattern: str) -> Iterator[Any]:
    """Names of local streams: the one with exactly this name, or all that match the pattern."""
    from .runtime import execute

    if execute("TYPE", pattern) == "stream":
        yield pattern
        return
    cursor, seen = "0", set()
    while True:
        cursor, names = execute("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "stream")
        for name in names:
            if name not in seen:
                seen.add(name)
                yield name
        if cursor in ("0", 0):
            return
