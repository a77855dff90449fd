"""Error replies of a server as exceptions. All are `redis.exceptions.ResponseError`, so one `except` catches them.

For a client of valkey-py they are also exceptions of that library: ``except valkey.exceptions.ResponseError`` and
``except redis.exceptions.ResponseError`` both catch them.
"""

from __future__ import annotations

import ast
import functools
import re
from typing import Any

import redis.exceptions
from redis.exceptions import ResponseError

from .runtime import OnlyInServerError

__all__ = [
    "DuplicateTriggerError",
    "OnlyInServerError",
    "ScriptError",
    "is_error_reply",
    "parse_traceback",
    "redis_error",
    "redis_reply",
]

_LAST_LINE = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$", re.DOTALL)
#: The text of an error that no line of Python code raised, such as that of comparing unlike records.
_WITHOUT_LINES = re.compile(r"^Error type: <class '(?P<type>[^']*)'>, Value:(?: (?P<message>.*))?$", re.DOTALL)


def parse_traceback(text: str) -> list[str]:
    """Lines of a traceback printed as a list; any other text is the only line."""
    if text.startswith("["):
        try:
            lines = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return [text]
        if isinstance(lines, list) and lines and all(isinstance(line, str) for line in lines):
            return lines
    return [text]


def _exception_of(lines: list[str]) -> str:
    """The exception at the end of a traceback; notes are lines behind it, and a group's own exceptions."""
    if lines[0].lstrip().startswith("+ Exception Group Traceback"):
        own = (line[4:] for line in lines if line.startswith("  | ") and not line[4:5].isspace())
        return next(own, lines[-1])
    begin = len(lines)
    while begin > 1 and not lines[begin - 1][:1].isspace():
        begin -= 1
    return next((line for line in lines[begin:] if _LAST_LINE.match(line.strip())), lines[-1])


def split_last_line(lines: list[str]) -> tuple[str, str]:
    """Type and message of the exception at the end of a traceback; type ``""`` if there was none."""
    text = _exception_of(lines).strip()
    match = _LAST_LINE.match(text) if len(lines) > 1 else _WITHOUT_LINES.match(text)
    return (match["type"], match["message"] or "") if match else ("", text)


class ScriptError(ResponseError):
    """The server could not run a script, or a command's function failed.

    Attributes:
        raw: the received text.
        traceback: lines of the Python traceback, if the text was one; else the text as the only line.
        type: name of the Python exception, such as ``"NameError"``; ``""`` if there was none.
        message: its message; without an exception, the whole text.
    """

    def __init__(self, raw: str) -> None:
        super().__init__(raw)
        self.raw = raw
        self.traceback = parse_traceback(raw)
        self.type, self.message = split_last_line(self.traceback)

    def __str__(self) -> str:
        return "".join(self.traceback).rstrip("\n")


class DuplicateTriggerError(ScriptError):
    """A command of this name is registered already.

    Attributes:
        trigger: the name, if it is known.
    """

    def __init__(self, raw: str, trigger: str | None = None) -> None:
        super().__init__(raw)
        self.trigger = trigger

    def __str__(self) -> str:
        name = "of this name" if self.trigger is None else repr(self.trigger)
        return (
            f"trigger already registered: a command {name} exists; use replace=True to replace it, "
            "or replace=False to keep the old one"
        )


def script_error(error: ResponseError, trigger: str | None = None) -> ResponseError:
    """The most specific exception for an error reply."""
    raw = str(error)
    foreign = getattr(error, "foreign_class", None)
    if "trigger already registered" in parse_traceback(raw)[-1]:
        kind: Any = DuplicateTriggerError
    elif getattr(error, "redis_class", type(error)) is ResponseError:
        kind = ScriptError
    else:
        return error  # busy, out of memory, no permission …: redis-py has a class for it
    made: ScriptError = kind(raw) if foreign is None else _both(kind, foreign)(raw)
    if isinstance(made, DuplicateTriggerError):
        made.trigger = trigger
    return made


# --------------------------------------------------------------------------------------------------------------
# Exceptions of valkey-py
# --------------------------------------------------------------------------------------------------------------


@functools.cache
def _both(ours: Any, foreign: Any) -> Any:
    """A subclass of two exception classes, with the name of the first one."""

    def reduce(error: Exception) -> tuple[Any, tuple[Any, ...]]:
        return ours, error.args

    fields = {"__module__": ours.__module__, "__reduce__": reduce, "redis_class": ours, "foreign_class": foreign}
    return type(ours.__name__, (ours, foreign), fields)


def redis_error(error: Exception) -> Exception:
    """An exception of valkey-py as one that is also redis-py's exception with that meaning; others unchanged."""
    if hasattr(error, "foreign_class"):
        return error
    for base in type(error).__mro__:
        ours = None
        if base.__module__ == "valkey.exceptions":
            ours = getattr(redis.exceptions, base.__name__.replace("Valkey", "Redis"), None)
        if ours is not None:
            foreign: Any = type(error)
            both: Exception = _both(ours, foreign)(*error.args)
            both.__cause__ = error
            return both
    return error


def is_error_reply(error: BaseException) -> bool:
    """Whether an exception of redis-py or valkey-py is a reply of the server."""
    return isinstance(error, ResponseError) or any(
        base.__module__ == "valkey.exceptions" and base.__name__ == "ResponseError" for base in type(error).__mro__
    )


def redis_reply(reply: Any) -> Any:
    """A reply whose elements that are exceptions of valkey-py are also redis-py's."""
    if isinstance(reply, list):
        return [redis_error(each) if isinstance(each, Exception) else each for each in reply]
    return reply
