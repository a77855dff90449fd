"""Decorators that store results of functions as entries of a cache.

`FileCache.memoize` and `AsyncFileCache.memoize` are decorators. A call that was made before, in any process, reads its
result from the cache; concurrent equal calls compute it once. The entry's key is made of the function's module and
name, and of its bound arguments, so ``f(1)`` and ``f(x=1)`` are the same call, while ``f(1)`` and ``f(1.0)`` are not.

Arguments may be numbers, text, bytes, `None`, dates and times (with a time zone of `datetime` or `zoneinfo`), enum
members, paths of `pathlib`, UUIDs, and tuples, lists, sets, dicts and dataclasses of these. An enum member is
identified by class and value, a dataclass by its class and all its attributes. Types are compared exactly: any
other type, including a subclass of these types, is refused. Pass `key`, or `ignore` the parameter.

Options:

- `ttl`: time to live of a result in seconds; `None`: until it is evicted;
- `timeout`: seconds that a call waits for another one that computes the same result, 60 by default;
- `name`: replaces module and name of the function in the key;
- `version`: change it with the function, so that old results are no longer found;
- `key`: a function of the same arguments that returns the part of the key (text or bytes) after the name;
- `ignore`: names of parameters that are not part of the key, for instance ``("self",)``;
- `serializer`: ``"pickle"`` (any result), ``"json"``, ``"bytes"`` (the function returns bytes) or a pair ``(dumps,
  loads)``.

**Security: reading a pickle can run any code that its writer chose.** Every user with write access to the cache's
directory can act as every process that calls the function. Use ``"json"`` or ``"bytes"`` unless you trust all of them.

The decorated function has `cache_key(...)`, `forget(...)`, `cache` and `__wrapped__`.

>>> @cache.memoize(serializer="json", version=2)
... def area(width, height=1):
...     return {"area": width * height}
>>> area(2, 3), cache.exists(area.cache_key(width=2, height=3)), area.forget(2, 3), area.forget(2, 3)
({'area': 6}, True, True, False)
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import inspect
import json
import os
import pathlib
import pickle
import uuid
import zoneinfo
from typing import TYPE_CHECKING, Any, Callable, Protocol, Union

if TYPE_CHECKING:
    from .cache import Key, Seconds

__all__ = ["Memoized", "memoize"]

#: Conversion between results and bytes.
Serializer = Union[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]


class Memoized(Protocol):
    """A decorated function and its additional methods."""

    #: The cache of the results.
    cache: Any
    #: The original function, without the cache.
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result, from the cache or computed."""

    def cache_key(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the key of the entry of this call."""

    def forget(self, *args: Any, **kwargs: Any) -> Any:
        """Delete the result of this call; return whether there was one."""


def _bytes_only(result: Any) -> bytes:
    from .producers import as_bytes

    return as_bytes(result)


def _unchanged(data: bytes) -> bytes:
    return data


_SERIALIZERS: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "pickle": (pickle.dumps, pickle.loads),
    "json": (lambda result: json.dumps(result, separators=(",", ":")).encode(), json.loads),
    "bytes": (_bytes_only, _unchanged),
}


def memoize(
    cache: Any,
    function: Callable[..., Any] | None = None,
    *,
    ttl: Seconds | None = None,
    timeout: Seconds = 60.0,
    name: str | None = None,
    version: str | int = "",
    key: Callable[..., Key] | None = None,
    ignore: tuple[str, ...] = (),
    serializer: Serializer = "pickle",
) -> Any:
    """The decorator behind `FileCache.memoize`; its options are described at the top of this module."""
    if function is None:
        return functools.partial(
            memoize,
            cache,
            ttl=ttl,
            timeout=timeout,
            name=name,
            version=version,
            key=key,
            ignore=ignore,
            serializer=serializer,
        )
    if not callable(function):
        raise TypeError(f"memoize decorates a function, not {type(function).__name__}; options are given by keyword")
    if isinstance(serializer, str):
        if serializer not in _SERIALIZERS:
            raise ValueError(f"serializer must be 'pickle', 'json', 'bytes' or (dumps, loads), not {serializer!r}")
        dumps, loads = _SERIALIZERS[serializer]
    else:
        dumps, loads = serializer
    if isinstance(ignore, str):
        ignore = (ignore,)
    signature = inspect.signature(function)
    unknown = set(ignore) - set(signature.parameters)
    if unknown:
        raise ValueError(f"ignore names parameters that {function.__qualname__} does not have: {sorted(unknown)}")
    prefix = name if name is not None else f"{function.__module__}.{function.__qualname__}"
    if version != "":
        prefix = f"{prefix}@{version}"

    def cache_key(*args: Any, **kwargs: Any) -> bytes:
        if key is not None:
            own = key(*args, **kwargs)
            return f"{prefix}:".encode() + (own.encode() if isinstance(own, str) else own)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        digest = hashlib.blake2b(digest_size=16)
        for parameter, value in bound.arguments.items():
            if parameter not in ignore:
                digest.update(_canonical(parameter, parameter))
                try:
                    digest.update(_canonical(value, parameter))
                except RecursionError:
                    raise _no_key(type(value), parameter, ", nested too deeply or in itself") from None
        return f"{prefix}:{digest.hexdigest()}".encode()

    memoized: Any
    if inspect.iscoroutinefunction(function):
        if not hasattr(cache, "_is_async"):
            raise TypeError(f"{function.__qualname__} is asynchronous: memoize it with an AsyncFileCache")

        @functools.wraps(function)
        async def memoized(*args: Any, **kwargs: Any) -> Any:
            async def produce() -> bytes:
                return dumps(await function(*args, **kwargs))

            async with cache.get_or_create(cache_key(*args, **kwargs), produce, timeout=timeout, ttl=ttl) as got:
                return loads(await got.read())

    else:
        if hasattr(cache, "_is_async"):
            raise TypeError(f"{function.__qualname__} is not asynchronous: memoize it with a FileCache")

        @functools.wraps(function)
        def memoized(*args: Any, **kwargs: Any) -> Any:
            def produce() -> bytes:
                return dumps(function(*args, **kwargs))

            with cache.get_or_create(cache_key(*args, **kwargs), produce, timeout=timeout, ttl=ttl) as got:
                return loads(got.read())

    def forget(*args: Any, **kwargs: Any) -> Any:
        return cache.delete(cache_key(*args, **kwargs))

    memoized.cache = cache
    memoized.cache_key = cache_key
    memoized.forget = forget
    return memoized


def _canonical(value: Any, parameter: str) -> bytes:
    """Bytes that are equal for equal arguments of the same types, in every process, and different otherwise."""
    kind = type(value)
    plain = _PLAIN.get(kind)
    if plain is not None:
        return _tagged(plain(value), kind.__name__)
    if kind in (tuple, list):
        return _tagged(b"".join(_canonical(item, parameter) for item in value), kind.__name__)
    if kind in (set, frozenset):
        return _tagged(b"".join(sorted(_canonical(item, parameter) for item in value)), kind.__name__)
    if kind is dict:
        pairs = (_canonical(key, parameter) + _canonical(item, parameter) for key, item in value.items())
        return _tagged(b"".join(sorted(pairs)), kind.__name__)
    if isinstance(value, enum.Enum):
        return _tagged(_member(value, parameter), "enum", *_class_name(kind))
    if kind in (datetime.datetime, datetime.time):
        zone = _zone(value.tzinfo, parameter)
        return _tagged(_tagged(repr(value.replace(tzinfo=None)).encode()) + zone, kind.__name__)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and _is_of_python(kind):
        state = sorted(_state(value).items())
        return _tagged(b"".join(_canonical(item, parameter) for item in state), "dataclass", *_class_name(kind))
    raise _no_key(kind, parameter)


def _no_key(kind: type, parameter: str, why: str = "") -> TypeError:
    return TypeError(
        f"argument {parameter!r} is or holds a {kind.__module__}.{kind.__qualname__}{why}, which cannot be part of a "
        "key: give memoize(key=...), or ignore the parameter with memoize(ignore=(...))"
    )


def _tagged(data: bytes, *tags: str) -> bytes:
    """Length-prefixed bytes, so that no two lists of them are equal when joined."""
    tagged = b"".join(b"%d:%s" % (len(tag), tag) for tag in (each.encode("utf-8", "surrogatepass") for each in tags))
    return b"%s=%d:%s" % (tagged, len(data), data)


def _class_name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _integer(value: int) -> bytes:
    # Decimal digits are limited to 4300 by the interpreter, and take quadratic time.
    return b"%x" % value


def _integers(*values: int) -> bytes:
    return b",".join(map(_integer, values))


def _decimal(value: decimal.Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    return f"{sign} {bytes(digits).hex()} {exponent}".encode()


#: Encoders of simple types. Types are compared exactly: a subclass may have more state.
_PLAIN: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"",
    bool: lambda value: b"1" if value else b"0",
    int: _integer,
    float: lambda value: value.hex().encode(),
    complex: lambda value: f"{value.real.hex()} {value.imag.hex()}".encode(),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: bytes,
    bytearray: bytes,
    range: lambda value: _integers(value.start, value.stop, value.step),
    uuid.UUID: lambda value: value.bytes,
    decimal.Decimal: _decimal,
    fractions.Fraction: lambda value: _integers(value.numerator, value.denominator),
    datetime.date: lambda value: value.isoformat().encode(),
    datetime.timedelta: lambda value: _integers(value.days, value.seconds, value.microseconds),
    **dict.fromkeys(
        (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath), os.fsencode
    ),
}


def _member(value: enum.Enum, parameter: str) -> bytes:
    """Bytes of a member of an enumeration: its value and, where it is not a combination of flags, its name."""
    try:
        data = _canonical(value.value, parameter)
    except TypeError:
        if value.name is None:
            raise
        # Members of a class differ by name.
        data = b""
    # Versions of Python name combined flags differently, or not at all.
    return data if isinstance(value, enum.Flag) and data else data + _canonical(value.name, parameter)


def _zone(zone: datetime.tzinfo | None, parameter: str) -> bytes:
    """Bytes of a time zone. Supports only zones that their text identifies; other zones may share a text."""
    kind = type(zone)
    if zone is None or kind is datetime.timezone:
        return _tagged(repr(zone).encode())
    if kind is zoneinfo.ZoneInfo and isinstance(zone, zoneinfo.ZoneInfo) and zone.key is not None:
        return _tagged(zone.key.encode("utf-8", "surrogatepass"), "zone")
    raise _no_key(kind, parameter)


def _is_of_python(kind: type) -> bool:
    """Whether a class and all its bases are written in Python, so that `_state` finds the state of an instance."""
    return all(base is object or base.__flags__ & _HEAP_TYPE for base in kind.__mro__)


#: Flag of types that a class statement (or an extension, at run time) made: `Py_TPFLAGS_HEAPTYPE`.
_HEAP_TYPE = 1 << 9


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an instance: fields and others, except cached values that can be computed again."""
    state: dict[str, Any] = {}
    for base in type(value).__mro__:
        for name, attribute in vars(base).items():
            if inspect.ismemberdescriptor(attribute) and hasattr(value, name):
                state[name] = getattr(value, name)
    for name, item in getattr(value, "__dict__", {}).items():
        if not isinstance(inspect.getattr_static(type(value), name, None), functools.cached_property):
            state[name] = item
    for field in dataclasses.fields(value):
        if hasattr(value, field.name):
            state.setdefault(field.name, getattr(value, field.name))
    return state
