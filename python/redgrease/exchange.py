"""Requests to a server, without the sending: what `redgrease.commands` yields and a link performs.

An *exchange* is a generator that yields requests and is sent their replies; what it returns is its result. The same
exchanges are run by `redgrease.link.Link`, which waits for replies, and by `redgrease.asyncio`, which awaits them. An
exchange may also yield a `Pause`, or an exchange that runs `OnEachShard`.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar, Union

__all__ = [
    "MARGIN",
    "RAW",
    "REDIRECTIONS_MAX",
    "Exchange",
    "Key",
    "NotSentError",
    "OnEachShard",
    "Owner",
    "Pause",
    "Request",
    "Shards",
    "is_async",
    "is_cluster",
    "is_foreign",
    "is_pipeline",
    "late",
    "name_for_pool",
]

T = TypeVar("T")

RAW = {"NEVER_DECODE": True}
"""redis-py's option for undecoded replies."""

MARGIN = 5.0
"""Minimum of the additional seconds that a client waits for a reply to a request with `Request.patience`."""

REDIRECTIONS_MAX = 5
"""Maximum number of times that a request for a key is sent to another shard, because slots were moved."""


class Shards(enum.Enum):
    """The shards of a cluster that get a request. Without a cluster the server gets all requests."""

    ANY = "any"
    """One of them."""
    ALL = "all"
    """All of them: the reply is a dict of replies by ``"host:port"``; without a cluster its only key is ``""``."""


class Owner(NamedTuple):
    """The shard with this id."""

    shard_id: str


class Key(NamedTuple):
    """The shard that holds this key."""

    name: Any


class Request(NamedTuple):
    """A command to a server.

    Attributes:
        args: the command. Its reply is not decoded.
        to: the shards that get it.
        once: it starts or changes something: if the connection breaks, or no reply arrives in time, it is not repeated.
        patience: seconds that the command may take on the server. A client with a shorter time limit waits that long
            for this reply, plus its own time limit (at least `MARGIN`).
    """

    args: tuple[Any, ...]
    to: Shards | Owner | Key = Shards.ANY
    once: bool = False
    patience: float | None = None


class NotSentError(Exception):
    """A request was not sent, because there is no connection to the server; or it may be sent again.

    Attributes:
        error: why.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Pause(NamedTuple):
    """A pause of an exchange, in seconds."""

    seconds: float


class OnEachShard(NamedTuple):
    """An exchange that runs on all shards, one after the other.

    Attributes:
        start: makes the exchange for a shard. The results are a dict, as the replies to a request for `Shards.ALL`.
    """

    start: Callable[[], Exchange[Any]]


Exchange = Generator[Union[Request, Pause, OnEachShard], Any, T]
"""A generator of requests that is sent replies, or thrown exceptions, and returns a result."""


def is_cluster(client: Any) -> bool:
    """Whether a client is one for a cluster."""
    return hasattr(client, "get_primaries")


def is_async(client: Any) -> bool:
    """Whether commands of a client have to be awaited."""
    return inspect.iscoroutinefunction(getattr(client, "execute_command", None))


def is_pipeline(client: Any) -> bool:
    """Whether a client only collects commands, so that it has no replies to give."""
    return hasattr(client, "command_stack")


def is_foreign(client: Any) -> bool:
    """Whether a client is that of valkey-py, whose exceptions are not redis-py's."""
    return any(base.__module__.partition(".")[0] == "valkey" for base in type(client).__mro__)


def name_for_pool(pool: Any, command: Any) -> tuple[Any, ...]:
    """The arguments of ``get_connection``: pools of redis-py before 5.3 need the name of the command."""
    kind: Any = type(pool)
    return (command,) if _needs_name(kind) else ()


@functools.lru_cache(maxsize=64)
def _needs_name(pool: Any) -> bool:
    get_connection = getattr(pool, "get_connection", None)
    if get_connection is None:
        return False
    name = inspect.signature(get_connection).parameters.get("command_name")
    return name is not None and name.default is inspect.Parameter.empty


def late(command: Any, wait: float, patience: float) -> str:
    """The text of the error for a reply that did not arrive in time."""
    network = wait - patience
    return f"no reply to {command} within {wait:g} s: {patience:g} s for the command, and {network:g} s for the network"
