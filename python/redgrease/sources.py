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
            return reader, Run(run.arg, run.convertToStr, run.collect, **{"pattern": True, **run.kwargs})
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
