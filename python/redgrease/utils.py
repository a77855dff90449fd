"""Parsers, records and small function helpers, for gear functions and for clients. Needs no other package.

>>> from redgrease.utils import compose, record, safe_bool
>>> record({"key": "user:1", "value": {"name": "Ann"}}).value["name"]
'Ann'
>>> compose(str, len)([1, 2, 3])
'3'
>>> safe_bool("yes")
True
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, TypeVar, Union, overload

T = TypeVar("T")

__all__ = [
    "CaseInsensitiveDict",
    "Record",
    "StreamRecord",
    "as_is",
    "bool_ok",
    "compose",
    "dict_filter",
    "dict_of",
    "list_parser",
    "matches_pattern",
    "optional",
    "passfun",
    "record",
    "safe_bool",
    "safe_str",
    "safe_str_upper",
    "str_if_bytes",
    "stream_record",
    "to_bytes",
    "to_dict",
    "to_int_if_bool",
    "to_kwargs",
    "to_list",
    "to_redis_type",
    "transform",
]

# --------------------------------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------------------------------


def as_is(value: T) -> T:
    """Return `value`."""
    return value


def str_if_bytes(value: Any) -> Any:
    """Text of `bytes` (UTF-8; invalid bytes are replaced); anything else unchanged."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def safe_str(value: Any) -> str:
    """Text of anything: ``""`` for `None`, decoded `bytes`, else ``str(value)``."""
    return "" if value is None else str(str_if_bytes(value))


def safe_str_upper(value: Any) -> str:
    """Text of anything, in upper case."""
    return safe_str(value).upper()


def bool_ok(value: Any) -> bool:
    """Whether `value` is a text (or `bytes`) whose first word is ``OK``, in any case."""
    if not isinstance(value, (str, bytes)):
        return False
    return safe_str(value).split(" ", 1)[0].lower() == "ok"


_TRUE_WORDS = frozenset(("true", "ok", "1", "y", "yes"))


def safe_bool(value: Any) -> bool:
    """Truth of a number, or of the words ``true``, ``ok``, ``1``, ``y`` and ``yes`` in any case; else `False`."""
    if isinstance(value, (bool, int, float)):
        return bool(value)
    if isinstance(value, (str, bytes)):
        return safe_str(value).strip().lower() in _TRUE_WORDS
    return False


def optional(constructor: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """A parser that keeps `None` and passes everything else to `constructor`."""

    def parse(value: Any) -> T | None:
        return None if value is None else constructor(value)

    return parse


def to_int_if_bool(value: Any) -> Any:
    """1 and 0 for `True` and `False`; anything else unchanged."""
    return int(value) if isinstance(value, bool) else value


def to_redis_type(value: Any) -> bytes | int | float:
    """The form of `value` that a server stores: `bytes` and numbers unchanged, else its bytes or its encoded text."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (bytes, int, float)):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    if hasattr(type(value), "__bytes__"):
        return bytes(value)
    return str(value).encode()


def to_bytes(value: Any) -> bytes:
    """As `to_redis_type`, and numbers as their text.

    >>> to_bytes(3.5), to_bytes(True), to_bytes(None)
    (b'3.5', b'1', b'')
    """
    stored = to_redis_type(value)
    return stored if isinstance(stored, bytes) else str(stored).encode()


# --------------------------------------------------------------------------------------------------------------
# Flat lists and dicts
# --------------------------------------------------------------------------------------------------------------

Constructors = Union[Callable[[Any], Any], Mapping[Any, Callable[[Any], Any]], None]


def to_list(
    mapping: Mapping[Any, Any] | None,
    key_transform: Callable[[Any], Any] = str_if_bytes,
    val_transform: Callable[[Any], Any] = to_redis_type,
) -> list[Any]:
    """A dict as ``[key, value, key, value …]``; ``[]`` for `None`."""
    flat: list[Any] = []
    for key, value in (mapping or {}).items():
        flat += (key_transform(key), val_transform(value))
    return flat


def transform(value: Any, constructor: Constructors, key: Any = None) -> Any:
    """Convert `value` by a function, or by the entry of a dict of functions for `key` (or for `None`).

    If the function raises `TypeError` or `ValueError`, the value is returned unchanged.
    """
    if isinstance(constructor, Mapping):
        constructor = constructor.get(key, constructor.get(None))
    if constructor is None:
        return value
    try:
        return constructor(value)
    except (TypeError, ValueError):
        return value


def to_dict(
    items: Iterable[Any] | None,
    keys: Iterable[Any] | None = None,
    key_transform: Callable[[Any], Any] | None = None,
    val_transform: Constructors = None,
) -> dict[Any, Any]:
    """A dict of a flat list ``[key, value, …]``, or of values that belong to `keys`. An odd last element is dropped.

    >>> to_dict([b"a", b"1"], key_transform=str_if_bytes, val_transform={"a": int})
    {'a': 1}
    """
    pairs: Iterable[tuple[Any, Any]]
    if items is None:
        pairs = ()
    elif isinstance(items, Mapping):
        pairs = items.items()
    elif keys is None:
        each = iter(items)
        pairs = zip(each, each)
    else:
        pairs = zip(keys, items)
    result = {}
    for key, value in pairs:
        name = transform(key, key_transform)
        result[name] = transform(value, val_transform, name)
    return result


def to_kwargs(items: Iterable[Any] | None) -> dict[str, Any]:
    """As `to_dict`, with texts as keys."""
    return to_dict(items, key_transform=safe_str)


def list_parser(item_parser: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    """A parser of lists; also of a list or tuple printed as text, as servers send them.

    Raises (the parser): `TypeError` for values that are not iterable, `ValueError` for text that is not a list.
    """

    def parse(values: Any) -> list[T]:
        if isinstance(values, (str, bytes)):
            text = safe_str(values)
            try:
                values = ast.literal_eval(text)
            except (SyntaxError, ValueError) as error:
                raise ValueError(f"not a list: {text!r}") from error
            if not isinstance(values, (list, tuple)):
                raise ValueError(f"not a list: {text!r}")
        return [item_parser(value) for value in values]

    return parse


def __getattr__(name: str) -> Any:
    if name == "list_of_str":
        warnings.warn(f"{__name__}.list_of_str will be removed: use list_parser(str)", DeprecationWarning, stacklevel=2)
        return list_parser(safe_str)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def dict_of(
    constructors: Mapping[Any, Callable[[Any], Any]],
) -> Callable[[Iterable[Any], Iterable[Any]], dict[Any, Any]]:
    """A parser ``(values, keys) -> dict`` that converts each value by the entry of `constructors` for its key."""

    def parse(values: Iterable[Any], keys: Iterable[Any]) -> dict[Any, Any]:
        return {key: transform(value, constructors, key) for value, key in zip(values, keys)}

    return parse


class CaseInsensitiveDict(dict[str, Any]):
    """A dict whose keys are the same in upper and lower case (they are kept in upper case).

    >>> CaseInsensitiveDict({"MaxExecutions": 1})["maxexecutions"]
    1
    """

    def __init__(self, mapping: Any = (), **named: Any) -> None:
        super().__init__()
        self.update(mapping, **named)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(safe_str_upper(key))

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(safe_str_upper(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(safe_str_upper(key), value)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(safe_str_upper(key))

    def get(self, key: Any, default: Any = None) -> Any:
        """As `dict.get`."""
        return super().get(safe_str_upper(key), default)

    def pop(self, key: Any, *default: Any) -> Any:
        """As `dict.pop`."""
        return super().pop(safe_str_upper(key), *default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As `dict.setdefault`."""
        return super().setdefault(safe_str_upper(key), default)

    def update(self, mapping: Any = (), **named: Any) -> None:  # type: ignore[override]
        """As `dict.update`."""
        for key, value in {**dict(mapping), **named}.items():
            self[key] = value

    def copy(self) -> CaseInsensitiveDict:
        """As `dict.copy`."""
        return CaseInsensitiveDict(self)

    @classmethod
    def fromkeys(cls, keys: Iterable[Any], value: Any = None) -> CaseInsensitiveDict:  # type: ignore[override]
        """As `dict.fromkeys`."""
        return cls((key, value) for key in keys)

    def __or__(self, other: Any) -> CaseInsensitiveDict:  # type: ignore[override]
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> CaseInsensitiveDict:  # type: ignore[override]
        return CaseInsensitiveDict(other) | self if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> CaseInsensitiveDict:  # type: ignore[override]
        self.update(other)
        return self


# --------------------------------------------------------------------------------------------------------------
# Records
# --------------------------------------------------------------------------------------------------------------


class Record:
    """A record of the KeysReader with attributes in place of dict entries.

    Attributes:
        key: name of the key.
        value: its value, unchanged; `None` if it was not read.
        type: type of the key (``"string"``, ``"hash"``, …), or `None`.
        event: the event that triggered the function, or `None`.
        kwargs: further fields of the record.

    Raises:
        ValueError: the key is missing or empty.
    """

    def __init__(
        self,
        key: Any,
        value: Any = None,
        type: Any = None,
        event: Any = None,
        **kwargs: Any,
    ) -> None:
        if not key:
            raise ValueError(f"a record needs a key, got {key!r}")
        self.key: str = safe_str(key)
        self.value = value
        self.type: str | None = None if type is None else safe_str(type)
        self.event: str | None = None if event is None else safe_str(event)
        self.kwargs = kwargs

    def __eq__(self, other: object) -> bool:
        return self.__class__ is other.__class__ and vars(self) == vars(other)

    def __repr__(self) -> str:
        return _attributes(self, "key", "value", "type", "event")


class StreamRecord:
    """A message of a stream with attributes in place of dict entries.

    Attributes:
        key: name of the stream.
        id: id of the message, such as ``"1528706457610-0"``, or `None`.
        value: fields of the message.
        kwargs: further fields of the record.

    Raises:
        ValueError: the key is missing or empty.
    """

    def __init__(self, key: Any, id: Any = None, value: Any = None, **kwargs: Any) -> None:
        if not key:
            raise ValueError(f"a record needs a key, got {key!r}")
        self.key: str = safe_str(key)
        self.id: str | None = None if id is None else safe_str(id)
        self.value = value
        self.kwargs = kwargs

    def __eq__(self, other: object) -> bool:
        return self.__class__ is other.__class__ and vars(self) == vars(other)

    def __repr__(self) -> str:
        return _attributes(self, "key", "id", "value")


def _attributes(item: Any, *names: str) -> str:
    shown = [f"{name}={getattr(item, name)!r}" for name in names] + [f"{k}={v!r}" for k, v in item.kwargs.items()]
    return f"{type(item).__name__}({', '.join(shown)})"


def record(rec: Any) -> Record:
    """A `Record` of a KeysReader's dict, or of a key's name.

    >>> record({"key": "x", "value": "1", "type": "string", "event": None})
    Record(key='x', value='1', type='string', event=None)
    """
    if isinstance(rec, Record):
        return rec
    return Record(**rec) if isinstance(rec, dict) else Record(rec)


def stream_record(rec: Any) -> StreamRecord:
    """A `StreamRecord` of a StreamReader's dict, or of a stream's name."""
    if isinstance(rec, StreamRecord):
        return rec
    return StreamRecord(**rec) if isinstance(rec, dict) else StreamRecord(rec)


# --------------------------------------------------------------------------------------------------------------
# Functions
# --------------------------------------------------------------------------------------------------------------


def compose(*functions: Callable[..., Any]) -> Callable[..., Any]:
    """One function of several, applied from right to left: ``compose(f, g)(x) == f(g(x))``. None: the identity."""

    def composed(*args: Any, **kwargs: Any) -> Any:
        if not functions:
            return as_is(*args, **kwargs)
        *outer, innermost = functions
        value = innermost(*args, **kwargs)
        for function in reversed(outer):
            value = function(value)
        return value

    return composed


def dict_filter(**conditions: Any) -> Callable[[Mapping[str, Any]], bool]:
    """A predicate on dicts: each key named must be there, and its value must meet the condition.

    A condition is ``...`` (any value), a list, tuple, set or other container of values (one of them), a type (an
    instance of it) or a value (equal to it). Text and `bytes` are values, not containers.

    >>> is_set = dict_filter(type=["set", "zset"], event=...)
    >>> is_set({"type": "zset", "event": None})
    True
    """

    def matches(item: Mapping[str, Any]) -> bool:
        return all(name in item and _meets(item[name], condition) for name, condition in conditions.items())

    return matches


def _meets(value: Any, condition: Any) -> bool:
    if condition is ...:
        return True
    if isinstance(condition, type):
        return isinstance(value, condition)
    if hasattr(condition, "__contains__") and not isinstance(condition, (str, bytes, bytearray)):
        return value in condition
    return bool(value == condition)


@overload
def passfun(fun: Callable[..., T], default: Any = ...) -> Callable[..., T]: ...
@overload
def passfun(fun: Any = ..., default: Any = ...) -> Callable[..., Any]: ...
def passfun(fun: Any = None, default: Any = None) -> Callable[..., Any]:
    """A plain Python function for any callable or value.

    Servers accept plain functions only. A function is returned unchanged; a built-in, class, bound method or other
    callable is wrapped; `None` becomes `default`, or the identity; any other value becomes `default`, or a function
    that always returns that value.

    >>> passfun(int)("42"), passfun()("x"), passfun(7)("x")
    (42, 'x', 7)
    """
    if isinstance(fun, types.FunctionType):
        return fun
    if callable(fun):
        return _forward(fun)
    if default is not None:
        return passfun(default)
    if fun is None:
        return as_is

    def constant(*_args: Any, **_kwargs: Any) -> Any:
        return fun

    return constant


def _forward(fun: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(fun) or inspect.iscoroutinefunction(getattr(fun, "__call__", None)):  # noqa: B004

        async def awaiting(*args: Any, **kwargs: Any) -> Any:
            return await fun(*args, **kwargs)

        return awaiting

    def forwarding(*args: Any, **kwargs: Any) -> Any:
        return fun(*args, **kwargs)

    return forwarding


def iterate(value: Any) -> Iterator[Any]:
    """An iterator over the result of a reader function; a value that is not iterable is the only element."""
    return iter(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else iter((value,))


class _REnum(enum.Enum):
    """Enum of texts: a member equals its text and its bytes, and hashes as the text."""

    def __str__(self) -> str:
        return safe_str(self.value)

    def __bytes__(self) -> bytes:
        return to_bytes(self.value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _REnum):
            other = other.value
        return safe_str(self.value) == safe_str(other)

    def __hash__(self) -> int:
        return hash(safe_str(self.value))


_PATTERN_PARTS = re.compile(r"\*+|\?|\[\^?(?:\\.|[^\]\\])*(?:\]|$)|\\?(?:.|$)", re.DOTALL)


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether a glob pattern of the server matches a name: ``*``, ``?``, ``[a-c]``, ``[^a]``, and ``\\`` as an escape.

    As on the server, ``?`` and brackets stand for one byte of UTF-8.

    >>> matches_pattern("user:*", "user:1"), matches_pattern("user:[ab]", "user:c")
    (True, False)
    """
    # A character for each byte.
    pattern, name = (text.encode("utf-8", "surrogateescape").decode("latin-1") for text in (pattern, name))
    parts = [_single(part) if part[0] != "*" else None for part in _PATTERN_PARTS.findall(pattern) if part]
    part = at = 0
    star: tuple[int, int] | None = None
    while at < len(name):
        single = parts[part] if part < len(parts) else None
        if single is None and part < len(parts):
            part += 1
            star = part, at
        elif single is not None and single.fullmatch(name[at]):
            part, at = part + 1, at + 1
        elif star is None:
            return False
        else:
            star = star[0], star[1] + 1
            part, at = star
    return all(rest is None for rest in parts[part:])


def _single(part: str) -> re.Pattern[str]:
    """Regular expression for the character that a part of a pattern matches."""
    if part == "?":
        return re.compile(".", re.DOTALL)
    if part[0] != "[":
        return re.compile(re.escape(part[1:] if len(part) > 1 else part), re.DOTALL)
    negated = part[1:2] == "^"
    inner = part[1 + negated : -1] if part[-1] == "]" else part[1 + negated :]
    allowed = []
    for first, last, escaped in re.findall(r"([^\\])-(.)|\\?(.)", inner, re.DOTALL):
        low, high = sorted((first, last)) if first else (escaped, escaped)
        allowed.append(f"{re.escape(low)}-{re.escape(high)}")
    if not allowed:
        return re.compile("." if negated else r"(?!)", re.DOTALL)
    return re.compile(f"[{'^' if negated else ''}{''.join(allowed)}]", re.DOTALL)
