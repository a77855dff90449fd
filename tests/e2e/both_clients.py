"""Tests for both kinds of clients: the same test calls either, and waits for the results of one with coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import redgrease
import redgrease.asyncio
import redis
import redis.asyncio
from redgrease import caching

__all__ = ["KINDS", "Client", "open_client"]

#: Seconds that a call of a test may take.
_WAIT_SECONDS = 60


class Client:
    """A blocking client of a server or a cluster.

    Attributes:
        gears: commands of the engine, blocking with both kinds of clients.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.redis = self._connect()
        self.gears = redgrease.RedisGears(host="127.0.0.1", port=port).gears

    def _connect(self) -> Any:
        return redgrease.RedisGears(host="127.0.0.1", port=self.port)

    def command(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """As `redgrease.command` with this client."""
        return redgrease.command(on=self.redis, **options)

    def register(self, function: Any, **options: Any) -> Any:
        """As the method `on` of a command."""
        return function.on(self.redis, **options)

    @contextlib.contextmanager
    def another(self, command: Any, function: Callable[..., Any], **options: Any) -> Iterator[Any]:
        """The same command with a client of redis-py of its own."""
        with redis.Redis(host="127.0.0.1", port=self.port, **options) as other:
            yield caching.CachedCommand(redgrease.Gears(other), command.trigger, function, command.settings)

    def close(self) -> None:
        """Close the connections."""
        self.gears._redis.close()
        self.redis.close()


class ClientWithCoroutines(Client):
    """A client with coroutines, and a thread for its event loop."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        super().__init__(port)

    def _connect(self) -> Any:
        async def connect() -> Any:
            return await redgrease.asyncio.RedisGears(host="127.0.0.1", port=self.port)

        return self._wait(connect)

    def command(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        return lambda function: self._waiting(redgrease.command(on=self.redis, **options)(function))

    def register(self, function: Any, **options: Any) -> Any:
        return self._waiting(function.on(self.redis, **options))

    @contextlib.contextmanager
    def another(self, command: Any, function: Callable[..., Any], **options: Any) -> Iterator[Any]:
        other = redis.asyncio.Redis(host="127.0.0.1", port=self.port, **options)
        gears = redgrease.asyncio.Gears(other)
        yield Waiting(caching.AsyncCachedCommand(gears, command.trigger, function, command.settings), self._wait)
        self._wait(other.aclose)

    def close(self) -> None:
        self.gears._redis.close()
        self._wait(self.redis.aclose)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_SECONDS)
        self._loop.close()

    def _waiting(self, command: Any) -> Waiting:
        """A command that was just registered."""

        async def register() -> Any:
            return await command

        self._wait(register)
        return Waiting(command, self._wait)

    def _wait(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            return await function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_WAIT_SECONDS)


class Waiting:
    """A command of a client with coroutines. In functions it is the command itself."""

    def __init__(self, command: Any, wait: Callable[..., Any]) -> None:
        self._command = command
        self._wait = wait

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wait(self._command, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._command, name)
        if name not in ("get", "invalidate", "invalidate_key", "stats", "unregister"):
            return found
        return lambda *args, **kwargs: self._wait(found, *args, **kwargs)

    def __reduce__(self) -> Any:
        return self._command.__reduce__()


KINDS = {"blocking": Client, "coroutines": ClientWithCoroutines}
"""The kinds of clients, for ``parametrize``."""


@contextlib.contextmanager
def open_client(kind: type[Client], port: int) -> Iterator[Client]:
    """A client of the server at a port, or of its cluster."""
    client = kind(port)
    yield client
    client.close()
