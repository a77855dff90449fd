"""Results of commands that are kept in the server, and calls that run once for all clients.

``@redgrease.command(on=r, ttl=60)`` makes a command whose results are kept; its name is then bound to a
`CachedCommand`, or on a client with coroutines to an `AsyncCachedCommand`. The words are those of the file cache: a
call is a *hit* (the result was there), *created* (this call ran the function) or *waited* (another call ran it). A
*lease*, a key with a short time to live that its holder renews, marks the worker that runs the function. Every wait has
a deadline.

- ``settings``: the options of a command, for worker and client;
- ``messages``: refusals, for both;
- ``store``: results and leases in the database, for the worker;
- ``flights``: one run for all calls that wait for it, for the worker;
- ``serving``: what answers a call in the worker;
- ``shards``: exchanges with all shards, or the shard of a key, for the client;
- ``command``: what users call, for the client, and ``aio`` for one with coroutines.

`redgrease.recipes.cache_get` uses the same modules. Those of the worker need only the standard library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aio import AsyncCachedCommand as AsyncCachedCommand
    from .command import CachedCommand as CachedCommand
    from .command import CacheError as CacheError
    from .command import Got as Got

__all__ = ["AsyncCachedCommand", "CacheError", "CachedCommand", "Got"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "aio" if name == "AsyncCachedCommand" else "command"
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
