"""`cmd`: the commands of the local shard, inside functions, with the methods of redis-py.

>>> import redgrease
>>> def visit(user):
...     redgrease.cmd.hset(f"user:{user}", "seen", "yes")
...     return redgrease.cmd.incr("visits")

Replies are converted by redis-py: numbers, booleans, dicts, sets, lists. Text is `str`, and `bytes` if it is not UTF-8.
For a reply that is one text, ``bytes()`` returns the stored bytes, so that ``bytes(cmd.get(key))`` works for both.
Arguments may be anything: `bytes` are sent as they are, everything else as its text. Commands act on the local shard,
as the user that ran or registered the function, and never block. Error replies raise redis-py's exceptions, which are
also the server's own (``redisgears.GearsError``).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import redis
from redis.exceptions import ResponseError

from . import runtime
from .client import Redis
from .utils import safe_str

__all__ = ["RuntimeRedis", "Text", "cmd", "get_runtime_client"]


class Text(str):
    """Text from the server: a `str` whose ``bytes()`` are the stored bytes."""

    __slots__ = ()

    def __bytes__(self) -> bytes:
        return self.encode()

    def __reduce__(self) -> Any:
        return str, (str(self),)


def _reply(value: Any) -> Any:
    return Text(value) if type(value) is str else value


def _argument(value: Any) -> str | bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return repr(value) if type(value) is float else str(value)


def _both(redis_error: type[Exception], native: type[Exception]) -> type[Exception]:
    """An exception class that derives from redis-py's and from the server's own class."""
    pair = (redis_error, native)
    if pair not in _BOTH:
        try:
            _BOTH[pair] = type(redis_error.__name__, pair, {"__module__": redis_error.__module__})
        except TypeError:  # their layouts conflict
            _BOTH[pair] = redis_error
    return _BOTH[pair]


_BOTH: dict[tuple[type[Exception], type[Exception]], type[Exception]] = {}


def _error(native: Exception) -> Exception:
    text = str(native)
    known: Any = redis.connection.DefaultParser.EXCEPTION_CLASSES.get(text.partition(" ")[0], ResponseError)
    if isinstance(known, dict):  # errors that share a first word
        known = known.get(text.partition(" ")[2], ResponseError)
    error: Exception = _both(known, type(native))(text)
    return error


class _Local(Redis):
    """A client whose commands go to the local shard without a connection."""

    inside_server = True

    def __init__(self) -> None:
        super().__init__(protocol=2)  # no connection is made before the first command that needs one

    def execute_command(self, *args: Any, **options: Any) -> Any:
        name = safe_str(args[0])
        raw = options.pop("NEVER_DECODE", False)
        try:
            reply = runtime.execute(*name.split(), *map(_argument, args[1:]))
        except runtime.OnlyInServerError:
            raise runtime.OnlyInServerError(f"redgrease.cmd ({name})") from None
        except Exception as native:
            if not isinstance(native, _native_error()):
                raise
            raise _error(native) from native
        options.pop("keys", None)
        options.pop("EMPTY_RESPONSE", None)
        callback = None if raw else dict.get(self.response_callbacks, name.upper())
        reply = _reply(reply)
        return callback(reply, **options) if callback else reply

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on the local shard>"


def _native_error() -> Any:
    return getattr(sys.modules.get("redisgears"), "GearsError", ())


class RuntimeRedis(_Local):
    """The client behind `cmd`. Transactions are atomic blocks, pipelines are buffers in front of them."""

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """A buffer of commands; ``execute()`` runs them, in an atomic block if `transaction`."""
        return _Pipeline(transaction)

    def transaction(self, func: Callable[[Any], Any], *watches: Any, **kwargs: Any) -> Any:
        """Run `func` with a pipeline, and the commands that it has put there, in one atomic block.

        As in redis-py, with `watches` the commands of `func` are executed at once until it calls ``multi()``.
        """
        by_value = kwargs.pop("value_from_callable", False)
        with runtime.atomic():
            pipe = _Pipeline(False)
            if watches:
                pipe.watch(*watches)
            value = func(pipe)
            results = pipe.execute()
        return value if by_value else results

    def pubsub(self, **kwargs: Any) -> NoReturn:
        """Refused: a subscription needs a connection of its own."""
        raise NotImplementedError("there are no subscriptions inside functions: register a function for the events")

    def monitor(self) -> NoReturn:
        """Refused: it needs a connection of its own."""
        raise NotImplementedError("there is no MONITOR inside functions")

    def __reduce__(self) -> Any:
        return get_runtime_client, ()


class _Pipeline(RuntimeRedis):
    """Commands that wait for `execute`."""

    def __init__(self, transaction: bool) -> None:
        # Without redis-py's constructor, which takes a millisecond.
        self.__dict__.update(vars(get_runtime_client()))
        self.__dict__.pop("_gears", None)
        self._atomic = transaction
        self.command_stack: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._immediate = False

    def __enter__(self) -> _Pipeline:
        return self

    def __exit__(self, *error: Any) -> None:
        self.reset()

    def __len__(self) -> int:
        return len(self.command_stack)

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError("a pipeline cannot be pickled: use redgrease.cmd inside functions")

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if self._immediate:
            return super().execute_command(*args, **options)
        self.command_stack.append((args, options))
        return self

    def watch(self, *names: Any) -> bool:  # type: ignore[override]
        """Run commands at once until `multi`, as in redis-py. Nothing is watched: use ``cmd.transaction``."""
        self._immediate = True
        return True

    def unwatch(self) -> bool:  # type: ignore[override]
        """Buffer again."""
        self._immediate = False
        return True

    def multi(self) -> None:
        """Buffer again."""
        self._immediate = False

    def reset(self) -> None:  # type: ignore[override]
        """Forget all commands."""
        self.command_stack = []
        self._immediate = False

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run all commands and return their replies; after all have run, raise the first error."""
        stack = self.command_stack
        self.reset()
        if self._atomic and stack:
            with runtime.atomic():
                replies = self._run(stack)
        else:
            replies = self._run(stack)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    def _run(self, stack: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        replies: list[Any] = []
        for args, options in stack:
            try:
                replies.append(super().execute_command(*args, **options))
            except ResponseError as error:
                replies.append(error)
        return replies


@functools.cache
def get_runtime_client() -> RuntimeRedis:
    """The client for the local shard; one per process."""
    return RuntimeRedis()


def __getattr__(name: str) -> Any:
    if name == "cmd":
        return get_runtime_client()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


cmd: RuntimeRedis
"""Commands of the local shard, inside functions."""
