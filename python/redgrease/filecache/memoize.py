"""Results of functions as entries of a cache.

`FileCache.memoize` and `AsyncFileCache.memoize` are decorators. A call that was made before, in any process, reads its
result from the cache; several that make the same call at once compute it once. The entry's key is made of the
function's module and name, and of its arguments as the function sees them, so ``f(1)`` and ``f(x=1)`` are the same
call, while ``f(1)`` and ``f(1.0)`` are not. Arguments may be numbers, text, bytes, `None`, dates, enum members, paths,
UUIDs, and tuples, lists, sets, dicts and dataclasses of such; for anything else give `key`, or `ignore` the parameter.

Options:

- `ttl`: how many seconds a result is kept; `None`: until it has to make room;
- `timeout`: how many seconds a call waits for another that computes the same result, 60 by default;
- `name`: stands for module and name of the function;
- `version`: change it when the function changes, and old results are no longer found;
- `key`: a function of the same arguments that gives the key (text or bytes) after the name;
- `ignore`: names of parameters that do not matter, ``("self",)`` for instance;
- `serializer`: ``"pickle"`` (any result), ``"json"``, ``"bytes"`` (the function gives bytes) or a pair ``(dumps,
  loads)``.

**Security: reading a pickle can run any code that its writer chose.** Whoever may write to the cache's directory can
then act as every process that calls the function; use ``"json"`` or ``"bytes"`` where you do not trust all of them.

The function that the decorator gives has `cache_key(...)`, `forget(...)`, `cache` and `__wrapped__`.

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
import pickle
import uuid
from typing import TYPE_CHECKING, Any, Callable, Protocol, Union

if TYPE_CHECKING:
    from .cache import Key, Seconds

__all__ = ["Memoized", "memoize"]

#: How results become bytes and bytes results.
Serializer = Union[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]


class Memoized(Protocol):
    """What the decorator gives: the function, and what it has besides."""

    #: The cache of the results.
    cache: Any
    #: The function itself: calling it computes.
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result, from the cache or computed."""

    def cache_key(self, *args: Any, **kwargs: Any) -> bytes:
        """The key of the entry of this call."""

    def forget(self, *args: Any, **kwargs: Any) -> Any:
        """Delete the result of this call; whether there was one."""


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
                digest.update(_canonical(value, parameter))
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
    """Bytes that are the same for equal arguments of the same types, in every process, and differ otherwise."""
    kind = type(value)
    if value is None or kind is bool:
        return _tagged("c", repr(value).encode())
    if kind is int:
        return _tagged("i", b"%d" % value)
    if kind is float:
        return _tagged("f", value.hex().encode())
    if kind is str:
        return _tagged("s", value.encode("utf-8", "surrogatepass"))
    if kind in (bytes, bytearray):
        return _tagged("b", bytes(value))
    if kind in (tuple, list):
        return _tagged(kind.__name__, b"".join(_canonical(item, parameter) for item in value))
    if kind in (set, frozenset):
        return _tagged("set", b"".join(sorted(_canonical(item, parameter) for item in value)))
    if kind is dict:
        pairs = (_canonical(key, parameter) + _canonical(item, parameter) for key, item in value.items())
        return _tagged("dict", b"".join(sorted(pairs)))
    if isinstance(value, enum.Enum):
        return _tagged("enum", f"{kind.__module__}.{kind.__qualname__}.{value.name}".encode())
    if isinstance(value, os.PathLike):
        return _tagged("path", os.fsencode(value))
    if kind in _BY_REPR:
        return _tagged(kind.__name__, repr(value).encode())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return _tagged(f"{kind.__module__}.{kind.__qualname__}", _canonical(items, parameter))
    raise TypeError(
        f"argument {parameter!r} is or holds a {kind.__module__}.{kind.__qualname__}, of which no key can be made: "
        "give memoize(key=...), or ignore the parameter with memoize(ignore=(...))"
    )


_BY_REPR = frozenset(
    (
        complex,
        range,
        uuid.UUID,
        decimal.Decimal,
        fractions.Fraction,
        datetime.date,
        datetime.time,
        datetime.datetime,
        datetime.timedelta,
    )
)


def _tagged(tag: str, data: bytes) -> bytes:
    return b"%s:%d:%s" % (tag.encode(), len(data), data)
