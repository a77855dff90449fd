"""Error replies of a server as exceptions. All are `redis.exceptions.ResponseError`, so one `except` catches them."""

from __future__ import annotations

import ast
import re

from redis.exceptions import ResponseError

from .runtime import OnlyInServerError

__all__ = ["DuplicateTriggerError", "OnlyInServerError", "ScriptError", "parse_traceback"]

_LAST_LINE = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$", re.DOTALL)


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


def split_last_line(lines: list[str]) -> tuple[str, str]:
    """Type and message of the exception at the end of a traceback; type ``""`` if it is not a traceback."""
    text = lines[-1].strip()
    if len(lines) > 1:
        match = _LAST_LINE.match(text)
        if match:
            return match["type"], match["message"] or ""
    return "", text


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
    if "trigger already registered" in parse_traceback(raw)[-1]:
        return DuplicateTriggerError(raw, trigger)
    if type(error) is ResponseError:
        return ScriptError(raw)
    return error  # busy, out of memory, no permission …: redis-py has a class for it
