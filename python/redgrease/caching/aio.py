"""What users of a client with coroutines call: a command whose results are kept."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Callable, TypeVar

from ..asyncio import Shared
from ..data import ExecutionResult
from ..exchange import Exchange
from .command import CachedProxy, Got
from .settings import CacheSettings

__all__ = ["AsyncCachedCommand"]

T = TypeVar("T")


class AsyncCachedCommand(CachedProxy):
    """A `CachedCommand` on a client with coroutines: everything but `key_of` is awaited.

    ``await command`` registers it; otherwise the first thing that is awaited does so. A function that calls it takes it
    along to the server as a `CachedCommand`, whose calls are not awaited.

    Raises (when awaited):
        redgrease.exceptions.DuplicateTriggerError: a command of that name exists, and ``replace`` was not given.
        redis.exceptions.ResponseError: the server refused the function.
        ValueError: ``replace`` is false, and the command that exists keeps no results.

    Attributes:
        trigger: name of the command.
        settings: its `redgrease.caching.settings.CacheSettings`; with ``replace=False`` those of the command that
            exists, as soon as it is known.
    """

    def __init__(
        self,
        gears: Any,
        name: str,
        function: Callable[..., Any] | None = None,
        settings: CacheSettings | None = None,
        key: str | Callable[..., Any] | None = None,
        secret: bytes = b"",
        registering: Callable[[], Exchange[CacheSettings]] | None = None,
    ) -> None:
        super().__init__(gears, name, function, settings, key, secret)
        self._registering = registering
        self._shared = Shared()

    def __await__(self) -> Generator[Any, None, ExecutionResult[Any]]:
        return self._ready().__await__()

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, ExecutionResult[Any]]:
        """As `CachedCommand.__call__`. Arguments that do not fit raise at once."""
        return self._run_call(self._calling, self._sent(args, kwargs), args, kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Got]:
        """As `CachedCommand.get`."""
        return self._run_call(self._getting, self._sent(args, kwargs), args, kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, bool]:
        """As `CachedCommand.invalidate`."""
        return self._run_call(self._forgetting, self._sent(args, kwargs), args, kwargs)

    async def invalidate_key(self, text: str | int) -> bool:
        """As `CachedCommand.invalidate_key`."""
        await self._ready()
        return await self._run(self._forgetting_text(self._text_of(text)))

    async def stats(self) -> dict[str, int]:
        """As `CachedCommand.stats`."""
        await self._ready()
        return await self._run(self._adding_up())

    async def unregister(self) -> None:
        """As `CachedCommand.unregister`. Nothing registers the command again."""
        await self._ready()
        await self._run(self._unregistering())

    async def _run_call(
        self,
        exchange: Callable[[tuple[Any, ...]], Exchange[T]],
        sent: tuple[Any, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> T:
        if self._registering is not None:
            await self._ready()
            sent = self._sent(args, kwargs)  # a command that exists may have other options
        return await self._run(exchange(sent))

    async def _run(self, exchange: Exchange[T]) -> T:
        result: T = await self._gears._run(exchange)
        return result

    async def _ready(self) -> ExecutionResult[Any]:
        """Register the command, once for all calls that wait for it."""
        if self._registering is not None:
            await self._shared.run(self._register)
        return ExecutionResult(self)

    async def _register(self) -> None:
        if self._registering is not None:
            self._settings = await self._gears._run(self._registering())
            self._may_read = self._settings.direct
            self._registering = None
