"""Where commands that keep things are registered and called: on a cluster, each key has its shard."""

from __future__ import annotations

import random
import time
from typing import Any, Callable

from redis.exceptions import MovedError, ResponseError, TryAgainError

from ..data import ExecutionResult
from ..engine import Gears, gears_of
from ..exceptions import ScriptError
from ..exchange import REDIRECTIONS_MAX, is_cluster
from ..link import client_of_node

__all__ = ["call", "client_of", "owner", "shards"]

#: Shortest and longest pause between two attempts while a slot is moved or a worker replaced, in seconds.
_PAUSE = (0.02, 0.1)


def client_of(server: Any) -> Any:
    """The redis-py client of a server argument."""
    return gears_of(server)._redis


def shards(redis: Any) -> list[Gears]:
    """All primaries of a cluster, or the one server."""
    if not is_cluster(redis):
        return [gears_of(redis)]
    return [Gears(client_of_node(redis, node)) for node in redis.get_primaries()]


def owner(redis: Any, key: str) -> Gears:
    """The server that has a key."""
    if not is_cluster(redis):
        gears: Gears = gears_of(redis)
        return gears
    return Gears(client_of_node(redis, redis.get_node_from_key(key)))


def call(
    redis: Any,
    key: str,
    patience: float,
    trigger: str,
    *arguments: Any,
    code: str,
    refused: Callable[[str, str], ResponseError],
    deaths_max: int = 0,
) -> ExecutionResult[Any]:
    """Trigger a command on the shard of a key.

    Args:
        redis: a client of redis-py.
        key: decides on the shard.
        patience: seconds that the command may take.
        trigger: name of the command.
        arguments: its arguments.
        code: first word of error replies of the cache itself.
        refused: makes the exception of such an error, from its kind and text.
        deaths_max: how often the call is repeated after the command's worker died while it ran.

    Raises:
        redis.exceptions.ResponseError: the error of the command.
    """
    end = time.monotonic() + patience
    moves = deaths = 0
    while True:
        try:
            return owner(redis, key)._trigger(trigger, *arguments, patience=patience)
        except MovedError:  # the client's view of the cluster is outdated
            moves += 1
            if moves > REDIRECTIONS_MAX or not is_cluster(redis):
                raise
        except TryAgainError:  # the slot is between two shards
            if time.monotonic() > end:
                raise
            time.sleep(random.uniform(*_PAUSE))
        except ScriptError as error:
            word, _, rest = error.raw.partition(" ")
            if word == code:
                kind, _, text = rest.partition(" ")
                raise refused(kind, text) from None
            deaths += word == "WORKERDIED"
            # The worker has died, before the request started or while it ran; a new one will be ready soon.
            again = (word == "WORKERDOWN" and rest.endswith("try again")) or (
                word == "WORKERDIED" and deaths <= deaths_max
            )
            if not again or time.monotonic() > end:
                raise
            time.sleep(random.uniform(*_PAUSE))
            continue
        if is_cluster(redis):
            redis.nodes_manager.initialize()
