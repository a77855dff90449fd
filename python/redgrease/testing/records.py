"""The records that a reader makes, from plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable

from .. import _native
from ..gears import GearFunction, Register

__all__ = ["arguments_of", "command_name", "read"]


def command_name(function: GearFunction[Any]) -> str:
    """Name of the command that a function registers: the first item of its record."""
    action = function.operation
    options = action.kwargs if isinstance(action, Register) else {}
    return str(options.get("trigger") or options.get("hook"))


def arguments_of(arguments: Iterable[Any] | None) -> list[Any]:
    """Arguments of a command as it gets them."""
    if isinstance(arguments, (str, bytes)):
        raise TypeError(f"arguments is a list of the command's arguments, got {arguments!r}: give [{arguments!r}]")
    return [_text(argument) for argument in arguments or ()]


def read(
    function: GearFunction[Any], plan: Any, data: Mapping[Any, Any] | Iterable[Any] | None
) -> tuple[Callable[[], Any] | None, Iterable[Any]]:
    """Read the records of a function.

    Args:
        function: a closed function.
        plan: its plan.
        data: the argument of `run_local`.

    Returns:
        The function that makes the records where the plan is executed, or `None`; and the records, if there is none.
    """
    reader = function.reader
    if data is None:
        # The function of a KeysOnlyReader reads from a server.
        if plan.source is None or reader == "KeysOnlyReader":
            raise TypeError(
                f"the {reader} reads from a server: give run_local the records, or the content of a database"
            )
        return plan.source, ()
    if not isinstance(data, Mapping):
        if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
            raise TypeError(f"data is a mapping, or a list of records, got {data!r}")
        return None, data
    if isinstance(function.operation, Register):
        raise TypeError(
            "a registered function does not read, it gets the records of events: give a list of records, such as "
            "[{'key': 'a', 'value': '1', 'type': 'string', 'event': 'set'}]"
        )
    if reader not in _READERS:
        raise TypeError(f"the {reader} reads no database: give a list of records instead of a mapping")
    if plan.source is not None:
        raise TypeError(f"this {reader} has a function that reads from a server: give a list of records")
    return None, _READERS[reader](data, _native.loads(plan.spec)["args"])


def _keys(content: Mapping[Any, Any], args: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in _selected(content, args["pattern"], args["noScan"]):
        if args["readValue"]:
            kind, stored = _stored(name, value)
            yield {"key": name, "value": stored, "type": kind, "event": None}
        else:
            yield {"key": name, "event": None}


def _key_names(content: Mapping[Any, Any], args: Mapping[str, Any]) -> Iterator[Any]:
    for name, _ in _selected(content, args["pattern"], args["noScan"]):
        yield name


def _messages(content: Mapping[Any, Any], args: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = {_bytes(name) for name in content}
    exact = not args["pattern"] or _bytes(args["key"]) in names
    after = _id(args["fromId"])
    for name, messages in _selected(content, args["key"], exact):
        for number, message in enumerate(messages, 1):
            at, fields = message if isinstance(message, tuple) else (f"{number}-0", message)
            if not isinstance(fields, Mapping):
                raise TypeError(f"a message of the stream {name!r} is a mapping of its fields, got {fields!r}")
            if _id(at) > after:
                yield {"key": name, "id": at, "value": _hash(fields)}


_READERS: dict[str | None, Callable[[Mapping[Any, Any], Mapping[str, Any]], Iterator[Any]]] = {
    "KeysReader": _keys,
    "KeysOnlyReader": _key_names,
    "StreamReader": _messages,
}


def _selected(content: Mapping[Any, Any], pattern: Any, is_exact: bool) -> Iterator[tuple[Any, Any]]:
    """Names and values whose names match."""
    wanted = _bytes(pattern)
    for name, value in content.items():
        found = _bytes(name)
        if found == wanted if is_exact else _native.matches_pattern(wanted, found):
            yield _text(name), value


def _stored(name: Any, value: Any) -> tuple[str, Any]:
    """Type and value of a key, as a KeysReader has them."""
    if isinstance(value, Mapping):
        return "hash", _hash(value)
    if isinstance(value, (list, tuple)):
        return "list", [_text(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return "set", None
    try:
        return "string", _text(value)
    except TypeError:
        raise TypeError(
            f"the value of the key {name!r} is text, bytes, a number, a mapping (hash), a list or a set, got {value!r}"
        ) from None


def _hash(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    return {_text(field): _text(value) for field, value in fields.items()}


def _id(text: Any) -> tuple[int, int]:
    """Both numbers of the id of a message."""
    first, _, second = str(_text(text)).partition("-")
    return int(first), int(second or 0)


def _bytes(value: Any) -> bytes:
    """A value as the server stores it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value).encode()
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"a text of a database is text, bytes or a number, got {value!r}")


def _text(value: Any) -> str | bytes:
    """A value as a function gets it from the server: text, or `bytes` where it is not UTF-8."""
    stored = _bytes(value)
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored
