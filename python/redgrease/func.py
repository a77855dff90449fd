# ruff: noqa: N803 - names as users of the original know them
"""Decorator that turns a function into a command.

>>> import redgrease
>>> @redgrease.command(requirements=["requests"])
... def fetch(url):
...     return requests.get(url).content
>>> fetch
CommandReader().map(Apply(fetch)).register(mode='async_local', trigger='fetch')
"""

from __future__ import annotations

import inspect
import sys
import uuid
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, TypeVar, overload

from . import calls
from .exchange import is_async
from .gears import ClosedGearFunction, Map, execute_options
from .reader import Apply, CommandReader

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import EllipsisType
    from typing import Generic, Protocol, TypeVar

    from typing_extensions import ParamSpec

    from .caching.settings import CacheSettings
    from .data import ExecutionResult
    from .gears import Awaited
    from .typing import AsyncServer, Server

    _P = ParamSpec("_P")
    _R = TypeVar("_R")

    class Command(ExecutionResult[_R], Generic[_P, _R]):
        """Type of a registered command: calling it triggers the command."""

        def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> ExecutionResult[_R]: ...

    class Decorator(Protocol):
        """Type of ``@command(...)``."""

        @overload
        def __call__(self, function: Callable[..., Coroutine[Any, Any, _R]], /) -> CommandFunction[_R]: ...
        @overload
        def __call__(self, function: Callable[..., _R], /) -> CommandFunction[_R]: ...

    class RegisteringDecorator(Protocol):
        """Type of ``@command(on=client, ...)``."""

        @overload
        def __call__(self, function: Callable[_P, Coroutine[Any, Any, _R]], /) -> Command[_P, _R]: ...
        @overload
        def __call__(self, function: Callable[_P, _R], /) -> Command[_P, _R]: ...

    class AsyncCommand(Awaited[_R], Generic[_P, _R]):
        """Type of a command of a client with coroutines: calls are awaited, and so is its registration."""

        def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> Coroutine[Any, Any, ExecutionResult[_R]]: ...
        def __getattr__(self, name: str) -> Any: ...

    class AsyncRegisteringDecorator(Protocol):
        """Type of ``@command(on=client, ...)`` for a client with coroutines."""

        @overload
        def __call__(self, function: Callable[_P, Coroutine[Any, Any, _R]], /) -> AsyncCommand[_P, _R]: ...
        @overload
        def __call__(self, function: Callable[_P, _R], /) -> AsyncCommand[_P, _R]: ...


__all__ = ["CommandFunction", "command", "trigger"]

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class TypedApply(Apply):
    """A function called with the arguments of a command, which keep their types."""

    def _function(self) -> Callable[..., Any]:
        fun = self.fun
        if inspect.iscoroutinefunction(fun):

            async def apply(record: list[Any]) -> Any:
                args, kwargs = calls.unpack(record[1:])
                return await fun(*args, **kwargs)

            return apply

        def call(record: list[Any]) -> Any:
            args, kwargs = calls.unpack(record[1:])
            return fun(*args, **kwargs)

        return call

    def proxy(self, gears: Any, name: str) -> Any:
        """See `redgrease.reader.Apply.proxy`."""
        from .engine import TypedProxy

        return TypedProxy(gears, name, self.fun)


@dataclass(frozen=True, repr=False)
class CachedApply(Apply):
    """A function called with the arguments of a command, whose results are kept."""

    name: str
    settings: CacheSettings
    key: Any = None
    secret: bytes = field(default=b"", repr=False)

    def _function(self) -> Callable[..., Any]:
        from .caching.serving import Server

        return Server(self.name, self.fun, self.settings, self.key, self.secret)

    def proxy(self, gears: Any, name: str, settings: CacheSettings | None = None, registering: Any = None) -> Any:
        """See `redgrease.reader.Apply.proxy`.

        Args:
            gears: where the command is called.
            name: name of the command.
            settings: those of a command that existed before.
            registering: for a client with coroutines: makes the exchange that registers the command.
        """
        arguments = (gears, name, self.fun, settings or self.settings, self.key, self.secret)
        if is_async(gears._redis):
            from .caching.aio import AsyncCachedCommand

            return AsyncCachedCommand(*arguments, registering)
        from .caching.command import CachedCommand

        return CachedCommand(*arguments)


class CommandFunction(ClosedGearFunction[T]):
    """A command that is not registered yet, with the name, documentation and signature of its function.

    ``.on(server)`` registers it and returns what triggers it. Calling this object raises `TypeError`.
    """

    def __init__(self, closed: ClosedGearFunction[T], function: Callable[..., Any]) -> None:
        super().__init__(closed.operation, closed.input_function, closed.requirements)
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            value = getattr(function, name, None)
            if value is not None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "__wrapped__", function)

    def on(
        self,
        gears_server: Any,
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        replace: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Register the command on a server; see `ClosedGearFunction.on`."""
        applied = _applied(self)
        if not isinstance(applied, CachedApply):
            return super().on(gears_server, unblocking, requirements, replace, **kwargs)
        from .caching.command import register

        if unblocking or kwargs:
            given = [*(["unblocking"] if unblocking else []), *kwargs]
            raise TypeError(f"a command whose results are kept is registered without {', '.join(given)}")
        return register(self, applied, gears_server, requirements, replace)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - see the class
        name = self.operation.kwargs.get("trigger")  # type: ignore[attr-defined]
        raise TypeError(f"the command {name!r} is not registered: call what .on(server) returns, or decorate with on=")


def _applied(closed: ClosedGearFunction[Any]) -> Any:
    return closed.operations[1].op  # type: ignore[attr-defined]


@overload
def command(trigger: Callable[..., Coroutine[Any, Any, _R]], /) -> CommandFunction[_R]: ...
@overload
def command(trigger: Callable[..., _R], /) -> CommandFunction[_R]: ...
@overload
def command(
    trigger: str | EllipsisType | None = None,
    prefix: str = "*",
    collect: bool = True,
    mode: str | None = "async_local",
    onRegistered: Callable[[], None] | None = None,
    *,
    on: AsyncServer,
    replace: bool | None = None,
    requirements: Iterable[Any] | None = None,
    typed: bool = False,
    ttl: float | None = None,
    coalesce: bool | None = None,
    key: str | Callable[..., Any] | None = None,
    timeout: float = ...,
    negative_ttl: float = ...,
    sliding: bool = ...,
    stale: float = ...,
    lease: float = ...,
    max_value_bytes: int = ...,
    max_bytes: int = ...,
    max_running: int = ...,
    namespace: str = ...,
    direct: bool = ...,
    inorder: bool = ...,
    convertToStr: bool = ...,
) -> AsyncRegisteringDecorator: ...
@overload
def command(
    trigger: str | EllipsisType | None = None,
    prefix: str = "*",
    collect: bool = True,
    mode: str | None = "async_local",
    onRegistered: Callable[[], None] | None = None,
    *,
    on: Server,
    replace: bool | None = None,
    requirements: Iterable[Any] | None = None,
    typed: bool = False,
    ttl: float | None = None,
    coalesce: bool | None = None,
    key: str | Callable[..., Any] | None = None,
    timeout: float = ...,
    negative_ttl: float = ...,
    sliding: bool = ...,
    stale: float = ...,
    lease: float = ...,
    max_value_bytes: int = ...,
    max_bytes: int = ...,
    max_running: int = ...,
    namespace: str = ...,
    direct: bool = ...,
    inorder: bool = ...,
    convertToStr: bool = ...,
) -> RegisteringDecorator: ...
@overload
def command(
    trigger: str | EllipsisType | None = None,
    prefix: str = "*",
    collect: bool = True,
    mode: str | None = "async_local",
    onRegistered: Callable[[], None] | None = None,
    *,
    on: None = None,
    replace: bool | None = None,
    requirements: Iterable[Any] | None = None,
    typed: bool = False,
    ttl: float | None = None,
    coalesce: bool | None = None,
    key: str | Callable[..., Any] | None = None,
    timeout: float = ...,
    negative_ttl: float = ...,
    sliding: bool = ...,
    stale: float = ...,
    lease: float = ...,
    max_value_bytes: int = ...,
    max_bytes: int = ...,
    max_running: int = ...,
    namespace: str = ...,
    direct: bool = ...,
    inorder: bool = ...,
    convertToStr: bool = ...,
) -> Decorator: ...
def command(
    trigger: Any = None,
    prefix: str = "*",
    collect: bool = True,
    mode: str | None = "async_local",
    onRegistered: Callable[[], None] | None = None,
    *,
    typed: bool = False,
    ttl: float | None = None,
    coalesce: bool | None = None,
    key: str | Callable[..., Any] | None = None,
    **kargs: Any,
) -> Any:
    """Turn a function into a custom command; usable with or without parentheses.

    Args:
        trigger: name of the command; default: the function's name; ``...``: a unique name.
        prefix: ignored for commands.
        collect: whether results of all shards are collected.
        mode: see `redgrease.TriggerMode`. The default runs the function once, on the shard that was asked;
            ``"async"`` runs it on **every** shard of a cluster and answers with a list.
        onRegistered: called once on every shard when the command is registered.
        typed: whether arguments keep their types: `None`, numbers, texts, `bytes`, lists, tuples, dicts and sets
            arrive as they are, also by keyword. Otherwise they arrive as texts. Clients without this package send
            texts in any case.
        ttl: seconds that results are kept in the server; see below.
        coalesce: whether equal calls that come while the function runs, from all clients, wait for its result instead
            of running it again. Default: true with `ttl`.
        key: what makes calls equal: a format of the parameters, such as ``"user:{user_id}"``, or a function of the same
            arguments that returns a text or a number. Default: name and arguments.
        kargs: further arguments of `redgrease.OpenGearFunction.register`: ``on`` (a client: register there at once),
            ``requirements`` (packages that the function needs), ``replace`` (`None`: an existing command of that
            name raises; `False`: it stays; `True`: it is replaced), ``inorder``, ``convertToStr``. With `ttl` or
            `coalesce` also:

            - ``timeout`` (60): seconds that a call may wait, and the function may run;
            - ``negative_ttl`` (0): seconds that a failure is kept; 0: the next call runs the function again;
            - ``sliding`` (`False`): whether each call restarts `ttl`;
            - ``stale`` (0): seconds after `ttl` in which the old result is answered at once, while the function runs in
              the background;
            - ``lease`` (5): seconds that a call is blocked if the worker is killed while it runs;
            - ``max_value_bytes`` (16 MiB): longest result that is kept; longer ones are answered only;
            - ``max_bytes`` (0, no limit): total that is kept on a shard; what expires first is removed;
            - ``max_running`` (64): runs at the same time; further ones are refused;
            - ``namespace`` (``"cached"``): beginning of the names of keys;
            - ``direct`` (`False`): whether this package looks for the result with ``HMGET`` before it calls the
              command: a hit is faster, and the client needs permission to read the keys.

    Returns:
        A decorator. The function becomes a closed gear function with the same name, documentation and signature, whose
        ``.on(client)`` registers it. With ``on``, it becomes a callable that triggers the command and returns its
        `redgrease.data.ExecutionResult`; with `ttl` or `coalesce` that is a `redgrease.caching.CachedCommand`.

    Raises:
        TypeError: an argument is not known, or belongs to `ttl`.
        ValueError: an option is out of its range, or `key` names a parameter that the function does not have.
        redgrease.exceptions.DuplicateTriggerError: with ``on``: the command exists.

    >>> @command
    ... def ping():
    ...     "Answers."
    ...     return "pong"
    >>> ping
    CommandReader().map(Apply(ping)).register(mode='async_local', trigger='ping')
    >>> ping.__name__, ping.__doc__
    ('ping', 'Answers.')
    >>> @command(ttl=60, stale=600, key="user:{user}")
    ... def profile(user, language="en"):
    ...     return {"user": user}
    """
    if callable(trigger):
        options: Any = {"typed": typed, "ttl": ttl, "coalesce": coalesce, "key": key, **kargs}
        return command(None, prefix, collect, mode, onRegistered, **options)(trigger)
    name = str(uuid.uuid4()) if trigger is ... else trigger
    settings = _cache_settings(typed, ttl, coalesce, kargs)
    if settings is None and key is not None:
        raise TypeError("command: key= belongs to ttl= or coalesce=True")
    if settings is not None and mode == "async":
        raise ValueError("results are kept on the shard of their key: give mode='async_local', the default")
    replace, on, requirements = kargs.pop("replace", None), kargs.pop("on", None), kargs.pop("requirements", None)
    of_execution = execute_options(kargs, on)

    def decorate(function: Callable[..., Any]) -> Any:
        if not callable(function):
            raise TypeError(f"command decorates a function, not {function!r}")
        own = name or getattr(function, "__name__", None)
        applied: Apply = TypedApply(function) if typed else Apply(function)
        desc = None
        if settings is not None:
            from .caching.command import new_secret

            calls.check_key(str(own), calls.signature_of(function), key)
            applied = CachedApply(function, str(own), settings, key, new_secret())
            desc = DESCRIPTION + settings.dumps()
        closed = (
            CommandReader(desc=desc)
            ._add(Map(applied))
            .register(
                prefix=prefix,
                collect=collect,
                mode=mode,
                onRegistered=onRegistered,
                trigger=own,
                requirements=requirements,
                **({"on": on, "replace": replace, **of_execution} if "redisgears" in sys.modules else {}),
                **kargs,
            )
        )
        if not isinstance(closed, ClosedGearFunction):  # inside the server it is registered now
            return closed
        made: CommandFunction[Any] = CommandFunction(closed, function)
        return made.on(on, replace=replace, **of_execution) if on else made

    return decorate


DESCRIPTION = "redgrease cached command "
"""Beginning of the description of cached commands; their settings follow."""


def _cache_settings(typed: bool, ttl: Any, coalesce: Any, kargs: dict[str, Any]) -> CacheSettings | None:
    """Take the options of the cache out of `kargs`; `None` if results are not kept."""
    names = (
        "timeout",
        "negative_ttl",
        "sliding",
        "stale",
        "lease",
        "max_value_bytes",
        "max_bytes",
        "max_running",
        "namespace",
        "direct",
    )
    given = {name: kargs.pop(name) for name in names if name in kargs}
    if ttl is None and not coalesce:
        if given:
            raise TypeError(f"command: {', '.join(given)} belong to ttl= or coalesce=True")
        return None
    from .caching.settings import CacheSettings

    if ttl is not None and not ttl:
        raise ValueError("ttl is a number of seconds above 0; leave it out to keep nothing")
    return CacheSettings(ttl=ttl or 0, coalesce=coalesce is not False, typed=bool(typed), **given)


def trigger(*args: Any, **kwargs: Any) -> Any:
    """Old name of `command`."""
    warnings.warn("redgrease.trigger is an old name: use redgrease.command", DeprecationWarning, stacklevel=2)
    return command(*args, **kwargs)
